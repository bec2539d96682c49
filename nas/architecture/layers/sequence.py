"""Convolutions, and blocks of them, for sequences (channels, time)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nas.architecture.layer import (
    Layer,
    Shape,
    Steps,
    channels_of,
    count,
    one_of,
    sequence_of,
    setting,
    show,
)
from nas.architecture.layers.activation import activation_module, activation_part, activation_setting
from nas.architecture.layers.convolution import Block, Convolution, ResidualBlock, same_padding
from nas.architecture.lazy import modules, nn, sequence_modules
from nas.errors import ArchitectureError


def _is_odd(value: Any) -> bool:
    return type(value) is int and 1 <= value <= 65_535 and value % 2 == 1


@dataclass(frozen=True)
class _Convolution1d(Convolution):
    """What plain and separable convolutions of sequences share.

    A kernel with dilation d takes every d-th step. With padding ``same`` the zeros stand on both sides, with
    ``causal`` before the first step: then no step sees a later one.
    """

    padding: str = one_of("valid", "same", "causal", default="valid")
    dilation: int = count(1)

    @property
    def window(self) -> int:
        """The steps from the first that the kernel takes to the last."""
        return self.dilation * (self.kernel - 1) + 1

    @property
    def pad(self) -> int:
        """The number of zeros on each side; those of causal padding are added by its module."""
        return self.dilation * same_padding(self.kernel) if self.padding == "same" else 0

    def filled(self, length: Steps, shape: Shape) -> Steps:
        pads = self.window - 1 if self.padding == "causal" else 2 * self.pad
        return (length + pads - self.window) // self.stride + 1

    @property
    def is_causal(self) -> bool:
        return self.stride == 1 and (self.padding == "causal" or self.kernel == 1)

    def output_shape(self, shape: Shape) -> Shape:
        steps = self.filled(sequence_of(shape)[1], shape)
        if steps < 1:
            window = f"its window of {self.window} steps is larger than the sequence of {show(shape)}"
            raise ArchitectureError(f"{window}: choose a smaller kernel or dilation, or padding 'same'")
        return (self.filters, steps)

    def words(self) -> str:
        words = [type(self).__name__, str(self.filters), f"kernel {self.kernel}"]
        words += [f"/{self.stride}"] * (self.stride > 1) + [self.padding] * (self.padding != "valid")
        words += [f"dilation {self.dilation}"] * (self.dilation > 1) + ["bn"] * self.batch_norm
        return " ".join(words + [self.activation] * (self.activation != "linear"))

    def _convolution(self, channels: int, maps: int, **options: Any) -> nn.Conv1d:
        """The convolution that moves over the steps."""
        options |= {"stride": self.stride, "padding": self.pad, "dilation": self.dilation}
        kind = sequence_modules.CausalConv1d if self.padding == "causal" else nn.Conv1d
        return kind(channels, maps, self.kernel, **options)

    def _after(self) -> dict[str, nn.Module]:
        norm: dict[str, nn.Module] = {}
        if self.batch_norm:
            norm["bn"] = sequence_modules.MaskedBatchNorm1d(self.maps)
        return norm | activation_part(self.activation)


@dataclass(frozen=True)
class Conv1d(_Convolution1d):
    """A convolution of a sequence, then batch normalisation if it is on, then the activation.

    With batch normalisation the convolution has no bias, which the normalisation would cancel. Padding ``causal``
    and a dilation that doubles from layer to layer are those of WaveNet (van den Oord et al., 2016).
    """

    def weights(self, channels: int) -> int:
        return self.kernel * channels * self.maps

    def module(self, shape: Shape) -> nn.Module:
        conv = self._convolution(shape[0], self.maps, bias=not self.batch_norm)
        return modules.named(conv=conv, **self._after())


@dataclass(frozen=True)
class SeparableConv1d(_Convolution1d):
    """A depthwise convolution of a sequence, then a 1×1 convolution (Chollet, Xception, 2017).

    As there, nothing stands between the two; batch normalisation and the activation follow the second.
    """

    def weights(self, channels: int) -> int:
        return self.kernel * channels + channels * self.maps

    def module(self, shape: Shape) -> nn.Module:
        depthwise = self._convolution(shape[0], shape[0], groups=shape[0], bias=False)
        pointwise = nn.Conv1d(shape[0], self.maps, 1, bias=not self.batch_norm)
        return modules.named(depthwise=depthwise, pointwise=pointwise, **self._after())


@dataclass(frozen=True)
class ResidualBlock1d(Block):
    """Normalised convolutions, whose result is added to the block's input (Wang, Yan and Oates, 2017).

    There is a convolution for each kernel; in the paper they are 8, 5 and 3, here they are odd. The first one has
    the stride. Where the stride or the channels change the shape, the input is projected by a normalised 1×1
    convolution; otherwise it is added as it is. Padding is ``same``, and no convolution has a bias.
    """

    mark = ResidualBlock.mark  # the shortcut

    filters: int = count()
    kernels: tuple[int, ...] = setting(
        lambda v: type(v) is tuple and 1 <= len(v) <= 8 and all(map(_is_odd, v)),
        "a list of one to eight odd numbers from 1 to 65535",
        (7, 5, 3),
    )
    stride: int = count(1)
    dilation: int = count(1)
    activation: str = activation_setting(maxout=False, default="relu")

    def convolutions(self, shape: Shape) -> list[tuple[Layer, Shape]]:
        found: list[tuple[Layer, Shape]] = []
        at, stride = shape, self.stride
        for kernel in self.kernels:
            layer = Conv1d(self.filters, kernel, stride, "same", batch_norm=True, dilation=self.dilation)
            found.append((layer, at))
            at, stride = layer.output_shape(at), 1
        if self.stride > 1 or channels_of(shape) != self.filters:
            found.append((Conv1d(self.filters, 1, self.stride, batch_norm=True), shape))
        return found

    def filled(self, length: Steps, shape: Shape) -> Steps:
        return (length - 1) // self.stride + 1

    def output_shape(self, shape: Shape) -> Shape:
        return (self.filters, self.filled(sequence_of(shape)[1], shape))

    def module(self, shape: Shape) -> nn.Module:
        activation = activation_module(self.activation)
        options = {"stride": self.stride, "dilation": self.dilation}
        block = sequence_modules.Residual1d(shape[0], self.filters, self.kernels, activation, **options)
        return modules.named(residual=block)

    def words(self) -> str:
        words = ["ResidualBlock1d", str(self.filters), "kernels " + "-".join(map(str, self.kernels))]
        words += [f"/{self.stride}"] * (self.stride > 1) + [f"dilation {self.dilation}"] * (self.dilation > 1)
        return " ".join([*words, self.activation])


@dataclass(frozen=True)
class InceptionBlock(Block):
    """The module of InceptionTime (Ismail Fawaz et al., 2020): its output has four times ``filters`` channels.

    A 1×1 convolution to ``bottleneck`` channels; then, side by side, three convolutions with the kernel, its half
    and its quarter; beside them max pooling over 3 steps with a 1×1 convolution. Batch normalisation and ReLU
    follow. Padding is ``same``: a kernel may be longer than the series. A sequence of one channel has no
    bottleneck. The paper has kernels of 40, 20 and 10; here they are odd. Its shortcut is made with `Add`.
    """

    filters: int = count(32)
    kernel: int = setting(_is_odd, "an odd number from 1 to 65535", 39)
    bottleneck: int = count(32)

    @property
    def kernels(self) -> tuple[int, ...]:
        """The kernel, its half and its quarter, as odd numbers."""
        return tuple(self.kernel // part | 1 for part in (1, 2, 4))

    def _bottleneck(self, shape: Shape) -> int:
        return self.bottleneck if channels_of(shape) > 1 else 0

    def convolutions(self, shape: Shape) -> list[tuple[Layer, Shape]]:
        narrow = self._bottleneck(shape)
        inside = (narrow or shape[0], *shape[1:])
        found: list[tuple[Layer, Shape]] = [
            (Conv1d(self.filters, kernel, padding="same", batch_norm=True), inside) for kernel in self.kernels
        ]
        return [*found, (Conv1d(self.filters, 1, batch_norm=True), shape)]

    def parameters(self, shape: Shape) -> int:
        return super().parameters(shape) + channels_of(shape) * self._bottleneck(shape)

    def flops(self, shape: Shape) -> int:
        return super().flops(shape) + 2 * channels_of(shape) * self._bottleneck(shape) * shape[1]

    def output_shape(self, shape: Shape) -> Shape:
        return (4 * self.filters, sequence_of(shape)[1])

    def module(self, shape: Shape) -> nn.Module:
        narrow = self._bottleneck(shape)
        return modules.named(inception=sequence_modules.Inception(shape[0], self.filters, self.kernels, narrow))

    def words(self) -> str:
        return f"InceptionBlock {self.filters} kernel {self.kernel} bottleneck {self.bottleneck}"
