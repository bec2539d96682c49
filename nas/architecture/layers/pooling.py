"""Layers that make maps smaller, or vectors of them; images and sequences alike."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nas.architecture.layer import Plain, Shape, channels_of, count
from nas.architecture.layers.convolution import slide

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class _Pool(Plain):
    role = "pooling"

    size: int = count(2)

    def output_shape(self, shape: Shape) -> Shape:
        """As many channels; windows side by side, a remainder at the edge is left out."""
        return (channels_of(shape), *slide(shape[1:], self.size, self.size))

    def words(self) -> str:
        """Name and window."""
        return f"{type(self).__name__} {self.size}"


@dataclass(frozen=True)
class MaxPool(_Pool):
    """The largest value of each window."""

    def module(self, shape: Shape) -> nn.Module:
        """The pooling for a map with one or two sizes."""
        from torch import nn

        from nas.architecture.modules import by_rank, named

        return named(max_pool=by_rank(shape, nn.MaxPool1d, nn.MaxPool2d)(self.size))


@dataclass(frozen=True)
class AveragePool(_Pool):
    """The mean of each window."""

    def module(self, shape: Shape) -> nn.Module:
        """The pooling for a map with one or two sizes."""
        from torch import nn

        from nas.architecture.modules import by_rank, named

        return named(average_pool=by_rank(shape, nn.AvgPool1d, nn.AvgPool2d)(self.size))


@dataclass(frozen=True)
class GlobalAveragePool(Plain):
    """The mean of each channel: a map becomes a vector (Lin et al., Network in Network, 2014)."""

    role = "pooling"

    def output_shape(self, shape: Shape) -> Shape:
        """One feature a channel."""
        return (channels_of(shape),)

    def module(self, shape: Shape) -> nn.Module:
        """The mean, for a map with one or two sizes, and a flattening."""
        from torch import nn

        from nas.architecture.modules import by_rank, named

        pool = by_rank(shape, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d)
        return named(global_average_pool=pool(1), flatten=nn.Flatten())


@dataclass(frozen=True)
class Flatten(Plain):
    """A map becomes a vector, nothing is lost."""

    role = "pooling"

    def output_shape(self, shape: Shape) -> Shape:
        """The product of all sizes."""
        return (math.prod(shape),)

    def module(self, shape: Shape) -> nn.Module:
        """The flattening."""
        from torch import nn

        from nas.architecture.modules import named

        return named(flatten=nn.Flatten())
