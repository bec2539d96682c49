"""Strategies side by side under one budget on one data set.

Each search is an ordinary one in a folder of the comparison. When all of them have decided, and all baselines are
fitted, the test images are opened once, for all of them together.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from nas.architecture.known import LECTURE, lecture_parameters
from nas.baselines import baselines as models
from nas.baselines.baselines import Baseline
from nas.comparison import verdicts
from nas.comparison.explain import Answerer, Case, answers_of, cases, experiments
from nas.comparison.figures import figures
from nas.comparison.members import Decided, decide, member
from nas.comparison.page import description, page
from nas.comparison.progress import Progress, common_target, progress_of, reached_by, words
from nas.comparison.result import Compared, Result, Searched, State, Tested
from nas.comparison.settings import Comparison
from nas.comparison.tables import scores, tables
from nas.comparison.verdicts import Sample
from nas.comparison.watcher import PythonWatcher, Warnings, Watcher
from nas.dashboard.comparisons import begin, end, nest, stop
from nas.dashboard.store import reason_of, store_of
from nas.errors import Interrupted, JournalError, NasError, StorageError, UsageError, masked
from nas.evaluation.borrowing import Lending
from nas.experiment import Experiment
from nas.files import write_whole
from nas.objectives import best_seed
from nas.records import searches
from nas.records.comparisons import FILE, LOCK, TOML, members
from nas.records.record import RUNS, place
from nas.run import time_limit
from nas.run.conclude import Selected, conclude
from nas.run.recording import Run, recorded
from nas.run.resolve import Resolved, resolve
from nas.spaces.space import Candidate
from nas.statistics import mean
from nas.training.recipe import RECIPES
from nas.trial import Job, job_seed
from nas.winner.sealed import Opened, open_together
from nas.winner.weights import restored

LECTURE_NAME = "the lecture's network"
# Of mnist, with batches of 128 and Adam's usual rate; of fewer images up to four times as many.
LECTURE_EPOCHS, LECTURE_IMAGES, LECTURE_SHAPE = 12.0, 54_000, (1, 28, 28)


def compare(
    comparison: Comparison | str | Path | None = None,
    *,
    out: str | Path | None = None,
    watcher: Watcher | None = None,
    **settings: Any,
) -> Compared:
    """Compare strategies under one budget, with baselines on the same images.

    Args:
        comparison: a `Comparison`, or the path of a TOML file; None for the settings alone.
        out: the folder to write; None for a new one in runs/.
        watcher: is told what happens; without one, warnings are those of Python.
        settings: of `Comparison.of`, which replace those of the file.

    Raises:
        NasError: a mistake that the user can correct; the message says how.
    """
    if not isinstance(comparison, Comparison):
        comparison = (
            Comparison.of(**settings) if comparison is None else Comparison.read(Path(comparison), **settings)
        )
    elif settings:
        raise UsageError("give a Comparison, or settings, not both")
    stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    folder = Path(out or RUNS / f"{stamp}-compare-{secrets.token_hex(2)}").absolute()
    if folder.exists() and any(path.name not in (LOCK, TOML) for path in folder.iterdir()):
        raise UsageError(f"{folder} is not empty; choose another folder with --out, or `nas resume` it")
    return _run(folder, comparison, watcher or PythonWatcher())


def go_on(folder: Path, *, watcher: Watcher | None = None, plugins: Sequence[Path] = ()) -> Compared:
    """Go on with a comparison that was interrupted or killed; the result of one that is finished."""
    watcher = watcher or PythonWatcher()
    if (finished := known(folder)) is not None:
        if finished.state.run and not finished.state.written:
            _write_tables(finished, watcher)
        return finished
    trusted: dict[str, Any] = {"plugins": tuple(plugins)} if plugins else {}
    return _run(folder, Comparison.read(folder / TOML, **trusted), watcher)


def known(folder: Path) -> Compared | None:
    """A finished comparison; None if it is not finished."""
    state = State.read(folder)
    comparison = Comparison.read(folder / TOML, trusting=True)
    return Compared(folder, comparison, state, state.result) if state.result else None


def _run(folder: Path, comparison: Comparison, watcher: Watcher) -> Compared:
    """A comparison from its settings to its result, new or resumed."""
    resolved = _checked(comparison)
    comparison = comparison.pinned(resolved.experiment.dataset)
    with _locked(folder):
        if (folder / FILE).is_file():
            state = State.read(folder)
            if state.fingerprint != resolved.data.fingerprint:
                raise JournalError(
                    f"the images of {folder.name}, {state.dataset}, have changed since it began: compare anew"
                )
        else:
            write_whole(folder / TOML, comparison.to_toml())
            state = State(secrets.token_hex(8), resolved.source.name, resolved.data.fingerprint)
            state.write(folder)
        uri = ""
        if comparison.first.mlflow != "off":
            uri = store_of(folder, comparison.first.mlflow)
            _begin_run(folder, state, uri, comparison, watcher)
        try:
            compared = _compared(folder, state, comparison, resolved, watcher)
        except BaseException as error:
            if state.run:
                with suppress(Exception):  # the error is more important
                    stop(uri, state.run, killed=isinstance(error, KeyboardInterrupt))
            if isinstance(error, KeyboardInterrupt):
                raise Interrupted(f"interrupted; go on with: nas resume {place(folder)}") from None
            raise
        if state.run:
            _write_tables(compared, watcher)
        return compared


def _compared(
    folder: Path, state: State, comparison: Comparison, resolved: Resolved, watcher: Watcher
) -> Compared:
    """The searches and the baselines, then the test."""
    wanted, lending = comparison.searches(), Lending(folder)
    if state.run:
        parent = {"mlflow_parent": state.run, "mlflow_experiment": None}
        wanted = {name: (label, one.changed(**parent)) for name, (label, one) in wanted.items()}
    if comparison.baselines:
        _fit(folder, state, resolved, watcher)
    decided = decide(state, wanted, resolved, lending, watcher)
    if not decided:
        reason = next(iter(state.failed.values()), "")
        raise NasError(f"no search of the comparison has a winner ({reason}): see `nas show {place(folder)}`")
    state.result = _test(state, comparison, wanted, decided, resolved, lending, watcher)
    state.write(folder)
    return Compared(folder, comparison, state, state.result)


def _begin_run(folder: Path, state: State, uri: str, comparison: Comparison, watcher: Watcher) -> None:
    """Make the comparison's run in MLflow, in which the searches are nested."""
    try:
        state.run = begin(uri, folder.name, state.id, _settings(comparison))
    except Exception as error:  # noqa: BLE001  # any exception of MLflow: new searches are not nested then
        watcher.warned(f"MLflow cannot be written ({reason_of(error)}); the comparison goes on")
    state.write(folder)


