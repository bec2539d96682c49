"""What the GPU's kernels compute, run by Triton's interpreter on a CPU; see test_kernels.py."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from nas.architecture.architecture import Architecture
from nas.architecture.layers import BatchNorm, Conv2d, Dropout, Flatten, MaxPool, SeparableConv2d
from nas.training import modules, noise
from nas.training.gpu import kernels
from nas.training.network import Network

CPU = torch.device("cpu")
FORMATS = [torch.contiguous_format, torch.channels_last]


def assert_same(ours: Tensor, right: Tensor, wanted: Sequence[Tensor]) -> None:
    """The values, and the gradients of what is wanted."""
    torch.testing.assert_close(ours, right, rtol=1e-4, atol=1e-4)
    down = torch.randn(right.shape)
    pairs = zip(torch.autograd.grad(ours, wanted, down), torch.autograd.grad(right, wanted, down), strict=True)
    for mine, theirs in pairs:
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("memory", FORMATS)
@pytest.mark.parametrize(
    ("images", "channels", "maps", "size", "kernel", "stride", "pad"),
    [
        (2, 1, 32, (28, 28), 3, 1, 0),
        (3, 1, 8, (12, 13), 5, 1, 2),
        (2, 3, 24, (11, 9), 3, 2, 1),
        (1, 1, 70, (8, 8), 7, 1, 3),
        (2, 3, 1, (10, 10), 3, 1, 1),
        (2, 1, 5, (9, 9), 1, 1, 0),
    ],
)
def test_convolutions_of_images(
    memory: torch.memory_format, images: int, channels: int, maps: int, size: tuple[int, int],
    kernel: int, stride: int, pad: int,
) -> None:  # fmt: skip
    x = torch.randn(images, channels, *size).contiguous(memory_format=memory)
    weight = torch.randn(maps, channels, kernel, kernel, requires_grad=True)
    bias = torch.randn(maps, requires_grad=True)
    ours = kernels.convolve(x, weight, bias, stride, pad)
    assert ours.is_contiguous(memory_format=torch.channels_last)
    assert_same(ours, functional.conv2d(x, weight, bias, stride, pad), [weight, bias])


def test_in_bfloat16_they_are_within_a_step_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU's default. (Triton's interpreter cuts off, and cannot compare such numbers: no pooling.)"""
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: True)
    monkeypatch.setattr(torch, "get_autocast_dtype", lambda device: torch.bfloat16)
    x, weight = torch.randn(3, 1, 12, 12), torch.randn(8, 1, 3, 3, requires_grad=True)
    bias = torch.randn(8, requires_grad=True)
    key = noise.keys(0, torch.arange(1))[0]
    plain = modules.Dropout(0.5)
    plain.keys = key
    ours = kernels.dropout(kernels.convolve(x, weight, bias, 1, 1).flatten(1), key, 0.5)
    right = plain(functional.conv2d(x, weight, bias, 1, 1).flatten(1))
    assert ours.dtype == torch.bfloat16
    torch.testing.assert_close(ours.float(), right, rtol=2**-7, atol=1e-4)
    down = torch.randn(right.shape).bfloat16()
    mine = torch.autograd.grad(ours, [weight, bias], down)
    theirs = torch.autograd.grad(right, [weight, bias], down.float())
    for gradient, expected in zip(mine, theirs, strict=True):
        assert gradient.dtype == torch.float32
        torch.testing.assert_close(gradient, expected, rtol=1e-2, atol=0.3)  # sums of 432


def test_what_is_no_image_is_left_to_pytorch() -> None:
    weight = torch.randn(4, 1, 3, 3)
    assert kernels.can_convolve(torch.randn(2, 1, 9, 9), weight, 1)
    assert kernels.can_convolve(torch.randn(2, 3, 9, 9), torch.randn(4, 3, 3, 3), 1)
    assert not kernels.can_convolve(torch.randn(2, 1, 9, 9, requires_grad=True), weight, 1)
    assert not kernels.can_convolve(torch.randn(2, 1, 9, 9).double(), weight, 1)
    assert not kernels.can_convolve(torch.randn(2, 8, 9, 9), torch.randn(4, 8, 3, 3), 1)
    assert not kernels.can_convolve(torch.randn(2, 3, 9, 9), torch.randn(4, 3, 7, 7), 1)
    assert not kernels.can_convolve(torch.randn(2, 8, 9, 9), torch.randn(8, 1, 3, 3), 8)
    assert not kernels.can_convolve(torch.randn(2, 3, 9, 9), torch.randn(6, 1, 3, 3), 3)
    assert not kernels.can_convolve(torch.randn(2, 1, 9, 9), torch.randn(1, 1, 3, 3), 1)


@pytest.mark.parametrize("memory", FORMATS)
@pytest.mark.parametrize(("channels", "size", "window"), [(3, (8, 8), 2), (32, (11, 7), 2), (70, (9, 9), 3)])
def test_max_pooling(memory: torch.memory_format, channels: int, size: tuple[int, int], window: int) -> None:
    """Of equal values the first is the largest, and where a window does not fit the gradient is zero."""
    x = torch.randint(0, 5, (2, channels, *size)).float().contiguous(memory_format=memory).requires_grad_()
    ours, right = kernels.max_pool(x, window), functional.max_pool2d(x, window)
    assert torch.equal(ours, right)
    assert_same(ours, right, [x])


def test_nan_comes_through_a_pooling() -> None:
    x = torch.randn(2, 3, 8, 8)
    x[0, 1, 2, 3] = torch.nan
    assert torch.equal(kernels.max_pool(x, 2).isnan(), functional.max_pool2d(x, 2).isnan())


@pytest.mark.parametrize(("features", "images", "rate"), [(10, 7, 0.5), (33, 5, 0.1), (64, 40, 0.25)])
def test_dropout_drops_the_same_as_without_kernels(features: int, images: int, rate: float) -> None:
    plain = modules.Dropout(rate)
    plain.keys = noise.keys(3, torch.arange(4))[2]
    x = torch.randn(images, features, requires_grad=True)
    assert_same(kernels.dropout(x, plain.keys, rate), plain(x), [x])


def test_they_are_tried_before_they_are_used() -> None:
    with torch.inference_mode():
        assert kernels.compute_the_same(CPU)


def test_a_network_is_the_same_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = (
        Conv2d(4, 3, activation="relu"),
        MaxPool(2),
        Conv2d(6, 3, activation="silu", batch_norm=True),
        SeparableConv2d(5, 3),
        MaxPool(2),
        Flatten(),
        BatchNorm(),
        Dropout(0.3),
    )
    network = Network(Architecture(layers), (1, 20, 20), 3)
    network.use_keys(noise.keys(0, torch.arange(1)))
    images = torch.randint(0, 256, (4, 1, 20, 20), dtype=torch.uint8)
    right = network(images)
    monkeypatch.setattr(modules, "gpu_kernels", lambda device: (kernels, ""))
    assert_same(network(images), right, list(network.parameters()))
