"""A strategy: which network to try next. `nas search --strategy my-plugin` finds it by this file's name."""

from __future__ import annotations

from collections.abc import Sequence

from nas.objectives import Objective
from nas.spaces.space import Candidate, SearchSpace
from nas.strategies.strategy import Strategy


class MyPlugin(Strategy):
    """Changes one of the best networks so far (`nas plugins list` shows this line)."""

    # Arguments after `seed` are options: `--set best=3`. Without options, __init__ is not needed.
    def __init__(
        self, space: SearchSpace, *, objectives: Sequence[Objective] = (), seed: int = 0, best: int = 5
    ) -> None:
        super().__init__(space, objectives=objectives, seed=seed)
        self.best = best

    def ask(self, count: int) -> list[Candidate]:
        """Up to `count` candidates, which depend on the space, the options, the seed and the history only."""
        # self.history has every trial so far, the oldest first. A trial has one score for each objective, and
        # higher is better for every metric; a failed trial has no scores.
        done = [trial for trial in self.history if trial.failure is None]
        parents = sorted(done, key=lambda trial: trial.scores[0], reverse=True)[: self.best]
        seen = self.taken  # the ids of all candidates so far
        candidates: list[Candidate] = []
        while len(candidates) < count:
            # `unseen` calls _new until it returns a network that is not in `seen`.
            candidate = self.unseen(lambda: self._new([parent.job.candidate for parent in parents]), seen)
            if candidate is None:
                break  # no new network was found; the search ends when `ask` returns an empty list
            seen.add(candidate.id)
            candidates.append(candidate)
        return candidates

    def _new(self, parents: list[Candidate]) -> Candidate:
        # Take all random numbers from self.rng. A space can sample, mutate, crossover and list neighbours.
        if len(parents) < self.best:
            return self.space.sample(self.rng)
        return self.space.mutate(self.rng.choice(parents), self.rng)
