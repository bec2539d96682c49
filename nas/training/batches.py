"""The images of a training, on its device or on their way there, and the random batches of an epoch."""

from __future__ import annotations

import os
import weakref
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from nas.training import noise
from nas.training.augmentation import CHANCES, FLIP, SHARE
from nas.training.recipe import Recipe

if TYPE_CHECKING:
    from nas.data.dataset import Dataset


LARGE = 2**28  # bytes of a file whose images are asked for before they are needed; mnist has 0.4 · 10⁸
AHEAD = 8  # steps before that; the images of a step come from a disk in less time than it computes
SHARE_OF_DEVICE = 0.5  # of the free memory of a GPU, which images may take; the networks need the rest
BUFFERS = 2  # batches on their way to a GPU


class Resident:
    """A data set for a device (as PyTorch names it).

    Its inputs are in the device's memory. If that has not enough, they stay where they are, perhaps in a mapped
    file, and `batches` brings them there; ``is_whole`` says which.
    """

    def __init__(self, dataset: Dataset, device: str) -> None:
        self.dataset, self.device = dataset, device
        if device.startswith("cuda"):  # Triton starts its kernels on the current device, not on the tensors'
            torch.cuda.set_device(torch.empty(0, device=device).device)
        train, validation = dataset.train, dataset.validation
        self.is_whole = _fit(train.inputs.nbytes + validation.inputs.nbytes, device)
        place = device if self.is_whole else "cpu"
        self.images, self.labels = train.inputs.to(place), train.labels.to(device)
        # (classes,): with these weights all classes count the same, and the mean image counts 1 (King and Zeng,
        # Logistic regression in rare events data, 2001).
        sizes = train.labels.bincount(minlength=len(dataset.classes)).clamp(min=1)  # a fold may lack a class
        self.class_weights = (len(train) / (len(sizes) * sizes.float())).to(device)
        self.validation = validation.inputs.to(place), validation.labels.to(device)
        self._file: int | None = None  # the descriptor of the file that is mapped, if it is large
        is_mapped = place == "cpu" and dataset.folder is not None and train.inputs.nbytes >= LARGE
        if is_mapped and hasattr(os, "posix_fadvise"):  # not on macOS and Windows
            with suppress(OSError):  # it was removed, and stays mapped
                self._file = os.open(Path(dataset.folder or "", "train_inputs.npy"), os.O_RDONLY)
                weakref.finalize(self, os.close, self._file)

    @cached_property
    def folds(self) -> list[Resident]:
        """For each fold of few inputs, the data that learn without it and are validated on it; mostly none."""
        numbers = range(max(self.dataset.folds, default=-1) + 1)
        return [Resident(self.dataset.fold(number), self.device) for number in numbers]

    @cached_property
    def whole(self) -> Resident:
        """The data that learn from the validation inputs, too."""
        return Resident(replace(self.dataset, train=self.dataset.whole, folder=None, folds=()), self.device)

    def batches(self, picked: Tensor) -> Iterator[Tensor]:
        """The images (B, C, H, W) of each step of an epoch, on the device; ``picked`` is that of the epoch."""
        if not self.is_whole:
            yield from self._brought(picked.cpu())
            return
        self._ask_for(picked[:AHEAD])
        for step, rows in enumerate(picked):
            self._ask_for(picked[step + AHEAD : step + AHEAD + 1])
            yield self.images[rows]

    def _ask_for(self, rows: Tensor) -> None:
        """Let the system read images from the disk while this process computes.

        Without that, each image of a file that does not fit in memory is waited for, and what lies around it is
        read, too: 8 MiB for one of 27 kB, where read_ahead_kb is 8192.
        """
        if self._file is not None:
            size = self.images[0].nbytes
            start = os.fstat(self._file).st_size - self.images.nbytes  # the header is before the images
            for row in rows.flatten().tolist():
                os.posix_fadvise(self._file, start + row * size, size, os.POSIX_FADV_WILLNEED)

    def _brought(self, picked: Tensor) -> Iterator[Tensor]:
        """Batches that a thread gathers and copies to the device, while that computes the step before."""
        is_cuda = self.device.startswith("cuda")
        stream = torch.cuda.Stream(self.device) if is_cuda else None  # type: ignore[no-untyped-call]

        def bring(rows: Tensor) -> tuple[Tensor, Any]:
            # PyTorch keeps pinned memory, and gives it out again when the copy from it is done.
            shape = (len(rows), *self.images.shape[1:])
            gathered = torch.empty(shape, dtype=self.images.dtype, pin_memory=is_cuda)
            torch.index_select(self.images, 0, rows, out=gathered)
            with torch.cuda.stream(stream) if is_cuda else nullcontext():
                batch = gathered.to(self.device, non_blocking=True)
                return batch, stream.record_event() if stream else None

        with ThreadPoolExecutor(1) as pool:
            coming = deque(pool.submit(bring, rows) for rows in picked[:BUFFERS])
            for step in range(len(picked)):
                batch, event = coming.popleft().result()
                if event is not None:
                    torch.cuda.current_stream(self.device).wait_event(event)
                    batch.record_stream(torch.cuda.current_stream(self.device))
                self._ask_for(picked[step + AHEAD : step + AHEAD + 1])
                coming.extend(pool.submit(bring, rows) for rows in picked[step + BUFFERS : step + BUFFERS + 1])
                yield batch


def _fit(size: int, device: str) -> bool:
    """Whether images of so many bytes may stay in a device's memory; what the CPU has not, it maps."""
    return not device.startswith("cuda") or size <= SHARE_OF_DEVICE * torch.cuda.mem_get_info(device)[0]


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
    # Each image is mirrored in every other epoch, so that two epochs show twice as much as one (Jordan, 94% on
    # CIFAR-10 in 3.29 seconds on a single GPU, 2024: alternating flip).
    mirrored = torch.rand(images if recipe.flip else 0, generator=torch.Generator().manual_seed(seed ^ 1))
    for number, steps in enumerate(lengths):
        picked = torch.randperm(images, generator=generator)[: steps * size]
        offsets = torch.randint(0, 2 * recipe.shift + 1, (steps * size, 2), generator=generator)
        chances = torch.rand(steps * size, CHANCES * recipe.takes_chances, generator=generator)
        if recipe.flip:
            chances[:, FLIP] = 1 - mirrored[picked] if number % 2 else mirrored[picked]
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
