"""A strategy: which network to try next. `nas search --strategy my-plugin` finds it by this file's name."""

from __future__ import annotations

from collections.abc import Sequence

from nas.objectives import Objective
from nas.spaces.space import Candidate, SearchSpace
from nas.strategies.strategy import Strategy


class MyPlugin(Strategy):
    """Changes one of the best networks so far (this line is what `nas plugins list` shows)."""

    # What comes after `seed` are options: `--set best=3`. Without any, leave __init__ out.
    def __init__(
        self, space: SearchSpace, *, objectives: Sequence[Objective] = (), seed: int = 0, best: int = 5
    ) -> None:
        super().__init__(space, objectives=objectives, seed=seed)
        self.best = best

    def ask(self, count: int) -> list[Candidate]:
        """Up to `count` candidates. They follow from the space, the options, the seed and the history alone."""
        # self.history has every trial so far, the oldest first. A failed one has no scores; of scores, more is
        # better, whatever the metric: the first one is that of the first objective.
        done = [trial for trial in self.history if trial.failure is None]
        parents = sorted(done, key=lambda trial: trial.scores[0], reverse=True)[: self.best]
        seen = {trial.id for trial in self.history}
        candidates: list[Candidate] = []
        while len(candidates) < count:
            # `unseen` calls _new until a network comes that was not seen before.
            candidate = self.unseen(lambda: self._new([one.job.candidate for one in parents]), seen)
            if candidate is None:
                break  # nothing is left; when nothing at all is returned, the search ends
            seen.add(candidate.architecture.id)
            candidates.append(candidate)
        return candidates

    def _new(self, parents: list[Candidate]) -> Candidate:
        # All random numbers are from self.rng. A space can sample, mutate, crossover, and list neighbours.
        if len(parents) < self.best:
            return self.space.sample(self.rng)
        return self.space.mutate(self.rng.choice(parents), self.rng)
