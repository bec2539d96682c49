"""The space for series: convolutions of several lengths, perhaps a recurrent layer or attention, and a head."""

from __future__ import annotations

from collections.abc import Sequence as Several
from typing import Annotated, Any

from pydantic import Field

from nas.architecture.architecture import Architecture
from nas.architecture.layer import Layer
from nas.architecture.layers.activation import Activation
from nas.architecture.layers.attention import LayerNorm, Positions, TransformerBlock
from nas.architecture.layers.dense import Dropout
from nas.architecture.layers.merge import Add, Concatenate
from nas.architecture.layers.pooling import Flatten, GlobalAveragePool, GlobalMaxPool, MaxPool
from nas.architecture.layers.recurrent import GRU
from nas.architecture.layers.sequence import Conv1d, InceptionBlock, ResidualBlock1d
from nas.spaces.fit import MNIST_FLOPS
from nas.spaces.recipe import SERIES, ask_recipe
from nas.spaces.space import Choose, SearchSpace

STEPS = 48, 768  # of a series after the first pooling, the least and the most that are offered
# Of 28 networks drawn at random for two sets of the archive, those with kernels of 79 steps, with one block or
# with two layers were the worst; the best had three or more layers of kernels of up to 9 steps.
KERNELS = (5, 9, 15)  # of convolutions, up to a third of the series
LONG_KERNELS = (9, 19, 39)  # of the longest of the three in an `InceptionBlock`, likewise
BLOCKS = {"3-3": (3, 3), "5-3": (5, 3), "7-5-3": (7, 5, 3), "9-5-3": (9, 5, 3)}  # kernels of a residual block
LOOKED_AT = 128  # steps, by a recurrent layer, which computes them one after the other, or by attention
FLAT_STEPS = 64  # of series that the head may take as they are, step by step


