"""The two kinds of runs, a search and the training of one network, from configuration to winner."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from nas import plugins
from nas.architecture.architecture import Architecture
from nas.errors import UsageError, quoted
from nas.evaluation.halving import in_order
from nas.evaluation.local import machine
from nas.experiment import Experiment
from nas.records import searches
from nas.records.observer import Observer, Observers, PythonWarnings
from nas.records.outcome import Outcome
from nas.run import selection, time_limit
from nas.run.conclude import Selected, conclude
from nas.run.pace import on_top, pace_now, work
from nas.run.planning import planned
from nas.run.recording import Run, Start, recorded
from nas.run.replayed import ReplayedStrategy
from nas.run.resolve import SEARCH_ONLY, TRAINING_OPTIONS, resolve
from nas.run.selection import Plan
from nas.search import Budget, Search
from nas.spaces.space import Candidate
from nas.training.recipe import AUTO
from nas.trial import Job, Trial, job_seed

DEFAULT_TRIALS = 40
MEASURED_FROM = 150.0  # seconds for the final selection, from which on its pace is measured first


def search(
    experiment: Experiment | str | Path | None = None,
    *,
    out: str | Path | None = None,
    observers: Sequence[Observer] = (),
    begun: float | None = None,
    **settings: Any,
) -> Outcome:
    """Search for a network, train the finalists again, test the winner once, and hand it over.

    Args:
        experiment: an `Experiment`, or the path of a TOML file; None for the defaults.
        out: the folder to write; None for a new one in runs/.
        observers: are told what happens; without any, only warnings are shown, by Python (MLflow is written).
        begun: the moment (``time.monotonic``) from which its time counts; None for now.
        settings: fields of `Experiment`, which replace those of ``experiment``. ``strategy``, ``space``,
            ``dataset`` and ``evaluator`` may be classes as well as names, a space or a data set an object, too.

    Raises:
        NasError: a mistake that the user can correct; the message says how.
    """
    start = Start(Path(out) if out else None, begun=begun or time.monotonic())
    observers = Observers(observers).observers or (PythonWarnings(),)
    if isinstance(experiment, Experiment):
        experiment = experiment.changed(**settings) if settings else experiment
    else:
        if experiment is not None and not isinstance(experiment, str | Path):
            raise UsageError(f"{quoted(experiment)} is no Experiment and no path of one: nas.search(trials=3)")
        experiment = Experiment.read(Path(experiment), **settings) if experiment else Experiment.of(**settings)
    trials = experiment.trials or (None if experiment.time_limit else DEFAULT_TRIALS)
    experiment = experiment.model_copy(update={"trials": trials})
    time_limit.check(experiment)
    if start.folder is not None:
        searches.refuse_used(start.folder.absolute())  # before anything takes time
    return find_winner(experiment, start, observers)


def find_winner(experiment: Experiment, start: Start, observers: Sequence[Observer]) -> Outcome:
    """A search from its configuration to its winner, new or resumed."""
    with selected(experiment, start, observers) as (run, decided):
        return conclude(run, decided)


@contextmanager
def selected(
    experiment: Experiment, start: Start, observers: Sequence[Observer]
) -> Iterator[tuple[Run, Selected]]:
    """A search, new or resumed, up to its winner; what it has decided, before the test images are opened."""
    resolved = resolve(experiment, reading=Observers(observers).reading)
    if start.journal is None and (start.comparison is None or experiment.time_limit is not None):
        resolved = planned(resolved, experiment, start.begun, Observers(observers))
    with recorded(resolved, start, observers) as run:
        history = _explore(run)
        plan, end = _plan(run, history)
        best = selection.best_trials(history, plan.finalists)
        run.observer.selecting(plan.trainings, plan.epochs)
        with run.evaluator(weights=run.retrained, until=end) as evaluator:
            finalists, lecture = selection.retrain(evaluator, best, plan, experiment.seed)
        winner = next(trial for trial in best if trial.id == finalists[0][0].id)
        yield run, Selected(winner, tuple(finalists), tuple(history), lecture)


def _explore(run: Run) -> list[Trial]:
    """Every candidate's trial, in order; the journal answers the jobs that are finished."""
    resolved, record, experiment = run.resolved, run.record, run.resolved.experiment
    until = None
    if limit := experiment.time_limit:
        end = run.journal.begun + limit - time_limit.closing(experiment)
        # The final selection gets its share of time that was added later, too. The start counts for neither.
        begun, now = run.journal.begun + record.before_more, time.monotonic()
        begun += now - max(begun, run.begun)
        share = run.header.decided.get("search_share", time_limit.SEARCH_SHARE)
        until = begun + share * (end - begun)
        if not record.trials:  # without one, there would be no winner
            until = max(until, min(now + time_limit.TRAINING, end - time_limit.SELECTING))
    if record.plan is not None:  # the search was over before this process began
        until = time.monotonic()
    sizes = {number: batch.wanted for number, batch in record.asked.items()}
    with run.evaluator(until=until) as evaluator:
        return Search(
            ReplayedStrategy(resolved.make_strategy, record.asked, ahead=experiment.ahead, trusting=record.forced),
            evaluator,
            Budget(
                trials=experiment.trials,
                until=until,
                target=experiment.target,
                patience=experiment.patience,
                batch=experiment.batch,
                ahead=experiment.ahead,
                known=sizes,
                told=len(record.told),
            ),
            epochs=resolved.epochs,
            seed=experiment.seed,
            limits=resolved.limits,
            observer=run.observer,
            # The space may have changed since the first batches.
            space=None if record.forced else resolved.make_space(),
            rungs=experiment.rungs,
        ).run()


