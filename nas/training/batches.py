"""The images on the device that trains, and the random batches of an epoch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from nas.training import noise
from nas.training.augmentation import CHANCES, SHARE
from nas.training.recipe import Recipe

if TYPE_CHECKING:
    from nas.data.dataset import Dataset


class Resident:
    """A data set in the memory of a device (as PyTorch names it), as uint8."""

    def __init__(self, dataset: Dataset, device: str) -> None:
        self.dataset, self.device = dataset, device
        if device.startswith("cuda"):  # Triton starts its kernels on the current device, not on the tensors'
            torch.cuda.set_device(torch.empty(0, device=device).device)
        self.images, self.labels = dataset.train.images.to(device), dataset.train.labels.to(device)
        # (classes,): with these weights all classes count the same, and the mean image counts 1 (King and Zeng,
        # Logistic regression in rare events data, 2001).
        sizes = dataset.train.labels.bincount(minlength=len(dataset.classes))
        self.class_weights = (len(dataset.train) / (len(sizes) * sizes.float())).to(device)
        self.validation = dataset.validation.images.to(device), dataset.validation.labels.to(device)


@dataclass(frozen=True)
class Batch:
    """The random choices of one training step; in an `Epoch` each field has one more dimension, the steps."""

    picked: Tensor  # (B,) int64: the positions of the images in the data set
    offsets: Tensor  # (B, 2) int64: the row and the column where each image is cut out, see `shifted`
    chances: Tensor  # (B, CHANCES) float32: decide the other changes, see `augmented`; (B, 0) if there are none
    keys: Tensor  # (dropout layers,) int64: the masks follow from them, see `nas.training.noise`
    rate: Tensor  # (1,): the learning rate


class Epoch(Batch):
    """The batches of an epoch, or of a part of it at the end of a training; ``rate`` is (steps, 1)."""

    def __len__(self) -> int:
        return len(self.picked)

    def __getitem__(self, step: int) -> Batch:
        return Batch(*(getattr(self, field.name)[step] for field in fields(self)))

    def at(self, step: Tensor) -> Batch:
        """The batch of a step, whose number (1,) is in the memory of the device."""
        return Batch(*(getattr(self, field.name).index_select(0, step)[0] for field in fields(self)))

    def to(self, device: str) -> Epoch:
        """The epoch on a device, except for the fields that the CPU reads: the rate, and without CUDA the keys."""
        if not device.startswith("cuda"):
            return replace(
                self, **{name: getattr(self, name).to(device) for name in ("picked", "offsets", "chances")}
            )
        pinned = (tensor.pin_memory() for tensor in (self.picked, self.offsets, self.chances, self.keys))
        # From pinned memory, the GPU copies while the CPU goes on.
        picked, offsets, chances, keys = (tensor.to(device, non_blocking=True) for tensor in pinned)
        return Epoch(picked, offsets, chances, keys, self.rate)


def draw_epochs(seed: int, epochs: float, images: int, dropouts: int, recipe: Recipe) -> Iterator[Epoch]:
    """Draw the epochs of a training, on the CPU, from its ``seed`` (0 to 2⁶⁴ - 1).

    ``images`` is the number of training images, ``dropouts`` the number of dropout layers in the network.
    """
    size, before = min(recipe.batch_size, images), 0
    generator = torch.Generator().manual_seed(seed)
    lengths = plan(epochs, images, size)
    for steps in lengths:
        picked = torch.randperm(images, generator=generator)[: steps * size]
        offsets = torch.randint(0, 2 * recipe.shift + 1, (steps * size, 2), generator=generator)
        chances = torch.rand(steps * size, CHANCES * recipe.takes_chances, generator=generator)
        if recipe.mixup:
            shares = np.random.default_rng([seed, before]).beta(recipe.mixup, recipe.mixup, steps * size)
            chances[:, SHARE] = torch.from_numpy(shares)
        layers = torch.arange(before * dropouts, (before + steps) * dropouts)
        rates = [[recipe.rate((before + step) / sum(lengths))] for step in range(steps)]
        yield Epoch(
            picked.view(steps, size),
            offsets.view(steps, size, 2),
            chances.view(steps, size, chances.shape[1]),
            noise.keys(seed, layers).view(steps, dropouts),
            torch.tensor(rates, dtype=torch.float64),
        )
        before += steps


def plan(epochs: float, images: int, batch_size: int) -> list[int]:
    """The number of batches in each epoch. A fraction of an epoch makes the last epoch shorter.

    The images that do not fill a batch are left out of an epoch; each epoch leaves out others.
    """
    whole, rest = divmod(epochs, 1)
    steps = [images // batch_size] * int(whole)
    if rest > 1e-9 or not steps:
        steps.append(min(max(1, round(rest * images / batch_size)), images // batch_size))
    return steps
