"""A network as one readable file of PyTorch, which needs nothing of this package.

The layers are written as a person would write them; `renamed` gives the weights the names that they have there.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from nas import __version__
from nas.architecture.architecture import Architecture
from nas.architecture.layers import (
    LEAKY_SLOPE,
    Activation,
    AveragePool,
    BatchNorm,
    Cell,
    Conv2d,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePool,
    Layer,
    MaxPool,
    Pretrained,
    ResidualBlock,
    SeparableConv2d,
    Shape,
    show,
)
from nas.winner.best import weightless
from nas.winner.export import source_parts as parts

if TYPE_CHECKING:
    from torch import Tensor, nn

ACTIVATIONS = {
    "linear": "nn.Identity()",
    "sigmoid": "nn.Sigmoid()",
    "tanh": "nn.Tanh()",
    "relu": "nn.ReLU()",
    "leaky_relu": f"nn.LeakyReLU({LEAKY_SLOPE})",
    "maxout": "Maxout()",
    "elu": "nn.ELU()",
    "gelu": "nn.GELU()",
    "silu": "nn.SiLU()",
}
LINE = 88  # characters: what ruff and black leave as it is


class Step(NamedTuple):
    """One module of the sequence."""

    code: str
    name: str = ""  # of the module of `nas.training.network.Network` that has its weights, without the position
    inside: Mapping[str, str] = {}  # how the beginnings of names differ within the module


class Described(NamedTuple):
    """What a file of source code is about."""

    architecture: Architecture
    shape: Shape  # of an image
    classes: tuple[str, ...]
    dataset: str


def source_code(about: Described) -> str:
    """The text of network.py."""
    rows = about.architecture.table(about.shape, len(about.classes))
    channels, height, width = about.shape
    kinds = {type(row.layer) for row in rows}
    steps = list(_sequence(about))
    helpers = [
        *[parts.MAXOUT] * any(step.code == "Maxout()" for _, _, made in steps for step in made),
        *[parts.RESIDUAL] * (ResidualBlock in kinds),
        *[parts.CELL] * (Cell in kinds),
        *(_backbone(layer, shape) for layer, shape, _ in steps if isinstance(layer, Pretrained)),
    ]
    body = "".join(
        f"            # {layer} → {show(row.shape)}\n" + "".join(f"            {step.code},\n" for step in made)
        for row, (layer, _, made) in zip(rows, steps, strict=True)
        if made
    )
    return parts.FILE.format(
        dataset=re.sub(r"[^\w.-]", "_", about.dataset)[:40],
        image=show(about.shape),
        count=len(about.classes),
        parameters=f"{sum(row.parameters for row in rows):,}",
        id=about.architecture.id,
        version=__version__,
        needs="PyTorch and torchvision" if Pretrained in kinds else "PyTorch alone",
        channels=channels,
        size=f"({height}, {width})",
        classes=_tuple(about.classes),
        torchvision="\nfrom torchvision.models import get_model" if Pretrained in kinds else "",
        helpers="\n\n".join(["", *(helper.strip() + "\n" for helper in helpers)]),
        layers=body,
    )


def renamed(about: Described, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of a `nas.training.network.Network` by the names that it has in `source_code`."""
    begins = {"mean": "mean", "std": "std"}  # of names; they end in a point, or are a whole name
    index = 0
    for position, (_, _, steps) in enumerate(_sequence(about), 1):
        for step in steps:
            for old, new in (step.inside or {"": ""}).items():
                begins[f"layers.{position}_{step.name}.{old}"] = f"layers.{index}.{new}"
            index += 1

    def rename(name: str) -> str | None:
        known = (one for one in begins if name == one or (one.endswith(".") and name.startswith(one)))
        begin = next(known, None)
        return None if begin is None else begins[begin] + name.removeprefix(begin)

    state: OrderedDict[str, Tensor] = OrderedDict(
        (rename(name) or name, weights[name].contiguous()) for name in weights
    )
    # The versions of the parts: mnasnet does not load without its own.
    versions = {rename(name): version for name, version in getattr(weights, "_metadata", {}).items()}
    state._metadata = {name: version for name, version in versions.items() if name}  # type: ignore[attr-defined]
    return state


def _sequence(about: Described) -> Iterator[tuple[Layer, Shape, list[Step]]]:
    """Every layer, the shape of its input, and the modules that it is."""
    shape = about.shape
    for row in about.architecture.table(about.shape, len(about.classes)):
        yield row.layer, shape, _steps(row.layer, shape)
        shape = row.shape


