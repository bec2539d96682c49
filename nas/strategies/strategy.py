"""The interface of strategies: `ask` a strategy for candidates, `tell` it their trials."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from functools import wraps
from random import Random
from typing import Any

from nas.errors import SpaceError
from nas.objectives import Objective
from nas.spaces.space import Candidate, SearchSpace
from nas.trial import Trial

TRIES = 50  # draws before `unseen` tries another way to find a new candidate


class Strategy(ABC):
    """Proposes candidates. A strategy is a function of its history: (space, options, seed, trials) → candidates.

    Draw random numbers from `rng` and decide from `history`. Then an interrupted search can be resumed: it is run
    again, and known trials come from the journal. With ``--ahead`` a strategy is asked again before it is told the
    last candidates, which are in `in_training` meanwhile.

    Args:
        space: the space of the candidates.
        objectives: define ``Trial.scores``, in the same order.
        seed: decides every random choice, together with the number of candidates so far.
    """

    # How many candidates are drawn at random before it learns from their trials; a search with fewer says so.
    learns_after: int = 0
    # Candidates that were proposed and are not told yet, the oldest first; the search keeps them.
    in_training: tuple[Candidate, ...] = ()

    # Class attributes, so that they exist even if a plugin's __init__ does not call this one.
    _history: tuple[Trial, ...] = ()
    _ids_of_history: frozenset[str] = frozenset()
    _telling = False
    _rng: tuple[int, Random] | None = None

    def __init__(self, space: SearchSpace, *, objectives: Sequence[Objective] = (), seed: int = 0) -> None:
        self.space = space
        self.objectives = tuple(objectives)
        self.seed = seed

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if cls.tell is not Strategy.tell and not hasattr(cls.tell, "keeps_history"):
            cls.tell = _keeping_history(cls.tell)  # type: ignore[method-assign]

    @property
    def history(self) -> list[Trial]:
        """Every trial so far, the oldest first: a copy. This class keeps it, even if `tell` is overridden."""
        return list(self._history)

    @history.setter
    def history(self, trials: Sequence[Trial]) -> None:
        if tuple(trials) != self._history:  # `self.history = []` in a plugin's __init__ does no harm
            raise AttributeError("Strategy keeps the history: keep other trials under another name")

    @property
    def taken(self) -> set[str]:
        """The ids of all candidates so far: those of the history, and those in training."""
        return {*self._ids_of_history, *(candidate.id for candidate in self.in_training)}

    @property
    def rng(self) -> Random:
        """Random numbers, seeded anew from (seed, number of candidates so far) whenever that grows."""
        count = len(self._history) + len(self.in_training)
        if self._rng is None or self._rng[0] != count:
            self._rng = (count, Random(f"{self.seed}/{count}"))
        return self._rng[1]

    @abstractmethod
    def ask(self, count: int) -> list[Candidate]:
        """Up to ``count`` candidates; an empty list means that there is nothing left to propose."""

    def tell(self, trials: Sequence[Trial]) -> None:
        """Learn from the trials of the candidates that `ask` returned, one for each, in the same order.

        Override it to store values that are slow to compute from the history. The trials are in `history` when it
        returns, or as soon as it calls ``super().tell(trials)``, which is not necessary.
        """
        self._keep_history(self._history, trials)

    def _keep_history(self, before: tuple[Trial, ...], trials: Sequence[Trial]) -> None:
        self._history = (*before, *trials)
        self._ids_of_history = self._ids_of_history.union(trial.id for trial in trials)

    def unseen(
        self, make: Callable[[], Candidate], seen: AbstractSet[str], near: Iterable[Candidate] = ()
    ) -> Candidate | None:
        """A candidate that is not in ``seen``, or None if none is found.

        Args:
            make: proposes a candidate; after 50 that are in ``seen``, up to 50 are drawn from the space.
            seen: ids of candidates.
            near: candidates whose neighbours are tried when all of these draws are in ``seen``.

        Raises:
            SpaceError: ``seen`` is empty, and no network of the space fits.
        """
        for draw in (make, lambda: self.space.sample(self.rng)):
            for _ in range(TRIES):
                try:
                    candidate = draw()
                except SpaceError:
                    if not seen:
                        raise
                    break
                if candidate.id not in seen:
                    return candidate
        for start in near:
            for candidate in self.space.neighbours(start, self.rng):
                if candidate.id not in seen:
                    return candidate
        return None


def _keeping_history(tell: Callable[[Any, Sequence[Trial]], None]) -> Any:
    """A ``tell`` after which the history has the trials exactly once, with or without ``super().tell``."""

    @wraps(tell)
    def keeping(self: Strategy, trials: Sequence[Trial]) -> None:
        if self._telling:  # a call of super().tell; the outer call keeps the history
            tell(self, trials)
            return
        before, self._telling = self._history, True
        try:
            tell(self, trials)
        finally:
            self._telling = False
            self._keep_history(before, trials)

    vars(keeping)["keeps_history"] = True
    return keeping
