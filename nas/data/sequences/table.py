"""Series in tables: a line for each series, as in the UCR archive, or a line for each step (the long form)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

import numpy as np

from nas.data.columns import column_of, columns_of
from nas.data.dataset import Array
from nas.data.files import GROUPS, LABELS, SPLIT_COLUMNS, SPLITS, readable
from nas.data.sequences.material import Material, Part, lines_of, numbers, without_end
from nas.errors import DataError, listed, quoted, unknown

# The names of columns of the long form, the best first.
SERIES = (
    "series", "series_id", "id", "sequence", "sequence_id", "case", "case_id", "sample", "sample_id", "instance",
)  # fmt: skip
TIMES = ("time", "step", "timestamp", "time_step", "timestep", "date", "datetime", "t", "index", "frame")
CLASSES = tuple(name for name in LABELS if name != "y")  # of series, y may be a coordinate
MISSING = ("", "?", "na", "NA", "N/A", "null", "None")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def read_ucr(path: Path, split: str = "") -> Material:
    """The series of a table without a header, in which each line is a series of one channel.

    The first column is the label, the others are the values. They are separated by tabs, as in the UCR archive of
    2018; without tabs in the first line by commas, or otherwise by spaces, as in the archives before. NaN or empty
    cells at the end of a line are not part of the series; elsewhere, they are missing values.

    Args:
        path: of the file.
        split: which all its series belong to.

    Raises:
        DataError: the file cannot be read, or a value is no number; the message names the line.
    """
    part = Part(split, [], [], [], [])
    remarks: list[str] = []
    separator: str | None = None
    for number, line in lines_of(path):
        if not part.places and not remarks:
            separator = _separator(line)
        label, *cells = line.split(separator)
        if not part.places and not remarks and label.strip().casefold() in LABELS:
            remarks.append(f"{path.name}: line {number} has the names of the columns")
            continue
        try:
            values = numbers(cells, MISSING)
        except ValueError as error:
            wrong = f"{path}, line {number}: {error} is no number"
            raise DataError(f"{wrong}: write a line for each series, the label and then the values") from None
        part.values.append(without_end(values[None]))
        part.labels.append(_label(label))
        part.groups.append("")
        part.places.append(f"{path.name}, line {number}")
    return Material([part], remarks)


def is_ucr(line: str) -> bool:
    """Whether the first line of a table is a series, and not the names of columns."""
    return _is_numeric(line.strip().split(_separator(line))[1:])


def _separator(line: str) -> str | None:
    """What separates the cells of a line; None: space of any length."""
    return next((letter for letter in "\t,;" if letter in line), None)


@lru_cache
def _label(cell: str) -> str:
    """A label; the older archives write whole numbers as 1.0000000e+00, which are 1."""
    text = cell.strip()
    if text in MISSING or text.lower() == "nan":
        return ""
    if re.fullmatch(r"[+-]?[0-9]{1,9}(\.[0-9]*)?(e[+-]?[0-9]{1,2})?", text, re.IGNORECASE):
        number = float(text)
        if number.is_integer() and abs(number) < 2**53:
            return str(int(number))
    return readable(text)


def read_long(
    path: Path,
    *,
    series: str = "",
    time: str = "",
    values: str = "",
    labels: str = "",
    splits: str = "",
    group: str = "",
    needs_labels: bool = True,
) -> Material:
    """The series of a table with a line of column names, and a line for each step of each series.

    Args:
        path: of a .csv, .tsv or .parquet file.
        series: the column that says which series a line belongs to; "" for the first of `SERIES` that is there.
        time: the column by which the steps are sorted; "" for the first of `TIMES`, if there is one.
        values: the columns of the channels, separated by commas; "" for all others that hold numbers.
        labels: the column of labels, which are the same in all lines of a series; "" for the first of `CLASSES`.
        splits: the column of splits, which may be missing.
        group: the column of groups, which may be missing.
        needs_labels: whether there must be a column of labels.

    Raises:
        DataError: the table cannot be read, lacks a column, or contradicts itself.
    """
    columns = columns_of(path)
    try:
        id_of = column_of(path, columns, "series", series, SERIES)
    except DataError as error:
        also = "" if series else "; for images, name that of their paths with --set dataset.paths=NAME"
        raise DataError(f"{error}{also}") from None
    label_of = column_of(path, columns, "labels", labels, CLASSES, needed=needs_labels)
    time_of = column_of(path, columns, "time", time, TIMES, needed=False)
    split_of = column_of(path, columns, "splits", splits, SPLIT_COLUMNS, needed=False)
    group_of = column_of(path, columns, "group", group, GROUPS, needed=False)
    used = {id_of, label_of, time_of, split_of, group_of}
    first: dict[str, int] = {}
    codes = np.array([first.setdefault(name, len(first)) for name in columns[id_of]], np.int64)
    if "" in first:
        row = columns[id_of].index("") + 1
        raise DataError(f"{path}, row {row}: the column {quoted(id_of)} is empty: name the series of each row")
    if not first:
        raise DataError(f"{path} has no rows: write one for each step of each series")
    channels, remarks = _channels(path, columns, used, values)
    order = _order(path, codes, list(first), time_of, columns.get(time_of, []))
    ends = np.cumsum(np.bincount(codes))[:-1]
    parts: dict[str, Part] = {}
    none = [""] * len(first)
    label, split, its_group = (
        _constant(path, name, columns[name], codes, list(first)) if name else none
        for name in (label_of, split_of, group_of)
    )
    for number, (name, its_values) in enumerate(
        zip(first, np.split(channels[:, order], ends, axis=1), strict=True)
    ):
        if split[number] and split[number].casefold() not in SPLITS:
            known = "train, validation or test"
            raise DataError(
                f"{path}: the column {quoted(split_of)} has {quoted(split[number])}; it should be {known}"
            )
        own = SPLITS.get(split[number].casefold(), "")
        part = parts.setdefault(own, Part(own, [], [], [], []))
        part.values.append(its_values)
        part.labels.append(readable(label[number]))
        part.groups.append(its_group[number])
        part.places.append(readable(f"{path.name}, series {name}"))
    remarks.append(f"each value of the column {listed([id_of])} is a series, {listed([label_of])} its class")
    remarks += [f"the steps are sorted by the column {listed([time_of])}"] if time_of else []
    return Material(list(parts.values()), remarks)


def _channels(path: Path, columns: dict[str, list[str]], used: set[str], named: str) -> tuple[Array, list[str]]:
    """The values of all channels, (channels, rows) float32, and lines for the user."""
    found: dict[str, Array] = {}
    unused = []
    if named:
        for name in (part.strip() for part in named.split(",")):
            if name not in columns:
                raise DataError(f"{path}: {unknown('column', name, columns)}")
            found[name] = _numbers(path, name, columns[name])
    for name, cells in columns.items() if not named else ():
        if name in used:
            continue
        if _is_numeric(cells):
            found[name] = _numbers(path, name, cells)
        else:
            unused.append(name)
    if not found:
        raise DataError(
            f"{path} has no column of values that are numbers (its columns: {listed(columns)}): name them with "
            "--set dataset.values=NAME,NAME"
        )
    remarks = [f"the channels are the columns {listed(found)}"]
    remarks += [f"the columns {listed(unused)} are no numbers, and not used"] if unused else []
    return np.stack(list(found.values())), remarks


def _is_numeric(cells: Sequence[str]) -> bool:
    """Whether most of the first cells are numbers, without those that are empty: one may be mistyped."""
    some = [cell for cell in cells if cell not in MISSING][:100]
    right = 0
    for cell in some:
        try:
            numbers([cell])
            right += 1
        except ValueError:
            pass
    return 2 * right > len(some)


def _numbers(path: Path, name: str, cells: Sequence[str]) -> Array:
    try:
        return numbers(cells, MISSING)
    except ValueError:
        for row, cell in enumerate(cells, 1):
            try:
                numbers([cell], MISSING)
            except ValueError as error:
                wrong = f"{path}, row {row}, column {quoted(name)}: {error} is no number"
                raise DataError(
                    f"{wrong}: correct it, or name the other columns with --set dataset.values="
                ) from None
        raise


def _order(path: Path, codes: Array, names: Sequence[str], column: str, cells: Sequence[str]) -> Array:
    """The rows sorted by series and time, (rows,) int64."""
    if not column:
        return np.argsort(codes, kind="stable")
    times = _times(path, column, cells)
    order = np.lexsort((times, codes))
    ordered, its_times = codes[order], times[order]
    twice = np.flatnonzero((ordered[1:] == ordered[:-1]) & (its_times[1:] == its_times[:-1]))
    if len(twice):
        row = int(order[twice[0]])
        name, time = quoted(names[codes[row]]), quoted(cells[row])
        raise DataError(
            f"{path}: the series {name} has two rows for {time} in the column {quoted(column)}: remove one, or "
            "name another column of series or time with --set dataset.series=NAME or dataset.time=NAME"
        )
    return order


def _times(path: Path, column: str, cells: Sequence[str]) -> Array:
    """Times that are all numbers, or all dates in the order of ISO 8601 (as seconds); (rows,) float64."""
    read: Callable[[str], float] = _seconds
    with suppress(ValueError):
        float(cells[0])
        read = float
    times = np.empty(len(cells))
    for row, cell in enumerate(cells):
        try:
            times[row] = read(cell)
        except ValueError:
            times[row] = np.nan
    wrong = np.flatnonzero(~np.isfinite(times))
    if len(wrong):
        cell = cells[wrong[0]]
        raise DataError(
            f"{path}, row {wrong[0] + 1}: the time {quoted(cell)} in the column {quoted(column)} should be "
            f"{'a finite number' if read is float else 'a number, or a date such as 2026-01-31 12:00:00'}"
        )
    return times


def _seconds(cell: str) -> float:
    date = datetime.fromisoformat(cell)
    return ((date if date.tzinfo else date.replace(tzinfo=UTC)) - EPOCH).total_seconds()


def _constant(path: Path, column: str, cells: Sequence[str], codes: Array, names: Sequence[str]) -> list[str]:
    """The value of a column for each series, which is the same in all its rows."""
    found: dict[int, str] = {}
    for code, cell in zip(codes.tolist(), cells, strict=True):
        if found.setdefault(code, cell) != cell:
            both = f"{quoted(found[code])} and {quoted(cell)}"
            raise DataError(
                f"{path}: the series {quoted(names[code])} has {both} in the column {quoted(column)}: it "
                "should be the same in all its rows"
            )
    return list(found.values())  # the codes count the series as they first occur
