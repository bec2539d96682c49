"""Networks that somebody designed, in this project's own vocabulary."""

from __future__ import annotations

from nas.architecture.architecture import Architecture, Limits
from nas.architecture.layers import AveragePool, Conv2d, Dense, Dropout, Flatten, MaxPool

LECTURE = Architecture(
    (
        Conv2d(32, 3, activation="relu"), MaxPool(2),
        Conv2d(64, 3, activation="relu"), MaxPool(2), Flatten(), Dropout(0.5),
    )
)  # fmt: skip
"""The lecture's network: 34,826 parameters on MNIST (it is also Keras's simple MNIST example)."""

LENET5 = Architecture(
    (
        Conv2d(6, 5, padding="same", activation="tanh"), AveragePool(2),
        Conv2d(16, 5, activation="tanh"), AveragePool(2),
        Conv2d(120, 5, activation="tanh"), Flatten(), Dense(84, "tanh"),
    )
)  # fmt: skip
"""LeNet-5 (LeCun et al., Gradient-based learning applied to document recognition, 1998): 61,706 parameters on
MNIST. As usual today, the second convolution sees all maps, pooling learns nothing, and the output is linear."""


def lecture_parameters(limits: Limits) -> int | None:
    """How many parameters the lecture's network has on such images, to compare with; None if it does not fit."""
    fits = Limits(limits.input_shape, limits.classes).allow(LECTURE)
    return LECTURE.parameters(limits.input_shape, limits.classes) if fits else None


KNOWN = {"lecture": LECTURE, "lenet5": LENET5}
