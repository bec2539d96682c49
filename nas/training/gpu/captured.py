"""A training step as a CUDA graph: the CPU records it once, and the GPU replays it.

Without a graph the CPU launches some hundred kernels one by one for a step of a small network, which takes longer
than the GPU needs to run them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from nas.training.augmentation import CHANCES
from nas.training.batches import Epoch, Resident
from nas.training.network import Network
from nas.training.recipe import Recipe
from nas.training.stepper import Stepper


class Captured(Stepper):
    """A stepper that replays graphs. It trains the networks of one candidate, one after another.

    Create and use it within ``with torch.cuda.stream(...)``, always on the same stream: only one of the graphs
    that share the memory ``pool`` may run at a time.

    ``pool`` is the memory of the graphs (see `torch.cuda.graph_pool_handle`).
    """

    is_reused = True

    def __init__(self, network: Network, data: Resident, recipe: Recipe, pool: Any) -> None:
        super().__init__(network, data, recipe, capturable=True)
        self._buffers = _empty_epoch(network, data, recipe)
        self._at = torch.zeros(1, dtype=torch.int64, device=data.device)  # the next step of the epoch
        self._read = torch.zeros(len(self.results()), pin_memory=True)
        self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._learn()  # first without a graph: compiling, measuring and setting up must not be captured
        super().validate()
        self._learning, self._measuring = _graph(self._learn, pool), _graph(super().validate, pool)

    def load(self, network: Network) -> None:
        """Copy the weights of another network of this architecture, and forget the training before."""
        state = network.state_dict()
        with torch.no_grad():
            for name, own in self.network.state_dict().items():
                own.copy_(state[name])
            for moments in (moments for one in self.optimisers for moments in one.state.values()):
                for moment in moments.values():  # the two moments and the number of steps, or the momentum
                    moment.zero_()

    def begin(self, epoch: Epoch) -> int:
        """Start an epoch, which was drawn on the CPU; returns the number of its steps."""
        for field in fields(Epoch):
            buffer, drawn = getattr(self._buffers, field.name), getattr(epoch, field.name)
            buffer[: len(epoch)].copy_(drawn.pin_memory(), non_blocking=True)
        self._at.zero_()
        self.loss.zero_()
        return len(epoch)

    def step(self, number: int) -> None:
        """Learn from the next batch of the epoch; the device counts the steps itself."""
        self._learning.replay()

    def validate(self, *, is_last: bool = True) -> None:
        """Measure on the validation images, and begin to copy the results to the CPU."""
        self._measuring.replay()
        self._read.copy_(self.results(), non_blocking=True)
        self._done.record()

    def is_done(self) -> bool:
        """Whether the results have arrived."""
        return bool(self._done.query())  # type: ignore[no-untyped-call]

    def read(self) -> list[float]:
        """The results of the epoch: see `Stepper.read`."""
        self._done.synchronize()
        results: list[float] = self._read.tolist()
        return results

    def _learn(self) -> None:
        batch = self._buffers.at(self._at)
        self.learn(batch, self.data.images[batch.picked])
        self._at += 1


def _graph(call: Callable[[], None], pool: Any) -> torch.cuda.CUDAGraph:
    """Record the kernels of a call. (`torch.cuda.graph` would wait for all streams, and empty all caches.)"""
    graph = torch.cuda.CUDAGraph()
    torch.cuda.current_stream().synchronize()
    graph.capture_begin(pool=pool)
    try:
        call()
    finally:
        graph.capture_end()
    return graph


def _empty_epoch(network: Network, data: Resident, recipe: Recipe) -> Epoch:
    """The memory for the batches of an epoch; at first every batch is the first image."""
    size = min(recipe.batch_size, len(data.labels))
    steps = len(data.labels) // size

    def zeros(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
        return torch.zeros(steps, *shape, dtype=dtype, device=data.device)

    chances = zeros(size, CHANCES * recipe.takes_chances, dtype=torch.float32)
    keys, rate = zeros(len(network.dropouts)), zeros(1, dtype=torch.float64)
    return Epoch(zeros(size), zeros(size, 2), chances, keys, rate)
