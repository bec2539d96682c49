"""The configuration of a search: what can be written down, repeated, and run."""

from __future__ import annotations

import math
import os
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, ValidationError

from nas import plugins as installed
from nas.errors import NasError, UsageError, label, plain, quoted, unknown
from nas.files import read_small
from nas.objectives import Objective
from nas.records.observer import Observer
from nas.records.outcome import Outcome

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
    recipe: Name = "default"
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

    @classmethod
    def of(cls, **values: Any) -> Self:
        """An experiment; what is wrong with it is said in one line.

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
        values = _table(path, text)
        options = values.get("options", {})
        if isinstance(options, dict):
            options = {**_flat(options), **changes.get("options", {})}
        try:
            experiment = cls(**{**values, **changes, **({"options": options} if options else {})})
        except ValidationError as error:
            name, message = cls._explain(error)
            raise UsageError(message if name in changes else f"{_place(path, text, name)}: {message}") from None
        trusted = installed.folders(changes.get("plugins", ()))
        for folder in cls.of(plugins=values.get("plugins", ())).plugins:
            if Path(os.path.realpath(folder)) not in trusted:  # resolve() raises for a loop of links
                place, name = _place(path, text, "plugins"), plain(str(folder))
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
        return f"{_place(path, text, f'options.{option}')}: "

    def options_of(self, kind: str) -> dict[str, Setting]:
        """The options of a kind of plugin, without their prefix ("space.", "dataset.", "evaluator.")."""
        prefixes = ("space.", "dataset.", "evaluator.")
        if kind == "strategy":
            return {name: value for name, value in self.options.items() if not name.startswith(prefixes)}
        prefix = f"{kind}."
        return {n.removeprefix(prefix): v for n, v in self.options.items() if n.startswith(prefix)}

    def to_toml(self) -> str:
        """The settings that are not empty, as `read` takes them."""
        values = {k: v for k, v in self.model_dump(mode="json").items() if v not in (None, [], {})}
        options = values.pop("options", {})
        lines = [f"{key} = {_toml(value)}" for key, value in values.items()]
        lines += ["", "[options]", *(f"{_toml(k)} = {_toml(v)}" for k, v in options.items())] if options else []
        return "\n".join(lines) + "\n"

    def run(self, out: Path | None = None, observers: Sequence[Observer] = ()) -> Outcome:
        """Search, select, open the test images once, hand over.

        Args:
            out: the folder to write; without it, a new one in runs/.
            observers: are told what happens; without any, nothing is shown (MLflow is written all the same).

        Raises:
            NasError: whatever the user can put right.
        """
        from nas.run.runs import run_search

        return run_search(self, out, observers)


def _table(path: Path, text: str) -> dict[str, Any]:
    """The settings in a TOML file.

    Raises:
        NasError: it is no TOML.
    """
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise NasError(f"{path} is no TOML that can be read: its lists are too deep") from None
    except ValueError as error:
        reason = " ".join(plain(str(error)).split())  # it ends in the place, and may begin with a whole key
        reason = reason if len(reason) <= 200 else f"{reason[:100]}…{reason[-99:]}"
        raise NasError(f"{path} is no TOML: {reason}") from None


def _flat(options: dict[str, Any]) -> dict[str, Any]:
    """``space.filters = 2`` is a table in TOML, and an option called "space.filters" here."""
    flat: dict[str, Any] = {}
    for name, value in options.items():
        flat |= {f"{name}.{key}": one for key, one in value.items()} if isinstance(value, dict) else {name: value}
    return flat


def _place(path: Path, text: str, name: str) -> str:
    """Where a key of a TOML file stands; keys of tables are written with dots."""
    table = ""
    wanted = name.split(".")
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[([^\]]+)\]", line):
            table = header[1]
        key = re.match(r"""\s*([\w.'"-]+)\s*=""", line)
        parts = [part.strip(" '\"") for part in f"{table}.{key[1] if key else ''}".split(".")]
        found = [part for part in parts if part]
        inline = key and found == wanted[:-1] and re.search(rf"\b{re.escape(wanted[-1])}\b", line)
        if (found == wanted and (key or header)) or inline:
            return f"{path}, line {number}"
    return str(path)


def _toml(value: Any) -> str:
    """One value; the strings of JSON are strings of TOML, where DEL has to be escaped, too."""
    import json

    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
