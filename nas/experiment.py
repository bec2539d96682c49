"""The configuration of a search, from a TOML file, the command line or Python."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    ValidationError,
    field_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

import nas
from nas import plugins as installed
from nas.data.dataset import Dataset
from nas.errors import OptionError, UsageError, label, masked, plain, quoted, unknown
from nas.files import read_small
from nas.objectives import Objective
from nas.records.observer import Observer
from nas.records.outcome import GIVEN, Outcome
from nas.toml import place_of, read_table, written, written_key
from nas.training.recipe import AUTO, Recipe, recipe_of, table_of

# The parts of a search that are plugins. Each has a name, or is given in Python as a class; a space or a data set
# may be given as an object, too. The setting is then the text "object:" and the name of the class.
PARTS = ("strategy", "space", "dataset", "evaluator")
HERE = ("evaluator.address",)  # options that are never written down, nor taken from a file
PREFIXES = ("space.", "dataset.", "evaluator.")  # of options; those of the strategy have none

Setting = None | bool | int | float | str
LARGEST = 2**63 - 1  # the largest whole number in TOML, although tomllib reads larger ones


def _seconds(value: object) -> object:
    """``"90s"``, ``"10m"`` or ``"1h30m"`` as seconds; other types stay as they are."""
    if not isinstance(value, str):
        return value
    number = r"([0-9]{1,9}(?:\.[0-9]{1,9})?)"
    match = re.fullmatch(rf"(?:{number}h)?(?:{number}m)?(?:{number}s?)?", value.strip().lower())
    if match is None or not any(match.groups()):
        raise ValueError("a time is written like 90s, 10m or 1h30m")
    return sum(float(part or 0) * unit for part, unit in zip(match.groups(), (3600, 60, 1), strict=True))


def _objectives(values: tuple[str, ...]) -> tuple[str, ...]:
    values = tuple(str(Objective.parse(value)) for value in values)
    if len(set(values)) < len(values):
        raise ValueError("each objective is given once")
    return values


def _fraction(value: float) -> float:
    if value > 1:
        raise ValueError("an accuracy is a fraction, at most 1: 98 % is 0.98")
    return value


def _option(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("should be a finite number")
    if isinstance(value, int) and abs(value) > LARGEST:
        raise ValueError("should be a number of at most 64 bits")
    return value


def _path(path: Path) -> Path:
    if "\0" in str(path) or len(str(path).encode()) > 4096 or any(len(part.encode()) > 255 for part in path.parts):
        raise ValueError("a path has at most 4,096 bytes, each name in it at most 255, and none of them is zero")
    return path


def _dataset(value: object) -> object:
    """A path as text, with a separator that tells it from a name."""
    if isinstance(value, str) and value.encode(errors="replace").decode() != value:
        raise ValueError("its name is not UTF-8, so that it cannot be kept in the record: rename it")
    if not isinstance(value, PurePath):
        return value
    return str(_path(Path(value))) if len(value.parts) > 1 else os.path.join(".", value)  # noqa: PTH118


def _device(device: str) -> str:
    if ":" in device and not re.fullmatch(r"[a-z]+:[0-9]{1,4}", device):
        raise ValueError("a device is written like cuda:1")
    return device


def _address(address: str) -> str:
    if "@" in address and re.search(r"\s", address):  # where the credentials end could not be told
        raise ValueError("a space in an address with a password is written %20")
    return address


def _recipe(value: object) -> object:
    """A recipe as the setting keeps it: its name, or a table of the fields that differ from it."""
    try:
        table = table_of(value) if isinstance(value, Recipe) else value
        if isinstance(table, str):
            recipe_of(table)
        if not isinstance(table, Mapping):
            return table
        recipe, base = recipe_of(table), str(table.get("base", AUTO))
    except UsageError as error:
        name = f"recipe.{error.name}" if isinstance(error, OptionError) else "recipe"
        raise PydanticCustomError("recipe", "{text}", {"text": str(error), "name": name}) from None
    changes = {str(name): getattr(recipe, str(name)) for name in table if name != "base"}
    return {"base": base, **changes} if changes else base


Name = Annotated[str, Field(max_length=200)]
Count = Annotated[int, Field(ge=1, le=LARGEST)]
CountOrAuto = Annotated[int, Field(ge=1, le=1024)] | Literal["auto"]
AnyPath = Annotated[Path, Field(strict=False), AfterValidator(_path)]


class Experiment(BaseModel):
    """Everything that decides what a search does. The defaults are those of the command line.

    Raises:
        NasError: a setting is unknown or out of range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    strategy: Name = "evolve"
    space: Name = AUTO  # "auto": the one for the data: cnn, sequence or transformer
    dataset: Annotated[str, Field(max_length=4_096), BeforeValidator(_dataset)] = "auto"  # a name, or a path
    trials: Count | None = None  # the number of candidates; 40 if there is no time limit either
    time_limit: Annotated[float, Field(gt=0, le=1e9), BeforeValidator(_seconds)] | None = None  # seconds, in all
    # The first one chooses the winner; several have a Pareto front.
    objectives: Annotated[
        tuple[str, ...], Field(min_length=1, max_length=4, strict=False), AfterValidator(_objectives)
    ] = ("-validation_loss",)
    # The search ends when a candidate has this validation accuracy, and has it again with another seed.
    target: Annotated[float, Field(gt=0), AfterValidator(_fraction)] | None = None
    patience: Count | None = None  # the search ends after so many candidates in a row that bring nothing better
    max_parameters: Count | None = None
    max_flops: Count | None = None  # of one forward pass over one image; None: the limit of the space
    batch: Annotated[int, Field(ge=1, le=10_000)] = 8  # candidates that are proposed, and compete, at a time
    ahead: Annotated[int, Field(ge=1, le=1_024)] = 1  # batches that are in training at a time
    rungs: Annotated[int, Field(ge=1, le=4)] = 2  # of successive halving; 1: every training is a full one
    epochs: Annotated[float, Field(gt=0, le=10_000)] | None = None  # of a full training during the search
    # The name of a recipe; or a table of its fields, in which "base" names the recipe that they change. "auto" is
    # the one for the data.
    recipe: Annotated[Name | dict[str, str | int | float], BeforeValidator(_recipe)] = AUTO
    precision: Literal["auto", "float32", "tf32", "bfloat16"] = "auto"  # of convolutions and linear maps
    evaluator: Name = "local"
    workers: CountOrAuto = "auto"  # processes; "auto": one for each core, or one for a GPU
    device: Annotated[Name, AfterValidator(_device)] = "auto"
    group: CountOrAuto = "auto"  # jobs that a worker trains at a time
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    # Options of the strategy; with the prefix "space.", "dataset." or "evaluator." options of that part.
    options: dict[str, Annotated[Setting, BeforeValidator(_option)]] = {}
    data_dir: AnyPath | None = None
    # The address of a tracking server, or "off"; "auto" is a file in the current folder. Credentials in it are for
    # this process only.
    mlflow: Annotated[str, Field(max_length=2_000, repr=False), AfterValidator(_address)] = "auto"
    mlflow_experiment: Name | None = None  # None: "nas", or another where that is not of this program
    mlflow_parent: Name | None = None  # the id of the run in which the search's is nested, in the same experiment
    plugins: Annotated[tuple[AnyPath, ...], Field(strict=False)] = ()
    _places: dict[str, str] = PrivateAttr(default_factory=dict)  # option → "FILE, line N: " if it is from a file
    _given: dict[str, Any] = PrivateAttr(default_factory=dict)  # part → the class or object that was given

    @field_serializer("mlflow")
    def _without_credentials(self, address: str) -> str:
        return masked(address)

    @model_validator(mode="wrap")
    @classmethod
    def _take(cls, values: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        """Keep classes and objects beside the settings, and move the options ``recipe.FIELD`` to the recipe."""
        if not isinstance(values, dict):
            return validate(values)
        given = {kind: values[kind] for kind in PARTS if _is_given(kind, values.get(kind))}
        values = {**values, **{kind: GIVEN + _class_name(part) for kind, part in given.items()}}
        options = values.get("options")
        if isinstance(options, dict) and any(str(name).startswith("recipe.") for name in options):
            recipe = values.get("recipe", AUTO)
            recipe = table_of(recipe) if isinstance(recipe, Recipe) else recipe
            values["recipe"] = dict(recipe) if isinstance(recipe, dict) else {"base": recipe}
            values["options"] = {}
            for name, value in options.items():
                if str(name).startswith("recipe."):
                    values["recipe"][name.removeprefix("recipe.")] = value
                else:
                    values["options"][name] = value
        try:
            experiment = validate(values)
        except ValidationError as error:
            name, message = cls._explain(error)
            raise OptionError(message, name) from None
        if experiment.mlflow_parent and experiment.mlflow_experiment:
            message = "the search goes into the experiment of its mlflow_parent: leave out mlflow_experiment"
            raise OptionError(message, "mlflow_experiment")
        experiment._given = given
        return experiment

    @classmethod
    def of(cls, **values: Any) -> Self:
        """An experiment from settings of any type."""
        return cls(**values)

    @classmethod
    def _explain(cls, error: ValidationError) -> tuple[str, str]:
        """The name of the first wrong setting, and the error message."""
        first, *others = error.errors(include_url=False)
        if first["type"] == "recipe":
            return first["ctx"]["name"], first["msg"]
        given = first["input"]
        name = str(first["loc"][0])
        if isinstance(given, str):  # the end of a password with a space in it could not be told
            given = masked("".join(given.split()) if name == "mlflow" else given)
        value = quoted(given)
        message = first["msg"].removeprefix("Value error, ")
        message = f"{message[0].lower()}{message[1:]}"
        if others and others[0]["type"] == "literal_error" and others[0]["loc"][0] == name:
            message += others[0]["msg"].replace("Input should be", " or")
        if name == "options" and len(first["loc"]) > 1:
            name = f"options.{first['loc'][1]}"
            if first["type"] != "value_error":  # pydantic names only one of the allowed types
                message = "should be a number, text, true or false"
            return name, f"option {label(name[8:])} = {value}: {message}"
        if name in PARTS and first["type"] == "string_type":
            message = f"give the name of a plugin, or a class (a subclass of {installed.base_of(name).__name__})"
        if first["type"] == "extra_forbidden":
            return name, unknown("setting", name, cls.model_fields)
        return name, f"{name} = {value}: {message}"

    @classmethod
    def read(cls, path: Path, **changes: Any) -> Self:
        """The experiment in a TOML file, with ``changes`` on top of it.

        The file may come from a stranger: it may name a folder of plugins only if ``changes`` or NAS_PLUGINS
        name it, too.

        Raises:
            NasError: the file cannot be read, or a setting in it is unknown or out of range.
        """
        text = read_small(path)
        values = read_table(path, text)
        options, own = values.get("options", {}), changes.get("options", {})
        if not isinstance(own, dict):
            cls.of(options=own)  # an error
        trusted = installed.folders(cls.of(plugins=changes.get("plugins", ())).plugins)
        if isinstance(options, dict):
            flat: dict[str, Any] = {}
            for name, value in options.items():  # `space.filters = 2` is a table in TOML
                flat |= {f"{name}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {name: value}
            options = flat | own
        try:
            experiment = cls(**{**values, **changes, **({"options": options} if options else {})})
        except OptionError as error:
            name = error.name
            head, _, option = name.partition(".")
            changed = option in own if head == "options" else head in changes or name in own  # "recipe.shift"
            raise UsageError(str(error) if changed else f"{place_of(path, text, name)}: {error}") from None
        for name in HERE:
            if isinstance(options, dict) and name in options and name not in own:
                where = place_of(path, text, f"options.{name}")
                raise UsageError(
                    f"{where}: {name} says where images and code are sent, which a file does not decide: give it "
                    f"with --set {name}=…"
                )
        for folder in cls.of(plugins=values.get("plugins", ())).plugins:
            if Path(os.path.realpath(folder)) not in trusted:  # resolve() raises for a loop of links
                place, name = place_of(path, text, "plugins"), plain(str(folder))
                raise UsageError(
                    f"{place}: it names the plugin folder {name}, whose code would run: add --plugins {name} if "
                    "you trust it"
                )
        experiment._places = {
            name: f"{place_of(path, text, f'options.{name}')}: " for name in experiment.options if name not in own
        }
        return experiment

    def place(self, option: str) -> str:
        """File and line of an option that came from a file, with a colon; otherwise an empty text."""
        return self._places.get(option, "")

    def options_of(self, kind: str) -> dict[str, Setting]:
        """The options of a kind of plugin, without their prefix ("space.", "dataset.", "evaluator.")."""
        if kind == "strategy":
            return {name: value for name, value in self.options.items() if not name.startswith(PREFIXES)}
        return {n[len(kind) + 1 :]: value for n, value in self.options.items() if n.startswith(f"{kind}.")}

    def part(self, kind: str) -> Any:
        """The class or object that was given for a part of the search, or else the plugin of its name.

        Raises:
            NasError: there is no such plugin, or the object was given to an earlier process and not to this one.
        """
        if kind in self._given:
            return self._given[kind]
        name: str = getattr(self, kind)
        if kind in self.lacks:
            again = f"nas.search(…, {kind}={label(self.lacks[kind])})"
            raise UsageError(
                f"{kind} = {quoted(name)} is a Python object, which no file holds: give it again, {again}"
            )
        return installed.find(kind, name, self.plugins)

    @property
    def lacks(self) -> dict[str, str]:
        """The parts that were given as Python objects to an earlier process only: kind → name of the class."""
        names = {kind: str(getattr(self, kind)) for kind in PARTS if kind not in self._given}
        return {kind: name.removeprefix(GIVEN) for kind, name in names.items() if name.startswith(GIVEN)}

    def changed(self, **changes: Any) -> Self:
        """The experiment with other settings, which may be classes and objects; raises as the constructor does."""
        return self.of(**{name: getattr(self, name) for name in self.model_fields_set} | self._given | changes)

    def kept(self) -> dict[str, Any]:
        """The settings as plain data, without those that are of this process alone."""
        values = self.model_dump(mode="json")
        values["options"] = {name: value for name, value in values["options"].items() if name not in HERE}
        return values

    def to_toml(self) -> str:
        """The text of a TOML file with all settings that are not empty; `read` reads it."""
        values = {k: v for k, v in self.kept().items() if v not in (None, [], {})}
        again = "".join(f", {kind}={label(_class_name(part))}" for kind, part in self._given.items())
        lines = [f"# Python objects, which have to be given again: nas.resume(FOLDER{again})"] if again else []
        tables = {name: values.pop(name) for name in ("recipe", "options") if isinstance(values.get(name), dict)}
        lines += [f"{key} = {written(value)}" for key, value in values.items()]
        for name, table in tables.items():
            lines += ["", f"[{name}]", *(f"{written_key(key)} = {written(value)}" for key, value in table.items())]
        return "\n".join(lines) + "\n"

    def run(self, out: Path | None = None, observers: Sequence[Observer] = ()) -> Outcome:
        """The same as ``nas.search(experiment)``."""
        return nas.search(self, out=out, observers=observers)


def _is_given(kind: str, value: object) -> bool:
    """Whether a part of a search is given as a class or an object; any other value counts as a wrong name."""
    if value is None or isinstance(value, str):
        return False
    if kind == "dataset" and isinstance(value, Dataset):
        raise UsageError(
            "dataset: a Dataset has no test images: give a class or an object that has load_test, too (a subclass "
            f"of {installed.base_of(kind).__name__}; docs/write-a-dataset.md)"
        )
    base = installed.base_of(kind)
    if isinstance(value, type):
        if not issubclass(value, base):
            raise UsageError(f"{kind}: {value.__name__} is no subclass of {base.__name__}")
        return True
    if isinstance(value, base) and kind in ("strategy", "evaluator"):
        name = _class_name(value)
        raise UsageError(
            f"{kind}: give the class {name}, not an object of it, and its options with options={{…}}: the search "
            "makes the object, with arguments that only the search has"
        )
    return isinstance(value, base)


def _class_name(part: Any) -> str:
    return (part if isinstance(part, type) else type(part)).__name__
