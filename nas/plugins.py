"""Finds plugins by kind and name, and imports only the requested one.

There are five kinds: strategies, spaces, data sets, evaluators, layers. A plugin is an entry point of an installed
package, as the built-in parts are, or a file of a plugin folder: ``plugins/random_search.py`` is the plugin
``random-search``. In names, - and _ are the same. An architecture names its layers by their classes.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import inspect
import os
import pkgutil
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar, get_type_hints

from nas.errors import (
    NasError,
    OptionError,
    PluginError,
    UnknownLayerError,
    UsageError,
    plain,
    unknown,
)

# Kind → the base class of its plugins (an evaluator need not be a subclass of its own).
KINDS = {
    "strategy": "nas.strategies.strategy:Strategy",
    "space": "nas.spaces.space:SearchSpace",
    "dataset": "nas.data.plugin:DatasetPlugin",
    "evaluator": "nas.evaluation.evaluator:Evaluator",
    "layer": "nas.architecture.layer:Layer",
}
ALSO = {
    "Merge": "layer",
    "Plain": "layer",
    "Idx": "dataset",
    "Source": "dataset",
}  # other bases; Source is an earlier name
GROUPS = {kind: "nas.strategies" if kind == "strategy" else f"nas.{kind}s" for kind in KINDS}  # of entry points

Place = EntryPoint | Path
Result = TypeVar("Result")

_offered: list[Path] = []  # the folders of `offer`
_imported_from: list[str] = []  # the folders of plugin files that were imported, the latest first


@dataclass(frozen=True)
class Description:
    """What the source of a plugin says, without importing it."""

    kinds: tuple[str, ...]  # the kinds of its classes; empty if the source does not say
    place: str  # the file, or the package and the object in it
    summary: str  # the first line of its docstring
    broken: str = ""  # why it cannot be imported, if the source shows that
    layers: tuple[str, ...] = ()  # the names of its classes that are layers


def canonical(name: str) -> str:
    """The standard spelling of a plugin's name."""
    return name.strip().lower().replace("_", "-")


def offer(folders: Iterable[Path]) -> None:
    """Let the plugins of these folders be used in this process, as ``--plugins`` does: their code may run."""
    _offered.extend(path.resolve() for path in folders)


def folders(extra: Sequence[Path] = ()) -> list[Path]:
    """The folders of plugin files: ``extra``, ``--plugins``, ``NAS_PLUGINS`` and ./plugins."""
    named = [Path(part) for part in os.environ.get("NAS_PLUGINS", "").split(os.pathsep) if part]
    return list(dict.fromkeys(path.resolve() for path in (*extra, *_offered, *named, Path("plugins"))))


def names(kind: str, extra: Sequence[Path] = ()) -> dict[str, list[Place]]:
    """The names of all plugins of a kind, each with all its places; imports nothing.

    A file whose source does not say what it holds stands under every kind, except where another plugin has its
    name: a half-written file must not hide a plugin of another kind.
    """
    known: dict[str, list[Place]] = {}
    unclear: dict[str, list[Place]] = {}
    for point in entry_points(group=GROUPS[kind]):
        known.setdefault(canonical(point.name), []).append(point)
    for path in files(extra):
        kinds = describe(path).kinds
        if kind in kinds or not kinds:
            (known if kinds else unclear).setdefault(canonical(path.stem), []).append(path)
    return unclear | known


def files(extra: Sequence[Path] = ()) -> list[Path]:
    """Every plugin file; a name that begins with ``_`` or ``test_`` is not that of a plugin."""
    paths = [path for folder in folders(extra) for path in sorted(folder.glob("*.py"))]
    return [path for path in paths if not path.name.startswith(("_", "test_"))]


def describe(place: Place) -> Description:
    """The description of a plugin: of one class of a package, or of the classes of a file; imports nothing."""
    if isinstance(place, Path):
        path, label, name = place, str(place), ""
    else:
        distribution = f"{place.dist.name} {place.dist.version}, " if place.dist else ""
        label, name = f"{distribution}{place.value}", place.attr
        source = _source_of(place.module)
        if source is None:
            return Description((), label, "", f"there is no module {place.module}")
        path = source
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError) as error:
        return Description((), label, "", f"{type(error).__name__}: {' '.join(str(error).split())}")
    parents = {target.partition(":")[2]: kind for kind, target in KINDS.items()} | ALSO
    parents |= dict.fromkeys(_installed_layers(), "layer")  # a layer may be a subclass of another
    classes = []
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and name in ("", node.name):
            bases = [ast.unparse(base).rpartition(".")[2] for base in node.bases]
            kind = next((parents[base] for base in bases if base in parents), "")
            if kind:
                parents[node.name] = kind  # a class of this file may be the base of the next
            classes.append((node, kind))
    classes.sort(key=lambda pair: not pair[1])  # plugins first, otherwise in the order of the file
    doc = (classes and ast.get_docstring(classes[0][0])) or ast.get_docstring(tree) or ""
    return Description(
        tuple(dict.fromkeys(kind for _, kind in classes if kind)),
        label,
        doc.partition("\n")[0],
        next((f"there is no package {package!r}" for package in _imported(tree) if _absent(package, path)), ""),
        tuple(node.name for node, kind in classes if kind == "layer" and not node.name.startswith("_")),
    )


