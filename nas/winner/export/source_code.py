"""A trained network as one readable file of PyTorch, which needs nothing of this package.

The file computes the same as `nas.training.network`, layer by layer; the calls that make the modules come from
`constructed`. The weights are renamed to the names of the parameters in the file.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nas import __version__
from nas.architecture.architecture import Row
from nas.architecture.layers import show
from nas.data.kinds import Kind, kind_of
from nas.errors import NasError
from nas.winner.best import Description
from nas.winner.export.masked import masked_forward

if TYPE_CHECKING:
    from torch import Tensor, nn

    from nas.winner.export.constructed import Source

LINE = 88  # characters of a line, where it can be broken
RESERVED = ("Network", "load", "WEIGHTS", "SIZE", "CLASSES", "Path", "torch", "Tensor", "nn", "functional")
TYPES: dict[Kind, str] = {"images": "uint8", "series": "float32", "tokens": "int64"}
TEMPLATE = Path(__file__).with_name("network.txt")  # of network.py


def source_code(description: Description, dataset: str, result: str = "") -> str:
    """The text of network.py; ``result``: how good the network is, in sentences.

    Raises:
        NasError: a layer of a plugin has no text that runs without nas; says why.
    """
    from nas.winner.export.constructed import Source, quoted

    source = Source(RESERVED)
    architecture, shape, classes, *_ = description
    rows, is_chain, is_image = description.rows(), architecture.is_chain, len(shape) == 3
    kind, padded = kind_of(shape), description.is_padded
    layers = "".join(_lines(description, source))
    source.imports |= {
        "Path": "from pathlib import Path", "torch": "import torch", "Tensor": "from torch import Tensor",
        "nn": "from torch import nn",
    }  # fmt: skip
    resize = ""
    if is_image:
        from nas.training.network import resized

        forward = _forward(rows, is_chain, kind)
        resize = f"        x = {source.name(resized)}(x, SIZE, {quoted(description.fit)})\n"
    elif padded:
        forward = masked_forward(description, source, _modules(description))
    else:
        forward = _forward(rows, is_chain, kind)
    *before, length = map(str, shape)
    sizes = [*before, f"up to {length}" if padded else length]
    free = ", ".join([before[0], "any height", "any width"] if is_image else sizes)
    return TEMPLATE.read_text(encoding="utf-8").format(
        dataset=re.sub(r"[^\w.-]", "_", dataset)[:40],
        inputs=f"{kind.capitalize()} of {show(shape)}",
        kind=kind,
        example=f"uint8 (N, {shape[0]}, height, width), 0 to 255" if is_image else f"{TYPES[kind]} (N, {free})",
        result="".join(f"{line}\n" for line in textwrap.wrap(re.sub(r"[^\w .,:%()=-]", "_", result), LINE)),
        file=_file(shape) if is_image else "",
        count=len(classes),
        parameters=f"{sum(row.parameters for row in rows):,}",
        id=architecture.id,
        version=__version__,
        imports=_imports(source.imports.values()),
        size=shape[1:],
        sizes="height and width" if is_image else "the steps" if kind == "series" else "the number",
        classes=_tuple([quoted(name) for name in classes]),
        definitions="".join(f"\n\n{text}\n" for text in source.definitions.values()),
        takes=_takes(kind, padded=padded),
        buffers=_buffers(shape),
        begin="Sequential(" if is_chain and not padded else "ModuleList([",
        end=")" if is_chain and not padded else "])",
        layers=layers,
        free=free + ", 0 to 255" * is_image,
        begun=kind if kind == "tokens" else f"{kind}.float()",
        resize=resize,
        forward=forward,
    )


def _takes(kind: Kind, *, padded: bool) -> str:
    """What a network takes, in sentences."""
    if kind == "images":
        return "Takes raw images; resizing and normalisation are its first steps."
    if kind == "tokens":
        return "Takes characters by their numbers, the positions in CLASSES; answers which one follows."
    return "Takes raw series; normalisation is its first step." + " NaN follows a shorter one." * padded


def _buffers(shape: Sequence[int]) -> str:
    """The lines that make the buffers of the normalisation; tokens have none."""
    if kind_of(shape) == "tokens":
        return ""
    sizes = ", ".join(map(str, (shape[0], *[1] * (len(shape) - 1))))
    return f"""\
        # The mean and the standard deviation of each channel; the values are in the weights.
        self.register_buffer("mean", torch.zeros({sizes}))
        self.register_buffer("std", torch.ones({sizes}))
