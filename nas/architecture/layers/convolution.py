"""Convolutions, and blocks of them, for images."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nas.architecture.layer import Layer, Shape, channels_of, count, image_of, one_of, setting, switch
from nas.architecture.layers.activation import activation_module, activation_part, activation_setting
from nas.architecture.lazy import modules, nn
from nas.errors import ArchitectureError

OPERATIONS = {  # the operations of a cell's edge, with the names of NAS-Bench-201 and in short
    "none": "none",
    "skip_connect": "skip",
    "nor_conv_1x1": "conv1×1",
    "nor_conv_3x3": "conv3×3",
    "avg_pool_3x3": "pool",
}


def slide(sizes: Shape, kernel: int, stride: int, pad: int = 0) -> Shape:
    """The sizes of a map after a window of ``kernel`` moved in steps of ``stride`` over the padded map."""
    if kernel > min(sizes) + 2 * pad:
        window, whole = "×".join([str(kernel)] * len(sizes)), "×".join(map(str, sizes))
        raise ArchitectureError(f"its window of {window} is larger than the map of {whole}")
    return tuple((size + 2 * pad - kernel) // stride + 1 for size in sizes)


def same_padding(kernel: int) -> int:
    """The number of rows that are added on each side so that a stride of one keeps the size."""
    if kernel % 2 == 0:
        raise ArchitectureError(f"padding 'same' needs an odd kernel, and it has {kernel}")
    return kernel // 2


@dataclass(frozen=True)
class Convolution(Layer):
    """What plain and separable convolutions share: all but their weights and their modules."""

    role = "convolution"

    filters: int = count()
    kernel: int = count(3)
    stride: int = count(1)
    padding: str = one_of("valid", "same", default="valid")
    activation: str = activation_setting()
    batch_norm: bool = switch()

    @property
    def pad(self) -> int:
        """The number of rows of zeros on each side."""
        return same_padding(self.kernel) if self.padding == "same" else 0

    @property
    def maps(self) -> int:
        """The linear maps that are computed: maxout takes the maximum of two for each filter."""
        return 2 * self.filters if self.activation == "maxout" else self.filters

    @abstractmethod
    def weights(self, channels: int) -> int:
        """The weights of all kernels: each is used at every position of the output."""

    def output_shape(self, shape: Shape) -> Shape:
        return (self.filters, *slide(image_of(shape)[1:], self.kernel, self.stride, self.pad))

    def parameters(self, shape: Shape) -> int:
        # Each map has a bias; or a scale and a shift, which make a bias needless.
        return self.weights(channels_of(shape)) + (2 if self.batch_norm else 1) * self.maps

    def flops(self, shape: Shape) -> int:
        return 2 * self.weights(channels_of(shape)) * math.prod(self.output_shape(shape)[1:])

    def words(self) -> str:
        words = [type(self).__name__, str(self.filters), f"{self.kernel}×{self.kernel}"]
        words += [f"/{self.stride}"] * (self.stride > 1) + ["same"] * (self.padding == "same")
        words += ["bn"] * self.batch_norm + [self.activation] * (self.activation != "linear")
        return " ".join(words)

    def _after(self) -> dict[str, nn.Module]:
        """The modules after the convolution: batch normalisation, if it is on, and the activation."""
        norm: dict[str, nn.Module] = {"bn": nn.BatchNorm2d(self.maps)} if self.batch_norm else {}
        return norm | activation_part(self.activation)


@dataclass(frozen=True)
class Conv2d(Convolution):
    """A convolution, then batch normalisation if it is on, then the activation.

    With batch normalisation the convolution has no bias, which the normalisation would cancel.
    """

    def weights(self, channels: int) -> int:
        return self.kernel**2 * channels * self.maps

    def module(self, shape: Shape) -> nn.Module:
        options: dict[str, Any] = {"stride": self.stride, "padding": self.pad, "bias": not self.batch_norm}
        return modules.named(conv=nn.Conv2d(shape[0], self.maps, self.kernel, **options), **self._after())


@dataclass(frozen=True)
class SeparableConv2d(Convolution):
    """A depthwise convolution, then a 1×1 convolution (Chollet, Xception, 2017).

    As there, nothing stands between the two; batch normalisation and the activation follow the second.
    """

    def weights(self, channels: int) -> int:
        return self.kernel**2 * channels + channels * self.maps

    def module(self, shape: Shape) -> nn.Module:
        channels, size = shape[0], self.kernel
        options: dict[str, Any] = {"stride": self.stride, "padding": self.pad, "groups": channels, "bias": False}
        depthwise = nn.Conv2d(channels, channels, size, **options)
        pointwise = nn.Conv2d(channels, self.maps, 1, bias=not self.batch_norm)
        return modules.named(depthwise=depthwise, pointwise=pointwise, **self._after())


class Block(Layer):
    """A layer whose parameters and operations are those of its convolutions."""

    role = "convolution"

    @abstractmethod
    def convolutions(self, shape: Shape) -> Sequence[tuple[Layer, Shape]]:
        """The convolutions, each with the shape of its input."""

    def parameters(self, shape: Shape) -> int:
        return sum(layer.parameters(at) for layer, at in self.convolutions(shape))

    def flops(self, shape: Shape) -> int:
        return sum(layer.flops(at) for layer, at in self.convolutions(shape))


@dataclass(frozen=True)
class ResidualBlock(Block):
    """Two normalised convolutions whose result is added to the block's input (He et al., ResNet, 2016).

    The first convolution has the stride. Where the stride or the channels change the shape, the input is projected
    by a normalised 1×1 convolution. Padding is ``same``, and no convolution has a bias.
    """

    mark = '<path d="M-44 0 C-44 -52 44 -52 44 0" fill="none" stroke="#333" stroke-width="1.5"/>'  # the shortcut

    filters: int = count()
    kernel: int = count(3)
    stride: int = count(1)
    activation: str = activation_setting(maxout=False, default="relu")

    def convolutions(self, shape: Shape) -> list[tuple[Conv2d, Shape]]:
        first = Conv2d(self.filters, self.kernel, self.stride, "same", batch_norm=True)
        second = Conv2d(self.filters, self.kernel, 1, "same", batch_norm=True)
        both = [(first, shape), (second, first.output_shape(shape))]
        projected = self.stride > 1 or channels_of(shape) != self.filters
        shortcut = Conv2d(self.filters, 1, self.stride, batch_norm=True)
        return [*both, (shortcut, shape)] if projected else both

    def output_shape(self, shape: Shape) -> Shape:
        return Conv2d(self.filters, self.kernel, self.stride, "same").output_shape(shape)

    def module(self, shape: Shape) -> nn.Module:
        same_padding(self.kernel)
        activation = activation_module(self.activation)
        block = modules.Residual(shape[0], self.filters, self.kernel, activation, stride=self.stride)
        return modules.named(residual=block)

    def words(self) -> str:
        stride = f" /{self.stride}" if self.stride > 1 else ""
        return f"ResidualBlock {self.filters} {self.kernel}×{self.kernel}{stride} {self.activation}"


@dataclass(frozen=True)
class Cell(Block):
    """The cell of NAS-Bench-201 (Dong and Yang, 2020): four nodes, each the sum of the maps that it is sent.

    Every node sends its map to every later one, through one of five operations (`OPERATIONS`): nothing, itself, an
    average over 3×3, or activation, convolution and normalisation, ``ReLU-Conv-BN`` without a bias. The first node
    is the input, the last the output; size and channels stay.
    """

    mark = "".join(f'<circle cx="{x}" cy="0" r="2.5" fill="#fff"/>' for x in (-12, -4, 4, 12))  # its nodes

    operations: tuple[str, ...] = setting(
        lambda v: type(v) is tuple and len(v) == 6 and all(type(name) is str and name in OPERATIONS for name in v),
        f"six of {', '.join(OPERATIONS)}: into the second node, into the third (from the first, from the second), "
        "into the fourth",
    )

    def convolutions(self, shape: Shape) -> list[tuple[Conv2d, Shape]]:
        kernels = [3 if name == "nor_conv_3x3" else 1 for name in self.operations if name.startswith("nor_conv")]
        return [(Conv2d(channels_of(shape), size, padding="same", batch_norm=True), shape) for size in kernels]

    def output_shape(self, shape: Shape) -> Shape:
        return image_of(shape)

    def module(self, shape: Shape) -> nn.Module:
        return modules.named(cell=modules.CellGraph(shape[0], self.operations))

    def words(self) -> str:
        first, *rest = (OPERATIONS[name] for name in self.operations)
        return f"Cell {first} | {' '.join(rest[:2])} | {' '.join(rest[2:])}"
