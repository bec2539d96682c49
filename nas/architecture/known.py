"""Well-known networks, built from the layers of this package.

Those of `KNOWN` from `ALL_CNN` on are scaled down for small images: they have fewer maps than in their papers, and
batch normalisation throughout, which only the residual network had in its paper. Those of `PHOTOGRAPHS` can be
trained from scratch on a few thousand photographs of 32 to 96 pixels. Those of `SERIES` and `TEXTS` are as
large as in their papers, or, where there is no paper, small.
"""

from __future__ import annotations

from nas.architecture.architecture import Architecture, Limits
from nas.architecture.layer import Layer
from nas.architecture.layers.activation import Activation
from nas.architecture.layers.attention import Embedding, LayerNorm, Positions, TransformerBlock
from nas.architecture.layers.convolution import Conv2d, ResidualBlock, SeparableConv2d
from nas.architecture.layers.dense import Dense, Dropout
from nas.architecture.layers.merge import Add
from nas.architecture.layers.pooling import AveragePool, Flatten, GlobalAveragePool, MaxPool, TakeLast
from nas.architecture.layers.recurrent import GRU
from nas.architecture.layers.sequence import Conv1d, InceptionBlock, ResidualBlock1d

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


RESNET20 = Architecture(
    (
        _conv(16), *[ResidualBlock(16)] * 3, ResidualBlock(32, stride=2), *[ResidualBlock(32)] * 2,
        ResidualBlock(64, stride=2), *[ResidualBlock(64)] * 2, GlobalAveragePool(),
    )
)  # fmt: skip
"""ResNet-20 (He et al., Deep residual learning, 2016: that of CIFAR-10 with n = 3). Where the shape changes, the
shortcut is projected (option B in the paper), which has 2,752 parameters more than option A."""


def _with_shortcuts(stem: Layer, blocks: list[tuple[list[Layer], bool]]) -> Architecture:
    """A network of blocks, each of which is added to its input if it is marked."""
    layers = [stem]
    for block, is_added in blocks:
        before = len(layers)
        layers += block
        layers += [Add(inputs=(before, len(layers)))] * is_added
    return Architecture((*layers, GlobalAveragePool()))


def _inverted(channels: int, filters: int, stride: int = 1) -> tuple[list[Layer], bool]:
    wide = Conv2d(4 * channels, 1, activation="relu", batch_norm=True)
    narrow = SeparableConv2d(filters, 3, stride, padding="same", batch_norm=True)
    return [wide, narrow], stride == 1 and channels == filters


SMALL_MOBILENET = _with_shortcuts(
    _conv(16),
    [
        _inverted(16, 24, 2), _inverted(24, 24), _inverted(24, 40, 2), _inverted(40, 40),
        _inverted(40, 80, 2), _inverted(80, 80),
    ],
)  # fmt: skip
"""Inverted residuals with linear bottlenecks, four times wider inside (Sandler et al., MobileNetV2, 2018: there
six times). Nothing stands between the depthwise convolution and the next; there an activation does."""


def _next(channels: int) -> tuple[list[Layer], bool]:
    wide = SeparableConv2d(4 * channels, 7, padding="same", activation="gelu", batch_norm=True)
    return [wide, Conv2d(channels, 1)], True


def _down(channels: int) -> tuple[list[Layer], bool]:
    return [Conv2d(channels, 2, 2, batch_norm=True)], False


SMALL_CONVNEXT = _with_shortcuts(
    Conv2d(24, 2, 2, batch_norm=True),
    [_next(24), _next(24), _down(48), _next(48), _next(48), _down(96), _next(96), _next(96)],
)
"""Depthwise convolutions of 7×7, then two of 1×1 with GELU between them; patches at the start and between the
stages (Liu et al., A ConvNet for the 2020s, 2022). The first patches are of 2×2 (there 4×4), and the wide maps are
normalised over the batch (there the narrow ones before them, over the channels)."""


FCN = Architecture(
    (
        *[Conv1d(filters, kernel, padding="same", activation="relu", batch_norm=True)
          for filters, kernel in ((128, 7), (256, 5), (128, 3))],
        GlobalAveragePool(),
    )
)  # fmt: skip
"""The fully convolutional network for time series (Wang, Yan and Oates, Time series classification from
scratch with deep neural networks, 2017). The first kernel has 8 steps there: with equal padding it is odd."""

TIME_SERIES_RESNET = Architecture((*map(ResidualBlock1d, (64, 128, 128)), GlobalAveragePool()))
"""The residual network for time series (Wang, Yan and Oates, 2017, as above): three blocks of three layers."""


def _inception_time(blocks: int = 6, filters: int = 32) -> Architecture:
    layers: list[Layer] = []
    before = 0
    for number in range(1, blocks + 1):
        layers.append(InceptionBlock(filters, 39, filters))
        if number % 3 == 0:
            end = len(layers)
            layers += [Conv1d(4 * filters, 1, batch_norm=True, inputs=(before,)), Add(inputs=(end, end + 1))]
            layers.append(Activation("relu"))
            before = len(layers)
    return Architecture((*layers, GlobalAveragePool()))


INCEPTION_TIME = _inception_time()
"""One network of InceptionTime (Ismail Fawaz et al., InceptionTime: Finding AlexNet for time series
classification, 2020), which is five of them together. Kernels have 39, 19 and 9 steps, there 40, 20 and 10."""

SMALL_GRU = Architecture((GRU(64, directions=2), GlobalAveragePool()))
"""A gated recurrent unit in both directions (Cho et al., Learning phrase representations, 2014), and their
mean."""

SMALL_TRANSFORMER = Architecture(
    (
        Conv1d(64, 3, padding="same"),
        Positions(),
        *[TransformerBlock(4, 2, dropout=0.1)] * 2,
        LayerNorm(),
        GlobalAveragePool(),
    )
)
"""A transformer's encoder of two blocks (Vaswani et al., Attention is all you need, 2017), normalised before each
part (Xiong et al., 2020). Every step is a vector of 64 numbers, made of three steps of the series."""

CHARACTER_GRU = Architecture((Embedding(64), GRU(128), TakeLast()))
"""A recurrent network of characters (Graves, Generating sequences with recurrent neural networks, 2013)."""

CHARACTER_TRANSFORMER = Architecture(
    (Embedding(64), Positions("learned"), *[TransformerBlock(4, causal=True)] * 2, LayerNorm(), TakeLast())
)
"""A small GPT (Radford et al., Improving language understanding by generative pre-training, 2018): two blocks of
causal attention, normalised before each part as in GPT-2."""


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

PHOTOGRAPHS = {"resnet20": RESNET20, "small-mobilenet": SMALL_MOBILENET, "small-convnext": SMALL_CONVNEXT}
SERIES = {
    "fcn": FCN,
    "time-series-resnet": TIME_SERIES_RESNET,
    "inception-time": INCEPTION_TIME,
    "gru": SMALL_GRU,
    "small-transformer": SMALL_TRANSFORMER,
}
TEXTS = {"character-gru": CHARACTER_GRU, "character-transformer": CHARACTER_TRANSFORMER}
NETWORKS = KNOWN | PHOTOGRAPHS | SERIES | TEXTS


def fitting(limits: Limits) -> list[str]:
    """The names of the networks for such inputs: `PHOTOGRAPHS` are for colour images of 32 pixels and more."""
    channels, *sizes = limits.input_shape
    if len(sizes) < 2:
        return list(SERIES if sizes else TEXTS)
    is_photograph = channels == 3 and min(sizes) >= 32
    return [*KNOWN, *(PHOTOGRAPHS if is_photograph else ())]
