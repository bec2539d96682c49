"""Hill climbing: go to a better neighbour until there is none, then begin again from random networks."""

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
    """Tries the neighbours of the best network of a climb; if none is better, begins a new climb.

    A climb begins with a few random networks. Whenever a trial is better than all others of its climb, the search
    goes on around it (White et al., Local search is state of the art for NAS benchmarks, 2020). No candidate is
    proposed twice while new ones can be found.

    Args:
        space: where candidates come from.
        objectives: the first one decides.
        seed: decides every random choice.
        start: the number of random networks at the beginning of a climb.
    """

    def __init__(
        self, space: SearchSpace, *, objectives: Sequence[Objective] = (), seed: int = 0, start: int = 8
    ) -> None:
        super().__init__(space, objectives=objectives, seed=seed)
        if start < 1:
            raise UsageError(f"start must be 1 or more, not {start}")
        self.start = start
        self.climb = 0  # its number, which is also in the origin of the candidates that begin it
        self.begun = 0  # the number of finished trials among these
        self.top: Trial | None = None  # the best trial of this climb

    def tell(self, trials: Sequence[Trial]) -> None:
        """Note where a new climb begins, and the best trial of the climb."""
        for trial in trials:
            if _begins(trial.job.candidate):
                number = int(trial.job.candidate.origin.split()[1])
                if number != self.climb:
                    self.climb, self.begun, self.top = number, 0, None
                self.begun += 1
            if trial.failure is None and (self.top is None or trial.scores[0] > self.top.scores[0]):
                self.top = trial

    def ask(self, count: int) -> list[Candidate]:
        """The networks that begin a climb, or neighbours of the best network, in random order."""
        climbs = [self.climb, *(int(one.origin.split()[1]) for one in self.in_training if _begins(one))]
        climb = max(climbs)
        begun = climbs.count(climb) - 1 + self.begun if climb == self.climb else climbs.count(climb)
        if begun < self.start:
            return self._begin(climb, min(count, self.start - begun))
        found = self._around(self.top)[:count] if self.top and climb == self.climb else []
        if found or self.in_training:  # what is in training may be better than all others
            return found
        return self._begin(climb + 1, min(count, self.start))

    def _around(self, trial: Trial) -> list[Candidate]:
        """The new neighbours, in an order that follows from the trial, so that it is the same in every batch."""
        rng = Random(f"{self.seed}/{trial.id}")
        neighbours = {other.id: other for other in self.space.neighbours(trial.job.candidate, rng)}
        taken = self.taken
        new = [other for key, other in neighbours.items() if key not in taken]
        rng.shuffle(new)
        return new

    def _begin(self, climb: int, count: int) -> list[Candidate]:
        """New random networks, which begin a climb."""
        seen, found = self.taken, []
        near = [trial.job.candidate for trial in reversed(self.history)]
        for _ in range(count):
            candidate = self.unseen(lambda: self.space.sample(self.rng), seen, near)
            if candidate is None:
                break
            seen.add(candidate.id)
            found.append(replace(candidate, parents=(), origin=f"climb {climb}"))
        return found


def _begins(candidate: Candidate) -> bool:
    """Whether a network is one of those with which a climb begins."""
    return candidate.origin.startswith("climb ")
