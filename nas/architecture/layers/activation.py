"""Activations: a setting of many layers, and a layer of their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nas.architecture.layer import Plain, Shape, one_of
from nas.architecture.lazy import modules, nn

ACTIVATIONS = ("linear", "sigmoid", "tanh", "relu", "leaky_relu", "maxout", "elu", "gelu", "silu")
LEAKY_SLOPE = 0.1  # as in the lecture; PyTorch's own default is 0.01


def activation_setting(*, maxout: bool = True, default: str = "linear") -> Any:
    """A setting that is the name of an activation."""
    return one_of(*(name for name in ACTIVATIONS if maxout or name != "maxout"), default=default)


def activation_module(name: str) -> nn.Module:
    """The module of an activation; maxout halves the channels (Goodfellow et al., 2013)."""
    if name == "leaky_relu":
        return nn.LeakyReLU(LEAKY_SLOPE)
    classes = {"sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "relu": nn.ReLU, "maxout": modules.Maxout, "elu": nn.ELU}
    classes |= {"gelu": nn.GELU, "silu": nn.SiLU, "linear": nn.Identity}
    return classes[name]()


def activation_part(name: str) -> dict[str, nn.Module]:
    """The activation as the last named module of a layer; an empty dictionary if it is linear."""
    return {} if name == "linear" else {name: activation_module(name)}


@dataclass(frozen=True)
class Activation(Plain):
    """An activation on its own. Maxout needs two linear maps: it belongs to `Conv2d` and `Dense`."""

    name: str = activation_setting(maxout=False, default="relu")

    @property
    def is_causal(self) -> bool:
        return True

    def output_shape(self, shape: Shape) -> Shape:
        return shape

    def words(self) -> str:
        return self.name

    def module(self, shape: Shape) -> nn.Module:
        return modules.named(**activation_part(self.name))
