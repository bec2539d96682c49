"""What an observer of a search is told while the search goes on."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from nas.records.outcome import Header, Outcome
from nas.spaces.space import Candidate
from nas.trial import Trial


class Observer:
    """Is told what happens; does nothing by itself. Its methods return at once and do not raise."""

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

    def trained(self, trial: Trial) -> None:
        """A training has ended, for any number of epochs: it is in the journal."""

    def told(self, trial: Trial) -> None:
        """A candidate has passed through all its rungs: the strategy will be told this trial of it."""

    def selecting(self, jobs: int, epochs: float) -> None:
        """The search is over: the best few are trained again, ``jobs`` trainings of ``epochs`` each."""

    def warned(self, message: str) -> None:
        """Something that the user should know, and that does not end the search."""

    def finished(self, outcome: Outcome) -> None:
        """There is a winner."""

    def failed(self, message: str) -> None:
        """The run has ended without a winner: it can go on when the cause is removed."""

    def interrupted(self) -> None:
        """The user ended the run."""

    def close(self) -> None:
        """Nothing more will happen: write everything that is still to be written."""


class Observers(Observer):
    """Several observers as one. Each is told everything, in their order; a warning is passed on only once.

    Every method is written out, so that a wrong name or argument is found by a type checker.
    """

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = tuple(observers)
        self._warnings = set[str]()

    def started(self, header: Header) -> None:
        """Tell each observer."""
        for observer in self._observers:
            observer.started(header)

    def resumed(self, told: int, trained: Collection[str], seconds: float) -> None:
        """Tell each observer."""
        for observer in self._observers:
            observer.resumed(told, trained, seconds)

    def asked(self, count: int, candidates: Sequence[Candidate]) -> None:
        """Tell each observer."""
        for observer in self._observers:
            observer.asked(count, candidates)

    def trained(self, trial: Trial) -> None:
        """Tell each observer."""
        for observer in self._observers:
            observer.trained(trial)

    def told(self, trial: Trial) -> None:
        """Tell each observer."""
        for observer in self._observers:
            observer.told(trial)

    def selecting(self, jobs: int, epochs: float) -> None:
        """Tell each observer."""
        for observer in self._observers:
            observer.selecting(jobs, epochs)

    def warned(self, message: str) -> None:
        """Tell each observer, once: several workers may warn of the same."""
        if message not in self._warnings:
            self._warnings.add(message)
            for observer in self._observers:
                observer.warned(message)

    def finished(self, outcome: Outcome) -> None:
        """Tell each observer."""
        for observer in self._observers:
            observer.finished(outcome)

    def failed(self, message: str) -> None:
        """Tell each observer."""
        for observer in self._observers:
            observer.failed(message)

    def interrupted(self) -> None:
        """Tell each observer."""
        for observer in self._observers:
            observer.interrupted()

    def close(self) -> None:
        """Tell each observer."""
        for observer in self._observers:
            observer.close()
