"""What an observer of a search is told while the search goes on."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Sequence
from typing import Concatenate, ParamSpec

from nas.errors import UsageError, quoted
from nas.records.outcome import Header, Outcome
from nas.spaces.space import Candidate
from nas.trial import Job, Trial

P = ParamSpec("P")


class Observer:
    """Is told what happens; does nothing by itself. Its methods return at once and do not raise."""

    def reading(self, done: int, total: int) -> None:
        """Before the search begins: so many of so many images are decoded."""

    def preparing(self, what: str) -> None:
        """Before the search begins or after its last training: this is done, which takes some seconds."""

    def planned(self, plan: str) -> None:
        """A new search begins, and this is its plan, with the time that it will take."""

    def started(self, header: Header) -> None:
        """A search begins, or goes on."""

    def resumed(self, told: int, trained: Collection[str], seconds: float) -> None:
        """The search goes on.

        Args:
            told: how many candidates are known from before.
            trained: the keys of the jobs that were trained before.
            seconds: how long the search has taken so far.
        """

    def asked(self, count: int, candidates: Sequence[Candidate]) -> None:
        """The strategy was asked for ``count`` candidates, and proposed these."""

    def training(self, jobs: Sequence[Job]) -> None:
        """A worker begins to train these jobs: on a CPU one, on a GPU several at a time."""

    def trained(self, trial: Trial) -> None:
        """A training has ended, for any number of epochs: it is in the journal."""

    def told(self, trial: Trial) -> None:
        """A candidate is finished; the strategy gets this trial."""

    def ended(self, reason: str) -> None:
        """The search ends before its budget is spent, because it has its target, or nothing gets better."""

    def selecting(self, jobs: int, epochs: float) -> None:
        """The search is over: the finalists are trained again, ``jobs`` trainings of ``epochs`` each."""

    def warned(self, message: str) -> None:
        """Something happened that the user should know, and that does not end the search."""

    def finished(self, outcome: Outcome) -> None:
        """There is a winner."""

    def failed(self, message: str) -> None:
        """The run has ended without a winner: it can go on when the cause is removed."""

    def interrupted(self) -> None:
        """The user ended the run."""

    def close(self) -> None:
        """Nothing more will happen: write everything that is still to be written."""


def _each(method: Callable[Concatenate[Observer, P], None]) -> Callable[Concatenate[Observers, P], None]:
    def call(self: Observers, /, *args: P.args, **kwargs: P.kwargs) -> None:
        for observer in self.observers:
            getattr(observer, method.__name__)(*args, **kwargs)

    return call


class PythonWarnings(Observer):
    """Makes the warnings of a search those of Python, for a program that gave it no observer."""

    def warned(self, message: str) -> None:
        """Warn with Python's means."""
        warnings.warn(message, stacklevel=2)


class Observers(Observer):
    """Several observers as one. Each is told everything, in their order; a warning is passed on only once."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        if not isinstance(observers, list | tuple) or not all(isinstance(one, Observer) for one in observers):
            raise UsageError(f"observers = {quoted(observers)}: it should be a list of objects of Observer")
        self.observers = tuple(observers)
        self._warnings = set[str]()

    # A type checker finds a wrong name here, and a wrong argument where one of these is called.
    reading = _each(Observer.reading)
    preparing = _each(Observer.preparing)
    planned = _each(Observer.planned)
    started = _each(Observer.started)
    resumed = _each(Observer.resumed)
    asked = _each(Observer.asked)
    training = _each(Observer.training)
    trained = _each(Observer.trained)
    told = _each(Observer.told)
    ended = _each(Observer.ended)
    selecting = _each(Observer.selecting)
    finished = _each(Observer.finished)
    failed = _each(Observer.failed)
    interrupted = _each(Observer.interrupted)
    close = _each(Observer.close)

    def warned(self, message: str) -> None:
        """Tell each observer, once: several workers may send the same warning."""
        if message not in self._warnings:
            self._warnings.add(message)
            for observer in self.observers:
                observer.warned(message)
