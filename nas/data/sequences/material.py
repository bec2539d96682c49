"""What every reader of series returns, and how it reads numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nas.data.dataset import Array
from nas.errors import DataError, quoted


@dataclass(frozen=True)
class Part:
    """Series of one split; all lists are in the same order."""

    split: str  # train, validation, test, or "" if they may be in any
    values: list[Array]  # (channels, time) float32 each; NaN is a missing value
    labels: list[str]  # "" if there is none
    groups: list[str]  # series of one group belong in one split; "" if it is alone
    places: list[str]  # where each series is, for messages


@dataclass(frozen=True)
class Material:
    """The series of a file."""

    parts: list[Part]
    remarks: list[str] = field(default_factory=list)  # lines for the user


def numbers(cells: Sequence[str], missing: Sequence[str] = ("?",)) -> Array:
    """Texts as numbers, (N,) float32; those that are ``missing`` become NaN, those beyond 3.4e38 infinite.

    Raises:
        ValueError: a text is no number; the message is the text, quoted.
    """
    try:
        found = np.fromiter(map(float, cells), np.float64, len(cells))
        is_plain = "_" not in "".join(cells)  # Python reads 1_000, too, which may be a name
    except ValueError:
        is_plain = False
    if not is_plain:
        found = np.array([np.nan if cell.strip() in missing else _number(cell) for cell in cells], np.float64)
    with np.errstate(over="ignore"):
        return found.astype(np.float32)


def _number(cell: str) -> float:
    try:
        return float("" if "_" in cell else cell)
    except ValueError:
        raise ValueError(quoted(cell.strip())) from None


def without_end(values: Array) -> Array:
    """A series (channels, time) up to its last value; NaN in all channels at the end is not part of it."""
    if values.size and not np.isnan(values[:, -1]).all():  # nearly always
        return values
    known = np.flatnonzero(~np.isnan(values).all(0))
    return values[:, : int(known[-1]) + 1 if len(known) else 0]


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text that are not empty, each with its number from 1 on.

    Bytes that are no UTF-8 become single surrogates, as in names of files.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        if not path.is_file():
            raise DataError(f"there is no file {path}" if not path.exists() else f"{path} is no file")
        with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line.rstrip("\n")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
