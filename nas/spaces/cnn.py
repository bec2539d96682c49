"""The default space: stages of blocks, each at half the resolution of the one before."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from nas.architecture.architecture import Architecture
from nas.architecture.layer import Layer
from nas.architecture.layers.convolution import Conv2d, ResidualBlock, SeparableConv2d
from nas.architecture.layers.dense import Dense, Dropout
from nas.architecture.layers.pooling import AveragePool, Flatten, GlobalAveragePool, MaxPool
from nas.spaces.fit import MNIST_FLOPS, Fit
from nas.spaces.recipe import ask_recipe
from nas.spaces.space import Choose, SearchSpace

POOLS = {"max": MaxPool, "average": AveragePool}


class Cnn(SearchSpace):
    """Blocks (plain, separable, residual, or none) in up to four stages; widths, pooling and head vary, too.

    Args:
        max_flops: the operations that a network may need for an image. Above 5,000,000, the networks are wider and
            deeper, and always normalised.
        recipe: whether the learning rate, the weight decay, the label smoothing and the augmentation vary, too.
    """

    adapts = True
    max_flops = MNIST_FLOPS

    def __init__(self, max_flops: Annotated[int, Field(ge=1)] | None = None, recipe: bool = False) -> None:
        self.max_flops, self.recipe = max_flops or self.max_flops, recipe

    def build(self, choose: Choose) -> Architecture:
        """A first convolution, then up to three blocks a stage, then the head.

        Layers at the full resolution take most of the time, so they are few, narrow and plain. (A separable
        convolution saves 5/6 of the operations there but, on a CPU, only 1/4 of the time: docs/decisions/0001.)
        Large images are halved by the first convolutions already.
        """
        if self.recipe:
            ask_recipe(choose)
        fit = Fit.of(self.limits)
        return self._cheap(choose, fit) if fit.is_cheap else self._dear(choose, fit)

    def _cheap(self, choose: Choose, fit: Fit) -> Architecture:
        activation = choose.suggest_categorical("activation", ["relu", "leaky_relu", "elu", "silu"])
        batch_norm = choose.suggest_categorical("batch_norm", [True, False])
        padding = choose.suggest_categorical("padding", ["same", "valid"])  # of plain and separable blocks
        style = {"padding": padding, "activation": activation, "batch_norm": batch_norm}
        filters = choose.suggest_categorical("stem/filters", fit.widths(8, 12, 16, 24))
        layers = self._stem(filters, choose.suggest_categorical("stem/kernel", [3, 5]), fit, style)
        if choose.suggest_categorical("stage1/block", [True, False]):
            layers.append(Conv2d(choose.suggest_categorical("stage1/filters", fit.widths(8, 12, 16)), 3, **style))
        for name, widths in list({"stage2": (16, 24, 32), "stage3": (24, 32, 48, 64)}.items())[: fit.stages - 1]:
            layers.append(POOLS[choose.suggest_categorical(f"{name}/pool", ["max", "average"])](2))
            blocks = choose.suggest_int(f"{name}/blocks", 0, 2)
            if blocks:
                kind = choose.suggest_categorical(f"{name}/kind", ["plain", "separable", "residual"])
                filters = choose.suggest_categorical(f"{name}/filters", fit.widths(*widths))
                layers += [self._block(choose, name, kind, filters, style)] * blocks
        return Architecture((*layers, *self._head(choose, activation)))

    def _dear(self, choose: Choose, fit: Fit) -> Architecture:
        """Of what is possible in `_cheap`, mostly what good networks of this size have.

        A search of these trains few candidates. Without normalisation they hardly learn, two poolings with nothing
        in between are wasted, and separable blocks are slow on a CPU. In so short trainings a block at the full
        resolution, a hidden dense layer and dropout 0.5 cost accuracy (docs/decisions/0012-the-plan.md).
        """
        activation = choose.suggest_categorical("activation", ["relu", "silu"])
        style = {"padding": "same", "activation": activation, "batch_norm": True}
        filters = choose.suggest_categorical("stem/filters", fit.widths(16, 24, 32))
        kernel = choose.suggest_categorical("stem/kernel", [3, 5]) if fit.halvings else 3
        layers = self._stem(filters, kernel, fit, style)
        if fit.stages == 1:  # so small an image is never halved
            layers += [Conv2d(filters, 3, **style)] * choose.suggest_int("stage1/blocks", 1, 3)
        stages = {"stage2": (32, 48, 64), "stage3": (64, 96, 128), "stage4": (96, 128, 192)}
        for stage, (name, widths) in enumerate(list(stages.items())[: fit.stages - 1], 2):
            layers.append(MaxPool(2))
            most = max(1, 3 - (fit.stages - stage))  # three in the last stage, where blocks cost least
            blocks = choose.suggest_int(f"{name}/blocks", 1, most)
            kind = choose.suggest_categorical(f"{name}/kind", ["plain", "residual"])
            filters = choose.suggest_categorical(f"{name}/filters", fit.widths(*widths))
            layers += [self._block(choose, name, kind, filters, style)] * blocks
        layers += self._pool(choose)
        dropout = choose.suggest_categorical("head/dropout", [0.0, 0.1, 0.25])
        return Architecture((*layers, Dropout(dropout)) if dropout else tuple(layers))

    @staticmethod
    def _stem(filters: int, kernel: int, fit: Fit, style: dict[str, Any]) -> list[Layer]:
        if not fit.halvings:
            return [Conv2d(filters, kernel, **style)]
        widths = [max(8, filters // 2**later) for later in reversed(range(fit.halvings))]  # narrow on large maps
        return [Conv2d(width, 3 if number else kernel, 2, **style) for number, width in enumerate(widths)]

    @staticmethod
    def _block(choose: Choose, stage: str, kind: str, filters: int, style: dict[str, Any]) -> Layer:
        if kind == "plain":
            return Conv2d(filters, 3, **style)
        if kind == "residual":
            return ResidualBlock(filters, 3, activation=style["activation"])
        return SeparableConv2d(filters, choose.suggest_categorical(f"{stage}/kernel", [3, 5]), **style)

    @staticmethod
    def _head(choose: Choose, activation: str) -> list[Layer]:
        layers = Cnn._pool(choose)
        units = choose.suggest_categorical("head/dense", [0, 32, 64])
        if units:
            layers.append(Dense(units, activation))
        dropout = choose.suggest_categorical("head/dropout", [0.0, 0.1, 0.25, 0.5])
        if dropout:
            layers.append(Dropout(dropout))
        return layers

    @staticmethod
    def _pool(choose: Choose) -> list[Layer]:
        pool = choose.suggest_categorical("head/pool", ["global", "max+flatten", "flatten"])
        layers: list[Layer] = [GlobalAveragePool()] if pool == "global" else [Flatten()]
        return [MaxPool(2), *layers] if pool == "max+flatten" else layers
