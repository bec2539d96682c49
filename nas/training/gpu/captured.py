"""A training step as one CUDA graph: what a GPU is told once, and then only to do again.

Without it a step of a small network is some hundred kernels that the CPU launches one by one, more slowly than the
GPU is through with them.
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
    """A `Stepper` that replays graphs, in which one network of an architecture is trained after another.

    It is made and used within ``with torch.cuda.stream(...)``, always of the same stream: of the graphs that share
    the memory ``pool``, at most one may run at a time.

    Args:
        network: decides the shapes; on the device of the data.
        data: what it learns from.
        recipe: how.
        pool: the memory of the graphs; see `torch.cuda.graph_pool_handle`.
        latency: ms that one image takes in one network, measured while nothing else was on the device.
    """

    is_reused = True

    def __init__(self, network: Network, data: Resident, recipe: Recipe, pool: Any, latency: float) -> None:
        self.network, self.data, self.recipe = network, data, recipe
        self.latency: float | None = latency
        self._stepper = Stepper(network, data, recipe, capturable=True)
        self._epoch = _room_for_an_epoch(network, data, recipe)
        self._at = torch.zeros(1, dtype=torch.int64, device=data.device)  # the next step of the epoch
        self._read = torch.zeros(network.copies, 3, pin_memory=True)
        self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._learn()  # what is set up once is not to be captured, nor what measures or compiles
        self._stepper.validate()
        self._learning, self._measuring = _graph(self._learn, pool), _graph(self._stepper.validate, pool)

    def load(self, network: Network) -> None:
        """Begin with the weights of another network of this architecture, as if nothing had been learned."""
        state = network.state_dict()
        with torch.no_grad():
            for name, own in self.network.state_dict().items():
                own.copy_(state[name])
            for kept in self._stepper.optimiser.state.values():
                for moment in kept.values():  # the two moments and the number of steps
                    moment.zero_()

    def begin(self, epoch: Epoch) -> int:
        """Take over the batches of an epoch, drawn on the CPU; the number of its steps."""
        for field in fields(Epoch):
            room, drawn = getattr(self._epoch, field.name), getattr(epoch, field.name)
            room[: len(epoch)].copy_(drawn.pin_memory(), non_blocking=True)
        self._at.zero_()
        self._stepper.losses.zero_()
        return len(epoch)

    def step(self, number: int) -> None:
        """Learn from the next batch of the epoch; the device counts ``number`` itself."""
        self._learning.replay()

    def validate(self) -> None:
        """Measure on the validation images, and begin to bring the results to the CPU."""
        self._measuring.replay()
        stepper = self._stepper
        results = torch.stack([stepper.losses, stepper.right, stepper.validation_losses], 1)
        self._read.copy_(results, non_blocking=True)
        self._done.record()

    def is_done(self) -> bool:
        """Whether the results are there."""
        return bool(self._done.query())  # type: ignore[no-untyped-call]

    def read(self) -> list[list[float]]:
        """See `Stepper.read`."""
        self._done.synchronize()
        read: list[list[float]] = self._read.tolist()
        return read

    def _learn(self) -> None:
        self._stepper.learn(self._epoch.at(self._at))
        self._at += 1


def _graph(call: Callable[[], None], pool: Any) -> torch.cuda.CUDAGraph:
    """What a call enqueues. `torch.cuda.graph` would wait for all streams, and empty the caches of all."""
    graph = torch.cuda.CUDAGraph()
    torch.cuda.current_stream().synchronize()
    graph.capture_begin(pool=pool)
    try:
        call()
    finally:
        graph.capture_end()
    return graph


def _room_for_an_epoch(network: Network, data: Resident, recipe: Recipe) -> Epoch:
    """Where the batches of an epoch lie; at first every batch is the first image."""
    size = min(recipe.batch_size, len(data.labels))
    steps = len(data.labels) // size

    def room(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
        return torch.zeros(steps, *shape, dtype=dtype, device=data.device)

    return Epoch(
        picked=room(size, network.copies),
        offsets=room(size, network.copies, 2),
        keys=room(len(network.dropouts), network.copies),
        rate=room(1, dtype=torch.float64),
    )