def _settings(comparison: Comparison) -> dict[str, Any]:
    """What MLflow shows as the parameters of a comparison."""
    return {**comparison.shared, "strategies": ", ".join(comparison.entries), "seeds": comparison.seeds}


def _end_run(compared: Compared, uri: str) -> None:
    """Give MLflow the tables, the figures and the page of a finished comparison.

    Raises:
        Exception: any exception of MLflow.
    """
    run, drawn = compared.state.run, dict(figures(compared))
    end(uri, run, description(compared), tables(compared), drawn, page(compared), scores(compared))


def sync(folder: Path) -> str:
    """Write a comparison to MLflow, whose searches are there: its run, in which they are nested, and its tables.

    Returns:
        The address of the store.

    Raises:
        NasError: it is running, or the store cannot be written.
    """
    comparison = Comparison.read(folder / TOML, trusting=True)
    chosen = comparison.first.mlflow
    uri = store_of(folder, "auto" if chosen == "off" else chosen)
    with _locked(folder):
        state = State.read(folder)
        try:
            state.run = begin(uri, folder.name, state.id, _settings(comparison))
            nest(uri, state.run, [searches.State.of(member).record.id for member in members(folder)])
            if state.result:
                _end_run(Compared(folder, comparison, state, state.result), uri)
            else:
                stop(uri, state.run, killed=True)
        except Exception as error:  # noqa: BLE001  # any exception of MLflow
            raise NasError(f"MLflow cannot be written at {masked(uri)}: {reason_of(error)}") from None
        state.written = bool(state.result)
        state.write(folder)
    return uri


def _write_tables(compared: Compared, watcher: Watcher) -> None:
    """Give MLflow what it has to show of a finished comparison, or say how to do it later."""
    state = compared.state
    try:
        _end_run(compared, store_of(compared.folder, compared.comparison.first.mlflow))
    except Exception as error:  # noqa: BLE001  # any exception of MLflow
        again = f"nas sync {place(compared.folder)}"
        watcher.warned(f"MLflow does not have the tables ({reason_of(error)}); write them later with: {again}")
    else:
        state.written = True
        state.write(compared.folder)


