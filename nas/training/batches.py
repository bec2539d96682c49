"""What networks learn from, on the device where they learn: the data, and the batches of an epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from nas.training import noise
from nas.training.recipe import Recipe

if TYPE_CHECKING:
    from nas.data.dataset import Dataset


class Resident:
    """A data set on a device, once, as uint8.

    Args:
        dataset: training and validation images.
        device: where, as PyTorch names it.
    """

    def __init__(self, dataset: Dataset, device: str) -> None:
        self.dataset, self.device = dataset, device
        if device.startswith("cuda"):  # Triton's kernels go to the current device, wherever their tensors are
            torch.cuda.set_device(torch.empty(0, device=device).device)
        self.images, self.labels = dataset.train.images.to(device), dataset.train.labels.to(device)
        self.validation = dataset.validation.images.to(device), dataset.validation.labels.to(device)


@dataclass(frozen=True)
class Batch:
    """What one step of ``copies`` networks needs to know."""

    picked: Tensor  # (B, copies) int64: which images
    offsets: Tensor  # (B, copies, 2) int64: from where their rows and columns are taken, see `shifted`
    keys: Tensor  # (dropout layers, copies) int64
    rate: Tensor  # (1,): the learning rate


@dataclass(frozen=True)
class Epoch:
    """The batches of one epoch, or of the part of it that is trained: every field of `Batch`, step by step."""

    picked: Tensor  # (steps, B, copies)
    offsets: Tensor  # (steps, B, copies, 2)
    keys: Tensor  # (steps, dropout layers, copies)
    rate: Tensor  # (steps, 1)

    def __len__(self) -> int:
        return len(self.picked)

    def __getitem__(self, step: int) -> Batch:
        return Batch(*(getattr(self, field.name)[step] for field in fields(self)))

    def at(self, step: Tensor) -> Batch:
        """The batch of a step (1,) that only the device knows."""
        return Batch(*(getattr(self, field.name).index_select(0, step)[0] for field in fields(self)))

    def to(self, device: str) -> Epoch:
        """The same on a device, but for what the CPU works with: the rate, and without CUDA the keys."""
        keys = on_device(self.keys, device) if device.startswith("cuda") else self.keys
        return Epoch(on_device(self.picked, device), on_device(self.offsets, device), keys, self.rate)


def on_device(tensor: Tensor, device: str) -> Tensor:
    """A CPU's tensor on a device. From pinned memory a GPU copies by itself, and nobody waits."""
    if not device.startswith("cuda"):
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


class Epochs:
    """The epochs of ``copies`` trainings, each with a seed of its own.

    What a copy sees follows from its seed alone, not from those beside it.

    Args:
        seeds: one a copy.
        epochs: of the whole training.
        images: how many there are to learn from.
        dropouts: how many dropout layers a network has.
        recipe: batch size, shifts and rates.
    """

    def __init__(self, seeds: Sequence[int], epochs: float, images: int, dropouts: int, recipe: Recipe) -> None:
        self.batch_size = min(recipe.batch_size, images)
        self._plan, self._images = plan(epochs, images, self.batch_size), images
        self._dropouts, self._recipe = dropouts, recipe
        self._seeds = torch.tensor([seed - 2**64 if seed >= 2**63 else seed for seed in seeds])
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __len__(self) -> int:
        return len(self._plan)

    def draw(self, number: int) -> Epoch:
        """The next epoch, on the CPU; ``number`` counts them from 0. They are to be drawn in order."""
        steps, before, total = self._plan[number], sum(self._plan[:number]), sum(self._plan)
        count, pixels = steps * self.batch_size, self._recipe.shift
        rates = [[self._recipe.rate((before + step) / total)] for step in range(steps)]
        picked, offsets = [], []
        for generator in self._generators:
            picked.append(torch.randperm(self._images, generator=generator)[:count])
            offsets.append(torch.randint(0, 2 * pixels + 1, (count, 2), generator=generator))
        layers = torch.arange(before * self._dropouts, (before + steps) * self._dropouts)
        copies = len(picked)
        return Epoch(
            torch.stack(picked, 1).view(steps, self.batch_size, copies),
            torch.stack(offsets, 1).view(steps, self.batch_size, copies, 2),
            noise.keys(self._seeds, layers).view(steps, self._dropouts, copies),
            torch.tensor(rates, dtype=torch.float64),
        )


def plan(epochs: float, images: int, batch_size: int) -> list[int]:
    """How many batches each epoch has; the last one is cut short where ``epochs`` is not whole.

    A remainder of images that fills no batch is left out of its epoch; each epoch leaves out others.
    """
    whole, rest = divmod(epochs, 1)
    steps = [images // batch_size] * int(whole)
    if rest > 1e-9 or not steps:
        steps.append(min(max(1, round(rest * images / batch_size)), images // batch_size))
    return steps


def shifted(images: Tensor, offsets: Tensor, pixels: int) -> Tensor:
    """Each image (N, C, H, W) moved by up to ``pixels`` up or down and left or right; black moves in.

    Args:
        images: of any type.
        offsets: (N, 2), from 0 to 2 · ``pixels``: the row and the column, of the image with a black margin of
            ``pixels``, where what is seen begins.
        pixels: at most.
    """
    if pixels == 0:
        return images
    height, width = images.shape[2:]
    padded = functional.pad(images, (pixels,) * 4)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # (N, C, 2·pixels + 1, 2·pixels + 1, H, W), a view
    down, right = offsets.unbind(1)
    return windows[torch.arange(len(images), device=images.device), :, down, right]
