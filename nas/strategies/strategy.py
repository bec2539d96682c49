"""The interface of every strategy: `ask` for candidates, `tell` what came of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from random import Random

from nas.spaces.space import Candidate, SearchSpace
from nas.trial import Objective, Trial


class Strategy(ABC):
    """Proposes candidates. A function of its history: (space, options, seed, trials told) → candidates.

    Draw from `rng` and decide from `history`, keep nothing else, and a search that was killed can be resumed:
    it is run again, and answered from its journal.

    Args:
        space: where candidates come from.
        objectives: what ``Trial.scores`` are, in that order.
        seed: decides every random choice, together with the number of trials told.
    """

    def __init__(self, space: SearchSpace, *, objectives: Sequence[Objective] = (), seed: int = 0) -> None:
        self.space = space
        self.objectives = tuple(objectives)
        self.seed = seed
        self.history: list[Trial] = []
        self._rng = (-1, Random())

    @property
    def rng(self) -> Random:
        """Random numbers, begun afresh from (seed, number of trials told) whenever trials were told."""
        told = len(self.history)
        if self._rng[0] != told:
            self._rng = (told, Random(f"{self.seed}/{told}"))
        return self._rng[1]

    @abstractmethod
    def ask(self, count: int) -> list[Candidate]:
        """Up to ``count`` candidates; none means that there is nothing left to propose."""

    def tell(self, trials: Sequence[Trial]) -> None:
        """Take in what came of the candidates: one trial for each that was asked, in that order.

        A strategy that overrides this calls ``super().tell(trials)``.
        """
        self.history.extend(trials)
