"""On a CUDA device: the faster paths give what the plain one gives, to rounding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from conftest import job

from nas.architecture.architecture import Architecture
from nas.architecture.layers import BatchNorm, Conv2d, Dropout, Flatten, GlobalAveragePool, MaxPool, ResidualBlock
from nas.data.dataset import Dataset
from nas.evaluation.local.local import LocalEvaluator
from nas.spaces.space import Candidate
from nas.training import batches, modules, noise
from nas.training.batches import Resident, draw_epochs
from nas.training.group import Group
from nas.training.network import Network
from nas.training.recipe import Precision, Recipe
from nas.training.stepper import Stepper
from nas.training.trainer import initial_network, train
from nas.trial import Job

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore:Synchronization debug mode")]

RECIPE = Recipe(batch_size=16, shift=1)
CHANGES = {"flip": 0.5, "rotation": 10.0, "scale": 0.1, "brightness": 0.2, "erasing": 0.2, "mixup": 0.2}
NET = Architecture((Conv2d(4, 3, activation="relu"), MaxPool(2), BatchNorm(), Flatten(), Dropout(0.2)))
OTHERS = [
    Architecture((Conv2d(3, 3, activation="relu", batch_norm=True), GlobalAveragePool())),
    Architecture((Conv2d(4, 3), ResidualBlock(6, 3, 2), Flatten())),
]
RATED = Candidate(NET, {"recipe/learning_rate": 0.03, "recipe/batch_size": 8, "recipe/augmentation": "none"})
JOBS = [*(job(NET, 1.5, seed) for seed in range(5)), *(job(one, 1.5, 7) for one in OTHERS), job(NET, 2, 9)]
JOBS += [Job(RATED, 1.5, seed) for seed in (1, 2)]
JOBS += [Job(Candidate(one, {"recipe/optimiser": "muon"}), 1.5, seed) for seed, one in enumerate(OTHERS)]


@pytest.fixture(scope="module")
def alone(blobs: Dataset) -> dict[str, float]:
    """The losses that the jobs have on a CPU."""
    trials = [train(one, blobs, RECIPE.changed(one.candidate.recipe))[0] for one in JOBS]
    return {trial.job.key: trial.metrics["validation_loss"] for trial in trials}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("size", [1, 4, "auto"])
def test_every_way_to_train_gives_the_same(
    blobs: Dataset, alone: dict[str, float], size: int | str, precision: Precision
) -> None:
    warnings: list[str] = []
    group = Group(blobs, replace(RECIPE, precision=precision), "cuda", size, warnings.append)
    for _ in range(2):  # the second time with what the first has captured
        results = list(group.train(JOBS))
        losses = {trial.job.key: trial.metrics["validation_loss"] for trial, _ in results}
        assert losses == pytest.approx(alone, rel=1e-2 if precision == "float32" else 0.2)
        assert warnings == []
        for trial, network in results:
            assert isinstance(network, Network)
            with torch.no_grad():
                right = network(blobs.validation.images.cuda()).argmax(1).cpu() == blobs.validation.labels
            assert right.double().mean().item() == pytest.approx(trial.metrics["validation_accuracy"])


@pytest.mark.parametrize("size", [1, 4])
def test_augmented_images_are_those_of_a_cpu(blobs: Dataset, size: int) -> None:
    recipe = replace(RECIPE, **CHANGES)  # type: ignore[arg-type]
    alone = {one.key: train(one, blobs, recipe)[0].metrics["validation_loss"] for one in JOBS[:3]}
    trials = [trial for trial, _ in Group(blobs, recipe, "cuda", size).train(JOBS[:3])]
    losses = {trial.job.key: trial.metrics["validation_loss"] for trial in trials}
    assert losses == pytest.approx(alone, rel=2e-2)


def test_images_that_do_not_fit_are_brought_batch_by_batch(
    blobs: Dataset, alone: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "_fit", lambda size, device: False)
    warnings: list[str] = []
    group = Group(blobs, RECIPE, "cuda", 4, warnings.append)
    trials = [trial for trial, _ in group.train(JOBS)]
    assert {one.job.key: one.metrics["validation_loss"] for one in trials} == pytest.approx(alone, rel=1e-2)
    assert group.latency(JOBS[0]) > 0
    [line] = warnings
    assert "batch by batch" in line


def test_through_a_worker(blobs: Dataset, alone: dict[str, float]) -> None:
    with LocalEvaluator(blobs, RECIPE, workers=1, device="cuda", group=8) as evaluator:
        trials = list(evaluator.evaluate(JOBS))
    losses = {trial.job.key: trial.metrics["validation_loss"] for trial in trials}
    assert losses == pytest.approx(alone, rel=1e-2)


@pytest.mark.parametrize(("channels", "kernel", "stride", "pad"), [(1, 3, 1, 0), (3, 3, 2, 1)])
@pytest.mark.parametrize("window", [0, 2, 3])
def test_kernels_compute_what_pytorch_does(
    monkeypatch: pytest.MonkeyPatch, channels: int, kernel: int, stride: int, pad: int, window: int
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    plain = modules.Conv(channels, 24, kernel, stride=stride, padding=pad).double()
    there = modules.Conv(channels, 24, kernel, stride=stride, padding=pad).cuda()
    plain.window = there.window = window
    there.load_state_dict(plain.state_dict())
    assert modules.gpu_kernels(torch.device("cuda", 0))[1] == ""
    x = torch.randn(7, channels, 28, 28)
    assert modules.gpu_kernels(torch.device("cuda", 0))[0].can_convolve(x, plain.weight, 1)
    ours, right = there(x.cuda()), plain(x.double())
    torch.testing.assert_close(ours.double().cpu(), right, rtol=1e-4, atol=1e-4)
    for maps in (ours, right):
        factors = torch.linspace(0, 1, maps.numel(), dtype=maps.dtype, device=maps.device).view_as(maps)
        (maps * factors).sum().backward()
    for mine, theirs in zip(there.parameters(), plain.parameters(), strict=True):
        assert mine.grad is not None
        torch.testing.assert_close(mine.grad.double().cpu(), theirs.grad, rtol=1e-3, atol=1e-2)


def test_dropout_drops_the_same_as_on_a_cpu() -> None:
    layer = modules.Dropout(0.3)
    layer.keys = noise.keys(3, torch.arange(2))[1]
    x = torch.rand(50, 33, requires_grad=True)
    right = layer(x)
    layer.keys = layer.keys.cuda()
    torch.testing.assert_close(layer(x.cuda()).cpu(), right)


@pytest.fixture
def nothing_waits() -> Iterator[None]:
    """PyTorch raises where the CPU would wait for the GPU."""
    yield
    torch.cuda.set_sync_debug_mode("default")


def test_a_step_waits_for_nothing(blobs: Dataset, nothing_waits: None) -> None:
    data = Resident(blobs, "cuda")
    stepper = Stepper(initial_network(JOBS[0], blobs).cuda(), data, RECIPE)
    stepper.begin(next(draw_epochs(1, 1, len(data.labels), len(stepper.network.dropouts), RECIPE)))
    stepper.step(0)
    torch.cuda.set_sync_debug_mode("error")
    stepper.step(1)
    stepper.validate()
