"""A mistake in what a search is given is said before its first training, in one line that says what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command import results
from conftest import Tiny
from test_front_door import OURS, Blobs

import nas
from nas.data.dataset import Split
from nas.errors import DataError, PluginError
from nas.records.journal import FILE
from nas.records.record import read


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
