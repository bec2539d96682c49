"""Divides series into training, validation and test series; of few training series, into folds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nas.data.dataset import Array
from nas.data.division import PARTS, SEED, divided, parts_of, share_of
from nas.errors import DataError

FEW = 1_000  # training series: of fewer, a single validation split is too small to tell networks apart
FOLDS = 5


class Division(NamedTuple):
    """The split of each series."""

    parts: Array  # (N,), the positions in `PARTS`
    folds: list[int]  # as in `Dataset.folds`: of the training series, then of the validation series
    remarks: list[str]  # lines for the user


def division_of(labels: Array, units: Array, splits: Sequence[str]) -> Division:
    """Decide the split of each series. Splits that the data have are kept.

    Without test series, some are taken from the training or the validation series, as for images (see `parts_of`).
    Without validation series, and with fewer than `FEW` for training, the training series are divided into folds.

    Args:
        labels: ``(N,)``, the class of each series.
        units: ``(N,)``, the number of the unit of each series; the tool divides no unit (see `together`).
        splits: the given split of each series: train, validation, test, or "" for train.

    Raises:
        DataError: there are no training series, or all of them are one unit.
    """
    own, remarks = [split or "train" for split in splits], []
    if set(own) == {"train"}:
        share = share_of(len(own))
        parts = divided(labels, units, [1 - share, share])
        own = ["test" if part else "train" for part in parts.tolist()]
        remarks.append(f"it has no test series: {100 * share:.0f} % of the series are kept for the test")
    training = np.array([split == "train" for split in own])
    count = int(training.sum())
    if "validation" in own or count >= FEW or not count:
        parts, more = parts_of(labels, units, own, "series")
        return Division(parts, [], [*remarks, *more])
    parts = np.array([PARTS.index(split) for split in own])
    folds = folds_of(labels[training], units[training])
    parts[training] = np.where(folds == 0, PARTS.index("validation"), PARTS.index("train"))
    number = int(folds.max()) + 1
    remarks.append(f"validated on {number} folds: {count:,} training series are few")
    return Division(parts, [*folds[folds != 0].tolist(), *folds[folds == 0].tolist()], remarks)


def folds_of(labels: Array, units: Array) -> Array:
    """The fold of each series, (N,) int64, from 0 on: every fold has its share of each class, as units allow.

    There are `FOLDS` folds, or fewer if a class has fewer units, but at least two. A class of a single unit is in
    one fold, and then lacks in the training of that fold.

    Args:
        labels: ``(N,)``, the class of each series.
        units: ``(N,)``, the number of the unit of each series; no unit is divided.

    Raises:
        DataError: there is one unit only.
    """
    _, units, sizes = np.unique(units, return_inverse=True, return_counts=True)
    if len(sizes) < 2:
        raise DataError("all training series are equal, or of one group: they cannot be divided for a validation")
    pairs = np.unique(np.stack([labels, units]), axis=1)
    several = [count for count in np.bincount(pairs[0]).tolist() if count > 1]
    number = min(FOLDS, len(sizes), *several)
    counts = np.maximum(np.bincount(labels), 1)
    have = np.zeros((number, len(counts)))  # series of each class in each fold
    # Large units first; those of the same size by class, so that classes of few series do not meet in one fold.
    drawn = np.random.PCG64(SEED).random_raw(len(sizes))  # raw numbers are the same in every version of NumPy
    members = np.split(np.argsort(units, kind="stable"), np.cumsum(sizes)[:-1])
    leading = np.array([labels[rows[0]] for rows in members])
    folds = np.zeros(len(labels), np.int64)
    for unit in np.lexsort((drawn, leading, -sizes)):
        own = np.bincount(labels[members[unit]], minlength=len(counts))
        # The fold that has the fewest of its classes; of those, the smallest; of those, the first.
        crowd = np.round((have * (own / counts)).sum(1), 9)
        fold = int(np.lexsort((have.sum(1), crowd))[0])
        have[fold] += own
        folds[members[unit]] = fold
    return folds
