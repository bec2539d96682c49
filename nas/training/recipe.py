"""How a network is trained: everything that is not the network, the data or the seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from nas.errors import UsageError, unknown

Precision = Literal["float32", "tf32", "bfloat16"]


@dataclass(frozen=True)
class Recipe:
    """Optimiser, schedule, regularisation and batches of a training."""

    optimiser: Literal["adamw", "adam"] = "adamw"
    learning_rate: float = 1e-2  # the peak, of a one-cycle schedule
    fine_tuning: float = 0.1  # the fraction of it with which pretrained weights learn
    schedule: Literal["one-cycle", "constant"] = "one-cycle"
    warm_up: float = 0.25  # the fraction of all steps until the peak
    weight_decay: float = 1e-2  # of weights, not of biases and normalisation
    label_smoothing: float = 0.05
    shift: int = 2  # pixels: each image of a batch is moved by up to so many, both ways
    batch_size: int = 64
    precision: Precision = "float32"  # of convolutions and linear maps

    def rate(self, progress: float) -> float:
        """The learning rate after a fraction ``progress`` of all steps (Smith, Super-convergence, 2018)."""
        if self.schedule == "constant":
            return self.learning_rate
        return self.learning_rate * float(np.interp(progress, (0, self.warm_up, 1), (0.1, 1.0, 0.0)))


RECIPES: dict[str, Recipe] = {
    "default": Recipe(),
    # Keras's Adam, batches of 128, plain cross-entropy, images as they are.
    "lecture": Recipe(
        optimiser="adam",
        learning_rate=1e-3,
        schedule="constant",
        weight_decay=0.0,
        label_smoothing=0.0,
        shift=0,
        batch_size=128,
    ),
}


def recipe_named(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in RECIPES:
        raise UsageError(unknown("recipe", name, RECIPES))
    return RECIPES[name]
