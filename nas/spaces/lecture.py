"""The layers of the lecture: sequential networks of the layers and activations that it names, and no others."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from nas.architecture.architecture import Architecture
from nas.architecture.layers import AveragePool, Conv2d, Dense, Dropout, Flatten, Layer, MaxPool
from nas.spaces.fit import MNIST_FLOPS, Fit
from nas.spaces.recipe import ask_recipe
from nas.spaces.space import Choose, SearchSpace


class Lecture(SearchSpace):
    """One to three convolutions with pooling, then dropout and dense layers, with the lecture's activations.

    Args:
        max_flops: the operations that a network may need for an image.
        recipe: whether the learning rate, the weight decay, the label smoothing and the augmentation vary, too.
    """

    adapts = True
    max_flops = MNIST_FLOPS

    def __init__(self, max_flops: Annotated[int, Field(ge=1)] | None = None, recipe: bool = False) -> None:
        self.max_flops, self.recipe = max_flops or self.max_flops, recipe

    def build(self, choose: Choose) -> Architecture:
        """Convolutions without padding, as in the lecture's network, which is one point of this space.

        The first one has a stride where images are large.
        """
        if self.recipe:
            ask_recipe(choose)
        fit = Fit.of(self.limits)
        layers: list[Layer] = []
        activations = ["relu", "leaky_relu", "elu", "maxout", "tanh", "sigmoid"]
        activation = choose.suggest_categorical("activation", activations)
        for i in range(choose.suggest_int("convolutions", 1, 3)):
            filters = choose.suggest_categorical(f"conv{i}/filters", fit.widths(8, 16, 32, 64))
            kernel = choose.suggest_categorical(f"conv{i}/kernel", [3, 5])
            layers.append(Conv2d(filters, kernel, 1 if i else 2**fit.halvings, activation=activation))
            pool = choose.suggest_categorical(f"conv{i}/pool", ["max", "average", "none"])
            if pool != "none":
                layers.append(MaxPool(2) if pool == "max" else AveragePool(2))
        layers.append(Flatten())
        dropout = choose.suggest_categorical("dropout", [0.0, 0.25, 0.5])
        if dropout:
            layers.append(Dropout(dropout))
        units = choose.suggest_categorical("dense", [0, 32, 64, 128])
        if units:
            layers.append(Dense(units, activation))
        return Architecture(tuple(layers))
