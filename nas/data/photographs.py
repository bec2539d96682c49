"""Your own images: in a folder, a table or a file of arrays. They are decoded once, into the cache."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from nas.data import cache
from nas.data.arrays import ENDINGS as ARRAYS
from nas.data.arrays import Arrays, Layout, states
from nas.data.cleaning import cleaned, summary
from nas.data.dataset import Dataset, Split, load_split, write_splits
from nas.data.decoder import Frame, formats
from nas.data.decoders import Progress, Seen, decode_all
from nas.data.division import PARTS, about_groups, parts_of, require_every_class, together
from nas.data.files import TABLES, File, Listing, by_value, in_folder, in_table, readable
from nas.data.frames import SAMPLE, frame_of
from nas.data.plugin import (
    FEW_GREY,
    FEW_PHOTOGRAPHS,
    GREY,
    MANY,
    PHOTOGRAPHS,
    SMALL,
    SMALL_PHOTOGRAPHS,
    DatasetPlugin,
)
from nas.data.resize import Fit
from nas.errors import DataError, OptionError, quoted

COLOURS = {1: "grey", 3: "colour"}  # the option for a number of channels
SIDES = 4, 1024  # pixels of a side, the least and the most


class Material(Protocol):
    """Where images come from: files, or arrays."""

    listing: Listing
    channels: int | None  # of arrays; None: grey or colour, as each file is

    def look(self, count: int) -> list[Seen]:
        """What is seen in about ``count`` images, at equal distances."""

    def write(self, target: Path, frame: Frame, progress: Progress) -> list[Seen]:
        """Write all images to the rows of an .npy file."""


class Files:
    """Image files."""

    channels: int | None = None

    def __init__(self, listing: Listing) -> None:
        self.listing = listing

    def look(self, count: int) -> list[Seen]:
        """What is seen in about ``count`` files with the endings of images; if there are none, in others."""
        files = [file for file in self.listing.files if self.listing.claims(file.path)] or self.listing.files
        some = files[:: max(1, -(-len(files) // count))]
        return decode_all(self.listing.folder, [(f.path, f.size) for f in some], lambda done, total: None)

    def write(self, target: Path, frame: Frame, progress: Progress) -> list[Seen]:
        """Decode all files into the rows of an .npy file."""
        paths = [(file.path, file.size) for file in self.listing.files]
        return decode_all(self.listing.folder, paths, progress, target, frame)


class Photographs(DatasetPlugin):
    """Your own images: a folder with a folder for each class, a table of paths and labels, or an .npz file.

    Args:
        folders: not used: the path says where the images are.
        path: of a folder, a table (.csv, .tsv, .parquet), an .npz or an .npy file.
        device: the device that trains, which decides how large the images may be.
        size: the side of the images for the network in pixels, or height×width such as 48x64; "" to choose it.
        colour: whether the images become grey or coloured; auto: grey if nearly all of them are.
        fit: how an image of another aspect ratio is fitted, see `nas.data.decoder.Frame`.
        depth: how many folders of the path of a class are its name; 0 for all.
        paths: the column of paths in a table; "" to find it.
        labels: the column of labels in a table, or the array of labels.
        splits: the column of splits in a table.
        group: the column or array of groups, or a regular expression that finds the group in a path.
        layout: of an array: NHW, NHWC or NCHW; "" to recognise it.
        allow_broken: whether any number of files may be broken, and a class may lose all its images.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        path: Path,
        device: str = "cpu",
        *,
        size: int | str = "",
        colour: Literal["auto", "grey", "colour"] = "auto",
        fit: Fit = "crop",
        depth: int = 0,
        paths: str = "",
        labels: str = "",
        splits: str = "",
        group: str = "",
        layout: Layout = "",
        allow_broken: bool = False,
    ) -> None:
        super().__init__(folders)
        self.path, self.framing = path.expanduser().absolute(), fit
        self.name = (
            readable(self.path.resolve().stem if self.path.is_file() else self.path.resolve().name) or "images"
        )
        self.address = str(self.path)
        self._device, self._size, self._colour, self._fit = device, _size(size), colour, fit
        self._depth, self._group, self._layout, self._allow_broken = depth, group, layout, allow_broken
        self._has_decoded = False
        self._columns = {"paths": paths, "labels": labels, "splits": splits}

    def load(self) -> Dataset:
        """Training and validation images; decoded now, if they are not in the cache."""
        folder = self._decoded(self._holds)
        about = cache.read_about(folder)
        frame, reason = self._frame
        # Arrays, whose files may be large, are only read to be decoded; each of their images is one.
        listed = [] if self._is_arrays else self._material.listing.left_out
        before = [(readable(path), why) for path, why in listed]
        self.left_out = [*before, *((path, why) for path, why in about["left_out"])]
        self.chosen = {
            "size": f"{frame.height}x{frame.width}",
            "colour": COLOURS.get(frame.channels, "auto"),
        }
        lines = [f"images become {reason}; --size and --set dataset.colour change that", *about["remarks"]]
        if self.left_out:
            lines.append(summary(self.left_out, about["images"] + len(self.left_out)))
        self.note = "\n".join(lines)
        data = Dataset.load(folder)
        is_few = len(data.train) < MANY
        if frame.channels > 1:
            self.recipe, self.augmentations = FEW_PHOTOGRAPHS, ("shift and flip", "shift")
            if not is_few:
                self.recipe = SMALL_PHOTOGRAPHS if max(frame.height, frame.width) < SMALL else PHOTOGRAPHS
        else:  # what is grey may be text or digits, which may not be mirrored
            self.recipe, self.augmentations = FEW_GREY if is_few else GREY, ("shift", "shift and flip")
        return data

    def load_test(self) -> Split:
        """The test images."""
        return load_split(self._decoded(), "test")

    def locate(self) -> Path | None:
        """The path."""
        return self.path if self.path.exists() else None

    @cached_property
    def _material(self) -> Material:
        path, columns = self.path, self._columns
        if not path.exists():
            raise DataError(f"there is no file or folder {path}")
        if path.is_dir():
            self._refuse("a folder", paths=columns["paths"], labels=columns["labels"], layout=self._layout)
            return Files(in_folder(path, depth=self._depth, group=self._group))
        if path.suffix.lower() in TABLES:
            self._refuse("a table", depth=self._depth, layout=self._layout)
            return Files(
                in_table(
                    path,
                    paths=columns["paths"],
                    labels=columns["labels"],
                    splits=columns["splits"],
                    group=self._group,
                )
            )
        if path.suffix.lower() in ARRAYS:
            self._refuse("arrays", paths=columns["paths"], splits=columns["splits"], depth=self._depth)
            return Arrays(path, labels=columns["labels"], layout=self._layout, group=self._group)
        known = ", ".join((*TABLES, *ARRAYS))
        raise DataError(f"{path} is no folder, and its name does not end in {known}: name a folder or such a file")

    def _refuse(self, what: str, **options: object) -> None:
        for name, value in options.items():
            if value:
                raise OptionError(f"{self.name} is {what}, which has no option {name}: leave it out", name)

    @cached_property
    def _key(self) -> str:
        """Of the files and their classes, splits and groups, and of what can be decoded here."""
        if self._is_arrays:
            options = self._columns, self._depth, self._group
            files: Any = [str(self.path), states(self.path, self._columns["labels"]), options]
        else:
            files = self._material.listing.files
        return cache.key_of(self.name, files, self._layout, self._allow_broken, formats())

    @cached_property
    def _frame(self) -> tuple[Frame, str]:
        """What the images become, and this in words."""

        def look(folder: Path) -> None:
            looked = self._material.look(SAMPLE)
            found = [seen for seen in looked if not seen.reason]
            if not found:
                example = f": the first one {looked[0].reason}" if looked else ""
                raise DataError(f"{self.path} has no images that can be read{example}")
            cache.write_about(folder, {
                "sides": [(seen.height, seen.width) for seen in found], "grey": [seen.is_grey for seen in found],
                "channels": self._material.channels,
            })  # fmt: skip

        about = cache.read_about(cache.cached(f"sample-{self._key}", look))
        sides, grey = [(height, width) for height, width in about["sides"]], about["grey"]
        frame, words = frame_of(sides, sum(grey) / len(grey), self._device, self._size, self._colour, self._fit)
        channels = about["channels"]
        if channels is None or channels in (1, 3):
            return frame, words
        if self._colour != "auto":
            raise OptionError(
                f"the images of {self.name} have {channels} channels, and no colour: leave it out", "colour"
            )
        words = f"{words.partition(', ')[0]} of {channels} channels"
        return Frame(channels, frame.height, frame.width, frame.fit), words

    @property
    def _is_arrays(self) -> bool:
        return self.path.suffix.lower() in ARRAYS and self.path.is_file()

    def _holds(self, about: dict[str, Any]) -> bool:
        """Whether the files that could not be read for a reason that may pass still cannot."""
        failed = [(path, size) for path, size in about["may_pass"]]
        if self._has_decoded or not failed:
            return True
        seen = decode_all(self._material.listing.folder, failed, lambda done, total: None)
        return all(found.reason for found in seen)

    def _decoded(self, holds: Callable[[dict[str, Any]], bool] = lambda about: True) -> Path:
        """The folder of the decoded images in the cache."""
        frame, _ = self._frame
        plain = re.sub(r"[^A-Za-z0-9._]+", "-", self.name)[:40]
        key = cache.key_of(self._key, frame.channels, frame.height, frame.width, frame.fit)
        folder = cache.cached(f"{plain}-{key}", self._decode, holds)
        if self._is_arrays:
            self.__dict__.pop("_material", None)  # it may be as large as the memory
        return folder

    def _decode(self, folder: Path) -> None:
        frame, listing = self._frame[0], self._material.listing
        shape = len(listing.files), frame.channels, frame.height, frame.width
        all_images = folder / "all.npy"
        cache.black_images(all_images, shape)
        seen = self._material.write(all_images, frame, self.progress)
        images = np.asarray(np.load(all_images, mmap_mode="r"))  # each row of a memmap would take 10 µs
        hashes = [hashlib.sha256(np.ascontiguousarray(image).data).digest() for image in images]
        clean = cleaned(self.name, listing, seen, hashes, allow_broken=self._allow_broken)
        files = [listing.files[row] for row in clean.rows]
        classes = sorted({file.label for file in files}, key=by_value)
        index = {label: number for number, label in enumerate(classes)}
        labels = np.array([index[file.label] for file in files])
        units = together([_keys(file, hashes[row]) for file, row in zip(files, clean.rows, strict=True)])
        parts, remarks = parts_of(labels, units, [file.split for file in files])
        require_every_class(self.name, parts, labels, units, classes)
        remarks += about_groups([file.group for file in files], parts)
        rows = np.array(clean.rows)
        splits = {part: (rows[parts == number], labels[parts == number]) for number, part in enumerate(PARTS)}
        write_splits(folder, self.name, classes, images, splits)
        all_images.unlink()
        greys = [s for s in seen if not s.reason and not s.is_grey]
        if frame.channels == 1 and greys and self._colour == "auto" and self._material.channels is None:
            remarks.append(f"{len(greys):,} coloured images become grey, like the others")
        cache.write_about(folder, {
            "path": str(self.path), "images": len(files), "frame": [frame.channels, frame.height, frame.width],
            "left_out": clean.left_out,
            "may_pass": [(f.path, f.size) for f, s in zip(listing.files, seen, strict=True) if s.may_pass],
            "remarks": [*listing.remarks, *remarks, *clean.remarks],
        })  # fmt: skip
        self._has_decoded = True


def _size(size: int | str) -> tuple[int, int] | None:
    """Height and width, of a side or of HEIGHTxWIDTH."""
    if size == "":
        return None
    match = re.fullmatch(r"([0-9]{1,5})(?:[x×]([0-9]{1,5}))?", str(size).strip())
    sides = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not all(SIDES[0] <= side <= SIDES[1] for side in sides):
        reason = f"it should be a number of pixels from {SIDES[0]} to {SIDES[1]}, such as 64, or two such as 48x64"
        raise OptionError(f"size = {quoted(size)}: {reason}", "size")
    return sides


def _keys(file: File, digest: bytes) -> list[tuple[str, object]]:
    """What keeps an image together with others in one split: its pixels, and its group."""
    return [("pixels", digest), *([("group", file.group)] if file.group else [])]