"""


def _file(shape: Sequence[int]) -> str:
    """The lines of the example that open a file as images."""
    mode = {1: "L", 3: "RGB", 4: "RGBA"}.get(shape[0])
    if mode is None:
        return ""
    return f"""
    from PIL import Image
    from torchvision.transforms.functional import pil_to_tensor

    images = pil_to_tensor(Image.open("photo.png").convert("{mode}"))[None]
"""


def _modules(description: Description) -> Iterator[tuple[Row, dict[str, nn.Module]]]:
    """The layers, each with its modules by their names in a `Network`; a single module has the name ""."""
    import torch

    from nas.winner.export.constructed import constructed

    shapes = [description.input_shape]
    for row in description.rows():
        module = constructed(row.layer, [shapes[i] for i in row.inputs])
        shapes.append(row.shape)
        yield row, dict(module._modules) if type(module) is torch.nn.Sequential else {"": module}


def _lines(description: Description, source: Source) -> Iterator[str]:
    """The lines that make the modules: a line for each module of a chain, a line for each layer of a graph."""
    for number, (row, modules) in enumerate(_modules(description), 1):
        try:
            calls = [source.expression(module) for module in modules.values()]
        except NasError as error:
            raise NasError(f"layer {number} ({row.layer}) cannot be written as Python: {error}") from None
        if not description.architecture.is_chain:
            calls = [calls[0] if len(calls) == 1 else f"nn.Sequential({', '.join(calls)})"]
        if calls:
            yield f"            # {row.layer} → {show(row.shape)}\n"
            yield from (f"            {call},\n" for call in calls)


def _forward(rows: list[Row], is_chain: bool, kind: Kind) -> str:
    """The lines of the forward pass; of a graph: ``x3 = self.layers[2](x1, x2)``."""
    normalised = "x\n" if kind == "tokens" else "(x - self.mean) / self.std\n"
    if is_chain and kind == "tokens":
        return "        return self.layers(x)\n"
    if is_chain:
        return f"        x = {normalised}        return self.layers(x)\n"
    lines = [f"        x0 = {normalised}"]
    for number, row in enumerate(rows):
        inputs = ", ".join(f"x{i}" for i in row.inputs)
        lines.append(f"        x{number + 1} = self.layers[{number}]({inputs})\n")
    return "".join([*lines, f"        return x{len(rows)}\n"])


def renamed(description: Description, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of a `nas.training.network.Network` by the names that it has in `source_code`."""
    prefixes = {}  # of a module's names there → in the file
    index = 0
    for number, (row, modules) in enumerate(_modules(description)):
        for place, name in enumerate(modules):
            inside = f"{number}{f'.{place}' * (len(modules) > 1)}"
            inside = str(index) if description.architecture.is_chain else inside
            prefixes[f"layers.{number + 1}_{name or type(row.layer).__name__}."] = f"layers.{inside}."
            index += 1

    def rename(name: str) -> str | None:
        begin = next((prefix for prefix in prefixes if f"{name}.".startswith(prefix)), None)
        return begin and (prefixes[begin] + f"{name}.".removeprefix(begin)).rstrip(".")

    unused = ("mean", "std") if kind_of(description.input_shape) == "tokens" else ()
    state: OrderedDict[str, Tensor] = OrderedDict(
        (rename(name) or name, values.contiguous()) for name, values in weights.items() if name not in unused
    )
    # The versions of the parts: mnasnet does not load without its own.
    versions = {rename(name): version for name, version in getattr(weights, "_metadata", {}).items()}
    state._metadata = {name: version for name, version in versions.items() if name}  # type: ignore[attr-defined]
    return state


def _imports(statements: Iterable[str]) -> str:
    """Import statements as isort sorts them: the standard library, then installed packages; one line a module."""
    names: defaultdict[str, set[str]] = defaultdict(set)
    for statement in statements:
        module, _, name = statement.partition(" import ")
        names[module].add(name)
    lines = [f"{module} import {', '.join(sorted(names[module]))}".removesuffix(" import ") for module in names]
    lines.sort(key=lambda line: (line.startswith("from "), line))
    standard = [line for line in lines if line.split()[1].partition(".")[0] in sys.stdlib_module_names]
    return "\n".join([*standard, *[""] * bool(standard), *(line for line in lines if line not in standard)])


def _tuple(texts: list[str]) -> str:
    """A tuple of texts: in one line if it fits, otherwise a line for each."""
    line = f"({', '.join(texts)}{',' * (len(texts) == 1)})"
    return line if len(f"CLASSES = {line}") <= LINE else "(\n" + "".join(f"    {text},\n" for text in texts) + ")"
