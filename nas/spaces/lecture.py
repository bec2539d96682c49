"""The layers of the lecture: sequential networks of the layers and activations that it names, and no others."""

from __future__ import annotations

from nas.architecture.architecture import Architecture
from nas.architecture.layers import AveragePool, Conv2d, Dense, Dropout, Flatten, Layer, MaxPool
from nas.spaces.space import Choose, SearchSpace


class Lecture(SearchSpace):
    """One to three convolutions with pooling, then dropout and dense layers, with the lecture's activations."""

    # For one image. The lecture's network needs 4,881,920; larger networks train too slowly on a CPU.
    max_flops = 5_000_000

    def build(self, choose: Choose) -> Architecture:
        """Convolutions without padding, as in the lecture's network, which is one point of this space."""
        layers: list[Layer] = []
        activations = ["relu", "leaky_relu", "elu", "maxout", "tanh", "sigmoid"]
        activation = choose.suggest_categorical("activation", activations)
        for i in range(choose.suggest_int("convolutions", 1, 3)):
            filters = choose.suggest_categorical(f"conv{i}/filters", [8, 16, 32, 64])
            kernel = choose.suggest_categorical(f"conv{i}/kernel", [3, 5])
            layers.append(Conv2d(filters, kernel, activation=activation))
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