def _plan(run: Run, history: Sequence[Trial]) -> tuple[Plan, float | None]:
    """The plan of the final selection, and the moment at which it ends (None without a time limit)."""
    resolved, record = run.resolved, run.record
    if record.plan is not None:  # planned by an earlier process: the time that its end cost is added to the limit
        return Plan(**record.plan), None
    seconds = end = None
    if limit := resolved.experiment.time_limit:
        over, closing = run.journal.begun + limit, time_limit.closing(resolved.experiment)
        seconds, end = max(1.0, over - time.monotonic() - closing), over - closing / 2
    decided = run.header.decided
    now = selection.Now(alone=decided.get("alone", 1.0), cores=resolved.cores_alone)
    if seconds is not None and seconds >= MEASURED_FROM and decided and resolved.device == "cpu":
        begun = time.monotonic()
        best = selection.best_trials(history, 2)
        run.observer.preparing("measuring how fast the best networks train now")
        now = pace_now(resolved, best, seconds) or now
        seconds -= time.monotonic() - begun
    plan = selection.plan(
        history, resolved.limits, resolved.epochs, resolved.side_by_side, seconds and seconds / on_top(resolved),
        enough=decided.get("enough", 0.0), now=now, work=partial(work, resolved),
    )  # fmt: skip
    # Where all train side by side, maybe none is through in time: a late winner is better than none.
    if end is not None and plan.trainings <= resolved.side_by_side:
        end += max(time_limit.LATE_SECONDS, time_limit.LATE * (seconds or 0.0))
    before = Plan(**record.before_plan) if record.before_plan else plan
    before = replace(before, finalists=max(before.finalists, plan.finalists))  # more networks may be on the front
    if (before.epochs, before.seeds, before.finalists) > (plan.epochs, plan.seeds, plan.finalists):
        plan, end = before, None  # no network may replace the winner after a shorter training
    run.journal.searched(asdict(plan))
    return plan, end


def _with_recipe(candidate: Candidate, given: str | Mapping[str, Any]) -> Candidate:
    """The candidate without those of its answers about the recipe that the user replaces."""
    if isinstance(given, str):
        return candidate if given == AUTO else replace(candidate, choices={})
    if given["base"] != AUTO:
        return replace(candidate, choices={})
    kept = {name: value for name, value in candidate.choices.items() if name.removeprefix("recipe/") not in given}
    return replace(candidate, choices=kept)


def train(
    network: str | Path | Architecture,
    *,
    seeds: int = 1,
    out: str | Path | None = None,
    observers: Sequence[Observer] = (),
    **settings: Any,
) -> Outcome:
    """Train one network without a search, test it once, and hand over the seed with the smallest validation loss.

    Args:
        network: an `Architecture`, or a text that `nas.records.searches.any_network` takes.
        seeds: the number of trainings.
        out: the folder to write; None for a new one in runs/.
        observers: are told what happens.
        settings: fields of `Experiment`, except those that only a search has. Without a recipe among them, a
            network of a search is trained with the answers that it had to questions of the space about the recipe.

    Raises:
        NasError: a mistake that the user can correct; the message says how.
    """
    observers = Observers(observers).observers or (PythonWarnings(),)
    if type(seeds) is not int or seeds < 1:
        raise UsageError(f"seeds = {quoted(seeds)}: it should be a whole number, 1 or more")
    wrong = sorted(SEARCH_ONLY & settings.keys())
    if seeds == 1 and "workers" not in settings and settings.get("evaluator", "local") == "local":
        # One process, which may have the memory of all, and the cores.
        alone = {"evaluator.cores": machine.cores(), **settings.get("options", {})}
        settings |= {"workers": 1, "options": alone}
    experiment = Experiment.of(**settings)
    plugins.offer(experiment.plugins)  # the network may have their layers
    if isinstance(network, Architecture):
        candidate = Candidate(network, origin=network.id)
    else:
        candidate = searches.any_network(str(network))
    candidate = _with_recipe(candidate, experiment.recipe)
    name, architecture = candidate.origin, candidate.architecture
    wrong += [f"the option {name}" for name in experiment.options if not name.startswith(TRAINING_OPTIONS)]
    if wrong:
        raise UsageError(f"{wrong[0]} is for searches, and this is a training of one network: leave it out")
    resolved = resolve(experiment, {"network": name, "seeds": seeds}, Observers(observers).reading)
    with recorded(resolved, Start(Path(out) if out else None), observers) as run:
        resolved.limits.check(architecture)
        seed = partial(job_seed, experiment.seed, candidate.id)
        jobs = [Job(candidate, resolved.epochs, seed(repeat)) for repeat in range(seeds)]
        with run.evaluator(weights=run.retrained) as evaluator:
            trials = in_order(jobs, evaluator.evaluate(jobs))
        for trial in trials:
            run.observer.told(trial)
        winner = selection.best_trials(trials, 1)[0]
        good = tuple(trial for trial in trials if trial.failure is None)
        return conclude(run, Selected(winner, (good,), tuple(trials)))
