"""The contract of strategies, and a test of the temperature."""

from __future__ import annotations

from random import Random

from nas_annealing import Annealing

from nas.spaces.cnn import Cnn
from nas.testing import StrategyContract
from nas.trial import Job, Trial


class TestAnnealing(StrategyContract):
    """Every requirement, with the default options."""

    plugin = Annealing


def test_a_cold_walk_goes_uphill_only() -> None:
    """A hot walk accepts every network."""
    rng = Random(0)
    trials = [Trial(Job(Cnn().sample(rng), 1.0, 1), scores=(score,)) for score in (0.5, 0.4, 0.6, 0.3)]
    for temperature, score in ((1e-9, 0.6), (1e9, 0.3)):
        walk = Annealing(Cnn(), temperature=temperature)
        walk.tell(trials)
        assert walk.here is not None
        assert walk.here.scores == (score,)
