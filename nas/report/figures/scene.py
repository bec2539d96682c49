"""The data that all figures of a record share: its trials by number, the best one, the reference networks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from nas.architecture.known import KNOWN, LECTURE
from nas.errors import JournalError
from nas.objectives import rank, scored
from nas.records.outcome import Header, Outcome
from nas.records.record import Record
from nas.trial import Trial

REFERENCES = 8  # more could not be distinguished by their marks


class Entry(NamedTuple):
    """A trial with its place in the search."""

    number: int  # from 1
    seconds: float  # of the search when the trial was finished
    trial: Trial


@dataclass(frozen=True)
class Scene:
    """A record at one moment."""

    header: Header
    entries: tuple[Entry, ...]
    outcome: Outcome | None

    @classmethod
    def of(cls, record: Record) -> Scene:
        """The scene of a record.

        Raises:
            JournalError: the record does not say what was searched, or its outcome names a training that it lacks.
        """
        header = record.header
        if not isinstance(header.dataset.get("name"), str):
            raise JournalError(f"{record.path} does not name the data set")
        told = tuple(record.told)  # another thread may add to it meanwhile
        entries = (
            Entry(i, entry.seconds, scored(entry.trial, header.objectives)) for i, entry in enumerate(told, 1)
        )
        return cls(header, tuple(entries), record.result())

    @cached_property
    def good(self) -> list[Entry]:
        """The trials that did not fail."""
        return [entry for entry in self.entries if entry.trial.failure is None]

    @cached_property
    def failed(self) -> list[Entry]:
        """The trials that failed."""
        return [entry for entry in self.entries if entry.trial.failure is not None]

    @cached_property
    def longest(self) -> float:
        """The number of epochs of the longest training."""
        return max((entry.trial.job.epochs for entry in self.good), default=0.0)

    @cached_property
    def full(self) -> list[Entry]:
        """The trials that were trained longest; only these are compared with one another."""
        return [entry for entry in self.good if entry.trial.job.epochs == self.longest]

    @cached_property
    def short(self) -> list[Entry]:
        """The trials that were stopped early."""
        return [entry for entry in self.good if entry.trial.job.epochs < self.longest]

    @cached_property
    def leader(self) -> Entry | None:
        """The winner; before there is one, the best so far."""
        if self.outcome is None:
            return max(self.good, key=lambda entry: rank(entry.trial), default=None)
        key = self.outcome.winner.job.key
        return next((entry for entry in self.good if entry.trial.job.key == key), None)

    @property
    def leader_name(self) -> str:
        """The name of the leader in titles and legends."""
        return "winner" if self.outcome else "best so far"

    @cached_property
    def references(self) -> dict[str, Entry]:
        """The known networks by their names, or the networks of the space that are nearest to them."""
        found: dict[str, Entry] = {}
        others: dict[str, Entry] = {}
        for entry in self.good:
            candidate = entry.trial.job.candidate
            known = KNOWN.get(candidate.origin)
            if known is not None or entry.trial.id == LECTURE.id:
                exact = known is None or known.id == entry.trial.id
                name = candidate.origin if known is not None else "lecture"
                found.setdefault(name if exact else f"nearest to {name}", entry)
            elif not candidate.choices and candidate.origin:
                others.setdefault(candidate.origin, entry)
        both = found | others
        return both if len(both) <= REFERENCES else found

    @cached_property
    def least_error(self) -> float:
        """The value that stands for an error of zero on a logarithmic axis: half an image."""
        images = self.header.dataset.get("validation")
        return 0.5 / images if isinstance(images, int) and images > 0 else 1e-4
