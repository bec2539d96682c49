"""The configuration of a search: what can be written down, repeated, and run."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
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
    model_validator,
)
from pydantic_core import PydanticCustomError

import nas
from nas import plugins as installed
from nas.data.dataset import Dataset
from nas.errors import OptionError, UsageError, label, plain, quoted, unknown
from nas.files import read_small
from nas.objectives import Objective
from nas.records.observer import Observer
from nas.records.outcome import Outcome
from nas.records.searches import GIVEN
from nas.toml import place_of, read_table, written, written_key
from nas.training.recipe import Recipe, recipe_of, table_of

# The parts of a search that are plugins. Each is named, or given in Python as a class; a space or a data set may
# be given as an object, too. The setting is then the text "object:" and the name of the class.
PARTS = ("strategy", "space", "dataset", "evaluator")
OBJECTS = ("space", "dataset")

Setting = None | bool | int | float | str
LARGEST = 2**63 - 1  # whole number, as TOML has them; it takes hexadecimal ones of any length


def seconds(value: object) -> object:
    """``90``, ``"90s"``, ``"10m"`` or ``"1h30m"`` as seconds; anything else comes back as it is."""
    if not isinstance(value, str):
        return value
    number = r"([0-9]{1,9}(?:\.[0-9]{1,9})?)"
    match = re.fullmatch(rf"(?:{number}h)?(?:{number}m)?(?:{number}s?)?", value.strip().lower())
    if match is None or not any(match.groups()):
        raise ValueError("a time is written like 90s, 10m or 1h30m")
    return sum(float(part or 0) * unit for part, unit in zip(match.groups(), (3600, 60, 1), strict=True))


def different(values: tuple[str, ...]) -> tuple[str, ...]:
    """Objectives in their usual spelling, of which no two may be equal."""
    values = tuple(str(Objective.parse(value)) for value in values)
    if len(set(values)) < len(values):
        raise ValueError("each objective is given once")
    return values


def ordinary(value: object) -> object:
    """An option that can be written down, and read again by anybody."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("should be a finite number")
    if isinstance(value, int) and abs(value) > LARGEST:
        raise ValueError("should be a number of at most 64 bits")
    return value


def usable(path: Path) -> Path:
    """A path that a system can have: of names of at most 255 bytes, 4,096 in all, none of them zero."""
    if "\0" in str(path) or len(str(path).encode()) > 4096 or any(len(part.encode()) > 255 for part in path.parts):
        raise ValueError("no path can be like this")
    return path


def numbered(device: str) -> str:
    """A device whose number, if it has one, is a number."""
    if ":" in device and not re.fullmatch(r"[a-z]+:[0-9]{1,4}", device):
        raise ValueError("a device is written like cuda:1")
    return device


def usable_recipe(value: object) -> object:
    """The name of a recipe, or a table of its fields with their types (see `recipe_of`)."""
    try:
        table = table_of(value) if isinstance(value, Recipe) else value
        if isinstance(table, str):
            recipe_of(table)
        if not isinstance(table, Mapping):
            return table
        recipe, base = recipe_of(table), str(table.get("base", "default"))
    except OptionError as error:
        details = {"text": str(error), "name": f"recipe.{error.name}"}
        raise PydanticCustomError("recipe", "{text}", details) from None
    except UsageError as error:
        raise PydanticCustomError("recipe", "{text}", {"text": str(error), "name": "recipe"}) from None
    changes = {str(name): getattr(recipe, str(name)) for name in table if name != "base"}
    return {"base": base, **changes} if changes else base


Name = Annotated[str, Field(max_length=200)]
Count = Annotated[int, Field(ge=1, le=LARGEST)]
Ordinary = Annotated[Setting, BeforeValidator(ordinary)]
Usable = Annotated[Path, Field(strict=False), AfterValidator(usable)]


