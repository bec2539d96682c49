"""Recurrent layers, which read a sequence (channels, time) step by step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nas.architecture.layer import Layer, Shape, count, sequence_of, setting
from nas.architecture.lazy import modules, nn, sequence_modules


@dataclass(frozen=True)
class _Recurrent(Layer):
    """What both kinds share: all but the number of their linear maps."""

    gates: ClassVar[int]  # the linear maps of the input, and of the last output, for each unit

    units: int = count()
    directions: int = setting(lambda v: type(v) is int and v in (1, 2), "1 or 2", 1)

    @property
    def is_causal(self) -> bool:
        return self.directions == 1

    def output_shape(self, shape: Shape) -> Shape:
        return (self.directions * self.units, sequence_of(shape)[1])

    def parameters(self, shape: Shape) -> int:
        # PyTorch has two biases for each map.
        return self.directions * self.gates * self.units * (shape[0] + self.units + 2)

    def flops(self, shape: Shape) -> int:
        # Of the matrix products. On a CPU, torch.utils.flop_counter misses those of an LSTM; on "meta" not.
        channels, steps = sequence_of(shape)
        return 2 * steps * self.directions * self.gates * self.units * (channels + self.units)

    def module(self, shape: Shape) -> nn.Module:
        kind = getattr(nn, type(self).__name__)
        layer = sequence_modules.Recurrent(kind, shape[0], self.units, directions=self.directions)
        return modules.named(**{type(self).__name__.lower(): layer})

    def words(self) -> str:
        return f"{type(self).__name__} {self.units}" + " both directions" * (self.directions == 2)


@dataclass(frozen=True)
class GRU(_Recurrent):
    """Gated recurrent units (Cho et al., 2014): their outputs after each step.

    With two directions, as many units read each series from its end, and follow the others as channels.
    """

    gates = 3


@dataclass(frozen=True)
class LSTM(_Recurrent):
    """Long short-term memory (Hochreiter and Schmidhuber, 1997): its outputs after each step.

    With two directions, as many units read each series from its end, and follow the others as channels.
    """

    gates = 4
