"""Your own series: in .ts files, tables or arrays. They are read at each start."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from nas.data.dataset import Array, Dataset, Split
from nas.data.division import PARTS, about_groups, together
from nas.data.files import TABLES, readable
from nas.data.plugin import FEW_SERIES, SERIES, DatasetPlugin
from nas.data.sequences.arrays import read_npz
from nas.data.sequences.cleaning import Series, cleaned, series_of, summary
from nas.data.sequences.divide import division_of
from nas.data.sequences.material import Material
from nas.data.sequences.paths import FILES, files_of, first_line, name_of
from nas.data.sequences.prepare import Scaling, factor_for, padded, prepared
from nas.data.sequences.table import is_ucr, read_long, read_ucr
from nas.data.sequences.ts import read_ts
from nas.errors import DataError, OptionError

TEST = PARTS.index("test")
# The most channels, and steps of the longest series: see MAX_CHANNELS and MAX_SIDE in nas/winner/best.py.
CHANNELS, LENGTH = 1_000, 4_096
LEAST = 4  # steps that the option may ask for
MEMORY = 8 * 2**30  # bytes of all series, at most
READERS = {".ts": read_ts, ".tsv": read_ucr, ".txt": read_ucr}


class Ready(NamedTuple):
    """What has been read."""

    data: Dataset
    test: Split
    note: str
    left_out: list[tuple[str, str]]


class Sequences(DatasetPlugin):
    """Your own series: a folder with NAME_TRAIN.ts and NAME_TEST.ts, a table, or an .npz file.

    Args:
        folders: not used: the path says where the series are.
        path: of such a folder, a .ts file, a table (.tsv, .txt, .csv, .parquet), or an .npz file.
        scaling: what is brought to the mean 0 and the deviation 1 in each channel: set, all series together, which
            a network does by itself; series, each one alone, so that its level and its range do not count.
        length: the most steps of a series; neighbouring steps of longer ones are averaged; 0 for 4,096.
        series: the column that says which series a row belongs to, of a table with a row for each step.
        time: the column by which the steps of a series are sorted.
        values: the columns of the channels, separated by commas; "" for all others that hold numbers.
        labels: the column or array of labels.
        splits: the column of splits.
        group: the column or array of groups: series of one group stay in one split.
        view: what an .npz file or a table holds, if that is not recognised: series or images.
    """

    framing = "stretch"

    def __init__(
        self,
        folders: Sequence[Path],
        path: Path,
        *,
        scaling: Scaling = "set",
        length: int = 0,
        series: str = "",
        time: str = "",
        values: str = "",
        labels: str = "",
        splits: str = "",
        group: str = "",
        view: Literal["auto", "series", "images"] = "auto",
    ) -> None:
        super().__init__(folders)
        self.path = path.expanduser().absolute()
        self.name = readable(name_of(self.path)) or "series"
        self.address = str(self.path)
        if length and not LEAST <= length <= LENGTH:
            raise OptionError(f"length = {length}: it should be from {LEAST} to {LENGTH:,} steps, or 0", "length")
        self._length = length or LENGTH
        self._columns = {"series": series, "time": time, "values": values, "splits": splits}
        self._roles = {"labels": labels, "group": group}
        self.scaling, self.factor = scaling, 1  # for `prepared`; `load` decides the factor

    def load(self) -> Dataset:
        """Training and validation series."""
        ready = self._ready
        self.note, self.left_out = ready.note, ready.left_out
        columns = {name: self._columns[name] for name in ("series", "time", "values")}
        reading = {"scaling": self.scaling, "factor": self.factor, **columns, "labels": self._roles["labels"]}
        self.reading = {"series": reading}
        self.recipe = FEW_SERIES if ready.data.folds else SERIES
        self.augmentations = ("window and warp", "none") if ready.data.folds else ("none", "window and warp")
        self.chosen = {"scaling": self.scaling, "length": str(self._length)}
        return ready.data

    def load_test(self) -> Split:
        """The test series."""
        return self._ready.test

    def locate(self) -> Path | None:
        """The path."""
        return self.path if self.path.exists() else None

    @cached_property
    def _materials(self) -> list[Material]:
        """What is in the files."""
        path, suffix = self.path, self.path.suffix.lower()
        if not path.exists():
            raise DataError(f"there is no file or folder {path}")
        if not path.is_dir():
            if suffix == ".npz":
                self._refuse("arrays", **self._columns)
                return [read_npz(path, **self._roles, needs_labels=True)]
            if suffix not in (*FILES, *TABLES):
                known = ", ".join(dict.fromkeys((*FILES, *TABLES, ".npz")))
                raise DataError(f"the name of {path} ends in none of {known}: name a folder or such a file")
            if suffix in TABLES and not is_ucr(first_line(path)):
                return [read_long(path, **self._columns, **self._roles, needs_labels=True)]
        self._refuse("data without names of columns", **self._columns, **self._roles)
        return [READERS.get(file.suffix.lower(), read_ucr)(file, split) for split, file in files_of(path).items()]

    def _refuse(self, what: str, **options: str) -> None:
        for name, value in options.items():
            if value:
                raise OptionError(f"{self.name} is {what}, which has no option {name}: leave it out", name)

    @cached_property
    def _ready(self) -> Ready:
        """All splits, made of what is in the files."""
        found = series_of(self._materials)
        kept, left_out = cleaned(self.name, found)
        longest = max(series.values.shape[1] for series in kept)
        self.factor, scaling = factor_for(longest, self._length), self.scaling
        ready = [one._replace(values=prepared(one.values, factor=self.factor, scaling=scaling)) for one in kept]
        classes, labels = _classes(ready)
        hashes = [hashlib.sha256(np.ascontiguousarray(series.values).data).digest() for series in ready]
        units = together([_keys(series, digest) for series, digest in zip(ready, hashes, strict=True)])
        parts, folds, remarks = division_of(labels, units, [series.split for series in ready])
        self._check(parts, labels, classes)
        lengths = [series.values.shape[1] for series in ready]
        self._check_size(len(ready), len(ready[0].values), max(lengths))
        train, validation, test = (
            Split.of(padded([ready[row].values for row in rows], max(lengths)), labels[rows])
            for rows in (np.flatnonzero(parts == part) for part in range(len(PARTS)))
        )
        is_padded = min(lengths) < max(lengths)
        data = Dataset.of(self.name, train, validation, classes, is_padded=is_padded, folds=folds)
        lines = [
            _about_sizes(parts, data.input_shape[0], lengths),
            *self._about_values(longest),
            *(line for material in self._materials for line in material.remarks),
            *_about_gaps(kept),
            *remarks,
            *_about_twins(parts, labels, hashes),
            *about_groups([one.group for one in ready], parts == TEST),  # those of folds are never divided
        ]
        if left_out:
            lines.append(summary(left_out, len(found)))
        return Ready(data, test, "\n".join(lines), left_out)

    def _about_values(self, longest: int) -> list[str]:
        lines = []
        if self.factor > 1:
            lines.append(
                f"series of up to {longest:,} steps are shortened: {self.factor} neighbouring steps are averaged; "
                "--set dataset.length changes that"
            )
        if self.scaling == "series":
            lines.append("each channel of each series is brought to the mean 0 and the deviation 1")
        return lines

    def _check(self, parts: Array, labels: Array, classes: Sequence[str]) -> None:
        """Refuse a class that can be tested, but not be learnt."""
        learnt = set(labels[parts == 0].tolist()) | set(labels[parts == 1].tolist())
        for label, name in enumerate(classes):
            if label not in learnt:
                raise DataError(
                    f"{self.name}: the class {name} occurs in the test part only: add training series of it, "
                    "or remove it there"
                )
        for number, part in enumerate(PARTS):
            if not (parts == number).any():
                raise DataError(
                    f"{self.name} has no {part} series, and its {len(parts):,} series are too few, or of too few "
                    "groups, to take some: add series"
                )

    def _check_size(self, count: int, channels: int, longest: int) -> None:
        """Refuse more than a network can be saved for, or than fits, if all series are as long as the longest."""
        if channels > CHANNELS:
            raise DataError(
                f"{self.name}: the series have {channels:,} channels, and at most {CHANNELS:,} are allowed"
            )
        size = 4 * count * channels * longest
        if size > MEMORY:
            limit = f"{size / 2**30:,.1f} GiB, more than {MEMORY / 2**30:.0f}"
            raise DataError(
                f"{self.name}: series of {longest:,} steps, as long as the longest, would take {limit}: add a "
                "smaller --set dataset.length"
            )


def _classes(series: Sequence[Series]) -> tuple[list[str], Array]:
    """The names of the classes, and the class of each series, (N,) int64."""
    classes = sorted({one.label for one in series}, key=_order)
    index = {label: number for number, label in enumerate(classes)}
    return classes, np.array([index[one.label] for one in series])


def _order(label: str) -> tuple[int, float, str]:
    """Numbers by their value, before other names."""
    try:
        return (0, float(label), label) if label[-1].isdecimal() else (1, 0, label)
    except ValueError:
        return 1, 0, label


def _keys(series: Series, digest: bytes) -> list[tuple[str, object]]:
    """What keeps a series together with others in one split: its values, and its group."""
    return [("values", digest), *([("group", series.group)] if series.group else [])]


def _about_sizes(parts: Array, channels: int, lengths: Sequence[int]) -> str:
    steps = f"{min(lengths):,} to {max(lengths):,}" if min(lengths) < max(lengths) else f"{max(lengths):,}"
    test = int((parts == TEST).sum())
    shape = f"{channels} channel{'s' * (channels > 1)}, {steps} steps"
    return f"{len(parts) - test:,} series for training and validation, {test:,} for the test: {shape}"


def _about_gaps(series: Sequence[Series]) -> list[str]:
    gaps = [count for one in series if (count := int(np.isnan(one.values).sum()))]
    if not gaps:
        return []
    return [f"{sum(gaps):,} missing values in {len(gaps):,} series are filled by linear interpolation"]


def _about_twins(parts: Array, labels: Array, hashes: Sequence[bytes]) -> list[str]:
    """Lines about equal series in the test and in another split, or in several classes."""
    lines = []
    known = {digest for digest, part in zip(hashes, parts.tolist(), strict=True) if part != TEST}
    again = sum(digest in known for digest, part in zip(hashes, parts.tolist(), strict=True) if part == TEST)
    if again:
        lines.append(f"warning: {again:,} test series are also among those for training and validation; they stay")
    both = set(zip(hashes, labels.tolist(), strict=True))
    twice = sum(count > 1 for count in Counter(digest for digest, _ in both).values())
    if twice:
        lines.append(f"warning: {twice:,} series occur in several classes; they stay")
    return lines
