"""The data that all figures of a record share: its trials by number, the best one, the reference networks."""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

from nas.architecture.known import LECTURE, NETWORKS
from nas.errors import JournalError
from nas.objectives import front, rank, scored
from nas.records.outcome import Importance
from nas.records.predictions import predictions_of
from nas.records.record import Record
from nas.report.forest import error_of, importances_of, least_error
from nas.trial import Trial

REFERENCES = 8  # more could not be distinguished by their marks


class Entry(NamedTuple):
    """A trial with its place in the search."""

    number: int  # from 1
    seconds: float  # of the search when the trial was finished
    trial: Trial


class Scene:
    """A record at one moment.

    Raises:
        JournalError: the record does not say what was searched, or its outcome names a training that it lacks.
        NasError: the predictions of the winner are damaged.
    """

    def __init__(self, record: Record) -> None:
        self.record, self.header = record, record.header
        header = self.header
        self.noun = header.inputs  # what the networks classify
        if not isinstance(header.dataset.get("name"), str):
            raise JournalError(f"{record.path} does not name the data set")
        entries = enumerate(tuple(record.told), 1)  # a copy: another thread may add to it meanwhile
        self.entries = [Entry(i, entry.seconds, scored(entry.trial, header.objectives)) for i, entry in entries]
        self.outcome = record.result()
        self.good = [entry for entry in self.entries if entry.trial.failure is None]
        self.failed = [entry for entry in self.entries if entry.trial.failure is not None]
        # Only the trials of the longest trainings are compared with one another; the others were stopped early.
        self.longest = max((entry.trial.job.epochs for entry in self.good), default=0.0)
        self.full = [entry for entry in self.good if entry.trial.job.epochs == self.longest]
        self.short = [entry for entry in self.good if entry.trial.job.epochs < self.longest]
        self.leader_name = "winner" if self.outcome else "best so far"
        self.leader: Entry | None  # the winner; before the end of the search, the best trial so far
        if self.outcome is None:
            self.leader = max(self.good, key=lambda entry: rank(entry.trial), default=None)
        else:
            key = self.outcome.winner.job.key
            self.leader = next((entry for entry in self.good if entry.trial.job.key == key), None)
        self.predictions = predictions_of(self.outcome) if self.outcome else None
        self.images = header.validated or None
        self.least_error = least_error(self.images)

    @cached_property
    def importances(self) -> list[Importance]:
        """How much each choice mattered, the most important one first."""
        return importances_of((entry.trial for entry in self.good), self.images)

    @cached_property
    def front_sizes(self) -> list[int]:
        """The number of networks on the Pareto front after each trial that did not fail."""
        best: list[Trial] = []
        sizes = []
        for entry in self.good:
            best = front([*best, entry.trial])
            sizes.append(len(best))
        return sizes

    def error(self, entry: Entry) -> float:
        """The share of the validation images that a network classifies wrongly, above 0."""
        return error_of(entry.trial, self.images)

    def references(self) -> dict[str, Entry]:
        """The known networks by their names, or the networks of the space that are nearest to them."""
        known: dict[str, Entry] = {}
        others: dict[str, Entry] = {}
        for entry in self.good:
            candidate = entry.trial.job.candidate
            own = candidate.architecture.id
            fallback = "lecture" if own == LECTURE.id else ""
            if name := candidate.origin if candidate.origin in NETWORKS else fallback:
                exact = own == NETWORKS[name].id
                known.setdefault(name if exact else f"nearest to {name}", entry)
            elif not candidate.choices and candidate.origin:
                others.setdefault(candidate.origin, entry)
        both = known | others
        return both if len(both) <= REFERENCES else known
