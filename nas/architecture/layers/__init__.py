"""The built-in layers: one class for each kind, one file for each family (see `nas.architecture.layer.Layer`)."""

from __future__ import annotations

from nas import plugins
from nas.architecture.layer import Layer, Merge, Shape, show
from nas.architecture.layers.activation import ACTIVATIONS, Activation
from nas.architecture.layers.attention import Embedding, LayerNorm, Positions, SelfAttention, TransformerBlock
from nas.architecture.layers.convolution import OPERATIONS, Cell, Conv2d, ResidualBlock, SeparableConv2d
from nas.architecture.layers.dense import BatchNorm, Dense, Dropout
from nas.architecture.layers.merge import Add, Concatenate
from nas.architecture.layers.pooling import (
    AveragePool,
    Flatten,
    GlobalAveragePool,
    GlobalMaxPool,
    MaxPool,
    TakeLast,
)
from nas.architecture.layers.pretrained import Pretrained
from nas.architecture.layers.recurrent import GRU, LSTM
from nas.architecture.layers.sequence import Conv1d, InceptionBlock, ResidualBlock1d, SeparableConv1d
from nas.errors import ArchitectureError, quoted

__all__ = ["ACTIVATIONS", "OPERATIONS", "Activation", "Add", "AveragePool", "BatchNorm", "Cell", "Concatenate"]
__all__ += ["GRU", "Conv1d", "Conv2d", "Dense", "Dropout", "Embedding", "Flatten", "GlobalAveragePool"]
__all__ += ["LSTM", "GlobalMaxPool", "InceptionBlock", "Layer", "LayerNorm", "MaxPool", "Merge", "Positions"]
__all__ += ["Pretrained", "ResidualBlock", "ResidualBlock1d", "SelfAttention", "SeparableConv1d"]
__all__ += ["SeparableConv2d", "Shape", "TakeLast", "TransformerBlock", "layer_from_dict", "show"]


def layer_from_dict(data: object) -> Layer:
    """The layer that `Layer.to_dict` wrote; its type is looked for among the plugins that are offered.

    Raises:
        ArchitectureError: not a layer, an unknown type or setting, or a value that is out of range.
    """
    if not isinstance(data, dict) or not isinstance(data.get("type"), str):
        raise ArchitectureError(f'a layer is an object with a "type", not {quoted(data)}')
    kind: type[Layer] = plugins.layer(data["type"])
    return kind.from_settings({str(key): value for key, value in data.items() if key != "type"})
