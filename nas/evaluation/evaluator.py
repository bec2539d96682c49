"""The interface of evaluators: an evaluator gets jobs and returns their trials."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from typing import Protocol, runtime_checkable

from nas.trial import Job, Trial

BUILT_IN = ("local", "ray")  # they train every network, at a pace that can be measured


@runtime_checkable
class Evaluator(Protocol):
    """Trains networks. Evaluators can wrap one another; a search uses all of them in the same way.

    A plugin of this kind is made for one session. Its constructor may have these parameters: ``dataset`` and
    ``recipe`` (the data, and how to train), ``workers``, ``device``, ``group`` (the number of jobs that a worker
    trains at a time, or ``auto``), ``weights`` (a folder for ``<job key>.safetensors``, or None), ``until`` (the
    time, as in ``time.monotonic``, at which training stops, or None), ``warn`` (shows the user a line) and
    ``begun`` (is told which jobs a worker begins to train). If the plugin is a context manager, the session leaves
    it after its last job.

    A class that trains on other machines than this one says so in two attributes: a class method ``hardware`` gets
    the options of the user and returns a `nas.evaluation.hardware.Hardware`; ``measures_alone = False`` says that
    the latency of a network is measured beside other trainings, which excludes objectives of time.

    The job of a candidate is trained with ``recipe.changed(job.candidate.recipe)``.
    """

    def __init__(self) -> None:
        """No arguments are required."""

    def evaluate(self, jobs: Sequence[Job], /) -> Iterator[Trial]:
        """One trial for each job, as they finish, in any order; fewer only if time is up.

        A job that fails gives a trial with a `Failure`; a problem of all jobs, such as a full disk, is raised as a
        `NasError`. Closing the iterator early cancels unfinished jobs.
        """


@runtime_checkable
class AheadEvaluator(Protocol):
    """Takes more jobs while it trains, as a search with ``--ahead`` has them.

    A plugin need not have these methods: without them it is given one group of jobs after the other.
    """

    def submit(self, jobs: Sequence[Job], /, turn: int) -> None:
        """Take jobs, and return at once. Of all that wait, those with the lowest turn begin first."""

    def finished(self) -> list[Trial]:
        """Wait until a job has ended; the trials since the last call. No trial: no job is left, or time is up."""

    def cancel(self) -> None:
        """Give up all jobs that have no trial yet."""

    def evaluate(self, jobs: Sequence[Job], /) -> Iterator[Trial]:
        """The trials of these jobs alone, as they finish; see `Evaluator`."""
        try:
            self.submit(jobs, 0)
            while trials := self.finished():
                yield from trials
        finally:
            self.cancel()


class OneAfterTheOther(AheadEvaluator):
    """An `AheadEvaluator` around an evaluator that has ``evaluate`` alone.

    Args:
        inner: trains.
        until: the time (``time.monotonic``) after which no group of jobs begins; None for no limit.
    """

    def __init__(self, inner: Evaluator, until: float | None = None) -> None:
        self._inner, self._until = inner, until
        self._waiting: list[tuple[int, Sequence[Job]]] = []  # turn, jobs
        self._running: Iterator[Trial] | None = None  # what `evaluate` has returned
        self._left = 0  # trials that it has still to give

    def submit(self, jobs: Sequence[Job], /, turn: int) -> None:
        """Take jobs."""
        self._waiting.append((turn, jobs))

    def finished(self) -> list[Trial]:
        """The next trial of the jobs with the lowest turn; those that were submitted together go together."""
        while self._running is not None or self._waiting:
            if self._running is None:
                if self._until is not None and time.monotonic() >= self._until:
                    break
                self._waiting.sort(key=lambda pair: pair[0])
                jobs = self._waiting.pop(0)[1]
                self._running, self._left = iter(self._inner.evaluate(jobs)), len(jobs)
            trial = next(self._running, None)
            if trial is not None:
                self._left -= 1
                return [trial]
            self._running = None
        return []

    def cancel(self) -> None:
        """Close what is in work, and forget what waits."""
        running, self._running, self._waiting = self._running, None, []
        if self._left <= 0:  # all trials are there: it comes to its end
            for _ in running or ():
                pass
        elif isinstance(running, Generator):
            running.close()


def ahead_of(evaluator: Evaluator, until: float | None = None) -> AheadEvaluator:
    """An evaluator that takes jobs while it trains; ``until``: see `OneAfterTheOther`.

    A class that changes ``evaluate`` alone, of one that has all methods, is asked by ``evaluate``.
    """
    if isinstance(evaluator, AheadEvaluator):
        for kind in type(evaluator).__mro__:  # the most special class first
            if "submit" in vars(kind):
                return evaluator
            if "evaluate" in vars(kind):
                break
    return OneAfterTheOther(evaluator, until)
