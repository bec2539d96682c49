"""Well-known networks, built from the layers of this package.

The last three are scaled down for small images: they have fewer maps than in their papers, and batch normalisation
throughout, which only the residual network had in its paper.
"""

from __future__ import annotations

from nas.architecture.architecture import Architecture, Limits
from nas.architecture.layers.convolution import Conv2d, ResidualBlock
from nas.architecture.layers.dense import Dense, Dropout
from nas.architecture.layers.pooling import AveragePool, Flatten, GlobalAveragePool, MaxPool

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


MLP = Architecture((Flatten(), Dense(300, "tanh"), Dense(100, "tanh")))
"""A multi-layer perceptron, LeNet-300-100 (LeCun et al., 1998, as above): 266,610 parameters on MNIST."""


def _conv(filters: int, stride: int = 1, kernel: int = 3) -> Conv2d:
    return Conv2d(filters, kernel, stride, padding="same", activation="relu", batch_norm=True)


ALL_CNN = Architecture(
    (
        _conv(8), _conv(8), _conv(8, 2),
        _conv(16), _conv(16), _conv(16, 2),
        _conv(32), _conv(32, kernel=1), GlobalAveragePool(), Dropout(0.1),
    )
)  # fmt: skip
"""An all-convolutional network: strides in place of pooling, averages in place of dense layers (Springenberg et
al., Striving for simplicity, 2015)."""

SMALL_VGG = Architecture(
    (
        _conv(8), _conv(8), MaxPool(2),
        _conv(16), _conv(16), MaxPool(2),
        _conv(32), _conv(32), Flatten(), Dense(64, "relu"), Dropout(0.5),
    )
)  # fmt: skip
"""Pairs of 3×3 convolutions between pools, the width doubled after each (Simonyan and Zisserman, Very deep
convolutional networks, 2015)."""

SMALL_RESNET = Architecture(
    (_conv(8), ResidualBlock(8), ResidualBlock(16, stride=2), ResidualBlock(32, stride=2), GlobalAveragePool())
)
"""The residual network for small images with one block a stage, of eight layers (He et al., Deep residual
learning, 2016: that of CIFAR-10 with n = 1)."""


def lecture_parameters(limits: Limits) -> int | None:
    """The number of parameters of the lecture's network on such images; None if it does not fit them."""
    fits = Limits(limits.input_shape, limits.classes).allow(LECTURE)
    return LECTURE.parameters(limits.input_shape, limits.classes) if fits else None


KNOWN = {
    "lecture": LECTURE,
    "lenet5": LENET5,
    "mlp": MLP,
    "all-cnn": ALL_CNN,
    "small-vgg": SMALL_VGG,
    "small-resnet": SMALL_RESNET,
}
