"""What an observer of a search is told while it goes on."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from nas.records.outcome import Header, Outcome
from nas.spaces.space import Candidate
from nas.trial import Trial


class Observer:
    """Is told what happens; does nothing by itself. It returns at once and does not raise."""

    def started(self, header: Header) -> None:
        """A search begins, or goes on."""

    def resumed(self, told: int, trained: Collection[str], seconds: float) -> None:
        """The search goes on: what is known, candidates and trainings (keys of jobs), and its seconds so far."""

    def asked(self, count: int, candidates: Sequence[Candidate]) -> None:
        """The strategy was asked for ``count`` candidates, and proposed these."""

    def trained(self, trial: Trial) -> None:
        """A training ended, at whatever fidelity: it is in the journal."""

    def told(self, trial: Trial) -> None:
        """A candidate is through all its rungs: the strategy is told this trial of it."""

    def selecting(self, jobs: int, epochs: float) -> None:
        """The search is over: the best few are trained again, ``jobs`` trainings of ``epochs`` each."""

    def warned(self, message: str) -> None:
        """Something that the person should know, and that does not end the search."""

    def finished(self, outcome: Outcome) -> None:
        """There is a winner."""

    def failed(self, message: str) -> None:
        """The run ended without a winner: it can go on when what is wrong was put right."""

    def interrupted(self) -> None:
        """Somebody ended the run."""

    def close(self) -> None:
        """Everything was told: write what is still to be written."""
