"""The layer vocabulary: each layer knows its output shape, its parameters and its arithmetic.

A shape is ``(channels, height, width)`` for a map and ``(features,)`` for a vector; the batch is never part of
it. A layer that does not fit its input raises `ArchitectureError` with the rule that it breaks; the
architecture adds the position.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from nas.errors import ArchitectureError, unknown

Shape = tuple[int, ...]

ACTIVATIONS = ("linear", "sigmoid", "tanh", "relu", "leaky_relu", "maxout", "elu", "gelu", "silu")
LEAKY_SLOPE = 0.1  # the lecture's; PyTorch's own default is 0.01


def show(shape: Shape) -> str:
    """A shape as people read it, channels last: ``26×26×32``."""
    return "×".join(str(size) for size in (*shape[1:], shape[0]))


def _setting(allows: Callable[[Any], bool], words: str, default: Any = MISSING) -> Any:
    return field(default=default, metadata={"allows": allows, "words": words})


def _size(default: Any = MISSING) -> Any:
    # The upper end is far beyond any sensible layer, and keeps a hostile file from asking for terabytes.
    return _setting(lambda v: type(v) is int and 1 <= v <= 65_536, "a whole number from 1 to 65536", default)


def _one_of(*names: str, default: str) -> Any:
    return _setting(lambda v: v in names, f"one of {', '.join(names)}", default)


def _activation(*, maxout: bool = True, default: Any = "linear") -> Any:
    names = tuple(name for name in ACTIVATIONS if maxout or name != "maxout")
    return _setting(lambda v: v in names, f"one of {', '.join(names)}", default)


def _switch() -> Any:
    return _setting(lambda v: type(v) is bool, "true or false", False)


def _channels(shape: Shape) -> int:
    if len(shape) != 3:
        raise ArchitectureError(f"it needs a map (height×width×channels), and gets {shape[0]} features")
    return shape[0]


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
class Layer(ABC):
    """One layer of a network: plain, frozen data."""

    def __post_init__(self) -> None:
        """Refuse settings that no layer can have."""
        for setting in fields(self):
            value = getattr(self, setting.name)
            if not setting.metadata["allows"](value):
                raise ArchitectureError(
                    f"{type(self).__name__}: {setting.name} must be {setting.metadata['words']}, not {value!r}"
                )

    @abstractmethod
    def output_shape(self, shape: Shape) -> Shape:
        """The shape that this layer makes of ``shape``.

        Raises:
            ArchitectureError: the layer does not fit.
        """

    def parameters(self, shape: Shape) -> int:
        """How many numbers this layer learns on an input of ``shape``."""
        return 0

    def flops(self, shape: Shape) -> int:
        """Floating-point operations of one forward pass over one input of ``shape``.

        Convolutions and linear maps only, a multiplication and an addition being two: the convention of
        ``torch.utils.flop_counter``.
        """
        return 0

    def to_dict(self) -> dict[str, Any]:
        """The layer's type and the settings that differ from their defaults: new settings keep old ids."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        kept = {f.name: values[f.name] for f in fields(self) if values[f.name] != f.default}
        return {"type": type(self).__name__, **kept}

    def __str__(self) -> str:
        """A few words for a table, as in ``Conv2d 32 3×3 relu``."""
        return type(self).__name__


@dataclass(frozen=True)
class _Convolution(Layer):
    """What plain and separable convolutions share: their settings, their shapes and their words."""

    filters: int = _size()
    kernel: int = _size(3)
    stride: int = _size(1)
    padding: str = _one_of("valid", "same", default="valid")
    activation: str = _activation()
    batch_norm: bool = _switch()

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
        _channels(shape)
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
        kernels = self.kernel**2 * _channels(shape) * self.maps
        return kernels + (2 if self.batch_norm else 1) * self.maps

    def flops(self, shape: Shape) -> int:
        """Two for every weight of a kernel at every position."""
        _, height, width = self.output_shape(shape)
        return 2 * self.kernel**2 * _channels(shape) * self.maps * height * width


@dataclass(frozen=True)
class SeparableConv2d(_Convolution):
    """A depthwise convolution and a 1×1 convolution in place of one (Chollet, Xception, 2017).

    As there, nothing stands between the two; batch normalisation and the activation follow the second.
    """

    def parameters(self, shape: Shape) -> int:
        """One kernel a channel, a 1×1 map, and its bias or its normalisation."""
        channels = _channels(shape)
        return self.kernel**2 * channels + channels * self.maps + (2 if self.batch_norm else 1) * self.maps

    def flops(self, shape: Shape) -> int:
        """Those of its two convolutions."""
        _, height, width = self.output_shape(shape)
        channels = _channels(shape)
        return 2 * (self.kernel**2 * channels + channels * self.maps) * height * width


@dataclass(frozen=True)
class ResidualBlock(Layer):
    """Two normalised convolutions whose result is added to the block's input (He et al., ResNet, 2016).

    The first convolution has the stride; where stride or channels change the shape, a normalised 1×1
    convolution stands in for the identity. Padding is ``same``; no bias anywhere.
    """

    filters: int = _size()
    kernel: int = _size(3)
    stride: int = _size(1)
    activation: str = _activation(maxout=False, default="relu")

    def projects(self, shape: Shape) -> bool:
        """Whether the input has to be projected to be added."""
        return self.stride > 1 or _channels(shape) != self.filters

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
class _Pool(Layer):
    size: int = _size(2)

    def output_shape(self, shape: Shape) -> Shape:
        """As many channels; windows side by side, a remainder at the edge is left out."""
        return (_channels(shape), *_slide(shape, self.size, self.size, 0))

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
        return (_channels(shape),)


@dataclass(frozen=True)
class Flatten(Layer):
    """A map becomes a vector, nothing is lost."""

    def output_shape(self, shape: Shape) -> Shape:
        """The product of all sizes."""
        return (math.prod(shape),)


@dataclass(frozen=True)
class Dropout(Layer):
    """Zeroes each value with probability ``rate`` while training (Srivastava et al., 2014)."""

    rate: float = _setting(lambda v: type(v) is float and 0 <= v < 1, "a fraction from 0 to below 1", 0.5)

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

    units: int = _size()
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
        Conv2d, SeparableConv2d, ResidualBlock, MaxPool, AveragePool, GlobalAveragePool,
        Flatten, Dropout, BatchNorm, Activation, Dense,
    )
}  # fmt: skip


def layer_from_dict(data: object) -> Layer:
    """The layer that `Layer.to_dict` wrote down.

    Raises:
        ArchitectureError: not a layer, an unknown type or setting, or a value that is out of range.
    """
    if not isinstance(data, dict) or not isinstance(data.get("type"), str):
        raise ArchitectureError(f'a layer is an object with a "type", not {str(data)[:60]}')
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
