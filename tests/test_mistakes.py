"""A mistake in what a search is given is said before its first training, in one line that says what to do."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from command import results
from conftest import LOSS, Instant, Tiny, job
from test_front_door import OURS, Blobs, Draws

import nas
from nas import plugins
from nas.architecture.architecture import Limits
from nas.architecture.known import LECTURE
from nas.architecture.layers import Dense, Flatten
from nas.data.dataset import Dataset, Split
from nas.errors import ArchitectureError, DataError, PluginError, SpaceError, UsageError
from nas.evaluation.cached import CachedEvaluator
from nas.records.journal import FILE, Journal
from nas.records.record import read
from nas.spaces.space import Choose
from nas.testing.strategies import Sketch
from nas.trial import Job, Trial


class Changed(Blobs):
    """Images whose test split was changed."""

    def __init__(self, change: Callable[[Split], Any]) -> None:
        super().__init__([])
        self.change, self.opened = change, 0

    def load_test(self) -> Split:
        self.opened += 1
        changed: Split = self.change(super().load_test())
        return changed


def padded(split: Split) -> Split:
    images = split.images.new_zeros((len(split), 1, 20, 20))
    images[..., :8, :8] = split.images
    return Split(images, split.labels)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (padded, "images of the training images' shape (1, 8, 8), found (1, 20, 20)"),
        (lambda s: Split(s.images, s.labels + 1), "labels from 0 to 1, found 2"),
        (lambda s: Split(s.images[:0], s.labels[:0]), "an image of every class, found none of above, below"),
        (lambda s: Split(s.images, s.labels * 0), "an image of every class, found none of below"),
        (lambda s: Split(s.images / 255, s.labels), "images of type torch.uint8, found torch.float32"),
        (lambda s: Split(s.images, s.labels[1:]), "as many labels as images, 32, found 31"),
        (lambda s: (s.images, s.labels), "expected a Split, found a tuple"),
        (lambda s: 1 / 0, "the test images of changed cannot be loaded: ZeroDivisionError"),
    ],
)
def test_a_wrong_test_split_is_refused_before_the_first_training(
    tmp_path: Path, change: Callable[[Split], Any], words: str
) -> None:
    with pytest.raises((DataError, PluginError)) as caught:
        nas.search(**{**OURS, "dataset": Changed(change)}, out=tmp_path / "run")
    assert words in str(caught.value)
    assert "test images" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_when_the_test_fails_at_the_end_the_search_is_resumed_and_tested_again(tmp_path: Path) -> None:
    whole, folder = tmp_path / "whole", tmp_path / "run"
    nas.search(**{**OURS, "dataset": Changed(lambda split: split)}, out=whole)

    def lost(split: Split) -> Split:
        if data.opened == 2:  # first for the check, then for the test
            raise OSError("the disk is gone")
        return split

    data = Changed(lost)
    with pytest.raises(PluginError, match=r"test images of changed .* OSError: the disk is gone"):
        nas.search(**{**OURS, "dataset": data}, out=folder)
    trained = set(read(folder / FILE)[0].trials)
    objects = {kind: OURS[kind] for kind in ("strategy", "space", "evaluator")}
    nas.resume(folder, dataset=data, **objects)
    assert set(read(folder / FILE)[0].trials) == trained
    assert results(folder) == results(whole)


def test_a_data_set_that_loads_nothing_is_named(tmp_path: Path) -> None:
    class Empty(Blobs):
        def load(self) -> Any:
            return None

    with pytest.raises(PluginError, match="load of empty must return a Dataset, not a NoneType"):
        nas.search(**{**OURS, "dataset": Empty, "space": Tiny()}, out=tmp_path / "run")


# Images


def shaped(shape: tuple[int, ...]) -> Split:
    labels = np.arange(shape[0]) % 2
    return Split.of(np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8), labels)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((8, 32, 32, 3), "images (8, 32, 32, 3) look like (N, H, W, C): write images.transpose(0, 3, 1, 2)"),
        ((8, 32, 128, 3), "images (8, 32, 128, 3) look like (N, H, W, C): write images.transpose(0, 3, 1, 2)"),
        ((8, 28, 20, 1), "images (8, 28, 20, 1) look like (N, H, W, C): write images.transpose(0, 3, 1, 2)"),
        ((8, 28, 28), "images (8, 28, 28) have no dimension of channels: write images[:, None]"),
    ],
)
def test_images_whose_dimensions_are_in_another_order_are_named(shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(DataError) as caught:
        Dataset.of("mine", shaped(shape), shaped(shape), "ab")
    assert words in str(caught.value)


@pytest.mark.parametrize("shape", [(8, 3, 32, 32), (8, 12, 500, 1), (8, 3, 4, 3), (8, 16, 6, 6), (8, 1, 28, 28)])
def test_images_of_few_or_many_channels_are_taken(shape: tuple[int, ...]) -> None:
    assert Dataset.of("mine", shaped(shape), shaped(shape), "ab").input_shape == shape[1:]


# Limits


@pytest.mark.parametrize("name", ["cnn", "lecture"])
@pytest.mark.parametrize(
    ("shape", "limits", "options"),
    [
        ((3, 112, 112), {"max_flops": 100_000}, {"max_flops"}),
        ((1, 28, 28), {"max_parameters": 5}, {"max_parameters"}),
        ((1, 28, 28), {"max_parameters": 2_000, "max_flops": 1_000}, {"max_parameters", "max_flops"}),
    ],
)
def test_a_space_in_which_nothing_fits_names_the_limits_that_would_do(
    name: str, shape: tuple[int, ...], limits: dict[str, int], options: set[str]
) -> None:
    space = plugins.find("space", name)()
    with pytest.raises(SpaceError) as caught:
        space.within(Limits(shape, 10, **limits)).sample(Random(0))
    advised = {k.replace("-", "_"): int(n) for k, n in re.findall(r"--(max-[a-z]+) (\d+)", str(caught.value))}
    assert advised.keys() == options
    wider = space.within(Limits(shape, 10, **{**limits, **advised}))
    assert {wider.sample(Random(seed)).architecture.id for seed in range(5)}


def test_a_network_beyond_a_limit_names_the_limit_that_would_do() -> None:
    limits = Limits(max_parameters=20_000, max_flops=10**9)
    with pytest.raises(ArchitectureError, match=r"34,826 parameters.* the 20,000 allowed.*--max-parameters 34826"):
        limits.check(LECTURE)


def test_a_limit_of_memory_with_which_all_would_fail_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    options = {"evaluator.memory": 0.05}
    with pytest.raises(UsageError, match=r"evaluator\.memory=0\.05 is too little: a worker needs 0\.5 GiB"):
        nas.search(**{**OURS, "evaluator": "local"}, options=options, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


# Spaces, strategies and evaluators


class Two(nas.SearchSpace):
    """The choices under one name depend on an earlier answer."""

    def build(self, choose: Choose) -> nas.Architecture:
        """A dense layer."""
        few = choose.suggest_categorical("few", [True, False])
        units = choose.suggest_categorical("units", [1, 2] if few else [30, 40])
        return nas.Architecture((Flatten(), Dense(units)))


@pytest.mark.parametrize("strategy", ["reference", "evolve", "trial-and-error", Draws])
def test_one_question_with_two_sets_of_answers_is_refused_at_the_first_batch(
    tmp_path: Path, strategy: Any
) -> None:
    with pytest.raises(SpaceError, match=r"'units' .* once for one of .* once for one of .*: use two names"):
        nas.search(**{**OURS, "strategy": strategy, "space": Two}, out=tmp_path / "run")
    assert not read(tmp_path / "run" / FILE)[0].trials


class Elsewhere(Draws):
    """Proposes candidates of another space than the search's."""

    def ask(self, count: int) -> list[nas.Candidate]:
        return [Sketch().sample(self.rng) for _ in range(count)]


def test_candidates_of_another_space_are_refused(tmp_path: Path) -> None:
    words = r"the strategy Elsewhere proposes the candidate \w+, but the answers .* do not build .* space Tiny"
    with pytest.raises(PluginError, match=words):
        nas.search(**{**OURS, "strategy": Elsewhere}, out=tmp_path / "run")
    assert not read(tmp_path / "run" / FILE)[0].trials


def test_an_evaluator_that_returns_a_trial_twice_is_told_so(tmp_path: Path) -> None:
    class Twice(Instant):
        def evaluate(self, jobs: Sequence[Job], /) -> Iterator[Trial]:
            for trial in super().evaluate(jobs):
                yield trial
                yield trial

    with Journal(tmp_path / FILE) as journal:
        jobs = [job(LECTURE, 1), job(LECTURE, 2)]
        with pytest.raises(PluginError, match="the evaluator Twice returned two trials of one job"):
            list(CachedEvaluator(Twice(), journal, LOSS).evaluate(jobs))
