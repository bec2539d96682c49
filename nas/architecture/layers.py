"""The layer vocabulary: each layer knows its output shape, its parameters and its arithmetic.

A shape is ``(channels, height, width)`` for a map and ``(features,)`` for a vector; the batch is never part of
it. A layer that does not fit its input raises `ArchitectureError` with the rule that it breaks; the
architecture adds the position.
"""

from __future__ import annotations

import math
from dataclasses import MISSING, dataclass, fields
from typing import Any

from nas.architecture.backbones import BACKBONES, Facts
from nas.architecture.layer import Layer as Layer
from nas.architecture.layer import Shape as Shape
from nas.architecture.layer import channels_of, count, one_of, setting, switch
from nas.architecture.layer import show as show
from nas.errors import ArchitectureError, quoted, unknown

ACTIVATIONS = ("linear", "sigmoid", "tanh", "relu", "leaky_relu", "maxout", "elu", "gelu", "silu")
LEAKY_SLOPE = 0.1  # the lecture's; PyTorch's own default is 0.01
OPERATIONS = {  # of a cell's edge, as NAS-Bench-201 calls them, and in short
    "none": "none",
    "skip_connect": "skip",
    "nor_conv_1x1": "conv1×1",
    "nor_conv_3x3": "conv3×3",
    "avg_pool_3x3": "pool",
}


def _activation(*, maxout: bool = True, default: str = "linear") -> Any:
    return one_of(*(name for name in ACTIVATIONS if maxout or name != "maxout"), default=default)


def _slide(shape: Shape, kernel: int, stride: int, pad: int) -> tuple[int, int]:
    """Height and width after a window of ``kernel`` moved in steps of ``stride`` over the padded map."""
    height, width = shape[1] + 2 * pad, shape[2] + 2 * pad
    if kernel > height or kernel > width:
        raise ArchitectureError(f"its window of {kernel}×{kernel} is larger than the map of {shape[1]}×{shape[2]}")
    return (height - kernel) // stride + 1, (width - kernel) // stride + 1


def same_padding(kernel: int) -> int:
    """Rows to add on each side so that a step of one keeps the size."""
    if kernel % 2 == 0:
        raise ArchitectureError(f"padding 'same' needs an odd kernel, and it has {kernel}")
    return kernel // 2


@dataclass(frozen=True)
class _Convolution(Layer):
    """What plain and separable convolutions share: their settings, their shapes and their words."""

    filters: int = count()
    kernel: int = count(3)
    stride: int = count(1)
    padding: str = one_of("valid", "same", default="valid")
    activation: str = _activation()
    batch_norm: bool = switch()

    @property
    def pad(self) -> int:
        """Rows of zeros on each side."""
        return same_padding(self.kernel) if self.padding == "same" else 0

    @property
    def maps(self) -> int:
        """Linear maps that are computed: maxout takes the maximum of two for every filter."""
        return 2 * self.filters if self.activation == "maxout" else self.filters

    def output_shape(self, shape: Shape) -> Shape:
        """Filters × the positions of the kernel."""
        channels_of(shape)
        return (self.filters, *_slide(shape, self.kernel, self.stride, self.pad))

    def __str__(self) -> str:
        """Name, filters, kernel, and what differs from the plainest case."""
        words = [type(self).__name__, str(self.filters), f"{self.kernel}×{self.kernel}"]
        words += [f"/{self.stride}"] * (self.stride > 1) + ["same"] * (self.padding == "same")
        words += ["bn"] * self.batch_norm + [self.activation] * (self.activation != "linear")
        return " ".join(words)


@dataclass(frozen=True)
class Conv2d(_Convolution):
    """A convolution, then batch normalisation if asked for, then the activation.

    With batch normalisation the convolution has no bias, which the normalisation would cancel.
    """

    def parameters(self, shape: Shape) -> int:
        """Kernels, and a bias for every map or a scale and a shift for every map."""
        kernels = self.kernel**2 * channels_of(shape) * self.maps
        return kernels + (2 if self.batch_norm else 1) * self.maps

    def flops(self, shape: Shape) -> int:
        """Two for every weight of a kernel at every position."""
        _, height, width = self.output_shape(shape)
        return 2 * self.kernel**2 * channels_of(shape) * self.maps * height * width


@dataclass(frozen=True)
class SeparableConv2d(_Convolution):
    """A depthwise convolution and a 1×1 convolution in place of one (Chollet, Xception, 2017).

    As there, nothing stands between the two; batch normalisation and the activation follow the second.
    """

    def parameters(self, shape: Shape) -> int:
        """One kernel a channel, a 1×1 map, and its bias or its normalisation."""
        channels = channels_of(shape)
        return self.kernel**2 * channels + channels * self.maps + (2 if self.batch_norm else 1) * self.maps

    def flops(self, shape: Shape) -> int:
        """Those of its two convolutions."""
        _, height, width = self.output_shape(shape)
        channels = channels_of(shape)
        return 2 * (self.kernel**2 * channels + channels * self.maps) * height * width


