"""Strategies side by side under one budget on one data set.

Each search is an ordinary one in a folder of the comparison. When all of them have decided, and all baselines are
fitted, the test images are opened once, for all of them together.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from nas.architecture.known import LECTURE, lecture_parameters
from nas.baselines import baselines as models
from nas.baselines.baselines import Baseline
from nas.comparison import verdicts
from nas.comparison.explain import Answerer, Case, answers_of, cases, experiments
from nas.comparison.figures import figures
from nas.comparison.page import description, page
from nas.comparison.progress import Progress, common_target, progress_of, reached_by, words
from nas.comparison.result import Compared, Result, Searched, State, Tested
from nas.comparison.settings import Comparison
from nas.comparison.tables import baselines, scores, strategies
from nas.comparison.threads import side_by_side
from nas.comparison.verdicts import Sample
from nas.dashboard.comparisons import begin, end
from nas.dashboard.store import reason_of, store_of
from nas.errors import Interrupted, NasError, StorageError, UsageError
from nas.evaluation.borrowing import Lending
from nas.experiment import Experiment
from nas.files import write_whole
from nas.objectives import best_seed
from nas.records import comparisons, searches
from nas.records.comparisons import LOCK, TOML
from nas.records.journal import FILE, Journal
from nas.records.observer import Observer
from nas.records.record import RUNS, place, read
from nas.run.conclude import Selected, conclude, contestants
from nas.run.recording import Run, Start
from nas.run.resolve import Resolved, resolve
from nas.run.runs import selected
from nas.spaces.space import Candidate
from nas.statistics import mean
from nas.training.recipe import RECIPES
from nas.trial import Job, job_seed
from nas.winner.sealed import Opened, open_together
from nas.winner.weights import restored

if TYPE_CHECKING:
    from nas.training.network import Network

LECTURE_NAME = "the lecture's network"
LECTURE_EPOCHS = (
    12.0  # of mnist, with batches of 128 and Adam's usual rate; of fewer images up to four times as many
)
LECTURE_IMAGES = 54_000
# Of the usual batch of eight candidates two are trained for long, so that more workers wait for one another.
WORKERS = 2


class Watcher:
    """Is told what a comparison does; does nothing by itself."""

    def searching(self, name: str, number: int, count: int) -> Observer:
        """A search begins or goes on, the ``number``-th of ``count``; what is told to its observer.

        Several searches may run at the same time, each in a thread, in which its observer is called, too.
        """
        return Observer()

    def searched(self, name: str, decided: Selected) -> None:
        """A search has decided."""

    def failed(self, name: str, message: str) -> None:
        """A search has no winner."""

    def fitting(self, name: str) -> None:
        """A baseline is fitted."""

    def fitted(self, baseline: Baseline) -> None:
        """It is."""

    def opening(self, models: int) -> None:
        """Everything is decided: the test images are opened for so many models."""

    def explaining(self, what: str) -> None:
        """An experiment begins."""

    def warned(self, message: str) -> None:
        """Something happened that the user should know."""


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
        watcher: is told what happens.
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
    if folder.exists() and any(path.name != LOCK for path in folder.iterdir()):
        raise UsageError(f"{folder} is not empty; choose another folder with --out, or `nas resume` it")
    return _run(folder, comparison, watcher or Watcher())


def go_on(folder: Path, *, watcher: Watcher | None = None, plugins: Sequence[Path] = ()) -> Compared:
    """Go on with a comparison that was interrupted or killed; the result of one that is finished."""
    trusted: dict[str, Any] = {"plugins": tuple(plugins)} if plugins else {}
    comparison = Comparison.read(folder / TOML, **trusted)
    return _run(folder, comparison, watcher or Watcher())


def known(folder: Path) -> Compared | None:
    """A finished comparison; None if it is not finished."""
    state = State.read(folder)
    comparison = Comparison.read(folder / TOML, trusting=True)
    return Compared(folder, comparison, state, state.result) if state.result else None


def _run(folder: Path, comparison: Comparison, watcher: Watcher) -> Compared:
    """A comparison from its settings to its result, new or resumed."""
    wanted = comparison.searches()
    resolved = _checked([experiment for _, experiment in wanted.values()][: len(comparison.entries)])
    with _locked(folder):
        if (folder / TOML).is_file():
            state = State.read(folder)
        else:
            state = State(secrets.token_hex(8), resolved.source.name)
            state.write(folder)
            write_whole(folder / TOML, comparison.to_toml())
        if state.result is not None:
            return Compared(folder, comparison, state, state.result)
        chosen, lending = next(iter(wanted.values()))[1], Lending(folder)
        uri = store_of(folder, chosen.mlflow) if chosen.mlflow != "off" else ""
        if uri and not state.run:
            try:
                state.run = begin(uri, folder.name, state.id, chosen.model_dump(mode="json"))
                state.write(folder)
            except Exception as error:  # noqa: BLE001  # any exception of MLflow: the searches are not nested then
                watcher.warned(f"MLflow cannot be written ({reason_of(error)}); the comparison goes on")
        if state.run:
            parent = {"mlflow_parent": state.run, "mlflow_experiment": None}
            wanted = {name: (label, one.changed(**parent)) for name, (label, one) in wanted.items()}
        try:
            if comparison.baselines:
                _fit(folder, state, resolved, watcher)
            decided = _search(folder, state, wanted, resolved.workers, lending, watcher)
            if not decided:
                reason = next(iter(state.failed.values()), "")
                raise NasError(
                    f"no search of the comparison has a winner ({reason}): see `nas show {place(folder)}`"
                )
            state.result = _test(folder, comparison, state, wanted, decided, resolved, lending, watcher)
        except KeyboardInterrupt:
            raise Interrupted(f"interrupted; go on with: nas resume {place(folder)}") from None
        state.write(folder)
        compared = Compared(folder, comparison, state, state.result)
        if state.run:
            try:
                tables = {"strategies": strategies(compared), "baselines": baselines(compared)}
                drawn = dict(figures(compared))
                end(uri, state.run, description(compared), tables, drawn, page(compared), scores(compared))
            except Exception as error:  # noqa: BLE001  # any exception of MLflow
                watcher.warned(f"MLflow does not have the tables of the comparison ({reason_of(error)})")
        return compared


def _checked(experiments: Sequence[Experiment]) -> Resolved:
    """The first of several configurations, of which each was checked before anything trains.

    Raises:
        NasError: one of them is wrong, or they do not have the same images.
    """
    first, *others = [resolve(experiment) for experiment in experiments]
    for other in others:
        if other.data.fingerprint != first.data.fingerprint:
            names = f"{first.experiment.dataset} and {other.experiment.dataset}"
            raise UsageError(f"strategies are compared on the same images, and not on {names}: name one data set")
    return first


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """The lock of a comparison, held; its folder is made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / LOCK, timeout=1.0):
            yield
    except Timeout:
        raise UsageError(f"{folder} is being compared by another process: wait for it, or end it") from None
    except OSError as error:
        raise StorageError.of(folder, error) from None


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
        state.baselines[LECTURE_NAME] = _lecture(folder, resolved)
        state.write(folder)
        watcher.fitted(state.baselines[LECTURE_NAME])


