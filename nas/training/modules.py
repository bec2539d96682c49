"""The modules that networks are made of, for one network or for several copies of it side by side.

Copies (Wang et al., HFTA, 2021) lie beside one another in the channels: a map is (N, copies · channels, H, W), a
vector (N, copies · features), and of every parameter and statistic the first dimension is that of one network,
``copies`` times. No copy sees anything of another: convolutions have groups, linear maps are a batch of matrices,
and what PyTorch does channel by channel (normalisation, pooling, activations) needs no change.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import lru_cache, reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.architecture.layers import LEAKY_SLOPE, Cell, Pretrained, ResidualBlock, Shape, same_padding
from nas.training import noise
from nas.training.backbone import Backbone

WIDEST = 4  # window that a GPU's kernels pool: they are unrolled, and count to 255


@lru_cache
def gpu_kernels(device: torch.device) -> tuple[Any, str]:
    """`nas.training.gpu.kernels`, if they work on this device; otherwise None and, for a GPU, the reason."""
    if device.type != "cuda":
        return None, ""
    try:
        kernels = importlib.import_module("nas.training.gpu.kernels")
        if not kernels.compute_the_same(device):
            return None, "it computes something else"
    except Exception as error:  # noqa: BLE001  # no Triton for this system, no compiler, a GPU that is too old
        return None, " ".join(f"{type(error).__name__}: {error}".split())[:150]
    return kernels, ""


def conv(
    channels: int, maps: int, kernel: int, *, copies: int, groups: int = 1, window: int = 0, **how: Any
) -> nn.Conv2d:
    """A convolution of each copy, with max pooling over a window if there is one."""
    return Conv(copies * channels, copies * maps, kernel, groups=copies * groups, window=window, **how)


class Conv(nn.Conv2d):
    """A convolution, and the max pooling that follows it, if there is a window.

    The bias is added after the pooling: max(x + b) = max(x) + b, also when rounded, so this is the same function,
    and the bias is added to a quarter of the values. What counts is its gradient, a sum over all of them
    (docs/decisions/0009). The kernels of a GPU have it for nothing.
    """

    def __init__(self, channels: int, maps: int, kernel: int, *, window: int = 0, **how: Any) -> None:
        super().__init__(channels, maps, kernel, **how)
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        """Maps, pooled."""
        gpu = gpu_kernels(x.device)[0]
        if gpu and gpu.can_convolve(x, self.weight, self.groups):
            stride, pad = self.stride[0], int(self.padding[0])
            maps: Tensor = gpu.convolve(x, self.weight, self.bias, stride, pad, self.groups)
            return max_pool(maps, self.window) if self.window else maps
        if not self.window:
            return super().forward(x)
        maps = functional.conv2d(x, self.weight, None, self.stride, self.padding, self.dilation, self.groups)
        pooled = max_pool(maps, self.window)
        return pooled if self.bias is None else pooled + self.bias.to(pooled.dtype).view(-1, 1, 1)


class MaxPool(nn.MaxPool2d):
    """Max pooling over a window that moves by its size."""

    def __init__(self, window: int) -> None:
        super().__init__(window)
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        """The maxima."""
        return max_pool(x, self.window)


def max_pool(x: Tensor, window: int) -> Tensor:
    """The maxima of windows that do not overlap."""
    gpu = gpu_kernels(x.device)[0] if window <= WIDEST else None
    pooled: Tensor = gpu.max_pool(x, window) if gpu else functional.max_pool2d(x, window)
    return pooled


def linear(features: int, maps: int, copies: int) -> nn.Module:
    """A linear map of each copy."""
    return nn.Linear(features, maps) if copies == 1 else LinearMaps(features, maps, copies)


class LinearMaps(nn.Linear):
    """A linear map for each copy: (N, copies · features) to (N, copies · maps)."""

    def __init__(self, features: int, maps: int, copies: int) -> None:
        super().__init__(features, copies * maps)
        self.copies = copies

    def forward(self, x: Tensor) -> Tensor:
        """One product of a batch of matrices."""
        each = torch.unflatten(x, 1, (self.copies, -1)).transpose(0, 1)  # (copies, N, features)
        weight = torch.unflatten(self.weight, 0, (self.copies, -1)).transpose(1, 2)  # (copies, features, maps)
        bias = self.bias.view(self.copies, 1, -1)
        return torch.baddbmm(bias, each, weight).transpose(0, 1).flatten(1)


class Maxout(nn.Module):
    """The maximum of two linear maps: of the first and the second half of the channels (Goodfellow, 2013)."""

    def __init__(self, copies: int = 1) -> None:
        super().__init__()
        self.copies = copies

    def forward(self, x: Tensor) -> Tensor:
        """Half as many channels."""
        first, second = torch.unflatten(x, 1, (self.copies, 2, -1)).unbind(2)
        return torch.maximum(first, second).flatten(1, 2)


class Dropout(nn.Dropout):
    """Dropout whose masks are a function of ``keys``, when somebody sets them.

    The masks of a copy follow from its key, and are the same whether it is trained alone or beside others, on a
    CPU or on a GPU. Without keys they are PyTorch's.

    Args:
        rate: with this probability a value becomes zero.
    """

    def __init__(self, rate: float) -> None:
        super().__init__(rate)
        self.keys: Tensor | None = None  # (copies,) int64

    def forward(self, x: Tensor) -> Tensor:
        """Some values zero, the others larger by as much as keeps the mean."""
        if not self.training or self.keys is None:
            return super().forward(x)
        gpu = gpu_kernels(x.device)[0]
        if gpu and x.ndim == 2:
            dropped: Tensor = gpu.dropout(x, self.keys, self.p)
            return dropped
        copies, images = len(self.keys), len(x)
        kept, share = noise.kept(self.keys, x.numel() // copies, self.p)  # (copies, N · what an image has)
        mask = kept.view(copies, images, -1).transpose(0, 1).reshape(x.shape)
        return x * mask.to(x.device, x.dtype).div_(share)


def activation(name: str, copies: int = 1) -> nn.Module:
    """The module of an activation's name."""
    modules: dict[str, Callable[[], nn.Module]] = {
        "linear": nn.Identity,
        "sigmoid": nn.Sigmoid,
        "tanh": nn.Tanh,
        "relu": nn.ReLU,
        "leaky_relu": lambda: nn.LeakyReLU(LEAKY_SLOPE),
        "maxout": lambda: Maxout(copies),
        "elu": nn.ELU,
        "gelu": nn.GELU,
        "silu": nn.SiLU,
    }
    return modules[name]()


