"""Files of series: the formats, their lies, and damaged bytes, which give one line and never a traceback."""

from __future__ import annotations

import io
import random
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.data import open_named
from nas.data.photographs import Photographs
from nas.data.sequences.arrays import read_npz
from nas.data.sequences.material import Material
from nas.data.sequences.paths import holds_series
from nas.data.sequences.sequences import Sequences
from nas.data.sequences.table import read_long, read_ucr
from nas.data.sequences.ts import read_ts
from nas.errors import DataError, NasError

HEADER = ("@problemName Small", "@timeStamps false", "@univariate false", "@classLabel true a b", "@data")


def written(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def values_of(material: Material) -> list[list[list[float]]]:
    """The values of all series; a missing one is -1."""
    return [np.nan_to_num(one, nan=-1.0).tolist() for part in material.parts for one in part.values]


def labels_of(material: Material) -> list[str]:
    return [label for part in material.parts for label in part.labels]


# .ts


def test_a_ts_file_has_dimensions_comments_missing_values_and_labels_of_any_spelling(tmp_path: Path) -> None:
    path = written(
        tmp_path / "x.ts",
        "# made of nothing", "@PROBLEMNAME Small", "@timestamps FALSE", "", "@ClassLabel True  käse Non-Smoking 3",
        "@strange tag", "@Data", "% a comment", "1,2,?:4, 5 ,6:käse", "1e1,-2,NaN,7:4,5,6,7.5:Non-Smoking",
        "1:2:3.0",
    )  # fmt: skip
    material = read_ts(path, "train")
    assert values_of(material) == [[[1, 2, -1], [4, 5, 6]], [[10, -2, -1, 7], [4, 5, 6, 7.5]], [[1], [2]]]
    assert labels_of(material) == ["käse", "Non-Smoking", "3"]  # 3.0 is the 3 of the header
    assert material.parts[0].split == "train"
    assert material.parts[0].places[0] == "x.ts, line 9"
    windows = tmp_path / "windows.ts"
    windows.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n").replace("ä".encode(), b"\xe4"))
    assert labels_of(read_ts(windows))[0] == r"k\xe4se"


def test_headers_of_archives_that_lie_without_harm_are_read(tmp_path: Path) -> None:
    lenient = (
        ("@univariate false", "1,2:a", "3,4:b"),  # one dimension
        ("@equalLength false", "1,2:a", "3,4:b"),
        ("@equalLength false\n@seriesLength 9", "1,2:a", "3,4,5:b"),
        ("@equalLength false\n@seriesLength varying", "1,2:a", "3,4,5:b"),
        ("@missing false", "1,NaN:a", "3,4:b"),
        ("@missing true", "1,2:a", "3,4:b"),
        ("@unknown", "1,2:a", "3,4:a"),  # b is in the header only
    )
    for header, *lines in lenient:
        assert len(labels_of(read_ts(written(tmp_path / "x.ts", *HEADER[:-1], header, "@data", *lines)))) == 2


@pytest.mark.parametrize(
    ("header", "line", "message"),
    [
        (
            "@dimensions 3",
            "1,2:3,4:a",
            r"line 7 has 2 dimensions, not 3, against line 5 \(@dimensions 3\): correct",
        ),
        ("@dimensions many", "1:a", r"line 5: @dimensions is 'many'; it should be a whole number from 1 on"),
        ("@univariate true", "1,2:3,4:a", r"line 7 has 2 dimensions, against line 5 \(@univariate true\)"),
        ("@univariate perhaps", "1:a", "line 5: @univariate is 'perhaps'; it should be true or false"),
        (
            "@equalLength true",
            "1,2:a\n1:a",
            r"line 8 has a series of 1 values, not 2, against line 5 \(@equallength",
        ),
        ("@seriesLength 3", "1,2,3:a\n1,2:a", r"line 8 has a series of 2 values, not 3, against line 5"),
        ("@seriesLength x", "1:a", "line 5: @serieslength is 'x'; it should be a whole number"),
        ("@missing false", "1,?:a", r"line 7 has a missing value \(\?\), against line 5 \(@missing false\): say"),
        (
            "@timeStamps true",
            "(0,1),(1,3):a",
            "line 5: the series have time stamps, which nas does not read: write",
        ),
        ("@targetLabel true", "1:2.5", "line 5: the series have numbers to predict instead of classes, which nas"),
        ("@classLabel false", "1,2", "line 5: the series have no labels of classes: write them at the ends"),
        ("@classLabel true a c", "1:b", r"line 7 has the label 'b', against line 5 \(@classlabel true a c\): add"),
        ("@classLabel", "1:b", "line 5: @classlabel is ''; it should be true or false"),
        ("@x", "1,2", "line 7 has no label: write a colon and the label after the values"),
        ("@x", "1,two:a", "line 7: 'two' is no number: separate values by commas, and write"),
        ("@x", "1,:a", "line 7: '' is no number"),
        ("@x", "1_0:a", "line 7: '1_0' is no number"),
        ("@x", "1,2:3:a", "line 7 has dimensions of 1 and 2 values: make them equally long"),
        ("@x", "1:a\n1:2:a", "line 8 has 2 dimensions, not 1 as line 7: correct"),
        ("1,2:a", "", r"line 5: '1,2:a' stands before the line @data: put @data above the first series"),
    ],
)
def test_a_ts_file_whose_header_and_series_do_not_fit_is_refused(
    tmp_path: Path, header: str, line: str, message: str
) -> None:
    path = written(tmp_path / "x.ts", *HEADER[:-1], header, "@data", line)
    with pytest.raises(DataError, match=message) as caught:
        read_ts(path)
    assert str(caught.value).startswith(f"{path}, line ")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no line @data, which ends the header of a .ts file"):
        read_ts(written(tmp_path / "x.ts", "@problemName x"))
    with pytest.raises(DataError, match=f"there is no file {tmp_path}/none.ts"):
        read_ts(tmp_path / "none.ts")
    with pytest.raises(DataError, match="is no file"):
        read_ts(tmp_path)


# Tables


def test_a_ucr_table_has_labels_values_and_shorter_series(tmp_path: Path) -> None:
    path = written(tmp_path / "x.tsv", "1\t0.5\t-1\tNaN\tNaN", "-1\t0.5\tNaN\t3\t4", "b c\t1\t\t\t", "2.0\t1\t2")
    material = read_ucr(path, "test")
    assert values_of(material) == [[[0.5, -1]], [[0.5, -1, 3, 4]], [[1]], [[1, 2]]]
    assert labels_of(material) == ["1", "-1", "b c", "2"]
    old = written(tmp_path / "x.txt", "  1.0000000e+00 -6.5e-01   2.0", "", "   2.0000000e+00 1 2")
    assert labels_of(read_ucr(old)) == ["1", "2"]
    assert labels_of(read_ucr(written(tmp_path / "y.txt", "1,2,3", "2,3,4"))) == ["1", "2"]
    named = read_ucr(written(tmp_path / "z.csv", "label,0,1", "a,2,3", "b,3,4"))
    assert labels_of(named) == ["a", "b"]
    assert named.remarks == ["z.csv: line 1 has the names of the columns"]
    with pytest.raises(DataError, match=r"x.tsv, line 2: 'x' is no number: write a line for each series"):
        read_ucr(written(path, "1\t2", "1\tx"))


LONG = (
    "id,time,x,y,label,split,group,remark",
    "s1,2,20,0.2,a,train,g,hello", "s2,1,1,,b,test,h,", "s1,1,10,0.1,a,train,g,", "s1,10,30,0.3,a,train,g,x",
    "s2,2,2,7,b,test,h,",
)  # fmt: skip


def test_a_long_table_is_sorted_by_time_and_knows_its_columns(tmp_path: Path) -> None:
    material = read_long(written(tmp_path / "x.csv", *LONG))
    assert [part.split for part in material.parts] == ["train", "test"]
    assert values_of(material) == [
        [[10, 20, 30], [np.float32(0.1), np.float32(0.2), np.float32(0.3)]],
        [[1, 2], [-1, 7]],
    ]
    assert labels_of(material) == ["a", "b"]
    assert [part.groups for part in material.parts] == [["g"], ["h"]]
    assert material.parts[1].places == ["x.csv, series s2"]
    assert material.remarks[:2] == [
        "the channels are the columns x, y",
        "the columns remark are no numbers, and not used",
    ]
    named = read_long(tmp_path / "x.csv", values="y, x")
    assert values_of(named)[1] == [[-1, 7], [1, 2]]
    dated = written(
        tmp_path / "d.csv", "trial;when;v;class", "1;2026-01-31 09:00;1;a", "1;2026-01-30;2;a", "2;2026-01-30;3;b"
    )
    assert values_of(read_long(dated, series="trial", time="when")) == [[[2, 1]], [[3]]]


@pytest.mark.parametrize(
    ("old", "new", "options", "message"),
    [
        (
            "s1,1,10,0.1,a",
            "s1,1,10,0.1,b",
            {},
            "the series 's1' has 'a' and 'b' in the column 'label': it should be",
        ),
        (
            "s1,1,10,0.1,a,train",
            "s1,1,10,0.1,a,test",
            {},
            "the series 's1' has 'train' and 'test' in the column 'sp",
        ),
        ("s1,1,10", "s1,2,10", {}, "the series 's1' has two rows for '2' in the column 'time': remove one"),
        ("s1,1,10", ",1,10", {}, "row 3: the column 'id' is empty: name the series of each row"),
        (
            "s1,1,10",
            "s1,soon,10",
            {},
            "row 3: the time 'soon' in the column 'time' should be a finite number",
        ),
        ("s1,1,10", "s1,nan,10", {}, "row 3: the time 'nan' in the column 'time' should be a finite number"),
        (
            "s1,1,10",
            "s1,1,ten",
            {},
            "row 3, column 'x': 'ten' is no number: correct it, or name the other columns",
        ),
        (",test,h", ",exam,h", {}, "the column 'split' has 'exam'; it should be train, validation or test"),
        ("", "", {"values": "x,z"}, "there is no column 'z'"),
        ("", "", {"series": "unit"}, "there is no column 'unit'"),
        ("", "", {"values": "remark"}, "row 1, column 'remark': 'hello' is no number"),
        (
            "id,",
            "who,",
            {},
            "has no column that is called series, series_id, id or so .*; for images, .*paths=NAME",
        ),
        (",label", ",what", {}, "has no column that is called label, class, category or so"),
    ],
)
def test_a_long_table_that_contradicts_itself_is_refused(
    tmp_path: Path, old: str, new: str, options: dict[str, Any], message: str
) -> None:
    path = written(tmp_path / "x.csv", *"\n".join(LONG).replace(old, new).split("\n"))
    with pytest.raises(DataError, match=message) as caught:
        read_long(path, **options)
    assert "\n" not in str(caught.value)


# Arrays


def test_arrays_have_roles_splits_and_shorter_series(tmp_path: Path) -> None:
    series = np.arange(12.0).reshape(2, 2, 3)
    series[0, :, 2] = np.nan
    np.savez(
        tmp_path / "x.npz", X_train=series, y_train=[3, 4], X_test=series[:1], y_test=[3], groups_train=["g", "h"]
    )
    material = read_npz(tmp_path / "x.npz")
    assert [part.split for part in material.parts] == ["test", "train"]
    assert values_of(material)[1:] == [[[0, 1], [3, 4]], [[6, 7, 8], [9, 10, 11]]]
    assert material.parts[1].groups == ["g", "h"]
    assert material.parts[1].places == ["x.npz[train, 0]", "x.npz[train, 1]"]
    np.savez(tmp_path / "x.npz", series=series[:, 0], labels=["a", "b"], other=[1, 1])
    assert values_of(read_npz(tmp_path / "x.npz")) == [[[0, 1]], [[6, 7, 8]]]
    with pytest.raises(DataError, match=r"has no array 'who' for --set dataset.group"):
        read_npz(tmp_path / "x.npz", group="who")
    assert read_npz(tmp_path / "x.npz", group="other").parts[0].groups == ["1", "1"]
    for arrays, message in (
        ({"z": series}, "has no array that is called series or x"),
        ({"x": series}, "has no labels for its  ?series"),
        ({"x": series, "y": [1]}, "has 2 series, 1 labels and 1 groups: they should be equally many"),
        ({"x": series[None], "y": [1]}, r"have the shape \(1, 2, 2, 3\); it should be \(N, channels, time\)"),
        ({"x": np.array([["a"]]), "y": [1]}, "are of the type <U1; they should be numbers"),
        ({"x": series, "y": [0.5, 1]}, "the labels are fractions, such as 0.5"),
        ({"x": series, "y": [np.nan, 1]}, "the labels are fractions, such as nan"),
    ):
        np.savez(tmp_path / "x.npz", **arrays)
        with pytest.raises(DataError, match=message):
            read_npz(tmp_path / "x.npz")


# What is series


def test_paths_of_series_and_of_images_are_told_apart(tmp_path: Path) -> None:
    def is_series(*lines: str, name: str, **options: str) -> bool:
        return holds_series(written(tmp_path / name, *lines), options)

    assert is_series("", name="x.ts")
    assert is_series("1\t2\t3", name="x.tsv")
    assert is_series("", "1 2 3", name="x.txt")
    assert not is_series("some words", name="x.txt")
    assert is_series("1,2,3", name="x.csv")
    assert is_series("id,x,label", name="x.csv")
    assert not is_series("id;File name;label", name="x.csv")
    assert is_series("id,path,x,label", name="x.csv", series="id")
    assert not is_series("id,x,label", name="x.csv", paths="x")
    assert not is_series("id\tpath\tlabel", name="x.tsv")
    small, wide = np.zeros((2, 3, 4)), np.full((2, 3, 4), -1.0)
    for arrays, expected in (
        ({"x": small}, False), ({"x": wide}, True), ({"images": wide}, False), ({"series_train": small}, True),
        ({"x": small * np.nan}, True), ({"x": wide[:, 0]}, False), ({"x": wide.astype(int)}, False), ({}, False),
        ({"x": wide, "images": small}, False),
    ):  # fmt: skip
        np.savez(tmp_path / "x.npz", **arrays)
        assert holds_series(tmp_path / "x.npz", {}) is expected, arrays
    np.savez(tmp_path / "x.npz", x=small, y=[0, 1])
    assert isinstance(open_named(str(tmp_path / "x.npz"), options={"view": "series"}), Sequences)
    assert isinstance(open_named(str(tmp_path / "x.npz"), options={"view": "images"}), Photographs)
    folder = tmp_path / "archive"
    (folder / "photos").mkdir(parents=True)
    assert not holds_series(folder, {})
    written(folder / "Name_Train.TS", "")
    assert holds_series(folder, {})
    (folder / "photos" / "1.png").touch()
    assert not holds_series(folder, {})


# Damaged files


def valid() -> dict[str, bytes]:
    """A small sound file of each kind."""
    rng = np.random.default_rng(0)
    series = rng.normal(size=(8, 2, 6)).round(2)
    labels = ["a", "b"] * 4
    body = [":".join([*(",".join(map(str, channel)) for channel in one), label])
            for one, label in zip(series.tolist(), labels, strict=True)]  # fmt: skip
    lines = [
        f"{one},{step},{series[one, 0, step]},{labels[one]},g{one // 2}" for one in range(8) for step in range(6)
    ]
    arrays, small = io.BytesIO(), io.BytesIO()
    np.savez(arrays, x=series, y=np.array(labels), groups=np.arange(8) // 2)
    np.savez_compressed(small, series=series, y=np.arange(8) % 2)
    ts = "\n".join(
        [*HEADER[:-1], "@dimensions 2", "@equalLength true", "@seriesLength 6", "@missing true", "@data", *body]
    )
    return {
        ".ts": ts.encode(),
        ".tsv": "\n".join("\t".join([label, *map(str, one[0])]) for one, label in
                          zip(series.tolist(), labels, strict=True)).encode(),
        ".csv": "\n".join(["id,time,x,label,group", *lines]).encode(),
        ".npz": arrays.getvalue(),
        ".compressed.npz": small.getvalue(),
    }  # fmt: skip


TOKENS = (
    b"NaN", b"?", b":", b",", b"\t", b"\n", b"\r", b"@", b"#", b"@data\n", b"1e999", b"1e39", b"-", b"_", b"\x00",
    b"\xff", b'"', b"inf", b"9" * 400, b"", b" ", b"true", b"false", "٣".encode(), b"\xed\xa0\x80", b"train",
)  # fmt: skip
FILES = valid()


def damaged(content: bytes, seed: int, times: int) -> bytes:
    """A file in which some bytes are changed, removed, repeated, or replaced by words that mean something."""
    draw, changed = random.Random(seed), bytearray(content)
    for _ in range(times):
        start = draw.randrange(len(changed) + 1)
        end = min(len(changed), start + draw.choice((0, 1, 1, 2, 5, 20, 100)))
        other = draw.randrange(len(changed) + 1)
        changed[start:end] = draw.choice(
            (
                b"",
                bytes([draw.randrange(256)]),
                draw.choice(TOKENS),
                draw.choice(TOKENS),
                changed[other : other + 30],
            )
        )
    return bytes(changed)


def survives(path: Path, content: bytes) -> bool:
    """Whether damaged bytes are a data set still; otherwise, the reason is one line."""
    path.write_bytes(content)
    holds_series(path, {})
    source, message = Sequences([], path), ""
    try:
        source.check_test(source.load())
    except NasError as error:
        message = str(error)
    assert "\n" not in message, message
    assert len(message) < 1_000, message
    return not message


@settings(max_examples=120)
@given(st.sampled_from(sorted(FILES)), st.integers(0, 2**32), st.integers(1, 4))
def test_damaged_files_give_one_line(ending: str, seed: int, times: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        survives(Path(folder, f"x{ending}"), damaged(FILES[ending], seed, times))


@settings(max_examples=80)
@given(st.sampled_from((".ts", ".tsv", ".csv", ".txt", ".npz")), st.binary(max_size=200))
def test_any_bytes_give_one_line(ending: str, content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        survives(Path(folder, f"x{ending}"), content)


@pytest.mark.parametrize("ending", sorted(FILES))
def test_the_sound_files_are_read(tmp_path: Path, ending: str) -> None:
    assert survives(tmp_path / f"x{ending}", FILES[ending])
