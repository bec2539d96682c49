"""The strategies propose what they proposed before: a golden file, and the script that wrote it beside it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from golden.write_candidates import SEEDS, SPACES, STRATEGIES, proposals

GOLDEN = json.loads(Path(__file__).with_name("golden").joinpath("candidates.json").read_text())


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_same_candidates_as_ever(strategy: str, space: str, seed: int) -> None:
    found, golden = proposals(strategy, space, seed), GOLDEN[f"{strategy} on {space}, seed {seed}"]
    assert len(found) == len(golden)
    # Two CPUs differ in the last digit of a logarithm, and with it in 2 of the 48 candidates of TPE.
    same = sum(one == other for one, other in zip(found, golden, strict=True))
    assert same >= (0.9 if strategy == "trial-and-error" else 1.0) * len(golden)
