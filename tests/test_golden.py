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
    assert proposals(strategy, space, seed) == GOLDEN[f"{strategy} on {space}, seed {seed}"]
