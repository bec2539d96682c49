"""One run, from its configuration to its winner. The parts are made and put together here, and nowhere else."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas import plugins
from nas.architecture.architecture import Architecture, Limits
from nas.data import open_source
from nas.errors import NasError, OptionError, UsageError
from nas.evaluation import processes
from nas.evaluation.halving import SuccessiveHalving
from nas.evaluation.recorded import Recorded
from nas.experiment import Experiment
from nas.front import front
from nas.outcome import handover, selection
from nas.outcome.model import log_model
from nas.records.journal import Journal
from nas.records.mlflow import MlflowView
from nas.records.observer import Header, Observer, Outcome
from nas.search import Budget, Search
from nas.spaces.space import Candidate
from nas.strategies.strategy import Strategy
from nas.training.recipe import Recipe, recipe_named
from nas.trial import Job, Objective, Trial, job_seed, scored

if TYPE_CHECKING:
    from nas.data.dataset import Dataset
    from nas.data.source import Source

DEFAULT_TRIALS = 40
SEARCH_ONLY = {"strategy", "space", "trials", "time_limit", "objectives", "max_parameters", "max_flops"}
SEARCH_ONLY |= {"batch", "rungs", "options", "plugins"}
EVALUATOR_GETS = ("dataset", "recipe", "workers", "device", "weights", "until")
# A full training during the search sees at least so many images: one epoch of mnist, four of mnist-5k.
IMAGES_PER_TRAINING = 14_000
# Of a time limit: what the search may spend, and what the test, the records and the model take at the end.
SEARCH_SHARE = 0.45
CLOSING_SECONDS = 15.0


def run_search(experiment: Experiment, out: Path | None, observers: Sequence[Observer]) -> Outcome:
    """Search, select, test once, hand over (see `Experiment.run`)."""
    limit = experiment.time_limit
    trials = experiment.trials or (None if limit else DEFAULT_TRIALS)
    experiment = experiment.model_copy(update={"trials": trials})
    make_strategy = _strategy(experiment)
    with _session(experiment, plugins.canonical(experiment.strategy), out, observers) as session:
        until = session.begun + SEARCH_SHARE * limit if limit else None
        with session.evaluator(until=until) as evaluator:
            search = Search(
                make_strategy(session),
                SuccessiveHalving(evaluator, rungs=experiment.rungs),
                Budget(trials, until, experiment.batch),
                session.epochs,
                experiment.seed,
                session.limits,
                session.observers,
            )
            history = search.run()
        known = [scored(trial, session.objectives) for trial in session.journal]
        best = selection.best_trials(known, 3)
        left = max(1.0, session.begun + limit - time.monotonic() - CLOSING_SECONDS) if limit else None
        plan = selection.plan(best, session.epochs, session.workers, left)
        session.tell("selecting", plan.finalists * plan.seeds, plan.epochs)
        end = session.begun + limit - CLOSING_SECONDS / 2 if limit else None
        with session.evaluator(weights=session.folder / "retrained", until=end) as evaluator:
            finalists = selection.retrain(evaluator, best, plan, experiment.seed)
        winner = next(trial for trial in best if trial.id == finalists[0][0].id)
        failed = sum(trial.failure is not None for trial in history)
        return session.conclude(winner, finalists, len(history), failed, front(known))


def run_training(
    experiment: Experiment, architecture: Architecture, name: str, out: Path | None, observers: Sequence[Observer]
) -> Outcome:
    """Train one network, without a search, and hand it over (see ``nas train``)."""
    with _session(experiment, "train", out, observers, network=name) as session:
        session.limits.check(architecture)
        job = Job(Candidate(architecture, origin=name), session.epochs, job_seed(experiment.seed, architecture.id))
        with session.evaluator(weights=session.folder / "retrained") as evaluator:
            trials = list(evaluator.evaluate([job]))
        for trial in trials:
            session.tell("told", trial)
        winner = selection.best_trials(trials, 1)[0]
        return session.conclude(winner, [(winner,)], 1, 0, [winner])


@dataclass
class Session:
    """What a run has while it lasts."""

    begun: float  # a moment of `time.monotonic`
    experiment: Experiment
    folder: Path
    source: Source
    data: Dataset
    limits: Limits
    objectives: tuple[Objective, ...]
    recipe: Recipe
    epochs: float
    device: str
    workers: int
    journal: Journal
    header: Header
    observers: Sequence[Observer]
    trains: type[Any]  # the evaluator's class

    def tell(self, what: str, *told: Any) -> None:
        """Call a method of every observer."""
        for observer in self.observers:
            getattr(observer, what)(*told)

    @contextmanager
    def evaluator(self, *, weights: Path | None = None, until: float | None = None) -> Iterator[Recorded]:
        """The evaluator behind the journal, for as long as the ``with`` block lasts."""
        made = plugins.create(
            self.trains, self.experiment.options_of("evaluator"), dataset=self.data, recipe=self.recipe,
            workers=self.workers, device=self.device, weights=weights, until=until,
        )  # fmt: skip
        with made if hasattr(made, "__exit__") else nullcontext(made) as inner:
            yield Recorded(inner, self.journal, self.objectives, lambda trial: self.tell("trained", trial))

    def conclude(
        self,
        winner: Trial,
        finalists: Sequence[tuple[Trial, ...]],
        trials: int,
        failed: int,
        best: Sequence[Trial],
    ) -> Outcome:
        """Hand the winner over and open the test images."""
        chosen = max(finalists[0], key=lambda trial: trial.scores)
        folder = self.folder / "best"
        weights = self.folder / "retrained" / f"{chosen.job.key}.safetensors"
        network = handover.write_best(folder, winner.job.candidate.architecture, weights, self.data)
        accuracy, loss, images = handover.open_test(self.source, network)
        outcome = Outcome(
            header=self.header,
            trials=trials,
            failed=failed,
            seconds=time.monotonic() - self.begun,
            winner=winner,
            retrained=finalists[0],
            finalists=tuple(finalists),
            test_accuracy=accuracy,
            test_loss=loss,
            test_images=images,
            front=tuple(best),
            weights=folder / "weights.safetensors",
        )
        handover.write_card(outcome)
        self.tell("finished", outcome)
        return outcome


@contextmanager
def _session(
    experiment: Experiment, kind: str, out: Path | None, observers: Sequence[Observer], **more: str
) -> Iterator[Session]:
    """Everything that a run needs, checked before any training; afterwards nothing is left running."""
    begun = time.monotonic()
    processes.warm_up()
    objectives = tuple(Objective.parse(text) for text in experiment.objectives)
    recipe = recipe_named(experiment.recipe)
    trains: type[Any] = plugins.find("evaluator", experiment.evaluator, experiment.plugins)
    with _placed(experiment, "evaluator"):
        plugins.check_options(trains, experiment.options_of("evaluator"), EVALUATOR_GETS)
    with _placed(experiment, "dataset"):
        options = experiment.options_of("dataset")
        source = open_source(experiment.dataset, experiment.data_dir, options, experiment.plugins)
    data = plugins.guarded(source.load, f"the data set {source.name} cannot be loaded")
    limits = Limits(data.input_shape, len(data.classes))
    if not more:
        limits = replace(limits, max_parameters=experiment.max_parameters, max_flops=experiment.max_flops)
    device = _device(experiment.device)
    workers = _workers(experiment, device)
    epochs = experiment.epochs or float(max(1, IMAGES_PER_TRAINING // len(data.train)))
    folder = _new_folder(out, kind)
    config = {**experiment.model_dump(mode="json"), "dataset": source.name, "epochs": epochs, **more}
    if more:  # a training: what only a search has stays out of its record
        config = {name: value for name, value in config.items() if name not in SEARCH_ONLY}
    sizes = {"train": len(data.train), "validation": len(data.validation)}
    dataset = {"name": source.name, "fingerprint": data.fingerprint, **sizes}
    header = Header(folder, config, dataset, limits, objectives, source.note)
    if not more:
        settled = experiment.model_copy(update={"dataset": source.name, "epochs": epochs})
        (folder / "search.toml").write_text(settled.to_toml(), encoding="utf-8")
    everyone = [*observers]
    if experiment.mlflow != "off":
        log = partial(log_model, data.validation.images[:4])
        uri = None if experiment.mlflow == "auto" else experiment.mlflow
        everyone.append(MlflowView(_warner(observers), uri, log_model=log))
    about = {"config": config, "dataset": header.dataset, "note": source.note}
    with Journal(folder / "journal.jsonl", about) as journal:
        session = Session(
            begun, experiment, folder, source, data, limits, objectives, recipe, epochs, device, workers, journal,
            header, everyone, trains,
        )  # fmt: skip
        session.tell("started", header)
        try:
            yield session
        except Exception as error:
            session.tell("failed", str(error) or type(error).__name__)
            raise
        except KeyboardInterrupt:
            session.tell("warned", "interrupted; writing the record (Ctrl-C again to leave at once)")
            raise
        finally:
            session.tell("close")


def _strategy(experiment: Experiment) -> Callable[[Session], Strategy]:
    """What makes the strategy, once there is a session; its name, space and options are checked now."""
    extra = experiment.plugins
    kind = plugins.find("strategy", experiment.strategy, extra)
    with _placed(experiment, "space"):
        space = plugins.create(plugins.find("space", experiment.space, extra), experiment.options_of("space"))

    def make(limits: Limits, objectives: Sequence[Objective]) -> Strategy:
        options = experiment.options_of("strategy")
        with _placed(experiment, "strategy"):
            made: Strategy = plugins.create(
                kind, options, space=space.within(limits), objectives=objectives, seed=experiment.seed
            )
        return made

    make(Limits(), [Objective.parse(text) for text in experiment.objectives])
    return lambda session: make(session.limits, session.objectives)


@contextmanager
def _placed(experiment: Experiment, kind: str) -> Iterator[None]:
    """Say in which line of the experiment's file the option stands that is wrong."""
    try:
        yield
    except OptionError as error:
        name = error.name if kind == "strategy" else f"{kind}.{error.name}"
        raise UsageError(f"{experiment.place(name)}{error}") from None


