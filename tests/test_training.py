"""Training learns, is a function of its job, and sees exactly the images that it should."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import job

from nas.architecture.architecture import Architecture
from nas.architecture.known import LECTURE
from nas.architecture.layers import BatchNorm, Cell, Conv2d, Dropout, Flatten, MaxPool, Pretrained, SeparableConv2d
from nas.data.dataset import Dataset
from nas.errors import ArchitectureError, UsageError
from nas.training import batches, noise
from nas.training.augmentation import shifted
from nas.training.batches import Epoch, Resident, draw_epochs, plan
from nas.training.network import Network, answers_and_loss
from nas.training.recipe import RECIPES, Recipe, recipe_of
from nas.training.trainer import train

NET = Architecture((Conv2d(4, 3, activation="relu"), MaxPool(2), BatchNorm(), Flatten(), Dropout(0.2)))
RECIPE = Recipe(batch_size=16, shift=1)


def test_a_network_learns(blobs: Dataset) -> None:
    trial, network = train(job(NET, 6), blobs, RECIPE)
    assert trial.metrics["validation_accuracy"] > 0.95
    assert [point["epoch"] for point in trial.curve] == [1, 2, 3, 4, 5, 6]
    assert trial.curve[-1]["train_loss"] < trial.curve[0]["train_loss"]
    answers, loss, _ = answers_and_loss(network, blobs.validation.images, blobs.validation.labels)
    right = answers == blobs.validation.labels
    assert right.double().mean().item() == trial.metrics["validation_accuracy"]
    assert loss == trial.metrics["validation_loss"]
    assert trial.metrics["parameters"] == sum(p.numel() for p in network.parameters())
    assert not network.training


@pytest.mark.parametrize("operation", ["none", "nor_conv_3x3"])
def test_a_cell_is_trained_even_where_nothing_passes_it(blobs: Dataset, operation: str) -> None:
    cell = Cell((operation, "none", "none", "none", "none", "none"))
    trial, _ = train(job(Architecture((Conv2d(4, 3), cell, Flatten())), 1), blobs, RECIPE)
    assert trial.failure is None


def test_a_network_that_only_guesses_is_not_trained_to_the_end(blobs: Dataset) -> None:
    nothing = Cell(("none",) * 6)
    trial, _ = train(job(Architecture((Conv2d(4, 3), nothing, Flatten())), 6), blobs, RECIPE)
    assert trial.failure is None
    assert [point["epoch"] for point in trial.curve] == [1, 2, 3]
    assert trial.metrics["validation_loss"] == pytest.approx(math.log(3), abs=0.1)


def test_bfloat16_trains_what_it_makes_faster_and_measures_in_float32(blobs: Dataset) -> None:
    separable = [
        Architecture((Conv2d(4, 3), SeparableConv2d(4, 3, activation="relu"), Flatten())),
        Architecture((Pretrained("shufflenet_v2_x0_5", weights=False),)),
    ]
    mixed = replace(RECIPE, precision="bfloat16")
    trial, network = train(job(NET, 6), blobs, mixed)
    assert trial.metrics["validation_accuracy"] > 0.95
    assert trial.metrics["validation_loss"] != train(job(NET, 6), blobs, RECIPE)[0].metrics["validation_loss"]
    _, loss, _ = answers_and_loss(network, blobs.validation.images, blobs.validation.labels)
    assert trial.metrics["validation_loss"] == loss
    for net in separable:
        [one, other] = (train(job(net, 0.25), blobs, recipe)[0] for recipe in (mixed, RECIPE))
        assert one.metrics["validation_loss"] == other.metrics["validation_loss"]


def test_same_job_same_bits_and_global_random_numbers_are_left_alone(blobs: Dataset) -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    (first, one), (_, two), (other, _) = (train(job(NET, 1.5, seed), blobs, RECIPE) for seed in (1, 1, 2))
    assert all(
        torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True)
    )
    assert first.metrics["validation_loss"] != other.metrics["validation_loss"]
    assert torch.equal(torch.rand(3), expected)


def test_what_a_training_sees_follows_from_its_seed(blobs: Dataset) -> None:
    """The order of the images, the shifts and the keys of the masks: the same beside any other training."""

    def draw(seed: int) -> Iterator[Epoch]:
        return draw_epochs(seed, 2, len(blobs.train), 3, Recipe(batch_size=16))

    first, other = draw(2**63 + 1), draw(5)
    alone = [next(first), next(first)]
    again = draw(2**63 + 1)
    beside = [next(again), next(other), next(again)]
    for expected, epoch in zip(alone, (beside[0], beside[2]), strict=True):
        for field in fields(epoch):
            assert torch.equal(getattr(expected, field.name), getattr(epoch, field.name))
        assert sorted(epoch.picked.flatten().tolist()) == list(range(len(blobs.train)))  # every image once
    assert not torch.equal(alone[0].picked, beside[1].picked)
    assert not torch.equal(alone[0].offsets, beside[1].offsets)
    keys = torch.cat([epoch.keys.flatten() for epoch in (*alone, beside[1])])
    assert len(set(keys.tolist())) == 3 * 12 * 3  # one for each epoch, step and layer


def test_masks_keep_the_right_share_and_do_not_resemble_each_other() -> None:
    keys = torch.cat([noise.keys(seed, torch.arange(4)) for seed in (1, 2, 2**64 - 1)])
    assert len(set(keys.tolist())) == 12
    for rate in (0.0, 0.1, 0.5, 0.9):
        masks, shares = zip(*(noise.kept(key, 100_001, rate) for key in keys), strict=True)
        assert shares == pytest.approx([1 - rate] * 12, abs=1e-4)
        # Each mean has a standard deviation of at most 0.0016.
        assert torch.stack(masks).double().mean(1).tolist() == pytest.approx([1 - rate] * 12, abs=0.008)
    halves = torch.stack([noise.kept(key, 100_000, 0.5)[0] for key in keys])
    signs = halves.double() * 2 - 1
    assert (signs @ signs.T / 100_000 - torch.eye(12)).abs().max() < 0.016  # five standard deviations
    for lag in (1, 2, 3, 4, 5, 64):  # within a mask
        assert (signs[:, lag:] * signs[:, :-lag]).mean(1).abs().max() < 0.016
    assert torch.equal(noise.kept(keys[3], 1000, 0.5)[0], halves[3, :1000])


def test_a_trained_network_has_pytorch_s_dropout(blobs: Dataset) -> None:
    """So that it can be trained elsewhere."""
    _, network = train(job(NET, 0.1), blobs, RECIPE)
    network.train()
    images = torch.full((4, *blobs.input_shape), 100, dtype=torch.uint8)
    assert not torch.equal(network(images), network(images))


def test_fractions_of_an_epoch() -> None:
    assert plan(1, 192, 16) == [12]
    assert plan(2.5, 192, 16) == [12, 12, 6]
    assert plan(0.25, 192, 16) == [3]
    assert plan(0.001, 192, 16) == [1]
    assert plan(1, 200, 16) == [12]


def test_a_fractional_training_says_so_in_its_curve(blobs: Dataset) -> None:
    trial, _ = train(job(NET, 1.25), blobs, RECIPE)
    assert [point["epoch"] for point in trial.curve] == [1.0, 1.25]


def test_shifts_move_whole_images_and_black_moves_in() -> None:
    torch.manual_seed(0)
    images = torch.randint(1, 255, (200, 2, 5, 6), dtype=torch.uint8)
    moved = shifted(images, torch.randint(0, 5, (200, 2)), 2)
    assert moved.shape == images.shape
    assert moved.dtype == torch.uint8
    seen = set()
    for before, after in zip(images, moved, strict=True):
        for down in range(-2, 3):
            for right in range(-2, 3):
                expected = torch.zeros_like(before)
                expected[:, max(0, -down) : 5 - max(0, down), max(0, -right) : 6 - max(0, right)] = before[
                    :, max(0, down) : 5 + min(0, down), max(0, right) : 6 + min(0, right)
                ]
                if torch.equal(after, expected):
                    seen.add((down, right))
    assert len(seen) == 25
    assert torch.equal(shifted(images, torch.zeros(200, 2, dtype=torch.int64), 0), images)


def test_the_rate_rises_to_its_peak_and_falls_to_nothing() -> None:
    recipe = Recipe(learning_rate=0.01, warm_up=0.25)
    rates = [recipe.rate(i / 100) for i in range(101)]
    assert max(rates) == rates[25] == pytest.approx(0.01)
    assert rates[-1] == 0
    assert rates[:26] == sorted(rates[:26])
    assert rates[25:] == sorted(rates[25:], reverse=True)


def test_the_lecture_s_recipe_is_the_lecture_s() -> None:
    recipe = recipe_of("lecture")
    assert (recipe.optimiser, recipe.batch_size, recipe.label_smoothing, recipe.shift) == ("adam", 128, 0.0, 0)
    assert recipe.rate(0.0) == recipe.rate(0.9) == 1e-3
    assert set(RECIPES) == {"default", "lecture", "photographs"}
    with pytest.raises(UsageError, match="there is no recipe 'lectur'; did you mean 'lecture'"):
        recipe_of("lectur")


def test_a_network_takes_raw_images_of_any_type() -> None:
    network = Network(LECTURE, (1, 28, 28), 10, mean=[33.0], std=[78.0]).eval()
    images = torch.randint(0, 256, (3, 1, 28, 28), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(network(images), network(images.float()))


def test_an_architecture_that_does_not_fit_is_an_error(blobs: Dataset) -> None:
    with pytest.raises(ArchitectureError, match="layer 1"):
        train(job(Architecture((Conv2d(2, 9),))), blobs, RECIPE)


@pytest.fixture
def mapped(blobs: Dataset, tmp_path: Path) -> Dataset:
    """A data set in a file that is mapped into memory."""
    blobs.save(tmp_path)
    return Dataset.load(tmp_path)


def test_images_are_asked_for_before_they_are_needed(
    blobs: Dataset, mapped: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not hasattr(os, "posix_fadvise"):
        pytest.skip("this system does not take advice")
    asked: list[bytes] = []
    advise = os.posix_fadvise

    def reading(file: int, start: int, size: int, advice: int) -> None:
        advise(file, start, size, advice)
        asked.append(os.pread(file, size, start))

    monkeypatch.setattr(os, "posix_fadvise", reading)
    [epoch] = draw_epochs(1, 1, len(blobs.train), 0, RECIPE)
    list(Resident(mapped, "cpu").batches(epoch.picked))
    assert asked == []  # a small file stays in memory
    monkeypatch.setattr(batches, "LARGE", 1)
    for step, images in enumerate(Resident(mapped, "cpu").batches(epoch.picked), 1):
        ahead = epoch.picked[: step + batches.AHEAD].flatten()
        assert asked == [image.numpy().tobytes() for image in blobs.train.images[ahead]]
        assert torch.equal(images, blobs.train.images[epoch.picked[step - 1]])


@pytest.mark.parametrize("way", ["mapped", "asked for", "brought to the device"])
def test_wherever_the_images_are_the_training_is_the_same(
    blobs: Dataset, mapped: Dataset, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, one = replace(RECIPE, flip=0.5, mixup=0.2), job(NET, 1.5)
    trial, network = train(one, blobs, recipe)
    if way == "asked for":
        monkeypatch.setattr(batches, "LARGE", 1)
    if way == "brought to the device":  # as on a GPU whose memory is too small: in a thread, before their step
        monkeypatch.setattr(batches, "_fit", lambda size, device: False)
    other, again = train(one, mapped, recipe)
    assert other.metrics["validation_loss"] == trial.metrics["validation_loss"]
    for name, weights in network.state_dict().items():
        assert torch.equal(weights, again.state_dict()[name])


def test_batches_are_brought_before_they_are_needed(blobs: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "_fit", lambda size, device: False)
    [epoch] = draw_epochs(1, 1, len(blobs.train), 0, RECIPE)
    data, gathered = Resident(blobs, "cpu"), threading.Semaphore(0)
    select = torch.index_select

    def counting(*args: Any, **options: Any) -> Any:
        found = select(*args, **options)
        gathered.release()
        return found

    monkeypatch.setattr(torch, "index_select", counting)
    for step, images in enumerate(data.batches(epoch.picked)):
        assert torch.equal(images, blobs.train.images[epoch.picked[step]])
        # While this step computes, the next one arrives.
        assert step + 1 == len(epoch) or all(gathered.acquire(timeout=60) for _ in range(2 if step == 0 else 1))
