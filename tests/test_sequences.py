"""Your own series: what is read, filled, shortened and divided, and what is refused in one line."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nas.data import open_named, open_source
from nas.data.dataset import Array, Dataset, Split
from nas.data.photographs import Photographs
from nas.data.plugin import FEW_SERIES
from nas.data.sequences.divide import folds_of
from nas.data.sequences.prepare import filled, prepared, scaled, shortened
from nas.data.sequences.sequences import Sequences
from nas.errors import DataError, OptionError

ARCHIVE = Path(os.environ.get("NAS_DATA_DIR") or "/none") / "timeseries"
NAMES = ("ACSF1", "ArrowHead", "BasicMotions", "GunPoint", "ItalyPowerDemand", "JapaneseVowels", "OSULeaf")
RANDOM = np.random.default_rng(0)

Lines = Sequence[tuple[Sequence[float | str], str]]  # values and label


def opened(path: Path, **options: Any) -> Sequences:
    source = open_source(str(path), options=options)
    assert isinstance(source, Sequences)
    return source


def tsv(path: Path, lines: Lines) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text("".join("\t".join([label, *map(str, values)]) + "\n" for values, label in lines))
    return path


def drawn(count: int, *classes: str, length: int = 6) -> Lines:
    """Series of random values, of the classes in turn."""
    return [(RANDOM.normal(size=length).round(4).tolist(), classes[i % len(classes)]) for i in range(count)]


def archive(folder: Path, train: Lines, test: Lines) -> Path:
    tsv(folder / "Some_TRAIN.tsv", train)
    tsv(folder / "Some_TEST.tsv", test)
    return folder


def rows_of(split: Split) -> set[bytes]:
    return {row.numpy().tobytes() for row in split.inputs}


def refused(path: Path, **options: Any) -> str:
    """The one line with which data are refused."""
    with pytest.raises(DataError) as caught:
        opened(path, **options).load()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# The archives


@pytest.mark.parametrize("name", NAMES)
def test_archives_are_read_as_published(name: str) -> None:
    if not (ARCHIVE / name).is_dir():
        pytest.skip("the archive is not here: set NAS_DATA_DIR")
    with (ARCHIVE / "published.csv").open() as file:
        published = {row["dataset"]: row for row in csv.DictReader(line for line in file if line[0] != "#")}[name]
    source = opened(ARCHIVE / name)
    data, test = source.load(), source.load_test()
    assert data.name == name
    assert len(data.train) + len(data.validation) == int(published["train"]) == len(data.folds)
    assert len(test) == int(published["test"])
    assert data.input_shape == (int(published["channels"]), int(published["length"].split("-")[-1]))
    assert len(data.classes) == int(published["classes"])
    assert data.is_padded == (name == "JapaneseVowels")
    assert max(data.folds) == 4
    assert f"validated on 5 folds: {published['train']} training series are few" in source.note
    source.check_test(data)
    labels = data.whole.labels
    shares = torch.stack([labels[torch.tensor(data.folds) == fold].bincount(minlength=len(data.classes))
                          for fold in range(5)])  # fmt: skip
    assert int((shares.amax(0) - shares.amin(0)).max()) <= 1  # stratified
    assert int(shares.sum(1).max() - shares.sum(1).min()) <= 1
    again = opened(next((ARCHIVE / name).glob("*_TEST.ts")))  # the other file is found beside it
    assert again.load().fingerprint == data.fingerprint
    assert torch.equal(again.load_test().inputs.nan_to_num(), test.inputs.nan_to_num())


def test_an_archive_is_a_folder_or_one_of_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    tsv(folder / "Some_train.TSV", drawn(20, "a", "b"))
    tsv(folder / "SOME_Test.tsv", drawn(8, "a", "b"))
    tsv(folder / "README_of_all.txt", [])
    for path in (folder, folder / "Some_train.TSV", folder / "SOME_Test.tsv"):
        source = opened(path)
        data = source.load()
        assert (len(data.train), len(data.validation), len(source.load_test())) == (16, 4, 8)
    assert opened(folder).name == "mine"
    assert opened(folder / "Some_train.TSV").name == "Some"
    tsv(folder / "some_VAL.tsv", drawn(6, "a", "b"))
    data = opened(folder).load()
    assert (len(data.train), len(data.validation), data.folds) == (20, 6, ())
    tsv(folder / "some_VALIDATION.tsv", drawn(6, "a", "b"))
    assert "are both validation series: remove or rename one" in refused(folder)
    tsv(folder / "Other_TRAIN.tsv", drawn(6, "a", "b"))
    assert "has several data sets (other, some): name a file, such as" in refused(folder)
    alone = tsv(tmp_path / "alone" / "X_TEST.tsv", drawn(6, "a", "b"))
    assert refused(alone).endswith("has no training series beside it: 'x'_TRAIN is needed")
    assert isinstance(open_named(str(tmp_path)), Photographs)


def test_data_without_splits_keep_some_for_the_test_and_divide_the_rest_into_folds(tmp_path: Path) -> None:
    source = opened(tsv(tmp_path / "all.tsv", drawn(100, "a", "b")))
    data, test = source.load(), source.load_test()
    assert (len(data.train), len(data.validation), len(test)) == (67, 17, 16)
    assert not rows_of(test) & rows_of(data.whole)
    assert len(rows_of(test) | rows_of(data.whole)) == 100
    assert "it has no test series: 15 % of the series are kept for the test" in source.note
    assert "validated on 5 folds: 84 training series are few" in source.note
    fold = data.fold(3)
    assert not rows_of(fold.train) & rows_of(fold.validation)
    assert opened(tmp_path / "all.tsv").load().fingerprint == data.fingerprint
    many = opened(archive(tmp_path / "many", drawn(1_000, "a", "b"), drawn(10, "a", "b")))
    data = many.load()
    assert (len(data.train), len(data.validation), data.folds) == (850, 150, ())
    assert "it has no validation series: 15 % of the training series are taken for them" in many.note


def test_what_a_search_reads_is_what_workers_read(tmp_path: Path) -> None:
    source = opened(archive(tmp_path / "x", [*drawn(9, "a", "b"), ([1, 2, 3], "a")], drawn(4, "a", "b")))
    data = source.load()
    assert data.is_padded
    data.save(tmp_path / "saved")
    loaded = Dataset.load(tmp_path / "saved")
    assert (loaded.fingerprint, loaded.folds, loaded.is_padded) == (data.fingerprint, data.folds, True)
    assert torch.equal(loaded.train.inputs.nan_to_num(), data.train.inputs.nan_to_num())
    assert source.recipe == FEW_SERIES  # in folds
    assert source.verify() == ["train: ok (7 series)", "validation: ok (3 series)", "test: ok"]


# Folds


def test_folds_are_stratified_and_keep_units_together() -> None:
    labels = np.repeat([0, 1, 2], (23, 11, 6))
    units = np.arange(40)
    units[:6] = 0  # a group of six
    folds = folds_of(labels, units)
    assert sorted(set(folds.tolist())) == [0, 1, 2, 3, 4]
    assert len(set(folds[:6].tolist())) == 1
    assert np.ptp([np.bincount(folds[labels == label], minlength=5) for label in (1, 2)], axis=1).max() <= 1
    assert np.array_equal(folds, folds_of(labels, units))
    assert folds_of(np.array([0, 0, 0, 1]), np.arange(4)).max() == 2  # the single series of a class does not count
    assert folds_of(np.array([0, 0, 1, 1, 1]), np.arange(5)).max() == 1
    assert sorted(folds_of(np.arange(10), np.arange(10)).tolist()) == sorted([0, 1, 2, 3, 4] * 2)
    with pytest.raises(DataError, match="all training series are equal, or of one group"):
        folds_of(np.array([0, 1]), np.array([5, 5]))


def test_groups_and_equal_series_stay_together(tmp_path: Path) -> None:
    path, lines = tmp_path / "x.csv", ["id,v,label,person"]
    for number in range(60):
        value = 3 if number in (1, 40) else number  # equal, in two groups
        lines += [f"{number},{value * step},{'ab'[number % 2 == 0]},p{number // 4}" for step in range(3)]
    path.write_text("\n".join(lines))
    source = opened(path, group="person")
    data, test = source.load(), source.load_test()
    place: dict[float, set[int]] = {}
    for split, numbers in ((data.whole, data.folds), (test, [9] * len(test))):
        for row, fold in zip(split.inputs[:, 0, 1].tolist(), numbers, strict=True):
            place.setdefault(row, set()).add(fold)
    assert {len(folds) for folds in place.values()} == {1}
    groups = [{fold for number in range(start, start + 4) for fold in place.get(float(number), ())}
              for start in range(0, 60, 4)]  # fmt: skip
    assert {len(folds) for folds in groups} == {1}
    assert place[3.0] == groups[10]  # the series 1 and 40 are equal
    assert "it has 15 groups, each in one split" in source.note


def test_series_of_the_test_that_are_in_the_training_are_counted_and_stay(tmp_path: Path) -> None:
    train = drawn(20, "a", "b")
    source = opened(archive(tmp_path / "x", [*train, (train[0][0], "b")], [*train[:3], *drawn(5, "a", "b")]))
    source.load()
    assert len(source.load_test()) == 8
    assert "warning: 3 test series are also among those for training and validation; they stay" in source.note
    assert "warning: 1 series occur in several classes; they stay" in source.note


# Values


def test_missing_values_are_filled_shorter_series_end_and_constant_ones_are_fine(tmp_path: Path) -> None:
    lines: Lines = [
        ([7, "NaN", 9, "NaN"], "a"),
        (["NaN", 1, "", 4, "NaN", 5], "b"),
        ([3] * 6, "a"),
        *drawn(17, "a", "b"),
    ]
    source = opened(archive(tmp_path / "x", lines, drawn(6, "a", "b")))
    data = source.load()
    rows = {tuple(np.nan_to_num(row, nan=-9)[0].tolist()) for row in data.whole.inputs.numpy()}
    assert {(7, 8, 9, -9, -9, -9), (1, 1, 2.5, 4, 4.5, 5), (3,) * 6} <= rows
    assert "4 missing values in 2 series are filled by linear interpolation" in source.note
    assert "1 channel, 3 to 6 steps" in source.note
    values = np.array([[np.nan, 1, np.nan, 2, np.nan], [0, 1, 2, 3, 4]], np.float32)
    assert filled(values).tolist() == [[1, 1, 1.5, 2, 2], [0, 1, 2, 3, 4]]


def test_series_without_values_or_label_are_left_out_with_a_reason(tmp_path: Path) -> None:
    train = [*drawn(40, "a", "b"), (["NaN"] * 6, "a"), ([1, 2], "")]
    source = opened(archive(tmp_path / "x", train, drawn(6, "a", "b")))
    assert len(source.load().whole) == 40
    assert source.left_out == [
        ("Some_TRAIN.tsv, line 41", "is empty"),
        ("Some_TRAIN.tsv, line 42", "has no label"),
    ]
    assert "2 of 48 series are left out (1 is empty, 1 has no label): left-out.csv" in source.note
    tsv(tmp_path / "x" / "Some_TRAIN.tsv", [*train, ([], "a")])
    message = refused(tmp_path / "x")
    assert message.startswith("x: 3 of 49 series cannot be used (Some_TRAIN.tsv, line 41 is empty; ")
    tsv(tmp_path / "x" / "Some_TRAIN.tsv", [*drawn(40, "a", "b"), ([], "c")])
    assert refused(tmp_path / "x") == (
        "x: the class c has lost all its series (Some_TRAIN.tsv, line 41 is empty): repair or remove them"
    )


def test_long_series_are_shortened_by_averages(tmp_path: Path) -> None:
    path = tsv(tmp_path / "x.tsv", [([i + step % 2 for step in range(5_000)], "ab"[i % 2]) for i in range(20)])
    source = opened(path)
    data = source.load()
    assert data.input_shape == (1, 2_500)
    assert source.factor == 2
    assert set(data.whole.inputs.flatten().tolist()) <= {i + 0.5 for i in range(20)}
    assert "series of up to 5,000 steps are shortened: 2 neighbouring steps are averaged" in source.note
    assert opened(path, length=100).load().input_shape == (1, 100)
    assert source.chosen == {"scaling": "set", "length": "4096"}
    assert shortened(np.array([[1, 3, 5, 7, 10]], np.float32), 2).tolist() == [[2, 6, 10]]
    with pytest.raises(OptionError, match="length = 5000: it should be from 4 to 4,096 steps, or 0"):
        opened(path, length=5_000)


def test_scaling_brings_each_series_to_mean_0_and_deviation_1(tmp_path: Path) -> None:
    path = tsv(tmp_path / "x.tsv", [*drawn(20, "a", "b"), ([0.1] * 6, "a"), ([5, 7], "b")])
    source = opened(path, scaling="series")
    inputs = source.load().whole.inputs.numpy()
    ends = ~np.isnan(inputs)
    means = [float(row[end].mean()) for row, end in zip(inputs, ends, strict=True)]
    assert np.allclose(means, 0, atol=1e-6)
    raw = np.array([[1, np.nan, 3, 5, 5]], np.float32)
    assert prepared(raw, factor=2, scaling="set").tolist() == [[1.5, 4, 5]]
    assert abs(prepared(raw, factor=2, scaling="series").mean()) < 1e-6
    assert "each channel of each series is brought to the mean 0 and the deviation 1" in source.note
    assert scaled(np.array([[0.1, 0.1, 0.1], [1, 2, 3]], np.float32))[0].tolist() == [0, 0, 0]
    with pytest.raises(OptionError, match="scaling"):
        opened(path, scaling="none")


# Refused in one line


def test_data_sets_that_cannot_be_learnt_are_refused(tmp_path: Path) -> None:
    def message(train: Lines, test: Lines = (), **options: Any) -> str:
        return refused(archive(tmp_path / "x", train, test) if test else tsv(tmp_path / "x.tsv", train), **options)

    good = drawn(20, "a", "b")
    assert message(good, [*good, ([1, 2], "c")]) == (
        "x: the class c occurs in the test part only: add training series of it, or remove it there"
    )
    assert message(drawn(9, "a")) == "x has series of the class a only: series of two classes or more are needed"
    assert message(drawn(1, "a")).startswith("x has series of the class a only")
    assert "infinite value, or one beyond 3.4e38" in message([*good, ([1, "inf"], "a")])
    assert "x.tsv, line 21 has an infinite value" in message([*good, ([1, "1e39"], "a")])
    assert "series are equal, or of one group" in message([([1, 2], "a"), ([1, 2], "b")], good)
    assert "x has no test series, and its 2 series are too few" in message(drawn(2, "a", "b"))
    many: Array = np.arange(1_000)
    arrays = {"x_train": RANDOM.normal(size=(1_000, 1, 3)), "y_train": many % 2, "groups_train": many * 0}
    np.savez(tmp_path / "x.npz", **arrays, x_test=[[[-1.0, 2, 3]]], y_test=[1])  # type: ignore[arg-type]
    assert "x has no validation series, and its 1,001 series are too few, or of too few" in refused(
        tmp_path / "x.npz"
    )
    np.savez(tmp_path / "x.npz", series=RANDOM.normal(size=(8, 1_001, 2)), y=many[:8] % 2)
    assert "the series have 1,001 channels, and at most 1,000 are allowed" in refused(tmp_path / "x.npz")
    (tmp_path / "x.ts").write_text("@classLabel true a\n@data\n")
    assert refused(tmp_path / "x.ts") == "x has no series: series of two classes or more are needed"
    with pytest.raises(
        OptionError, match="x is data without names of columns, which has no option time: leave it"
    ):
        opened(tsv(tmp_path / "x.tsv", good), time="t").load()
    assert refused(tmp_path / "none.ts") == f"there is no file or folder {tmp_path}/none.ts"


def test_series_of_different_channels_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    folder.mkdir()
    header = "@classLabel true a b\n@data\n"
    (folder / "X_TRAIN.ts").write_text(header + "1,2:a\n3,4:b\n" * 5)
    (folder / "X_TEST.ts").write_text(header + "1,2:3,4:a\n")
    assert refused(folder) == (
        "x: X_TEST.ts, line 3 has 2 channels, and X_TRAIN.ts, line 3 has 1: all series need equally many"
    )


def test_an_npz_file_is_read_with_its_splits(tmp_path: Path) -> None:
    def values(count: int) -> Array:
        return RANDOM.normal(size=(count, 2, 5)).astype(np.float32)

    y: Array = np.arange(20) % 2
    np.savez(tmp_path / "x.npz", x_train=values(20), y_train=y, x_test=values(6), y_test=y[:6])
    source = opened(tmp_path / "x.npz")
    data = source.load()
    assert (data.input_shape, data.classes, len(data.whole), len(source.load_test())) == (
        (2, 5),
        ("0", "1"),
        20,
        6,
    )
    with pytest.raises(OptionError, match="x is arrays, which has no option time"):
        opened(tmp_path / "x.npz", time="t").load()
