"""Fashion-MNIST and CIFAR-10 by their names, in each form in which people have them."""

from __future__ import annotations

import functools
import gzip
import hashlib
import io
import pickle
import tarfile
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nas.data import open_named, open_source
from nas.data.cifar10 import Cifar10
from nas.data.dataset import Array
from nas.data.fashion_mnist import FashionMnist
from nas.data.idx import File
from nas.errors import DataError

NOWHERE = "http://127.0.0.1:9/"  # nothing listens there
PACKAGE = FashionMnist.roots[0] / "fashion-mnist"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test sees this machine's data, or reaches the publishers."""
    monkeypatch.delenv("NAS_DATA_DIR", raising=False)
    monkeypatch.setattr("platformdirs.user_cache_path", lambda name: tmp_path / "cache" / name)
    monkeypatch.setattr(FashionMnist, "mirrors", (NOWHERE,))
    monkeypatch.setattr(Cifar10, "url", NOWHERE)
    return tmp_path / "cache" / "nas"


# Fashion-MNIST, with small files in place of the real ones


@pytest.fixture
def clothes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, bytes]:
    """The contents of four small files, which count as the real ones."""
    random = np.random.default_rng(0)
    contents: dict[str, bytes] = {}
    for part, count in (("train", 200), ("t10k", 50)):
        contents[f"{part}-images-idx3-ubyte"] = (
            bytes(16) + random.integers(0, 256, count * 784, np.uint8).tobytes()
        )
        contents[f"{part}-labels-idx1-ubyte"] = bytes(8) + (np.arange(count) % 10).astype(np.uint8).tobytes()
    files = [File(name, len(body), hashlib.md5(body).hexdigest()) for name, body in contents.items()]
    monkeypatch.setattr(FashionMnist, "files", tuple(files))
    monkeypatch.setattr(FashionMnist, "sizes", (180, 20))
    monkeypatch.setattr(FashionMnist, "roots", (tmp_path / "system",))
    return contents


def put(folder: Path, contents: dict[str, bytes], *, packed: bool) -> None:
    folder.mkdir(parents=True)
    for name, content in contents.items():
        # Another compression than the publisher's: other bytes, the same content.
        (folder / f"{name}{'.gz' * packed}").write_bytes(gzip.compress(content, 1) if packed else content)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("place", ["FashionMNIST/raw", "fashion-mnist", "my Fashion", "../system/fashion-mnist"])
def test_clothes_are_found_wherever_their_files_are(
    clothes: dict[str, bytes], tmp_path: Path, place: str, packed: bool
) -> None:
    folder = tmp_path / "data"
    put(folder / place, clothes, packed=packed)
    source = open_source("fashion_mnist", folder / place if place.startswith("my") else folder)
    data, test = source.load(), source.load_test()
    assert (len(data.train), len(data.validation), len(test)) == (180, 20, 50)
    assert data.train.images[0].numpy().tobytes() in clothes["train-images-idx3-ubyte"]
    assert data.train.labels.bincount().tolist() == [18] * 10
    assert data.classes[9] == "Ankle boot"
    assert [line.split(":")[1][:3] for line in source.verify()] == [" ok"] * 4


def test_digits_in_a_folder_are_not_taken_for_clothes(clothes: dict[str, bytes], tmp_path: Path) -> None:
    put(tmp_path / "digits", clothes, packed=False)  # MNIST's files have the same names
    assert open_named("fashion-mnist", tmp_path / "digits").locate() is None


def test_damaged_clothes_are_named(clothes: dict[str, bytes], tmp_path: Path) -> None:
    put(tmp_path / "fashion", clothes, packed=True)
    path = tmp_path / "fashion/t10k-labels-idx1-ubyte.gz"
    good = path.read_bytes()
    other = gzip.compress(gzip.decompress(good)[:-1] + b"\x08")
    for damaged, reason in ((good[:-9], "ended before"), (b"<html>", "[Nn]ot a gzipped"), (other, "expected md5")):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=f"^{path} is damaged: .*{reason}.*nas data fetch fashion-mnist"):
            open_named("fashion-mnist", tmp_path / "fashion").load()


def test_where_clothes_are_absent_the_message_says_what_to_do(clothes: dict[str, bytes], tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"was not found in .*dataset-fashion-mnist.*--data-dir DIR.*nas data fetch"
    ):
        open_named("fashion-mnist", tmp_path).load()


