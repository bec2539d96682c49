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

from nas.training.augmentation import augmented
from nas.training.batches import draw_epochs

if TYPE_CHECKING:
    from nas.data.dataset import Dataset
    from nas.records.predictions import Array
    from nas.training.recipe import Recipe

SIDE = 96  # pixels of a picture's longer side at most: it takes 0.7 inches of a figure
NARROWEST = 4  # pixels; what is narrower is a recording, not an image
EXAMPLES = 4  # of a class
SMALLEST, GAP = 48, 4  # pixels of the longer side of a picture in a strip, at least, and between two


def pictures(images: Tensor) -> Array:
    """Images (N, C, H, W), 0 to 255, as small pictures (N, h, w, 1 or 3) uint8.

    Three channels are colours; of any other number, the mean is shown in grey. What is no image, such as a
    recording (N, channels, time, 1), becomes pictures without pixels.
    """
    height, width = images.shape[2:]
    if min(height, width) < NARROWEST:
        return images.new_zeros((len(images), 0, 0, 1), dtype=torch.uint8).numpy()
    small = images.float() if images.shape[1] == 3 else images.float().mean(1, keepdim=True)
    if max(height, width) > SIDE:
        size = [max(1, round(side * SIDE / max(height, width))) for side in (height, width)]
        small = functional.interpolate(small, size, mode="bilinear", antialias=True)
    return small.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


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
    found = [(data.train.labels == label).nonzero().flatten() for label in classes]
    # Evenly spaced: neighbours may be photographs of one thing. A class with fewer images shows some twice.
    chosen = torch.cat([places[torch.arange(EXAMPLES) * len(places) // EXAMPLES] for places in found])
    [epoch] = draw_epochs(seed, 1.0, len(chosen), 0, replace(recipe, batch_size=len(chosen)))
    batch, mean = epoch[0], torch.tensor(data.mean).view(-1, 1, 1)
    images = data.train.inputs[chosen]
    changed = torch.empty_like(images, dtype=torch.float32)
    changed[batch.picked] = augmented(images[batch.picked], batch.offsets, batch.chances, recipe, mean).float()
    both = pictures(torch.cat([images.float(), changed]))
    return both.reshape(2, len(classes), EXAMPLES, *both.shape[1:]).swapaxes(0, 1)
