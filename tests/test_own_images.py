"""Your own images: folders, tables and arrays as people have them, without a crash, a leak, or silence."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import nas
from nas import plugins
from nas.cli.data import data as data_command
from nas.data import cache, open_named, open_source
from nas.data.dataset import Dataset
from nas.data.decoders import decode_all
from nas.data.division import divided, parts_of, together
from nas.data.photographs import Photographs
from nas.errors import DataError, JournalError, NasError, PluginError, UsageError

RANDOM = np.random.default_rng(0)
QUICK: dict[str, Any] = {
    "strategy": "reference", "trials": 1, "rungs": 1, "epochs": 0.5, "workers": 1, "mlflow": "off",
}  # fmt: skip


@pytest.fixture(autouse=True)
def cache_of_the_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test writes to the user's cache."""
    monkeypatch.setattr("platformdirs.user_cache_path", lambda name: tmp_path / "cache" / name)
    return tmp_path / "cache" / "nas" / "images"


def picture(height: int = 20, width: int = 16, *, grey: bool = False) -> Image.Image:
    shape = (height, width) if grey else (height, width, 3)
    return Image.fromarray(RANDOM.integers(0, 256, shape, np.uint8))


def content(kind: str, mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    picture().convert(mode).save(file, kind)
    return file.getvalue()


def drawn(folder: Path, *classes: str, count: int = 10, ending: str = "png", **options: Any) -> Path:
    """A folder with folders of classes; numbered images in each."""
    for name in classes:
        (folder / name).mkdir(parents=True)
        for number in range(count):
            picture(**options).save(folder / name / f"{number}.{ending}")
    return folder


def sizes(source: Photographs) -> list[int]:
    data = source.load()
    return [len(data.train), len(data.validation), len(source.load_test())]


def opened(path: Path, **options: Any) -> Photographs:
    source = open_source(str(path), options=options)
    assert isinstance(source, Photographs)
    return source


def reasons(source: Photographs) -> dict[str, str]:
    source.load()
    return dict(source.left_out)


# Names and paths


def test_a_plugin_wins_over_a_folder_of_its_name_and_a_separator_over_the_plugin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    drawn(Path("mnist-5k"), "a", "b")
    drawn(Path("photos"), "a", "b")
    assert not isinstance(open_named("mnist-5k"), Photographs)
    for path in ("./mnist-5k", "photos", f"{tmp_path}/photos/"):
        source = open_named(path)
        assert isinstance(source, Photographs)
        assert source.address == str(tmp_path / Path(path).name)
    with pytest.raises(
        UsageError, match=r"no dataset 'photo'.*known: auto, .*, and no file or folder of that name"
    ):
        open_named("photo")
    with pytest.raises(DataError, match=f"there is no file or folder {tmp_path}/photo"):
        open_named("./photo").load()
    assert nas.Experiment.of(dataset=Path("photos")).dataset == "./photos"


# Folders


def test_class_folders_are_divided_and_the_second_start_decodes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = drawn(tmp_path / "photos", "10", "9", "b", count=20)
    first = opened(folder)
    data, test = first.load(), first.load_test()
    assert data.classes == ("9", "10", "b")
    assert data.input_shape == (3, 20, 16)
    assert [split.labels.bincount().tolist() for split in (data.train, data.validation, test)] == [
        [14, 14, 14], [3, 3, 3], [3, 3, 3],
    ]  # fmt: skip
    splits = [{i.numpy().tobytes() for i in s.images} for s in (data.train, data.validation, test)]
    assert len(set.union(*splits)) == 60
    original = np.asarray(Image.open(folder / "b/7.png")).transpose(2, 0, 1).tobytes()
    assert original in set.union(*splits)

    monkeypatch.setattr("nas.data.photographs.decode_all", None)
    again = opened(folder).load()
    assert again.fingerprint == data.fingerprint
    assert torch.equal(again.train.images, data.train.images)
    os.utime(folder / "b/7.png", ns=(1, 1))
    with pytest.raises(PluginError, match="NoneType"):  # a changed file is decoded again
        plugins.guarded(opened(folder).load, "")


def test_splits_in_folders_are_kept_and_missing_ones_are_taken_from_others(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    for split, count in (("Train", 20), ("VALID", 6), ("test", 5)):
        drawn(whole / split, "a", "b", count=count)
    assert sizes(opened(whole)) == [40, 12, 10]
    part = tmp_path / "part"
    for split, count in (("train", 20), ("val", 12)):
        drawn(part / split, "a", "b", count=count)
    source = opened(part)
    assert sizes(source) == [40, 12, 12]
    assert "no test images: half of the validation images are kept" in source.note
    (part / "val").rename(part / "test")
    source = opened(part)
    assert sizes(source) == [34, 6, 24]
    assert "no validation images: 15 % of the training images" in source.note


def test_classes_may_lie_deeper(tmp_path: Path) -> None:
    folder = drawn(tmp_path / "Fruit", "Apple/Golden", "Apple/Fuji", "Pear/Abate")
    assert opened(folder).load().classes == ("Apple/Fuji", "Apple/Golden", "Pear/Abate")
    assert opened(folder, depth="1").load().classes == ("Apple", "Pear")
    inside = drawn(tmp_path / "archive", "photos/cat", "photos/dog")
    assert opened(inside).load().classes == ("cat", "dog")


def test_everything_odd_is_left_out_and_listed(tmp_path: Path) -> None:
    folder = drawn(tmp_path / "photos", "cat", "dog", "line\nbreak", count=30, ending="jpg")
    secret = tmp_path / "secret.png"
    picture().save(secret)
    (folder / "cat/link.png").symlink_to(secret)
    (folder / "cat/loop").symlink_to("..")
    (folder / "cat/a.png").symlink_to("b.png")
    (folder / "cat/b.png").symlink_to("a.png")
    (folder / "cat/.hidden.png").touch()
    (folder / "cat/notes.txt").write_text("no image")
    (folder / "dog/empty.png").touch()
    (folder / "dog/short.jpg").write_bytes((folder / "dog/1.jpg").read_bytes()[:200])
    Path(os.fsdecode(os.fsencode(folder / "dog") + b"/\xff.jpg")).write_bytes(b"no image")
    Image.new("P", (30, 30)).save(folder / "dog/not-available.gif")
    (folder / "dog/as-cat.jpg").write_bytes((folder / "cat/3.jpg").read_bytes())
    (folder / "dog/again.jpg").write_bytes((folder / "dog/4.jpg").read_bytes())
    (folder / "beside.png").write_bytes(content("PNG"))
    os.mkfifo(folder / "dog/pipe.jpg")
    left_out = reasons(source := opened(folder))
    for path, reason in {
        "cat/link.png": "leads out of the folder",
        "cat/loop": "is a link to a folder",
        "cat/a.png": "cannot be read (Too many levels",
        "cat/.hidden.png": "is hidden",
        "cat/notes.txt": "is no image in a known format",
        "dog/empty.png": "is empty",
        "dog/short.jpg": "is damaged",
        "dog/\\xff.jpg": "is no image",
        "dog/not-available.gif": "is a placeholder",
        "dog/as-cat.jpg": "has the same pixels as cat/3.jpg, which is in another class",
        "cat/3.jpg": "has the same pixels as dog/as-cat.jpg",
        "dog/pipe.jpg": "is a device or a pipe",
        "beside.png": "is in no folder of a class",
    }.items():
        assert left_out[path].startswith(reason)
    assert len(left_out) == 14
    assert "14 of 104 files and folders are left out" in source.note
    assert sum(sizes(source)) == 90  # with dog/again.jpg
    assert source.load().classes == ("cat", "dog", "line\\nbreak")


def test_equal_images_are_never_in_two_splits(tmp_path: Path) -> None:
    folder = drawn(tmp_path / "photos", "a", "b", count=40)
    for number in range(40):
        (folder / f"a/copy of {number}.png").write_bytes((folder / f"a/{number}.png").read_bytes())
    source = opened(folder)
    data = source.load()
    seen = [
        {hashlib.sha256(i.numpy()).digest() for i in s.images}
        for s in (data.train, data.validation, source.load_test())
    ]
    assert len(set.union(*seen)) == sum(map(len, seen)) == 80
    assert sum(sizes(source)) == 120
    given = tmp_path / "given"
    for split in ("train", "val", "test"):
        drawn(given / split, "a", "b", count=8)
    (given / "train/a/leak.png").write_bytes((given / "test/a/0.png").read_bytes())
    assert reasons(opened(given)) == {
        "train/a/leak.png": "has the same pixels as test/a/0.png, which is in another split"
    }


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda f: [(f / f"a/{n}.png").write_bytes(b"") for n in range(5)],
            r"5 of 40 image files cannot be used \(a/0.png is empty",
        ),
        (
            lambda f: [(f / f"a/{n}.png").unlink() for n in range(17)],
            r"needs 5 images or more.*too few: a \(3\)",
        ),
        (lambda f: [(f / f"a/{n}.png").unlink() for n in range(20)], "only the class 'b'"),
    ],
)
def test_a_folder_that_is_no_data_set_is_refused(tmp_path: Path, spoil: Any, message: str) -> None:
    folder = drawn(tmp_path / "photos", "a", "b", count=20)
    spoil(folder)
    with pytest.raises(DataError, match=message):
        opened(folder).load()