def _checked(comparison: Comparison) -> Resolved:
    """The configuration of the first search; that of every strategy is checked before anything trains.

    Raises:
        NasError: one of them is wrong, or they do not have the same images.
    """
    first: Resolved | None = None
    for _, experiment in [*comparison.searches().values()][: len(comparison.entries)]:
        time_limit.check(experiment)
        resolved = resolve(experiment)
        first = first or resolved
        if resolved.data.fingerprint != first.data.fingerprint:
            raise UsageError("strategies are compared on the same images: give dataset options to all of them")
    assert first is not None  # noqa: S101  # there is at least one strategy
    return first


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """The lock of a comparison, held; its folder is made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK, timeout=1.0).acquire()
    except Timeout:
        raise UsageError(f"{folder} is being compared by another process: wait for it, or end it") from None
    except OSError as error:
        raise StorageError.of(folder, error) from None
    with lock:
        yield


def _fit(folder: Path, state: State, resolved: Resolved, watcher: Watcher) -> None:
    """Fit what is no search, unless it is known from before."""
    for name in models.NAMES:
        if name not in state.baselines:
            watcher.fitting(name)
            state.baselines[name] = models.tuned(name, resolved.data, resolved.experiment.seed, resolved.workers)
            state.write(folder)
            watcher.fitted(state.baselines[name])
    is_local = resolved.experiment.evaluator == "local"  # another one may train only the networks that it knows
    if LECTURE_NAME not in state.baselines and is_local and lecture_parameters(resolved.limits):
        watcher.fitting(LECTURE_NAME)
        try:
            state.baselines[LECTURE_NAME] = _lecture(folder, resolved)
        except NasError as error:
            watcher.warned(f"{LECTURE_NAME} is left out: {error}")
            return
        state.write(folder)
        watcher.fitted(state.baselines[LECTURE_NAME])


def _lecture_job(resolved: Resolved) -> Job:
    images, limits = len(resolved.data.train), resolved.limits
    # For fewer images more epochs, for large ones fewer, so that it takes no longer than on all of mnist.
    epochs = LECTURE_EPOCHS * min(4.0, max(1.0, (LECTURE_IMAGES / images) ** 0.5))
    cost, usual = (LECTURE.flops(shape, limits.classes) for shape in (limits.input_shape, LECTURE_SHAPE))
    epochs = max(1.0, min(epochs, LECTURE_EPOCHS * LECTURE_IMAGES * usual / images / cost))
    return Job(Candidate(LECTURE, origin="lecture"), round(epochs), job_seed(resolved.experiment.seed, LECTURE.id))


def _lecture(folder: Path, resolved: Resolved) -> Baseline:
    """The lecture's network, trained with the lecture's recipe."""
    job, weights = _lecture_job(resolved), folder / "lecture"
    weights.mkdir(exist_ok=True)
    own = replace(resolved, recipe=replace(RECIPES["lecture"], precision=resolved.recipe.precision))
    with own.make_evaluator(weights, None, lambda line: None) as evaluator:
        (trial,) = evaluator.evaluate([job])
    if trial.failure is not None:
        raise NasError(f"{LECTURE_NAME} cannot be trained: {trial.failure.message}")
    metrics = trial.metrics
    size = f"{metrics['parameters']:,.0f} parameters"
    return Baseline(
        LECTURE_NAME, f"{job.epochs:g} epochs", metrics["validation_accuracy"], metrics["train_seconds"], 0.0, size
    )


def _test(
    state: State,
    comparison: Comparison,
    wanted: Mapping[str, tuple[str, Experiment]],
    decided: Mapping[str, Decided],
    resolved: Resolved,
    lending: Lending,
    watcher: Watcher,
) -> Result:
    """Open the test images once, for every winner and every baseline, and conclude the searches."""
    folder = lending.folder
    answerers = _answerers(folder, state, resolved, watcher)
    explained = _explained(folder, state, resolved, decided, watcher) if comparison.explain else []
    watcher.opening(sum(len(one.networks) for one in decided.values()) + len(answerers) + len(explained))
    state.opened += 1
    state.write(folder)
    opened, answers = open_together(
        resolved.source,
        resolved.data,
        [one.networks for one in decided.values()],
        [*answerers.values(), *(case.answers for case in explained)],
    )
    by_name = dict(zip(decided, opened, strict=True))
    labels = answers.labels
    went = {name: progress_of(folder / name) for name in decided}
    by_label: dict[str, list[Progress]] = {}
    for name in decided:
        by_label.setdefault(wanted[name][0], []).append(went[name])
    target = common_target(by_label)
    searched = []
    for name, one in decided.items():
        label, experiment = wanted[name]
        with (
            member(lending, name, experiment) as (known, start),
            recorded(resolve(known), start, [Warnings(watcher)]) as run,
        ):
            conclude(run, one.selected, by_name[name])
            row = _row(label, experiment.seed, name, run, one.selected, by_name[name])
        trials, seconds = reached_by(went[name], target)
        searched.append(replace(row, reached=trials, reached_seconds=seconds))
    samples = [
        Sample(
            label,
            {row.seed: by_name[row.folder].results[0].right.numpy() for row in searched if row.strategy == label},
        )
        for label in comparison.entries
    ]
    right = {name: answer == labels for name, answer in zip(answerers, answers.answers, strict=False)}
    shares = [float((answer == labels).mean()) for answer in answers.answers[len(answerers) :]]
    shown = experiments(list(zip(explained, shares, strict=True))) if explained else []
    tested = tuple(Tested(state.baselines[name], float(right[name].mean())) for name in answerers)
    pairs = verdicts.verdicts(samples)
    beside = verdicts.beside(samples, {name: right[name] for name in _notable(tested)})
    sentences = [*verdicts.sentences(pairs), *verdicts.sentences(beside)]
    return Result(
        tuple(searched), tested, tuple(pairs), tuple(beside), tuple(sentences), len(labels), target,
        words(resolved.objectives[0], target), state.opened, tuple(each._asdict() for each in shown),
    )  # fmt: skip


def _notable(tested: Sequence[Tested]) -> list[str]:
    """The baselines beside every strategy: the best one on the validation images, and the lecture's network."""
    others = [one.baseline for one in tested if one.baseline.name != LECTURE_NAME]
    best = max(others, key=lambda one: one.validation_accuracy, default=None)
    names = [best.name] if best else []
    return names + [one.baseline.name for one in tested if one.baseline.name == LECTURE_NAME]