class Experiment(BaseModel):
    """Everything that decides what a search does. The defaults are those of the command line."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    strategy: Name = "evolve"
    space: Name = "cnn"
    dataset: Name = "auto"
    trials: Count | None = None  # candidates; 40 where there is no time limit either
    time_limit: Annotated[float, Field(gt=0, le=1e9), BeforeValidator(seconds)] | None = None  # s, for everything
    objectives: Annotated[
        tuple[str, ...], Field(min_length=1, max_length=4, strict=False), AfterValidator(different)
    ] = ("-validation_loss",)  # the first one chooses the winner; several have a Pareto front
    max_parameters: Count | None = None
    max_flops: Count | None = None  # of one forward pass; None: the space's own limit
    batch: Annotated[int, Field(ge=1, le=10_000)] = 8  # candidates that are asked for, and compete, at a time
    rungs: Annotated[int, Field(ge=1, le=4)] = 2  # of successive halving; 1: every candidate is trained in full
    epochs: Annotated[float, Field(gt=0, le=10_000)] | None = None  # of a full training during the search
    # The name of a recipe; or a table of its fields, in which "base" names the recipe that they change.
    recipe: Annotated[Name | dict[str, str | int | float], BeforeValidator(usable_recipe)] = "default"
    precision: Literal["auto", "float32", "tf32", "bfloat16"] = "auto"  # of convolutions and linear maps
    evaluator: Name = "local"
    workers: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = "auto"
    device: Annotated[Name, AfterValidator(numbered)] = "auto"
    group: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = "auto"  # jobs that a worker has at a time
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    options: dict[str, Ordinary] = {}  # of the strategy; "space.NAME", "dataset.NAME", "evaluator.NAME": of those
    data_dir: Usable | None = None
    mlflow: Annotated[str, Field(max_length=2_000)] = (
        "auto"  # the address of a tracking server, or "off"; "auto" is a file in this folder
    )
    plugins: Annotated[tuple[Usable, ...], Field(strict=False)] = ()
    # The file, its text, and which of its options hold: an error says in which line one stands.
    _file: tuple[Path, str, frozenset[str]] | None = PrivateAttr(default=None)
    _given: dict[str, Any] = PrivateAttr(default_factory=dict)  # part → the class or object that was given

    @model_validator(mode="wrap")
    @classmethod
    def _take(cls, values: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        """Keep classes and objects beside the settings, and move the options ``recipe.FIELD`` to the recipe."""
        if not isinstance(values, dict):
            return validate(values)
        given = {kind: values[kind] for kind in PARTS if _is_given(kind, values.get(kind))}
        values = {**values, **{kind: GIVEN + _class_of(part).__name__ for kind, part in given.items()}}
        options = values.get("options")
        if isinstance(options, dict):
            fields = {name[7:]: value for name, value in options.items() if str(name).startswith("recipe.")}
            values["options"] = {name: v for name, v in options.items() if not str(name).startswith("recipe.")}
            if fields:
                recipe = values.get("recipe", "default")
                before = table_of(recipe) if isinstance(recipe, Recipe) else recipe
                values["recipe"] = {**(before if isinstance(before, dict) else {"base": before}), **fields}
        experiment = validate(values)
        experiment._given = given
        return experiment

    @classmethod
    def of(cls, **values: Any) -> Self:
        """An experiment.

        Raises:
            NasError: a setting that is unknown or out of range.
        """
        try:
            return cls(**values)
        except ValidationError as error:
            raise UsageError(cls._explain(error)[1]) from None

    @classmethod
    def _explain(cls, error: ValidationError) -> tuple[str, str]:
        """The name of the first setting that is wrong, and what is wrong with it."""
        first = error.errors(include_url=False)[0]
        if first["type"] == "recipe":
            return first["ctx"]["name"], first["msg"]
        name, found = str(first["loc"][0]), quoted(first["input"])
        message = first["msg"].removeprefix("Value error, ")
        message = f"{message[0].lower()}{message[1:]}"
        if name == "options" and len(first["loc"]) > 1:
            name = f"options.{first['loc'][1]}"
            if first["type"] != "value_error":  # it is none of the five kinds; pydantic names one of them
                message = "should be a number, text, true or false"
            return name, f"option {label(name[8:])} = {found}: {message}"
        if first["type"] == "extra_forbidden":
            return name, unknown("setting", name, cls.model_fields)
        return name, f"{name} = {found}: {message}"

    @classmethod
    def read(cls, path: Path, **changes: Any) -> Self:
        """The experiment in a TOML file, with ``changes`` on top of it.

        The file may be a stranger's: it can name a folder of plugins only where ``changes``, or NAS_PLUGINS, does.

        Raises:
            NasError: the file cannot be read, or something in it is unknown or out of range.
        """
        text = read_small(path)
        values = read_table(path, text)
        options = values.get("options", {})
        if isinstance(options, dict):
            options = {**_flat(options), **changes.get("options", {})}
        try:
            experiment = cls(**{**values, **changes, **({"options": options} if options else {})})
        except ValidationError as error:
            name, message = cls._explain(error)
            place = "" if _is_change(name, changes) else f"{place_of(path, text, name)}: "
            raise UsageError(f"{place}{message}") from None
        trusted = installed.folders(changes.get("plugins", ()))
        for folder in cls.of(plugins=values.get("plugins", ())).plugins:
            if Path(os.path.realpath(folder)) not in trusted:  # resolve() raises for a loop of links
                place, name = place_of(path, text, "plugins"), plain(str(folder))
                raise UsageError(
                    f"{place}: it names the plugin folder {name}, whose code would run: add --plugins {name} if "
                    "you trust it"
                )
        experiment._file = path, text, frozenset(experiment.options.keys() - changes.get("options", {}).keys())
        return experiment

    def place(self, option: str) -> str:
        """File and line of an option that came from a file, with a colon; empty for any other."""
        if self._file is None or option not in self._file[2]:
            return ""
        path, text, _ = self._file
        return f"{place_of(path, text, f'options.{option}')}: "

    def options_of(self, kind: str) -> dict[str, Setting]:
        """The options of a kind of plugin, without their prefix ("space.", "dataset.", "evaluator.")."""
        prefixes = ("space.", "dataset.", "evaluator.")
        if kind == "strategy":
            return {name: value for name, value in self.options.items() if not name.startswith(prefixes)}
        prefix = f"{kind}."
        return {n.removeprefix(prefix): v for n, v in self.options.items() if n.startswith(prefix)}

    def part(self, kind: str) -> Any:
        """The class of a plugin, found by its name; or the class or object that was given in its place.

        Raises:
            NasError: it cannot be found, or was given to an earlier process and not to this one.
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
        """The experiment with other settings, of which classes and objects may be some.

        Raises:
            NasError: a setting that is unknown or out of range.
        """
        return self.of(**{name: getattr(self, name) for name in self.model_fields_set} | self._given | changes)

    def to_toml(self) -> str:
        """The settings that are not empty, as `read` takes them."""
        values = {k: v for k, v in self.model_dump(mode="json").items() if v not in (None, [], {})}
        again = "".join(f", {kind}={label(_class_of(part).__name__)}" for kind, part in self._given.items())
        lines = [f"# Python objects, which have to be given again: nas.resume(FOLDER{again})"] if again else []
        tables = {name: values.pop(name) for name in ("recipe", "options") if isinstance(values.get(name), dict)}
        lines += [f"{key} = {written(value)}" for key, value in values.items()]
        for name, table in tables.items():
            lines += ["", f"[{name}]", *(f"{written_key(key)} = {written(value)}" for key, value in table.items())]
        return "\n".join(lines) + "\n"

    def run(self, out: Path | None = None, observers: Sequence[Observer] = ()) -> Outcome:
        """Search, select, open the test images once, hand over: ``nas.search(experiment)``, which see."""
        return nas.search(self, out=out, observers=observers)


