"""Finds plugins by kind and name, and imports only the one that is asked for.

There are five kinds: strategies, spaces, data sets, evaluators, layers. A name is looked for among the installed
packages (entry points; the built-in parts are registered there like anybody else's), then among the files of
plugin folders: ``plugins/random_search.py`` is the plugin ``random-search``. In names, - and _ are the same. An
architecture names its layers by their classes.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar, get_type_hints

from nas.errors import ArchitectureError, NasError, OptionError, PluginError, UsageError, plain, unknown

# Kind → what a plugin of it is a subclass of (an evaluator has only to look like one).
KINDS = {
    "strategy": "nas.strategies.strategy:Strategy",
    "space": "nas.spaces.space:SearchSpace",
    "dataset": "nas.data.plugin:DatasetPlugin",
    "evaluator": "nas.evaluation.evaluator:Evaluator",
    "layer": "nas.architecture.layer:Layer",
}
ALSO = {"Merge": "layer", "Plain": "layer", "Source": "dataset"}  # other base classes; Source is an earlier name
GROUPS = {kind: f"nas.{'strategies' if kind == 'strategy' else kind + 's'}" for kind in KINDS}

Place = EntryPoint | Path
Result = TypeVar("Result")

_offered: list[Path] = []  # folders, see `offer`
_layers: dict[tuple[str, ...], type[Any]] = {}  # what was found: the folders that were looked into, and the name


@dataclass(frozen=True)
class Description:
    """What can be said about a plugin without importing it."""

    kinds: tuple[str, ...]  # those of its classes, or none where the source does not say
    place: str  # the file, or the package and the object in it
    summary: str  # the first line of its docstring
    broken: str = ""  # why it cannot be imported, as far as that can be seen from outside
    layers: tuple[str, ...] = ()  # the names of its classes that are layers


def canonical(name: str) -> str:
    """The one spelling of a plugin's name."""
    return name.strip().lower().replace("_", "-")


def offer(folders: Iterable[Path]) -> None:
    """Let the plugins of these folders be used in this process, as ``--plugins`` does: their code may run."""
    _offered.extend(path.resolve() for path in folders)


def folders(extra: Sequence[Path] = ()) -> list[Path]:
    """Where plugin files are looked for: ``--plugins``, ``NAS_PLUGINS`` and ./plugins."""
    named = [Path(part) for part in os.environ.get("NAS_PLUGINS", "").split(os.pathsep) if part]
    return list(dict.fromkeys(path.resolve() for path in (*extra, *_offered, *named, Path("plugins"))))


def names(kind: str, extra: Sequence[Path] = ()) -> dict[str, list[Place]]:
    """Every name that could be asked for, and all places where it is; imports nothing.

    A file whose source does not say what it holds stands under every kind, unless somebody else has the name
    there: a half-written file must not get in the way of a part that it has nothing to do with.
    """
    found: dict[str, list[Place]] = {}
    for point in entry_points(group=GROUPS[kind]):
        found.setdefault(canonical(point.name), []).append(point)
    unclear = []
    for path in files(extra):
        kinds = describe(path).kinds
        if kind in kinds:
            found.setdefault(canonical(path.stem), []).append(path)
        elif not kinds:
            unclear.append(path)
    taken = set(found)
    for path in unclear:
        if canonical(path.stem) not in taken:
            found.setdefault(canonical(path.stem), []).append(path)
    return found


def files(extra: Sequence[Path] = ()) -> list[Path]:
    """Every plugin file; names that begin with ``_`` or ``test_`` are no plugins."""
    every = [path for folder in folders(extra) for path in sorted(folder.glob("*.py"))]
    return [path for path in every if not path.name.startswith(("_", "test_"))]


def describe(place: Place) -> Description:
    """What a plugin is, from its source; imports nothing."""
    if isinstance(place, Path):
        return _describe(place, str(place))
    distribution = f"{place.dist.name} {place.dist.version}, " if place.dist else ""
    path = _source_of(place.module)
    label = f"{distribution}{place.value}"
    if path is None:
        return Description((), label, "", f"there is no module {place.module}")
    return _describe(path, label, place.attr)


