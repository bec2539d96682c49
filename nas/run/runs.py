"""The runs: a new search, one that goes on, one training. Each reads from its configuration to its winner."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from nas import plugins
from nas.architecture.architecture import Architecture
from nas.dashboard.registry import log_model_of
from nas.dashboard.store import store_of
from nas.dashboard.thread import sync
from nas.errors import NasError, UsageError
from nas.evaluation.halving import SuccessiveHalving, in_order
from nas.experiment import Experiment
from nas.records import searches
from nas.records.journal import FILE, Journal
from nas.records.observer import Observer
from nas.records.outcome import Outcome
from nas.records.record import Record
from nas.run import selection
from nas.run.replayed import Recalled
from nas.run.setup import Start, find_strategy, open_session, warner
from nas.search import Budget, Search
from nas.spaces.space import Candidate
from nas.trial import Job, job_seed

DEFAULT_TRIALS = 40
# Of a time limit: what the search may spend, and what the test, the records and the model take at the end.
SEARCH_SHARE = 0.45
CLOSING_SECONDS = 15.0


def run_search(experiment: Experiment, out: Path | None, observers: Sequence[Observer]) -> Outcome:
    """Search, select, test once, hand over (see `Experiment.run`)."""
    trials = experiment.trials or (None if experiment.time_limit else DEFAULT_TRIALS)
    experiment = experiment.model_copy(update={"trials": trials})
    return _search(experiment, Start(out), observers)


def resume_search(folder: Path, observers: Sequence[Observer], *, force: bool = False, **changes: Any) -> Outcome:
    """Go on with a search: it is run again, and what its journal knows is answered from there.

    Args:
        folder: of the search.
        observers: are told what happens.
        force: go on even if something has changed that changes the result.
        changes: settings (see `Experiment`) that are not what they were: more trials, more time, other workers.

    Raises:
        NasError: it cannot go on; says why.
    """
    if not (folder / searches.TOML).is_file():
        raise UsageError(
            f"{folder} has no {searches.TOML}: it is a training, or it was ended before it began; start it again"
        )
    with Journal(folder / FILE) as journal:
        experiment = Experiment.read(folder / searches.TOML, **changes)
        # What has begun stays as it was begun; a search that has not has no config.
        named = {*journal.record.about.get("config", searches.EARLIER), *experiment.model_fields_set}
        earlier = {name: value for name, value in searches.EARLIER.items() if name not in named}
        experiment = experiment.model_copy(update=earlier)
        _check_budget(experiment, journal.record)
        more = _has_more(experiment, journal.record)
        if not more and (known := journal.record.result()) is not None:
            warn = warner(observers)
            warn("this search has come to its end; more --trials or --time-limit goes on with it")
            if experiment.mlflow != "off":  # a kill may have come between the winner and its record there
                try:
                    sync(journal.record, store_of(folder, experiment.mlflow), log_model_of(known.header))
                except NasError as error:
                    warn(str(error))
            return known
        return _search(experiment, Start(folder, journal, more, force), observers)


def _search(experiment: Experiment, start: Start, observers: Sequence[Observer]) -> Outcome:
    limit = experiment.time_limit
    made, parts = find_strategy(experiment)
    with open_session(experiment, plugins.canonical(experiment.strategy), start, observers, parts) as session:
        record, begun = session.journal.record, session.journal.begun
        # Of what it was given more of, too, the final selection has its share.
        until = begun + record.before_more + SEARCH_SHARE * (limit - record.before_more) if limit else None
        if record.plan is not None:  # the search was over before this process began
            until = time.monotonic()
        known = {number: batch.wanted for number, batch in record.asked.items()}
        with session.evaluator(until=until) as evaluator:
            search = Search(
                Recalled(lambda: made(session), record.asked, trusting=record.forced),
                SuccessiveHalving(evaluator, rungs=experiment.rungs),
                Budget(experiment.trials, until, experiment.batch, known),
                session.epochs,
                experiment.seed,
                session.limits,
                session.observers,
            )
            history = search.run()
        end = None  # of a final selection that was planned before: what a kill has cost is added to the limit
        if record.plan is None:
            left = max(1.0, begun + limit - time.monotonic() - CLOSING_SECONDS) if limit else None
            end = begun + limit - CLOSING_SECONDS / 2 if limit else None
            plan = selection.plan(history, session.limits, session.epochs, session.side_by_side, left)
            before = selection.Plan.of(record.before_plan) if record.before_plan else plan
            if (before.epochs, before.seeds, before.finalists) > (plan.epochs, plan.seeds, plan.finalists):
                plan, end = before, None  # a winner is not replaced by what was trained for less
            session.journal.searched(asdict(plan))
        plan = selection.Plan.of(record.plan)
        best = selection.best_trials(history, plan.finalists)
        session.tell("selecting", plan.trainings, plan.epochs)
        with session.evaluator(weights=session.folder / "retrained", until=end) as evaluator:
            finalists, lecture = selection.retrain(evaluator, best, plan, experiment.seed)
        winner = next(trial for trial in best if trial.id == finalists[0][0].id)
        return session.conclude(winner, finalists, history, lecture)


def _check_budget(experiment: Experiment, record: Record) -> None:
    """Whether there is something left to spend.

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


def run_training(
    experiment: Experiment,
    architecture: Architecture,
    name: str,
    out: Path | None,
    observers: Sequence[Observer],
    seeds: int = 1,
) -> Outcome:
    """Train one network, without a search, and hand over the best of its seeds (see ``nas train``)."""
    with open_session(experiment, "train", Start(out), observers, network=name, seeds=seeds) as session:
        session.limits.check(architecture)
        candidate = Candidate(architecture, origin=name)
        seed = partial(job_seed, experiment.seed, architecture.id)
        jobs = [Job(candidate, session.epochs, seed(repeat)) for repeat in range(seeds)]
        with session.evaluator(weights=session.folder / "retrained") as evaluator:
            trials = in_order(jobs, evaluator.evaluate(jobs))
        for trial in trials:
            session.tell("told", trial)
        winner = selection.best_trials(trials, 1)[0]
        return session.conclude(winner, [tuple(trial for trial in trials if trial.failure is None)], trials)
