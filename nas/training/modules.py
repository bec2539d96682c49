"""The modules that networks are made of."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import lru_cache, reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.architecture.layers import LEAKY_SLOPE, Cell, ResidualBlock, Shape, same_padding
from nas.training import noise

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
            maps: Tensor = gpu.convolve(x, self.weight, self.bias, stride, pad)
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


class Maxout(nn.Module):
    """The maximum of two linear maps: of the first and the second half of the channels (Goodfellow, 2013)."""

    def forward(self, x: Tensor) -> Tensor:
        """Half as many channels."""
        # Not `chunk`, whose gradient has another layout in memory, and other last digits.
        first, second = torch.unflatten(x, 1, (1, 2, -1)).unbind(2)
        return torch.maximum(first, second).flatten(1, 2)


class Dropout(nn.Dropout):
    """Dropout whose mask is a function of ``keys``, where it is set: the same mask on a CPU and on a GPU.

    Args:
        rate: the probability with which a value becomes zero.
    """

    def __init__(self, rate: float) -> None:
        super().__init__(rate)
        self.keys: Tensor | None = None  # a single int64, shape (); None: PyTorch draws the mask

    def forward(self, x: Tensor) -> Tensor:
        """Some values become zero; the others grow, so that the mean stays."""
        if not self.training or self.keys is None:
            return super().forward(x)
        gpu = gpu_kernels(x.device)[0]
        if gpu and x.ndim == 2:
            dropped: Tensor = gpu.dropout(x, self.keys, self.p)
            return dropped
        kept, share = noise.kept(self.keys, x.numel(), self.p)
        return x * kept.view(x.shape).to(x.device, x.dtype).div_(share)


def activation(name: str) -> nn.Module:
    """The module of an activation's name."""
    modules: dict[str, Callable[[], nn.Module]] = {
        "linear": nn.Identity,
        "sigmoid": nn.Sigmoid,
        "tanh": nn.Tanh,
        "relu": nn.ReLU,
        "leaky_relu": lambda: nn.LeakyReLU(LEAKY_SLOPE),
        "maxout": Maxout,
        "elu": nn.ELU,
        "gelu": nn.GELU,
        "silu": nn.SiLU,
    }
    return modules[name]()


class Residual(nn.Module):
    """Two convolutions, the input added (through ``shortcut``), the activation."""

    def __init__(self, layer: ResidualBlock, shape: Shape) -> None:
        super().__init__()
        size, pad, filters = layer.kernel, same_padding(layer.kernel), layer.filters
        self.body = nn.Sequential(
            Conv(shape[0], filters, size, stride=layer.stride, padding=pad, bias=False),
            nn.BatchNorm2d(filters),
            activation(layer.activation),
            Conv(filters, filters, size, padding=pad, bias=False),
            nn.BatchNorm2d(filters),
        )
        self.shortcut: nn.Module = nn.Identity()
        if layer.projects(shape):
            projection = Conv(shape[0], filters, 1, stride=layer.stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(filters))
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

    def __init__(self, layer: Cell, shape: Shape) -> None:
        super().__init__()
        self.edges = nn.ModuleList(_operation(name, shape[0]) for name in layer.operations)

    def forward(self, x: Tensor) -> Tensor:
        """The last node."""
        maps = [x]
        for first in (0, 1, 3):  # of the edges into a node
            edges = self.edges[first : first + len(maps)]
            maps.append(reduce(torch.add, [edge(node) for edge, node in zip(edges, maps, strict=True)]))
        return maps[-1]


def _operation(name: str, channels: int) -> nn.Module:
    """The module of a cell's edge."""
    match name:
        case "none":
            return Zeros()
        case "skip_connect":
            return nn.Identity()
        case "avg_pool_3x3":
            return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
    kernel = 3 if name == "nor_conv_3x3" else 1
    convolution = Conv(channels, channels, kernel, padding=same_padding(kernel), bias=False)
    return nn.Sequential(nn.ReLU(), convolution, nn.BatchNorm2d(channels))