@pytest.mark.skipif(not PACKAGE.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed")
def test_the_whole_of_debians_package() -> None:
    source = open_source("fashion-mnist")
    data, test = source.load(), source.load_test()
    assert source.locate() == PACKAGE.parent
    assert (len(data.train), len(data.validation), len(test)) == (54_000, 6_000, 10_000)
    assert data.validation.labels.bincount().tolist() == [600] * 10
    assert data.fingerprint == "2d99aab87a0663e4"


def test_the_publishers_are_torchvisions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    from torchvision.datasets import CIFAR10, FashionMNIST

    assert list(FashionMnist.mirrors) == FashionMNIST.mirrors
    assert [f"{file.name}.gz" for file in FashionMnist.files] == [name for name, _ in FashionMNIST.resources]
    assert list(FashionMnist.classes) == FashionMNIST.classes
    known = [(name, md5) for name, md5 in (*CIFAR10.train_list, *CIFAR10.test_list)]
    assert (Cifar10.url, str(Cifar10.batches)) == (CIFAR10.url, CIFAR10.base_folder)
    assert [(file.name, file.md5) for file in Cifar10.files] == known


# CIFAR-10, with few images in place of the real ones


@pytest.fixture
def things(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[Array, list[int]]]:
    """Six batches of 20 images; the checksums of `batches` count as the real ones."""
    random = np.random.default_rng(0)
    batches = {
        file.name: (random.integers(0, 256, (20, 3072), np.uint8), [(i * 3) % 10 for i in range(20)])
        for file in Cifar10.files
    }
    monkeypatch.setattr(Cifar10, "sizes", (80, 20))
    monkeypatch.setattr(Cifar10, "counts", {"train": 10, "test": 2})
    files = []
    for name in batches:
        content = pickled(*batches[name])
        files.append(File(name, len(content), hashlib.md5(content).hexdigest()))
    monkeypatch.setattr(Cifar10, "files", tuple(files))
    return batches


def pickled(pixels: Array, labels: list[int]) -> bytes:
    return pickle.dumps({b"batch_label": b"a batch", b"labels": labels, b"data": pixels}, protocol=2)


def as_batches(folder: Path, batches: dict[str, tuple[Array, list[int]]]) -> None:
    folder.mkdir(parents=True)
    for name, batch in batches.items():
        (folder / name).write_bytes(pickled(*batch))


def as_folders(folder: Path, batches: dict[str, tuple[Array, list[int]]], ending: str) -> None:
    for name, batch in batches.items():
        for number, (pixels, label) in enumerate(zip(*batch, strict=True)):
            place = folder / ("test" if name == "test_batch" else "train") / Cifar10.classes[label]
            place.mkdir(parents=True, exist_ok=True)
            image = Image.fromarray(pixels.reshape(3, 32, 32).transpose(1, 2, 0))
            image.save(place / f"{name}-{number:02}{ending}")


def test_things_are_the_same_as_batches_and_as_folders(
    things: dict[str, tuple[Array, list[int]]], tmp_path: Path
) -> None:
    as_batches(tmp_path / "a/cifar-10-batches-py", things)
    as_folders(tmp_path / "b/cifar10", things, ".png")
    known = {pixels.tobytes(): label for batch in things.values() for pixels, label in zip(*batch, strict=True)}
    for folder in (tmp_path / "a", tmp_path / "a/cifar-10-batches-py", tmp_path / "b", tmp_path / "b/cifar10"):
        source = open_source("cifar10", folder)
        data, test = source.load(), source.load_test()
        assert (len(data.train), len(data.validation), len(test)) == (80, 20, 20)
        assert data.input_shape == (3, 32, 32)
        assert data.train.labels.bincount().tolist() == [8] * 10
        found = {}
        for split in (data.train, data.validation, test):
            for image, label in zip(split.images.numpy(), split.labels.tolist(), strict=True):
                found[image.tobytes()] = label
        assert found == known
        assert source.note == ""
        assert len(source.verify()) == (6 if "/a" in str(source.locate()) else 2)


def test_things_as_jpeg_files_are_said_to_be_not_quite_the_original(
    things: dict[str, tuple[Array, list[int]]], tmp_path: Path
) -> None:
    as_folders(tmp_path / "cifar10-jpg", things, ".jpg")
    source = open_source("cifar10", tmp_path)
    assert len(source.load().train) == 80
    assert "comes from JPEG files" in source.note
    bird = next((tmp_path / "cifar10-jpg/train/bird").iterdir())
    Image.new("RGB", (31, 32)).save(bird)
    with pytest.raises(DataError, match=f"^{bird}: expected 32×32 pixels, found 31×32"):
        source.load()
    bird.write_bytes(b"Not Found")
    with pytest.raises(DataError, match=f"^{bird} is no image"):
        source.load()
    bird.unlink()
    with pytest.raises(DataError, match=f"^{bird.parent}: expected 10 images, found 9"):
        source.load()


def test_class_folders_are_decoded_once(
    things: dict[str, tuple[Array, list[int]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_folders(tmp_path / "cifar10-jpg", things, ".jpg")
    first, progress = open_source("cifar10", tmp_path), list[tuple[int, int]]()
    first.progress = lambda done, total: progress.append((done, total))
    data = first.load()
    assert progress[-1] == (120, 120)
    with monkeypatch.context() as patch:
        patch.delattr("nas.data.cifar10.decode_all")  # the second time, there is nothing to decode
        again = open_source("cifar10", tmp_path)
        assert again.load().fingerprint == data.fingerprint
        assert (len(again.load_test()), again.note) == (20, first.note)
    assert again.load().folder  # workers map its files, and copy nothing
    bird = next((tmp_path / "cifar10-jpg/train/bird").iterdir())
    Image.new("RGB", (32, 32)).save(bird)
    assert open_source("cifar10", tmp_path).load().fingerprint != data.fingerprint


def test_damaged_batches_are_not_unpickled(things: dict[str, tuple[Array, list[int]]], tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
            return Path.touch, (tmp_path / "harm",)  # type: ignore[return-value]

    place = tmp_path / "cifar-10-batches-py"
    as_batches(place, things)
    (place / "data_batch_3").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(DataError, match=f"^{place / 'data_batch_3'} is damaged: expected .* bytes"):
        open_named("cifar10", tmp_path).load()
    assert not (tmp_path / "harm").exists()
    (place / "data_batch_3").unlink()
    with pytest.raises(DataError, match=f"^{place / 'data_batch_3'} cannot be read .*nas data fetch cifar10"):
        open_named("cifar10", tmp_path).load()


@pytest.fixture
def publisher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The archive that a real HTTP server has."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    folder = tmp_path / "publisher"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setattr(Cifar10, "url", f"http://127.0.0.1:{server.server_port}/archive.tar.gz")
    yield folder / "archive.tar.gz"
    server.shutdown()
    server.server_close()


def archive(path: Path, batches: dict[str, tuple[Array, list[int]]]) -> None:
    with tarfile.open(path, "w:gz") as packed:
        for name, batch in batches.items():
            content = pickled(*batch)
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(content)
            packed.addfile(member, io.BytesIO(content))


def test_things_are_downloaded_where_they_are_on_no_disk(
    things: dict[str, tuple[Array, list[int]]], publisher: Path, cache: Path
) -> None:
    archive(publisher, things)
    source = open_source("cifar10")
    assert torch.equal(source.load_test().labels, torch.tensor(things["test_batch"][1]))
    assert source.locate() == source.fetch() == cache / "cifar-10-batches-py"
    assert [path.name for path in cache.iterdir()] == ["cifar-10-batches-py"]


@pytest.mark.parametrize("damage", ["cut", "other", "absent", "no archive", "incomplete"])
def test_a_download_of_things_that_went_wrong_leaves_nothing_behind(
    things: dict[str, tuple[Array, list[int]]], publisher: Path, cache: Path, damage: str
) -> None:
    if damage == "other":
        things["data_batch_2"][0][:] = 0
    if damage == "incomplete":
        del things["test_batch"]
    archive(publisher, things)
    if damage == "cut":
        publisher.write_bytes(publisher.read_bytes()[:-5_000])
    if damage == "no archive":
        publisher.write_bytes(b"<html>")
    if damage == "absent":
        publisher.unlink()
    with pytest.raises(DataError, match=r"downloading cifar10 to .* failed: .*--data-dir DIR"):
        open_source("cifar10").load()
    assert list(cache.glob("*")) == []
