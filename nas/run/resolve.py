"""Setting up: find and check everything that a configuration names, and decide everything that it leaves open.

All of this happens before the first training, and nothing is written.
"""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from nas import plugins
from nas.architecture.architecture import Limits
from nas.data import open_source, search_folders
from nas.data.dataset import Dataset
from nas.data.kinds import NOUNS, kind_of
from nas.data.plugin import FRAMINGS
from nas.errors import DataError, OptionError, PluginError, UsageError, quoted
from nas.evaluation.hardware import Hardware, ThisMachine
from nas.evaluation.local import spawn
from nas.experiment import Experiment
from nas.objectives import BALANCED, TIMES, Objective
from nas.records.outcome import GIVEN
from nas.spaces.fit import MNIST_FLOPS
from nas.spaces.space import SearchSpace
from nas.strategies.strategy import Strategy
from nas.training.recipe import AUTO, Precision, Recipe, recipe_of

if TYPE_CHECKING:
    from nas.data.plugin import DatasetPlugin
    from nas.trial import Job

# The settings that only a search has, and the prefixes of the options that a training of one network may have.
SEARCH_ONLY = frozenset(
    {"strategy", "space", "trials", "time_limit", "objectives", "target", "patience"}
    | {"max_parameters", "max_flops", "batch", "ahead", "rungs"}
)
TRAINING_OPTIONS = ("dataset.", "evaluator.")
# What a search gives to each kind of plugin; all other arguments are options of a user.
GIVES: dict[str, tuple[str, ...]] = {
    "strategy": ("space", "objectives", "seed"),
    "space": (),
    "dataset": ("folders", "path", "device"),
    "evaluator": ("dataset", "recipe", "workers", "device", "group", "weights", "until", "warn", "begun"),
    "layer": (),
}
SPACES = {"images": "cnn", "series": "sequence", "tokens": "transformer"}  # of ``auto``
AT_LEAST_TOGETHER = 4  # networks that train at the same time on a GPU with `--group auto`
# Operations of a network for each pixel of an image, at most, if nobody says otherwise: 61 million for 32×32.
FLOPS_PER_PIXEL, DEAREST_FLOPS = 60_000, 200_000_000
FLOPS_PER_STEP = 100_000  # of a series: 15 million for one of 150 steps
FLOPS_OPTION = "space.max_flops"
# A full training during the search sees at least this many images: one epoch of mnist, four of mnist-5k.
IMAGES_PER_TRAINING = 14_000


