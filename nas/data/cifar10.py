"""CIFAR-10 (Krizhevsky, 2009): 50,000 + 10,000 photographs of 32×32, as Python's batches or as class folders."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
import tempfile
import time
import warnings
import zlib
from collections.abc import Iterator
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np

from nas.data import cache
from nas.data.dataset import Array, Dataset, Split, load_split, write_splits
from nas.data.decoder import ENDINGS, Frame
from nas.data.decoders import decode_all
from nas.data.download import FAILURES, reachable, stream
from nas.data.idx import File
from nas.data.plugin import SMALL_PHOTOGRAPHS, DatasetPlugin, stratified
from nas.errors import DataError

SEED = 0  # of the division; never changed, because it is part of the data set
FRAME = Frame(3, 32, 32)
PROBE = 4.0  # seconds within which the publisher must answer
DEADLINE = 1_800.0  # seconds for the archive


class Photograph(NamedTuple):
    """A file of a class folder."""

    path: str  # from the folder that has train and test
    size: int  # bytes
    changed: int  # the time of its last change, in nanoseconds


class Cifar10(DatasetPlugin):
    """CIFAR-10: 45,000 training, 5,000 validation and 10,000 test photographs of ten things, 32×32."""

    name = "cifar10"
    framing = "crop"
    recipe = SMALL_PHOTOGRAPHS
    url: ClassVar[str] = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
    url_bytes: ClassVar[int] = 170_498_071
    files: ClassVar[tuple[File, ...]] = (
        File("data_batch_1", 31_035_704, "c99cafc152244af753f735de768cd75f"),
        File("data_batch_2", 31_035_320, "d4bba439e000b95fd0a9bffe97cbabec"),
        File("data_batch_3", 31_035_999, "54ebc095f3ab1f0389bbae665268c751"),
        File("data_batch_4", 31_035_696, "634d18415352ddfa80567beed471001a"),
        File("data_batch_5", 31_035_623, "482c414d41f54cd18b22e5b47cb7c3cb"),
        File("test_batch", 31_035_526, "40351d587109b95175f43aff81a1287e"),
    )
    batches: ClassVar[Path] = Path("cifar-10-batches-py")
    folder_names: ClassVar[tuple[str, ...]] = (
        "cifar10-jpg",
        "cifar10-png",
        "cifar10",
        "cifar-10",
        "CIFAR10",
        "CIFAR-10",
    )
    counts: ClassVar[dict[str, int]] = {"train": 5_000, "test": 1_000}  # images of each class
    sizes: ClassVar[tuple[int, int]] = (45_000, 5_000)  # training, validation
    classes: ClassVar[tuple[str, ...]] = (
        "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
    )  # fmt: skip

    def locate(self) -> Path | None:
        """The first folder of batches or of class folders, which are below train and test."""
        for root in self.folders:
            for place in (root / self.batches, root):
                if any(file.place(place) for file in self.files):
                    return place
            for place in (*(root / name for name in self.folder_names), root):
                if all((place / "train" / name).is_dir() for name in self.classes):
                    return place
        return None

    def load(self) -> Dataset:
        """45,000 training and 5,000 validation images; downloaded if no folder has them.

        The files of class folders are decoded into the cache, the first time.
        """
        place = self._place()
        if _is_folders(place):
            return Dataset.load(self._decoded(place))
        images, labels = self._batches(place, "train")
        train, validation = (Split.of(images[part], labels[part]) for part in stratified(labels, self.sizes, SEED))
        return Dataset.of(self.name, train, validation, self.classes)

    def load_test(self) -> Split:
        """The 10,000 test images."""
        place = self._place()
        return (
            load_split(self._decoded(place), "test")
            if _is_folders(place)
            else Split.of(*self._batches(place, "test"))
        )

    def verify(self) -> list[str]:
        """Compare the checksum of each batch, or decode all files of the class folders; download nothing."""
        place = self.locate()
        if place is None:
            raise DataError(f"{self.searched()}: `nas data fetch {self.name}` downloads it")
        if _is_folders(place):
            self._decode(place, self._photographs(place))
            return [f"{part}: ok ({count * len(self.classes):,} images)" for part, count in self.counts.items()]
        for file in self.files:
            self._batch(place, file)
        return [f"{file.name}: ok (md5 {file.md5}, {file.size:,} bytes)" for file in self.files]

    def fetch(self, folder: Path | None = None) -> Path:
        """Download the archive, unless the images are there, and unpack its batches."""
        place = type(self)([folder]).locate() if folder else self.locate()
        if place is None:
            place = (folder or self.folders[-1]) / self.batches
            try:
                self._download(place)
            except (*FAILURES, EOFError, zlib.error, tarfile.TarError, KeyError) as error:
                reason = str(error) or type(error).__name__
                raise DataError(f"downloading {self.name} to {place.parent} failed: {reason}") from None
        return place

    def _place(self) -> Path:
        """The folder of the images, which are downloaded if there is none."""
        place = self.locate()
        if place is None:
            try:
                place = self.fetch()
            except DataError as error:
                raise DataError(
                    f"{self.searched()}, and {error}. Name the folder that holds {self.batches}, or class folders "
                    f"in {self.folder_names[0]}/train and {self.folder_names[0]}/test, with `--data-dir DIR`, or "
                    f"run `nas data fetch {self.name}` on a machine with a network"
                ) from None
        return place

    def _batches(self, place: Path, part: str) -> tuple[Array, Array]:
        """The images (N, 3, 32, 32) uint8 and the labels of a part, train or test."""
        pairs = [
            self._batch(place, file) for file in self.files if file.name.startswith("test") == (part == "test")
        ]
        images, labels = map(np.concatenate, zip(*pairs, strict=True))
        return images.reshape(-1, 3, 32, 32), labels

    def _batch(self, place: Path, file: File) -> tuple[Array, Array]:
        """The images (N, 3072) and the labels of a batch."""
        path = place / file.name
        again = f"delete {place} and run `nas data fetch {self.name} --data-dir {place.parent}`"
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error.strerror}): {again}") from None
        if flaw := file.flaw(content):
            raise DataError(f"{path} is damaged: {flaw}. Please {again}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy deprecates what the NumPy of 2009 has pickled
            batch = pickle.loads(content, encoding="bytes")  # noqa: S301  it has the known checksum
        return np.asarray(batch[b"data"], np.uint8), np.array(batch[b"labels"], np.int64)

    def _photographs(self, place: Path) -> list[Photograph]:
        """The files of the class folders: train, then test, in the order of the classes and of their names."""
        every: list[Photograph] = []
        for part, count in self.counts.items():
            for name in self.classes:
                found = sorted(_listed(place, f"{part}/{name}"))
                if len(found) != count:
                    raise DataError(
                        f"{place / part / name}: expected {count:,} images, found {len(found):,}: unpack it again"
                    )
                every += found
        if every[0].path.lower().endswith((".jpg", ".jpeg")):
            self.note = f"{self.name} comes from JPEG files in {place}: not quite the original pixels"
        return every

    def _decoded(self, place: Path) -> Path:
        """The folder of the decoded images in the cache."""
        every = self._photographs(place)
        return cache.cached(f"{self.name}-{cache.key_of(self.name, every)}", partial(self._fill, place, every))

    def _fill(self, place: Path, every: list[Photograph], folder: Path) -> None:
        decoded = folder / "all.npy"
        cache.black_images(decoded, (len(every), FRAME.channels, FRAME.height, FRAME.width))
        self._decode(place, every, decoded)
        labels = np.concatenate([np.arange(len(self.classes)).repeat(count) for count in self.counts.values()])
        images = np.load(decoded, mmap_mode="r")
        [end, _] = accumulate(count * len(self.classes) for count in self.counts.values())
        train, validation = stratified(labels[:end], self.sizes, SEED)
        parts = {"train": train, "validation": validation, "test": np.arange(end, len(every))}
        splits = {part: (rows, labels[rows]) for part, rows in parts.items()}
        write_splits(folder, self.name, self.classes, images, splits)
        decoded.unlink()
        shape = list(images.shape[1:])
        cache.write_about(folder, {"path": str(place), "images": len(every), "frame": shape})

    def _decode(self, place: Path, every: list[Photograph], target: Path | None = None) -> None:
        """Decode all files, into the rows of an .npy file if there is one.

        Raises:
            DataError: one of them is damaged, or of another size.
        """
        paths = [(file.path, file.size) for file in every]
        for (path, _), seen in zip(paths, decode_all(place, paths, self.progress, target, FRAME), strict=True):
            if seen.reason:
                raise DataError(f"{place / path} {seen.reason}: unpack {self.name} again")
            if (seen.height, seen.width) != (FRAME.height, FRAME.width):
                raise DataError(f"{place / path}: expected 32×32 pixels, found {seen.width}×{seen.height}")

    def _download(self, place: Path) -> None:
        """Put the batches into a new folder when all of them have been downloaded and verified."""
        if not reachable([self.url], PROBE):
            raise OSError(f"{self.url} does not answer within {PROBE:g} s")
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=place.parent) as temporary:
            archive = Path(temporary, "archive")
            with archive.open("wb") as file:
                for chunk in stream(self.url, self.url_bytes, time.monotonic() + DEADLINE):
                    file.write(chunk)
            draft = Path(temporary, self.batches)
            draft.mkdir()
            with tarfile.open(archive, "r:gz") as packed:
                for known in self.files:
                    content = packed.extractfile(f"{self.batches}/{known.name}") or io.BytesIO()
                    data = content.read(known.size + 1)
                    if flaw := known.flaw(data):
                        raise OSError(f"{self.url}: {known.name}: {flaw}")
                    (draft / known.name).write_bytes(data)
            draft.rename(place)


def _is_folders(place: Path) -> bool:
    return (place / "train").is_dir()


def _listed(place: Path, folder: str) -> Iterator[Photograph]:
    """The image files of a folder in a place."""
    try:
        with os.scandir(place / folder) as entries:
            for entry in entries:
                if entry.name.lower().endswith(ENDINGS):
                    state = entry.stat()
                    yield Photograph(f"{folder}/{entry.name}", state.st_size, state.st_mtime_ns)
    except OSError as error:
        raise DataError(f"{place / folder} cannot be read ({error.strerror}): unpack it again") from None
