"""Random changes of training series, batch by batch, on the device that trains.

As in `nas.training.augmentation`, the random numbers of the batch are given. The steps after the end of a series
are NaN, and stay so. (Iwana and Uchida, An empirical survey of data augmentation for time series classification
with neural networks, 2021, compares these changes; slicing and warping of windows: Le Guennec et al., 2016.)
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nas.training import noise
from nas.training.augmentation import SHARE

if TYPE_CHECKING:
    from nas.training.recipe import Recipe

# The columns of ``chances`` (see `nas.training.augmentation`), of which the last one is the share in a mixture.
BENT, BENT_TWICE, MAGNITUDE, FIRST_BITS, OTHER_BITS, START, LENGTH = range(7)
BITS = 2**24  # of a chance, a float32 below 1
DEVIATION = math.sqrt(4 / 12)  # of a sum of four uniform numbers from 0 to 1


def augmented(
    series: Tensor, offsets: Tensor, chances: Tensor, recipe: Recipe, mean: Tensor, std: Tensor
) -> Tensor:
    """Series (N, C, T) float32, changed as the recipe says.

    Args:
        series: NaN after the end of each.
        offsets: (N, 2) int64, from 0 to 2 · ``recipe.shift``: the first column moves a series in time.
        chances: (N, CHANCES) float32; (N, 0) if ``recipe.takes_chances`` is false.
        recipe: what to change.
        mean: (C, 1), of the training series.
        std: (C, 1), of the training series.
    """
    if recipe.window or recipe.warp or recipe.shift:
        series = resampled(series, offsets, chances, recipe)
    if recipe.magnitude:
        factor = torch.exp(math.log1p(recipe.magnitude) * (2 * chances[:, MAGNITUDE] - 1))
        series = mean + factor.view(-1, 1, 1) * (series - mean)
    if recipe.jitter:
        series = series + recipe.jitter * std * _noise(chances, series)
    if recipe.erasing:
        series = erased(series, chances, recipe.erasing, mean)
    if recipe.mixup:
        share = chances[:, SHARE].view(-1, 1, 1)
        series = share * series + (1 - share) * series.roll(1, 0)
    return series


def resampled(series: Tensor, offsets: Tensor, chances: Tensor, recipe: Recipe) -> Tensor:
    """Series (N, C, T): a window of each, its time bent, and moved, at as many steps as before.

    Values between two steps are interpolated. A window has at least the share 1 - ``recipe.window`` of the series.
    Time is bent by two sine waves, so that it never runs backwards. What is moved in is the first or last value.
    """
    count, _, steps = series.shape
    ends = (~series[:, :1].isnan()).sum(2).sub(1).to(series.dtype)  # (N, 1), of the last step
    time = torch.arange(steps, device=series.device, dtype=series.dtype).expand(count, -1)
    place = time / ends.clamp(min=1)
    if recipe.warp:
        once, twice = (2 * chances[:, [column]] - 1 for column in (BENT, BENT_TWICE))
        place = place + recipe.warp * (
            once * torch.sin(math.pi * place) / math.pi + twice * torch.sin(2 * math.pi * place) / (2 * math.pi)
        )
    if recipe.window:
        share = 1 - recipe.window * chances[:, [LENGTH]]
        place = chances[:, [START]] * (1 - share) + share * place
    moved = place * ends + (offsets[:, :1] - recipe.shift)
    moved = torch.minimum(moved.clamp(min=0), ends)
    before = moved.floor().long()
    after = torch.minimum(before + 1, ends.long())
    weight = (moved - before)[:, None]
    first, second = (series.gather(2, at[:, None].expand(series.shape)) for at in (before, after))
    return torch.where(series.isnan(), series, first + weight * (second - first))


def erased(series: Tensor, chances: Tensor, share: float, mean: Tensor) -> Tensor:
    """Series (N, C, T), in each a part of that share of the steps painted over with the mean, anywhere."""
    steps = torch.arange(series.shape[2], device=series.device) + 0.5
    ends = (~series[:, 0].isnan()).sum(1, keepdim=True)
    is_inside = (steps - ends * chances[:, [START]]).abs() < share * ends / 2
    return torch.where(is_inside[:, None] & ~series.isnan(), mean, series)


def _noise(chances: Tensor, series: Tensor) -> Tensor:
    """Noise like the series (N, C, T), of mean 0 and deviation 1: sums of four uniform numbers, nearly normal."""
    high, low = ((BITS * chances[:, column]).long() for column in (FIRST_BITS, OTHER_BITS))
    key = noise.mixed(high * BITS + low)
    values = series[0].numel()
    bits = noise.mixed(torch.arange(values, device=series.device) + key[:, None])
    summed = bits.view(torch.int16).view(len(series), values, noise.LANES).to(torch.float32).sum(2)
    return summed.view(series.shape) / (noise.LEVELS * DEVIATION)
