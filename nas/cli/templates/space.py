"""A search space: which networks may be tried. `nas search --space my-plugin` finds it by this file's name."""

from __future__ import annotations

from nas.architecture.architecture import Architecture
from nas.architecture.layers import Conv2d, Dropout, GlobalAveragePool, Layer, MaxPool
from nas.spaces.space import Choose, SearchSpace


class MyPlugin(SearchSpace):
    """One to three convolutions, then pooling (`nas plugins list` shows this line)."""

    def build(self, choose: Choose) -> Architecture:
        """The network that the answers of `choose` describe."""
        # Each question has its own name and always the same choices. A question need not be asked every time.
        activation = choose.suggest_categorical("activation", ["relu", "elu", "silu"])
        layers: list[Layer] = []
        for i in range(choose.suggest_int("convolutions", 1, 3)):
            filters = choose.suggest_categorical(f"conv{i}/filters", [8, 16, 32])
            kernel = choose.suggest_categorical(f"conv{i}/kernel", [3, 5])
            layers.append(Conv2d(filters, kernel, activation=activation, batch_norm=True))
            # A network may be invalid for the images: then another one is drawn.
            if choose.suggest_categorical(f"conv{i}/pool", [True, False]):
                layers.append(MaxPool(2))
        layers.append(GlobalAveragePool())
        if dropout := choose.suggest_float("dropout", 0.0, 0.5, step=0.25):
            layers.append(Dropout(dropout))
        # The last layer, with one output for each class, is added automatically.
        return Architecture(tuple(layers))
