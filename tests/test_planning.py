"""The plan: spaces fit any images, what networks may cost follows from data and budget, and is kept."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from command import nas
from conftest import Tiny
from test_front_door import Blobs

from nas.architecture.architecture import Limits
from nas.errors import JournalError
from nas.experiment import Experiment
from nas.records.journal import FILE, Journal
from nas.records.observer import Observer
from nas.records.record import read
from nas.run.planning import planned
from nas.run.resolve import resolve, usual_flops
from nas.spaces.cnn import Cnn
from nas.spaces.lecture import Lecture
from nas.spaces.space import SearchSpace
from nas.training.recipe import recipe_of

SHAPES = [(channels, side, side) for side in (8, 11, 16, 28, 32, 64, 100, 224, 256) for channels in (1, 3)]
SHAPES += [(4, 8, 8), (2, 256, 256), (3, 48, 64), (3, 40, 160)]


def arrays(folder: Path, images: int = 90, side: int = 20, channels: int = 3) -> Path:
    """A file of coloured images of two classes that are easy to tell."""
    rng = np.random.default_rng(0)
    labels = np.arange(images) % 2
    pixels = rng.integers(0, 90, (images, side, side, channels))
    pixels[labels == 1, 4:12, 4:12] += 120
    path = folder / "images.npz"
    np.savez(path, images=pixels.astype(np.uint8), labels=np.array(["no", "yes"])[labels])
    return path


@pytest.mark.parametrize("space", [Cnn, Lecture])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_space_has_networks_for_images_of_any_size(
    space: type[Cnn | Lecture], shape: tuple[int, int, int]
) -> None:
    most = usual_flops(shape)
    fitting: SearchSpace = space(max_flops=most).within(Limits(shape, 7))
    rng = Random(0)
    networks = {fitting.sample(rng).architecture for _ in range(12)}
    assert len(networks) > 6
    flops = sorted(network.flops(shape, 7) for network in networks)
    assert flops[-1] <= most
    if space is Cnn:  # the limit is used, and not a small part of it only
        assert flops[len(flops) // 2] > most / 20
    few: SearchSpace = space(max_flops=most).within(Limits(shape, 7, max_parameters=40_000))
    assert few.sample(rng).architecture.parameters(shape, 7) <= 40_000


def test_for_digits_nothing_follows_from_the_budget() -> None:
    for limit in ({}, {"time_limit": "10m"}):
        experiment = Experiment.of(dataset="mnist-5k", mlflow="off", **limit)
        resolved = resolve(experiment)
        assert resolved.make_space().limits.max_flops == 5_000_000
        assert (resolved.epochs, resolved.experiment.recipe) == (4.0, "default")
        assert "space.max_flops" not in resolved.experiment.options


def test_without_a_time_limit_networks_may_cost_what_the_images_say(tmp_path: Path) -> None:
    path = str(arrays(tmp_path, side=40))
    resolved = resolve(Experiment.of(dataset=path, trials=40, mlflow="off"))
    assert resolved.experiment.options["space.max_flops"] == 60_000 * 40 * 40
    assert resolved.make_space().limits.max_flops == 60_000 * 40 * 40
    assert (resolved.recipe.shift, resolved.recipe.flip, resolved.recipe.mixup) == (4, 0.5, 0.2)  # few photographs
    assert resolved.recipe.optimiser == "muon"
    assert resolve(Experiment.of(dataset=path, recipe="photographs", mlflow="off")).recipe.optimiser == "adamw"
    given = Experiment.of(dataset=path, max_flops=123, recipe={"flip": 0.25}, mlflow="off")
    resolved = resolve(given)
    assert resolved.make_space().limits.max_flops == 123
    assert (resolved.recipe.shift, resolved.recipe.flip, resolved.recipe.mixup) == (4, 0.25, 0.2)
    own = resolve(Experiment.of(dataset=path, space=Tiny, mlflow="off"))  # it does not say that it adapts
    assert own.make_space().limits.max_flops == Tiny.max_flops


class Cheaper(Cnn):
    """A space of a plugin, with a limit of its own."""

    max_flops = 3_000_000


class Without(Cnn):
    """A space of a plugin, whose constructor has no limit of operations."""

    def __init__(self, filters: int = 8) -> None:
        super().__init__()


class Larger(Blobs):
    """A data set that says what its networks may cost."""

    max_flops = 20_000_000


@pytest.mark.parametrize(
    ("given", "most"),
    [
        ({"space": Cheaper}, 3_000_000),
        ({"space": Without}, 5_000_000),
        ({"space": Without()}, 5_000_000),
        ({"dataset": Larger}, 20_000_000),
        ({"dataset": Larger, "options": {"space.max_flops": 7_000_000}}, 7_000_000),
        ({"dataset": Larger, "max_flops": 6_000_000}, 6_000_000),
        ({}, 5_000_000),  # 60,000 for each pixel would be less
    ],
)
def test_who_says_what_networks_may_cost(given: dict[str, Any], most: int) -> None:
    resolved = resolve(Experiment.of(**{"dataset": Blobs, "mlflow": "off", **given}))
    assert resolved.make_space().limits.max_flops == most


@pytest.mark.parametrize(
    "plan", [{"alone": -5, "enough": 1e9}, {"search_share": 1e300}, {"more": 1}, {"alone": "x"}]
)
def test_an_odd_plan_in_a_journal_is_refused(tmp_path: Path, plan: dict[str, Any]) -> None:
    with Journal(tmp_path / FILE) as journal:
        journal.begin({**resolve(Experiment.of(dataset=Blobs, mlflow="off")).about(), "plan": plan})
        with pytest.raises(JournalError, match="does not say what was searched"):
            _ = journal.record.header


@pytest.mark.faults
def test_with_a_time_limit_the_pace_decides_and_is_kept(tmp_path: Path) -> None:
    path = str(arrays(tmp_path, images=200, side=64))
    experiment = Experiment.of(dataset=path, time_limit="300s", workers=2, mlflow="off")
    before = resolve(experiment)
    begun = time.monotonic()
    after = planned(before, experiment, begun, Observer())
    assert after.plan is not None
    words = r"about [\d.]+ (seconds|minutes) on 2 cores: about \d+ candidates of up to"
    assert re.match(words, after.plan["text"])
    assert "140 images" in after.plan["text"]
    options = after.experiment.options
    assert 5_000_000 <= options["space.max_flops"] <= 200_000_000  # type: ignore[operator]
    assert after.make_space().limits.max_flops == options["space.max_flops"]
    assert after.experiment.epochs == after.epochs > before.epochs / 100
    late = planned(before, experiment, time.monotonic() - 255, Observer())  # of the 300 seconds
    work = [int(one.experiment.options["space.max_flops"] or 0) * one.epochs for one in (late, after)]
    assert work[0] < work[1]
    over = planned(before, experiment, time.monotonic() - 290, Observer())  # no time for a calibration
    assert (over.plan, over.experiment.options["space.max_flops"]) == (None, 5_000_000)
    own = replace(before, experiment=before.experiment.model_copy(update={"epochs": 3.0}), epochs=3.0, workers=1)
    given = Experiment.of(dataset=path, time_limit="300s", workers=1, mlflow="off", epochs=3.0)
    assert planned(own, given, time.monotonic(), Observer()).epochs == 3.0


def test_a_used_folder_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    path, folder = arrays(tmp_path, images=200, side=32), tmp_path / "run"
    folder.mkdir()
    (folder / "notes.txt").touch()
    done = nas("search", "--dataset", str(path), "--time-limit", "60s", "--out", str(folder), cwd=tmp_path, code=2)
    assert "run is not empty" in done.stderr.splitlines()[-1]
    assert "measuring" not in done.stderr


@pytest.mark.faults
def test_a_resumed_search_keeps_its_plan(tmp_path: Path) -> None:
    path, folder = arrays(tmp_path, images=200, side=32), tmp_path / "run"
    words = ["--dataset", str(path), "--mlflow", "off", "--workers", "2"]
    done = nas("search", *words, "--time-limit", "60s", "--out", str(folder), cwd=tmp_path)
    assert re.search(r"plan: about [456]0 seconds on 2 cores", done.stderr)
    before = read(folder / FILE)[0]
    assert before.header.plan
    nas("resume", str(folder), "--time-limit", "90s", cwd=tmp_path)
    after = read(folder / FILE)[0]
    assert after.header.plan == before.header.plan
    for name in ("epochs", "options"):
        assert after.about["config"][name] == before.about["config"][name]


def sided(folder: Path, *, told_by_side: bool) -> Path:
    """A file of coloured images of a bright square, whose class says on which side or at which height it is."""
    rng = np.random.default_rng(0)
    labels, other = rng.integers(0, 2, 600), rng.integers(0, 2, 600)
    pixels = rng.integers(0, 120, (600, 24, 24, 3))
    rows, columns = (other, labels) if told_by_side else (labels, other)
    for image, row, column in zip(pixels, rows, columns, strict=True):
        image[4 + 10 * row : 10 + 10 * row, 4 + 10 * column : 10 + 10 * column] += 100
    path = folder / f"sided{told_by_side}.npz"
    np.savez(path, images=pixels.astype(np.uint8), labels=labels)
    return path


@pytest.mark.faults
@pytest.mark.parametrize(("told_by_side", "flip"), [(True, 0.0), (False, 0.5)])
def test_images_are_not_mirrored_where_a_comparison_speaks_against_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told_by_side: bool, flip: float
) -> None:
    monkeypatch.setattr("nas.run.planning.WORTH_IT", 1e9)  # as with many workers, for which nothing is calibrated
    experiment = Experiment.of(dataset=str(sided(tmp_path, told_by_side=told_by_side)), trials=400, mlflow="off")
    after = planned(resolve(experiment), experiment, time.monotonic(), Observer())
    assert after.plan is not None
    assert re.search(r"changed by shift( and flip)?, after short trainings", after.plan["text"])
    assert after.recipe.flip == flip
    assert recipe_of(after.experiment.recipe).flip == flip  # what a resumed search reads
    given = Experiment.of(**{**experiment.model_dump(), "recipe": "photographs"})
    kept = planned(resolve(given), given, time.monotonic(), Observer())
    assert kept.recipe.flip == 0.5
    assert "short trainings" not in str(kept.plan)
