"""A training step as a CUDA graph: the CPU records it once, and the GPU replays it.

Without a graph the CPU launches some hundred kernels one by one for a step of a small network, and that takes
longer than the GPU needs to run them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from nas.training.batches import Epoch, Resident
from nas.training.network import Network
from nas.training.recipe import Recipe
from nas.training.stepper import Stepper


class Captured:
    """A `Stepper` that replays graphs. The networks of an architecture are trained in it one after another.

    Make it and use it within ``with torch.cuda.stream(...)``, always on the same stream: of the graphs that share
    the memory ``pool``, only one may run at a time.

    Args:
        network: decides the shapes; on the device of the data.
        data: training and validation images.
        recipe: how to train.
        pool: the memory of the graphs; see `torch.cuda.graph_pool_handle`.
        latency: ms for one image, measured while the device did nothing else.
    """

    is_reused = True

    def __init__(self, network: Network, data: Resident, recipe: Recipe, pool: Any, latency: float) -> None:
        self.network, self.data, self.recipe = network, data, recipe
        self.latency: float | None = latency
        self._stepper = Stepper(network, data, recipe, capturable=True)
        self._epoch = _room_for_an_epoch(network, data, recipe)
        self._at = torch.zeros(1, dtype=torch.int64, device=data.device)  # the next step of the epoch
        self._read = torch.zeros(3, pin_memory=True)
        self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._learn()  # first without a graph: compiling, measuring and setting up must not be captured
        self._stepper.validate()
        self._learning, self._measuring = _graph(self._learn, pool), _graph(self._stepper.validate, pool)

    def load(self, network: Network) -> None:
        """Take over the weights of another network of this architecture, and forget the training before."""
        state = network.state_dict()
        with torch.no_grad():
            for name, own in self.network.state_dict().items():
                own.copy_(state[name])
            for moments in self._stepper.optimiser.state.values():
                for moment in moments.values():  # the two moments and the number of steps
                    moment.zero_()

    def begin(self, epoch: Epoch) -> int:
        """Take over the batches of an epoch, drawn on the CPU; returns the number of its steps."""
        for field in fields(Epoch):
            room, drawn = getattr(self._epoch, field.name), getattr(epoch, field.name)
            room[: len(epoch)].copy_(drawn.pin_memory(), non_blocking=True)
        self._at.zero_()
        self._stepper.loss.zero_()
        return len(epoch)

    def step(self, number: int) -> None:
        """Learn from the next batch of the epoch; the device counts the steps itself."""
        self._learning.replay()

    def validate(self) -> None:
        """Measure on the validation images, and begin to copy the results to the CPU."""
        self._measuring.replay()
        self._read.copy_(self._stepper.results(), non_blocking=True)
        self._done.record()

    def is_done(self) -> bool:
        """Whether the results have arrived."""
        return bool(self._done.query())  # type: ignore[no-untyped-call]

    def read(self) -> list[float]:
        """See `Stepper.read`."""
        self._done.synchronize()
        results: list[float] = self._read.tolist()
        return results

    def _learn(self) -> None:
        self._stepper.learn(self._epoch.at(self._at))
        self._at += 1


def _graph(call: Callable[[], None], pool: Any) -> torch.cuda.CUDAGraph:
    """The graph of what a call enqueues. (`torch.cuda.graph` would wait for all streams, and empty all caches.)"""
    graph = torch.cuda.CUDAGraph()
    torch.cuda.current_stream().synchronize()
    graph.capture_begin(pool=pool)
    try:
        call()
    finally:
        graph.capture_end()
    return graph


def _room_for_an_epoch(network: Network, data: Resident, recipe: Recipe) -> Epoch:
    """The memory for the batches of an epoch; at first every batch is the first image."""
    size = min(recipe.batch_size, len(data.labels))
    steps = len(data.labels) // size

    def room(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
        return torch.zeros(steps, *shape, dtype=dtype, device=data.device)

    return Epoch(
        picked=room(size),
        offsets=room(size, 2),
        keys=room(len(network.dropouts)),
        rate=room(1, dtype=torch.float64),
    )
