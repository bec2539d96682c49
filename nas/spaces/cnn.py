"""The default space: three stages of blocks, each at half the resolution of the one before."""

from __future__ import annotations

from nas.architecture.architecture import Architecture
from nas.architecture.layers import (
    AveragePool,
    Conv2d,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePool,
    Layer,
    MaxPool,
    ResidualBlock,
    SeparableConv2d,
)
from nas.spaces.space import Choose, SearchSpace

CONVOLUTIONS = {"plain": Conv2d, "separable": SeparableConv2d}


class Cnn(SearchSpace):
    """Blocks (plain, separable, residual, or none) in three stages, with widths, pooling and head of choice."""

    def build(self, choose: Choose) -> Architecture:
        """A first convolution, then up to two blocks a stage, then the head.

        The full resolution is where arithmetic is dear, so its maps are narrow; a 5×5 kernel costs three times
        as much as a 3×3 one, except where it is separable.
        """
        activation = choose.suggest_categorical("activation", ["relu", "leaky_relu", "elu", "silu", "gelu"])
        batch_norm = choose.suggest_categorical("batch_norm", [True, False])
        padding = choose.suggest_categorical("padding", ["same", "valid"])  # of plain and separable blocks
        layers: list[Layer] = [
            Conv2d(
                choose.suggest_categorical("stem/filters", [8, 12, 16, 24]),
                choose.suggest_categorical("stem/kernel", [3, 5]),
                padding=padding,
                activation=activation,
                batch_norm=batch_norm,
            )
        ]
        for stage, widths in enumerate(([8, 12, 16], [16, 24, 32], [24, 32, 48, 64])):
            name = f"stage{stage + 1}"
            blocks = choose.suggest_int(f"{name}/blocks", 0, 1 if stage == 0 else 2)
            if blocks:
                kinds = ["plain", "separable"] if stage == 0 else ["plain", "separable", "residual"]
                kind = choose.suggest_categorical(f"{name}/kind", kinds)
                filters = choose.suggest_categorical(f"{name}/filters", widths)
                kernel = choose.suggest_categorical(f"{name}/kernel", [3, 5]) if kind == "separable" else 3
                layers += [
                    ResidualBlock(filters, kernel, activation=activation)
                    if kind == "residual"
                    else CONVOLUTIONS[kind](
                        filters, kernel, padding=padding, activation=activation, batch_norm=batch_norm
                    )
                ] * blocks
            if stage < 2:
                pool = choose.suggest_categorical(f"{name}/pool", ["max", "average"])
                layers.append(MaxPool(2) if pool == "max" else AveragePool(2))
        return Architecture((*layers, *self._head(choose, activation)))

    @staticmethod
    def _head(choose: Choose, activation: str) -> list[Layer]:
        pool = choose.suggest_categorical("head/pool", ["global", "max+flatten", "flatten"])
        layers: list[Layer] = [GlobalAveragePool()] if pool == "global" else [Flatten()]
        if pool == "max+flatten":
            layers.insert(0, MaxPool(2))
        units = choose.suggest_categorical("head/dense", [0, 32, 64])
        if units:
            layers.append(Dense(units, activation))
        dropout = choose.suggest_categorical("head/dropout", [0.0, 0.1, 0.25, 0.5])
        if dropout:
            layers.append(Dropout(dropout))
        return layers