@dataclass(frozen=True)
class ResidualBlock(Layer):
    """Two normalised convolutions whose result is added to the block's input (He et al., ResNet, 2016).

    The first convolution has the stride; where stride or channels change the shape, a normalised 1×1
    convolution stands in for the identity. Padding is ``same``; no bias anywhere.
    """

    filters: int = count()
    kernel: int = count(3)
    stride: int = count(1)
    activation: str = _activation(maxout=False, default="relu")

    def projects(self, shape: Shape) -> bool:
        """Whether the input has to be projected to be added."""
        return self.stride > 1 or channels_of(shape) != self.filters

    def _convolutions(self, shape: Shape) -> list[tuple[Conv2d, Shape]]:
        first = Conv2d(self.filters, self.kernel, self.stride, "same", batch_norm=True)
        second = Conv2d(self.filters, self.kernel, 1, "same", batch_norm=True)
        both = [(first, shape), (second, first.output_shape(shape))]
        shortcut = Conv2d(self.filters, 1, self.stride, batch_norm=True)
        return [*both, (shortcut, shape)] if self.projects(shape) else both

    def output_shape(self, shape: Shape) -> Shape:
        """Filters × the positions of the first kernel."""
        return Conv2d(self.filters, self.kernel, self.stride, "same").output_shape(shape)

    def parameters(self, shape: Shape) -> int:
        """Those of its two or three convolutions."""
        return sum(layer.parameters(at) for layer, at in self._convolutions(shape))

    def flops(self, shape: Shape) -> int:
        """Those of its two or three convolutions."""
        return sum(layer.flops(at) for layer, at in self._convolutions(shape))

    def __str__(self) -> str:
        """Name, filters, kernel, stride and activation."""
        stride = [f"/{self.stride}"] * (self.stride > 1)
        words = ["ResidualBlock", str(self.filters), f"{self.kernel}×{self.kernel}", *stride]
        return " ".join([*words, self.activation])


@dataclass(frozen=True)
class Cell(Layer):
    """The cell of NAS-Bench-201 (Dong and Yang, 2020): four nodes, each the sum of what the earlier ones send it.

    Every node sends its map to every later one, through one of five operations (`OPERATIONS`): nothing, itself, an
    average over 3×3, or activation, convolution and normalisation, ``ReLU-Conv-BN`` without a bias. The first node
    is the input, the last the output; size and channels stay.
    """

    operations: tuple[str, ...] = setting(
        lambda v: type(v) is tuple and len(v) == 6 and all(type(name) is str and name in OPERATIONS for name in v),
        f"six of {', '.join(OPERATIONS)}: into the second node, into the third (from the first, from the second), "
        "into the fourth",
    )

    def __post_init__(self) -> None:
        """Accept a list, as JSON has it."""
        operations: Any = self.operations
        if isinstance(operations, list):
            object.__setattr__(self, "operations", tuple(operations))
        super().__post_init__()

    def _convolutions(self, shape: Shape) -> list[Conv2d]:
        kernels = [3 if name == "nor_conv_3x3" else 1 for name in self.operations if name.startswith("nor_conv")]
        return [Conv2d(channels_of(shape), kernel, padding="same", batch_norm=True) for kernel in kernels]

    def output_shape(self, shape: Shape) -> Shape:
        """Unchanged."""
        channels_of(shape)
        return shape

    def parameters(self, shape: Shape) -> int:
        """Those of its convolutions."""
        return sum(layer.parameters(shape) for layer in self._convolutions(shape))

    def flops(self, shape: Shape) -> int:
        """Those of its convolutions."""
        return sum(layer.flops(shape) for layer in self._convolutions(shape))

    def __str__(self) -> str:
        """Name and operations, node by node."""
        first, *rest = (OPERATIONS[name] for name in self.operations)
        return f"Cell {first} | {' '.join(rest[:2])} | {' '.join(rest[2:])}"


@dataclass(frozen=True)
class Pretrained(Layer):
    """A classification network of torchvision without its classifier: a map becomes a vector of features.

    Its first convolution is adapted to the channels; images too small for it are enlarged (`Facts.takes`). With
    ``weights`` it begins with torchvision's best ones for ImageNet, otherwise with random ones; ``frozen``, it
    keeps them, and only what follows it learns.
    """

    model: str = setting(lambda v: type(v) is str, "the name of a torchvision model")
    weights: bool = switch(default=True)
    frozen: bool = switch()

    def __post_init__(self) -> None:
        """Refuse a model that nobody knows."""
        super().__post_init__()
        if self.model not in BACKBONES:
            raise ArchitectureError(unknown("torchvision model", self.model, BACKBONES))

    @property
    def facts(self) -> Facts:
        """What has to be known about the model."""
        return BACKBONES[self.model]

    def output_shape(self, shape: Shape) -> Shape:
        """The features that its classifier would get."""
        channels_of(shape)
        return (self.facts.features,)

    def parameters(self, shape: Shape) -> int:
        """All its weights, frozen or not: the size of the network is what people compare."""
        return self.facts.parameters + (channels_of(shape) - 3) * self.facts.channel_parameters

    def flops(self, shape: Shape) -> int:
        """Exact for an image of the model's smallest size; for a larger one, scaled with the area: about right."""
        height, width = self.facts.takes(shape[1], shape[2])
        at_size = self.facts.flops + (channels_of(shape) - 3) * self.facts.channel_flops
        return at_size * height * width // self.facts.size**2

    def __str__(self) -> str:
        """The model's name, and how it begins and learns."""
        return " ".join(["Pretrained", self.model, *["random"] * (not self.weights), *["frozen"] * self.frozen])


