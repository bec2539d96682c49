"""The Python source that makes a layer's module: the call of its constructor, with the definitions that it needs.

So `nas export --format python` needs no second description of a layer, be it of this package or of a plugin.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import math
import re
import sys
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import cache
from pathlib import Path
from types import FunctionType
from typing import Any
from unittest.mock import patch

from torch import nn

from nas.architecture.layer import Layer, Shape
from nas.errors import NasError
from nas.winner.weights import weightless

INSTALLED = {*sys.stdlib_module_names, "torch", "torchvision", "numpy"}  # what the file may import
# They import nothing else of nas: their text may be in the file.
OURS = {"nas.architecture.modules", "nas.architecture.sequence_modules", "nas.data.resize"}
CALL = "_nas_call"  # the attribute of a module that holds the arguments of its constructor


def constructed(layer: Layer, shapes: Sequence[Shape]) -> nn.Module:
    """The layer's module without weights, every part of which remembers the arguments that it was made with."""
    with weightless(), ExitStack() as stack:
        for kind in {type(part) for part in layer.module(*shapes).modules()}:
            stack.enter_context(_remembering(kind))
        return layer.module(*shapes)


def _remembering(kind: type[nn.Module]) -> AbstractContextManager[Any]:
    init = kind.__init__

    def remember(self: nn.Module, *args: Any, **options: Any) -> None:
        if type(self) is kind:
            object.__setattr__(self, CALL, (args, options))
        init(self, *args, **options)

    return patch.object(kind, "__init__", remember)


class Source:
    """The text that modules need to be made again: expressions, and before them imports and definitions.

    Args:
        reserved: names that the file has already, and that no definition may have.
    """

    def __init__(self, reserved: Sequence[str]) -> None:
        self.imports: dict[str, str] = {}  # by the name that each defines
        self.definitions: dict[str, str] = {}  # by name, in an order in which they can be run
        self._origins: dict[str, Any] = dict.fromkeys(reserved)

    def expression(self, module: nn.Module) -> str:
        """The call that makes a module; see `text`."""
        name = self.name(type(module))  # first: a class that was made inside a function is another one each time
        args, options = vars(module)[CALL]
        if type(module) is nn.Sequential and args and isinstance(args[0], OrderedDict) and not options:
            args = tuple(args[0].values()) if all(name.isdigit() for name in args[0]) else args
        parameters = inspect.signature(type(module)).parameters
        texts = [self.text(value) for value in args]
        for key, value in options.items():
            default = parameters[key].default if key in parameters else inspect.Parameter.empty
            if type(value) is not type(default) or value != default:
                texts.append(f"{key}={self.text(value)}")
        return f"{name}({', '.join(texts)})"

    def text(self, value: Any) -> str:
        """A value as a Python expression.

        Raises:
            NasError: it is neither plain data, nor a module, nor a class or a function that can be named.
        """
        match value:
            case nn.Module():
                return self.expression(value)
            case None | bool() | int() | float():
                return repr(value) if value is None or math.isfinite(value) else f'float("{value}")'
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
        """The name of a class or a function in the file, to which its source or its import is added."""
        name: str = thing.__qualname__
        if getattr(nn, name, None) is thing:
            return f"nn.{name}"
        module = importlib.import_module(thing.__module__)
        if module.__name__.partition(".")[0] in INSTALLED:
            self.imports.setdefault(name, f"from {module.__name__} import {name}")
            return name
        if name not in _parts(module)[0]:
            raise NasError(f"{name} is defined inside a function: define it at the top of {_file(module)}")
        self._define(module, name)
        return name

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
        first = min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", ()))])
        text = "\n".join(_source(module).splitlines()[first - 1 : node.end_lineno])
        self.definitions[name] = re.sub(r"  # (type: ignore|noqa).*", "", text)

    def _import(self, module: Any, name: str, statement: str) -> None:
        """Add an import of a module; for a class or function of nas or of the same folder, its source."""
        thing = getattr(module, name)
        home = getattr(thing, "__module__", "") or ""
        is_ours = home in OURS
        if not is_ours and (home.startswith("nas.") or re.match(r"(from|import) nas\b", statement)):
            raise NasError(f"{_file(module)} uses {name} of nas, and the file must run without nas")
        other = importlib.import_module(home) if isinstance(thing, type | FunctionType) else module
        if is_ours or (other is not module and _file(other).parent == _file(module).parent):
            self._define(other, thing.__qualname__)
        elif statement.startswith("from ."):
            raise NasError(f"{_file(module)} imports {name} from another file of its package")
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
    """The definitions at the top of a module by name, and its imports by the name that each defines."""
    definitions: dict[str, Any] = {}
    imports: dict[str, str] = {}
    for node in ast.parse(_source(module)).body:
        match node:
            case ast.ClassDef() | ast.FunctionDef():
                definitions[node.name] = node
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                definitions[name] = node
            case ast.Import(names=names):
                imports |= {n.asname or n.name.partition(".")[0]: ast.unparse(ast.Import([n])) for n in names}
            case ast.ImportFrom(module=home, names=names, level=level) if home != "__future__":
                imports |= {n.asname or n.name: ast.unparse(ast.ImportFrom(home, [n], level)) for n in names}
    return definitions, imports


def _file(module: Any) -> Path:
    return Path(getattr(module, "__file__", None) or module.__name__)


def quoted(text: str) -> str:
    """A text as a Python literal: in double quotes, unless that takes more backslashes."""
    quote = '"' if text.count('"') <= text.count("'") else "'"
    return quote + "".join(f"\\{letter}" if letter == quote else repr(letter)[1:-1] for letter in text) + quote
