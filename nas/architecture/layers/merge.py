"""Layers that merge the outputs of several earlier ones: with them a network is a graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nas.architecture.layer import Merge, Plain, Shape, show
from nas.errors import ArchitectureError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Add(Plain, Merge):
    """The sum of its inputs, which must have one shape (He et al., ResNet, 2016)."""

    def output_shape(self, *shapes: Shape) -> Shape:
        """That of every input."""
        if len(set(shapes)) > 1:
            found = " and ".join(dict.fromkeys(map(show, shapes)))
            raise ArchitectureError(f"it adds inputs of one shape, and gets {found}; project them, or concatenate")
        return shapes[0]

    def module(self, *shapes: Shape) -> nn.Module:
        """The sum."""
        from nas.architecture.modules import Add as Module

        return Module()


@dataclass(frozen=True)
class Concatenate(Plain, Merge):
    """Its inputs one behind the other along the channels, or features (Huang et al., DenseNet, 2017)."""

    def output_shape(self, *shapes: Shape) -> Shape:
        """All channels, or features; the sizes of every input."""
        if len({shape[1:] for shape in shapes}) > 1:
            found = " and ".join(dict.fromkeys(map(show, shapes)))
            raise ArchitectureError(f"it concatenates maps of the same sizes, and gets {found}; pool the larger")
        return (sum(shape[0] for shape in shapes), *shapes[0][1:])

    def module(self, *shapes: Shape) -> nn.Module:
        """The concatenation."""
        from nas.architecture.modules import Concatenate as Module

        return Module()