@dataclass(frozen=True)
class _Pool(Layer):
    size: int = count(2)

    def output_shape(self, shape: Shape) -> Shape:
        """As many channels; windows side by side, a remainder at the edge is left out."""
        return (channels_of(shape), *_slide(shape, self.size, self.size, 0))

    def __str__(self) -> str:
        """Name and window."""
        return f"{type(self).__name__} {self.size}"


@dataclass(frozen=True)
class MaxPool(_Pool):
    """The largest value of each window."""


@dataclass(frozen=True)
class AveragePool(_Pool):
    """The mean of each window."""


@dataclass(frozen=True)
class GlobalAveragePool(Layer):
    """The mean of each channel: a map becomes a vector (Lin et al., Network in Network, 2014)."""

    def output_shape(self, shape: Shape) -> Shape:
        """One feature a channel."""
        return (channels_of(shape),)


@dataclass(frozen=True)
class Flatten(Layer):
    """A map becomes a vector, nothing is lost."""

    def output_shape(self, shape: Shape) -> Shape:
        """The product of all sizes."""
        return (math.prod(shape),)


@dataclass(frozen=True)
class Dropout(Layer):
    """Zeroes each value with probability ``rate`` while training (Srivastava et al., 2014)."""

    rate: float = setting(lambda v: type(v) is float and 0 <= v < 1, "a fraction from 0 to below 1", 0.5)

    def output_shape(self, shape: Shape) -> Shape:
        """Unchanged."""
        return shape

    def __str__(self) -> str:
        """Name and rate."""
        return f"Dropout {self.rate:g}"


@dataclass(frozen=True)
class BatchNorm(Layer):
    """Normalises each channel or feature over the batch (Ioffe and Szegedy, 2015)."""

    def output_shape(self, shape: Shape) -> Shape:
        """Unchanged."""
        return shape

    def parameters(self, shape: Shape) -> int:
        """A scale and a shift for each channel or feature."""
        return 2 * shape[0]


@dataclass(frozen=True)
class Activation(Layer):
    """An activation on its own. (Maxout takes linear maps of its own: it belongs to `Conv2d` and `Dense`.)"""

    name: str = _activation(maxout=False, default="relu")

    def output_shape(self, shape: Shape) -> Shape:
        """Unchanged."""
        return shape

    def __str__(self) -> str:
        """The activation's name."""
        return self.name


@dataclass(frozen=True)
class Dense(Layer):
    """A linear map of a vector, then the activation."""

    units: int = count()
    activation: str = _activation()

    @property
    def maps(self) -> int:
        """Linear maps that are computed: maxout takes the maximum of two for every unit (Goodfellow, 2013)."""
        return 2 * self.units if self.activation == "maxout" else self.units

    def output_shape(self, shape: Shape) -> Shape:
        """The units."""
        if len(shape) != 1:
            raise ArchitectureError(
                f"a dense layer needs a vector, and gets a map of {show(shape)}; "
                "put Flatten or GlobalAveragePool before it"
            )
        return (self.units,)

    def parameters(self, shape: Shape) -> int:
        """A weight for every input and a bias, for every map."""
        return (shape[0] + 1) * self.maps

    def flops(self, shape: Shape) -> int:
        """Two for every weight."""
        return 2 * shape[0] * self.maps

    def __str__(self) -> str:
        """Name, units and activation."""
        return f"Dense {self.units}" + (f" {self.activation}" if self.activation != "linear" else "")


LAYERS: dict[str, type[Layer]] = {
    layer.__name__: layer
    for layer in (
        Conv2d, SeparableConv2d, ResidualBlock, Cell, Pretrained, MaxPool, AveragePool, GlobalAveragePool,
        Flatten, Dropout, BatchNorm, Activation, Dense,
    )
}  # fmt: skip


def layer_from_dict(data: object) -> Layer:
    """The layer that `Layer.to_dict` wrote down.

    Raises:
        ArchitectureError: not a layer, an unknown type or setting, or a value that is out of range.
    """
    if not isinstance(data, dict) or not isinstance(data.get("type"), str):
        raise ArchitectureError(f'a layer is an object with a "type", not {quoted(data)}')
    settings = {str(key): value for key, value in data.items() if key != "type"}
    kind = LAYERS.get(data["type"])
    if kind is None:
        raise ArchitectureError(unknown("layer", data["type"], LAYERS))
    known = [f.name for f in fields(kind)]
    for name in settings:
        if name not in known:
            raise ArchitectureError(unknown(f"{kind.__name__} setting", name, known))
    missing = [f.name for f in fields(kind) if f.default is MISSING and f.name not in settings]
    if missing:
        raise ArchitectureError(f"{kind.__name__}: {missing[0]} is missing")
    return kind(**settings)
