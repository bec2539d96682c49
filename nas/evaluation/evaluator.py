"""The interface of every evaluator: it gets jobs and returns their trials."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

from nas.trial import Job, Trial


@runtime_checkable
class Evaluator(Protocol):
    """Trains networks. Evaluators can wrap one another; a search uses all of them in the same way.

    A plugin of this kind is made for one session. Its constructor gets what it names of ``dataset`` and ``recipe``
    (what to learn from, and how), ``workers``, ``device``, ``group`` (how many jobs a worker trains at a time, or
    ``auto``), ``weights`` (a folder for ``<job key>.safetensors``, or None where weights are not wanted),
    ``until`` (a moment of ``time.monotonic`` when time is up, or None) and ``warn`` (shows the user a line). If it
    is a context manager, it is left when the session has no more jobs.
    """

    def __init__(self) -> None:
        """No arguments are required."""

    def evaluate(self, jobs: Sequence[Job], /) -> Iterator[Trial]:
        """One trial for each job, as they finish, in any order.

        A job that fails gives a trial with a `Failure`; a problem of all jobs, such as a full disk, is raised as a
        `NasError`. There are fewer trials only if time is up. Closing the iterator early cancels unfinished jobs.
        """