def _is_given(kind: str, value: object) -> bool:
    """Whether a part of a search is given as a class or an object; plain data are taken for a wrong name.

    Raises:
        UsageError: it is an object where a class is needed, or of another kind.
    """
    if value is None or isinstance(value, str):
        return False
    if kind == "dataset" and isinstance(value, Dataset):
        raise UsageError(
            f"dataset: a Dataset has no test images: give a class or an object that has load_test, too "
            f"(a subclass of {installed.base_of(kind).__name__}; docs/write-a-dataset.md)"
        )
    base = installed.base_of(kind)
    if isinstance(value, type):
        if not issubclass(value, base):
            raise UsageError(f"{kind}: {value.__name__} is no subclass of {base.__name__}")
        return True
    if isinstance(value, base) and kind not in OBJECTS:
        name = type(value).__name__
        raise UsageError(
            f"{kind}: give the class {name}, not an object of it, and its options with options={{…}}: the search "
            "makes the object, with arguments that only the search has"
        )
    return isinstance(value, base)


def _class_of(part: Any) -> type[Any]:
    return part if isinstance(part, type) else type(part)


def _is_change(name: str, changes: Mapping[str, Any]) -> bool:
    """Whether a setting ("trials", "options.population", "recipe.shift") is one of ``changes``."""
    head, _, rest = name.partition(".")
    options = changes.get("options", {})
    if head == "options" and isinstance(options, dict):
        return rest in options
    return head in changes or name in options


def _flat(options: dict[str, Any]) -> dict[str, Any]:
    """``space.filters = 2`` is a table in TOML, and an option called "space.filters" here."""
    flat: dict[str, Any] = {}
    for name, value in options.items():
        flat |= {f"{name}.{key}": one for key, one in value.items()} if isinstance(value, dict) else {name: value}
    return flat
