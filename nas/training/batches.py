"""The images on the device that trains, and the batches of an epoch."""

from __future__ import annotations

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
    """A data set that lies on a device, as uint8.

    Args:
        dataset: training and validation images.
        device: the device, as PyTorch names it.
    """

    def __init__(self, dataset: Dataset, device: str) -> None:
        self.dataset, self.device = dataset, device
        if device.startswith("cuda"):  # Triton's kernels go to the current device, wherever their tensors are
            torch.cuda.set_device(torch.empty(0, device=device).device)
        self.images, self.labels = dataset.train.images.to(device), dataset.train.labels.to(device)
        self.validation = dataset.validation.images.to(device), dataset.validation.labels.to(device)


@dataclass(frozen=True)
class Batch:
    """The random choices of one training step."""

    picked: Tensor  # (B,) int64: the positions of the images in the data set
    offsets: Tensor  # (B, 2) int64: the row and the column where each image is cut out, see `shifted`
    keys: Tensor  # (dropout layers,) int64: the masks follow from them, see `nas.training.noise`
    rate: Tensor  # (1,): the learning rate


@dataclass(frozen=True)
class Epoch:
    """The batches of one epoch, or of the part of it that is trained: every field of `Batch`, step by step."""

    picked: Tensor  # (steps, B)
    offsets: Tensor  # (steps, B, 2)
    keys: Tensor  # (steps, dropout layers)
    rate: Tensor  # (steps, 1)

    def __len__(self) -> int:
        return len(self.picked)

    def __getitem__(self, step: int) -> Batch:
        return Batch(*(getattr(self, field.name)[step] for field in fields(self)))

    def at(self, step: Tensor) -> Batch:
        """The batch of a step (1,) whose number lies on the device."""
        return Batch(*(getattr(self, field.name).index_select(0, step)[0] for field in fields(self)))

    def to(self, device: str) -> Epoch:
        """The epoch on a device, except for what the CPU reads: the rate, and without CUDA the keys."""
        keys = on_device(self.keys, device) if device.startswith("cuda") else self.keys
        return Epoch(on_device(self.picked, device), on_device(self.offsets, device), keys, self.rate)


def on_device(tensor: Tensor, device: str) -> Tensor:
    """A CPU's tensor on a device. A GPU copies from pinned memory by itself, so the CPU does not wait."""
    if not device.startswith("cuda"):
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


class Epochs:
    """The epochs of a training. They follow from its seed alone.

    Args:
        seed: of the training, 0 to 2⁶⁴ - 1.
        epochs: the length of the training.
        images: the number of training images.
        dropouts: the number of dropout layers in the network.
        recipe: batch size, shifts and learning rates.
    """

    def __init__(self, seed: int, epochs: float, images: int, dropouts: int, recipe: Recipe) -> None:
        self.batch_size = min(recipe.batch_size, images)
        self._plan, self._images = plan(epochs, images, self.batch_size), images
        self._dropouts, self._recipe, self._seed = dropouts, recipe, seed
        self._generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return len(self._plan)

    def draw(self, number: int) -> Epoch:
        """Draw the next epoch, on the CPU.

        Args:
            number: of the epoch, from 0. Epochs must be drawn in order.
        """
        steps, before, total = self._plan[number], sum(self._plan[:number]), sum(self._plan)
        count, pixels = steps * self.batch_size, self._recipe.shift
        picked = torch.randperm(self._images, generator=self._generator)[:count]
        offsets = torch.randint(0, 2 * pixels + 1, (count, 2), generator=self._generator)
        layers = torch.arange(before * self._dropouts, (before + steps) * self._dropouts)
        rates = [[self._recipe.rate((before + step) / total)] for step in range(steps)]
        return Epoch(
            picked.view(steps, self.batch_size),
            offsets.view(steps, self.batch_size, 2),
            noise.keys(self._seed, layers).view(steps, self._dropouts),
            torch.tensor(rates, dtype=torch.float64),
        )


def plan(epochs: float, images: int, batch_size: int) -> list[int]:
    """The number of batches in each epoch; the last epoch is cut short where ``epochs`` is not whole.

    The images that do not fill a batch are left out of an epoch; each epoch leaves out others.
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
        offsets: (N, 2), from 0 to 2 · ``pixels``. The image gets a black margin of ``pixels``; the row and the
            column are where the new image begins in it.
        pixels: the longest distance.
    """
    if pixels == 0:
        return images
    height, width = images.shape[2:]
    padded = functional.pad(images, (pixels,) * 4)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # (N, C, 2·pixels + 1, 2·pixels + 1, H, W), a view
    down, right = offsets.unbind(1)
    return windows[torch.arange(len(images), device=images.device), :, down, right]
