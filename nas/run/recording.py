"""A run while it lasts: its resolved configuration, its journal, and its observers. Its end is always recorded."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from nas.dashboard.registry import log_model, warm_up
from nas.dashboard.store import network_warning, store_of
from nas.dashboard.thread import MlflowThread
from nas.errors import Interrupted, JournalError, StorageError, UsageError
from nas.evaluation.borrowing import BorrowingEvaluator, Lending
from nas.evaluation.cached import CachedEvaluator
from nas.files import write_whole
from nas.records import searches
from nas.records.journal import FILE, Journal
from nas.records.observer import Observer, Observers
from nas.records.outcome import Header
from nas.records.record import Record
from nas.run.resolve import Resolved


@dataclass(frozen=True)
class Start:
    """Where a run begins: in a new folder, or in the middle of a search whose journal is open."""

    folder: Path | None = None  # None: a new one in runs/
    journal: Journal | None = None
    more: bool = False  # whether the search was given more budget
    force: bool = False  # whether to go on even if something has changed that changes the result
    begun: float = field(default_factory=time.monotonic)  # when this process began to work on it
    comparison: Lending | None = None  # of a search in a comparison


@dataclass(frozen=True)
class Run:
    """A run while it lasts."""

    resolved: Resolved
    journal: Journal
    observer: Observers  # the journal, the caller's observers, MLflow
    begun: float  # when this process began to work on it
    comparison: Lending | None = None  # see `Start`

    @property
    def record(self) -> Record:
        """The content of the journal so far."""
        return self.journal.record

    @property
    def header(self) -> Header:
        """The configuration of the run."""
        return self.record.header

    @property
    def retrained(self) -> Path:
        """The folder for the weights of all networks that the final selection trains."""
        return self.header.folder / "retrained"

    @contextmanager
    def evaluator(self, *, weights: Path | None = None, until: float | None = None) -> Iterator[CachedEvaluator]:
        """An evaluator that asks the journal first and writes to it, for the length of a ``with`` block."""
        observer = self.observer
        made = self.resolved.make_evaluator(weights, until, observer.warned, observer.training)
        with made if hasattr(made, "__exit__") else nullcontext(made) as inner:
            trained, objectives = observer.trained, self.resolved.objectives
            if self.comparison is None:
                yield CachedEvaluator(inner, self.journal, objectives, trained, until=until, weights=weights)
                return
            with BorrowingEvaluator(inner, self.comparison, self.journal.path.parent, weights, until) as borrowing:
                yield CachedEvaluator(borrowing, self.journal, objectives, trained, until=until, weights=weights)


@contextmanager
def recorded(resolved: Resolved, start: Start, observers: Sequence[Observer]) -> Iterator[Run]:
    """Open the journal and tell the observers; afterwards nothing is left open or running.

    Raises:
        Interrupted: the user pressed Ctrl-C; the message says how to go on.
        NasError: the journal cannot be opened, or belongs to another search.
    """
    with _journal(resolved, start, Observers(observers)) as journal:
        every, caution = [journal, *observers], ""
        if resolved.experiment.mlflow != "off":
            uri = store_of(journal.path.parent, resolved.experiment.mlflow)
            caution = network_warning(uri)
            logs = partial(log_model, resolved.data.validation.inputs[:4]) if start.comparison is None else None
            mlflow = MlflowThread(
                journal.record,
                Observers(observers).warned,
                uri,
                logs,
                warm_up,
                pauses=start.comparison is not None,
            )
            every.append(mlflow)
        run = Run(resolved, journal, Observers(every), start.begun, start.comparison)
        run.observer.started(run.header)
        if start.journal is None and run.header.plan:
            run.observer.planned(run.header.plan)
        if caution:
            run.observer.warned(caution)
        if start.journal is not None:
            known = run.record
            run.observer.resumed(len(known.told), frozenset(known.trials), known.seconds)
        try:
            yield run
        except Exception as error:
            message = str(error) or type(error).__name__
            with suppress(StorageError):  # the error may itself be that the disk is full
                journal.stopped("failed", message)
            run.observer.failed(message)
            raise
        except KeyboardInterrupt:
            with suppress(StorageError):
                journal.stopped("interrupted", "")
            run.observer.interrupted()
            advice = "" if resolved.training else f"; {searches.go_on(run.header.folder, run.header.config)}"
            raise Interrupted(f"interrupted{advice}") from None
        finally:
            try:
                try:
                    if resolved.experiment.mlflow != "off" and run.record.outcome is not None:
                        run.observer.preparing("writing figures and the model")
                finally:
                    run.observer.close()
            except KeyboardInterrupt:  # the journal is complete; what MLflow lacks can be written later
                name = run.header.folder.name
                message = f"interrupted; `nas show {name}` shows the result, `nas sync {name}` writes it to MLflow"
                raise Interrupted(message) from None


@contextmanager
def _journal(resolved: Resolved, start: Start, observer: Observer) -> Iterator[Journal]:
    """The journal of a run, in which this process has begun its work; its folder holds the configuration."""
    header = resolved.about()
    if start.journal is not None:
        _compare(start.journal, header, observer, force=start.force)
        opened: Any = nullcontext(start.journal)
    else:
        opened = Journal(searches.new_folder(start.folder, resolved.kind) / FILE, begun=start.begun)
    with opened as journal:
        if start.journal is None and not journal.is_new:  # at the same moment, another process took the folder
            raise UsageError(f"{journal.path.parent} is not empty any more; choose another folder with --out")
        if not resolved.training:  # first, so that every search that has a journal can go on
            write_whole(journal.path.parent / searches.TOML, resolved.experiment.to_toml())
        if resolved.source.left_out:
            write_whole(journal.path.parent / searches.LEFT_OUT, _table(resolved.source.left_out))
        journal.begin(header, more=start.more, forced=start.force)
        yield journal


def _table(left_out: Sequence[tuple[str, str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("path", "reason"), *left_out])
    return text.getvalue()


def _compare(journal: Journal, header: dict[str, Any], observer: Observer, *, force: bool) -> None:
    """Warn of changes since the search began; refuse those that would change the result, unless forced."""
    before, networks = journal.record.about, [t.job.candidate.architecture for t in journal.record.trials.values()]
    used = {f"layer {type(layer).__name__}" for network in networks for layer in network.layers}
    unused = {kind for kind in header["plugins"] if kind.startswith("layer ")} - used
    # Without a configuration, the search had not begun.
    changes = searches.differences(before, header, unused) if "config" in before else []
    if changes and not force:
        name, listed = journal.path.parent.name, "; ".join(changes)
        raise JournalError(f"{name} has changed since it began: {listed}. --force goes on with it")
    changes += [
        f"{package} was {old}, and is {header['versions'][package]}: the last digits may differ"
        for package, old in before.get("versions", {}).items()
        if header["versions"].get(package) != old
    ]
    for change in changes:
        observer.warned(f"going on, but {change}")
