"""Series in a .ts file, the format of the UEA and UCR archives (timeseriesclassification.com, aeon, sktime).

Lines that begin with # or % are comments. Lines that begin with @ are the header, in letters of any case, and
``@data`` ends it. Then each line is a series: its dimensions (channels), separated by colons, and its label at the
end. The values of a dimension are separated by commas; ? or NaN is a missing value.
"""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import numpy as np

from nas.data.dataset import Array
from nas.data.files import readable
from nas.data.sequences.material import Material, Part, lines_of, numbers, without_end
from nas.errors import DataError, quoted

TRUTHS = {"true": True, "false": False}
SPELLINGS = {"dimension": "dimensions", "timestamp": "timestamps", "serieslen": "serieslength"}


def read_ts(path: Path, split: str = "", *, needs_labels: bool = True) -> Material:
    """The series of a .ts file; those with time stamps are refused.

    Args:
        path: of the file.
        split: which all its series belong to.
        needs_labels: whether the header must promise labels.

    Raises:
        DataError: the file cannot be read, or its header and its series do not fit; the message names the line.
    """
    header: _Header | None = None
    tags: dict[str, tuple[int, list[str]]] = {}
    part = Part(split, [], [], [], [])
    for number, whole in lines_of(path):
        line = whole.strip()
        if line[0] in "#%":
            continue
        if header is not None:
            values, label = header.series(number, line)
            part.values.append(values)
            part.labels.append(label)
            part.groups.append("")
            part.places.append(f"{path.name}, line {number}")
        elif line[0] != "@":
            raise DataError(
                f"{path}, line {number}: {quoted(line[:40])} stands before the line @data: put @data above the "
                "first series, and # in front of a comment"
            )
        else:
            tag, *words = line[1:].split() or [""]
            tag = tag.lower()
            tags[SPELLINGS.get(tag, tag)] = number, words
            if tag == "data":
                header = _Header(path, tags, needs_labels=needs_labels)
    if header is None:
        raise DataError(f"{path} has no line @data, which ends the header of a .ts file: it is no such file")
    return Material([part])


