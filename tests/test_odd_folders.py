"""Your own images: odd folders, tables and arrays, and a cache that is damaged or in use."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_own_images import RANDOM, cache_of_the_test, drawn, opened, picture, reasons, sizes

from nas.errors import DataError

__all__ = ["cache_of_the_test"]  # a fixture of every test here, too


# Tables


def table(folder: Path, *lines: str) -> Path:
    """A table of the 20 images of two classes that it draws, after other lines."""
    drawn(folder, "a", "b")
    rows = [f"{label}/{n}.png" for label in "ab" for n in range(10)]
    header, *others = lines
    text = "\n".join([header, *(others[0].format(path=row, label=row[0]) for row in rows), *others[1:]])
    (folder / "table.csv").write_text(text)
    return folder / "table.csv"


def test_the_index_that_pandas_writes_is_no_column(tmp_path: Path) -> None:
    source = opened(table(tmp_path, ",path,label", "7,{path},{label}"))
    assert sum(sizes(source)) == 20
    assert "groups" not in source.note


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("path,label,label", "{path},{label},x"), "several columns that are called 'label'"),
        (("path,label,,", "{path},{label},1,2,3"), "line 2 has 5 cells, and the first line names 4 columns"),
        (("path,label", "{path},{label},3"), "line 2 has 3 cells, and the first line names 2 columns"),
    ],
)
def test_a_table_whose_columns_are_doubtful_is_refused(tmp_path: Path, lines: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        opened(table(tmp_path, *lines)).load()


def test_paths_from_windows_are_found(tmp_path: Path) -> None:
    path = table(tmp_path, "path,label", "{path},{label}")
    path.write_text(path.read_text().replace("/", "\\"))
    source = opened(path)
    assert sum(sizes(source)) == 20
    path.write_text(path.read_text() + "\n..\\secret.png,a")
    assert reasons(opened(path)) == {"../secret.png": "leads out of the folder"}


def test_rows_that_contradict_each_other_are_named_by_what_differs(tmp_path: Path) -> None:
    others = ("a/1.png,b,train,", "a/2.png,a,test,", "a/3.png,a,train,p", "a/3.png,b,train,p", "b/9.png,b,train,")
    path = table(tmp_path, "path,label,split,group", "{path},{label},train,", *others)
    assert reasons(opened(path)) == {
        "a/1.png": "is in the table in two classes (a and b)",
        "a/2.png": "is in the table in two splits (train and test)",
        "a/3.png": "is in the table in two groups (none and p)",
    }


# Folders


def test_a_folder_with_classes_for_training_and_a_flat_one_for_the_test(tmp_path: Path) -> None:
    drawn(tmp_path / "kaggle/train", "cat", "dog", count=20)
    drawn(tmp_path / "kaggle", "test", count=3)
    (tmp_path / "kaggle/scripts").mkdir()
    (tmp_path / "kaggle/scripts/x.py").write_text("print()")
    source = opened(tmp_path / "kaggle")
    assert source.load().classes == ("cat", "dog")
    assert dict(source.left_out) == {
        **{f"test/{n}.png": "is in no folder of a class" for n in range(3)},
        "scripts/x.py": "is in none of the folders of the splits",
    }
    (tmp_path / "kaggle/train").rename(tmp_path / "train")
    drawn(tmp_path / "kaggle", "train", count=20)
    with pytest.raises(DataError, match=r"has splits \(test, train\) without folders of classes"):
        opened(tmp_path / "kaggle").load()


def link_out(folder: Path) -> None:
    for number in range(10):
        (folder / f"c/{number}.png").unlink()
    picture().save(folder.parent / "outside.png")
    (folder / "c/0.png").symlink_to(folder.parent / "outside.png")


def move_out(folder: Path) -> None:
    (folder / "c").rename(folder.parent / "elsewhere")
    (folder / "c").symlink_to(folder.parent / "elsewhere")


def copy_all(folder: Path) -> None:
    for number in range(10):
        (folder / f"a/copy{number}.png").write_bytes((folder / f"c/{number}.png").read_bytes())


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (link_out, r"c/0.png leads out of the folder"),
        (move_out, r"c leads out of the folder"),
        (copy_all, r"c/0.png has the same pixels as a/copy0.png, which is in another class"),
    ],
)
def test_no_class_vanishes_in_silence(tmp_path: Path, spoil: Any, message: str) -> None:
    folder = drawn(tmp_path / "photos", "a", "b", "c")
    (folder / "empty").mkdir()
    (folder / "scripts").mkdir()
    (folder / "scripts/x.py").write_text("print()")
    (folder / "scripts/tool").symlink_to("nowhere")
    assert opened(folder).load().classes == ("a", "b", "c")
    spoil(folder)
    with pytest.raises(DataError, match=rf"the class c has lost all its images \({message}"):
        opened(folder).load()
    assert opened(folder, allow_broken="true").load().classes == ("a", "b")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="everything can be read")
def test_a_class_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    folder = drawn(tmp_path / "photos", "a", "b", "c")
    (folder / "c").chmod(0)
    with pytest.raises(DataError, match=r"the class c has lost all its images \(c cannot be read"):
        opened(folder).load()


def test_a_class_whose_rows_all_lack_their_file_is_an_error(tmp_path: Path) -> None:
    path = table(tmp_path, "path,label", "{path},{label}", "c/0.png,c")
    with pytest.raises(DataError, match=r"the class c has lost all its images \(c/0.png is not there"):
        opened(path).load()


# Arrays


def test_names_that_numpy_keeps_as_bytes_are_texts(tmp_path: Path) -> None:
    images = RANDOM.integers(0, 256, (30, 9, 9), np.uint8)
    labels = np.array([b"cat", "hérisson".encode()])
    np.savez(tmp_path / "texts.npz", images=images, labels=labels[np.arange(30) % 2])
    np.savez(tmp_path / "names.npz", images=images, labels=np.arange(30) % 2, classes=labels)
    for name in ("texts.npz", "names.npz"):
        assert opened(tmp_path / name).load().classes == ("cat", "hérisson")
