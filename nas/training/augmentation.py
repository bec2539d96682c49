"""Random changes of training images, batch by batch, on the device that trains.

Each function is given the random numbers of the batch, which were drawn on the CPU from the seed of the training;
so a step depends on nothing else, and can be recorded as a CUDA graph.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from nas.training.recipe import Recipe

# The columns of ``chances``: numbers from 0 to 1, uniform but for the share of an image in its mixture.
FLIP, ROTATION, SCALE, BRIGHTNESS, COLOUR, ROW, COLUMN, SHARE = range(8)
CHANCES = 8
LUMA = (0.299, 0.587, 0.114)  # the shares of red, green and blue in the grey of a colour (ITU-R BT.601)


def augmented(images: Tensor, offsets: Tensor, chances: Tensor, recipe: Recipe, mean: Tensor) -> Tensor:
    """Images (N, C, H, W), changed as the recipe says: uint8 or float, 0 to 255.

    Args:
        images: uint8.
        offsets: (N, 2) int64, from 0 to 2 · ``recipe.shift``, see `shifted`.
        chances: (N, CHANCES) float32; (N, 0) if ``recipe.takes_chances`` is false.
        recipe: what to change.
        mean: (C, 1, 1), the mean of the training images: the colour of erased pixels.
    """
    if recipe.rotation or recipe.scale:
        images = warped(images, offsets, chances, recipe)
    else:
        images = shifted(images, offsets, recipe.shift)
        if recipe.flip:
            mirrored = chances[:, FLIP] < recipe.flip
            images = torch.where(mirrored.view(-1, 1, 1, 1), images.flip(3), images)
    if recipe.brightness or recipe.colour:
        images = coloured(images, chances, recipe)
    if recipe.erasing:
        images = erased(images, chances, recipe.erasing, mean)
    if recipe.mixup:
        share = chances[:, SHARE].view(-1, 1, 1, 1)
        images = share * images + (1 - share) * images.roll(1, 0)
    return images


def shifted(images: Tensor, offsets: Tensor, pixels: int) -> Tensor:
    """Images (N, C, H, W), each moved up or down and left or right by up to ``pixels``; black moves in.

    ``offsets`` (N, 2), from 0 to 2 · ``pixels``, are the row and the column at which each new image begins in the
    old image with a black margin of ``pixels``.
    """
    if pixels == 0:
        return images
    height, width = images.shape[2:]
    padded = functional.pad(images, (pixels,) * 4)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # (N, C, 2·pixels + 1, 2·pixels + 1, H, W), a view
    down, right = offsets.unbind(1)
    return windows[torch.arange(len(images), device=images.device), :, down, right]


def warped(images: Tensor, offsets: Tensor, chances: Tensor, recipe: Recipe) -> Tensor:
    """Images (N, C, H, W), mirrored, turned, zoomed and moved in one bilinear step; float, black moves in."""
    height, width = images.shape[2:]
    angle = math.radians(recipe.rotation) * _around_zero(chances[:, ROTATION])
    zoom = torch.exp(math.log1p(recipe.scale) * _around_zero(chances[:, SCALE]))
    mirror = torch.where(chances[:, FLIP] < recipe.flip, -1.0, 1.0)
    cos, sin = angle.cos() / zoom, angle.sin() / zoom
    down, right = (offsets - recipe.shift).to(zoom.dtype).unbind(1)
    # Where the values of a new pixel are in the old image; both are squares from -1 to 1 for PyTorch.
    columns = torch.stack([mirror * cos, -mirror * sin * height / width, right * 2 / width], 1)
    rows = torch.stack([sin * width / height, cos, down * 2 / height], 1)
    grid = functional.affine_grid(torch.stack([columns, rows], 1), list(images.shape), align_corners=False)
    return functional.grid_sample(images.to(grid.dtype), grid, align_corners=False)


def coloured(images: Tensor, chances: Tensor, recipe: Recipe) -> Tensor:
    """Images (N, C, H, W) of another brightness and, if they have three channels, another saturation; float."""
    bright = 1 + recipe.brightness * _around_zero(chances[:, BRIGHTNESS])
    images = images * bright.view(-1, 1, 1, 1)
    if recipe.colour and images.shape[1] == len(LUMA):
        saturation = (1 + recipe.colour * _around_zero(chances[:, COLOUR])).view(-1, 1, 1, 1)
        red, green, blue = images.unbind(1)
        grey = (LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue)[:, None]
        images = grey + saturation * (images - grey)
    return images.clamp(0, 255)


def erased(images: Tensor, chances: Tensor, side: float, mean: Tensor) -> Tensor:
    """Images (N, C, H, W), in each a square painted over, whose centre is anywhere (DeVries and Taylor, 2017).

    ``side`` is the square's side as a fraction of the image's shorter side; a part of it may lie outside.
    """
    half = side * min(images.shape[2:]) / 2

    def near(centre: Tensor, size: int) -> Tensor:
        pixels = torch.arange(size, device=images.device) + 0.5
        return (pixels - size * centre[:, None]).abs() < half

    rows, columns = near(chances[:, ROW], images.shape[2]), near(chances[:, COLUMN], images.shape[3])
    inside = rows[:, None, :, None] & columns[:, None, None, :]
    return torch.where(inside, mean.to(torch.float32), images.to(torch.float32))


def _around_zero(chance: Tensor) -> Tensor:
    """From [0, 1) to [-1, 1)."""
    return 2 * chance - 1
