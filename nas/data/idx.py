"""MNIST, and the data sets that were made in its form: 60,000 + 10,000 grey images of 28×28 in four IDX files."""

from __future__ import annotations

import gzip
import hashlib
import io
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np

from nas.data.dataset import Array, Dataset, Split
from nas.data.download import FAILURES, reachable, stream
from nas.data.plugin import DatasetPlugin, stratified
from nas.errors import DataError

SEED = 0  # of the division; never changed, because it is part of the data sets
PROBE = 4.0  # seconds within which a mirror must answer
DEADLINE = 300.0  # seconds for all four files, up to 31 MB


class File(NamedTuple):
    """A file with a known size and checksum; with gzip, it has the ending .gz and the same content."""

    name: str
    size: int
    md5: str

    def flaw(self, content: bytes) -> str:
        """How the content differs from that of the file, or ""."""
        if len(content) != self.size:
            return f"expected {self.size:,} bytes, found {len(content):,}"
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
        return "" if md5 == self.md5 else f"expected md5 {self.md5}, found {md5}"

    def place(self, folder: Path) -> Path | None:
        """The path of the file, with or without gzip, if it is in the folder."""
        return next((path for path in (folder / self.name, folder / f"{self.name}.gz") if _is_there(path)), None)


class Idx(DatasetPlugin):
    """A data set of four IDX files; a subclass says which."""

    mirrors: ClassVar[tuple[str, ...]]
    files: ClassVar[tuple[File, ...]]  # images and labels for training, then for the test
    places: ClassVar[tuple[Path, ...]]  # where the files may be in a folder; a download goes to the first
    roots: ClassVar[tuple[Path, ...]] = ()  # folders of the system, which are searched last
    classes: ClassVar[tuple[str, ...]]
    sizes: ClassVar[tuple[int, int]] = (54_000, 6_000)  # training, validation
    without_network: ClassVar[str]  # what to do, in an error message

    def locate(self) -> Path | None:
        """The first folder that has at least one of the four files, in one of the places."""
        return next((root for root in (*self.folders, *self.roots) if self._place(root)), None)

    def load(self) -> Dataset:
        """54,000 training and 6,000 validation images; downloaded if no folder has them. It takes 0.4 s."""
        images, labels = _arrays(*self._contents()[:2])
        train, validation = (
            self._split(images[part], labels[part]) for part in stratified(labels, self.sizes, SEED)
        )
        return Dataset.of(self.name, train, validation, self.classes)

    def load_test(self) -> Split:
        """The 10,000 test images."""
        images, labels = _arrays(*self._contents()[2:])
        return self._split(images.copy(), labels)  # a copy, because torch needs writable memory

    def _split(self, images: Array, labels: Array) -> Split:
        """The inputs that the images become: these images; a subclass may change them."""
        return Split.of(images, labels)

    def verify(self) -> list[str]:
        """Compare the size and the checksum of each file; download nothing."""
        root = self.locate()
        if root is None:
            raise DataError(f"{self.searched()}: `nas data fetch {self.name}` downloads it")
        for file in self.files:
            self._read(root, file)
        return [f"{file.name}: ok (md5 {file.md5}, {file.size:,} bytes)" for file in self.files]

    def fetch(self, folder: Path | None = None) -> Path:
        """Download all missing files, or none of them if one fails; existing files are never changed.

        They go to ``folder``, otherwise to the folder that has some of them, otherwise to the last folder.
        """
        root = folder or self.locate() or self.folders[-1]
        place, missing = self._place(root) or root / self.places[0], []
        for file in self.files:
            if file.place(place):
                self._read(root, file)
            else:
                missing.append(file)
        try:
            self._download(missing, place)
        except OSError as error:
            raise DataError(f"downloading {self.name} to {root} failed: {error}") from None
        return root

    def _candidates(self, root: Path) -> Iterator[Path]:
        return (root / place for place in self.places)

    def _place(self, root: Path) -> Path | None:
        """The place in a folder that has at least one of the files."""
        return next((p for p in self._candidates(root) if any(file.place(p) for file in self.files)), None)

    def _contents(self) -> list[bytes]:
        """The four files, verified: the test files as well, so that damage is found before the search."""
        root = self.locate()
        if root is None:
            try:
                root = self.fetch()
            except DataError as error:
                raise DataError(
                    f"{self.searched()}, and {error}. {self.without_network}, name the folder that holds "
                    f"{self.places[0]} with `--data-dir DIR`, or run `nas data fetch {self.name}` on a machine "
                    "with a network"
                ) from None
        return [self._read(root, file) for file in self.files]

    def _read(self, root: Path, file: File) -> bytes:
        """The verified content of a file, without gzip."""
        place = self._place(root) or root / self.places[0]
        path = file.place(place) or place / file.name
        again = f"run `nas data fetch {self.name} --data-dir {root}`"
        try:
            content = path.read_bytes() if path.suffix != ".gz" else _unpacked(path.read_bytes(), file.size)
        except FileNotFoundError:
            raise DataError(f"{path} is missing, and other files of {self.name} are there: {again}") from None
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError(f"{path} is damaged: {error}. Delete it and {again}") from None
        except OSError as error:
            raise DataError(
                f"{path} cannot be read ({error.strerror}): make it readable, or delete it and {again}"
            ) from None
        if flaw := file.flaw(content):
            raise DataError(f"{path} is damaged: {flaw}. Delete it and {again}")
        return content

    def _download(self, files: list[File], folder: Path) -> None:
        """Put the files into the folder when all of them have been downloaded and verified."""
        if not files:
            return
        if not reachable([f"{mirror}{self.files[-1].name}.gz" for mirror in self.mirrors], PROBE):
            raise OSError(f"none of {', '.join(self.mirrors)} answers within {PROBE:g} s")
        folder.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + DEADLINE
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as temporary:
            for file in files:
                (Path(temporary) / file.name).write_bytes(self._from_mirrors(file, deadline))
            for file in files:
                (Path(temporary) / file.name).replace(folder / file.name)

    def _from_mirrors(self, file: File, deadline: float) -> bytes:
        """The content of the file, from the first mirror that has it undamaged."""
        reasons = []
        for mirror in self.mirrors:
            url = f"{mirror}{file.name}.gz"
            try:
                packed = b"".join(stream(url, file.size + 1_000, deadline))  # gzip never adds more than that
                content = _unpacked(packed, file.size)
            except (*FAILURES, EOFError, zlib.error) as error:
                reasons.append(f"{url}: {error or type(error).__name__}")
                continue
            if not (flaw := file.flaw(content)):
                return content
            reasons.append(f"{url}: {flaw}")
        raise OSError("; ".join(reasons))


def _is_there(path: Path) -> bool:
    """Whether the path exists. A path that cannot be examined does: reading it reports the reason."""
    try:
        path.stat()
    except OSError as error:
        return not isinstance(error, FileNotFoundError | NotADirectoryError)
    return True


def _unpacked(packed: bytes, size: int) -> bytes:
    """The content of a gzip file, and at most one byte more than ``size``."""
    with gzip.open(io.BytesIO(packed)) as unpacked:
        return unpacked.read(size + 1)


def _arrays(images: bytes, labels: bytes) -> tuple[Array, Array]:
    """The images and labels of a pair of IDX files: a header, which the checksum covers, and a byte per value."""
    pixels = np.frombuffer(images, np.uint8, offset=16)
    return pixels.reshape(-1, 1, 28, 28), np.frombuffer(labels, np.uint8, offset=8)
