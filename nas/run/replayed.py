"""A strategy that goes on: what it proposed before is known, so it is not asked for it again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from nas.errors import JournalError
from nas.records.record import Asked
from nas.spaces.space import Candidate
from nas.strategies.strategy import Strategy
from nas.trial import Trial


class ReplayedStrategy(Strategy):
    """Answers from the journal what the journal knows, and tells the strategy behind it what came of that.

    To ask `trial-and-error` for 1,000 candidates again takes 10 s, its Gaussian processes five minutes; to tell it
    of them takes one. Whether the strategy is what it was shows in the last batch that is known, for which it is
    asked. If it answers otherwise, it may keep more than its history, and is asked everything from the beginning.

    Args:
        make: makes the strategy.
        known: what it was asked for before, by the number of the batch.
        trusting: go on also where it answers otherwise; the strategy is another one on purpose.
    """

    def __init__(
        self, make: Callable[[], Strategy], known: Mapping[int, Asked], *, trusting: bool = False
    ) -> None:
        self._make, self._known, self._trusting = make, dict(known), trusting
        self._inner = make()
        self.history = []  # all that it shares with other strategies
        self.label = type(self._inner).__name__  # what it is called where it is to blame
        self._batch = 0

    def ask(self, count: int) -> list[Candidate]:
        """The candidates of this batch, as they were if they are known."""
        number, self._batch = self._batch, self._batch + 1
        known = self._known.get(number)
        if known is None:
            return self._inner.ask(count)
        is_last = number == max(self._known)
        if is_last and _ids(self._inner.ask(count)[:count]) != _ids(known.candidates):
            try:
                self._ask_everything_again(number)
            except JournalError:
                if not self._trusting:
                    raise
                self._inner = self._make()
                self._inner.tell(self.history)
        return list(known.candidates)

    def tell(self, trials: Sequence[Trial]) -> None:
        """Tell the strategy."""
        self.history += trials
        self._inner.tell(trials)

    def _ask_everything_again(self, last: int) -> None:
        self._inner = self._make()
        start = 0
        for number in range(last + 1):
            known = self._known.get(number)
            if known is None or _ids(self._inner.ask(known.wanted)[: known.wanted]) != _ids(known.candidates):
                raise JournalError(
                    f"this search cannot go on: of batch {number + 1}, the strategy {self.label} proposes other "
                    "candidates than before. It or the space is not what it was, or it does not follow from the "
                    "history and the seed alone; --force goes on all the same"
                )
            if number < last:
                end = start + len(known.candidates)
                self._inner.tell(self.history[start:end])
                start = end


def _ids(candidates: Iterable[Candidate]) -> list[str]:
    return [candidate.architecture.id for candidate in candidates]
