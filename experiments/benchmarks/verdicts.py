"""What the verdicts of a comparison are worth: made-up comparisons, in which the truth is known.

python experiments/benchmarks/verdicts.py [REPETITIONS]

Coverage: how often the 95 % interval of one pair holds the truth. Alarms: comparisons of four equal strategies, in
which any pair is said to differ. Found: a strategy that is better by two standard deviations, beside three others.
The accuracies of the winners are normal, exponential, or, of one strategy alone, always the same.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from nas.comparison.verdicts import Sample, verdicts

IMAGES = 20_000  # so many that their choice hardly matters
SPREAD = 0.01  # the standard deviation of the winners' accuracies

Draw = Callable[[np.random.Generator, int, int], Any]


def normal(random: np.random.Generator, strategies: int, seeds: int) -> Any:
    """Normal accuracies."""
    return random.normal(size=(strategies, seeds))


def exponential(random: np.random.Generator, strategies: int, seeds: int) -> Any:
    """Many similar winners, and a few that are much worse."""
    return 1 - random.exponential(size=(strategies, seeds))


def mixed(random: np.random.Generator, strategies: int, seeds: int) -> Any:
    """Exponential accuracies, but the first strategy always finds the same."""
    found = exponential(random, strategies, seeds)
    found[0] = 0.0
    return found


def samples(accuracies: Any) -> list[Sample]:
    """Strategies whose winners have these accuracies, in standard deviations from 90 %."""
    right = np.arange(IMAGES) < np.round(IMAGES * (0.9 + SPREAD * accuracies))[:, :, None]
    return [Sample(str(number), dict(enumerate(rows))) for number, rows in enumerate(right)]


def main(repetitions: int = 1000) -> None:
    """Print the tables."""
    random = np.random.default_rng(0)
    print(f"{repetitions} made-up comparisons each")
    for draw in (normal, exponential, mixed):
        cells = []
        for seeds in (3, 5, 10, 20):
            held = sum(not verdicts(samples(draw(random, 2, seeds)))[0].is_clear for _ in range(repetitions))
            cells.append(f"{100 * held / repetitions:.1f} %")
        print(f"coverage, {draw.__name__}, 3 5 10 20 seeds:", *cells, flush=True)
    for draw in (normal, exponential):
        cells = []
        for seeds in (3, 5, 10):
            found = (verdicts(samples(draw(random, 4, seeds))) for _ in range(repetitions))
            cells.append(f"{100 * sum(any(v.is_clear for v in one) for one in found) / repetitions:.1f} %")
        print(f"alarms, {draw.__name__}, four strategies, 3 5 10 seeds:", *cells, flush=True)
    better = np.zeros(3)
    for _ in range(repetitions):
        accuracies = normal(random, 4, 10)
        accuracies[0] += 2
        better += [verdict.better == "0" for verdict in verdicts(samples(accuracies))[:3]]
    print("found, beside each of three others, 10 seeds:", *(f"{100 * n / repetitions:.1f} %" for n in better))
    many = samples(normal(random, 12, 10))
    begun = time.perf_counter()
    verdicts(many)
    print(f"12 strategies, 10 seeds, {IMAGES:,} images: {time.perf_counter() - begun:.2f} s")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
