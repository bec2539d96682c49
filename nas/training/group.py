"""Many jobs on one device: one after the other, or on a GPU several at the same time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from nas.training.batches import Resident
from nas.training.cores import Cores
from nas.training.gpu.lanes import Lane, Lanes
from nas.training.modules import gpu_kernels
from nas.training.network import Network
from nas.training.recipe import Recipe
from nas.training.trainer import build, latency_ms, train_folds, train_resident
from nas.trial import Job, Trial

if TYPE_CHECKING:
    from nas.data.dataset import Dataset


class Group:
    """Trains lists of jobs on one device, and keeps the data and the captured steps there for the next list.

    Args:
        dataset: training and validation images.
        recipe: how to train; the answers of a candidate change it.
        device: the device that trains, as PyTorch names it.
        size: the number of jobs that a CUDA device trains at a time; ``auto`` decides it by a short measurement.
            Other devices train one job after the other.
        warn: called with a line for the user when a faster path fails.
        cores: returns how many cores of a CPU a training may use at this moment.
        keeps_weights: whether the trained networks are wanted.
    """

    def __init__(
        self,
        dataset: Dataset,
        recipe: Recipe,
        device: str = "cpu",
        size: int | str = 1,
        warn: Callable[[str], None] = lambda line: None,
        cores: Callable[[], int] = lambda: 1,
        keeps_weights: bool = True,
    ) -> None:
        self._cores, self._keeps_weights = cores, keeps_weights
        self._data, self._recipe = Resident(dataset, device), recipe
        self._lanes: Lanes | None = None
        if device.startswith("cuda"):
            _, reason = gpu_kernels(self._data.labels.device)
            if reason:
                warn(f"some layers are slower than they could be: Triton does not work here ({reason})")
            # PyTorch's default is tf32 for convolutions, but not for linear maps.
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = recipe.precision != "float32"
            if not self._data.is_whole:
                warn("the data are larger than the GPU's memory: it gets them batch by batch, for one network")
            elif size != 1 and not dataset.folds:
                self._lanes = Lanes(lambda: Lane(self._data, recipe), size, warn)

    def latency(self, job: Job) -> float:
        """The milliseconds that the job's network takes for one image, whatever its weights are."""
        devices = [self._data.device] if self._data.device.startswith("cuda") else []  # None would start every GPU
        with torch.random.fork_rng(devices=devices):  # the weights are random, and this may be the user's process
            return latency_ms(build(job, self._data.dataset).to(self._data.device), self._data)

    def train(self, jobs: Sequence[Job]) -> Iterator[tuple[Trial, Network | None]]:
        """A trial for each job, and its trained network, as they finish.

        There is no network (None) after an exception; of few inputs, nor where none is wanted.
        """
        waiting = deque(jobs)
        if self._lanes is not None:
            yield from self._lanes.train(waiting)
        for job in waiting:
            try:
                recipe = self._recipe.changed(job.candidate.recipe)
                if self._data.folds:
                    trial, network = train_folds(
                        job, self._data, recipe, lambda: Cores(self._cores), whole=self._keeps_weights
                    )
                else:
                    trial, network = train_resident(job, self._data, recipe, Cores(self._cores))
            except Exception as error:  # noqa: BLE001  # a candidate must not cost more than itself
                yield Trial.from_error(job, error), None
            else:
                yield trial, network
