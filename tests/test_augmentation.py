"""Augmentation changes images as it says, as a function of the seed; class weights and balanced metrics."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import job
from sklearn.metrics import balanced_accuracy_score, f1_score

from nas.architecture.architecture import Architecture
from nas.architecture.layers import Flatten
from nas.data.dataset import Dataset, Split
from nas.training.augmentation import FLIP, augmented
from nas.training.batches import draw_epochs
from nas.training.network import answers_and_loss
from nas.training.recipe import Recipe
from nas.training.trainer import train


def changed(images: torch.Tensor, seed: int = 1, **fields: Any) -> torch.Tensor:
    """The images after a recipe that changes nothing else."""
    recipe = Recipe(batch_size=len(images), **{"shift": 0, **fields})
    batch = next(draw_epochs(seed, 1, len(images), 0, recipe))[0]
    return augmented(images, batch.offsets, batch.chances, recipe, torch.full((images.shape[1], 1, 1), 7.0))


@pytest.fixture
def pictures() -> torch.Tensor:
    return torch.randint(1, 255, (400, 3, 12, 8), dtype=torch.uint8)


def test_some_images_are_mirrored(pictures: torch.Tensor) -> None:
    for angle in (0.0, 1e-9):  # by copying, or by sampling the pixels
        found = changed(pictures, flip=0.25, rotation=angle).round().to(torch.uint8)
        mirrored = (found == pictures.flip(3)).flatten(1).all(1)
        assert torch.equal(found[~mirrored], pictures[~mirrored])
        assert 60 < mirrored.sum() < 140  # 100 expected, and a standard deviation of 9


def test_each_image_is_mirrored_in_every_other_epoch() -> None:
    first, second = draw_epochs(7, 2, images=64, dropouts=0, recipe=Recipe(flip=0.5, batch_size=8))
    chances = [torch.empty(64) for _ in range(2)]
    for found, epoch in zip(chances, (first, second), strict=True):
        found[epoch.picked.flatten()] = epoch.chances[:, :, FLIP].flatten()
    mirrored = [found < 0.5 for found in chances]
    assert torch.equal(mirrored[0], ~mirrored[1])
    assert 16 < mirrored[0].sum() < 48


def test_images_are_turned_and_zoomed_about_their_middle() -> None:
    """A bar of five pixels across the middle, in images that are not square."""
    images = torch.zeros(400, 1, 21, 31, dtype=torch.uint8)
    images[:, :, 8:13] = 200
    turned = changed(images, rotation=30.0)
    angles = []
    for image in turned[:, 0]:
        rows, columns = ((image > 100) & (torch.arange(31) > 5) & (torch.arange(31) < 25)).nonzero().double().T
        (slope,) = torch.linalg.lstsq((columns - 15)[:, None], rows - 10).solution
        angles.append(math.degrees(math.atan(slope)))
        assert (image[10, 15] > 190).item()
    assert -31 < min(angles) < -28
    assert 28 < max(angles) < 31
    widths = changed(images, scale=0.5)[:, 0, :, 15].sum(1) / 200
    assert widths.min() == pytest.approx(5 / 1.5, abs=0.4)
    assert widths.max() == pytest.approx(5 * 1.5, abs=0.4)
    moved = changed(images, scale=1e-9, shift=3)[:, 0, :, 15] > 100
    assert {row.nonzero()[0].item() for row in moved} == set(range(5, 12))


def test_a_shift_by_sampling_is_the_shift_by_copying(pictures: torch.Tensor) -> None:
    both = [changed(pictures, shift=2, flip=0.5, scale=scale) for scale in (0.0, 1e-9)]
    torch.testing.assert_close(both[1], both[0].float(), atol=0.02, rtol=0)


def test_brightness_and_colour_change_images_as_a_whole(pictures: torch.Tensor) -> None:
    dark = pictures // 3 + 1
    factors = (changed(dark, brightness=0.5) / dark).flatten(1)
    torch.testing.assert_close(factors, factors[:, :1].expand_as(factors))
    assert 0.5 <= factors.min() < 0.55
    assert 1.45 < factors.max() < 1.5
    assert changed(pictures, brightness=1.0).max() == 255
    grey = pictures[:, :1].expand(-1, 3, -1, -1)
    torch.testing.assert_close(changed(grey, colour=1.0), grey.float(), atol=1e-3, rtol=0)
    few = dark // 2 + 64  # far from black and white, where nothing is cut off
    found, weights = changed(few, colour=0.5), torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    torch.testing.assert_close((found * weights).sum(1), (few * weights).sum(1))
    assert (found - few).abs().max() > 5
    assert torch.equal(changed(few[:, :1], colour=0.5), few[:, :1].float())


def test_a_square_is_erased(pictures: torch.Tensor) -> None:
    sizes = []
    for before, after in zip(pictures + 20, changed(pictures + 20, erasing=0.5), strict=True):
        erased = (after == 7).all(0)
        assert torch.equal(after[:, ~erased], before[:, ~erased].float())
        rows, columns = erased.any(1), erased.any(0)
        assert erased.sum() == rows.sum() * columns.sum()  # a rectangle; a part of the square may lie outside
        sizes.append((int(rows.sum()), int(columns.sum())))
    assert max(sizes) == (4, 4)  # half of the shorter side
    assert min(rows for rows, _ in sizes) < 4


def test_mixtures_have_both_images_and_both_labels(blobs: Dataset) -> None:
    images = torch.arange(0, 200, 2, dtype=torch.uint8).view(100, 1, 1, 1).expand(100, 3, 4, 4)
    found = changed(images, mixup=1.0)
    assert (found.amax((1, 2, 3)) - found.amin((1, 2, 3))).max() < 1e-3
    values, before, other = found[:, 0, 0, 0], images[:, 0, 0, 0].float(), images.roll(1, 0)[:, 0, 0, 0].float()
    shares = (values - other) / (before - other)
    assert -1e-4 < shares.min() < 0.1
    assert 0.9 < shares.max() < 1.0001
    trial, _ = train(job(Architecture((Flatten(),)), 6), blobs, Recipe(batch_size=16, shift=0, mixup=1.0))
    assert trial.metrics["validation_accuracy"] > 0.95


EVERYTHING: dict[str, Any] = {"flip": 0.5, "rotation": 10.0, "scale": 0.2, "shift": 2, "mixup": 0.2}
EVERYTHING |= {"brightness": 0.2, "colour": 0.2, "erasing": 0.3}


def test_what_is_changed_follows_from_the_seed(pictures: torch.Tensor) -> None:
    assert torch.equal(changed(pictures, **EVERYTHING), changed(pictures, **EVERYTHING))
    assert not torch.equal(changed(pictures, **EVERYTHING), changed(pictures, seed=2, **EVERYTHING))


def test_what_is_off_costs_nothing(pictures: torch.Tensor) -> None:
    assert changed(pictures) is pictures
    assert changed(pictures, shift=2).dtype == torch.uint8
    assert next(draw_epochs(1, 1, 64, 0, Recipe())).chances.numel() == 0


@pytest.fixture(scope="module")
def unequal() -> Dataset:
    """Dark and bright images, nine times as many dark ones; their brightness overlaps."""
    rng = np.random.default_rng(0)

    def split(count: int) -> Split:
        labels = (np.arange(count) % 10 == 0).astype(np.int64)
        values = rng.normal(100 + 30 * labels, 20).clip(0, 255).astype(np.uint8)
        return Split.of(np.tile(values[:, None, None, None], (1, 1, 5, 5)), labels)

    return Dataset.of("unequal", split(2_000), split(2_000), ("dark", "bright"))


def test_with_balanced_weights_small_classes_are_found(unequal: Dataset) -> None:
    linear, recipe = job(Architecture((Flatten(),)), 5), Recipe(shift=0)
    plain, balanced, auto = (
        train(linear, unequal, replace(recipe, class_weights=kind))[0].metrics
        for kind in ("none", "balanced", "auto")
    )
    # The best border between two normal distributions gives 0.61 without weights, and 0.77 with them.
    assert plain["balanced_accuracy"] == pytest.approx(0.61, abs=0.06)
    assert balanced["balanced_accuracy"] == pytest.approx(0.77, abs=0.04)
    assert balanced["validation_accuracy"] < plain["validation_accuracy"]
    assert auto["validation_loss"] == plain["validation_loss"]


def test_balanced_metrics(unequal: Dataset) -> None:
    trial, network = train(job(Architecture((Flatten(),)), 5), unequal, Recipe(shift=0))
    truth = unequal.validation.labels
    answers, *_ = answers_and_loss(network, unequal.validation.images, truth)
    assert trial.metrics["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(truth, answers))
    assert trial.metrics["macro_f1"] == pytest.approx(f1_score(truth, answers, average="macro"))
