"""Layers that make maps smaller, or turn them into vectors; for images and sequences."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nas.architecture.layer import Plain, Shape, Steps, channels_of, count, sequence_of
from nas.architecture.layers.convolution import slide
from nas.architecture.lazy import modules, nn, sequence_modules


@dataclass(frozen=True)
class _Pool(Plain):
    role = "pooling"

    size: int = count(2)

    def output_shape(self, shape: Shape) -> Shape:
        # The windows do not overlap; a remainder at the edge is left out.
        return (channels_of(shape), *slide(shape[1:], self.size, self.size))

    def filled(self, length: Steps, shape: Shape) -> Steps:
        return length // self.size  # 0, which is taken as 1: a shorter series has one window

    def words(self) -> str:
        return f"{type(self).__name__} {self.size}"


@dataclass(frozen=True)
class MaxPool(_Pool):
    """The largest value of each window."""

    def module(self, shape: Shape) -> nn.Module:
        return modules.named(
            max_pool=modules.by_rank(shape, sequence_modules.MaskedMaxPool1d, nn.MaxPool2d)(self.size)
        )


@dataclass(frozen=True)
class AveragePool(_Pool):
    """The mean of each window."""

    def module(self, shape: Shape) -> nn.Module:
        return modules.named(
            average_pool=modules.by_rank(shape, sequence_modules.MaskedAvgPool1d, nn.AvgPool2d)(self.size)
        )


@dataclass(frozen=True)
class GlobalAveragePool(Plain):
    """The mean of each channel: a map becomes a vector (Lin et al., Network in Network, 2014)."""

    role = "pooling"

    def output_shape(self, shape: Shape) -> Shape:
        return (channels_of(shape),)

    def module(self, shape: Shape) -> nn.Module:
        pool = modules.by_rank(shape, sequence_modules.MaskedAdaptiveAvgPool1d, nn.AdaptiveAvgPool2d)
        return modules.named(global_average_pool=pool(1), flatten=nn.Flatten())


@dataclass(frozen=True)
class GlobalMaxPool(Plain):
    """The largest value of each channel: a map becomes a vector (Oquab et al., 2015)."""

    role = "pooling"

    def output_shape(self, shape: Shape) -> Shape:
        return (channels_of(shape),)

    def module(self, shape: Shape) -> nn.Module:
        return modules.named(global_max_pool=sequence_modules.GlobalMax())


@dataclass(frozen=True)
class TakeLast(Plain):
    """The last step of each series: (channels, time) becomes (channels,). It often follows a recurrent layer."""

    role = "pooling"

    def output_shape(self, shape: Shape) -> Shape:
        return (sequence_of(shape)[0],)

    def module(self, shape: Shape) -> nn.Module:
        return modules.named(take_last=sequence_modules.TakeLast())


@dataclass(frozen=True)
class Flatten(Plain):
    """All values of a map as one vector."""

    role = "pooling"

    def output_shape(self, shape: Shape) -> Shape:
        return (math.prod(shape),)

    def module(self, shape: Shape) -> nn.Module:
        return modules.named(flatten=nn.Flatten())
