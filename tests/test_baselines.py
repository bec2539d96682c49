"""The baselines: what simple models make of images, the same each time, and the command that shows them."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command import error_line, inline, nas

from nas.baselines import baselines as module
from nas.baselines import images as of_images
from nas.baselines.baseline import Baseline
from nas.baselines.baselines import fitted, tuned
from nas.baselines.images import FAMILY, MOST_NUMBERS, NAMES, small_pictures
from nas.data.dataset import Array, Dataset, Split
from nas.errors import UsageError

ABLE = NAMES[1:]  # what is not guessing


@pytest.fixture
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is fitted yet, as in a new process."""
    monkeypatch.setattr(module, "_models", {})


def drawn(*counts: int, seed: int = 0, side: int = 8) -> tuple[Array, Array]:
    """Grey noise with a bright column for each class, so many images of each."""
    labels = np.repeat(np.arange(len(counts)), counts)
    images = np.random.default_rng(seed).integers(0, 100, (len(labels), 1, side, side)).astype(np.uint8)
    images[np.arange(len(labels)), 0, :, labels] += 120
    return images, labels


def unequal(*counts: int) -> Dataset:
    names = [f"column {label}" for label in range(len(counts))]
    return Dataset.of("columns", Split.of(*drawn(*counts)), Split.of(*drawn(*counts, seed=1)), names)


@pytest.mark.parametrize("name", ABLE)
def test_a_model_tells_classes_apart_and_answers_the_same_when_it_is_fitted_again(
    name: str, blobs: Dataset, forgotten: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = blobs.validation.images.numpy()
    baseline = tuned(name, blobs, seed=3, workers=1)
    assert baseline.validation_accuracy > 0.95
    answers = fitted(baseline, blobs, seed=3, workers=1)(images)
    assert (answers == blobs.validation.labels.numpy()).mean() == baseline.validation_accuracy
    noise = np.random.default_rng(1).integers(0, 256, (300, 1, 8, 8)).astype(np.uint8)
    doubtful = fitted(baseline, blobs, seed=3, workers=1)(noise)
    monkeypatch.setattr(module, "_models", {})
    assert (fitted(baseline, blobs, seed=3, workers=2)(noise) == doubtful).all()
    again = tuned(name, blobs, seed=3, workers=2)
    assert (again.setting, again.validation_accuracy, again.size) == (
        baseline.setting, baseline.validation_accuracy, baseline.size,
    )  # fmt: skip


def test_the_most_frequent_class_is_always_answered() -> None:
    data = unequal(5, 20, 10)
    baseline = tuned("most frequent class", data, seed=0, workers=1)
    assert baseline.validation_accuracy == pytest.approx(20 / 35)
    assert baseline.size == "1 class, column 1"
    images, _ = drawn(7, 7, 7)
    assert fitted(baseline, data, seed=0, workers=1)(images).tolist() == [1] * 21
    # It is fitted to other images of the same kind, of which another class has most.
    assert fitted(baseline, unequal(9, 3, 4), seed=0, workers=1)(images).tolist() == [0] * 21


def test_many_images_are_tuned_on_a_part_with_every_class_and_fitted_in_full(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(module.FAMILIES, "images", replace(FAMILY, most=40))
    data = unequal(300, 300, 1)
    part = module._part(data.train.labels.numpy(), 0, 40)
    assert 40 <= len(part) <= 43
    assert set(data.train.labels.numpy()[part]) == {0, 1, 2}
    baseline = tuned("k nearest neighbours", data, seed=0, workers=1)
    assert baseline.size == "601 images"
    answers = fitted(baseline, data, seed=0, workers=1)(data.validation.images.numpy())
    assert (answers == data.validation.labels.numpy()).mean() == baseline.validation_accuracy


@pytest.mark.parametrize("name", NAMES)
def test_two_images_of_two_classes_are_enough(name: str) -> None:
    data = unequal(1, 1)
    baseline = tuned(name, data, seed=0, workers=1)
    assert set(fitted(baseline, data, seed=0, workers=1)(drawn(2, 2)[0]).tolist()) <= {0, 1}


def test_sizes_are_those_of_the_models(blobs: Dataset) -> None:
    assert tuned("logistic regression", blobs, 0, 1).size == f"{3 * 64 + 3} coefficients"
    assert tuned("k nearest neighbours", blobs, 0, 1).size == "192 images"
    assert re.fullmatch(r"\d+ nodes", tuned("decision tree", blobs, 0, 1).size)
    assert re.fullmatch(r"[\d,]+ nodes in 200 trees", tuned("random forest", blobs, 0, 1).size)


@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 100, 30), (3, 19, 500), (6, 1000, 1), (1, 33, 33)])
def test_photographs_become_small(shape: tuple[int, int, int]) -> None:
    grey = small_pictures(np.full((2, *shape), 201, np.uint8))
    assert grey.dtype == np.uint8
    assert MOST_NUMBERS / 5 < grey.shape[1] <= MOST_NUMBERS
    assert (grey == 201).all()


