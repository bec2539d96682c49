"""Triton kernels (Tillet, Kung and Cox, 2019) for operations that cuDNN and PyTorch do slowly on a GPU.

These are convolutions of images with one or three channels and max pooling, which took 0.45 of the 0.76 ms of a
step of the lecture's network in bfloat16 on an H100 (docs/decisions/0009), and dropout, which is one kernel
instead of twenty. Maps are in channels-last: (N, H, W, channels) in memory.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional
from triton import cdiv, next_power_of_2

from nas.training import noise

IMAGE_CHANNELS = (1, 3)
MOST_TAPS = 64  # 7×7 of one channel, 3×3 of three: their patches fit into any GPU's shared memory
PIXELS = 128  # of a convolution's output that a program computes at a time
PARTS = 512  # programs that share the pixels of a gradient: four for each multiprocessor of a large GPU
MAPS = 64  # channels that a program has at most
VALUES = 1024  # of a pooling's output, or of a dropout's, that a program computes

# The constants of `nas.training.noise`, because Triton's functions can read no other values.
GOLDEN, LANES, LEVELS, BITS = map(tl.constexpr, (noise.GOLDEN, noise.LANES, noise.LEVELS, 16))
(FIRST_SHIFT, FIRST_FACTOR), (SECOND_SHIFT, SECOND_FACTOR) = (map(tl.constexpr, pair) for pair in noise.MIX)
THIRD_SHIFT = tl.constexpr(noise.LAST_SHIFT)
FIRST_MASK, SECOND_MASK, THIRD_MASK = (
    tl.constexpr((1 << (64 - by.value)) - 1) for by in (FIRST_SHIFT, SECOND_SHIFT, THIRD_SHIFT)
)


@triton.jit
def _patches(
    x, pixel, pixels, taps, channels, height, width, out_height, out_width,
    of_image, of_channel, of_row, of_column, pad,
    STRIDE: tl.constexpr, KERNEL: tl.constexpr,
):  # fmt: skip
    """The values under the kernel at each pixel (P,) and tap (T,): (P, T); 1 for the tap of the bias."""
    image = (pixel // (out_height * out_width)).to(tl.int64)
    row = (pixel // out_width) % out_height * STRIDE - pad
    column = pixel % out_width * STRIDE - pad
    channel, inside = taps // (KERNEL * KERNEL), taps % (KERNEL * KERNEL)
    rows, columns = row[:, None] + (inside // KERNEL)[None, :], column[:, None] + (inside % KERNEL)[None, :]
    there = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width) & (channel < channels)[None, :]
    there &= (pixel < pixels)[:, None]
    at = image[:, None] * of_image + channel[None, :] * of_channel
    found = tl.load(x + at + rows * of_row + columns * of_column, mask=there, other=0.0)
    return tl.where((taps == channels * KERNEL * KERNEL)[None, :], 1.0, found)


@triton.jit(do_not_specialize=["pixels", "height", "width", "out_height", "out_width", "pad"])
def _convolve(
    x, weight, y, pixels, channels, maps, height, width, out_height, out_width,
    of_image, of_channel, of_row, of_column, pad,
    STRIDE: tl.constexpr, KERNEL: tl.constexpr, TAPS: tl.constexpr, PIXELS: tl.constexpr, MAPS: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    own = tl.program_id(1) * MAPS + tl.arange(0, MAPS)
    taps = tl.arange(0, TAPS)
    count = channels * KERNEL * KERNEL + 1
    patches = _patches(
        x, pixel, pixels, taps, channels, height, width, out_height, out_width,
        of_image, of_channel, of_row, of_column, pad, STRIDE, KERNEL,
    )  # fmt: skip
    at = own[None, :] * count + taps[:, None]
    factors = tl.load(weight + at, mask=(taps < count)[:, None] & (own < maps)[None, :], other=0.0)
    found = tl.dot(patches, factors, input_precision=PRECISION)
    at = pixel.to(tl.int64)[:, None] * maps + own[None, :]
    tl.store(y + at, found.to(y.dtype.element_ty), mask=(pixel < pixels)[:, None] & (own < maps)[None, :])


@triton.jit(do_not_specialize=["pixels", "height", "width", "out_height", "out_width", "pad"])
def _convolve_backward(
    x, gradient, parts, pixels, channels, maps, height, width, out_height, out_width,
    of_image, of_channel, of_row, of_column, pad,
    STRIDE: tl.constexpr, KERNEL: tl.constexpr, TAPS: tl.constexpr, PIXELS: tl.constexpr, MAPS: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    own = tl.program_id(1) * MAPS + tl.arange(0, MAPS)
    taps = tl.arange(0, TAPS)
    count = channels * KERNEL * KERNEL + 1
    total = tl.zeros((MAPS, TAPS), tl.float32)
    for start in range(tl.program_id(0) * PIXELS, pixels, tl.num_programs(0) * PIXELS):
        pixel = start + tl.arange(0, PIXELS)
        patches = _patches(
            x, pixel, pixels, taps, channels, height, width, out_height, out_width,
            of_image, of_channel, of_row, of_column, pad, STRIDE, KERNEL,
        )  # fmt: skip
        at = pixel.to(tl.int64)[None, :] * maps + own[:, None]
        some = tl.load(gradient + at, mask=(pixel < pixels)[None, :] & (own < maps)[:, None], other=0.0)
        total += tl.dot(some.to(tl.float32), patches, input_precision=PRECISION)
    at = (tl.program_id(0) * maps + own)[:, None] * count + taps[None, :]
    tl.store(parts + at, total, mask=(own < maps)[:, None] & (taps < count)[None, :])


@triton.jit(do_not_specialize=["pixels", "height", "width", "out_height", "out_width"])
def _pool(
    x, y, places, pixels, channels, height, width, out_height, out_width,
    WINDOW: tl.constexpr, PIXELS: tl.constexpr, CHANNELS: tl.constexpr, IS_BACKWARD: tl.constexpr,
):  # fmt: skip
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    own = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    there = (pixel < pixels)[:, None] & (own < channels)[None, :]
    image = (pixel // (out_height * out_width)).to(tl.int64)
    row, column = (pixel // out_width) % out_height * WINDOW, pixel % out_width * WINDOW
    corner = ((image * height + row) * width + column)[:, None] * channels + own[None, :]
    at = pixel.to(tl.int64)[:, None] * channels + own[None, :]
    if IS_BACKWARD:
        gradient = tl.load(y + at, mask=there, other=0.0)
        place = tl.load(places + at, mask=there, other=0)
        for number in tl.static_range(WINDOW * WINDOW):
            inside = (number // WINDOW * width + number % WINDOW) * channels
            tl.store(x + corner + inside, tl.where(place == number, gradient, 0.0), mask=there)
    else:
        most = tl.load(x + corner, mask=there, other=0.0)
        place = tl.zeros((PIXELS, CHANNELS), tl.uint8)
        for number in tl.static_range(1, WINDOW * WINDOW):
            inside = (number // WINDOW * width + number % WINDOW) * channels
            value = tl.load(x + corner + inside, mask=there, other=0.0)
            is_more = (value > most) | (value != value)  # NaN stays, as in PyTorch
            most, place = tl.where(is_more, value, most), tl.where(is_more, number, place).to(tl.uint8)
        tl.store(y + at, most, mask=there)
        tl.store(places + at, place, mask=there)


@triton.jit(do_not_specialize=["values", "dropped"])
def _drop(x, y, key, values, dropped, scale, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    bits = (tl.load(key) + at // LANES) * GOLDEN
    bits = (bits ^ ((bits >> FIRST_SHIFT) & FIRST_MASK)) * FIRST_FACTOR
    bits = (bits ^ ((bits >> SECOND_SHIFT) & SECOND_MASK)) * SECOND_FACTOR
    bits ^= (bits >> THIRD_SHIFT) & THIRD_MASK
    level = (bits >> (at % LANES * BITS)) & (LEVELS - 1)
    found = tl.load(x + at, mask=at < values, other=0.0)
    found = tl.where((level ^ (LEVELS // 2)) >= dropped, found.to(tl.float32) * scale, 0.0)
    tl.store(y + at, found.to(y.dtype.element_ty), mask=at < values)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, pad: int, dtype: torch.dtype
    ) -> Tensor:
        """Maps (N, maps, H, W) of images (N, channels, H, W)."""
        kernel, maps = weight.shape[2], len(weight)
        height, width = ((size + 2 * pad - kernel) // stride + 1 for size in x.shape[2:])
        y = torch.empty(len(x), height, width, maps, dtype=dtype, device=x.device)
        extra = weight.new_zeros(maps, 1) if bias is None else bias[:, None]
        factors = torch.cat([weight.reshape(maps, -1), extra], 1)
        allowed = dtype != torch.float32 or torch.backends.cudnn.allow_tf32
        ctx.how = (stride, kernel, "tf32" if allowed else "ieee")
        ctx.where = (x.shape[1], maps, *x.shape[2:], height, width, *x.stride(), pad)
        ctx.has_bias, ctx.shape = bias is not None, weight.shape
        ctx.save_for_backward(x)
        pixels = y[..., 0].numel()
        _convolve[cdiv(pixels, PIXELS), _tiles(ctx)](x, factors, y, pixels, *ctx.where, **_constants(ctx))
        return y.permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        """The gradients of the weights and the biases; the images need none."""
        [x] = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        pixels, maps = gradient[:, 0].numel(), gradient.shape[1]
        programs = min(PARTS, cdiv(pixels, PIXELS))
        parts = torch.empty(programs, maps, ctx.shape[1:].numel() + 1, device=x.device)
        _convolve_backward[programs, _tiles(ctx)](x, gradient, parts, pixels, *ctx.where, **_constants(ctx))
        total = parts.sum(0)
        return None, total[:, :-1].reshape(ctx.shape), total[:, -1] if ctx.has_bias else None, *[None] * 3


def _constants(ctx: Any) -> dict[str, Any]:
    stride, kernel, precision = ctx.how
    channels, maps, *_ = ctx.where
    taps = max(16, next_power_of_2(channels * kernel**2 + 1))
    sizes = {"PIXELS": PIXELS, "MAPS": _maps(maps), "TAPS": taps}
    return sizes | {"STRIDE": stride, "KERNEL": kernel, "PRECISION": precision}


def _maps(maps: int) -> int:
    return max(16, min(MAPS, int(next_power_of_2(maps))))  # Triton's products begin at 16


def _tiles(ctx: Any) -> int:
    _, maps, *_ = ctx.where
    return int(cdiv(maps, _maps(maps)))


class _MaxPooling(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, window: int) -> Tensor:
        """The maxima (N, C, H // window, W // window)."""
        x = x.contiguous(memory_format=torch.channels_last)
        images, channels, height, width = x.shape
        y = torch.empty(images, height // window, width // window, channels, dtype=x.dtype, device=x.device)
        places = torch.empty_like(y, dtype=torch.uint8)
        ctx.window, ctx.shape = window, x.shape
        ctx.save_for_backward(places)
        _pooled(x, y, places, window, x.shape, is_backward=False)
        return y.permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        """The gradient goes to the places of the maxima."""
        [places] = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        is_covered = not (ctx.shape[2] % ctx.window or ctx.shape[3] % ctx.window)
        make = torch.empty if is_covered else torch.zeros
        images, channels, height, width = ctx.shape
        x = make(images, height, width, channels, dtype=gradient.dtype, device=gradient.device)
        _pooled(x, gradient, places, ctx.window, ctx.shape, is_backward=True)
        return x.permute(0, 3, 1, 2), None


def _pooled(x: Tensor, y: Tensor, places: Tensor, window: int, shape: torch.Size, *, is_backward: bool) -> None:
    images, channels, height, width = shape
    out = height // window, width // window
    pixels, own = images * out[0] * out[1], min(MAPS, next_power_of_2(channels))
    each = VALUES // own
    _pool[cdiv(pixels, each), cdiv(channels, own)](
        x, y, places, pixels, channels, height, width, *out,
        WINDOW=window, PIXELS=each, CHANNELS=own, IS_BACKWARD=is_backward,
    )  # fmt: skip


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, key: Tensor, rate: float) -> Tensor:
        """Some values become zero, the others grow."""
        ctx.rate = rate
        ctx.save_for_backward(key)
        return _dropped(x, key, rate)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        """The same values become zero, the others grow."""
        [key] = ctx.saved_tensors
        return _dropped(gradient.contiguous(), key, ctx.rate), None, None


def _dropped(x: Tensor, key: Tensor, rate: float) -> Tensor:
    y = torch.empty_like(x)
    dropped = round(rate * noise.LEVELS)
    scale = 1 / (1 - dropped / noise.LEVELS)
    _drop[(cdiv(x.numel(), VALUES),)](x, y, key, x.numel(), dropped, scale, BLOCK=VALUES)
    return y


def can_convolve(x: Tensor, weight: Tensor, groups: int) -> bool:
    """Whether `convolve` supports this: images in float32 that need no gradient, few taps, and no groups."""
    is_image = x.shape[1] in IMAGE_CHANNELS and not x.requires_grad and x.dtype == torch.float32
    is_depthwise = len(weight) == 1  # its input is a map, which needs no gradient in a validation, either
    return is_image and groups == 1 and not is_depthwise and weight[0].numel() < MOST_TAPS


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, pad: int) -> Tensor:
    """Maps (N, maps, H, W) of images (N, channels, H, W), in channels-last; in autocast's type if it is on."""
    dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else x.dtype
    found: Tensor = _Convolution.apply(x, weight, bias, stride, pad, dtype)
    return found


