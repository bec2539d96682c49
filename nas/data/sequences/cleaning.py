"""Which series are used; the others are left out, each for a reason that is listed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nas.data.dataset import Array
from nas.data.sequences.material import Material
from nas.errors import DataError

BROKEN = 1 / 20  # the largest share of series that may be left out
KINDS = 4  # of reasons that the summary names
STEP = "repair or remove them"


class Series(NamedTuple):
    """A series, and what belongs to it: see `nas.data.sequences.material.Part`."""

    values: Array  # (channels, time) float32
    label: str
    split: str
    group: str
    place: str


def series_of(materials: Sequence[Material]) -> list[Series]:
    """The series of all files, one after the other."""
    return [
        Series(values, label, part.split, group, place)
        for material in materials
        for part in material.parts
        for values, label, group, place in zip(part.values, part.labels, part.groups, part.places, strict=True)
    ]


def cleaned(name: str, found: Sequence[Series]) -> tuple[list[Series], list[tuple[str, str]]]:
    """The series that can be used, and place and reason of the others.

    Args:
        name: of the data set.
        found: all its series.

    Raises:
        DataError: too many cannot be used, or what is left is no data set.
    """
    kept: list[Series] = []
    left_out: list[tuple[str, str]] = []
    for series in found:
        if reason := _reason(series):
            left_out.append((series.place, reason))
            continue
        if np.isinf(series.values).any():
            raise DataError(
                f"{name}: {series.place} has an infinite value, or one beyond 3.4e38: correct or remove it"
            )
        first = kept[0] if kept else series
        if len(series.values) != len(first.values):
            counts = f"{len(series.values)} channels, and {first.place} has {len(first.values)}"
            raise DataError(f"{name}: {series.place} has {counts}: all series need equally many")
        kept.append(series)
    if len(left_out) > BROKEN * len(found):
        some = "; ".join(f"{place} {reason}" for place, reason in left_out[:3])
        raise DataError(f"{name}: {len(left_out):,} of {len(found):,} series cannot be used ({some}): {STEP}")
    classes = {series.label for series in kept}
    for series in found:
        if series.label and series.label not in classes:
            example = f"{series.place} {_reason(series)}"
            raise DataError(f"{name}: the class {series.label} has lost all its series ({example}): {STEP}")
    if len(classes) < 2:
        what = f"series of the class {classes.pop()} only" if classes else "no series"
        raise DataError(f"{name} has {what}: series of two classes or more are needed")
    return kept, left_out


def _reason(series: Series) -> str:
    """Why a series cannot be used; "" if it can."""
    if not series.values.size:
        return "is empty"
    missing = np.isnan(series.values).all(1)
    if missing.all():
        return "has no value"
    if missing.any():
        return f"has no value in channel {1 + int(missing.argmax())}"
    return "" if series.label else "has no label"


def summary(left_out: Sequence[tuple[str, str]], count: int) -> str:
    """One line about what is left out of ``count`` series."""
    kinds = Counter(reason for _, reason in left_out)
    listed = ", ".join(f"{number:,} {kind}" for kind, number in kinds.most_common(KINDS))
    more = ", …" * (len(kinds) > KINDS)
    return (
        f"{len(left_out):,} of {count:,} series are left out ({listed}{more}): left-out.csv in the folder of the "
        "search lists them"
    )
