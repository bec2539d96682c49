"""Images and labels in an .npz file, or in a pair of .npy files."""

from __future__ import annotations

import os
import re
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from nas.data.dataset import Array
from nas.data.decoder import DEPTHS, Frame, framed, resized
from nas.data.decoders import Progress, Seen, is_grey
from nas.data.files import SPLITS, File, Listing, readable
from nas.errors import DataError, plain, quoted

ENDINGS = (".npz", ".npy")
ROLES = {
    **dict.fromkeys(("images", "image", "x", "data", "pixels", "arr_0"), "images"),
    **dict.fromkeys(("labels", "label", "y", "target", "targets", "arr_1"), "labels"),
    **dict.fromkeys(("groups", "group"), "groups"),
}
NAMES = ("classes", "class_names", "label_names")
CHUNK = 256  # images that are converted at a time
# What NumPy and zipfile raise for damaged files, and those with a password or an unknown compression.
DAMAGED = (
    OSError, EOFError, ValueError, TypeError, LookupError, OverflowError, MemoryError, RuntimeError,
    NotImplementedError, SyntaxError, zipfile.BadZipFile, zlib.error, struct.error, tokenize.TokenError,
)  # fmt: skip

Layout = Literal["", "NHW", "NHWC", "NCHW"]


class Part(NamedTuple):
    """An array of images, and what belongs to it."""

    images: Array  # as it is in the file
    labels: list[str]
    groups: list[str]
    split: str  # as in `File`


