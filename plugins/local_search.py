"""Hill climbing: from a network to the best of its neighbours, until none is better; then from somewhere else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random

from nas.errors import UsageError
from nas.objectives import Objective
from nas.spaces.space import Candidate, SearchSpace
from nas.strategies.strategy import Strategy
from nas.trial import Trial


class LocalSearch(Strategy):
    """Tries the neighbours of the best network of a climb; where none is better, begins a new climb.

    A climb begins with a few random networks. Whenever a trial is better than all others of its climb, the search
    goes on around it (White et al., Local search is state of the art for NAS benchmarks, 2020). What was proposed
    before is not proposed again while something new can be found.

    Args:
        space: where candidates come from.
        objectives: the first one decides.
        seed: decides every random choice.
        start: with how many random networks a climb begins.
    """

    def __init__(
        self, space: SearchSpace, *, objectives: Sequence[Objective] = (), seed: int = 0, start: int = 8
    ) -> None:
        super().__init__(space, objectives=objectives, seed=seed)
        if start < 1:
            raise UsageError(f"start must be 1 or more, not {start}")
        self.start = start
        self.seen: set[str] = set()
        self.climb = 0  # its number; the candidates that begin it carry it, so that a trial says where it belongs
        self.begun = 0  # how many of the networks that begin it were told
        self.top: Trial | None = None  # the best of this climb

    def tell(self, trials: Sequence[Trial]) -> None:
        """Climb."""
        super().tell(trials)
        for trial in trials:
            self.seen.add(trial.id)
            word, _, number = trial.job.candidate.origin.partition(" ")
            if word == "climb":
                if int(number) != self.climb:
                    self.climb, self.begun, self.top = int(number), 0, None
                self.begun += 1
            if trial.failure is None and (self.top is None or trial.scores[0] > self.top.scores[0]):
                self.top = trial

    def ask(self, count: int) -> list[Candidate]:
        """The networks that begin a climb, or neighbours of the best one, in random order."""
        if self.begun < self.start:
            return self._begin(self.climb, min(count, self.start - self.begun))
        found = self._around(self.top)[:count] if self.top else []
        return found or self._begin(self.climb + 1, min(count, self.start))

    def _around(self, trial: Trial) -> list[Candidate]:
        """The neighbours that were not seen before. Their order is the trial's own, whenever it is asked for."""
        rng = Random(f"{self.seed}/{trial.id}")
        every = {one.architecture.id: one for one in self.space.neighbours(trial.job.candidate, rng)}
        new = [one for one in every.values() if one.architecture.id not in self.seen]
        rng.shuffle(new)
        return new

    def _begin(self, climb: int, count: int) -> list[Candidate]:
        """Networks that were not seen before, to begin a climb with."""
        seen, found = set(self.seen), []
        near = [trial.job.candidate for trial in reversed(self.history)]
        for _ in range(count):
            candidate = self.unseen(lambda: self.space.sample(self.rng), seen, near)
            if candidate is None:
                break
            seen.add(candidate.architecture.id)
            found.append(replace(candidate, parents=(), origin=f"climb {climb}"))
        return found
