"""A run while it lasts: what was resolved, its journal, and its observers. Whatever ends it is written down."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from nas.dashboard.registry import log_model, warm_up
from nas.dashboard.store import store_of
from nas.dashboard.thread import MlflowThread
from nas.errors import Interrupted, JournalError, StorageError, UsageError
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
    more: bool = False  # there is more budget than before
    force: bool = False  # go on, even if something has changed that changes the result
    moment: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class Run:
    """A run while it lasts."""

    resolved: Resolved
    journal: Journal
    observer: Observers  # the journal, the caller's observers, MLflow

    @property
    def record(self) -> Record:
        """What the journal says so far."""
        return self.journal.record

    @property
    def header(self) -> Header:
        """What the run is."""
        return self.record.header

    @property
    def retrained(self) -> Path:
        """The folder for the weights of all networks that are trained for the final selection."""
        return self.header.folder / "retrained"

    @contextmanager
    def evaluator(self, *, weights: Path | None = None, until: float | None = None) -> Iterator[CachedEvaluator]:
        """An evaluator that asks the journal first and writes to it, for as long as the ``with`` block lasts."""
        made = self.resolved.make_evaluator(weights, until, self.observer.warned)
        with made if hasattr(made, "__exit__") else nullcontext(made) as inner:
            trained, objectives = self.observer.trained, self.resolved.objectives
            yield CachedEvaluator(inner, self.journal, objectives, trained, until=until, weights=weights)


@contextmanager
def recorded(resolved: Resolved, start: Start, observers: Sequence[Observer]) -> Iterator[Run]:
    """Open the journal and tell the observers; afterwards nothing is left open or running.

    Args:
        resolved: what is run.
        start: where it begins.
        observers: are told what happens.

    Raises:
        Interrupted: the user pressed Ctrl-C; the message says how to go on.
        NasError: the journal cannot be opened, or is of another search.
    """
    with _journal(resolved, start, Observers(observers)) as journal:
        run = Run(resolved, journal, Observers([journal, *observers, *_dashboard(resolved, journal, observers)]))
        run.observer.started(run.header)
        if start.journal is not None:
            known = run.record
            run.observer.resumed(len(known.told), frozenset(known.trials), known.seconds)
        try:
            yield run
        except Exception as error:
            message = str(error) or type(error).__name__
            with suppress(StorageError):  # there may be one on its way already
                journal.stopped("failed", message)
            run.observer.failed(message)
            raise
        except KeyboardInterrupt:
            with suppress(StorageError):
                journal.stopped("interrupted", "")
            run.observer.interrupted()
            command = searches.resume_command(run.header.folder, run.header.config)
            further = "" if resolved.training else f"; go on with: {command}"
            raise Interrupted(f"interrupted{further}") from None
        finally:
            _close(run)


def _close(run: Run) -> None:
    try:
        run.observer.close()
    except KeyboardInterrupt:  # everything is in the journal; what MLflow lacks can be written later
        name = run.header.folder.name
        raise Interrupted(f"interrupted; `nas show {name}` and `nas sync {name}` have the rest") from None


def _dashboard(resolved: Resolved, journal: Journal, observers: Sequence[Observer]) -> list[MlflowThread]:
    chosen = resolved.experiment.mlflow
    if chosen == "off":
        return []
    uri = store_of(journal.path.parent, chosen)
    logs = partial(log_model, resolved.data.validation.images[:4])
    return [MlflowThread(journal.record, Observers(observers).warned, uri, logs, warm_up)]


@contextmanager
def _journal(resolved: Resolved, start: Start, observer: Observer) -> Iterator[Journal]:
    """The journal of a run, in which this process has begun its work; its folder holds the configuration."""
    about = resolved.about()
    if start.journal is not None:
        _compare(start.journal, about, observer, force=start.force)
        opened: Any = nullcontext(start.journal)
    else:
        opened = Journal(searches.new_folder(start.folder, resolved.kind) / FILE, begun=start.moment)
    with opened as journal:
        if start.journal is None and not journal.is_new:  # in the same moment, another process took the folder
            raise UsageError(f"{journal.path.parent} is not empty any more; choose another folder with --out")
        if not resolved.training:  # first, so that every search that has a journal can go on
            write_whole(journal.path.parent / searches.TOML, resolved.experiment.to_toml())
        journal.begin(about, more=start.more, forced=start.force)
        yield journal


def _compare(journal: Journal, about: dict[str, Any], observer: Observer, *, force: bool) -> None:
    """Warn of what has changed since the search was begun.

    Raises:
        JournalError: the change would change the result, and it is not forced.
    """
    before = journal.record.about
    found = searches.differences(before, about) if "config" in before else []  # it had not begun
    if found and not force:
        name, changes = journal.path.parent.name, "; ".join(found)
        raise JournalError(f"{name} is not what it was: {changes}. --force goes on all the same")
    found += [
        f"{package} was {old}, and is {about['versions'][package]}: the last digits may differ"
        for package, old in before.get("versions", {}).items()
        if about["versions"].get(package) != old
    ]
    for line in found:
        observer.warned(f"going on, but {line}")