def _describe(path: Path, label: str, name: str = "") -> Description:
    """Read the classes of a file: the one called ``name``, or the first that is a plugin."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError) as error:
        return Description((), label, "", f"{type(error).__name__}: {' '.join(str(error).split())}")
    parents = {target.partition(":")[2]: kind for kind, target in KINDS.items()} | ALSO
    classes = []
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and name in ("", node.name):
            bases = [
                base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "") for base in node.bases
            ]
            kind = next((parents[base] for base in bases if base in parents), "")
            if kind:
                parents[node.name] = kind  # a class of this file may be the base of the next
            classes.append((node, kind))
    classes.sort(key=lambda found: not found[1])  # those that are plugins first; otherwise as they stand
    kinds = tuple(dict.fromkeys(kind for _, kind in classes if kind))
    doc = (classes and ast.get_docstring(classes[0][0])) or ast.get_docstring(tree) or ""
    missing = [module for module in _imported(tree) if _absent(module)]
    broken = f"there is no package {missing[0]!r}" if missing else ""
    layers = tuple(node.name for node, kind in classes if kind == "layer" and not node.name.startswith("_"))
    return Description(kinds, label, doc.partition("\n")[0], broken, layers)


def _imported(tree: ast.Module) -> list[str]:
    """The top-level packages that a file imports as soon as it is imported."""
    found: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.Import):
            found += [alias.name.partition(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.append(node.module.partition(".")[0])
    return found


def _absent(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is None
    except (ImportError, ValueError):
        return package not in sys.modules


def _source_of(module: str) -> Path | None:
    """The file of a module, which `find_spec` would not tell without importing its package."""
    first, *rest = module.split(".")
    spec = None if _absent(first) else importlib.util.find_spec(first)
    if spec is None:
        return None
    if not rest:
        return Path(spec.origin) if spec.origin else None
    for folder in spec.submodule_search_locations or ():
        base = Path(folder, *rest)
        for path in (base.with_suffix(".py"), base / "__init__.py"):
            if path.is_file():
                return path
    return None


def find(kind: str, name: str, extra: Sequence[Path] = ()) -> type[Any]:
    """The class that a name stands for.

    Raises:
        UsageError: nobody knows the name.
        PluginError: two have it, or what is there cannot be imported or is of another kind.
    """
    known = names(kind, extra)
    places = known.get(canonical(name), [])
    if not places:
        raise UsageError(unknown(kind, name, known))
    if len(places) > 1:
        both = " and ".join(str(one) if isinstance(one, Path) else one.value for one in places)
        raise PluginError(f"there are two plugins {name!r}: {both}; rename or remove one")
    place = places[0]
    if isinstance(place, Path):
        return _only_class(_import_file(place), base_of(kind), place)
    return _loaded(kind, place)


def base_of(kind: str) -> type[Any]:
    """What a plugin of a kind is a subclass of."""
    module, _, attribute = KINDS[kind].partition(":")
    parent: type[Any] = getattr(importlib.import_module(module), attribute)
    return parent


@cache
def _loaded(kind: str, place: EntryPoint) -> type[Any]:
    """The class of an installed plugin."""
    loaded = _imported_by(place.load, f"{kind} {place.name!r} ({place.value})")
    if not (isinstance(loaded, type) and issubclass(loaded, base_of(kind))):
        raise PluginError(f"{kind} {place.name!r} ({place.value}) is not a subclass of {base_of(kind).__name__}")
    return loaded


def layer(name: str) -> type[Any]:
    """The class of a layer by its name, as an architecture has it; only what is offered is ever imported.

    Raises:
        ArchitectureError: no plugin has it.
        PluginError: two have it, or its file cannot be imported.
    """
    installed = _installed_layers()
    if name in installed:
        return _loaded("layer", installed[name])
    looked = (name, *map(str, folders()))
    if looked not in _layers:
        places = [path for path in files() if name in describe(path).layers]
        if len(places) > 1:
            raise PluginError(f"there are two layers {name!r}: {places[0]} and {places[1]}; rename or remove one")
        if not places:
            known = [*installed, *(other for path in files() for other in describe(path).layers)]
            raise ArchitectureError(f"{unknown('layer', name, known)}; a plugin's folder is named with --plugins")
        _layers[looked] = getattr(_import_file(places[0]), name)
    return _layers[looked]


@cache
def _installed_layers() -> dict[str, EntryPoint]:
    """The layers of installed packages, by the names of their classes."""
    return {place.attr: place for place in entry_points(group=GROUPS["layer"])}


def source_hash(plugin: type[Any]) -> str:
    """The beginning of the SHA-256 of the file that a plugin's class stands in; empty where there is no file."""
    try:
        return hashlib.sha256(Path(inspect.getfile(plugin)).read_bytes()).hexdigest()[:16]
    except (OSError, TypeError):  # made in a notebook, or its file has gone
        return ""


