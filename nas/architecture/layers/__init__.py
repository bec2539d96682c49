"""The built-in layers: one class for each kind, one file for each family (see `nas.architecture.layer.Layer`)."""

from __future__ import annotations

from nas import plugins
from nas.architecture.layer import Layer, Merge, Shape, show
from nas.architecture.layers.activation import ACTIVATIONS, Activation
from nas.architecture.layers.convolution import OPERATIONS, Cell, Conv2d, ResidualBlock, SeparableConv2d
from nas.architecture.layers.dense import BatchNorm, Dense, Dropout
from nas.architecture.layers.merge import Add, Concatenate
from nas.architecture.layers.pooling import AveragePool, Flatten, GlobalAveragePool, MaxPool
from nas.architecture.layers.pretrained import Pretrained
from nas.errors import ArchitectureError, quoted

__all__ = ["ACTIVATIONS", "OPERATIONS", "Activation", "Add", "AveragePool", "BatchNorm", "Cell", "Concatenate"]
__all__ += ["Conv2d", "Dense", "Dropout", "Flatten", "GlobalAveragePool", "Layer", "MaxPool", "Merge"]
__all__ += ["Pretrained", "ResidualBlock", "SeparableConv2d", "Shape", "layer_from_dict", "show"]


def layer_from_dict(data: object) -> Layer:
    """The layer that `Layer.to_dict` wrote; its type is looked for among the plugins that are offered.

    Raises:
        ArchitectureError: not a layer, an unknown type or setting, or a value that is out of range.
    """
    if not isinstance(data, dict) or not isinstance(data.get("type"), str):
        raise ArchitectureError(f'a layer is an object with a "type", not {quoted(data)}')
    kind: type[Layer] = plugins.layer(data["type"])
    return kind.from_settings({str(key): value for key, value in data.items() if key != "type"})