@dataclass(frozen=True)
class Resolved:
    """A configuration in which everything is decided."""

    experiment: Experiment  # with the data set, the epochs, the device and the precision that were decided
    parts: Mapping[str, Any]  # kind → the plugin's class; a space or a data set may be an object
    source: DatasetPlugin
    data: Dataset
    limits: Limits
    objectives: tuple[Objective, ...]
    recipe: Recipe
    epochs: float  # of a full training
    device: str
    workers: int
    versions: Mapping[str, str]  # of what the last digits of a result depend on
    training: Mapping[str, str | int]  # the network and the number of seeds of a training; empty for a search
    plan: Mapping[str, Any] | None = None  # see `nas.run.planning`

    @property
    def kind(self) -> str:
        """The strategy's name, or ``train``."""
        return "train" if self.training else plugins.canonical(self.experiment.strategy.removeprefix(GIVEN))

    @property
    def side_by_side(self) -> int:
        """How many networks train at the same time, as far as that is known beforehand."""
        if not self.device.startswith("cuda"):
            return self.workers
        group = self.experiment.group
        return self.workers * (group if isinstance(group, int) else AT_LEAST_TOGETHER)

    @property
    def cores_alone(self) -> int:
        """The cores that a training uses if it has the machine alone."""
        return min(self.recipe.parts, self.side_by_side)

    def make_space(self) -> SearchSpace:
        """The space of the candidates, within the limits."""
        space: SearchSpace = _made(self.experiment, "space", self.parts["space"])
        return space.within(self.limits)

    def make_strategy(self) -> Strategy:
        """A new strategy, which has been told nothing."""
        return _make_strategy(self.experiment, self.parts, self.limits, self.objectives)

    def make_evaluator(
        self,
        weights: Path | None,
        until: float | None,
        warn: Callable[[str], None],
        begun: Callable[[Sequence[Job]], None] = lambda jobs: None,
    ) -> Any:
        """A new evaluator, which may be a context manager; see `Evaluator` for the arguments."""
        return plugins.create(
            self.parts["evaluator"], self.experiment.options_of("evaluator"), dataset=self.data,
            recipe=self.recipe, workers=self.workers, device=self.device, group=self.experiment.group,
            weights=weights, until=until, warn=warn, begun=begun,
        )  # fmt: skip

    def about(self) -> dict[str, Any]:
        """The header of the journal, section by section."""
        config = {**self.experiment.kept(), **self.training}
        if self.training:
            config = {name: value for name, value in config.items() if name not in SEARCH_ONLY}
        splits = {"train": self.data.train, "validation": self.data.validation}
        sizes: dict[str, Any] = {name: len(split) for name, split in splits.items()}
        classes = len(self.data.classes)
        each = (np.bincount(split.labels.numpy(), minlength=classes).tolist() for split in splits.values())
        counts = zip(*each, strict=True)
        sizes["counts"] = {name: list(both) for name, both in zip(self.data.classes, counts, strict=True)}
        sizes |= {"folds": self.data.trainings} if self.data.folds else {}
        return {
            "config": {**config, "objectives": list(self.experiment.objectives)},
            "dataset": {"name": self.source.name, "fingerprint": self.data.fingerprint, **sizes},
            "limits": {**asdict(self.limits), "input_shape": list(self.limits.input_shape)},
            "note": self.source.note,
            # A change in the source of a plugin may change the result.
            "plugins": {kind: self._source_of(kind) for kind in self.parts}
            | {
                f"layer {name}": plugins.source_hash(path)
                for path in plugins.files()
                for name in plugins.describe(path).layers
            },
            "versions": dict(self.versions),
            **({"plan": dict(self.plan)} if self.plan else {}),  # a resumed search keeps its first one
        }

    def _source_of(self, kind: str) -> str:
        """The beginning of the SHA-256 of a plugin's file; for a class given in Python, of the class alone."""
        part = self.parts[kind]
        part = part if isinstance(part, type) else type(part)
        if not getattr(self.experiment, kind).startswith(GIVEN):
            return plugins.source_hash(part)
        try:
            return hashlib.sha256(inspect.getsource(part).encode()).hexdigest()[:16]
        except (OSError, TypeError):  # a class typed into an interpreter
            return ""


