"""Faster versions of a network's modules, with the same parameters and the same function."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.architecture.modules import Backbone, Maxout
from nas.training import noise

WIDEST = 4  # the largest window that the GPU kernels pool: they are unrolled, with positions up to 255

# For every f that never falls, f(max(x)) = max(f(x)): pooling first gives the same result with a quarter of the
# work. Maxout is a maximum itself. GELU and SiLU fall before they rise.
MONOTONE = (nn.Sigmoid, nn.Tanh, nn.ReLU, nn.LeakyReLU, nn.ELU, Maxout)


@lru_cache
def gpu_kernels(device: torch.device) -> tuple[Any, str]:
    """`nas.training.gpu.kernels`, if they work on this device; otherwise None and, for a GPU, the reason."""
    if device.type != "cuda":
        return None, ""
    try:
        kernels = importlib.import_module("nas.training.gpu.kernels")
        if not kernels.compute_the_same(device):
            return None, "its results differ from PyTorch's"
    except Exception as error:  # noqa: BLE001  # no Triton for this system, no compiler, a GPU that is too old
        return None, " ".join(f"{type(error).__name__}: {error}".split())[:150]
    return kernels, ""


class Conv(nn.Conv2d):
    """A convolution, and the max pooling that follows it if ``window`` is not 0.

    The bias is added after the pooling: max(x + b) = max(x) + b, also when rounded. Its gradient is then, with a
    window of 2, a sum over a quarter of the values (docs/decisions/0009). The GPU kernels add it at no cost.
    """

    window = 0

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

    kernel_size: int

    def forward(self, x: Tensor) -> Tensor:
        """The maxima."""
        return max_pool(x, self.kernel_size)


def max_pool(x: Tensor, window: int) -> Tensor:
    """The maxima of windows that do not overlap."""
    gpu = gpu_kernels(x.device)[0] if window <= WIDEST else None
    pooled: Tensor = gpu.max_pool(x, window) if gpu else functional.max_pool2d(x, window)
    return pooled


class Dropout(nn.Dropout):
    """Dropout. If ``keys`` is set, it decides the mask, which is the same on a CPU and on a GPU."""

    keys: Tensor | None = None  # a single int64, shape (); if None, PyTorch draws the mask

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


FASTER: dict[type[nn.Module], type[nn.Module]] = {nn.Conv2d: Conv, nn.MaxPool2d: MaxPool, nn.Dropout: Dropout}


def tuned(module: nn.Module) -> nn.Module:
    """A module of a built-in layer with faster parts, which know the settings of built-in layers only."""
    for part in [] if isinstance(module, Backbone) else module.modules():  # torchvision's have other settings
        part.__class__ = FASTER.get(type(part), type(part))  # nothing is built twice, and no random number drawn
    return module


def pool_first(built: Sequence[dict[str, nn.Module]], inputs: Sequence[tuple[int, ...]]) -> None:
    """Move a monotone activation behind the max pooling that follows it, and let a convolution do the pooling.

    ``built`` has the named modules of each layer and is changed; ``inputs`` has the positions that it follows.
    """
    # An activation moves behind one pooling module only: in bfloat16 the next one would see equal values.
    moved = set[str]()
    uses = Counter(i for positions in inputs for i in positions)
    for parts, positions in zip(built, inputs, strict=True):
        pool = next(iter(parts.values()), None)
        if not isinstance(pool, MaxPool) or uses[positions[0]] > 1:
            continue
        before = built[positions[0]]
        name, last = next(reversed(before.items()), ("", pool))
        moves = isinstance(last, MONOTONE) and name not in moved
        if moves:
            parts[name] = before.pop(name)
        [*convolutions] = before.values()
        if len(convolutions) == 1 and isinstance(convolutions[0], Conv) and not convolutions[0].window:
            convolutions[0].window = pool.kernel_size
            del parts[next(iter(parts))]
        elif moves:
            moved.add(name)
