"""The configuration of a search: what can be written down, repeated, and run."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, ValidationError

from nas.errors import NasError, UsageError, unknown
from nas.records.observer import Observer, Outcome
from nas.trial import Objective

Setting = None | bool | int | float | str


def seconds(value: object) -> object:
    """``90``, ``"90s"``, ``"10m"`` or ``"1h30m"`` as seconds; anything else comes back as it is."""
    if not isinstance(value, str):
        return value
    number = r"(\d+(?:\.\d+)?)"
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


class Experiment(BaseModel):
    """Everything that decides what a search does. The defaults are those of the command line."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    strategy: str = "evolve"
    space: str = "cnn"
    dataset: str = "auto"
    trials: Annotated[int, Field(ge=1)] | None = None  # candidates; 40 where there is no time limit either
    time_limit: Annotated[float, Field(gt=0), BeforeValidator(seconds)] | None = None  # seconds, for everything
    objectives: Annotated[
        tuple[str, ...], Field(min_length=1, max_length=4, strict=False), AfterValidator(different)
    ] = ("-validation_loss",)  # the first one chooses the winner; several have a Pareto front
    max_parameters: Annotated[int, Field(ge=1)] | None = None
    max_flops: Annotated[int, Field(ge=1)] | None = None  # of one forward pass; None: the space's own limit
    batch: Annotated[int, Field(ge=1, le=10_000)] = 8  # candidates that are asked for, and compete, at a time
    rungs: Annotated[int, Field(ge=1, le=4)] = 2  # of successive halving; 1: every candidate is trained in full
    epochs: Annotated[float, Field(gt=0, le=10_000)] | None = None  # of a full training during the search
    recipe: str = "default"
    evaluator: str = "local"
    workers: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = "auto"
    device: str = "auto"
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    options: dict[str, Setting] = {}  # of the strategy; "space.NAME", "dataset.NAME", "evaluator.NAME": of those
    data_dir: Annotated[Path, Field(strict=False)] | None = None
    mlflow: str = "auto"  # the address of a tracking server, or "off"; "auto" is a file in this folder
    plugins: Annotated[tuple[Annotated[Path, Field(strict=False)], ...], Field(strict=False)] = ()
    _places: dict[str, str] = PrivateAttr(default_factory=dict)  # of the file's options: file and line, for errors

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
        first = error.errors()[0]
        name = str(first["loc"][0])
        if name == "options" and len(first["loc"]) > 1:
            name = f"options.{first['loc'][1]}"
            return name, f"option {first['loc'][1]} = {first['input']!r}: should be a number, text, true or false"
        if first["type"] == "extra_forbidden":
            return name, unknown("setting", name, cls.model_fields)
        message = first["msg"].removeprefix("Value error, ")
        return name, f"{name} = {first['input']!r}: {message[0].lower()}{message[1:]}"

    @classmethod
    def read(cls, path: Path, **changes: Any) -> Self:
        """The experiment in a TOML file, with ``changes`` on top of it.

        Raises:
            NasError: the file cannot be read, or something in it is unknown or out of range.
        """
        try:
            text = path.read_text(encoding="utf-8")
            values = tomllib.loads(text)
        except OSError as error:
            raise NasError(f"{path} cannot be read: {error.strerror}") from None
        except ValueError as error:
            raise NasError(f"{path} is no TOML: {error}") from None
        options = values.get("options", {})
        if isinstance(options, dict):
            options = {**_flat(options), **changes.get("options", {})}
        try:
            experiment = cls(**{**values, **changes, **({"options": options} if options else {})})
        except ValidationError as error:
            name, message = cls._explain(error)
            raise UsageError(message if name in changes else f"{_place(path, text, name)}: {message}") from None
        for name in experiment.options.keys() - changes.get("options", {}).keys():
            experiment._places[name] = _place(path, text, f"options.{name}")
        return experiment

    def place(self, option: str) -> str:
        """File and line of an option that came from a file, with a colon; empty for any other."""
        return f"{self._places[option]}: " if option in self._places else ""

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
        from nas.run import run_search

        return run_search(self, out, observers)


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
    """One value; the strings of JSON are strings of TOML."""
    import json

    return json.dumps(value, ensure_ascii=False)
