"""Activations: a setting of many layers, and a layer of their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nas.architecture.layer import Plain, Shape, one_of

if TYPE_CHECKING:
    from torch import nn

ACTIVATIONS = ("linear", "sigmoid", "tanh", "relu", "leaky_relu", "maxout", "elu", "gelu", "silu")
LEAKY_SLOPE = 0.1  # the lecture's; PyTorch's own default is 0.01


def activation_setting(*, maxout: bool = True, default: str = "linear") -> Any:
    """A setting that is the name of an activation."""
    return one_of(*(name for name in ACTIVATIONS if maxout or name != "maxout"), default=default)


def activation_module(name: str) -> nn.Module:
    """The module of an activation; maxout halves the channels (Goodfellow et al., 2013)."""
    from torch import nn

    from nas.architecture.modules import Maxout

    if name == "leaky_relu":
        return nn.LeakyReLU(LEAKY_SLOPE)
    kinds = {"sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "relu": nn.ReLU, "maxout": Maxout, "elu": nn.ELU}
    kinds |= {"gelu": nn.GELU, "silu": nn.SiLU, "linear": nn.Identity}
    return kinds[name]()


def activation_part(name: str) -> dict[str, nn.Module]:
    """The activation as the last part of a layer; nothing for a linear one."""
    return {} if name == "linear" else {name: activation_module(name)}


@dataclass(frozen=True)
class Activation(Plain):
    """An activation on its own. (Maxout takes linear maps of its own: it belongs to `Conv2d` and `Dense`.)"""

    name: str = activation_setting(maxout=False, default="relu")

    def output_shape(self, shape: Shape) -> Shape:
        """Unchanged."""
        return shape

    def words(self) -> str:
        """The activation's name."""
        return self.name

    def module(self, shape: Shape) -> nn.Module:
        """The activation; nothing where it is linear."""
        from nas.architecture.modules import named

        return named(**activation_part(self.name))