def max_pool(x: Tensor, window: int) -> Tensor:
    """PyTorch's max pooling of maps (N, C, H, W), in channels-last."""
    found: Tensor = _MaxPooling.apply(x, window)
    return found


def dropout(x: Tensor, key: Tensor, rate: float) -> Tensor:
    """Dropout of vectors (N, features) with the mask of `nas.training.noise` for a key, a single int64."""
    found: Tensor = _Dropout.apply(x.contiguous(), key, rate)
    return found


def compute_the_same(device: torch.device) -> bool:
    """Whether these kernels compute the same as PyTorch on a device. Triton may raise any exception."""
    with torch.inference_mode(mode=False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
        x = torch.linspace(0, 500, 72, device=device).sin().view(2, 1, 6, 6)
        weight = torch.linspace(0, 200, 27, device=device).sin().view(3, 1, 3, 3).requires_grad_()
        maps, right = convolve(x, weight, None, 1, 0), functional.conv2d(x, weight)
        ours, theirs = (torch.autograd.grad((made * right.detach()).sum(), weight)[0] for made in (maps, right))
        is_same_pooling = torch.equal(max_pool(maps, 2), functional.max_pool2d(maps, 2))
    return is_same_pooling and all(
        torch.allclose(mine, expected, rtol=1e-2, atol=1e-2) for mine, expected in ((maps, right), (ours, theirs))
    )
