"""What a run has while it lasts. The parts are made and put together here, and nowhere else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

from nas import plugins
from nas.architecture.architecture import Limits
from nas.dashboard.registry import log_model, warm_up
from nas.dashboard.store import store_of
from nas.dashboard.thread import MlflowThread
from nas.data import open_source
from nas.errors import Interrupted, JournalError, NasError, OptionError, StorageError, UsageError
from nas.evaluation.local import spawn as processes
from nas.evaluation.recorded import Recorded
from nas.experiment import Experiment
from nas.files import write_whole
from nas.objectives import Objective, front
from nas.records import searches
from nas.records.journal import FILE, Journal
from nas.records.observer import Observer
from nas.records.outcome import COMPARED_WITH, Header, Outcome
from nas.run import selection
from nas.strategies.strategy import Strategy
from nas.training.recipe import Precision, Recipe, recipe_named
from nas.trial import Trial
from nas.winner.best import write_best
from nas.winner.card import write_card
from nas.winner.sealed import open_test
from nas.winner.weights import restored

if TYPE_CHECKING:
    from nas.data.dataset import Dataset
    from nas.data.source import Source
    from nas.training.network import Network

SEARCH_ONLY = {"strategy", "space", "trials", "time_limit", "objectives", "max_parameters", "max_flops"}
SEARCH_ONLY |= {"batch", "rungs", "options", "plugins"}
EVALUATOR_GETS = ("dataset", "recipe", "workers", "device", "group", "weights", "until", "warn")
# What `--group auto` is taken for in the plan of a final selection, whose trainings run at the same time.
AT_LEAST_TOGETHER = 4
# A full training during the search sees at least so many images: one epoch of mnist, four of mnist-5k.
IMAGES_PER_TRAINING = 14_000


@dataclass(frozen=True)
class Start:
    """Where a run begins: in a new folder, or in the middle of a search whose journal is open."""

    folder: Path | None = None
    journal: Journal | None = None
    more: bool = False  # there is more budget than before
    force: bool = False  # whatever has changed


@dataclass
class Session:
    """What a run has while it lasts."""

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
    warn: Callable[[str], None]

    @property
    def side_by_side(self) -> int:
        """How many networks train at a time, as far as that is known beforehand."""
        if not self.device.startswith("cuda"):  # there they take turns
            return self.workers
        group = self.experiment.group
        return self.workers * (group if isinstance(group, int) else AT_LEAST_TOGETHER)

    def tell(self, what: str, *told: Any) -> None:
        """Call a method of every observer."""
        for observer in self.observers:
            getattr(observer, what)(*told)

    @contextmanager
    def evaluator(self, *, weights: Path | None = None, until: float | None = None) -> Iterator[Recorded]:
        """The evaluator behind the journal, for as long as the ``with`` block lasts."""
        made = plugins.create(
            self.trains, self.experiment.options_of("evaluator"), dataset=self.data, recipe=self.recipe,
            workers=self.workers, device=self.device, group=self.experiment.group, weights=weights, until=until,
            warn=self.warn,
        )  # fmt: skip
        with made if hasattr(made, "__exit__") else nullcontext(made) as inner:
            shown = partial(self.tell, "trained")
            yield Recorded(inner, self.journal, self.objectives, shown, until=until, weights=weights)

    def conclude(
        self,
        winner: Trial,
        finalists: Sequence[tuple[Trial, ...]],
        history: Sequence[Trial],
        lecture: Trial | None = None,
    ) -> Outcome:
        """Hand the winner over and open the test images.

        Args:
            winner: the search's trial of it.
            finalists: all that were trained again, the winner first.
            history: all trials of the search.
            lecture: the training of the lecture's network beside them.
        """
        chosen, *second = (selection.best_seed(group) for group in finalists)
        folder = self.folder / "best"
        architecture, framing = winner.job.candidate.architecture, self.source.framing
        network = write_best(folder, architecture, self._weights(chosen), self.data, framing)
        beside = {"second": second[0]} if second else {}
        if lecture is not None and lecture.id != winner.id:
            beside = {what: trial for what, trial in beside.items() if trial.id != lecture.id}
            beside["lecture"] = lecture
        others = self._restored(beside)
        tested, *rest = open_test(self.source, [network, *others.values()])
        pairs = zip(others, rest, strict=True)
        outcome = Outcome(
            header=self.header,
            trials=len(history),
            failed=sum(trial.failure is not None for trial in history),
            seconds=time.monotonic() - self.journal.begun,
            winner=winner,
            retrained=finalists[0],
            finalists=tuple(finalists),
            test_accuracy=tested.accuracy,
            test_loss=tested.loss,
            test_images=len(tested.right),
            front=tuple(front(history)),
            opened=self.journal.record.outcomes + 1,
            compared=tuple(tested.compared_with(other, what, beside[what]) for what, other in pairs),
            weights=folder / "weights.safetensors",
        )
        write_card(outcome)
        self.tell("finished", outcome)
        return outcome

    def _weights(self, trial: Trial) -> Path:
        """Where the evaluator has left the weights of a training of the final selection."""
        return self.folder / "retrained" / f"{trial.job.key}.safetensors"

    def _restored(self, trials: Mapping[str, Trial]) -> dict[str, Network]:
        """The trained networks that the winner is compared with; one whose weights are damaged is left out."""
        found = {}
        for what, trial in trials.items():
            architecture, shape = trial.job.candidate.architecture, self.limits.input_shape
            try:
                found[what] = restored(architecture, shape, self.limits.classes, self._weights(trial))
            except (ValueError, NasError) as error:
                self.warn(f"the winner is not compared with {COMPARED_WITH[what]}: {error}")
        return found


@contextmanager
def open_session(
    experiment: Experiment,
    kind: str,
    start: Start,
    observers: Sequence[Observer],
    parts: Mapping[str, type[Any]] = MappingProxyType({}),
    **more: str | int,
) -> Iterator[Session]:
    """Everything that a run needs, checked before any training; afterwards nothing is left running.

    Args:
        experiment: the configuration.
        kind: the strategy's name, or ``train``.
        start: where it begins.
        observers: are told what happens.
        parts: the classes of the plugins that are found already.
        more: what else the record says of a training, which is no search.
    """
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
    parts = {**parts, "evaluator": trains, "dataset": type(source)}
    data = plugins.guarded(source.load, f"the data set {source.name} cannot be loaded")
    limits = Limits(data.input_shape, len(data.classes))
    if not more:
        limits = replace(limits, max_parameters=experiment.max_parameters, max_flops=experiment.max_flops)
    device = _device(experiment.device)
    recipe = replace(recipe, precision=_precision(experiment.precision, device))
    workers = _workers(experiment, device)
    epochs = experiment.epochs or float(max(1, IMAGES_PER_TRAINING // len(data.train)))
    settled = experiment.model_copy(
        update={"dataset": source.name, "epochs": epochs, "device": device, "precision": recipe.precision}
    )
    config = {**settled.model_dump(mode="json"), **more}
    if more:  # a training: what only a search has stays out of its record
        config = {name: value for name, value in config.items() if name not in SEARCH_ONLY}
    sizes = {"train": len(data.train), "validation": len(data.validation)}
    about = {
        "config": {**config, "objectives": list(experiment.objectives)},
        "dataset": {"name": source.name, "fingerprint": data.fingerprint, **sizes},
        "limits": {**asdict(limits), "input_shape": list(limits.input_shape)},
        "note": source.note,
        # With another source, another result.
        "plugins": {name: plugins.source_hash(part) for name, part in parts.items()},
        "versions": {package: version(package) for package in ("nas", "torch")},
    }
    with _journal(start, kind, about, settled, begun, observers) as journal:
        header = journal.record.header
        everyone: list[Observer] = [journal, *observers]
        if experiment.mlflow != "off":
            everyone.append(_view(experiment, journal, data, observers))
        session = Session(
            experiment, header.folder, source, data, limits, objectives, recipe, epochs, device, workers, journal,
            header, everyone, trains, warner(everyone),
        )  # fmt: skip
        session.tell("started", header)
        if start.journal:
            known = journal.record
            session.tell("resumed", len(known.told), frozenset(known.trials), known.seconds)
        try:
            yield session
        except Exception as error:
            message = str(error) or type(error).__name__
            with suppress(StorageError):  # of which the first one is on its way
                journal.stopped("failed", message)
            session.tell("failed", message)
            raise
        except KeyboardInterrupt:
            with suppress(StorageError):
                journal.stopped("interrupted", "")
            session.tell("interrupted")
            command = searches.resume_command(header.folder, header.config)
            raise Interrupted(f"interrupted; go on with: {command}" if not more else "interrupted") from None
        finally:
            try:
                session.tell("close")
            except KeyboardInterrupt:  # everything is in the journal; what MLflow lacks can be written later
                name = header.folder.name
                raise Interrupted(f"interrupted; `nas show {name}` and `nas sync {name}` have the rest") from None


@contextmanager
def _journal(
    start: Start,
    kind: str,
    about: dict[str, Any],
    settled: Experiment,
    begun: float,
    observers: Sequence[Observer],
) -> Iterator[Journal]:
    """The journal of a run, in which this process has begun its work; its folder holds the configuration."""
    if start.journal is not None:
        before = start.journal.record.about
        found = searches.differences(before, about) if "config" in before else []  # it had not begun
        if found and not start.force:
            name, words = start.journal.path.parent.name, "; ".join(found)
            raise JournalError(f"{name} is not what it was: {words}. --force goes on all the same")
        found += [
            f"{package} was {old}, and is {about['versions'][package]}: the last digits may differ"
            for package, old in before.get("versions", {}).items()
            if about["versions"].get(package) != old
        ]
        for line in found:
            warner(observers)(f"going on, but {line}")
        opened: Any = nullcontext(start.journal)
    else:
        folder = searches.new_folder(start.folder, kind)
        opened = Journal(folder / FILE, begun=begun)
    with opened as journal:
        if start.journal is None and not journal.is_new:  # in the same moment, another process took the folder
            raise UsageError(f"{journal.path.parent} is not empty any more; choose another folder with --out")
        if kind != "train":  # first, so that whatever has a journal can go on
            write_whole(journal.path.parent / searches.TOML, settled.to_toml())
        journal.begin(about, more=start.more, forced=start.force)
        yield journal


def _view(experiment: Experiment, journal: Journal, data: Dataset, observers: Sequence[Observer]) -> MlflowThread:
    uri = store_of(journal.path.parent, experiment.mlflow)
    logs = partial(log_model, data.validation.images[:4])
    return MlflowThread(journal.record, warner(observers), uri, logs, warm_up)


def find_strategy(experiment: Experiment) -> tuple[Callable[[Session], Strategy], dict[str, type[Any]]]:
    """What makes the strategy, once there is a session; and the classes of the strategy and the space.

    Their names and options are checked now.
    """
    extra = experiment.plugins
    parts = {kind: plugins.find(kind, getattr(experiment, kind), extra) for kind in ("strategy", "space")}
    with _placed(experiment, "space"):
        space = plugins.create(parts["space"], experiment.options_of("space"))

    def make(limits: Limits, objectives: Sequence[Objective]) -> Strategy:
        given = {"space": space.within(limits), "objectives": objectives, "seed": experiment.seed}
        with _placed(experiment, "strategy"):
            made: Strategy = plugins.create(parts["strategy"], experiment.options_of("strategy"), **given)
        return made

    make(Limits(), [Objective.parse(text) for text in experiment.objectives])
    return lambda session: make(session.limits, session.objectives), parts


@contextmanager
def _placed(experiment: Experiment, kind: str) -> Iterator[None]:
    """Say in which line of the experiment's file the option stands that is wrong."""
    try:
        yield
    except OptionError as error:
        name = error.name if kind == "strategy" else f"{kind}.{error.name}"
        raise UsageError(f"{experiment.place(name)}{error}") from None


