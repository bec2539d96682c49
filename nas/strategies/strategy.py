"""The interface of every strategy: `ask` for candidates, `tell` what came of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from random import Random

from nas.errors import SpaceError
from nas.objectives import Objective
from nas.spaces.space import Candidate, SearchSpace
from nas.trial import Trial

TRIES = 50  # how often a candidate is drawn anew because it was seen before


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

    def unseen(
        self, make: Callable[[], Candidate], seen: AbstractSet[str], near: Iterable[Candidate] = ()
    ) -> Candidate | None:
        """A candidate that was not seen before, or None where none can be found.

        Args:
            make: proposes one; after 50 that were seen, 50 are drawn from the space.
            seen: the ids of architectures.
            near: whose neighbours are tried when nothing else is new.

        Raises:
            SpaceError: nothing was seen, and yet nothing fits.
        """
        for source in (make, lambda: self.space.sample(self.rng)):
            for _ in range(TRIES):
                try:
                    candidate = source()
                except SpaceError:
                    if not seen:
                        raise
                    break
                if candidate.architecture.id not in seen:
                    return candidate
        for one in near:
            for candidate in self.space.neighbours(one, self.rng):
                if candidate.architecture.id not in seen:
                    return candidate
        return None