class Residual(nn.Module):
    """Two convolutions, the input added (through ``shortcut``), the activation."""

    def __init__(self, layer: ResidualBlock, shape: Shape, copies: int = 1) -> None:
        super().__init__()
        size, pad, filters = layer.kernel, same_padding(layer.kernel), layer.filters
        how: dict[str, Any] = {"copies": copies, "bias": False}
        self.body = nn.Sequential(
            conv(shape[0], filters, size, stride=layer.stride, padding=pad, **how),
            nn.BatchNorm2d(copies * filters),
            activation(layer.activation),
            conv(filters, filters, size, padding=pad, **how),
            nn.BatchNorm2d(copies * filters),
        )
        self.shortcut: nn.Module = nn.Identity()
        if layer.projects(shape):
            projection = conv(shape[0], filters, 1, stride=layer.stride, **how)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(copies * filters))
        self.activation = activation(layer.activation)

    def forward(self, x: Tensor) -> Tensor:
        """``activation(body(x) + shortcut(x))``."""
        return self.activation(self.body(x) + self.shortcut(x))  # type: ignore[no-any-return]


class Zeros(nn.Module):
    """Nothing, in the shape of its input."""

    def forward(self, x: Tensor) -> Tensor:
        """Zeros."""
        return torch.zeros_like(x)


class CellGraph(nn.Module):
    """Four nodes, each the sum of what the edges from all earlier ones bring."""

    def __init__(self, layer: Cell, shape: Shape, copies: int = 1) -> None:
        super().__init__()
        self.edges = nn.ModuleList(_operation(name, shape[0], copies) for name in layer.operations)

    def forward(self, x: Tensor) -> Tensor:
        """The last node."""
        maps = [x]
        for first in (0, 1, 3):  # of the edges into a node
            edges = self.edges[first : first + len(maps)]
            maps.append(reduce(torch.add, [edge(node) for edge, node in zip(edges, maps, strict=True)]))
        return maps[-1]


def _operation(name: str, channels: int, copies: int) -> nn.Module:
    """The module of a cell's edge."""
    match name:
        case "none":
            return Zeros()
        case "skip_connect":
            return nn.Identity()
        case "avg_pool_3x3":
            return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
    kernel = 3 if name == "nor_conv_3x3" else 1
    convolution = conv(channels, channels, kernel, copies=copies, padding=same_padding(kernel), bias=False)
    return nn.Sequential(nn.ReLU(), convolution, nn.BatchNorm2d(copies * channels))


def backbone(layer: Pretrained, shape: Shape, copies: int) -> nn.Module:
    """A torchvision model for each copy."""
    return Backbone(layer, shape) if copies == 1 else Backbones(layer, shape, copies)


class Backbones(nn.Module):
    """Torchvision's models are not made for copies side by side: each copy is a module of its own.

    So any network can have copies; but these take turns, and `nas.training.group` trains them one by one.
    """

    def __init__(self, layer: Pretrained, shape: Shape, copies: int) -> None:
        super().__init__()
        self.copies = nn.ModuleList(Backbone(layer, shape) for _ in range(copies))

    def forward(self, x: Tensor) -> Tensor:
        """The features of all copies."""
        parts = x.chunk(len(self.copies), dim=1)
        return torch.cat([copy(part) for copy, part in zip(self.copies, parts, strict=True)], dim=1)
