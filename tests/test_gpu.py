"""On a CUDA device: the faster paths give what the plain one gives, to rounding."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from conftest import job

from nas.architecture.architecture import Architecture
from nas.architecture.layers import BatchNorm, Conv2d, Dropout, Flatten, GlobalAveragePool, MaxPool, ResidualBlock
from nas.data.dataset import Dataset
from nas.evaluation.local import LocalEvaluator
from nas.training.batches import Epochs, Resident
from nas.training.group import Group
from nas.training.network import Network
from nas.training.recipe import Recipe
from nas.training.stepper import Stepper
from nas.training.trainer import network_of, train

pytestmark = pytest.mark.gpu

RECIPE = Recipe(batch_size=16, shift=1)
NET = Architecture((Conv2d(4, 3, activation="relu"), MaxPool(2), BatchNorm(), Flatten(), Dropout(0.2)))
OTHERS = [
    Architecture((Conv2d(3, 3, activation="relu", batch_norm=True), GlobalAveragePool())),
    Architecture((Conv2d(4, 3), ResidualBlock(6, 3, 2), Flatten())),
]
JOBS = [*(job(NET, 1.5, seed) for seed in range(5)), *(job(one, 1.5, 7) for one in OTHERS), job(NET, 2, 9)]


@pytest.fixture(scope="module")
def alone(blobs: Dataset) -> dict[str, float]:
    """The losses that the jobs have on a CPU."""
    return {one.key: train(one, blobs, RECIPE)[0].metrics["validation_loss"] for one in JOBS}


@pytest.mark.parametrize("size", [1, 4, "auto"])
def test_every_way_to_train_gives_the_same(blobs: Dataset, alone: dict[str, float], size: int | str) -> None:
    said: list[str] = []
    group = Group(blobs, RECIPE, "cuda", size, said.append)
    for _ in range(2):  # the second time with what the first has captured
        results = list(group.train(JOBS))
        assert {trial.job.key: trial.metrics["validation_loss"] for trial, _ in results} == pytest.approx(
            alone, rel=1e-2
        )
        assert said == []
        for trial, network in results:
            assert isinstance(network, Network)
            with torch.no_grad():
                right = network(blobs.validation.images.cuda()).argmax(1).cpu() == blobs.validation.labels
            assert right.double().mean().item() == pytest.approx(trial.metrics["validation_accuracy"])


def test_through_a_worker(blobs: Dataset, alone: dict[str, float]) -> None:
    with LocalEvaluator(blobs, RECIPE, workers=1, device="cuda", group=8) as evaluator:
        trials = list(evaluator.evaluate(JOBS))
    losses = {trial.job.key: trial.metrics["validation_loss"] for trial in trials}
    assert losses == pytest.approx(alone, rel=1e-2)


@pytest.fixture
def nothing_waits() -> Iterator[None]:
    """PyTorch raises where the CPU would wait for the GPU."""
    yield
    torch.cuda.set_sync_debug_mode("default")


def test_a_step_waits_for_nothing(blobs: Dataset, nothing_waits: None) -> None:
    data = Resident(blobs, "cuda")
    stepper = Stepper(network_of(JOBS[:1], blobs).cuda(), data, RECIPE)
    stepper.begin(Epochs([1], 1, len(data.labels), len(stepper.network.dropouts), RECIPE).draw(0))
    stepper.step(0)
    torch.cuda.set_sync_debug_mode("error")
    stepper.step(1)
    stepper.validate()
