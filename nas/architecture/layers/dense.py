"""Dense layers, and the two that regularise any layer: dropout and batch normalisation."""

from __future__ import annotations

from dataclasses import dataclass

from nas.architecture.layer import Layer, Plain, Shape, count, fraction, show
from nas.architecture.layers.activation import activation_part, activation_setting
from nas.architecture.lazy import modules, nn, sequence_modules
from nas.errors import ArchitectureError


@dataclass(frozen=True)
class Dense(Layer):
    """A linear map of a vector, then the activation."""

    role = "dense"

    units: int = count()
    activation: str = activation_setting()

    @property
    def maps(self) -> int:
        """The linear maps that are computed: maxout takes the maximum of two for each unit (Goodfellow, 2013)."""
        return 2 * self.units if self.activation == "maxout" else self.units

    def output_shape(self, shape: Shape) -> Shape:
        if len(shape) != 1:
            needs = f"a dense layer needs a vector, and gets a map of {show(shape)}"
            raise ArchitectureError(f"{needs}; put Flatten or GlobalAveragePool before it")
        return (self.units,)

    def parameters(self, shape: Shape) -> int:
        return (shape[0] + 1) * self.maps

    def flops(self, shape: Shape) -> int:
        return 2 * shape[0] * self.maps

    def module(self, shape: Shape) -> nn.Module:
        return modules.named(dense=nn.Linear(shape[0], self.maps), **activation_part(self.activation))

    def words(self) -> str:
        return f"Dense {self.units}" + (f" {self.activation}" if self.activation != "linear" else "")


@dataclass(frozen=True)
class Dropout(Plain):
    """Zeroes each value with probability ``rate`` while training (Srivastava et al., 2014)."""

    rate: float = fraction(0.5)

    @property
    def is_causal(self) -> bool:
        return True

    def output_shape(self, shape: Shape) -> Shape:
        return shape

    def module(self, shape: Shape) -> nn.Module:
        return modules.named(dropout=nn.Dropout(self.rate))

    def words(self) -> str:
        return f"Dropout {self.rate:g}"


@dataclass(frozen=True)
class BatchNorm(Layer):
    """Normalises each channel or feature over the batch (Ioffe and Szegedy, 2015)."""

    @property
    def is_causal(self) -> bool:
        return True

    def output_shape(self, shape: Shape) -> Shape:
        return shape

    def parameters(self, shape: Shape) -> int:
        return 2 * shape[0]  # a scale and a shift for each channel or feature

    def flops(self, shape: Shape) -> int:
        return 0

    def module(self, shape: Shape) -> nn.Module:
        kind = sequence_modules.MaskedBatchNorm1d if len(shape) == 2 else nn.BatchNorm1d
        return modules.named(bn=modules.by_rank(shape, kind, nn.BatchNorm2d)(shape[0]))