def warner(observers: Sequence[Observer]) -> Callable[[str], None]:
    """What gives every observer a line, once: several workers may say the same."""
    said = set[str]()

    def warn(message: str) -> None:
        if message in said:
            return
        said.add(message)
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
    if not available.get(kind, False) or (index and not (index.isdecimal() and int(index) < many)):
        here = ", ".join(device for device, there in available.items() if there)
        raise UsageError(f"there is no device {name!r} here (there is: {here}); choose one of them with --device")
    return name if kind != "cpu" else "cpu"


def _precision(name: str, device: str) -> Precision:
    """In which precision to train; ``auto`` is bfloat16 on a CPU or a GPU that has units for it.

    Its rankings agree better with those of float32 than two seeds do with each other (docs/decisions/0010).

    Raises:
        UsageError: this device does not have it.
    """
    import torch

    if name == "auto":
        if device.startswith("cuda"):
            with torch.cuda.device(device):
                has_units = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            has_units = device == "cpu" and getattr(torch.cpu, "_is_avx512_bf16_supported", bool)()
        return "bfloat16" if has_units else "float32"
    if name == "tf32" and not device.startswith("cuda"):
        raise UsageError(f"precision tf32 is for CUDA devices, and this is {device}; take float32 or bfloat16")
    return cast("Precision", name)


def _workers(experiment: Experiment, device: str) -> int:
    if experiment.workers != "auto":
        return experiment.workers
    return processes.cores() if device == "cpu" else 1