def _steps(layer: Layer, shape: Shape) -> list[Step]:
    """The modules of a layer, as `nas.training.network` makes them."""
    match layer:
        case Conv2d():
            return [Step(_convolution(layer, shape[0], layer.maps), "conv"), *_after(layer)]
        case SeparableConv2d():
            depth = _convolution(layer, shape[0], shape[0], groups=shape[0])
            bias = ", bias=False" if layer.batch_norm else ""
            point = f"nn.Conv2d({shape[0]}, {layer.maps}, 1{bias})"
            return [Step(depth, "depthwise"), Step(point, "pointwise"), *_after(layer)]
        case ResidualBlock():
            stride = f", stride={layer.stride}" if layer.stride > 1 else ""
            how = f"{shape[0]}, {layer.filters}, {layer.kernel}, {ACTIVATIONS[layer.activation]}{stride}"
            return [Step(f"Residual({how})", "residual")]
        case Cell():
            return [_cell(layer, shape)]
        case Pretrained():
            return [Step("Backbone()", "backbone")]
        case MaxPool():
            return [Step(f"nn.MaxPool2d({layer.size})")]
        case AveragePool():
            return [Step(f"nn.AvgPool2d({layer.size})")]
        case GlobalAveragePool():
            return [Step("nn.AdaptiveAvgPool2d(1)"), Step("nn.Flatten()")]
        case Flatten():
            return [Step("nn.Flatten()")]
        case Dropout():
            return [Step(f"nn.Dropout({layer.rate})")]
        case BatchNorm():
            return [Step(f"nn.BatchNorm{len(shape) - 1 or 1}d({shape[0]})", "bn")]
        case Activation():
            return _activation(layer.name)
        case Dense():
            return [Step(f"nn.Linear({shape[0]}, {layer.maps})", "dense"), *_activation(layer.activation)]
    raise TypeError(f"no source code is known for {layer!r}")


def _activation(name: str) -> list[Step]:
    return [] if name == "linear" else [Step(ACTIVATIONS[name])]


def _after(layer: Conv2d | SeparableConv2d) -> list[Step]:
    """What follows a convolution."""
    norm = [Step(f"nn.BatchNorm2d({layer.maps})", "bn")] if layer.batch_norm else []
    return [*norm, *_activation(layer.activation)]


def _convolution(layer: Conv2d | SeparableConv2d, channels: int, maps: int, groups: int = 1) -> str:
    options = {"stride": (layer.stride, 1), "padding": (layer.pad, 0), "groups": (groups, 1)}
    words = [f"{name}={value}" for name, (value, default) in options.items() if value != default]
    words += ["bias=False"] * (layer.batch_norm or groups > 1)
    return f"nn.Conv2d({', '.join([str(channels), str(maps), str(layer.kernel), *words])})"


def _cell(layer: Cell, shape: Shape) -> Step:
    """A line for each node after the first: what the earlier ones send it."""
    nodes = [layer.operations[:1], layer.operations[1:3], layer.operations[3:]]
    lines = [f"                [{', '.join(map(_text, names))}],\n" for names in nodes]
    edges = [(node, edge) for node, names in enumerate(nodes) for edge in range(len(names))]
    inside = {f"edges.{i}.": f"nodes.{node}.{edge}." for i, (node, edge) in enumerate(edges)}
    return Step(f"Cell(\n                {shape[0]},\n{''.join(lines)}            )", "cell", inside)


def _backbone(layer: Pretrained, shape: Shape) -> str:
    """The class of torchvision's model, without its classifier and with the right number of channels."""
    from torchvision.models import get_model

    from nas.training.backbone import Backbone, classifier_of, input_convolution, options_of

    with weightless():
        options = options_of(layer.model)
        classifier = classifier_of(get_model(layer.model, weights=None, **options))
        backbone = Backbone(layer, shape)
    words = [_text(layer.model), "weights=None", *(f"{name}={value}" for name, value in options.items())]
    call = (
        ", ".join(words) if not options else "\n" + "".join(f"            {word},\n" for word in words) + " " * 8
    )
    resize = ""
    if backbone.resizes:
        resize = f'        x = functional.interpolate(x, {backbone.size}, mode="bilinear"'
        resize += ", antialias=True)\n" if backbone.shrinks else ")\n"
    name, first = input_convolution(backbone.body)
    adapt = "" if shape[0] == 3 else parts.ADAPT.format(name=_text(name), first=_first(first))
    return parts.BACKBONE.format(
        model=layer.model, call=call, classifier=_text(classifier), adapt=adapt, resize=resize,
        features=layer.facts.features,
    )  # fmt: skip


def _first(first: nn.Conv2d) -> str:
    """The first convolution of a torchvision model; its windows are square."""
    bias = "" if first.bias is not None else ", bias=False"
    how = f"{first.kernel_size[0]}, stride={first.stride[0]}, padding={int(first.padding[0])}{bias}"
    return f"nn.Conv2d({first.in_channels}, {first.out_channels}, {how})"


def _tuple(texts: tuple[str, ...]) -> str:
    """A tuple of texts: in one line where it fits, otherwise a line for each."""
    words = [_text(text) for text in texts]
    line = f"({', '.join(words)}{',' * (len(words) == 1)})"
    return line if len(f"CLASSES = {line}") <= LINE else "(\n" + "".join(f"    {word},\n" for word in words) + ")"


def _text(text: str) -> str:
    """A text as Python has it, whatever is in it: in double quotes, unless that takes more backslashes."""
    quote = '"' if text.count('"') <= text.count("'") else "'"
    return quote + "".join(f"\\{one}" if one == quote else repr(one)[1:-1] for one in text) + quote
