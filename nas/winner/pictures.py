"""Small pictures for a report: images of every class as a network sees them, and its worst mistakes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from nas.training.batches import draw_epochs
from nas.training.stepper import changed

if TYPE_CHECKING:
    from nas.data.dataset import Dataset
    from nas.records.predictions import Array
    from nas.training.recipe import Recipe

SIDE = 96  # pixels of a picture's longer side at most: it takes 0.7 inches of a figure
NARROWEST = 4  # pixels; what is narrower is a recording, not an image
EXAMPLES = 4  # of a class
CURVES, SUPERSAMPLED, THICK = (
    (96, 64),
    3,
    3,
)  # pixels of the drawing of a series, smoothed; of the line before that
LINES = 6  # channels of a series that are drawn
COLOURS = ((0, 90, 181), (220, 50, 32), (26, 133, 84), (230, 159, 0), (112, 72, 160), (90, 90, 90))
SMALLEST, GAP = 48, 4  # pixels of the longer side of a picture in a strip, at least, and between two


def pictures(images: Tensor) -> Array:
    """Inputs as small pictures (N, h, w, 1 or 3) uint8.

    Of images (N, C, H, W), 0 to 255, three channels are colours; of any other number, the mean is shown in grey.
    Series (N, C, T) become curves. What is neither, such as tokens or an image of one row, becomes pictures
    without pixels.
    """
    if images.ndim == 3:
        return curves(images.numpy())
    if images.ndim == 2:
        return images.new_zeros((len(images), 0, 0, 1), dtype=torch.uint8).numpy()
    height, width = images.shape[2:]
    if min(height, width) < NARROWEST:
        return images.new_zeros((len(images), 0, 0, 1), dtype=torch.uint8).numpy()
    small = images.float() if images.shape[1] == 3 else images.float().mean(1, keepdim=True)
    if max(height, width) > SIDE:
        size = [max(1, round(side * SIDE / max(height, width))) for side in (height, width)]
        small = functional.interpolate(small, size, mode="bilinear", antialias=True)
    return small.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def curves(series: Array) -> Array:
    """Series (N, C, T) as drawings of their curves, (N, h, w, 3) uint8, all with the same axes.

    A colour stands for each of the first `LINES` channels. The values go from the lowest to the highest of these
    series; each curve ends where its series does.
    """
    count, channels, steps = series.shape
    wide, high = CURVES[0] * SUPERSAMPLED, CURVES[1] * SUPERSAMPLED
    canvas = np.full((count, high, wide, 3), 255, np.uint8)
    shown = series[:, :LINES]
    low, span = np.nanmin(shown, initial=np.inf), 1.0
    if np.isfinite(low):
        span = max(float(np.nanmax(shown, initial=-np.inf) - low), 1e-12)
    place = np.linspace(0, steps - 1, wide)
    before = place.astype(int)
    after = np.minimum(before + 1, steps - 1)
    rows = np.arange(high)[:, None]
    for number in range(min(channels, LINES)):
        colour = np.array(COLOURS[number], np.uint8)
        for picture, values in zip(canvas, shown[:, number], strict=True):
            at = values[before] + (place - before) * (values[after] - values[before])
            at = np.where(np.isnan(at), values[before], at)  # the last step of a series that ends
            y = (high - 1 - THICK) * (1 - (at - low) / span)
            previous = np.concatenate([y[:1], y[:-1]])
            top, bottom = np.fmin(y, previous), np.fmax(y, previous) + THICK
            with np.errstate(invalid="ignore"):
                picture[(rows >= top) & (rows <= bottom) & ~np.isnan(y)] = colour
    cells = canvas.reshape(count, CURVES[1], SUPERSAMPLED, CURVES[0], SUPERSAMPLED, 3)
    smooth: Array = cells.mean((2, 4)).round().astype(np.uint8)
    return smooth


def strip(shown: Array) -> bytes:
    """Pictures (N, h, w, 1 or 3) uint8 beside one another, as the content of a PNG file."""
    larger = max(1, -(-SMALLEST // max(shown.shape[1:3])))
    wide = [np.repeat(np.repeat(picture, larger, 0), larger, 1) for picture in shown]
    gap = np.full((wide[0].shape[0], GAP, shown.shape[-1]), 255, np.uint8)
    row = np.concatenate([part for picture in wide for part in (picture, gap)][:-1], axis=1)
    file = io.BytesIO()
    Image.fromarray(row[..., 0] if row.shape[-1] == 1 else row).save(file, "PNG")
    return file.getvalue()


def examples(data: Dataset, recipe: Recipe, classes: Sequence[int], seed: int) -> Array:
    """Training images of some classes, as they are and as the recipe changes them: see `Predictions.examples`.

    Args:
        data: the images, in the size and the colours that a network gets.
        recipe: of the training.
        classes: the labels, each of which has an image.
        seed: of a training: decides the changes.
    """
    if data.kind == "tokens":
        return np.zeros((len(classes), 2, EXAMPLES, 0, 0, 1), np.uint8)
    shown = data.whole if data.folds else data.train  # a class of few series may be in one fold only
    found = [(shown.labels == label).nonzero().flatten() for label in classes]
    # Evenly spaced: neighbours may be photographs of one thing. A class with fewer images shows some twice.
    chosen = torch.cat([places[torch.arange(EXAMPLES) * len(places) // EXAMPLES] for places in found])
    [epoch] = draw_epochs(seed, 1.0, len(chosen), 0, replace(recipe, batch_size=len(chosen)))
    batch, inputs = epoch[0], shown.inputs[chosen]
    moments = (torch.tensor(values).view(-1, *[1] * (inputs.ndim - 2)) for values in (data.mean, data.std))
    after = torch.empty_like(inputs, dtype=torch.float32)
    after[batch.picked] = changed(inputs[batch.picked], batch.offsets, batch.chances, recipe, *moments).float()
    both = pictures(torch.cat([inputs.float(), after]))
    return both.reshape(2, len(classes), EXAMPLES, *both.shape[1:]).swapaxes(0, 1)
