"""Your own images: odd folders, tables and arrays, and a cache that is damaged or in use."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from filelock import FileLock
from PIL import Image
from test_own_images import RANDOM, cache_of_the_test, drawn, opened, picture, reasons, sizes

from nas.cli.data import data as data_command
from nas.data import cache
from nas.data.dataset import _link, new_images
from nas.data.decoder import MAX_SIDE, decode
from nas.data.decoders import decode_all
from nas.errors import DataError, ImageError
from nas.winner.predict import Classifier, Refusal, class_of

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
    for number in range(30):
        (folder / f"c/{number}.png").unlink()
    picture().save(folder.parent / "outside.png")
    (folder / "c/0.png").symlink_to(folder.parent / "outside.png")


def move_out(folder: Path) -> None:
    (folder / "c").rename(folder.parent / "elsewhere")
    (folder / "c").symlink_to(folder.parent / "elsewhere")


def pull_out(folder: Path) -> None:
    (folder / "c").rename(folder / ".c")
    (folder / "c").symlink_to("nowhere")


def copy_all(folder: Path) -> None:
    for number in range(30):
        (folder / f"a/copy{number}.png").write_bytes((folder / f"c/{number}.png").read_bytes())


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (link_out, r"c/0.png leads out of the folder"),
        (move_out, r"c leads out of the folder"),
        (pull_out, r"c is not there"),
        (copy_all, r"c/0.png has the same pixels as a/copy0.png, which is in another class"),
    ],
)
def test_no_class_vanishes_in_silence(tmp_path: Path, spoil: Any, message: str) -> None:
    folder = drawn(tmp_path / "photos", "a", "b", "c", count=30)
    (folder / "empty").mkdir()
    (folder / "scripts").mkdir()
    (folder / "scripts/x.py").write_text("print()")
    (folder / "scripts/tool").symlink_to("nowhere")
    (folder / "scripts/data").symlink_to("/tmp")
    (folder / "README").symlink_to("/etc/hostname")
    assert opened(folder).load().classes == ("a", "b", "c")
    spoil(folder)
    with pytest.raises(DataError, match=rf"the class c has lost all its images \({message}"):
        opened(folder).load()
    assert opened(folder, allow_broken="true").load().classes == ("a", "b")


def test_a_class_whose_rows_all_lack_their_file_is_an_error(tmp_path: Path) -> None:
    path = table(tmp_path, "path,label", "{path},{label}", "c/0.png,c", f"{300 * 'x'}.png,a")
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


def test_arrays_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine.npz"
    np.savez(path, images=RANDOM.random((30, 9, 9, 2)), labels=np.arange(30) % 2)
    first = opened(path)
    data = first.load()
    assert "_material" not in vars(first)  # its arrays are not kept
    with monkeypatch.context() as patched:
        patched.setattr("nas.data.photographs.Arrays", None)
        again = opened(path)
        assert again.load().fingerprint == data.fingerprint
        assert (again.note, again.chosen) == (first.note, first.chosen)
        assert len(again.load_test()) == len(first.load_test())
    np.savez(path, images=RANDOM.random((40, 9, 9, 2)), labels=np.arange(40) % 2)
    assert sum(sizes(opened(path))) == 40


# Decoding


def test_a_line_of_a_million_pixels_is_refused() -> None:
    file = io.BytesIO()
    Image.new("L", (MAX_SIDE + 1, 1)).save(file, "PNG")
    with pytest.raises(ImageError, match=r"has a side of more than 65,535 pixels: make it smaller"):
        decode(file.getvalue())


def test_a_file_that_can_be_read_again_is_read_at_the_next_start(tmp_path: Path) -> None:
    folder = drawn(tmp_path / "photos", "a", "b", count=20)
    state = (folder / "a/0.png").stat()
    content = (folder / "a/0.png").read_bytes()
    source = opened(folder)
    assert source._material.listing.files  # then the file goes, as on a drive that is pulled out
    (folder / "a/0.png").unlink()
    assert reasons(source) == {"a/0.png": "there is no such file"}
    (folder / "a/0.png").write_bytes(content)
    os.utime(folder / "a/0.png", ns=(state.st_atime_ns, state.st_mtime_ns))
    test = opened(folder)
    assert len(test.load_test()) == len(source.load_test())  # the test images of the last training
    assert sum(sizes(opened(folder))) == 40


def test_a_folder_without_a_readable_image_gives_the_first_reason_each_time(
    tmp_path: Path, cache_of_the_test: Path
) -> None:
    folder = drawn(tmp_path / "photos", "a", "b", count=1)
    for label in "ab":
        (folder / label / "0.png").write_bytes(b"\0\0\0\x18ftypheic")
    for _ in range(2):
        with pytest.raises(DataError, match=r"no images that can be read: the first one is a"):
            opened(folder).load()
    assert not list(cache.entries())


def test_what_can_be_decoded_decides_about_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = drawn(tmp_path / "photos", "a", "b")
    before = opened(folder)._key
    monkeypatch.setattr("nas.data.photographs.formats", lambda: ("PNG", "HEIF"))
    assert opened(folder)._key != before


@pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")
def test_a_system_without_free_descriptors_is_no_full_disk(tmp_path: Path) -> None:
    import resource

    folder = drawn(tmp_path / "photos", "a")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(DataError, match=r"can be started \(Too many open files\): end other programs"):
            decode_all(folder, [("a/0.png", 9)], lambda done, total: None)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# The cache


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="the system cannot reserve space")
def test_the_space_of_images_is_reserved(tmp_path: Path) -> None:
    new_images(tmp_path / "images.npy", (100, 1, 100, 100))
    state = (tmp_path / "images.npy").stat()
    assert state.st_blocks * 512 >= state.st_size >= 10**6


@pytest.mark.parametrize("file", ["train_inputs.npy", "test_labels.npy", cache.ABOUT])
def test_a_damaged_entry_is_built_anew(tmp_path: Path, file: str) -> None:
    folder = drawn(tmp_path / "photos", "a", "b")
    before = opened(folder).load().fingerprint
    (entry,) = (place for place, about, _ in cache.entries() if "images" in about)
    os.truncate(entry / file, 100)
    source = opened(folder)
    assert source.load().fingerprint == before
    assert sum(sizes(source)) == 20


def test_clearing_leaves_what_is_being_built(tmp_path: Path) -> None:
    opened(drawn(tmp_path / "photos", "a", "b")).load()
    (draft := cache.cache_folder() / "busy.part").mkdir()
    with FileLock(draft.with_name("busy.lock")):
        output = CliRunner().invoke(data_command, ["clear"]).output
    assert "removed (2 entries; 1 that a process is building stay)" in output
    assert draft.is_dir()
    assert not list(cache.entries())
    assert "removed (0 entries)" in CliRunner().invoke(data_command, ["clear"]).output
    assert not draft.exists()


def test_files_are_copied_where_they_cannot_be_linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(file: Path, link: Path) -> None:
        raise PermissionError

    (tmp_path / "file").write_text("text")
    monkeypatch.setattr(os, "link", refuse)
    _link(tmp_path / "file", tmp_path / "link")
    (tmp_path / "file").unlink()
    assert (tmp_path / "link").read_text() == "text"


def test_folders_are_compared_with_classes_as_these_are_written() -> None:
    assert class_of("photos/line\nbreak/1.png", "photos", ["line\\nbreak"]) == "line\\nbreak"


def test_an_image_that_needs_too_much_memory_costs_only_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = object.__new__(Classifier)  # of any network
    classifier.shape, classifier.framing = (1, 8, 8), "crop"

    def read(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("nas.winner.predict.read_picture", read)
    assert list(classifier.predict(["a.png"])) == [Refusal("a.png", "needs more memory than there is")]


def test_verify_shows_how_far_it_is(tmp_path: Path) -> None:
    folder = drawn(tmp_path / "photos", "a", "b")
    result = CliRunner().invoke(data_command, ["verify", str(folder)])
    assert "reading the files: 20 of 20" in result.stderr
    assert "train: ok (14 images)" in result.stdout
