"""The full MNIST: 60,000 + 10,000 images of handwritten digits, as the IDX files that torchvision uses."""

from __future__ import annotations

import gzip
import hashlib
import io
import tempfile
import time
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nas.data.dataset import Array, Dataset, Split
from nas.data.download import FAILURES, reachable, stream
from nas.data.plugin import DatasetPlugin, stratified
from nas.errors import DataError


class File(NamedTuple):
    """A file with a known size and checksum."""

    name: str
    size: int
    md5: str

    def flaw(self, content: bytes) -> str:
        """How the content differs from that of the file, or ""."""
        if len(content) != self.size:
            return f"expected {self.size:,} bytes, found {len(content):,}"
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
        return "" if md5 == self.md5 else f"expected md5 {self.md5}, found {md5}"


# The mirrors and files of torchvision, copied because its import takes 4.7 s, while `auto` decides within 5 s. A
# test compares them.
MIRRORS = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/")
RAW = Path("MNIST/raw")  # in the folder that torchvision calls the root
FILES = (
    File("train-images-idx3-ubyte", 47_040_016, "6bbc9ace898e44ae57da46a324031adb"),
    File("train-labels-idx1-ubyte", 60_008, "a25bea736e30d166cdddb491f175f624"),
    File("t10k-images-idx3-ubyte", 7_840_016, "2646ac647ad5339dbf082846283269ea"),
    File("t10k-labels-idx1-ubyte", 10_008, "27ae3e4e09519cfbb04c329615203637"),
)
CLASSES = tuple("0123456789")
SIZES = (54_000, 6_000)  # training, validation
SEED = 0  # of the division; never changed, because it is part of the data set
PROBE = 4.0  # seconds within which a mirror must answer
DEADLINE = 300.0  # seconds for all four files, 11 MB


class Mnist(DatasetPlugin):
    """MNIST, all of it: 54,000 training, 6,000 validation and 10,000 test images of digits, 28×28, grey."""

    name = "mnist"
    framing = "centred"

    def locate(self) -> Path | None:
        """The first folder that has at least one of the four files."""
        return next((root for root in self.folders if any(_is_there(root / RAW / f.name) for f in FILES)), None)

    def load(self) -> Dataset:
        """54,000 training and 6,000 validation images; downloaded if no folder has them. It takes 0.4 s."""
        images, labels = _arrays(*self._contents()[:2])
        train, validation = (Split.of(images[part], labels[part]) for part in stratified(labels, SIZES, SEED))
        return Dataset.of(self.name, train, validation, CLASSES)

    def load_test(self) -> Split:
        """The 10,000 test images."""
        images, labels = _arrays(*self._contents()[2:])
        return Split.of(images.copy(), labels)  # a copy, because torch needs writable memory

    def verify(self) -> list[str]:
        """Compare the size and the checksum of each file; download nothing."""
        root = self.locate()
        if root is None:
            raise DataError(f"{self.searched()}: `nas data fetch {self.name}` downloads it")
        for file in FILES:
            _read(root, file)
        return [f"{file.name}: ok (md5 {file.md5}, {file.size:,} bytes)" for file in FILES]

    def fetch(self, folder: Path | None = None) -> Path:
        """Download all missing files, or none of them if one fails; existing files are never changed.

        They go to ``folder``, otherwise to the folder that has some of them, otherwise to the last folder.
        """
        root = folder or self.locate() or self.folders[-1]
        missing = []
        for file in FILES:
            if _is_there(root / RAW / file.name):
                _read(root, file)
            else:
                missing.append(file)
        try:
            _download(missing, root / RAW)
        except OSError as error:
            raise DataError(f"downloading {self.name} to {root} failed: {error}") from None
        return root

    def _contents(self) -> list[bytes]:
        """The four files, verified: the test files as well, so that damage is found before the search."""
        root = self.locate()
        if root is None:
            try:
                root = self.fetch()
            except DataError as error:
                raise DataError(
                    f"{self.searched()}, and {error}. Use `--dataset mnist-5k`, name the folder that holds {RAW} "
                    "with `--data-dir DIR`, or run `nas data fetch mnist` on a machine with a network"
                ) from None
        return [_read(root, file) for file in FILES]


def _is_there(path: Path) -> bool:
    """Whether the path exists. A path that cannot be examined counts as existing: `_read` reports the reason."""
    try:
        path.stat()
    except OSError as error:
        return not isinstance(error, FileNotFoundError | NotADirectoryError)
    return True


def _read(root: Path, file: File) -> bytes:
    """The verified content of a file."""
    path = root / RAW / file.name
    again = f"run `nas data fetch mnist --data-dir {root}`"
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path} is missing, and other files of mnist are there: {again}") from None
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}): make it readable, or delete it and {again}"
        ) from None
    if flaw := file.flaw(content):
        raise DataError(f"{path} is damaged: {flaw}. Delete it and {again}")
    return content


def _arrays(images: bytes, labels: bytes) -> tuple[Array, Array]:
    """The images and labels of a pair of IDX files: a header, which the checksum covers, and a byte per value."""
    pixels = np.frombuffer(images, np.uint8, offset=16)
    return pixels.reshape(-1, 1, 28, 28), np.frombuffer(labels, np.uint8, offset=8)


def _download(files: list[File], folder: Path) -> None:
    """Put the files into the folder when all of them have been downloaded and verified."""
    if not files:
        return
    if not reachable([f"{mirror}{FILES[-1].name}.gz" for mirror in MIRRORS], PROBE):
        raise OSError(f"none of {', '.join(MIRRORS)} answers within {PROBE:g} s")
    folder.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + DEADLINE
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as temporary:
        for file in files:
            (Path(temporary) / file.name).write_bytes(_from_mirrors(file, deadline))
        for file in files:
            (Path(temporary) / file.name).replace(folder / file.name)


def _from_mirrors(file: File, deadline: float) -> bytes:
    """The content of the file, from the first mirror that has it undamaged."""
    reasons = []
    for mirror in MIRRORS:
        url = f"{mirror}{file.name}.gz"
        try:
            packed = b"".join(stream(url, file.size + 1_000, deadline))  # gzip never adds more than that
            with gzip.open(io.BytesIO(packed)) as unpacked:
                content = unpacked.read(file.size + 1)
        except (*FAILURES, EOFError, zlib.error) as error:
            reasons.append(f"{url}: {error or type(error).__name__}")
            continue
        if not (flaw := file.flaw(content)):
            return content
        reasons.append(f"{url}: {flaw}")
    raise OSError("; ".join(reasons))
