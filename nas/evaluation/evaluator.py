"""The interface of every evaluator: jobs in, trials out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from nas.trial import Job, Trial


class Evaluator(Protocol):
    """Trains networks, somewhere. Evaluators wrap one another; a search cannot tell one from another."""

    def evaluate(self, jobs: Sequence[Job], /) -> Iterator[Trial]:
        """One trial for each job, as they finish, in any order.

        A job that fails is a trial with a `Failure`. Fewer trials come back only when time is up. Leaving
        the iterator early gives up what has not finished.
        """
