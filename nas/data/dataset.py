"""A data set: training and validation inputs, verified, with a fingerprint (see `nas.data.split`)."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.data.kinds import Kind, kind_of
from nas.data.split import CHUNK, Array, Split, verify_both, verify_split
from nas.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import torch

__all__ = ["CHUNK", "Array", "Dataset", "Split", "verify_split", "verify_test"]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Training and validation inputs; deliberately no test inputs, because a search must not see them."""

    name: str
    train: Split
    validation: Split
    classes: tuple[str, ...]
    fingerprint: str  # a hash of all of the above, the same on any machine
    moments: tuple[tuple[float, float], ...]  # see `mean` and `std`; of tokens, empty
    is_padded: bool = False  # whether there are series of different lengths
    # Of few series: for each one, first those of training and then those of validation, the number of its fold.
    # A candidate is trained once for each fold, and validated on that; the validation series are fold 0.
    folds: tuple[int, ...] = ()
    folder: Path | None = None  # with the files that `save` would write, if there is one

    @classmethod
    def of(
        cls,
        name: str,
        train: Split,
        validation: Split,
        classes: Sequence[str],
        *,
        is_padded: bool = False,
        folds: Sequence[int] = (),
    ) -> Dataset:
        """A verified data set with its fingerprint.

        Args:
            name: of the data set.
            train: the training inputs.
            validation: the validation inputs.
            classes: the names of the classes.
            is_padded: whether series of the test are shorter than others, too.
            folds: see `Dataset`.

        Raises:
            DataError: see `verify_split`.
        """
        verify_both(name, train, validation, classes, folds)
        own = [*([list(folds)] if folds else []), *(["padded"] if is_padded else [])]  # which images do not have
        digest = hashlib.sha256(json.dumps([name, list(classes), *own]).encode())
        for tensor in (train.inputs, train.labels, validation.inputs, validation.labels):  # 0.03 s for MNIST
            digest.update(json.dumps(list(tensor.shape)).encode())
            digest.update(np.ascontiguousarray(tensor.numpy()).data)
        padded = is_padded or any(is_shorter(split.inputs.numpy()) for split in (train, validation))
        both = [split.inputs.numpy() for split in ((train, validation) if folds else (train,))]
        moments = _moments(np.concatenate(both) if folds else both[0])
        return cls(
            name, train, validation, tuple(classes), digest.hexdigest()[:16], moments, padded, tuple(folds)
        )  # fmt: skip

    @property
    def kind(self) -> Kind:
        """What the inputs are."""
        return kind_of(self.input_shape)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of an image: channels, height, width; of a series: channels, time; of tokens: their number."""
        return tuple(self.train.inputs.shape[1:])

    @property
    def mean(self) -> tuple[float, ...]:
        """The mean of the training inputs (of images: 0–255), one number per channel."""
        return tuple(mean for mean, _ in self.moments)

    @property
    def std(self) -> tuple[float, ...]:
        """The standard deviation of the training inputs, one number per channel; it may be 0."""
        return tuple(std for _, std in self.moments)

    @property
    def trainings(self) -> int:
        """How often a candidate is trained: once, or once for each fold."""
        return max(self.folds, default=0) + 1

    @property
    def validated(self) -> int:
        """How many inputs a candidate is validated on: those of validation, or those of all folds."""
        return len(self.validation) + (len(self.train) if self.folds else 0)

    def fold(self, number: int) -> Dataset:
        """The data set in which the inputs of a fold are for validation, and all others for training."""
        import torch

        both, folds = self.whole, torch.tensor(self.folds)
        train, validation = (
            both.rows((folds != number).nonzero()[:, 0]),
            both.rows((folds == number).nonzero()[:, 0]),
        )
        return replace(
            self, train=train, validation=validation, moments=_moments(train.inputs.numpy()), folder=None, folds=()
        )

    @property
    def whole(self) -> Split:
        """The inputs of training and then those of validation."""
        import torch

        return Split(
            torch.cat([self.train.inputs, self.validation.inputs]),
            torch.cat([self.train.labels, self.validation.labels]),
        )

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
        """The inputs and labels of both splits, with the names of their files."""
        for part, split in (("train", self.train), ("validation", self.validation)):
            yield f"{part}_inputs.npy", split.inputs
            yield f"{part}_labels.npy", split.labels

    def describe(self, folder: Path) -> None:
        """Write the file that makes a folder with the other files one that `load` reads."""
        (folder / "dataset.json").write_text(json.dumps(self.content), encoding="utf-8")

    @property
    def content(self) -> dict[str, Any]:
        """All but the inputs and labels, for the file dataset.json."""
        return {
            "name": self.name, "classes": self.classes, "fingerprint": self.fingerprint, "moments": self.moments,
            "is_padded": self.is_padded, "folds": self.folds,
        }  # fmt: skip

    @classmethod
    def load(cls, folder: Path) -> Dataset:
        """The data set that `save` wrote. The inputs are memory-mapped, so that all processes share one copy.

        Raises:
            DataError: the folder does not contain a complete data set.
        """
        try:
            content = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
            splits = load_split(folder, "train"), load_split(folder, "validation")
            data = cls.described(content, *splits, folder)
        except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{folder} does not contain a complete data set ({error}): save it again") from None
        # Its values were verified before they were written: of gigabytes, each worker would read all.
        verify_both(data.name, *splits, data.classes, data.folds, reads_values=False)
        return data

    @classmethod
    def described(cls, content: Mapping[str, Any], train: Split, validation: Split, folder: Path) -> Dataset:
        """The data set of `content`, with its inputs and labels; it is not verified.

        Raises:
            KeyError, TypeError, ValueError: the content is incomplete.
        """
        moments = tuple((float(mean), float(std)) for mean, std in content["moments"])
        return cls(
            content["name"], train, validation, tuple(content["classes"]), content["fingerprint"], moments,
            bool(content["is_padded"]), tuple(int(number) for number in content["folds"]), folder,
        )  # fmt: skip


def is_shorter(inputs: Array) -> bool:
    """Whether a series (N, C, T) ends before the last step."""
    return inputs.ndim == 3 and bool(np.isnan(inputs[:, :, -1]).any())


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
    """The train, validation or test inputs that `write_splits` wrote, mapped into memory.

    Raises:
        OSError: a file cannot be read.
        ValueError: it is no such file, or is incomplete.
    """
    labels = np.load(folder / f"{part}_labels.npy", allow_pickle=False)
    return Split.of(mapped(folder / f"{part}_inputs.npy"), labels)


def write_splits(
    folder: Path,
    name: str,
    classes: Sequence[str],
    inputs: Array,
    splits: Mapping[str, tuple[Array, Array]],
    folds: Sequence[int] = (),
) -> None:
    """Write the files that `Dataset.load` and `load_split` read.

    Args:
        folder: exists, and is empty.
        name: of the data set.
        classes: their names.
        inputs: images, series or tokens; they need not fit in memory.
        splits: of train, validation and test, the rows of the inputs and their labels.
        folds: see `Dataset`.

    Raises:
        DataError: see `verify_split`.
    """
    step = max(1, CHUNK // max(1, inputs[0].nbytes))
    for part, (rows, labels) in splits.items():
        shape = (len(rows), *inputs.shape[1:])
        out = new_array(folder / f"{part}_inputs.npy", shape, inputs.dtype.str)
        for start in range(0, len(rows), step):
            out[start : start + step] = inputs[rows[start : start + step]]
        out.flush()
        np.save(folder / f"{part}_labels.npy", labels)
    train, validation = load_split(folder, "train"), load_split(folder, "validation")
    Dataset.of(name, train, validation, classes, is_padded=is_shorter(inputs), folds=folds).describe(folder)


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


def _moments(inputs: Array) -> tuple[tuple[float, float], ...]:
    """The mean and the standard deviation of each channel; of tokens, nothing.

    Of images, whole numbers until the last step, so that the result is the same on every machine; of series,
    rounded to seven digits for that. With NumPy, because PyTorch would start threads, for which a process that is
    forked from this one waits without end.
    """
    if inputs.ndim == 2:
        return ()
    pixels, step = inputs, max(1, CHUNK // max(1, inputs[0].nbytes))
    if inputs.ndim == 3:
        parts = [inputs[start : start + step] for start in range(0, len(inputs), step)]
        count = sum((~np.isnan(part)).sum((0, 2)) for part in parts)
        mean = sum(np.nansum(part, (0, 2), np.float64) for part in parts) / count
        squares = sum(np.nansum((part - mean[:, None]) ** 2, (0, 2)) for part in parts)
        pairs = zip(mean.tolist(), np.sqrt(squares / count).tolist(), strict=True)
        return tuple((float(f"{one:.7g}"), float(f"{other:.7g}")) for one, other in pairs)
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
    """Check the test inputs of a data set as its other inputs were checked (see `verify_split`)."""
    verify_split(test, f"{data.name}, test {data.kind}", data.classes, data.input_shape, data.is_padded)
