"""How a layer's module was made, as text: the call of its constructor, and the source of what it needs.

So no layer has to be described a second time for `nas export --format python`: neither one of this package nor one
from somebody's plugin.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from types import FunctionType
from typing import Any

from torch import nn

from nas.architecture.layer import Layer, Shape
from nas.errors import NasError
from nas.winner.weights import weightless

CALL = "_nas_call"  # the attribute of a module that holds the arguments of its constructor


def constructed(layer: Layer, shapes: Sequence[Shape]) -> nn.Module:
    """The layer's module without weights, every part of which remembers the arguments that it was made with."""
    with weightless():
        kinds = {type(part) for part in layer.module(*shapes).modules()}
        with ExitStack() as stack:
            for kind in kinds:
                stack.enter_context(_remembering(kind))
            return layer.module(*shapes)


@contextmanager
def _remembering(kind: type[nn.Module]) -> Iterator[None]:
    init = kind.__init__

    def remember(self: nn.Module, *args: Any, **options: Any) -> None:
        if type(self) is kind:
            object.__setattr__(self, CALL, (args, options))
        init(self, *args, **options)

    is_own = "__init__" in vars(kind)
    kind.__init__ = remember  # type: ignore[method-assign]
    try:
        yield
    finally:
        if is_own:
            kind.__init__ = init  # type: ignore[method-assign]
        else:
            del kind.__init__


class Source:
    """The text that modules need to be made again: expressions, and before them imports and definitions.

    Args:
        reserved: names that the file has already, and that no definition may have.
    """

    def __init__(self, reserved: Sequence[str]) -> None:
        self.imports: dict[str, str] = {}  # by the name that each brings
        self.definitions: dict[str, str] = {}  # by name, in an order in which they can be run
        self._origins: dict[str, Any] = dict.fromkeys(reserved)

    def expression(self, module: nn.Module) -> str:
        """The call that makes a module.

        Raises:
            NasError: it cannot be written; says why.
        """
        name = self.name(type(module))  # first: a class that was made inside a function is another one each time
        args, options = vars(module)[CALL]
        if type(module) is nn.Sequential and args and isinstance(args[0], OrderedDict) and not options:
            args = tuple(args[0].values()) if all(name.isdigit() for name in args[0]) else args
        taken = inspect.signature(type(module)).parameters
        words = [self.text(value) for value in args]
        for key, value in options.items():
            default = taken[key].default if key in taken else inspect.Parameter.empty
            if default is inspect.Parameter.empty or type(value) is not type(default) or value != default:
                words.append(f"{key}={self.text(value)}")
        return f"{name}({', '.join(words)})"

    def text(self, value: Any) -> str:
        """A value as Python has it.

        Raises:
            NasError: it is neither plain data, nor a module, nor a class or a function that can be named.
        """
        match value:
            case nn.Module():
                return self.expression(value)
            case None | bool() | int() | float():
                return repr(value)
            case str():
                return quoted(value)
            case OrderedDict():
                self.imports["OrderedDict"] = "from collections import OrderedDict"
                return f"OrderedDict({self.text(list(value.items()))})"
            case tuple():
                return f"({', '.join(map(self.text, value))}{',' * (len(value) == 1)})"
            case list():
                return f"[{', '.join(map(self.text, value))}]"
            case dict():
                return "{" + ", ".join(f"{self.text(k)}: {self.text(v)}" for k, v in value.items()) + "}"
            case type() | FunctionType():
                return self.name(value)
        raise NasError(f"a module is made from a {type(value).__name__}, which has no text")

    def name(self, thing: Any) -> str:
        """How a class or a function is called in the file; its source, or its import, is added to the file."""
        home, name = thing.__module__, thing.__qualname__
        if home.startswith("torch.nn.") and getattr(nn, name, None) is thing:
            return f"nn.{name}"
        module = importlib.import_module(home)
        if name not in _parts(module)[0]:
            raise NasError(f"{name} is defined inside a function: define it at the top of {_file(module)}")
        self._define(module, name)
        return str(name)

    def _define(self, module: Any, name: str) -> None:
        """Add a definition of a module, after those that it uses."""
        if self._origins.get(name, module) is not module:
            raise NasError(f"{name} of {_file(module)} has the name of something else in the file: rename it")
        if name in self._origins:
            return
        self._origins[name] = module
        definitions, imports = _parts(module)
        node = definitions[name]
        for used in dict.fromkeys(part.id for part in ast.walk(node) if isinstance(part, ast.Name)):
            if used in definitions and used != name:
                self._define(module, used)
            elif used in imports:
                self._import(module, used, imports[used])
        lines = _source(module).splitlines()
        first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))])
        text = "\n".join(lines[first - 1 : node.end_lineno])
        self.definitions[name] = re.sub(r"  # (type: ignore|noqa).*", "", text)

    def _import(self, module: Any, name: str, statement: str) -> None:
        """Add an import of a module, or the source of what it brings from a file of ours or beside it."""
        thing = getattr(module, name)
        home = getattr(thing, "__module__", "") or ""
        if home.startswith("nas.") and home != "nas.architecture.modules":
            raise NasError(f"{_file(module)} uses {home}.{name}, and the file must run without nas")
        other = importlib.import_module(home) if isinstance(thing, type | FunctionType) else module
        is_ours = home == "nas.architecture.modules"
        if is_ours or (other is not module and _file(other).parent == _file(module).parent):
            self._define(other, thing.__qualname__)
        else:
            self.imports.setdefault(name, statement)


@cache
def _source(module: Any) -> str:
    try:
        return inspect.getsource(module)
    except (OSError, TypeError):
        raise NasError(f"the source of {module.__name__} is not here: put the class in a file") from None


@cache
def _parts(module: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """What stands at the top of a module: definitions by name, and imports by the name that each brings."""
    definitions: dict[str, Any] = {}
    imports: dict[str, str] = {}
    for node in ast.parse(_source(module)).body:
        match node:
            case ast.ClassDef() | ast.FunctionDef():
                definitions[node.name] = node
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                definitions[name] = node
            case ast.Import() | ast.ImportFrom() if getattr(node, "module", "") != "__future__":
                for alias in node.names:
                    brought = alias.asname or alias.name.partition(".")[0]
                    imports[brought] = ast.unparse(
                        ast.Import([alias]) if isinstance(node, ast.Import) else _one(node, alias)
                    )
    return definitions, imports


def _one(node: ast.ImportFrom, alias: ast.alias) -> ast.ImportFrom:
    return ast.ImportFrom(module=node.module, names=[alias], level=node.level)


def _file(module: Any) -> Path:
    return Path(getattr(module, "__file__", None) or module.__name__)


def quoted(text: str) -> str:
    """A text as Python has it, whatever is in it: in double quotes, unless that takes more backslashes."""
    quote = '"' if text.count('"') <= text.count("'") else "'"
    return quote + "".join(f"\\{one}" if one == quote else repr(one)[1:-1] for one in text) + quote