def create(plugin: type[Any], options: Mapping[str, Any], **given: Any) -> Any:
    """An instance, with ``options`` checked against the constructor's signature and turned into its types.

    Args:
        plugin: the class.
        options: what the user set: strings, or values from a file.
        given: what the search passes, of which the constructor gets what it names; no option has such a name.

    Raises:
        UsageError: an option that the constructor does not take, or a value of a wrong type.
    """
    values = check_options(plugin, options, given)
    taken = inspect.signature(plugin).parameters
    anything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values())
    given = {name: value for name, value in given.items() if anything or name in taken}
    return guarded(lambda: plugin(**given, **values), f"{plugin.__name__} cannot be made")


def check_options(plugin: type[Any], options: Mapping[str, Any], given: Iterable[str]) -> dict[str, Any]:
    """The options as the constructor wants them; nothing is made.

    Args:
        plugin: the class.
        options: what the user set.
        given: the names of what the search passes.

    Raises:
        UsageError: an option that the constructor does not take, or a value of a wrong type, or one is missing.
    """
    from pydantic import TypeAdapter
    from pydantic.errors import PydanticUserError

    label = plugin.__name__
    hints = _imported_by(lambda: _hints(plugin, {name.replace("-", "_") for name in options}), label)
    taken = inspect.signature(plugin).parameters
    anything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values())
    given = set(given)
    known = [n for n, p in taken.items() if n not in given and p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
    values = {}
    for name, value in options.items():
        key = name.replace("-", "_")
        if key not in known and not anything:
            raise OptionError(unknown(f"option of {label}", name, known), name)
        default = taken[key].default if key in taken else None
        kind = hints.get(key, Any if default in (None, inspect.Parameter.empty) else type(default))
        try:
            adapter: TypeAdapter[Any] = TypeAdapter(kind)
            values[key] = (
                adapter.validate_strings(value) if isinstance(value, str) else adapter.validate_python(value)
            )
        except (ValueError, PydanticUserError) as error:  # ValueError: pydantic's ValidationError is one
            reason = error.errors()[0]["msg"] if hasattr(error, "errors") else f"{kind} cannot be read from text"
            message = f"option {name}={plain(str(value)[:100])} of {label}: {reason[0].lower()}{reason[1:]}"
            raise OptionError(message, name) from None
    missing = [n for n in known if taken[n].default is inspect.Parameter.empty and n not in values]
    if missing:
        raise UsageError(f"{label} needs the option {missing[0]}: add --set {missing[0]}=VALUE")
    return values


def _hints(plugin: type[Any], names: AbstractSet[str]) -> dict[str, Any]:
    """The types of some parameters; those of the others may have been imported for type checkers only."""
    init = plugin.__init__
    annotations = {n: a for n, a in getattr(init, "__annotations__", {}).items() if n in names}
    return get_type_hints(SimpleNamespace(__annotations__=annotations), getattr(init, "__globals__", {}))


def _import_file(path: Path) -> Any:
    """Import a plugin file, once for what it says now. Files of a folder can import one another by their names."""
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # at the end, where it hides nothing
    importlib.invalidate_caches()
    name = path.stem if _is_there(path.stem, path) else f"nas_plugin_{path.stem}"  # somebody else has the name
    content = hashlib.sha256(path.read_bytes()).hexdigest()
    known = sys.modules.get(name)
    if known is not None and _is_there(name, path) and getattr(known, "__nas_source__", content) == content:
        known.__nas_source__ = content  # type: ignore[attr-defined]
        return known
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # noqa: S101
    assert spec.loader is not None  # noqa: S101
    module = importlib.util.module_from_spec(spec)
    module.__nas_source__ = content  # type: ignore[attr-defined]
    sys.modules[name] = module
    load = spec.loader.exec_module
    try:
        _imported_by(lambda: load(module), f"the plugin file {path}")
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _is_there(name: str, path: Path) -> bool:
    """Whether a module of that name is, or would be, imported from the file."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return False
    return spec is not None and spec.origin == str(path)


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


def guarded(action: Callable[[], Result], what: str) -> Result:
    """Do something with a stranger's code; whatever it raises becomes one line that begins with ``what``.

    `SystemExit` is not caught: it is how a signal ends this program.

    Raises:
        PluginError: it raised something; a `NasError` is raised as it is.
    """
    try:
        return action()
    except NasError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())
        raise PluginError(f"{what}: {type(error).__name__}: {reason}") from error


def _imported_by(action: Callable[[], Result], label: str) -> Result:
    """Import something: what calls ``sys.exit`` then is broken, too."""
    try:
        return guarded(action, f"{label} cannot be imported")
    except SystemExit as error:
        raise PluginError(f"{label} cannot be imported: SystemExit: {error}") from error
