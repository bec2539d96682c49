"""The layer vocabulary: one class a kind of layer, one file a family (see `nas.architecture.layer.Layer`)."""

from __future__ import annotations

from nas import plugins
from nas.architecture.layer import Layer as Layer
from nas.architecture.layer import Merge as Merge
from nas.architecture.layer import Shape as Shape
from nas.architecture.layer import show as show
from nas.architecture.layers.activation import ACTIVATIONS as ACTIVATIONS
from nas.architecture.layers.activation import Activation as Activation
from nas.architecture.layers.convolution import OPERATIONS as OPERATIONS
from nas.architecture.layers.convolution import Cell as Cell
from nas.architecture.layers.convolution import Conv2d as Conv2d
from nas.architecture.layers.convolution import ResidualBlock as ResidualBlock
from nas.architecture.layers.convolution import SeparableConv2d as SeparableConv2d
from nas.architecture.layers.dense import BatchNorm as BatchNorm
from nas.architecture.layers.dense import Dense as Dense
from nas.architecture.layers.dense import Dropout as Dropout
from nas.architecture.layers.merge import Add as Add
from nas.architecture.layers.merge import Concatenate as Concatenate
from nas.architecture.layers.pooling import AveragePool as AveragePool
from nas.architecture.layers.pooling import Flatten as Flatten
from nas.architecture.layers.pooling import GlobalAveragePool as GlobalAveragePool
from nas.architecture.layers.pooling import MaxPool as MaxPool
from nas.architecture.layers.pretrained import Pretrained as Pretrained
from nas.errors import ArchitectureError, quoted


def layer_from_dict(data: object) -> Layer:
    """The layer that `Layer.to_dict` wrote down. What it names is found among the plugins that are offered.

    Raises:
        ArchitectureError: not a layer, an unknown type or setting, or a value that is out of range.
    """
    if not isinstance(data, dict) or not isinstance(data.get("type"), str):
        raise ArchitectureError(f'a layer is an object with a "type", not {quoted(data)}')
    settings = {str(key): value for key, value in data.items() if key != "type"}
    kind: type[Layer] = plugins.layer(data["type"])
    return kind.from_settings(settings)
