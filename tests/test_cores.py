"""Idle cores help a training, and change nothing in its result."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import finished, job

from nas.architecture.architecture import Architecture
from nas.architecture.layers import Conv2d, Dense, Dropout, Flatten, GlobalAveragePool, MaxPool
from nas.data.dataset import Dataset
from nas.evaluation.local.local import LocalEvaluator
from nas.training.batches import Resident
from nas.training.cores import Cores
from nas.training.network import Network
from nas.training.recipe import Recipe
from nas.training.trainer import train_resident
from nas.trial import Job, Trial

NETWORK = Architecture(
    (
        Conv2d(8, 3, padding="same", batch_norm=True),
        MaxPool(2),
        Conv2d(8, 3, padding="same", batch_norm=True),
        Flatten(),
        Dropout(0.3),
        Dense(16),
    )
)
RECIPE = Recipe(optimiser="muon", flip=0.5, mixup=0.2, erasing=0.2, class_weights="balanced", parts=3)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As in a worker; PyTorch's own threads would change the last digits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def trained(blobs: Dataset, cores: Cores, recipe: Recipe = RECIPE) -> tuple[Trial, Network]:
    return train_resident(job(NETWORK, epochs=1.5), Resident(blobs, "cpu"), recipe, cores)


def test_the_result_does_not_depend_on_the_cores(blobs: Dataset) -> None:
    (alone, one), (helped, two) = (trained(blobs, cores) for cores in (Cores(), Cores(lambda: 2)))
    assert alone.metrics["validation_loss"] == helped.metrics["validation_loss"]
    state = two.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in one.state_dict().items())


def test_cores_may_come_and_go_during_a_training(blobs: Dataset) -> None:
    counts = iter([1, 2, 3, 2] * 10_000)
    (alone, one), (helped, two) = trained(blobs, Cores()), trained(blobs, Cores(lambda: next(counts)))
    assert alone.metrics["validation_loss"] == helped.metrics["validation_loss"]
    assert all(torch.equal(*pair) for pair in zip(one.parameters(), two.parameters(), strict=True))


def test_parts_of_different_sizes_have_the_gradient_of_the_whole_batch(blobs: Dataset) -> None:
    """Without normalisation a batch in parts is the same batch, up to rounding."""
    network = Architecture((Conv2d(4, 3), MaxPool(2), Flatten(), Dense(8)))
    losses = []
    for parts in (1, 3):  # of 64 images
        recipe = Recipe(shift=0, parts=parts)
        trial, _ = train_resident(job(network), Resident(blobs, "cpu"), recipe, Cores())
        losses.append(trial.metrics["validation_loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_each_part_draws_masks_of_its_own(blobs: Dataset) -> None:
    """With the same masks, two equal halves of a batch would be dropped equally."""
    seen: list[bytes] = []
    network = Architecture((Flatten(), Dropout(0.5), Dense(4)))
    found = Network(network, blobs.input_shape, len(blobs.classes))
    assert len(found.dropouts) == 1
    layer: Any = type(found.dropouts[0])
    forward = layer.forward

    def noted(self: Any, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            seen.append(forward(self, torch.ones_like(x)).numpy().tobytes())
        result: torch.Tensor = forward(self, x)
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layer, "forward", noted)
        train_resident(job(network, epochs=0.2), Resident(blobs, "cpu"), Recipe(parts=2, batch_size=16), Cores())
    assert len(seen) > 2
    assert len(set(seen)) == len(seen)


def test_an_error_in_a_part_ends_the_training_and_its_threads() -> None:
    running = threading.Event()

    def work(number: int) -> int:
        if number == 0:
            raise ValueError("broken")
        running.set()
        return number

    with pytest.raises(ValueError, match="broken"):
        Cores(lambda: 2).each(work, [0, 1, 2])
    assert running.is_set()


@pytest.mark.parametrize("count", [1, 2, 5, 99])
def test_results_come_in_the_order_of_the_items(count: int) -> None:
    assert Cores(lambda: count).each(lambda number: number * number, range(7)) == [n * n for n in range(7)]


class Counted(LocalEvaluator):
    """Reports how many cores each job may use, instead of training it."""

    work, measure = "test_cores:count", "work:pretend"


def count(jobs: Sequence[Job], dataset: Dataset, task: Any) -> Iterator[Trial]:
    from nas.evaluation.local.shared import cores_of

    for one in jobs:
        trial = finished(one)
        yield replace(trial, metrics={**trial.metrics, "cores": float(cores_of(Path(task.data))())})


def test_idle_workers_lend_their_cores(blobs: Dataset) -> None:
    with Counted(blobs, Recipe(), workers=4) as evaluator:
        (alone,) = evaluator.evaluate([job(NETWORK)])
        several = list(evaluator.evaluate([job(NETWORK, seed=seed) for seed in range(4)]))
    assert alone.metrics["cores"] == 4
    assert min(trial.metrics["cores"] for trial in several) == 1


def test_a_network_with_a_foreign_layer_is_not_divided(blobs: Dataset) -> None:
    """Its random numbers are PyTorch's, which threads would draw in any order."""

    class Noise(GlobalAveragePool):
        def module(self, *inputs: Any) -> torch.nn.Module:
            return torch.nn.Sequential(super().module(*inputs), torch.nn.Dropout(0.5))

    network = Architecture((Conv2d(4, 3), Noise()))
    losses = set()
    for cores in (Cores(), Cores(lambda: 2), Cores(lambda: 2)):
        trial, _ = train_resident(job(network), Resident(blobs, "cpu"), Recipe(parts=2), cores)
        losses.add(trial.metrics["validation_loss"])
    assert len(losses) == 1
