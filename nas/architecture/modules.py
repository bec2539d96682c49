"""The modules of the built-in layers that PyTorch does not have.

They import nothing else of this package, because `nas export --format python` writes these classes into its file.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


def named(**parts: nn.Module) -> nn.Sequential:
    """Modules one after the other, with names."""
    return nn.Sequential(OrderedDict(parts))


def by_rank(shape: tuple[int, ...], one: Any, two: Any) -> Any:
    """The kind of module for an input of ``shape``: ``two`` for images, ``one`` for sequences and vectors."""
    return two if len(shape) == 3 else one


class Add(nn.Module):
    """The sum of all inputs."""

    def forward(self, *inputs: Tensor) -> Tensor:
        """A tensor of the shape of each input."""
        return reduce(torch.add, inputs)


class Concatenate(nn.Module):
    """All inputs, joined along their channels or features."""

    def forward(self, *inputs: Tensor) -> Tensor:
        """A tensor with the channels of all inputs."""
        return torch.cat(inputs, dim=1)


class Maxout(nn.Module):
    """The maximum of two linear maps: of the first and the second half of the channels (Goodfellow, 2013)."""

    def forward(self, x: Tensor) -> Tensor:
        """Half as many channels."""
        first, second = torch.unflatten(x, 1, (1, 2, -1)).unbind(2)  # in this layout the gradient is as it was
        return torch.maximum(first, second).flatten(1, 2)


class Residual(nn.Module):
    """Two convolutions, whose result is added to the input."""

    def __init__(self, channels: int, filters: int, kernel: int, activation: nn.Module, stride: int = 1) -> None:
        super().__init__()
        pad = kernel // 2
        self.body = nn.Sequential(
            nn.Conv2d(channels, filters, kernel, stride, pad, bias=False),
            nn.BatchNorm2d(filters),
            activation,
            nn.Conv2d(filters, filters, kernel, 1, pad, bias=False),
            nn.BatchNorm2d(filters),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or channels != filters:
            projection = nn.Conv2d(channels, filters, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(filters))
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """``activation(body(x) + shortcut(x))``."""
        y: Tensor = self.activation(self.body(x) + self.shortcut(x))
        return y


class Zeros(nn.Module):
    """Zeros in the shape of the input."""

    def forward(self, x: Tensor) -> Tensor:
        """Zeros."""
        return torch.zeros_like(x)


class CellGraph(nn.Module):
    """Four nodes, each the sum of the edges from all earlier nodes (NAS-Bench-201).

    The operations are those of the edges: into the second node, into the third, into the fourth.
    """

    def __init__(self, channels: int, operations: tuple[str, ...]) -> None:
        super().__init__()
        self.edges = nn.ModuleList(edge(name, channels) for name in operations)

    def forward(self, x: Tensor) -> Tensor:
        """The last node."""
        maps = [x]
        for first in (0, 1, 3):  # the first edge into each node
            edges = self.edges[first : first + len(maps)]
            maps.append(reduce(torch.add, [edge(node) for edge, node in zip(edges, maps, strict=True)]))
        return maps[-1]


def edge(name: str, channels: int) -> nn.Module:
    """The module of an operation, which has its name of NAS-Bench-201."""
    if name == "none":
        return Zeros()
    if name == "skip_connect":
        return nn.Identity()
    if name == "avg_pool_3x3":
        return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
    kernel = 3 if name == "nor_conv_3x3" else 1
    convolution = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(nn.ReLU(), convolution, nn.BatchNorm2d(channels))


class Backbone(nn.Module):
    """A classification network of torchvision without its classifier.

    Args:
        model: its name in torchvision.
        channels: the number of channels of the images.
        resize: the height and width to which images are resized first; None for no change.
        frozen: whether its weights are fixed; then it stays in evaluation mode, and so do its statistics.
    """

    def __init__(
        self, model: str, channels: int, resize: tuple[int, int] | None = None, frozen: bool = False
    ) -> None:
        super().__init__()
        self.model, self.resize, self.frozen = model, resize, frozen
        self.body = headless(model, channels)
        self.body.requires_grad_(not frozen)

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, features)."""
        if self.resize is not None:
            shrinks = self.resize[0] < x.shape[2] or self.resize[1] < x.shape[3]
            x = functional.interpolate(x, self.resize, mode="bilinear", antialias=shrinks)
        features: Tensor = self.body(x)
        return features

    def train(self, mode: bool = True) -> Backbone:
        """Set training mode, except if it is frozen."""
        return super().train(mode and not self.frozen)


def headless(model: str, channels: int) -> nn.Module:
    """A classification network of torchvision without its classifier, with random weights."""
    from torchvision.models import get_model

    network: nn.Module = get_model(model, weights=None, **options_of(model))
    # The classifier is the last linear map; squeezenet's is a convolution.
    *_, classifier = (name for name, part in network.named_modules() if isinstance(part, nn.Linear | nn.Conv2d))
    network.set_submodule(classifier, nn.Identity())
    name, first = input_convolution(network)
    if channels != 3:
        kept: dict[str, Any] = {"stride": first.stride, "padding": first.padding, "bias": first.bias is not None}
        adapted = nn.Conv2d(channels, first.out_channels, first.kernel_size, **kept)  # type: ignore[arg-type]
        network.set_submodule(name, adapted)
    return network


def options_of(model: str) -> dict[str, Any]:
    """The options with which torchvision builds a model for use here."""
    from torchvision.models import get_model_weights

    if model in ("googlenet", "inception_v3"):
        return {"aux_logits": False, "init_weights": False}
    if model.startswith("vit_"):
        return {"image_size": get_model_weights(model).DEFAULT.meta["min_size"][0]}
    return {}


def input_convolution(network: nn.Module) -> tuple[str, nn.Conv2d]:
    """The first convolution of a model, and its name."""
    return next((name, part) for name, part in network.named_modules() if isinstance(part, nn.Conv2d))
