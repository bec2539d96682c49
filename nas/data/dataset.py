"""Images and labels, verified, with a fingerprint.

Images are ``(N, C, H, W)`` uint8, labels ``(N,)`` int64, everywhere. Torch is imported only where a tensor is
made, because the import takes 3.5 s, which would delay the list of data sets.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import torch

Array = np.ndarray[Any, np.dtype[Any]]

CHUNK = 2**26  # bytes of images that are read at a time

WITH_CHANNEL = "write images[:, None] for (N, 1, H, W)"
CHANNELS_FIRST = (
    "write images.transpose(0, 3, 1, 2) for (N, C, H, W), or, if they are maps of such a size, exchange H and W"
)


@dataclass(frozen=True, eq=False)
class Split:
    """Images ``(N, C, H, W)`` uint8 and their labels ``(N,)`` int64, in the same order."""

    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.images)

    @classmethod
    def of(cls, images: Array, labels: Array) -> Split:
        """The same arrays as tensors, without a copy where their types allow it."""
        import torch

        if np.can_cast(labels.dtype, np.int64):  # otherwise `verify_split` reports their type
            labels = labels.astype(np.int64, copy=False)
        with warnings.catch_warnings():  # torch does not like memory that is read only; nobody writes to it
            warnings.filterwarnings("ignore", message="The given NumPy array is not writ")
            return cls(torch.from_numpy(images), torch.from_numpy(labels))


@dataclass(frozen=True, eq=False)
class Dataset:
    """Training and validation images; deliberately no test images, because a search must not see them."""

    name: str
    train: Split
    validation: Split
    classes: tuple[str, ...]
    fingerprint: str  # a hash of all of the above, the same on any machine
    moments: tuple[tuple[float, float], ...]  # see `mean` and `std`
    folder: Path | None = None  # with the files that `save` would write, if there is one

    @classmethod
    def of(cls, name: str, train: Split, validation: Split, classes: Sequence[str]) -> Dataset:
        """A verified data set with its fingerprint.

        Raises:
            DataError: see `verify_split`.
        """
        _verify(name, train, validation, classes)
        digest = hashlib.sha256(json.dumps([name, list(classes)]).encode())
        for tensor in (train.images, train.labels, validation.images, validation.labels):  # 0.03 s for MNIST
            digest.update(json.dumps(list(tensor.shape)).encode())
            digest.update(np.ascontiguousarray(tensor.numpy()).data)
        return cls(name, train, validation, tuple(classes), digest.hexdigest()[:16], _moments(train.images))

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Channels, height, width."""
        return tuple(self.train.images.shape[1:])

    @property
    def mean(self) -> tuple[float, ...]:
        """The mean of the training images (0–255), one number per channel."""
        return tuple(mean for mean, _ in self.moments)

    @property
    def std(self) -> tuple[float, ...]:
        """The standard deviation of the training images (0–255), one number per channel; it may be 0."""
        return tuple(std for _, std in self.moments)

    def save(self, folder: Path) -> None:
        """Write plain files for worker processes, which `load` them; files of `folder` are only linked."""
        folder.mkdir(parents=True, exist_ok=True)
        for file, tensor in self.tensors():
            if self.folder is None:
                np.save(folder / file, tensor.numpy())
            else:
                _link(self.folder / file, folder / file)
        self.describe(folder)

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """The images and labels of both splits, with the names of their files."""
        for part, split in (("train", self.train), ("validation", self.validation)):
            yield f"{part}_images.npy", split.images
            yield f"{part}_labels.npy", split.labels

    def describe(self, folder: Path) -> None:
        """Write the file that makes a folder with the other files one that `load` reads."""
        (folder / "dataset.json").write_text(json.dumps(self.content), encoding="utf-8")

    @property
    def content(self) -> dict[str, Any]:
        """All but the images and labels, for the file dataset.json."""
        return {
            "name": self.name, "classes": self.classes, "fingerprint": self.fingerprint, "moments": self.moments,
        }  # fmt: skip

    @classmethod
    def load(cls, folder: Path) -> Dataset:
        """The data set that `save` wrote. The images are memory-mapped, so that all processes share one copy.

        Raises:
            DataError: the folder does not contain a complete data set.
        """
        try:
            content = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
            name, classes, fingerprint = content["name"], tuple(content["classes"]), content["fingerprint"]
            moments = tuple((float(mean), float(std)) for mean, std in content["moments"])
            train, validation = load_split(folder, "train"), load_split(folder, "validation")
        except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{folder} does not contain a complete data set ({error}): save it again") from None
        _verify(name, train, validation, classes)
        return cls(name, train, validation, classes, fingerprint, moments, folder)


def mapped(path: Path) -> Array:
    """The array of an .npy file, mapped into memory: it takes none, and the file never changes.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no such file, or is incomplete.
    """
    try:
        # "c" is copy on write: torch needs writable memory.
        return np.load(path, mmap_mode="c", allow_pickle=False)  # type: ignore[no-any-return]
    except OSError as error:
        if error.errno != errno.ENOMEM:
            raise
        return np.load(path, mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]  # larger than the memory


def load_split(folder: Path, part: str) -> Split:
    """The train, validation or test images that `write_splits` wrote, mapped into memory.

    Raises:
        OSError: a file cannot be read.
        ValueError: it is no such file, or is incomplete.
    """
    labels = np.load(folder / f"{part}_labels.npy", allow_pickle=False)
    return Split.of(mapped(folder / f"{part}_images.npy"), labels)


