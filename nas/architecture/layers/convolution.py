"""Convolutions, and blocks of them: for images, which are maps with two sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nas.architecture.layer import Layer, Shape, channels_of, count, image_of, one_of, setting, switch
from nas.architecture.layers.activation import activation_module, activation_part, activation_setting
from nas.errors import ArchitectureError

if TYPE_CHECKING:
    from torch import nn

OPERATIONS = {  # of a cell's edge, as NAS-Bench-201 calls them, and in short
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
    """Rows to add on each side so that a step of one keeps the size."""
    if kernel % 2 == 0:
        raise ArchitectureError(f"padding 'same' needs an odd kernel, and it has {kernel}")
    return kernel // 2


@dataclass(frozen=True)
class _Convolution(Layer):
    """What plain and separable convolutions share: their settings, their shapes and their words."""

    role = "convolution"

    filters: int = count()
    kernel: int = count(3)
    stride: int = count(1)
    padding: str = one_of("valid", "same", default="valid")
    activation: str = activation_setting()
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
        return (self.filters, *slide(image_of(shape)[1:], self.kernel, self.stride, self.pad))

    def words(self) -> str:
        """Name, filters, kernel, and what differs from the plainest case."""
        words = [type(self).__name__, str(self.filters), f"{self.kernel}×{self.kernel}"]
        words += [f"/{self.stride}"] * (self.stride > 1) + ["same"] * (self.padding == "same")
        words += ["bn"] * self.batch_norm + [self.activation] * (self.activation != "linear")
        return " ".join(words)

    def _after(self) -> dict[str, nn.Module]:
        """What follows the convolution: normalisation if asked for, then the activation."""
        from torch import nn

        norm: dict[str, nn.Module] = {"bn": nn.BatchNorm2d(self.maps)} if self.batch_norm else {}
        return norm | activation_part(self.activation)


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

    def module(self, shape: Shape) -> nn.Module:
        """Convolution, normalisation, activation."""
        from torch import nn

        from nas.architecture.modules import named

        how: dict[str, Any] = {"stride": self.stride, "padding": self.pad, "bias": not self.batch_norm}
        return named(conv=nn.Conv2d(shape[0], self.maps, self.kernel, **how), **self._after())


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

    def module(self, shape: Shape) -> nn.Module:
        """The two convolutions, normalisation, activation."""
        from torch import nn

        from nas.architecture.modules import named

        channels, size = shape[0], self.kernel
        how: dict[str, Any] = {"stride": self.stride, "padding": self.pad, "groups": channels, "bias": False}
        depth = nn.Conv2d(channels, channels, size, **how)
        point = nn.Conv2d(channels, self.maps, 1, bias=not self.batch_norm)
        return named(depthwise=depth, pointwise=point, **self._after())


@dataclass(frozen=True)
class ResidualBlock(Layer):
    """Two normalised convolutions whose result is added to the block's input (He et al., ResNet, 2016).

    The first convolution has the stride; where stride or channels change the shape, a normalised 1×1
    convolution stands in for the identity. Padding is ``same``; no bias anywhere.
    """

    role = "convolution"
    mark = '<path d="M-44 0 C-44 -52 44 -52 44 0" fill="none" stroke="#333" stroke-width="1.5"/>'  # the shortcut

    filters: int = count()
    kernel: int = count(3)
    stride: int = count(1)
    activation: str = activation_setting(maxout=False, default="relu")

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

    def module(self, shape: Shape) -> nn.Module:
        """The block."""
        from nas.architecture.modules import Residual, named

        same_padding(self.kernel)
        activation = activation_module(self.activation)
        return named(residual=Residual(shape[0], self.filters, self.kernel, activation, stride=self.stride))

    def words(self) -> str:
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

    role = "convolution"
    mark = "".join(f'<circle cx="{x}" cy="0" r="2.5" fill="#fff"/>' for x in (-12, -4, 4, 12))  # its nodes

    operations: tuple[str, ...] = setting(
        lambda v: type(v) is tuple and len(v) == 6 and all(type(name) is str and name in OPERATIONS for name in v),
        f"six of {', '.join(OPERATIONS)}: into the second node, into the third (from the first, from the second), "
        "into the fourth",
    )

    def _convolutions(self, shape: Shape) -> list[Conv2d]:
        kernels = [3 if name == "nor_conv_3x3" else 1 for name in self.operations if name.startswith("nor_conv")]
        return [Conv2d(channels_of(shape), kernel, padding="same", batch_norm=True) for kernel in kernels]

    def output_shape(self, shape: Shape) -> Shape:
        """Unchanged."""
        return image_of(shape)

    def parameters(self, shape: Shape) -> int:
        """Those of its convolutions."""
        return sum(layer.parameters(shape) for layer in self._convolutions(shape))

    def flops(self, shape: Shape) -> int:
        """Those of its convolutions."""
        return sum(layer.flops(shape) for layer in self._convolutions(shape))

    def module(self, shape: Shape) -> nn.Module:
        """The cell."""
        from nas.architecture.modules import CellGraph, named

        return named(cell=CellGraph(shape[0], self.operations))

    def words(self) -> str:
        """Name and operations, node by node."""
        first, *rest = (OPERATIONS[name] for name in self.operations)
        return f"Cell {first} | {' '.join(rest[:2])} | {' '.join(rest[2:])}"