class _Header:
    """The header of a file, and what it promises about the series.

    Files of the archives lie where it does no harm. These lies are allowed: @univariate false and one dimension;
    @equalLength false and equal lengths; @seriesLength with @equalLength false (the archives write the longest
    or the mean); @missing false and NaN (programs pad series with it, and keep the header); labels of @classLabel
    that do not occur, or that are written in another way (1 and 1.0). Tags that are not known are not read.
    """

    def __init__(self, path: Path, tags: dict[str, tuple[int, list[str]]], *, needs_labels: bool = True) -> None:
        self._path, self._tags = path, tags
        for tag, what in (("timestamps", "time stamps"), ("targetlabel", "numbers to predict instead of classes")):
            if self._flag(tag):
                step = "write the values only" if tag == "timestamps" else "make classes of them"
                raise DataError(
                    f"{path}, line {tags[tag][0]}: the series have {what}, which nas does not read: {step}"
                )
        self._has_labels = bool(self._flag("classlabel"))
        if needs_labels and not self._has_labels:
            where = f", line {tags['classlabel'][0]}" if "classlabel" in tags else ""
            raise DataError(
                f"{path}{where}: the series have no labels of classes: write them at the ends of the lines, and "
                "@classLabel true in the header"
            )
        self._is_equal, self._is_univariate = self._flag("equallength"), self._flag("univariate")
        self._is_whole = self._flag("missing") is False
        self._channels, self._length = self._count("dimensions"), self._count("serieslength")
        listed = list(map(readable, tags["classlabel"][1][1:] if self._has_labels else ()))
        self._labels = {label: label for label in listed}
        self._numbers: dict[float | None, str] = {
            number: label for label in listed if (number := _as_number(label)) is not None
        }
        self._first = 0  # the line of the first series

    def series(self, number: int, line: str) -> tuple[Array, str]:
        """The values (channels, time) float32 and the label of a line."""
        body, colon, label = line.rpartition(":") if self._has_labels else (line, "", "")
        if self._has_labels and not colon:
            self._fail(number, "no label", "write a colon and the label after the values")
        if self._is_whole and "?" in body:
            self._fail(number, "a missing value (?)", "say @missing true in the header", "missing")
        texts = body.split(":")
        self._check_channels(number, len(texts))
        try:
            channels = [numbers(text.split(",")) if text.strip() else None for text in texts]
        except ValueError as error:
            wrong = f"{self._path}, line {number}: {error} is no number"
            raise DataError(f"{wrong}: separate values by commas, and write ? for a missing one") from None
        lengths = [len(channel) for channel in channels if channel is not None]
        if len(set(lengths)) > 1:
            self._fail(number, f"dimensions of {min(lengths)} and {max(lengths)} values", "make them equally long")
        length = lengths[0] if lengths else 0
        if lengths:
            self._check_length(number, length)
        empty = np.full(length, np.nan, np.float32)  # a dimension that was not measured
        values = without_end(np.stack([empty if c is None else c for c in channels]))
        return values, self._label(number, label.strip())

    def _check_channels(self, number: int, channels: int) -> None:
        if self._channels is None:
            if self._is_univariate and channels > 1:
                step = "say @univariate false, and no colon in a label"
                self._fail(number, f"{channels} dimensions", step, "univariate")
            self._channels, self._first = channels, number
        elif channels != self._channels:
            there = "dimensions" if "dimensions" in self._tags else ""
            wanted = f"{channels} dimensions, not {self._channels}" + f" as line {self._first}" * (not there)
            self._fail(number, wanted, "correct the line or the header", there)

    def _check_length(self, number: int, length: int) -> None:
        if self._is_equal is False:
            return
        if self._length is None:
            if self._is_equal:
                self._length, self._first = length, number
        elif length != self._length:
            tag = "serieslength" if "serieslength" in self._tags else "equallength"
            step = "complete the line, or say @equalLength false"
            self._fail(number, f"a series of {length} values, not {self._length}", step, tag)

    def _label(self, number: int, label: str) -> str:
        label = readable(label)
        if not self._labels or not label or label in self._labels:
            return label
        found = _as_number(label)
        if found not in self._numbers:
            self._fail(number, f"the label {quoted(label)}", "add it there, or correct it", "classlabel")
        return self._numbers[found]

    def _flag(self, tag: str) -> bool | None:
        """Whether a tag is true; None if it is absent."""
        number, words = self._tags.get(tag, (0, ["none"]))
        if not number:
            return None
        word = words[0].lower() if words else ""
        if word not in TRUTHS:
            raise DataError(f"{self._path}, line {number}: @{tag} is {quoted(word)}; it should be true or false")
        return TRUTHS[word]

    def _count(self, tag: str) -> int | None:
        """The number of a tag; None if it is absent."""
        number, words = self._tags.get(tag, (0, []))
        if not number:
            return None
        word = words[0] if words else ""
        if not (word.isascii() and word.isdigit() and int(word[:12]) > 0):
            # Unequal lengths: the archives have 0 or a text there, which says nothing.
            if tag == "serieslength" and self._is_equal is False:
                return None
            raise DataError(
                f"{self._path}, line {number}: @{tag} is {quoted(word)}; it should be a whole number from 1 on"
            )
        return int(word[:12])

    def _fail(self, number: int, what: str, step: str, tag: str = "") -> NoReturn:
        """Refuse a line, which has something that the header (the line of a tag) or the format does not allow."""
        against = ""
        if tag in self._tags:
            line, words = self._tags[tag]
            against = f", against line {line} ({quoted(' '.join(['@' + tag, *words])).strip(chr(39))})"
        raise DataError(f"{self._path}, line {number} has {what}{against}: {step}")


def _as_number(label: str) -> float | None:
    try:
        return float(label)
    except ValueError:
        return None