def test_a_class_that_loses_all_its_images_is_an_error_unless_that_is_allowed(tmp_path: Path) -> None:
    folder = drawn(tmp_path / "photos", "a", "b", count=60)
    (folder / "c").mkdir()
    (folder / "c/0.png").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"the class c has lost all its images.*allow_broken=true"):
        opened(folder).load()
    assert opened(folder, allow_broken="true").load().classes == ("a", "b")


def test_a_thousand_odd_files_neither_crash_nor_hang(tmp_path: Path) -> None:
    folder = drawn(tmp_path / "photos", "a", "b")
    kinds = [
        *((kind, "RGB") for kind in ("JPEG", "WEBP", "BMP", "TIFF")),
        ("PNG", "L"),
        ("PNG", "P"),
        ("GIF", "P"),
    ]
    kinds.append(("JPEG", "CMYK"))
    endings = ["jpg", "png", "tif", "gif", "txt", "bmp", "webp"]
    count = 0
    for kind, mode in kinds:
        whole = content(kind, mode)
        for cut in range(0, len(whole), max(10, len(whole) // 60)):
            (folder / f"a/cut{count}.{kind.lower()}").write_bytes(whole[:cut])
            count += 1
        for _ in range(75):
            fuzzed = bytearray(whole)
            for place in RANDOM.integers(0, min(80, len(whole)), RANDOM.integers(1, 8)):
                fuzzed[place] = RANDOM.integers(256)
            (folder / f"b/fuzzed{count}.{endings[count % len(endings)]}").write_bytes(fuzzed)
            count += 1
    assert count > 1_000
    source = opened(folder, allow_broken="true")
    assert sum(sizes(source)) + len(source.left_out) == count + 20
    assert len(source.left_out) > 500


@pytest.mark.parametrize(
    ("deed", "reason"),
    [
        ("os.kill(os.getpid(), 11)", "ends the program that decodes it"),
        pytest.param("time.sleep(99)", "takes too long", marks=pytest.mark.faults),
    ],
)
def test_a_file_that_ends_its_decoder_or_keeps_it_busy_costs_only_itself(
    deed: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A decoder in C may crash or hang: here a module does it, in place of one."""
    folder = drawn(tmp_path / "photos", "a", count=20)
    (folder / "a/deadly.png").write_bytes(b"deadly")
    code = (
        "import os, time, nas.data.decoders as d\nold = d.decoded\n"
        f"def decoded(path):\n    if path.name == 'deadly.png': {deed}\n    return old(path)\n"
        "d.decoded = decoded\nd.main()\n"
    )
    (tmp_path / "deadly.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("nas.data.decoders.PROGRAM", "deadly")
    monkeypatch.setattr("nas.data.decoders.SECONDS", 4.0)
    names = [f"{n}.png" for n in range(20)]
    paths = [(f"a/{name}", 9) for name in [*names[:10], "deadly.png", *names[10:]]]
    seen = decode_all(folder, paths, lambda done, total: None)
    assert reason in seen[10].reason
    assert [one.reason for one in seen if one is not seen[10]] == [""] * 20


def test_what_gives_a_class_away_is_worth_a_warning(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    drawn(folder, "a", ending="png")
    drawn(folder, "b", ending="jpg")
    source = opened(folder)
    source.load()
    assert "warning: nearly all images of a are of the kind PNG RGB, and hardly any others" in source.note


# Groups and division


def test_groups_stay_in_one_split(tmp_path: Path) -> None:
    folder = drawn(tmp_path / "photos", "a", "b", count=60)
    source = opened(folder, group=r"(\d+)\d\.png")
    source.load()
    assert "groups, each in one split" in source.note
    with pytest.raises(DataError, match=r"dataset.group='\[' is no column and no regular expression"):
        opened(folder, group="[").load()
    with pytest.raises(DataError, match=r"dataset.group='zzz' is no column, and is found in no path"):
        opened(folder, group="zzz").load()
    with pytest.raises(DataError, match=r"the class a has no .* images: all of its images belong to 1 groups"):
        opened(folder, group="[ab]/").load()


def test_the_division_respects_units_and_nears_the_shares() -> None:
    labels = np.arange(400) % 4
    units = together([[("person", n // 9)] for n in range(400)])
    parts = divided(labels, units, [0.7, 0.15, 0.15])
    assert all(len(set(parts[units == unit])) == 1 for unit in set(units))
    counts = np.array([np.bincount(labels[parts == part], minlength=4) for part in range(3)])
    assert np.abs(counts - np.outer([0.7, 0.15, 0.15], [100] * 4)).max() <= 9
    alone = divided(labels, np.arange(400), [0.7, 0.15, 0.15])
    assert [np.bincount(labels[alone == part]).tolist() for part in range(3)] == [[70] * 4, [15] * 4, [15] * 4]
    assert together([["a"], ["b", "c"], ["c"], ["a", "d"]]).tolist() == [0, 1, 1, 0]
    with pytest.raises(DataError, match="none for the training"):
        parts_of(labels, units, ["test"] * 400)


# Tables


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet"])
def test_a_table_names_paths_labels_splits_and_groups(tmp_path: Path, kind: str) -> None:
    drawn(tmp_path, "images", count=60, grey=True)
    rows = [
        {"File Name": f"images/{n}.png", "class": label, "split": split, "who": f"p{n // 4}"}
        for n in range(60)
        for label, split in [("yes" if n % 2 else "no", ["train", "Val", "TEST"][n // 20])]
    ]
    rows += [{"File Name": "../secret.png", "class": "yes", "split": "train", "who": "p0"}]
    table = tmp_path / f"labels.{kind}"
    if kind == "parquet":
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), table)
    else:
        with table.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0], delimiter=";" if kind == "csv" else "\t")
            writer.writeheader()
            writer.writerows(rows)
    source = opened(table, group="who")
    assert sizes(source) == [20, 20, 20]
    assert source.load().classes == ("no", "yes")
    assert source.load().input_shape == (1, 20, 16)
    assert dict(source.left_out) == {"../secret.png": "leads out of the folder"}
    assert "15 groups, each in one split" in source.note
    with pytest.raises(DataError, match="there is no column 'nix'"):
        opened(table, paths="nix").load()


# Arrays


@pytest.mark.parametrize(
    ("shape", "kind", "words", "input_shape"),
    [
        ((60, 12, 16), np.uint8, "(N, height, width), grey, 0 to 255", (1, 12, 16)),
        ((60, 12, 16, 3), np.float32, "(N, height, width, channels), 0 to 1", (3, 12, 16)),
        ((60, 2, 12, 16), np.uint16, "(N, channels, height, width), 12 bits", (2, 12, 16)),
        ((60, 100, 80), np.uint8, "(N, height, width), grey, 0 to 255", (1, 64, 64)),
    ],
)
def test_arrays_are_recognised_and_this_is_said(
    tmp_path: Path, shape: tuple[int, ...], kind: type, words: str, input_shape: tuple[int, ...]
) -> None:
    images = RANDOM.random(shape)
    images = (
        images.astype(kind) if kind is np.float32 else (images * (256 if kind is np.uint8 else 4096)).astype(kind)
    )
    np.savez(tmp_path / "mine.npz", images=images, labels=np.arange(60) % 3)
    np.save(tmp_path / "X.npy", images)
    np.save(tmp_path / "y.npy", np.eye(3)[np.arange(60) % 3])
    loaded = []
    for name in ("mine.npz", "X.npy"):
        source = opened(tmp_path / name)
        data = source.load()
        assert words in source.note
        assert data.input_shape == input_shape
        assert sizes(source) == [42, 9, 9]
        assert data.classes == ("0", "1", "2")
        loaded.append(data)
    assert torch.equal(loaded[0].train.images, loaded[1].train.images)


def test_arrays_with_splits_are_kept_and_doubtful_ones_refused(tmp_path: Path) -> None:
    images, labels = RANDOM.integers(0, 256, (60, 9, 9, 3), np.uint8), np.arange(60) % 2
    path = tmp_path / "mine.npz"
    np.savez(
        path, x_train=images[:40], y_train=labels[:40], x_test=images[40:], y_test=labels[40:], classes=["a", "b"]
    )
    assert sizes(opened(path)) == [34, 6, 20]
    assert opened(path).load().classes == ("a", "b")
    for arrays, message in [
        ({"images": images[:, :4, :, :3], "labels": labels}, "add --set dataset.layout=NCHW or NHWC"),
        ({"images": images - 99.0, "labels": labels}, "have values from -99 to"),
        ({"images": images, "labels": labels[1:]}, "60 images, 59 labels"),
        ({"images": images}, "no labels"),
        ({"images": images, "labels": labels.astype(object)}, "Python objects"),
    ]:
        np.savez(path, allow_pickle=True, **arrays)
        with pytest.raises(DataError, match=message):
            opened(path).load()
    path.write_bytes(b"PK")
    with pytest.raises(DataError, match=r"is no \.npz file"):
        opened(path).load()


# Size and colour


@pytest.mark.parametrize(
    ("pictures", "options", "shape", "words"),
    [
        ({"height": 30, "width": 24, "grey": True}, {}, (1, 30, 24), "their own size), grey (as all of them are)"),
        ({"height": 200, "width": 100}, {}, (3, 64, 64), "median; more would be slow on a CPU), in colour"),
        (
            {"height": 200, "width": 100},
            {"size": "32", "colour": "grey"},
            (1, 32, 32),
            "(as asked for), grey (as asked",
        ),
        ({"height": 30, "width": 24}, {"size": "16x12", "fit": "pad"}, (3, 16, 12), "16×12 pixels (as asked for)"),
    ],
)
def test_size_and_colour_are_chosen_and_said(
    tmp_path: Path, pictures: Any, options: Any, shape: tuple[int, ...], words: str
) -> None:
    source = opened(drawn(tmp_path / "photos", "a", "b", count=7, **pictures), **options)
    assert source.load().input_shape == shape
    assert words in source.note
    again = opened(tmp_path / "photos", **{"fit": "crop", **options, **source.chosen})
    assert again.load().fingerprint == source.load().fingerprint


def test_an_impossible_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NasError, match="size = 'big': it should be a number of pixels from 4 to 1024"):
        opened(tmp_path, size="big")


# The cache, and a search


def test_workers_map_the_cache_and_copy_nothing(tmp_path: Path) -> None:
    data = opened(drawn(tmp_path / "photos", "a", "b")).load()
    data.save(tmp_path / "shared")
    file = tmp_path / "shared/train_inputs.npy"
    assert file.samefile(next((tmp_path / "cache").rglob("train_inputs.npy")))
    nas_data = Dataset.load(tmp_path / "shared")
    assert (nas_data.fingerprint, nas_data.mean, nas_data.std) == (data.fingerprint, data.mean, data.std)
    exact = data.train.images.double()
    assert data.mean == pytest.approx(exact.mean((0, 2, 3)).tolist(), rel=1e-12)


def test_the_cache_is_listed_and_emptied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NAS_DATA_DIR", raising=False)
    folder = drawn(tmp_path / "photos", "a", "b")
    opened(folder).load()
    listed = CliRunner().invoke(data_command, ["list"]).output
    assert f"{folder}\n" in listed
    assert "20 images, decoded to 3×20×16" in listed
    assert "decoded files removed" in CliRunner().invoke(data_command, ["clear"]).output
    assert not list(cache.entries())
    assert len(opened(folder).load().train) == 14


def test_a_search_on_a_folder_keeps_its_choices_and_refuses_a_changed_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = drawn(Path("photos"), "a", "b", count=20)
    (folder / "a/broken.txt").write_text("x")
    outcome = nas.search(dataset="photos", options={"dataset.colour": "grey"}, out="run", **QUICK)
    assert outcome.header.limits.input_shape == (1, 20, 16)
    assert outcome.header.dataset["name"] == "photos"
    kept = nas.Experiment.read(Path("run/search.toml"))
    assert kept.dataset == str(tmp_path / "photos")
    assert kept.options_of("dataset") == {"colour": "grey", "size": "20x16"}
    assert 'a/broken.txt,"is no image' in Path("run/left-out.csv").read_text()
    (folder / "a/0.png").unlink()
    with pytest.raises(JournalError, match="the images of photos have changed"):
        nas.resume("run", trials=2)
