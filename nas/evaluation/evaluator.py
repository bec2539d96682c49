"""The interface of evaluators: an evaluator gets jobs and returns their trials."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

from nas.trial import Job, Trial


@runtime_checkable
class Evaluator(Protocol):
    """Trains networks. Evaluators can wrap one another; a search uses all of them in the same way.

    A plugin of this kind is made for one session. Its constructor may have these parameters: ``dataset`` and
    ``recipe`` (the data, and how to train), ``workers``, ``device``, ``group`` (the number of jobs that a worker
    trains at a time, or ``auto``), ``weights`` (a folder for ``<job key>.safetensors``, or None), ``until`` (the
    time, as in ``time.monotonic``, at which training stops, or None), ``warn`` (shows the user a line) and
    ``begun`` (is told which jobs a worker begins to train). If the plugin is a context manager, the session leaves
    it after its last job.

    The job of a candidate is trained with ``recipe.changed(job.candidate.recipe)``.
    """

    def __init__(self) -> None:
        """No arguments are required."""

    def evaluate(self, jobs: Sequence[Job], /) -> Iterator[Trial]:
        """One trial for each job, as they finish, in any order; fewer only if time is up.

        A job that fails gives a trial with a `Failure`; a problem of all jobs, such as a full disk, is raised as a
        `NasError`. Closing the iterator early cancels unfinished jobs.
        """
