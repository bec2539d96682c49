"""The space for tokens and long series: attention, a recurrent layer or causal convolutions over the steps."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from nas.architecture.architecture import Architecture
from nas.architecture.layer import Layer
from nas.architecture.layers.attention import Embedding, LayerNorm, Positions, TransformerBlock
from nas.architecture.layers.dense import Dropout
from nas.architecture.layers.merge import Add
from nas.architecture.layers.pooling import GlobalAveragePool, TakeLast
from nas.architecture.layers.recurrent import GRU, LSTM
from nas.architecture.layers.sequence import Conv1d
from nas.spaces.fit import MNIST_FLOPS
from nas.spaces.recipe import SERIES, ask_recipe
from nas.spaces.space import Choose, SearchSpace

PATCHES = 16, 256  # into which a series is cut, the fewest and the most
SIZES = (16, 32, 64, 96, 128)  # channels; each is divisible by all numbers of heads


class Transformer(SearchSpace):
    """For tokens and long series: blocks of attention, recurrent layers or causal convolutions over the steps.

    Args:
        max_flops: the operations that a network may need for an input.
        recipe: whether the learning rate, the weight decay, the label smoothing and the augmentation vary, too.
    """

    adapts = True
    example_shape = (64,)
    max_flops = MNIST_FLOPS

    def __init__(self, max_flops: Annotated[int, Field(ge=1)] | None = None, recipe: bool = False) -> None:
        self.max_flops, self.recipe = max_flops or self.max_flops, recipe

    def build(self, choose: Choose) -> Architecture:
        """A vector for each token, or for each patch of a series (Dosovitskiy et al., 2021), a body, and a head.

        Of tokens, no step sees a later one, and the last step answers: it is the next token that is asked for.
        """
        is_text = len(self.limits.input_shape) == 1
        if self.recipe:
            ask_recipe(choose, SERIES[:1] if is_text else SERIES)
        size = choose.suggest_categorical("size", list(SIZES))
        layers: list[Layer] = [Embedding(size, self.limits.classes)] if is_text else [self._patches(choose, size)]
        body = choose.suggest_categorical("body", ["attention", "recurrent", "convolution"])
        count = choose.suggest_int("layers", 1, 4)
        dropout = choose.suggest_categorical("dropout", [0.0, 0.1, 0.2])
        if body == "attention":
            heads = choose.suggest_categorical("heads", [1, 2, 4, 8])
            width = choose.suggest_categorical("width", [1, 2, 4])
            layers.append(Positions(choose.suggest_categorical("positions", ["sinusoidal", "learned"])))
            layers += [TransformerBlock(heads, width, causal=is_text, dropout=dropout)] * count
            layers.append(LayerNorm())
        elif body == "recurrent":
            kind = choose.suggest_categorical("cell", ["gru", "lstm"])
            layers += [(GRU if kind == "gru" else LSTM)(size, directions=1 if is_text else 2)] * count
        else:
            kernel = choose.suggest_categorical("kernel", [2, 3, 4] if is_text else [3, 5, 7])
            padding = "causal" if is_text else "same"
            for number in range(count):  # each sees twice as far as the one before it (WaveNet, 2016)
                before = len(layers)
                style: dict[str, Any] = {"padding": padding, "activation": "relu", "batch_norm": True}
                layers.append(Conv1d(size, kernel, dilation=2**number, **style))
                layers.append(Add(inputs=(before, before + 1)))
        if is_text:
            layers.append(TakeLast())
        else:
            layers.append(GlobalAveragePool())
        if dropout and body != "attention":
            layers.append(Dropout(dropout))
        return Architecture(tuple(layers))

    def _patches(self, choose: Choose, size: int) -> Layer:
        """A vector for each patch of a series."""
        length = self.limits.input_shape[-1]
        patches = [patch for patch in (1, 2, 4, 8, 16, 32, 64) if PATCHES[0] <= length / patch <= PATCHES[1]] or [
            1
        ]
        patch = choose.suggest_categorical("patch", patches) if len(patches) > 1 else patches[0]
        return Conv1d(size, patch, patch)
