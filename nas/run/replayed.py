"""The strategy of a resumed search: the batches in the journal are answered from it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain

from nas.errors import JournalError
from nas.records.record import Asked
from nas.spaces.space import Candidate
from nas.strategies.strategy import Strategy
from nas.trial import Trial


class ReplayedStrategy(Strategy):
    """Proposes the known batches again, then those of the strategy that it wraps, which is told all trials.

    For 1,000 candidates, asking `trial-and-error` again takes 10 s (five minutes with Gaussian processes), telling
    it the trials takes one. The wrapped strategy is asked for the last known batch only, as a check. If its answer
    differs, it may depend on more than its history, and it is asked for every batch from the beginning.

    Args:
        make: makes the strategy.
        known: the batches in the journal, by their number.
        ahead: the number of batches in training at a time.
        trusting: go on even if the answers differ, because the user changed the strategy on purpose.
    """

    def __init__(
        self, make: Callable[[], Strategy], known: Mapping[int, Asked], *, ahead: int = 1, trusting: bool = False
    ) -> None:
        self._make, self._known, self._ahead, self._trusting = make, dict(known), ahead, trusting
        self._inner = make()
        self.label = type(self._inner).__name__  # the name in error messages
        self._batch = 0

    def ask(self, count: int) -> list[Candidate]:
        """The candidates of this batch: those in the journal if it has them."""
        number, self._batch = self._batch, self._batch + 1
        known = self._known.get(number)
        self._inner.in_training = self.in_training
        if known is None:
            return self._inner.ask(count)
        if number == max(self._known) and _ids(self._inner.ask(count)[:count]) != _ids(known.candidates):
            try:
                self._ask_everything_again(number)
            except JournalError:
                if not self._trusting:
                    raise
                self._inner = self._make()
                self._inner.tell(self.history)
                self._inner.in_training = self.in_training
        return list(known.candidates)

    def tell(self, trials: Sequence[Trial]) -> None:
        """Tell the wrapped strategy."""
        self._inner.in_training = self.in_training
        self._inner.tell(trials)

    def _ask_everything_again(self, last: int) -> None:
        self._inner, left = self._make(), list(self.history)
        waiting: deque[tuple[Candidate, ...]] = deque()  # the batches that are not told yet
        is_waiting = False  # whether the strategy has proposed nothing until it is told more
        for number in range(last + 1):
            if len(waiting) == self._ahead or is_waiting:
                count = len(waiting.popleft())
                self._inner.in_training = tuple(chain(*waiting))
                self._inner.tell(left[:count])
                left = left[count:]
            known = self._known.get(number)
            if known is None or _ids(self._inner.ask(known.wanted)[: known.wanted]) != _ids(known.candidates):
                raise JournalError(
                    f"this search cannot go on: for batch {number + 1}, the strategy {self.label} proposes other "
                    "candidates than before. Either it or the space has changed, or it depends on more than the "
                    "history and the seed; --force goes on with it"
                )
            if not (is_waiting := not known.candidates):
                waiting.append(known.candidates)
            self._inner.in_training = tuple(chain(*waiting))


def _ids(candidates: Iterable[Candidate]) -> list[str]:
    return [candidate.id for candidate in candidates]
