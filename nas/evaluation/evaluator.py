"""The interface of every evaluator: jobs in, trials out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

from nas.trial import Job, Trial


@runtime_checkable
class Evaluator(Protocol):
    """Trains networks, somewhere. Evaluators wrap one another; a search cannot tell one from another.

    A plugin of this kind is made for one session. Its constructor gets what it names of ``dataset`` and ``recipe``
    (what to learn from, and how), ``workers``, ``device``, ``group`` (how many jobs a worker trains at a time, or
    ``auto``), ``weights`` (a folder for ``<job key>.safetensors``, or None where weights are not wanted),
    ``until`` (a moment of ``time.monotonic`` when time is up, or None) and ``warn`` (shows the user a line). If it
    is a context manager, it is left when the session has no more jobs.
    """

    def __init__(self) -> None:
        """Nothing is needed."""

    def evaluate(self, jobs: Sequence[Job], /) -> Iterator[Trial]:
        """One trial for each job, as they finish, in any order.

        A job that fails is a trial with a `Failure`; what no job can help, such as a full disk, is raised as a
        `NasError`. Fewer trials come back only when time is up. Leaving the iterator early gives up what has not
        finished.
        """
