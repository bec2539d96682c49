"""A trained network as one readable file of PyTorch, which needs nothing of this package.

The file says the same as `nas.training.network`, layer by layer; each layer's module says how it was made (see
`constructed`). Parameters get the names that they have there.
"""

from __future__ import annotations

import re
import sys
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from nas import __version__
from nas.architecture.architecture import Architecture, Row
from nas.architecture.layers import Shape, show
from nas.errors import NasError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from nas.winner.export.constructed import Source

LINE = 88  # characters of a line, where it can be broken
RESERVED = ("Network", "load", "WEIGHTS", "SIZE", "CLASSES", "Path", "torch", "Tensor", "nn", "functional")

FILE = '''\
"""A network for {dataset}.

{inputs}, {count} classes, {parameters} parameters; architecture {id}.
Written by nas export {version}. The weights are in weights.pt, beside this file.

    from network import CLASSES, load

    network = load()
    logits = network(images)  # {example}
    names = [CLASSES[best] for best in logits.argmax(1)]
"""

from __future__ import annotations

{imports}

WEIGHTS = Path(__file__).with_name("weights.pt")
SIZE = {size}  # {sizes} of what it learned from
CLASSES = {classes}
{definitions}

class Network(nn.Module):
    """Takes raw {kind}; {first} its first step{s}."""

    def __init__(self) -> None:
        super().__init__()
        # Of each channel of what it learned from; the weights have the values.
        self.register_buffer("mean", torch.zeros({buffer}))
        self.register_buffer("std", torch.ones({buffer}))
        self.layers = nn.{begin}
{layers}        {end}

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, {count}) of {kind} (N, {free})."""
        x = images.float()
{resize}{forward}

def load(weights: Path = WEIGHTS) -> Network:
    """The trained network, ready to be used."""
    network = Network()
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return network.eval()
'''


class Described(NamedTuple):
    """What a file of source code is about."""

    architecture: Architecture
    shape: Shape  # of an input
    classes: tuple[str, ...]
    dataset: str

    @property
    def rows(self) -> list[Row]:
        """The table of the architecture."""
        return self.architecture.table(self.shape, len(self.classes))


def source_code(about: Described) -> str:
    """The text of network.py.

    Raises:
        NasError: a layer of a plugin has no text that runs without nas; says why.
    """
    from nas.winner.export.constructed import Source, quoted

    source = Source(RESERVED)
    rows, is_chain, is_image = about.rows, about.architecture.is_chain, len(about.shape) == 3
    layers = "".join(_lines(about, number, source) for number in range(len(rows)))
    for name, statement in {
        "Path": "from pathlib import Path", "torch": "import torch", "Tensor": "from torch import Tensor",
        "nn": "from torch import nn",
    }.items():  # fmt: skip
        source.imports[name] = statement
    if is_image:
        source.imports["functional"] = "from torch.nn import functional"
    sizes = (
        ", ".join(f"any {name}" for name in ("height", "width"))
        if is_image
        else "".join(f"{size}, " for size in about.shape[1:]).rstrip(", ")
    )
    kind = "images" if is_image else "inputs"
    free = f"{about.shape[0]}, {sizes}" if sizes else f"{about.shape[0]}"
    buffer = ", ".join(map(str, (about.shape[0], *[1] * (len(about.shape) - 1))))
    return FILE.format(
        dataset=re.sub(r"[^\w.-]", "_", about.dataset)[:40],
        inputs=f"{kind.capitalize()} of {show(about.shape)}",
        kind=kind,
        example=f"uint8 (N, {about.shape[0]}, height, width), 0 to 255" if is_image else f"(N, {free})",
        count=len(about.classes),
        parameters=f"{sum(row.parameters for row in rows):,}",
        id=about.architecture.id,
        version=__version__,
        imports=_imports(list(source.imports.values())),
        size=f"({', '.join(map(str, about.shape[1:]))}{',' * (len(about.shape) == 2)})",
        sizes="height and width" if is_image else "the sizes",
        classes=_tuple([quoted(name) for name in about.classes]),
        definitions="".join(f"\n\n{text}\n" for text in source.definitions.values()),
        first="resizing and normalisation are" if is_image else "normalisation is",
        s="s" * is_image,
        buffer=buffer,
        begin="Sequential(" if is_chain else "ModuleList([",
        end=")" if is_chain else "])",
        layers=layers,
        free=free + (", 0 to 255" if is_image else ""),
        resize='        x = functional.interpolate(x, SIZE, mode="bilinear", antialias=True)\n' * is_image,
        forward=_forward(rows, is_chain),
    )


