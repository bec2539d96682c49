"""Finds plugins by kind and name, and imports only the one that is asked for.

A name is looked for among the installed packages (entry points; the built-in parts are registered there like
anybody else's), then among the files of plugin folders: ``plugins/random_search.py`` is the plugin
``random-search``. In names, - and _ are the same.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, get_type_hints

from nas.errors import NasError, PluginError, UsageError, unknown

# Kind → what a plugin of it is a subclass of.
KINDS = {"strategy": "nas.strategies.strategy:Strategy", "space": "nas.spaces.space:SearchSpace"}
GROUPS = {"strategy": "nas.strategies", "space": "nas.spaces"}


def canonical(name: str) -> str:
    """The one spelling of a plugin's name."""
    return name.strip().lower().replace("_", "-")


def folders(extra: Sequence[Path] = ()) -> list[Path]:
    """Where plugin files are looked for: ``--plugins``, ``NAS_PLUGINS`` and ./plugins."""
    named = [Path(part) for part in os.environ.get("NAS_PLUGINS", "").split(os.pathsep) if part]
    return list(dict.fromkeys(path.resolve() for path in (*extra, *named, Path("plugins"))))


def names(kind: str, extra: Sequence[Path] = ()) -> dict[str, list[EntryPoint | Path]]:
    """Every name that could be asked for, and all places where it is; imports nothing.

    A file says what kind it is only when it is imported, so files stand under every kind.
    """
    found: dict[str, list[EntryPoint | Path]] = {}
    for point in entry_points(group=GROUPS[kind]):
        found.setdefault(canonical(point.name), []).append(point)
    for folder in folders(extra):
        for path in sorted(folder.glob("*.py")):
            if not path.name.startswith("_"):
                found.setdefault(canonical(path.stem), []).append(path)
    return found


def find(kind: str, name: str, extra: Sequence[Path] = ()) -> type[Any]:
    """The class that a name stands for.

    Raises:
        PluginError: nobody knows the name, or what is there cannot be imported or is of another kind.
    """
    known = names(kind, extra)
    places = known.get(canonical(name), [])
    if not places:
        raise UsageError(unknown(kind, name, known))
    if len(places) > 1:
        both = " and ".join(str(one) if isinstance(one, Path) else one.value for one in places)
        raise PluginError(f"there are two plugins {name!r}: {both}; rename or remove one")
    place = places[0]
    module, _, attribute = KINDS[kind].partition(":")
    parent: type[Any] = getattr(importlib.import_module(module), attribute)
    if isinstance(place, Path):
        return _only_class(_import_file(place), parent, place)
    loaded = _guarded(place.load, f"{kind} {name!r} ({place.value})")
    if not (isinstance(loaded, type) and issubclass(loaded, parent)):
        raise PluginError(f"{kind} {name!r} ({place.value}) is not a subclass of {parent.__name__}")
    return loaded


def create(plugin: type[Any], options: Mapping[str, Any], **given: Any) -> Any:
    """An instance, with ``options`` checked against the constructor's signature and turned into its types.

    Args:
        plugin: the class.
        options: what the user set: strings, or values from a file.
        given: what the search passes; no option may have such a name.

    Raises:
        UsageError: an option that the constructor does not take, or a value of a wrong type.
    """
    from pydantic import TypeAdapter, ValidationError

    label = plugin.__name__
    hints = _guarded(lambda: get_type_hints(plugin.__init__), label)
    taken = inspect.signature(plugin).parameters
    known = [n for n, p in taken.items() if n not in (*given, "space") and p.kind is p.KEYWORD_ONLY]
    anything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values())
    values = {}
    for name, value in options.items():
        key = name.replace("-", "_")
        if key not in known and not anything:
            raise UsageError(unknown(f"option of {label}", name, known))
        adapter: TypeAdapter[Any] = TypeAdapter(hints.get(key, Any))
        try:
            values[key] = (
                adapter.validate_strings(value) if isinstance(value, str) else adapter.validate_python(value)
            )
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise UsageError(f"option {name}={value} of {label}: {reason[0].lower()}{reason[1:]}") from None
    missing = [n for n in known if taken[n].default is inspect.Parameter.empty and n not in values]
    if missing:
        raise UsageError(f"{label} needs the option {missing[0]}: add --set {missing[0]}=VALUE")
    try:
        return plugin(**given, **values)
    except NasError:
        raise
    except Exception as error:
        raise PluginError(f"{label} cannot be made: {type(error).__name__}: {error}") from error


def _import_file(path: Path) -> Any:
    name = f"nas_plugin_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # noqa: S101
    assert spec.loader is not None  # noqa: S101
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    load = spec.loader.exec_module
    _guarded(lambda: load(module), f"the plugin file {path}")
    return module


def _only_class(module: Any, parent: type[Any], path: Path) -> type[Any]:
    own = [
        thing
        for thing in vars(module).values()
        if isinstance(thing, type) and issubclass(thing, parent) and thing.__module__ == module.__name__
    ]
    if len(own) != 1:
        found = ", ".join(thing.__name__ for thing in own) or "none"
        raise PluginError(
            f"the plugin file {path} must define one subclass of {parent.__name__}, and has: {found}"
        )
    return own[0]


def _guarded(action: Callable[[], Any], label: str) -> Any:
    """Do something with a stranger's code; whatever it raises becomes one line."""
    try:
        return action()
    except (Exception, SystemExit) as error:
        reason = " ".join(str(error).split())
        raise PluginError(f"{label} cannot be imported: {type(error).__name__}: {reason}") from error
