"""What a comparison compares: the searches of several strategies with several seeds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nas import plugins
from nas.errors import UsageError, masked, quoted
from nas.experiment import HERE, Experiment
from nas.files import read_small
from nas.run.runs import DEFAULT_TRIALS
from nas.toml import read_table, written, written_key

SEEDS, MOST_SEEDS, MOST_STRATEGIES = 3, 100, 50
GIVEN = ("strategy", "seed", "mlflow_parent")  # the comparison gives each search these itself
# What one strategy alone may not have: all searches see the same images, and run on the same machine.
COMMON = (
    "seed", "dataset", "data_dir", "plugins", "workers", "device", "evaluator", "mlflow", "mlflow_experiment",
    "mlflow_parent",
)  # fmt: skip
PLAIN = (str, int, float, bool, Path, tuple, list, Mapping)


@dataclass(frozen=True)
class Comparison:
    """The settings of a comparison.

    Args:
        entries: the settings of each strategy alone, by its label, which is unique.
        shared: the settings of all searches.
        seeds: the number of searches of each strategy; their seeds are 0, 1, 2 …
        baselines: whether models that are no search are fitted on the same images.
        explain: whether experiments show why one model is better than another.
    """

    entries: Mapping[str, Mapping[str, Any]]
    shared: Mapping[str, Any] = field(default_factory=dict)
    seeds: int = SEEDS
    baselines: bool = True
    explain: bool = False

    @classmethod
    def of(cls, *, strategies: object = None, seeds: object = SEEDS, **settings: Any) -> Comparison:
        """A comparison from settings of any type.

        Args:
            strategies: names with options, such as ``evolve:population=20``, in one text with commas or in
                several; or a mapping from labels to settings, in which ``strategy`` is the label if it is missing.
            seeds: of each strategy.
            settings: ``baselines``, ``explain``, and the settings of all searches (see `Experiment`).

        Raises:
            UsageError: a setting is wrong.
        """
        flags = {"baselines": settings.pop("baselines", True), "explain": settings.pop("explain", False)}
        for flag, value in flags.items():
            if not isinstance(value, bool):
                raise UsageError(f"{flag} = {quoted(value)}: it should be true or false")
        if type(seeds) is not int or not 1 <= seeds <= MOST_SEEDS:
            raise UsageError(f"seeds = {quoted(seeds)}: it should be a whole number from 1 to {MOST_SEEDS}")
        for name in GIVEN:
            if name in settings:
                raise UsageError(f"{name} is for one search, and a comparison has several: leave it out")
        comparison = cls(_entries(strategies), _checked(settings, ""), seeds, **flags)
        experiments = [experiment for _, experiment in comparison.searches().values()]  # an error in any of them
        if len(firsts := sorted({one.objectives[0] for one in experiments})) > 1:
            raise UsageError(
                f"strategies are compared by one objective, and not by {' and '.join(firsts)}: give all of them "
                "the same first one"
            )
        return comparison

    @classmethod
    def read(cls, path: Path, *, trusting: bool = False, **changes: Any) -> Comparison:
        """The comparison in a TOML file, with ``changes`` on top of it.

        The file may come from a stranger: it may name a folder of plugins only if ``changes`` name it, too, or if
        it is ``trusting``, because nothing will run.

        Raises:
            NasError: the file cannot be read, or a setting in it is wrong.
        """
        values = read_table(path, read_small(path))
        own = {name: values[name] for name in ("plugins",) if name in values}
        options, changed = values.pop("options", {}), changes.pop("options", {})
        if not isinstance(options, Mapping):
            raise UsageError(f"{path}: options = {quoted(options)}: it should be a table")
        strategies = values.get("strategies", {})
        own_tables = strategies.values() if isinstance(strategies, Mapping) else ()
        for table in (options, *(one.get("options") for one in own_tables if isinstance(one, Mapping))):
            for name in HERE:
                if isinstance(table, Mapping) and name in _flat(table):
                    raise UsageError(
                        f"{path}: {name} says where images and code are sent, which a file does not decide: give "
                        f"it with --set {name}=…, or RAY_ADDRESS"
                    )
        options = {**options, **changed}
        trusted = {Path(folder).resolve() for folder in plugins.folders(tuple(changes.get("plugins", ())))}
        for folder in Experiment.of(**own).plugins:
            if not trusting and folder.resolve() not in trusted:
                raise UsageError(
                    f"{path}: it names the plugin folder {quoted(str(folder))}, whose code would run: add "
                    f"--plugins {folder} if you trust it"
                )
        try:
            return cls.of(**{**values, **changes, **({"options": options} if options else {})})
        except UsageError as error:
            raise UsageError(f"{path}: {error}") from None

    def searches(self) -> dict[str, tuple[str, Experiment]]:
        """The searches by the names of their folders, one seed after another: label of the strategy, settings."""
        found: dict[str, tuple[str, Experiment]] = {}
        for seed in range(self.seeds):
            for label, own in self.entries.items():
                options = {**_flat(self.shared.get("options", {})), **_flat(own.get("options", {}))}
                settings = {**self.shared, **own, "seed": seed, **({"options": options} if options else {})}
                if not settings.get("trials") and not settings.get("time_limit"):
                    settings["trials"] = DEFAULT_TRIALS
                name = f"{_slug(label)}-{seed}"
                if name in found:
                    raise UsageError(f"the strategies {found[name][0]} and {label} have similar names: change one")
                found[name] = label, Experiment.of(**settings)
        return found

    @property
    def first(self) -> Experiment:
        """The settings of the first search, for what all have in common."""
        return next(iter(self.searches().values()))[1]

    def pinned(self, dataset: str) -> Comparison:
        """The comparison on a data set that was decided where "auto" was given."""
        return replace(self, shared={**self.shared, "dataset": dataset})

    def to_toml(self) -> str:
        """The text of a TOML file with all settings but the credentials of an address; `read` reads it."""
        lines = [f"{name} = {written(getattr(self, name))}" for name in ("seeds", "baselines", "explain")]
        lines += _lines("", _kept(self.shared))
        for label, own in self.entries.items():
            place = f"strategies.{written_key(label)}"
            lines += ["", f"[{place}]", *_lines(f"{place}.", _kept(own))]
        return "\n".join(lines) + "\n"


def _kept(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings without those that are of this process alone."""
    if "options" not in settings:
        return settings
    options = _flat(settings["options"])
    return {**settings, "options": {name: value for name, value in options.items() if name not in HERE}}