def resolve(
    experiment: Experiment,
    training: Mapping[str, str | int] = MappingProxyType({}),
    reading: Callable[[int, int], None] = lambda done, total: None,
) -> Resolved:
    """Find and check everything that a configuration names, and decide everything that it leaves open.

    Args:
        experiment: the configuration.
        training: the network and the number of seeds, for the training of one network; empty for a search.
        reading: is told how many images of how many are decoded, see `Observer.reading`.
    """
    plugins.offer(experiment.plugins)
    objectives = tuple(Objective.parse(text) for text in experiment.objectives)
    times = [one.metric for one in objectives if one.metric in TIMES]
    if times and experiment.ahead > 1:
        raise UsageError(
            f"ahead = {experiment.ahead} measures {times[0]} beside the trainings of other batches: "
            "an objective of time needs ahead = 1"
        )
    decides_space = not training and experiment.space == AUTO
    if decides_space:  # the spaces for all kinds of data have the same options
        experiment = experiment.model_copy(update={"space": SPACES["images"]})
    parts = {} if training else {kind: experiment.part(kind) for kind in ("strategy", "space")}
    if parts:
        _make_strategy(experiment, parts, Limits(), objectives)  # checks the options of both
    parts["evaluator"] = experiment.part("evaluator")
    if times and not getattr(parts["evaluator"], "measures_alone", True):
        raise UsageError(
            f"the evaluator {experiment.evaluator} measures {times[0]} beside other trainings, on several "
            "machines: an objective of time needs --evaluator local"
        )
    hardware = _hardware(experiment, parts["evaluator"])
    device = available_device(experiment.device, hardware)
    source = _source(experiment, device)
    source.progress = reading
    parts["dataset"] = type(source)
    data = plugins.guarded(source.load, f"the data set {source.name} cannot be loaded")
    if not isinstance(data, Dataset):
        raise PluginError(f"load of {source.name} must return a Dataset, not a {type(data).__name__}")
    if source.framing not in FRAMINGS:
        known = ", ".join(FRAMINGS)
        raise PluginError(f"{source.name} has framing = {quoted(source.framing)}, and should have one of {known}")
    _check_reading(source, data)
    plugins.guarded(
        partial(source.check_test, data), f"the test {NOUNS[data.kind].many} of {source.name} cannot be loaded"
    )
    if decides_space:
        experiment = experiment.model_copy(update={"space": SPACES[data.kind]})
        parts["space"] = experiment.part("space")
    limits = Limits(data.input_shape, len(data.classes))
    if not training:
        limits = replace(limits, max_parameters=experiment.max_parameters, max_flops=experiment.max_flops)
    recipe = replace(
        recipe_of(experiment.recipe, source.recipe), precision=_precision(experiment.precision, device, hardware)
    )
    if recipe.class_weights == "auto":
        is_balanced = not training and objectives[0].metric in BALANCED
        recipe = replace(recipe, class_weights="balanced" if is_balanced else "none")
    epochs = experiment.epochs or float(max(1, IMAGES_PER_TRAINING // data.trainings // len(data.train)))
    decided: dict[str, Any] = {"epochs": epochs, "device": device, "precision": recipe.precision}
    decided["recipe"] = _decided(experiment.recipe, source.recipe)
    if not experiment.dataset.startswith(GIVEN):
        decided["dataset"] = source.address or source.name  # where it was "auto"
    decided["options"] = {f"dataset.{name}": value for name, value in source.chosen.items()}
    if not training and is_free(experiment, parts["space"]):
        most = source.max_flops or usual_flops(data.input_shape)
        if most != MNIST_FLOPS:  # which is the space's own
            decided["options"][FLOPS_OPTION] = most
    decided["options"] = experiment.options | decided["options"]
    return Resolved(
        experiment.model_copy(update=decided), parts, source, data, limits, objectives, recipe, epochs, device,
        hardware.workers(device) if experiment.workers == "auto" else experiment.workers,
        {**{package: version(package) for package in ("nas", "torch")}, **hardware.versions()}, training,
    )  # fmt: skip


def _check_reading(source: DatasetPlugin, data: Dataset) -> None:
    """Refuse what `nas predict` could not use; a winner would be lost."""
    from nas.data.sequences.reading import reading_of

    try:
        reading_of(source.reading, data.input_shape, data.classes)
    except (ValueError, DataError) as error:
        raise PluginError(f"the data set {source.name}: {error}") from None


def _make_strategy(
    experiment: Experiment, parts: Mapping[str, Any], limits: Limits, objectives: Sequence[Objective]
) -> Strategy:
    space: SearchSpace = _made(experiment, "space", parts["space"])
    given = {"space": space.within(limits), "objectives": objectives, "seed": experiment.seed}
    strategy: Strategy = _made(experiment, "strategy", parts["strategy"], **given)
    return strategy


def _decided(recipe: str | Mapping[str, Any], auto: str | Mapping[str, Any]) -> str | dict[str, Any]:
    """The setting of a recipe in which "auto" is replaced by the recipe for the data."""
    given, own = ({"base": one} if isinstance(one, str) else dict(one) for one in (recipe, auto))
    if given["base"] == AUTO:
        given = {**own, **given, "base": own.get("base", "default")}
    return given if len(given) > 1 else str(given["base"])


def is_free(experiment: Experiment, space: Any) -> bool:
    """Whether neither the user nor a subclass of the space has said what networks may cost."""
    is_said = experiment.max_flops or FLOPS_OPTION in experiment.options
    if is_said or not isinstance(space, type) or not issubclass(space, SearchSpace) or not space.adapts:
        return False
    takes_option = "max_flops" in inspect.signature(space.__init__).parameters
    return takes_option and space.max_flops == MNIST_FLOPS


def usual_flops(shape: Sequence[int]) -> int:
    """The operations that a network may need for an input of this shape, if nobody says otherwise."""
    each = FLOPS_PER_STEP if kind_of(shape) == "series" else FLOPS_PER_PIXEL
    return min(DEAREST_FLOPS, max(MNIST_FLOPS, each * math.prod(shape[1:])))


def _source(experiment: Experiment, device: str) -> DatasetPlugin:
    if not experiment.dataset.startswith(GIVEN):
        with _placed(experiment, "dataset"):
            options = experiment.options_of("dataset")
            return open_source(experiment.dataset, experiment.data_dir, options, experiment.plugins, device)
    part = experiment.part("dataset")
    source: DatasetPlugin = _made(experiment, "dataset", part, folders=search_folders(experiment.data_dir))
    if not getattr(source, "name", ""):
        source.name = plugins.canonical(experiment.dataset.removeprefix(GIVEN))
    return source


def _made(experiment: Experiment, kind: str, part: Any, **given: Any) -> Any:
    """An object of a plugin's class, with the options of its kind; a part that is an object already, unchanged."""
    options = experiment.options_of(kind)
    if isinstance(part, type):
        with _placed(experiment, kind):
            return plugins.create(part, options, **given)
    if options:
        name = f"{kind}.{next(iter(options))}"
        raise UsageError(f"the {kind} is an object, which takes no options any more: leave out the option {name}")
    return part


def options_of(kind: str, plugin: type[Any]) -> dict[str, inspect.Parameter]:
    """The arguments of a plugin that a user can set, by their names."""
    kinds = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    taken = inspect.signature(plugin).parameters
    return {name: one for name, one in taken.items() if name not in GIVES[kind] and one.kind in kinds}


@contextmanager
def _placed(experiment: Experiment, kind: str) -> Iterator[None]:
    """Put file and line before an error about an option, where the option came from a file."""
    try:
        yield
    except OptionError as error:
        name = error.name if kind == "strategy" else f"{kind}.{error.name}"
        raise UsageError(f"{experiment.place(name)}{error}") from None


def _hardware(experiment: Experiment, evaluator: Any) -> Hardware:
    """What the evaluator trains on, see `nas.evaluation.evaluator.Evaluator`; its options are checked."""
    with _placed(experiment, "evaluator"):
        options = plugins.check_options(evaluator, experiment.options_of("evaluator"), GIVES["evaluator"])
    if says := getattr(evaluator, "hardware", None):
        found: Hardware = plugins.guarded(lambda: says(options), f"{evaluator.__name__} has no machines")
        return found
    spawn.warm_up()  # while the data are read
    return ThisMachine()


def available_device(name: str, hardware: Hardware | None = None) -> str:
    """The device that trains, of this machine if no other is given.

    ``auto`` is CUDA if it is there, or else mps, the GPU of a Mac.
    """
    counts = (hardware or ThisMachine()).devices()
    if name == "auto":
        return next(kind for kind in ("cuda", "mps", "cpu") if counts.get(kind))
    kind, _, index = name.partition(":")
    if not (index or "0").isdecimal() or int(index or 0) >= counts.get(kind, 0):
        known = ", ".join(device for device, count in counts.items() if count)
        raise UsageError(f"there is no device {name!r} here (known: {known}); choose one of them with --device")
    return name if kind != "cpu" else "cpu"


def _precision(name: str, device: str, hardware: Hardware) -> Precision:
    """The precision of training; ``auto`` is bfloat16 on a device with units for it (see docs/decisions/0010)."""
    if name == "auto":
        return "bfloat16" if hardware.has_bfloat16(device) else "float32"
    if name == "tf32" and not device.startswith("cuda"):
        raise UsageError(f"precision tf32 is for CUDA devices, and this is {device}; take float32 or bfloat16")
    return cast("Precision", name)