def _explained(
    folder: Path, state: State, resolved: Resolved, decided: Mapping[str, Decided], watcher: Watcher
) -> list[Case]:
    """What shows why: for the tree, the forest, the lecture's network, and the winner with the best mean."""
    networks = {LECTURE_NAME: LECTURE} if LECTURE_NAME in state.baselines else {}
    winners = [one.selected.finalists[0] for one in decided.values()]
    best = max(winners, key=lambda group: mean([trial.metrics["validation_accuracy"] for trial in group]))
    networks["the best network found"] = best[0].job.candidate.architecture
    known = [state.baselines[name] for name in ("decision tree", "random forest") if name in state.baselines]
    try:
        return list(cases(folder / "explain", resolved, networks, known, watcher.explaining))
    except NasError as error:  # all else is there
        watcher.warned(f"the experiments that explain are left out: {error}")
        return []


def _answerers(folder: Path, state: State, resolved: Resolved, watcher: Watcher) -> dict[str, Answerer]:
    """What answers for each baseline, by its name."""
    found: dict[str, Answerer] = {}
    for name, baseline in state.baselines.items():
        if name != LECTURE_NAME:
            watcher.fitting(name)
            found[name] = models.fitted(baseline, resolved.data, resolved.experiment.seed, resolved.workers)
            continue
        weights = folder / "lecture" / f"{_lecture_job(resolved).key}.safetensors"
        limits = resolved.limits
        found[name] = answers_of(restored(LECTURE, limits.input_shape, limits.classes, weights))
    return found


def _row(label: str, seed: int, name: str, run: Run, found: Selected, opened: Opened) -> Searched:
    trials = {trial.job.key: trial for trial in run.record.trials.values()}
    chosen = found.finalists[0]
    return Searched(
        label, seed, name, found.winner.id,
        int(best_seed(chosen).metrics["parameters"]),
        mean([trial.metrics["validation_accuracy"] for trial in chosen]),
        opened.results[0].accuracy,
        len(found.history),
        sum(trial.metrics.get("train_seconds", 0.0) for trial in trials.values()),
    )  # fmt: skip