def _entries(strategies: object) -> dict[str, Mapping[str, Any]]:
    """The settings of each strategy alone, by its label."""
    if isinstance(strategies, Mapping):
        found: dict[str, Mapping[str, Any]] = {}
        for label, own in strategies.items():
            if not isinstance(own, Mapping):
                raise UsageError(f"strategies.{label} = {quoted(own)}: it should be a table of settings")
            found[str(label)] = _checked({"strategy": str(label), **own}, f"strategies.{label}.")
            for name in COMMON:
                if name in own:
                    raise UsageError(f"strategies.{label}.{name} cannot be of one strategy alone: give it to all")
    else:
        texts = [strategies] if isinstance(strategies, str) else strategies
        if not isinstance(texts, Iterable):
            raise UsageError("name the strategies to compare: --strategies evolve,trial-and-error")
        labels = [label.strip() for text in texts for label in str(text).split(",") if label.strip()]
        if twice := sorted({label for label in labels if labels.count(label) > 1}):
            raise UsageError(
                f"the strategy {twice[0]} is named twice: give one of them an option, or more --seeds"
            )
        found = {label: _entry(label) for label in labels}
    if not 1 <= len(found) <= MOST_STRATEGIES:
        raise UsageError(f"there are {len(found)} strategies to compare: name 1 to {MOST_STRATEGIES} of them")
    return found


def _checked(settings: Mapping[str, Any], place: str) -> Mapping[str, Any]:
    """Settings that a file can hold; ``place`` stands before the name of one that it cannot."""
    for name, value in settings.items():
        parts = [value, *(value if isinstance(value, tuple | list) else [])]
        parts += [*value.values()] if isinstance(value, Mapping) else []
        if not all(part is None or isinstance(part, PLAIN) for part in parts):
            kind = value.__name__ if isinstance(value, type) else type(value).__name__
            raise UsageError(
                f"{place}{name} = {quoted(kind)}: a comparison is kept in a file, which holds no Python objects: "
                "make it a plugin, and give its name"
            )
        if name == "options" and not isinstance(value, Mapping):
            raise UsageError(f"{place}options = {quoted(value)}: it should be a table")
    return settings


def _entry(label: str) -> dict[str, Any]:
    """``evolve:population=20:crossover=0`` as settings."""
    name, *pairs = label.split(":")
    options = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise UsageError(f"{label}: an option is written NAME=VALUE, as in evolve:population=20")
        options[key.strip()] = value.strip()
    return {"strategy": name, **({"options": options} if options else {})}


def _flat(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options, in which ``space.filters = 2`` may be a table in TOML."""
    flat: dict[str, Any] = {}
    for name, value in options.items():
        flat |= {f"{name}.{k}": v for k, v in value.items()} if isinstance(value, Mapping) else {name: value}
    return flat


def _slug(label: str) -> str:
    return re.sub(r"[^A-Za-z0-9._]+", "-", label).strip("-.")[:60] or "strategy"


def _lines(prefix: str, settings: Mapping[str, Any]) -> list[str]:
    """Settings as lines of TOML: plain values first, then tables."""
    plain = {name: value for name, value in settings.items() if not isinstance(value, Mapping)}
    lines = [f"{name} = {written(_plain(value))}" for name, value in plain.items() if value is not None]
    for name, table in settings.items():
        if isinstance(table, Mapping):
            rows = [f"{written_key(key)} = {written(value)}" for key, value in _flat(table).items()]
            lines += ["", f"[{prefix}{name}]", *rows]
    return lines


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, str):  # of all settings only an address has what is masked
        return masked(value)
    return [_plain(one) for one in value] if isinstance(value, tuple | list) else value
