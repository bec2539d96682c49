"""Layers that make maps smaller, or turn them into vectors; for images and sequences."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nas.architecture.layer import Plain, Shape, channels_of, count
from nas.architecture.layers.convolution import slide
from nas.architecture.lazy import modules, nn


@dataclass(frozen=True)
class _Pool(Plain):
    role = "pooling"

    size: int = count(2)

    def output_shape(self, shape: Shape) -> Shape:
        # The windows do not overlap; a remainder at the edge is left out.
        return (channels_of(shape), *slide(shape[1:], self.size, self.size))

    def words(self) -> str:
        return f"{type(self).__name__} {self.size}"


@dataclass(frozen=True)
class MaxPool(_Pool):
    """The largest value of each window."""

    def module(self, shape: Shape) -> nn.Module:
        return modules.named(max_pool=modules.by_rank(shape, nn.MaxPool1d, nn.MaxPool2d)(self.size))


@dataclass(frozen=True)
class AveragePool(_Pool):
    """The mean of each window."""

    def module(self, shape: Shape) -> nn.Module:
        return modules.named(average_pool=modules.by_rank(shape, nn.AvgPool1d, nn.AvgPool2d)(self.size))


@dataclass(frozen=True)
class GlobalAveragePool(Plain):
    """The mean of each channel: a map becomes a vector (Lin et al., Network in Network, 2014)."""

    role = "pooling"

    def output_shape(self, shape: Shape) -> Shape:
        return (channels_of(shape),)

    def module(self, shape: Shape) -> nn.Module:
        pool = modules.by_rank(shape, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d)
        return modules.named(global_average_pool=pool(1), flatten=nn.Flatten())


@dataclass(frozen=True)
class Flatten(Plain):
    """All values of a map as one vector."""

    role = "pooling"

    def output_shape(self, shape: Shape) -> Shape:
        return (math.prod(shape),)

    def module(self, shape: Shape) -> nn.Module:
        return modules.named(flatten=nn.Flatten())