def _lines(about: Described, number: int, source: Source) -> str:
    """The lines that make a layer's modules: each a line of its own in a chain, one line a layer in a graph."""
    from nas.winner.export.constructed import constructed

    row = about.rows[number]
    shapes = [about.shape, *(one.shape for one in about.rows)]
    try:
        module = constructed(row.layer, [shapes[i] for i in row.inputs])
        calls = [source.expression(part) for part in _parts_of(module).values()]
    except NasError as error:
        raise NasError(f"layer {number + 1} ({row.layer}) cannot be written as Python: {error}") from None
    if not calls and about.architecture.is_chain:
        return ""
    if not about.architecture.is_chain:
        calls = [calls[0] if len(calls) == 1 else f"nn.Sequential({', '.join(calls)})"]
    return f"            # {row.layer} → {show(row.shape)}\n" + "".join(f"            {call},\n" for call in calls)


def _parts_of(module: nn.Module) -> dict[str, nn.Module]:
    """The modules of a layer by their names in a `Network`, or the one that has the layer's name."""
    import torch

    return dict(module.named_children()) if type(module) is torch.nn.Sequential else {"": module}


def _forward(rows: list[Row], is_chain: bool) -> str:
    """The lines of the forward pass; of a graph: ``x3 = self.layers[2](x1, x2)``."""
    normalised = "(x - self.mean) / self.std\n"
    if is_chain:
        return f"        x = {normalised}        return self.layers(x)\n"
    lines = [f"        x0 = {normalised}"]
    for number, row in enumerate(rows):
        given = ", ".join(f"x{i}" for i in row.inputs)
        lines.append(f"        x{number + 1} = self.layers[{number}]({given})\n")
    return "".join([*lines, f"        return x{len(rows)}\n"])


def renamed(about: Described, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of a `nas.training.network.Network` by the names that it has in `source_code`."""
    from nas.winner.export.constructed import constructed

    begins = {"mean": "mean", "std": "std"}  # of names; they end in a point, or are a whole name
    shapes = [about.shape, *(row.shape for row in about.rows)]
    index = 0
    for number, row in enumerate(about.rows):
        parts = _parts_of(constructed(row.layer, [shapes[i] for i in row.inputs]))
        for place, name in enumerate(parts):
            inside = f"{index}." if about.architecture.is_chain else f"{number}.{f'{place}.' * (len(parts) > 1)}"
            begins[f"layers.{number + 1}_{name or type(row.layer).__name__}."] = f"layers.{inside}"
            index += 1

    def rename(name: str) -> str | None:
        known = (one for one in begins if name == one or (one.endswith(".") and f"{name}.".startswith(one)))
        begin = next(known, None)
        return None if begin is None else f"{begins[begin]}{f'{name}.'.removeprefix(begin)}".rstrip(".")

    state: OrderedDict[str, Tensor] = OrderedDict(
        (rename(name) or name, weights[name].contiguous()) for name in weights
    )
    # The versions of the parts: mnasnet does not load without its own.
    versions = {rename(name): version for name, version in getattr(weights, "_metadata", {}).items()}
    state._metadata = {name: version for name, version in versions.items() if name}  # type: ignore[attr-defined]
    return state


def _imports(statements: list[str]) -> str:
    """Import statements, those of one module together: what Python has, then what is installed."""
    brought: dict[str, list[str]] = {}
    plain = []
    for statement in sorted(set(statements)):
        head, _, names = statement.partition(" import ")
        if names and head.startswith("from "):
            brought.setdefault(head, []).append(names)
        else:
            plain.append(statement)
    lines = sorted(plain)
    lines += [f"{head} import {', '.join(sorted(names))}" for head, names in sorted(brought.items())]
    standard = [line for line in lines if line.split()[1].partition(".")[0] in sys.stdlib_module_names]
    others = [line for line in lines if line not in standard]
    return "\n".join([*standard, "", *others]) if standard else "\n".join(others)


def _tuple(words: list[str]) -> str:
    """A tuple of texts: in one line where it fits, otherwise a line for each."""
    line = f"({', '.join(words)}{',' * (len(words) == 1)})"
    return line if len(f"CLASSES = {line}") <= LINE else "(\n" + "".join(f"    {word},\n" for word in words) + ")"
