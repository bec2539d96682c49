"""Many jobs on one device: one after the other, or on a GPU several at the same time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from nas.training.batches import Resident
from nas.training.gpu.lanes import Lane, Lanes
from nas.training.modules import gpu_kernels
from nas.training.network import Network
from nas.training.recipe import Recipe
from nas.training.trainer import train_resident
from nas.trial import Job, Trial

if TYPE_CHECKING:
    from nas.data.dataset import Dataset

Result = tuple[Trial, Network | None]  # None where the training failed


class Group:
    """Trains lists of jobs on one device, and keeps there what the next list can use.

    Args:
        dataset: training and validation images.
        recipe: how to train.
        device: where to train, as PyTorch names it.
        size: how many jobs a CUDA device trains at a time; ``auto`` is as many as a short measurement finds worth
            it. Other devices train one job after the other.
        warn: is called with a line for the user when a faster path fails.
    """

    def __init__(
        self,
        dataset: Dataset,
        recipe: Recipe,
        device: str = "cpu",
        size: int | str = 1,
        warn: Callable[[str], None] = lambda line: None,
    ) -> None:
        is_cuda = device.startswith("cuda")
        self._data, self._recipe = Resident(dataset, device), recipe
        if is_cuda:  # PyTorch would take tf32 for convolutions, and not for linear maps
            _, reason = gpu_kernels(self._data.images.device)
            if reason:
                warn(f"some layers are slower than they could be: Triton does not work here ({reason})")
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = recipe.precision != "float32"
        self._lanes = Lanes(self._lane, size, warn) if is_cuda and size != 1 else None

    def train(self, jobs: Sequence[Job]) -> Iterator[Result]:
        """A trial for each job, and its trained network, as they finish; an error is the trial of its job."""
        waiting = deque(jobs)
        if self._lanes is not None:
            yield from self._lanes.train(waiting)
        for job in waiting:
            try:
                result: Result = train_resident(job, self._data, self._recipe)
            except Exception as error:  # noqa: BLE001  # a candidate must not cost more than itself
                result = Trial.from_error(job, error), None
            yield result

    def _lane(self) -> Lane:
        return Lane(self._data, self._recipe)