class Arrays:
    """The images of an .npz file with arrays such as ``images`` and ``labels``, or ``x_train`` and ``y_train``; or
    of an .npy file, with the labels in another file beside it.

    Args:
        path: of the file.
        labels: the name of the array of labels, or of the .npy file of them; "" to find it.
        layout: of the images; "" to recognise it.
        group: the name of the array of groups; "" to find it, if there is one.

    Raises:
        DataError: the file cannot be read, or has no images and labels that fit.
    """

    def __init__(self, path: Path, *, labels: str = "", layout: Layout = "", group: str = "") -> None:
        arrays = read_arrays(path, labels)
        roles = {name: role_of(name) for name in arrays}
        if labels in roles:
            roles[labels] = ("labels", roles[labels][1])
        if group:
            if group not in roles:
                raise DataError(f"{path} has no array {quoted(group)} of groups (its arrays: {', '.join(arrays)})")
            roles[group] = ("groups", roles[group][1])
        found = {role: arrays[name] for name, role in roles.items()}
        splits = sorted(split for kind, split in found if kind == "images")
        names = next((texts_of(arrays[name]) for name in NAMES if name in arrays), None)
        self.parts: list[Part] = []
        for split in splits:
            if ("labels", split) not in found:
                listed = ", ".join(arrays)
                raise DataError(
                    f"{path} has no labels for its {split} images (its arrays: {listed}): "
                    "name them with --set dataset.labels=NAME"
                )
            images = found["images", split]
            texts = labels_of(path, found["labels", split], names)
            groups = texts_of(found.get(("groups", split), np.array([]))) or [""] * len(texts)
            if not len(images) == len(texts) == len(groups):
                sizes = f"{len(images):,} images, {len(texts):,} labels and {len(groups):,} groups"
                raise DataError(f"{path} has {sizes}: they should be equally many")
            self.parts.append(Part(images, texts, groups, split))
        if not self.parts:
            raise DataError(f"{path} has no array that is called images or x (its arrays: {', '.join(arrays)})")
        if len({part.images.shape[1:] for part in self.parts}) > 1:
            raise DataError(f"{path}: the images of its splits have different shapes")
        self.layout, reason = _layout(path, self.parts[0].images.shape, layout)
        scales = [_scale(path, part.images) for part in self.parts]
        self._factor, self._shift, values = max(scales, key=lambda scale: (scale[1], -scale[0]))
        shape = self.parts[0].images.shape
        self.channels = {"NHW": 1, "NHWC": shape[-1], "NCHW": shape[1]}[self.layout]
        state = path.stat()
        files = [
            File(f"{path.name}[{name}{row}]", label, part.split, group, state.st_size, state.st_mtime_ns)
            for part in self.parts
            for name in [f"{part.split}, " if part.split else ""]
            for row, (label, group) in enumerate(zip(part.labels, part.groups, strict=True))
        ]
        remark = f"{path.name}: images {_words(shape)} are {reason}, {values}"
        self.listing = Listing(path.parent, files, [], [remark], {file.label: file.path for file in files})

    def look(self, count: int) -> list[Seen]:
        """What is seen in some images."""
        total = len(self.listing.files)
        return [_seen(self._image(row)) for row in range(0, total, max(1, -(-total // count)))]

    def write(self, target: Path, frame: Frame, progress: Progress) -> list[Seen]:
        """Write all images to the rows of an .npy file, in their frame."""
        out, done = np.load(target, mmap_mode="r+"), 0
        for images in self._chunks():
            if images.shape[1:] == out.shape[1:]:
                out[done : done + len(images)] = images
            else:
                for row, image in enumerate(images, done):
                    out[row] = _framed(image, frame)
            done += len(images)
            progress(done, len(out))
        shape = self.parts[0].images.shape
        height, width = shape[2:] if self.layout == "NCHW" else shape[1:3]
        return [Seen("", "", height, width)] * len(out)

    def _image(self, row: int) -> Array:
        for part in self.parts:
            if row < len(part.images):
                image: Array = self._converted(part.images[row : row + 1])[0]
                return image
            row -= len(part.images)
        raise IndexError(row)

    def _chunks(self) -> Iterator[Array]:
        for part in self.parts:
            for start in range(0, len(part.images), CHUNK):
                yield self._converted(part.images[start : start + CHUNK])

    def _converted(self, images: Array) -> Array:
        """Images of the file as (N, C, H, W) uint8."""
        if self.layout == "NHW":
            images = images[:, None]
        elif self.layout == "NHWC":
            images = images.transpose(0, 3, 1, 2)
        if images.dtype == np.uint8 and self._factor == 1 and not self._shift:
            return images
        if self._shift:
            return (images.astype(np.int64) >> self._shift).astype(np.uint8)
        return np.rint(images.astype(np.float64) * self._factor).astype(np.uint8)


def _seen(image: Array) -> Seen:
    channels, height, width = image.shape
    return Seen("", "", height, width, channels == 1 or (channels == 3 and is_grey(image.transpose(1, 2, 0))))


def _framed(image: Array, frame: Frame) -> Array:
    """An image (C, H, W) in its frame; with two or four channels, none of them becomes grey."""
    if len(image) in (1, 3):
        return framed(np.ascontiguousarray(image.transpose(1, 2, 0) if len(image) == 3 else image[0]), frame)
    return resized(image, frame)


def read_arrays(path: Path, labels: str) -> Mapping[str, Array]:
    """The arrays of a file by their names."""
    try:
        if path.suffix.lower() == ".npz":
            if not zipfile.is_zipfile(path):
                raise DataError(f"{path} is no .npz file: write it with numpy.savez")
            # NumPy leaves a damaged file open that it has opened itself.
            with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                return {readable(name): file[name] for name in file.files}
        beside = _labels_beside(path, labels)
        return {
            "images": np.load(path, mmap_mode="r", allow_pickle=False),
            "labels": np.load(beside, allow_pickle=False),
        }
    except DAMAGED as error:
        reason = plain(" ".join(str(error).split()))[:200] or type(error).__name__
        if "pickle" in reason:
            reason = "it holds Python objects, whose code would run: save texts as NumPy texts, not as objects"
        raise DataError(f"{path} cannot be read: {reason}") from None


def states(path: Path, labels: str) -> list[tuple[int, int]]:
    """Bytes and time of the last change (nanoseconds) of the files of arrays, which are not read.

    Raises:
        DataError: a file is not there.
    """
    try:
        files = [path] if path.suffix.lower() == ".npz" else [path, _labels_beside(path, labels)]
        return [(file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    except OSError as error:
        raise DataError(f"{error.filename or path} cannot be read: {error.strerror}") from None


def _labels_beside(path: Path, labels: str) -> Path:
    if labels:
        return path.parent / labels
    name = path.name
    pairs = (("images", "labels"), ("image", "label"), ("X", "y"), ("x", "y"), ("data", "labels"))
    names = [name.replace(old, new, 1) for old, new in pairs if old in name]
    for other in (*names, "labels.npy", "y.npy"):
        if other != name and (path.parent / other).is_file():
            return path.parent / other
    raise DataError(f"{path} needs labels beside it, such as {names[0] if names else 'labels.npy'}: "
                    "name their file with --set dataset.labels=FILE")  # fmt: skip


def role_of(name: str, roles: Mapping[str, str] = ROLES) -> tuple[str, str]:
    """What an array is, by the words that name it, and of which split."""
    split = "|".join(SPLITS)
    match = re.fullmatch(rf"(?:({split})_)?(\w+?)(?:_({split}))?", name.lower())
    if match is None:
        return "", name
    return roles.get(match[2], ""), SPLITS.get(match[1] or match[3] or "", "")


def labels_of(path: Path, labels: Array, names: list[str] | None) -> list[str]:
    """The names of the classes of images: of numbers, texts, or rows with a single 1."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 2 and ((labels == 0) | (labels == 1)).all() and (labels.sum(1) == 1).all():
        labels = labels.argmax(1)
    if labels.ndim != 1:
        raise DataError(
            f"{path}: the labels have the shape {_words(labels.shape)}; they should be one for each image"
        )
    if labels.dtype.kind == "f":
        is_whole = (labels == np.floor(labels)) & (np.abs(labels) < 2**53)
        if not is_whole.all():
            raise DataError(f"{path}: the labels are fractions, such as {labels[~is_whole][0]:g}")
        labels = labels.astype(np.int64)
    if (
        names is not None
        and labels.size
        and labels.dtype.kind in "iu"
        and labels.min() >= 0
        and labels.max() < len(names)
    ):
        return [readable(names[label]) for label in labels]
    return list(map(readable, texts_of(labels)))


def texts_of(values: Array) -> list[str]:
    """Values as texts; NumPy's type S holds bytes, in UTF-8 or another code."""
    return [os.fsdecode(value) if isinstance(value, bytes) else str(value) for value in values.ravel().tolist()]


def _layout(path: Path, shape: tuple[int, ...], given: Layout) -> tuple[Layout, str]:
    """Where the channels are, and this in words."""
    words: dict[Layout, str] = {
        "NHW": "(N, height, width), grey",
        "NHWC": "(N, height, width, channels)",
        "NCHW": "(N, channels, height, width)",
    }
    if len(shape) == 3 and given in ("", "NHW"):
        return "NHW", words["NHW"]
    if len(shape) != 4 or given == "NHW" or min(shape) == 0:
        also = "; for series, add --set dataset.view=series" * (len(shape) == 2)
        raise DataError(
            f"{path}: the images have the shape {_words(shape)}; it should be {', or '.join(words.values())}{also}"
        )
    few = range(1, 5)
    found: Layout = given
    if not given:
        if (shape[1] in few) == (shape[3] in few):
            raise DataError(
                f"{path}: the images have the shape {_words(shape)}, which does not say whether the second or the "
                "last number is that of the channels: add --set dataset.layout=NCHW or NHWC"
            )
        found = "NHWC" if shape[3] in few else "NCHW"
    return found, words[found]


def _scale(path: Path, images: Array) -> tuple[float, int, str]:
    """The factor, or the number of bits to drop, that turn values into 0 to 255; and the values in words."""
    if images.dtype == np.uint8:
        return 1.0, 0, "0 to 255"
    if images.dtype.kind not in "biuf":
        raise DataError(f"{path}: the images are of the type {images.dtype}; they should be numbers")
    chunks = [images[start : start + CHUNK] for start in range(0, len(images), CHUNK)]
    low, high = float(min(c.min() for c in chunks)), float(max(c.max() for c in chunks))
    if low >= 0 and high <= 1:
        return 255.0, 0, "0 to 1"
    if low >= 0 and high <= 255:
        return 1.0, 0, "0 to 255"
    if low >= 0 and high < 2**16 and images.dtype.kind in "iu":
        depth = next(depth for depth in DEPTHS if high < 2**depth)
        return 1.0, depth - 8, f"{depth} bits"
    raise DataError(
        f"{path}: the images have values from {low:g} to {high:g}; they should be from 0 to 1, from 0 to "
        "255, or whole numbers of up to 16 bits"
    )


def _words(shape: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, shape))})"