def _lecture_job(resolved: Resolved) -> Job:
    epochs = LECTURE_EPOCHS * min(4.0, max(1.0, (LECTURE_IMAGES / len(resolved.data.train)) ** 0.5))
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


def _search(
    folder: Path,
    state: State,
    wanted: Mapping[str, tuple[str, Experiment]],
    workers: int,
    lending: Lending,
    watcher: Watcher,
) -> list[str]:
    """Run all searches until they have decided, on so many workers; the names of those with a winner.

    A search keeps few workers busy, so that with many of them several searches run at the same time.
    """
    names = list(wanted)
    count = min(len(names), max(1, workers // WORKERS))
    experiments = [experiment for _, experiment in wanted.values()]
    if any(one.time_limit or one.evaluator != "local" for one in experiments):  # each has all there is
        count = 1

    def run(name: str) -> tuple[str, Selected | NasError]:
        experiment = wanted[name][1]
        if count > 1:
            experiment = experiment.changed(workers=workers // count)
        observer = watcher.searching(name, names.index(name) + 1, len(names))
        try:
            with _member(lending, name, experiment, [observer]) as (_, found):
                return name, found
        except StorageError:  # the others would fail, too
            raise
        except NasError as error:
            return name, error

    decided = set()
    for name, found in side_by_side(run, names, count):
        if isinstance(found, NasError):
            state.failed[name] = str(found)
            watcher.failed(name, str(found))
        else:
            state.failed.pop(name, None)
            decided.add(name)
            watcher.searched(name, found)
        state.write(folder)
    return [name for name in names if name in decided]


@contextmanager
def _member(
    lending: Lending, name: str, experiment: Experiment, observers: Sequence[Observer]
) -> Iterator[tuple[Run, Selected]]:
    """A search of the comparison up to its winner, new or resumed."""
    own, begun = lending.folder / name, time.monotonic()
    if (own / FILE).is_file() and (own / searches.TOML).is_file():
        with Journal(own / FILE, begun) as journal:
            known = Experiment.read(own / searches.TOML, plugins=experiment.plugins, workers=experiment.workers)
            with selected(known, Start(own, journal, begun=begun, comparison=lending), observers) as found:
                yield found
    else:
        with selected(experiment, Start(own, begun=begun, comparison=lending), observers) as found:
            yield found


def _test(
    folder: Path,
    comparison: Comparison,
    state: State,
    wanted: Mapping[str, tuple[str, Experiment]],
    decided: Sequence[str],
    resolved: Resolved,
    lending: Lending,
    watcher: Watcher,
) -> Result:
    """Open the test images once, for every winner and every baseline, and conclude the searches."""
    networks: dict[str, list[Network]] = {}
    for name in decided:
        quiet = wanted[name][1].changed(mlflow="off")
        with _member(lending, name, quiet, [Observer()]) as (run, found):
            networks[name] = [one.network for one in contestants(run, found).values()]
    answerers = _answerers(folder, state, resolved, watcher)
    explained = list(_explained(folder, state, resolved, watcher)) if comparison.explain else []
    watcher.opening(sum(map(len, networks.values())) + len(answerers) + len(explained))
    state.opened += 1
    state.write(folder)
    opened, answers = open_together(
        resolved.source,
        resolved.data,
        list(networks.values()),
        [*answerers.values(), *(case.answers for case in explained)],
    )
    by_name = dict(zip(networks, opened, strict=True))
    labels = answers.labels
    went = {name: progress_of(folder / name) for name in decided}
    by_label: dict[str, list[Progress]] = {}
    for name in decided:
        by_label.setdefault(wanted[name][0], []).append(went[name])
    target = common_target(by_label)
    searched = []
    for name in decided:
        label, experiment = wanted[name]
        with _member(lending, name, experiment, [Observer()]) as (run, found):
            conclude(run, found, by_name[name])
            row = _row(label, experiment.seed, name, run, found, by_name[name])
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


def _explained(folder: Path, state: State, resolved: Resolved, watcher: Watcher) -> Iterator[Case]:
    """What shows why: for the lecture's network, the best winner, the tree and the forest."""
    networks = {LECTURE_NAME: LECTURE} if LECTURE_NAME in state.baselines else {}
    best = None
    for own in comparisons.members(folder):
        for trial in read(own / FILE)[0].trials.values():
            accuracy = trial.metrics.get("validation_accuracy", 0.0)
            if (own / "retrained" / f"{trial.job.key}.safetensors").is_file() and accuracy > (best or (0.0,))[0]:
                best = accuracy, trial.job.candidate.architecture
    if best is not None:
        networks["the best network found"] = best[1]
    known = [state.baselines[name] for name in ("decision tree", "random forest") if name in state.baselines]
    return cases(folder / "explain", resolved, networks, known, watcher.explaining)


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