def write_splits(
    folder: Path, name: str, classes: Sequence[str], images: Array, splits: Mapping[str, tuple[Array, Array]]
) -> None:
    """Write the files that `Dataset.load` and `load_split` read.

    Args:
        folder: exists, and is empty.
        name: of the data set.
        classes: their names.
        images: (N, C, H, W) uint8; they need not fit in memory.
        splits: of train, validation and test, the rows of the images and their labels.

    Raises:
        DataError: see `verify_split`.
    """
    step = max(1, CHUNK // max(1, images[0].nbytes))
    for part, (rows, labels) in splits.items():
        shape = (len(rows), *images.shape[1:])
        out = new_images(folder / f"{part}_images.npy", shape)
        for start in range(0, len(rows), step):
            out[start : start + step] = images[rows[start : start + step]]
        out.flush()
        np.save(folder / f"{part}_labels.npy", labels)
    train, validation = load_split(folder, "train"), load_split(folder, "validation")
    Dataset.of(name, train, validation, classes).describe(folder)


def new_images(path: Path, shape: tuple[int, ...]) -> np.memmap[Any, np.dtype[Any]]:
    """A new .npy file of black images (N, C, H, W) uint8, mapped into memory; see `new_array`."""
    return new_array(path, shape, "u1")


def new_array(path: Path, shape: tuple[int, ...], kind: str) -> np.memmap[Any, np.dtype[Any]]:
    """A new .npy file of zeros of a type, as NumPy names it, mapped into memory.

    Raises:
        OSError: the disk has no space for it. Without the space, a later write into the memory would be a SIGBUS.
    """
    images = np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(kind), shape=shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # of a file system that cannot do it
                    raise
    return images


def _link(file: Path, link: Path) -> None:
    """Another name for a file. A hard link keeps the content if the first name is removed."""
    try:
        os.link(file, link)
    except OSError:  # another file system, or one without such links; a symbolic one would break with the cache
        shutil.copyfile(file, link)


def _moments(images: torch.Tensor) -> tuple[tuple[float, float], ...]:
    """The mean and the standard deviation of each channel of images (N, C, H, W) uint8.

    Whole numbers until the last step, so that the result is the same on every machine. With NumPy, because PyTorch
    would start threads, for which a process that is forked from this one waits without end.
    """
    pixels, step = images.numpy(), max(1, CHUNK // max(1, images[0].numel()))
    counts = np.zeros((pixels.shape[1], 256), np.int64)
    for start in range(0, len(pixels), step):
        for channel, own in zip(pixels[start : start + step].swapaxes(0, 1), counts, strict=True):
            own += np.bincount(channel.ravel(), minlength=256)
    moments = []
    for row in counts.tolist():
        count, first, second = (sum(value**power * n for value, n in enumerate(row)) for power in range(3))
        moments.append((first / count, math.sqrt((second * count - first * first) / count**2)))
    return tuple(moments)


def verify_test(test: Split, data: Dataset) -> None:
    """Check the test images of a data set as its other images were checked (see `verify_split`)."""
    verify_split(test, f"{data.name}, test images", data.classes, data.input_shape)


def verify_split(split: Split, name: str, classes: Sequence[str], shape: Sequence[int] | None = None) -> None:
    """Check everything that a training, or a test, relies on.

    Args:
        split: the images and labels.
        name: begins the error message.
        classes: the names of the classes.
        shape: of a training image, which these images must have, too.

    Raises:
        DataError: a type or shape is wrong, the numbers of images and labels differ, a label is not from 0 to
            classes - 1, or a class has no image; the message gives the expected and the actual value.
    """
    import torch

    def expect(property_: str, expected: object, actual: object) -> None:
        if expected != actual:
            raise DataError(f"{name}: expected {property_} {expected}, found {actual}")

    if not isinstance(split, Split):
        raise DataError(f"{name}: expected a Split, found a {type(split).__name__}")
    images, labels = split.images, split.labels
    expect("images of type", torch.uint8, images.dtype)
    expect("labels of type", torch.int64, labels.dtype)
    if images.ndim == 3:
        raise DataError(f"{name}: the images {tuple(images.shape)} have no dimension of channels: {WITH_CHANNEL}")
    expect("image dimensions (N, C, H, W):", 4, images.ndim)
    if _has_channels_last(images.shape):
        raise DataError(f"{name}: the images {tuple(images.shape)} look like (N, H, W, C): {CHANNELS_FIRST}")
    if shape is not None:
        expect("images of the training images' shape", tuple(shape), tuple(images.shape[1:]))
    expect("label dimensions (N):", 1, labels.ndim)
    expect("as many labels as images,", len(images), len(labels))
    known = np.unique(labels.numpy())  # no threads, see `_moments`
    wrong = [label for label in known.tolist() if not 0 <= label < len(classes)]
    if wrong:
        raise DataError(f"{name}: expected labels from 0 to {len(classes) - 1}, found {wrong[0]}")
    empty = [label for number, label in enumerate(classes) if number not in known]
    if empty:
        raise DataError(f"{name}: expected an image of every class, found none of {', '.join(empty)}")


def _has_channels_last(shape: Sequence[int]) -> bool:
    """Whether images look like (N, H, W, C), with one to four channels.

    Recordings (N, channels, time, 1) do not: of them, only the time is long.
    """
    _, height, width, channels = shape
    if channels == 1:
        return min(height, width) >= 8 and max(height, width) < 4 * min(height, width)
    return 2 <= channels <= 4 and min(height, width) > 4


def _verify(name: str, train: Split, validation: Split, classes: Sequence[str]) -> None:
    verify_split(train, f"{name}, training images", classes)
    verify_split(validation, f"{name}, validation images", classes, train.images.shape[1:])
