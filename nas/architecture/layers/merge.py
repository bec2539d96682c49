"""Layers that merge the outputs of several earlier ones: with them a network is a graph."""

from __future__ import annotations

from dataclasses import dataclass

from nas.architecture.layer import Merge, Plain, Shape, show
from nas.architecture.lazy import modules, nn
from nas.errors import ArchitectureError


@dataclass(frozen=True)
class Add(Plain, Merge):
    """The sum of its inputs, which must have the same shape (He et al., ResNet, 2016)."""

    is_symmetric = True

    @property
    def is_causal(self) -> bool:
        return True

    def output_shape(self, *shapes: Shape) -> Shape:
        if len(set(shapes)) > 1:
            given = " and ".join(dict.fromkeys(map(show, shapes)))
            raise ArchitectureError(f"it adds inputs of one shape, and gets {given}; project them, or concatenate")
        return shapes[0]

    def module(self, *shapes: Shape) -> nn.Module:
        return modules.Add()


@dataclass(frozen=True)
class Concatenate(Plain, Merge):
    """Its inputs joined along their channels or features (Huang et al., DenseNet, 2017)."""

    @property
    def is_causal(self) -> bool:
        return True

    def output_shape(self, *shapes: Shape) -> Shape:
        if len({shape[1:] for shape in shapes}) > 1:
            given = " and ".join(dict.fromkeys(map(show, shapes)))
            raise ArchitectureError(f"it concatenates maps of the same sizes, and gets {given}; pool the larger")
        return (sum(shape[0] for shape in shapes), *shapes[0][1:])

    def module(self, *shapes: Shape) -> nn.Module:
        return modules.Concatenate()
