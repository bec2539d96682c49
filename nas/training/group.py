"""Many trainings on one device: copies of one network side by side, and different networks at the same time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from nas.training.batches import Resident
from nas.training.gpu.lanes import Lane, Lanes, Sets
from nas.training.modules import gpu_kernels
from nas.training.network import Network
from nas.training.recipe import Recipe
from nas.training.trainer import train_copies
from nas.trial import Job, Trial

if TYPE_CHECKING:
    from nas.data.dataset import Dataset

Result = tuple[Trial, Network | None]  # None where it failed


class Group:
    """Trains lists of jobs on one device, and keeps there what the next list can use.

    Args:
        dataset: what the networks learn from.
        recipe: how.
        device: where, as PyTorch names it.
        size: how many jobs are trained at a time: on lanes of a CUDA device, and elsewhere as copies side by side,
            where they have one architecture; ``auto`` is as many as are worth it on lanes, and one elsewhere.
        warn: is given a line to show when a faster path fails.
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
        # On a GPU copies are slower than lanes: cuDNN rearranges maps for grouped convolutions (decisions/0009).
        self._copies = size if isinstance(size, int) and not is_cuda else 1
        self._lanes = Lanes(self._lane, size, warn) if is_cuda and size != 1 else None

    def train(self, jobs: Sequence[Job]) -> Iterator[Result]:
        """A trial for each job, and its trained network, as they finish.

        Copies that raise are tried again in halves, then alone; then that is the trial of the one job.
        """
        sets = alike(jobs, self._copies)
        if self._lanes is not None:
            for trained in self._lanes.train(sets):
                yield from trained
        while sets:
            same = sets.popleft()
            try:
                results: list[Result] = [*train_copies(same, self._data, self._recipe)]
            except Exception as error:  # noqa: BLE001  # a candidate must not cost more than itself
                if len(same) > 1:
                    half = len(same) // 2
                    sets.extendleft([same[half:], same[:half]])
                    continue
                results = [(Trial.from_error(same[0], error), None)]
            yield from results

    def _lane(self) -> Lane:
        return Lane(self._data, self._recipe)


def alike(jobs: Sequence[Job], most: int) -> Sets:
    """Jobs of one architecture and length, at most so many together, in the order of the first of each.

    Those with a torchvision model are alone: it may draw random numbers of its own, which copies would share, and
    its copies take turns all the same.
    """
    same: dict[tuple[str, float], list[Job]] = {}
    for job in jobs:
        same.setdefault((job.candidate.architecture.id, job.epochs), []).append(job)
    sets: Sets = deque()
    for all_of in same.values():
        size = 1 if all_of[0].candidate.architecture.backbones else most
        sets += [all_of[at : at + size] for at in range(0, len(all_of), size)]
    return sets
