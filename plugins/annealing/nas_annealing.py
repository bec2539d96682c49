"""Simulated annealing: a walk that at first goes anywhere, and later only uphill."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from random import Random

from nas.errors import SpaceError, UsageError
from nas.objectives import Objective
from nas.spaces.space import Candidate, SearchSpace
from nas.strategies.strategy import Strategy
from nas.trial import Trial


class Annealing(Strategy):
    """Walks from a network to a mutation of it; goes to a worse one less and less often.

    Kirkpatrick et al., Optimization by simulated annealing, 1983.

    Args:
        space: where candidates come from.
        objectives: the first one decides.
        seed: decides every random choice.
        temperature: the loss of score that is accepted at the start in one case of three.
        cooling: what is left of the temperature after each trial.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        objectives: Sequence[Objective] = (),
        seed: int = 0,
        temperature: float = 0.1,
        cooling: float = 0.97,
    ) -> None:
        super().__init__(space, objectives=objectives, seed=seed)
        if temperature <= 0:
            raise UsageError(f"temperature must be more than 0, not {temperature}")
        if not 0 < cooling < 1:
            raise UsageError(f"cooling must be between 0 and 1, not {cooling}")
        self.temperature = temperature
        self.cooling = cooling
        self.here: Trial | None = None
        self.seen: set[str] = set()

    def tell(self, trials: Sequence[Trial]) -> None:
        """Walk: to whatever is better, and now and then to something worse."""
        for trial in trials:
            # One trial at a time, with a number that follows from the trial: however many are told at once, it is
            # the same walk.
            super().tell([trial])
            self.seen.add(trial.id)
            if trial.failure is None and self._takes(trial):
                self.here = trial

    def ask(self, count: int) -> list[Candidate]:
        """Networks that were not seen before, as near as they come to where the walk is."""
        found: list[Candidate] = []
        seen = set(self.seen)
        near = [trial.job.candidate for trial in reversed(self.history)]
        for _ in range(count):
            candidate = self.unseen(partial(next, self._steps()), seen, near)
            if candidate is None:
                break
            seen.add(candidate.architecture.id)
            found.append(candidate)
        return found

    def _steps(self) -> Iterator[Candidate]:
        """A mutation of the network where the walk is, one of that, and so on; at the start, a random network."""
        candidate = self.here.job.candidate if self.here else self.space.sample(self.rng)
        if self.here is None:
            yield candidate
        while True:
            with suppress(SpaceError):  # it has no mutations: it is the only network of the space
                candidate = self.space.mutate(candidate, self.rng)
            yield candidate

    def _takes(self, trial: Trial) -> bool:
        if self.here is None:
            return True
        loss = self.here.scores[0] - trial.scores[0]
        heat = self.temperature * self.cooling ** len(self.history)
        luck = Random(f"{self.seed}/{trial.id}").random()
        return loss <= 0 or luck < math.exp(-loss / max(heat, 1e-12))
