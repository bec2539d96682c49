"""A search that goes on: it is run again, and what its journal knows is answered from there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nas import plugins
from nas.dashboard.registry import log_model_of
from nas.dashboard.store import store_of
from nas.dashboard.thread import sync
from nas.errors import JournalError, NasError, UsageError
from nas.experiment import Experiment
from nas.records import searches
from nas.records.journal import FILE, Journal
from nas.records.observer import Observer, Observers
from nas.records.outcome import Outcome
from nas.records.record import Record
from nas.run.recording import Start
from nas.run.runs import CLOSING_SECONDS, find_winner


def resume(
    search: str | Path | None = None, *, observers: Sequence[Observer] = (), force: bool = False, **changes: Any
) -> Outcome:
    """Go on with a search that was ended, or give a finished one more trials or time.

    Args:
        search: its folder, or its name under runs/; None for the latest search.
        observers: are told what happens.
        force: go on even if something has changed that changes the result.
        changes: settings (see `Experiment`) that differ from before: more trials, more time, other workers. A
            class or an object that was given to the search has to be given again.

    Raises:
        NasError: it cannot go on; says why.
    """
    plugins.offer(map(Path, changes.get("plugins", ())))  # the journal may name their layers
    folder = searches.named(None if search is None else str(search), to_resume=True)
    if not (folder / searches.TOML).is_file():
        raise UsageError(
            f"{folder} has no {searches.TOML}: it is a training, or it was ended before it began; start it again"
        )
    with Journal(folder / FILE) as journal:
        record = journal.record
        if "precision" not in record.about.get("config", {"precision": "auto"}):
            raise JournalError(f"{folder.name} was made by an unreleased version of nas: start the search again")
        experiment = Experiment.read(folder / searches.TOML, **changes)
        _check_budget(experiment, record)
        more = _has_more(experiment, record)
        if not more and (known := record.result()) is not None:
            _show_finished(experiment, folder, record, Observers(observers))
            return known
        if experiment.lacks:
            again = searches.resume_command(folder, experiment.model_dump())
            raise UsageError(f"{folder.name} was given Python objects, and goes on only with the same: {again}")
        return find_winner(experiment, Start(folder, journal, more, force), observers)


def _show_finished(experiment: Experiment, folder: Path, record: Record, observer: Observer) -> None:
    observer.warned("this search has come to its end; more --trials or --time-limit goes on with it")
    if experiment.mlflow != "off":  # a kill may have come between the winner and its record there
        try:
            sync(record, store_of(folder, experiment.mlflow), log_model_of(record.header))
        except NasError as error:
            observer.warned(str(error))


def _check_budget(experiment: Experiment, record: Record) -> None:
    """Check that there is something left to spend.

    Raises:
        UsageError: the search has had more than that.
    """
    told, limit = len(record.told), experiment.time_limit
    if experiment.trials is not None and experiment.trials < told:
        raise UsageError(f"it has {told} trials already: --trials {experiment.trials} would be fewer")
    if experiment.trials == told and _has_more(experiment, record):  # its test images would be opened for nothing
        raise UsageError(f"it has all of its {told} trials: give it more of them, too, with --trials")
    over = record.plan is not None and not _has_more(experiment, record)
    if limit is not None and not over and record.seconds >= limit - min(CLOSING_SECONDS, limit / 2):
        raise UsageError(
            f"it has taken {record.seconds:.0f} s of its {limit:g} s: give it more time with --time-limit"
        )


def _has_more(experiment: Experiment, record: Record) -> bool:
    """Whether the budget is another than the one for which the end of the search was decided."""
    config = record.about.get("config", {})
    before = (config.get("trials"), config.get("time_limit"))
    return record.plan is not None and (experiment.trials, experiment.time_limit) != before
