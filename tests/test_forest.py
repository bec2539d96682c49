"""How much choices mattered: a forest finds the one that decides, whatever the types of the answers."""

from __future__ import annotations

import math
from random import Random
from typing import Any

from nas.report.forest import FEWEST, importances, spread


def trials(count: int = 40) -> list[tuple[dict[str, Any], float, float]]:
    """The error follows from ``kind`` and a little from ``width``; ``noise`` has no effect."""
    random, found = Random(1), []
    for _ in range(count):
        kind, width = random.choice(["plain", "residual", None]), random.choice([8, 16, 32])
        choices: dict[str, Any] = {
            "kind": kind,
            "width": width,
            "noise": random.random(),
            "flag": random.random() < 0.5,
        }
        if kind == "plain":
            choices["asked later"] = random.choice([True, "text", math.inf, 3])
        error = {"plain": 0.3, "residual": 0.1, None: 0.2}[kind] * (1 + 1 / width)
        found.append((choices, 1.0, error))
    return found


def test_the_choice_that_decides_is_found() -> None:
    found = importances(trials())
    assert found[0].name == "kind"
    shares = {one.name: one.share for one in found}
    assert shares["kind"] > 0.5
    assert shares["noise"] < 0.1
    assert shares.keys() == {"kind", "width", "noise", "flag", "asked later"}
    assert found == importances(trials())  # the same in every drawing


def test_few_or_equal_trials_say_nothing() -> None:
    assert importances(trials(FEWEST - 1)) == []
    assert importances([(choices, epochs, 0.5) for choices, epochs, _ in trials()]) == []
    assert importances([({}, 1.0, 0.1 * number) for number in range(1, 30)]) == []


def test_a_sample_comes_from_all_parts_of_the_search() -> None:
    assert list(spread(range(10), 4)) == [0, 2, 5, 7]
    assert list(spread(range(4), 4)) == [0, 1, 2, 3]
