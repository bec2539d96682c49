"""Simulated annealing: a random walk that accepts worse networks at first, and only better ones later."""

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
    """Walks from a network to a mutation of it; accepts a worse one less and less often.

    Kirkpatrick et al., Optimization by simulated annealing, 1983.

    Args:
        space: where candidates come from.
        objectives: the first one decides.
        seed: decides every random choice.
        temperature: at the start, a loss of score of this size is accepted in one case of three.
        cooling: the temperature is multiplied by this after each trial.
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
        self.steps = 0

    def tell(self, trials: Sequence[Trial]) -> None:
        """Walk to each better network, and now and then to a worse one."""
        for trial in trials:
            self.steps += 1
            if trial.failure is None and self._takes(trial):
                self.here = trial

    def ask(self, count: int) -> list[Candidate]:
        """New networks, each as few mutations away from the place of the walk as possible."""
        found: list[Candidate] = []
        seen = self.taken
        near = [trial.job.candidate for trial in reversed(self.history)]
        for _ in range(count):
            candidate = self.unseen(partial(next, self._steps()), seen, near)
            if candidate is None:
                break
            seen.add(candidate.id)
            found.append(candidate)
        return found

    def _steps(self) -> Iterator[Candidate]:
        """Mutations of the network where the walk is, each of the one before; at the start, of a random one."""
        candidate = self.here.job.candidate if self.here else self.space.sample(self.rng)
        if self.here is None:
            yield candidate
        while True:
            with suppress(SpaceError):  # the space has only one network, and so no mutation
                candidate = self.space.mutate(candidate, self.rng)
            yield candidate

    def _takes(self, trial: Trial) -> bool:
        if self.here is None:
            return True
        loss = self.here.scores[0] - trial.scores[0]
        heat = self.temperature * self.cooling**self.steps
        # A number that follows from the trial: the walk is the same for any division of the trials into batches.
        luck = Random(f"{self.seed}/{trial.id}").random()
        return loss <= 0 or luck < math.exp(-loss / max(heat, 1e-12))
