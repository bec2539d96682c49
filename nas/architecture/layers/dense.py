"""Linear maps of vectors, and what regularises any layer: dropout and batch normalisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nas.architecture.layer import Layer, Plain, Shape, count, fraction, show
from nas.architecture.layers.activation import activation_part, activation_setting
from nas.errors import ArchitectureError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Dense(Layer):
    """A linear map of a vector, then the activation."""

    role = "dense"

    units: int = count()
    activation: str = activation_setting()

    @property
    def maps(self) -> int:
        """Linear maps that are computed: maxout takes the maximum of two for every unit (Goodfellow, 2013)."""
        return 2 * self.units if self.activation == "maxout" else self.units

    def output_shape(self, shape: Shape) -> Shape:
        """The units."""
        if len(shape) != 1:
            raise ArchitectureError(
                f"a dense layer needs a vector, and gets a map of {show(shape)}; "
                "put Flatten or GlobalAveragePool before it"
            )
        return (self.units,)

    def parameters(self, shape: Shape) -> int:
        """A weight for every input and a bias, for every map."""
        return (shape[0] + 1) * self.maps

    def flops(self, shape: Shape) -> int:
        """Two for every weight."""
        return 2 * shape[0] * self.maps

    def module(self, shape: Shape) -> nn.Module:
        """The linear map and the activation."""
        from torch import nn

        from nas.architecture.modules import named

        return named(dense=nn.Linear(shape[0], self.maps), **activation_part(self.activation))

    def words(self) -> str:
        """Name, units and activation."""
        return f"Dense {self.units}" + (f" {self.activation}" if self.activation != "linear" else "")


@dataclass(frozen=True)
class Dropout(Plain):
    """Zeroes each value with probability ``rate`` while training (Srivastava et al., 2014)."""

    rate: float = fraction(0.5)

    def output_shape(self, shape: Shape) -> Shape:
        """Unchanged."""
        return shape

    def module(self, shape: Shape) -> nn.Module:
        """The dropout."""
        from torch import nn

        from nas.architecture.modules import named

        return named(dropout=nn.Dropout(self.rate))

    def words(self) -> str:
        """Name and rate."""
        return f"Dropout {self.rate:g}"


@dataclass(frozen=True)
class BatchNorm(Layer):
    """Normalises each channel or feature over the batch (Ioffe and Szegedy, 2015)."""

    def output_shape(self, shape: Shape) -> Shape:
        """Unchanged."""
        return shape

    def parameters(self, shape: Shape) -> int:
        """A scale and a shift for each channel or feature."""
        return 2 * shape[0]

    def flops(self, shape: Shape) -> int:
        """None: only convolutions and matrix products count."""
        return 0

    def module(self, shape: Shape) -> nn.Module:
        """The normalisation, for vectors and for maps."""
        from torch import nn

        from nas.architecture.modules import by_rank, named

        return named(bn=by_rank(shape, nn.BatchNorm1d, nn.BatchNorm2d)(shape[0]))