def _imported(tree: ast.Module) -> Iterator[str]:
    """The top-level packages that a file imports when it is imported."""
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def _absent(package: str, beside: Path) -> bool:
    """Whether a package is neither installed nor a file beside another one."""
    is_known = package in sys.modules or _spec(package) is not None
    return not is_known and not beside.with_name(f"{package}.py").is_file()


def _source_of(module: str) -> Path | None:
    """The file of a module, found without importing its package."""
    name, *rest = module.split(".")
    spec = _spec(name)
    for part in rest:
        name = f"{name}.{part}"
        spec = spec and PathFinder.find_spec(name, list(spec.submodule_search_locations or ()))
    return Path(spec.origin) if spec and spec.origin else None


def find(kind: str, name: str, extra: Sequence[Path] = ()) -> type[Any]:
    """The class of a plugin.

    Raises:
        UsageError: there is no plugin of this name.
        PluginError: there are two, or the plugin cannot be imported or is of another kind.
    """
    known = names(kind, extra)
    places = known.get(canonical(name), [])
    if not places:
        raise UsageError(unknown(kind, name, known))
    if len(places) > 1:
        both = " and ".join(str(place) if isinstance(place, Path) else place.value for place in places)
        raise PluginError(f"there are two plugins {name!r}: {both}; rename or remove one")
    place, parent = places[0], base_of(kind)
    if not isinstance(place, Path):
        return _loaded(kind, place)
    module = _import_file(place)
    values = [value for value in vars(module).values() if isinstance(value, type) and issubclass(value, parent)]
    own = [value for value in values if value.__module__ == module.__name__]
    if len(own) != 1:
        listed = ", ".join(value.__name__ for value in own) or "none"
        rule = f"must define one subclass of {parent.__name__}, and has: {listed}"
        raise PluginError(f"the plugin file {place} {rule}")
    return own[0]


def base_of(kind: str) -> type[Any]:
    """The base class of a kind of plugin."""
    parent: type[Any] = pkgutil.resolve_name(KINDS[kind])
    return parent


@cache
def _loaded(kind: str, place: EntryPoint) -> type[Any]:
    label = f"{kind} {place.name!r} ({place.value})"
    loaded = _imported_by(place.load, label)
    if not (isinstance(loaded, type) and issubclass(loaded, base_of(kind))):
        raise PluginError(f"{label} is not a subclass of {base_of(kind).__name__}")
    return loaded


def layer(name: str) -> type[Any]:
    """The class of a layer, by the name of the class; only offered plugins are ever imported.

    Raises:
        UnknownLayerError: there is no layer of this name.
        PluginError: there are two, or its file cannot be imported.
    """
    installed = _installed_layers()
    if name in installed:
        return _loaded("layer", installed[name])
    return _layer_of_file(name, tuple(_offered), os.environ.get("NAS_PLUGINS", ""), Path.cwd())


@cache
def _layer_of_file(name: str, *_: object) -> type[Any]:
    """The class of a layer in the present folders, which follow from the other arguments."""
    offered = [(path, describe(path).layers) for path in files()]
    places = [path for path, layers in offered if name in layers]
    if len(places) > 1:
        raise PluginError(f"there are two layers {name!r}: {places[0]} and {places[1]}; rename or remove one")
    if not places:
        known = {*_installed_layers(), *(other for _, layers in offered for other in layers)}
        hint = "if a plugin has it, name the plugin's folder with --plugins"
        raise UnknownLayerError(f"{unknown('layer', name, known)}; {hint}")
    found: type[Any] = getattr(_import_file(places[0]), name)
    return found


@cache
def _installed_layers() -> dict[str, EntryPoint]:
    """The layers of installed packages, by the names of their classes."""
    found: dict[str, EntryPoint] = {}
    for place in entry_points(group=GROUPS["layer"]):
        if found.setdefault(place.attr, place) != place:
            both = f"{found[place.attr].value} and {place.value}"
            raise PluginError(f"two installed layers are called {place.attr!r}: {both}; remove one package")
    return found


def source_hash(plugin: type[Any] | Path) -> str:
    """The first 16 digits of the SHA-256 of a plugin's source; empty if there is no file.

    The source is the file that defines the class and the helpers (``_name.py``) beside it that it imports.
    """
    try:
        paths = [plugin if isinstance(plugin, Path) else Path(inspect.getfile(plugin))]
        for path in paths:  # the list grows meanwhile
            names = {name for name in _imported(ast.parse(path.read_bytes())) if name.startswith("_")}
            beside = [path.with_name(f"{name}.py") for name in sorted(names)]
            paths += [other for other in beside if other.is_file() and other not in paths]
        return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()[:16]
    except (OSError, TypeError, SyntaxError):  # made in a notebook, or its file was deleted or is being written
        return ""