def test_a_small_picture_has_the_means_of_squares_also_where_the_border_cuts_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(of_images, "MOST_NUMBERS", 4)
    image = np.array([[[[0, 10, 7], [20, 31, 8], [90, 91, 255]]]], np.uint8)
    assert small_pictures(image).tolist() == [[15, 8, 91, 255]]  # 15.25, 7.5, 90.5


def test_small_images_stay_as_they_are() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 1, 28, 28)).astype(np.uint8)
    assert (small_pictures(images) == images.reshape(5, -1)).all()


RECORD = {
    "name": "random forest", "setting": "leaves of 1+ images", "validation_accuracy": 0.5, "seconds": 1.5,
    "tuning": 0.0, "size": "7 nodes in 300 trees",
}  # fmt: skip


def test_a_baseline_is_kept_as_plain_data() -> None:
    assert Baseline.from_dict(json.loads(json.dumps(RECORD))).to_dict() == RECORD


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": 3}, {"setting": None}, {"size": 7}, {"seconds": -1.0}, {"tuning": "long"},
        {"validation_accuracy": 1.5}, {"validation_accuracy": float("nan")},
    ],
)  # fmt: skip
def test_damaged_data_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Baseline.from_dict({**RECORD, **wrong})
    with pytest.raises(ValueError, match="needs"):
        Baseline.from_dict({name: value for name, value in RECORD.items() if name not in wrong})


def test_a_setting_of_another_version_is_refused(blobs: Dataset) -> None:
    with pytest.raises(UsageError, match="no setting of the random forest 'leaves of 99"):
        fitted(Baseline.from_dict({**RECORD, "setting": "leaves of 99 images"}), blobs, 0, 1)


@pytest.mark.faults
def test_the_command_prints_a_table_and_json(tmp_path: Path) -> None:
    images, labels = drawn(30, 60, 30)
    np.savez(tmp_path / "columns.npz", images=images, labels=labels)
    words = ["baselines", "--dataset", "columns.npz", "--seed", "3"]
    done = nas(*words, cwd=tmp_path, COLUMNS="80")
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert all(name.split()[0] in done.stdout for name in NAMES)
    assert all(line.startswith("nas baselines: ") for line in done.stderr.splitlines())  # and no warning
    assert done.stderr.count("opening the test images, once") == 1
    content = json.loads(nas(*words, "--json", cwd=tmp_path).stdout)
    assert [row["name"] for row in content["baselines"]] == list(NAMES)
    assert sum(content["dataset"][part] for part in ("train", "validation", "test")) == 120
    guess = content["baselines"][0]
    low, high = guess["test_interval"]
    assert 0 < low < guess["test_accuracy"] < high < 1
    assert guess["test_accuracy"] == pytest.approx(0.5, abs=0.05)
    assert all(row["test_accuracy"] > 0.9 for row in content["baselines"][1:])
    for row in content["baselines"]:
        assert f"{100 * row['test_accuracy']:.2f} %" in done.stdout


def test_mistakes_are_one_line() -> None:
    assert "there is no dataset 'mnits'; did you mean 'mnist'?" in error_line(
        inline("baselines", "--dataset", "mnits", code=2)
    )
    assert "-1" in error_line(inline("baselines", "--seed", "-1", code=2))
    assert "depth" in error_line(inline("baselines", "--dataset", "mnist-5k", "--set", "dataset.depth=2", code=2))
