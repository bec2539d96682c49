"""A search that goes on: it is run again, and its journal answers the jobs that are finished."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nas import plugins
from nas.dashboard.registry import log_model_of
from nas.dashboard.removal import is_known
from nas.dashboard.store import sqlite_file, store_of
from nas.dashboard.thread import sync
from nas.errors import JournalError, NasError, UsageError
from nas.experiment import Experiment
from nas.objectives import Objective, scored, since_better
from nas.records import searches
from nas.records.journal import FILE, Journal
from nas.records.observer import Observer, Observers, PythonWarnings
from nas.records.outcome import Outcome
from nas.records.record import Record, place
from nas.run import time_limit
from nas.run.recording import Start
from nas.run.runs import find_winner
from nas.search import AGAIN
from nas.trial import job_seed

BUDGET = ("trials", "time_limit", "target", "patience")  # the settings of which a finished search may get more


def resume(
    search: str | Path | None = None,
    *,
    observers: Sequence[Observer] = (),
    force: bool = False,
    begun: float | None = None,
    **changes: Any,
) -> Outcome:
    """Go on with a search that was interrupted or killed, or give a finished one more trials or time.

    Args:
        search: its folder, or its name under runs/; None for the latest search.
        observers: are told what happens.
        force: go on even if something has changed that changes the result.
        begun: the moment (``time.monotonic``) from which its time counts; None for now.
        changes: settings (see `Experiment`) that differ from before: more trials, more time, other workers. A
            class or an object that was given to the search has to be given again.

    Raises:
        NasError: the search cannot go on; the message says why.
    """
    begun = begun or time.monotonic()
    observers = Observers(observers).observers or (PythonWarnings(),)
    plugins.offer(Experiment.of(plugins=changes.get("plugins", ())).plugins)  # the journal may name their layers
    folder = searches.named(None if search is None else str(search), needs=searches.TOML)
    if not (folder / searches.TOML).is_file():
        raise UsageError(
            f"{folder} has no {searches.TOML}: it is a training, or it was ended before it began; start it again"
        )
    if (parent := searches.comparison_of(folder)) is not None:  # it opens the test images for all at once
        raise UsageError(
            f"{folder.name} is a search of the comparison {parent.name}, with which it goes on: "
            f"nas resume {place(parent)}"
        )
    with Journal(folder / FILE, begun) as journal:
        record = journal.record
        config = record.about.get("config")
        if config is not None and "precision" not in config:
            raise JournalError(f"{folder.name} was made by an unreleased version of nas: start the search again")
        experiment = Experiment.read(folder / searches.TOML, **changes)
        before = [(config or {}).get(name) for name in BUDGET]
        more = record.plan is not None and before != [getattr(experiment, name) for name in BUDGET]
        _check_budget(experiment, record, more=more)
        if not more and (known := record.result()) is not None:
            observer = Observers(observers)
            observer.warned("this search is finished; more --trials or --time-limit goes on with it")
            if experiment.mlflow != "off":  # a kill may have come before the winner was written there
                try:
                    sync(record, store_of(folder, experiment.mlflow), log_model_of(record.header))
                except NasError as error:
                    observer.warned(str(error))
            return known
        if experiment.lacks:
            again = searches.resume_command(folder, experiment.model_dump())
            raise UsageError(f"{folder.name} was given Python objects, and goes on only with the same: {again}")
        return find_winner(experiment, Start(folder, journal, more, force, begun), observers)


def write_down(state: searches.State) -> None:
    """Write that the process of a search was killed: to MLflow, where the search would be running for ever, and
    to its journal, so that this is done once.

    Raises:
        NasError: one of them cannot be written, or the search goes on just now.
    """
    with Journal(state.folder / FILE) as journal:
        record = journal.record
        chosen = record.about.get("config", {}).get("mlflow", "off")
        uri = store_of(state.folder, chosen)
        file = sqlite_file(uri)
        # Another store, which the environment names today, has nothing of it that would be running.
        is_there = chosen != "off" and record.told and (file is None or file.exists())
        if is_there and is_known(record.id, uri):
            sync(record, uri, figures=False)
            journal.begun = time.monotonic() - record.seconds  # that time is not the search's
        journal.stopped("interrupted", state.detail)


def _check_budget(experiment: Experiment, record: Record, *, more: bool) -> None:
    """Refuse a budget that is spent already; ``more``: whether it has changed since the search was over."""
    told, limit = len(record.told), experiment.time_limit
    if experiment.trials is not None and experiment.trials < told:
        raise UsageError(f"it has {told} trials already: --trials {experiment.trials} would be fewer")
    if experiment.trials == told and more:  # its test images would be opened for nothing
        raise UsageError(f"it has all of its {told} trials: give it more with --trials, too")
    if more:
        _check_enough(experiment, record)
    if limit is not None and (record.plan is None or more):
        if record.seconds >= limit:
            raise UsageError(
                f"it has taken {record.seconds:.0f} s of its {limit:g} s: give it more time with --time-limit"
            )
        time_limit.check(experiment, record.seconds, trained=bool(record.trials))


def _check_enough(experiment: Experiment, record: Record) -> None:
    """Refuse to go on with a search that has its target, or that has found nothing better for too long."""
    patience, target, length = experiment.patience, experiment.target, experiment.epochs
    if patience is not None:
        objectives = [Objective.parse(text) for text in experiment.objectives]
        told = {entry.trial.id: scored(entry.trial, objectives) for entry in record.told}  # as they finished
        ids = [new.id for _, batch in sorted(record.asked.items()) for new in batch.candidates]
        if since_better([told[one] for one in ids if one in told]) >= patience:
            raise UsageError(
                f"it ended after {patience} candidates that brought nothing better: give it more with --patience"
            )
    if target is not None:
        for trial in record.trials.values():
            is_again = trial.job.seed == job_seed(experiment.seed, trial.id, AGAIN)
            if is_again and trial.job.epochs == length and trial.metrics.get("validation_accuracy", 0.0) >= target:
                raise UsageError(f"it has its target of {target:g}: give it a higher one with --target, too")