def create(plugin: type[Any], options: Mapping[str, Any], **given: Any) -> Any:
    """An instance; the ``options`` are checked against the constructor's signature and turned into its types.

    Args:
        plugin: the class.
        options: the values that the user set: strings, or values from a file.
        given: the values of the search. The constructor gets those that it names; no option may have such a name.

    Raises:
        UsageError: an option that the constructor does not take, or a value of a wrong type.
    """
    values = check_options(plugin, options, given)
    taken = inspect.signature(plugin).parameters
    anything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values())
    given = {name: value for name, value in given.items() if anything or name in taken}
    return guarded(lambda: plugin(**given, **values), f"{plugin.__name__} cannot be made")


def check_options(plugin: type[Any], options: Mapping[str, Any], given: Collection[str]) -> dict[str, Any]:
    """The options in the types of the constructor; no instance is made.

    Args:
        plugin: the class.
        options: the values that the user set.
        given: the names of the values of the search.

    Raises:
        UsageError: an option that the constructor does not take, a value of a wrong type, or a missing option.
    """
    from pydantic import TypeAdapter
    from pydantic.errors import PydanticUserError

    label = plugin.__name__
    hints = _imported_by(lambda: _hints(plugin, {name.replace("-", "_") for name in options}), label)
    taken = inspect.signature(plugin).parameters
    anything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values())
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
            read = adapter.validate_strings if isinstance(value, str) else adapter.validate_python
            values[key] = read(value)
        except (ValueError, PydanticUserError) as error:  # ValueError: pydantic's ValidationError is one
            reason = error.errors()[0]["msg"] if hasattr(error, "errors") else f"{kind} cannot be read from text"
            message = f"option {name}={plain(str(value)[:100])} of {label}: {reason[0].lower()}{reason[1:]}"
            raise OptionError(message, name) from None
    missing = [n for n in known if taken[n].default is inspect.Parameter.empty and n not in values]
    if missing:
        raise UsageError(f"{label} needs the option {missing[0]}: add --set {missing[0]}=VALUE")
    return values


def _hints(plugin: type[Any], names: AbstractSet[str]) -> dict[str, Any]:
    """The types of some parameters; those of others may be imported for type checkers only."""
    init = plugin.__init__
    annotations = {n: a for n, a in getattr(init, "__annotations__", {}).items() if n in names}
    return get_type_hints(
        SimpleNamespace(__annotations__=annotations), getattr(init, "__globals__", {}), include_extras=True
    )


def _import_file(path: Path) -> Any:
    """Import a plugin file, again if its content has changed. The files of a folder can import each other."""
    _beside(path.parent)
    importlib.invalidate_caches()
    name = path.stem if _is_there(path.stem, path) else f"nas_plugin_{path.stem}"  # another module has the name
    content = hashlib.sha256(path.read_bytes()).hexdigest()
    known: Any = sys.modules.get(name)
    if known is not None and _is_there(name, path) and getattr(known, "__nas_source__", content) == content:
        known.__nas_source__ = content
        return known
    spec: Any = importlib.util.spec_from_file_location(name, path)
    module: Any = importlib.util.module_from_spec(spec)
    module.__nas_source__ = content
    sys.modules[name] = module
    try:
        _imported_by(lambda: spec.loader.exec_module(module), f"the plugin file {path}")
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _beside(folder: Path) -> None:
    """Let imports find the modules of this folder, and not those of the same name of another plugin folder."""
    others = [other for other in _imported_from if other != str(folder)]
    for path in folder.glob("*.py"):
        origin = getattr(getattr(sys.modules.get(path.stem), "__spec__", None), "origin", None)
        if origin and str(Path(origin).parent) in others:
            del sys.modules[path.stem]
    if str(folder) not in sys.path or str(folder) in _imported_from:
        # At the end, where they hide no other module.
        _imported_from[:] = [str(folder), *others]
        sys.path[:] = [entry for entry in sys.path if entry not in _imported_from] + _imported_from


def _is_there(name: str, path: Path) -> bool:
    """Whether a module of that name is imported from the file, or would be."""
    spec = _spec(name)
    return spec is not None and spec.origin == str(path)


def _spec(name: str) -> ModuleSpec | None:
    with suppress(ImportError, ValueError):
        return importlib.util.find_spec(name)
    return None


def guarded(action: Callable[[], Result], message: str) -> Result:
    """Run the code of a plugin; its exceptions become one line that begins with ``message``.

    `SystemExit` is not caught: it is how a signal ends this program.

    Raises:
        PluginError: the code raised an exception; a `NasError` is raised as it is.
    """
    try:
        return action()
    except NasError:
        raise
    except Exception as error:
        raise PluginError(f"{message}: {type(error).__name__}: {' '.join(str(error).split())}") from error


def _imported_by(action: Callable[[], Result], label: str) -> Result:
    """Run an import; here `SystemExit` is an error of the plugin, too."""
    try:
        return guarded(action, f"{label} cannot be imported")
    except SystemExit as error:
        raise PluginError(f"{label} cannot be imported: SystemExit: {error}") from error