class Sequence(SearchSpace):
    """For series: blocks in the manner of InceptionTime, residual blocks, convolutions, or these with a GRU.

    Args:
        max_flops: the operations that a network may need for a series.
        recipe: whether the learning rate, the weight decay, the label smoothing and the augmentation vary, too.
    """

    adapts = True
    example_shape = (1, 150)
    max_flops = MNIST_FLOPS

    def __init__(self, max_flops: Annotated[int, Field(ge=1)] | None = None, recipe: bool = False) -> None:
        self.max_flops, self.recipe = max_flops or self.max_flops, recipe

    def build(self, choose: Choose) -> Architecture:
        """A first convolution and pooling if the series is long, a body, and a head.

        Three of the bodies are those of the networks that are good on the archives of time series: InceptionTime
        (Ismail Fawaz et al., 2020), and the residual and the fully convolutional network (Wang et al., 2017). The
        fourth looks at what convolutions find with a recurrent layer or with attention.
        """
        if self.recipe:
            ask_recipe(choose, SERIES)
        length = self.limits.input_shape[-1]
        pools = [pool for pool in (1, 2, 4, 8, 16, 32, 64) if STEPS[0] <= length / pool <= STEPS[1]] or [1]
        pool = choose.suggest_categorical("pool", pools) if len(pools) > 1 else pools[0]
        steps = max(1, length // pool)
        layers: list[Layer] = []
        if pool > 1:  # of ACSF1, averages of four steps gave 64 %, maxima of a convolution 90 %
            filters = choose.suggest_categorical("stem/filters", [16, 32])
            layers += [Conv1d(filters, 7, padding="same", activation="relu", batch_norm=True), MaxPool(pool)]
        # The choices of a question never vary: kernels are those for the shortest pooling.
        kernels, long_kernels = (
            [kernel for kernel in known if kernel <= max(known[0], length / pools[0] / 3)]
            for known in (KERNELS, LONG_KERNELS)
        )
        body = choose.suggest_categorical("body", ["inception", "residual", "convolution", "mixed"])
        if body == "inception":
            self._inception(choose, layers, long_kernels)
        elif body == "residual":
            self._residual(choose, layers, steps)
        elif body == "convolution":
            self._convolution(choose, layers, kernels)
        else:
            self._mixed(choose, layers, steps, kernels)
        self._head(choose, layers, length)
        return Architecture(tuple(layers))

    @staticmethod
    def _inception(choose: Choose, layers: list[Layer], kernels: Several[int]) -> None:
        filters = choose.suggest_categorical("inception/filters", [8, 12, 16, 24, 32])
        kernel = choose.suggest_categorical("inception/kernel", list(kernels))
        blocks = choose.suggest_int("inception/blocks", 3, 6)
        shortcut = choose.suggest_categorical("inception/shortcut", [2, 3])  # blocks from its start to its end
        before = len(layers)
        for number in range(1, blocks + 1):
            layers.append(InceptionBlock(filters, kernel, filters))
            if number % shortcut == 0:
                end = len(layers)
                layers.append(Conv1d(4 * filters, 1, batch_norm=True, inputs=(before,)))
                layers += [Add(inputs=(end, end + 1)), Activation("relu")]
                before = len(layers)

    @staticmethod
    def _residual(choose: Choose, layers: list[Layer], steps: int) -> None:
        filters = choose.suggest_categorical("residual/filters", [16, 24, 32, 48, 64])
        kernels = BLOCKS[choose.suggest_categorical("residual/kernels", list(BLOCKS))]
        blocks = choose.suggest_int("residual/blocks", 2, 4)
        grows = choose.suggest_categorical("residual/dilation", [False, True])
        between = choose.suggest_categorical("residual/between", ["nothing", "pool", "pool and double"])
        for number in range(blocks):
            if number and between != "nothing" and steps >= 8:
                layers.append(MaxPool(2))
                steps //= 2
                filters *= 2 if between == "pool and double" else 1
            dilation = 2**number if grows and between == "nothing" else 1
            layers.append(ResidualBlock1d(filters, kernels, dilation=dilation))

    @staticmethod
    def _convolution(choose: Choose, layers: list[Layer], kernels: Several[int]) -> None:
        filters = choose.suggest_categorical("convolution/filters", [32, 48, 64, 96, 128])
        kernel = choose.suggest_categorical("convolution/kernel", list(kernels))
        count = choose.suggest_int("convolution/layers", 3, 5)
        grows = choose.suggest_categorical("convolution/dilation", [False, True])
        for number in range(count):
            size = kernel if number == 0 else max(3, kernel // 2**number | 1)
            style: dict[str, Any] = {
                "dilation": 2**number if grows else 1,
                "activation": "relu",
                "batch_norm": True,
            }
            layers.append(Conv1d(filters, size, padding="same", **style))

    @staticmethod
    def _mixed(choose: Choose, layers: list[Layer], steps: int, kernels: Several[int]) -> None:
        filters = choose.suggest_categorical("mixed/filters", [32, 48, 64])
        kernel = choose.suggest_categorical("mixed/kernel", list(kernels))
        for _ in range(choose.suggest_int("mixed/convolutions", 2, 3)):
            layers.append(Conv1d(filters, kernel, padding="same", activation="relu", batch_norm=True))
            if steps > 2 * STEPS[0]:
                layers.append(MaxPool(2))
                steps //= 2
        if steps > LOOKED_AT:
            layers.append(MaxPool(-(-steps // LOOKED_AT)))
        if choose.suggest_categorical("mixed/kind", ["recurrent", "attention"]) == "recurrent":
            layers.append(GRU(choose.suggest_categorical("mixed/units", [16, 32, 64]), directions=2))
        else:
            heads = choose.suggest_categorical("mixed/heads", [2, 4, 8])
            layers += [Positions(), TransformerBlock(heads, 2), LayerNorm()]

    @staticmethod
    def _head(choose: Choose, layers: list[Layer], length: int) -> None:
        """What makes a vector of the steps: their mean, their maximum or both; of short series also all steps."""
        kinds = ["average", "average and max"] + ["flatten"] * (length <= FLAT_STEPS)
        pool = choose.suggest_categorical("head/pool", kinds)
        last = len(layers)
        if pool == "flatten":
            layers.append(Flatten())
        else:
            layers.append(GlobalAveragePool())
        if pool == "average and max":
            layers += [GlobalMaxPool(inputs=(last,)), Concatenate(inputs=(last + 1, last + 2))]
        dropout = choose.suggest_categorical("head/dropout", [0.0, 0.1, 0.25, 0.5])
        if dropout:
            layers.append(Dropout(dropout))