def _warner(observers: Sequence[Observer]) -> Callable[[str], None]:
    def warn(message: str) -> None:
        for observer in observers:
            observer.warned(message)

    return warn


def _device(name: str) -> str:
    """Where to train; ``auto`` is a CUDA device where there is one.

    Raises:
        UsageError: there is no such device here.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    kind, _, index = name.partition(":")
    many = torch.cuda.device_count() if kind == "cuda" else 1
    if not available.get(kind, False) or (index and not (index.isdigit() and int(index) < many)):
        here = ", ".join(device for device, there in available.items() if there)
        raise UsageError(f"there is no device {name!r} here (there is: {here}); choose one of them with --device")
    return name


def _workers(experiment: Experiment, device: str) -> int:
    if experiment.workers != "auto":
        return experiment.workers
    return processes.cores() if device == "cpu" else 1


def _new_folder(out: Path | None, kind: str) -> Path:
    """A new or empty folder for a run.

    Raises:
        NasError: it cannot be made or written, or is not empty.
    """
    stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    folder = (out or Path("runs") / f"{stamp}-{kind}-{secrets.token_hex(2)}").absolute()
    try:
        if folder.exists() and any(folder.iterdir()):
            raise UsageError(f"{folder} is not empty; choose another folder with --out")
        (folder / "retrained").mkdir(parents=True, exist_ok=True)
        (folder / "journal.jsonl").touch()
    except OSError as error:
        raise NasError(f"{folder} cannot be written: {error.strerror}; choose another folder with --out") from None
    return folder
