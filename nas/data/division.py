"""Divide images into training, validation and test images, so that what belongs together stays together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from nas.data.dataset import Array
from nas.data.plugin import stratified
from nas.errors import DataError

PARTS = ("train", "validation", "test")
SEED = 0  # never changed: the same images are divided in the same way for ever
SHARE = 0.15, 0.1  # of the images that become validation images, and as many test images: of few, of many
FEW = 10_000
LEAST = 6  # units of validation images of a class, of which half may become test images


def share_of(count: int) -> float:
    """The share of ``count`` images that is for validation, and for the test: 15 %, of 10,000 and more 10 %."""
    return SHARE[count >= FEW]


def together(keys: Sequence[Iterable[object]]) -> Array:
    """Number the sets of items that belong together, because they share a key directly or through others.

    Args:
        keys: the keys of each item.

    Returns:
        ``(N,)``, the number of the set of each item.
    """
    parent = list(range(len(keys)))

    def root(item: int) -> int:
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    first: dict[object, int] = {}
    for item, own in enumerate(keys):
        for key in own:
            parent[root(item)] = root(first.setdefault(key, item))
    return np.unique([root(item) for item in range(len(keys))], return_inverse=True)[1]


def parts_of(
    labels: Array, units: Array, splits: Sequence[str], things: str = "images"
) -> tuple[Array, list[str]]:
    """Decide the split of each image. Splits that the data have are kept; a missing one is taken from another.

    Args:
        labels: ``(N,)``, the class of each image.
        units: ``(N,)``, the number of the unit of each image; a unit is not divided (see `together`).
        splits: the given split of each image: train, validation, test, or "" for train.
        things: what the images are, for the user.

    Returns:
        ``(N,)``, the positions in `PARTS`; and lines for the user.

    Raises:
        DataError: there are no training images.
    """
    names, share = set(splits) - {""}, share_of(len(labels))
    percent = f"{100 * share:.0f} %"
    parts = np.array([PARTS.index(split or "train") for split in splits])
    if not names:
        words = f"it has no splits: {percent} of the {things} are for validation, and {percent} for the test"
        return divided(labels, units, [1 - 2 * share, share, share]), [words]
    if not (parts == 0).any():
        raise DataError(f"all {things} are for {' and '.join(sorted(names))}, and none for the training")
    missing = [part for part in PARTS[1:] if part not in names]
    remarks = []
    held_out = parts == 1
    if missing == ["test"] and all(
        len(set(units[held_out & (labels == label)].tolist())) >= LEAST for label in set(labels.tolist())
    ):
        parts[held_out] = 1 + divided(labels[held_out], units[held_out], [0.5, 0.5])
        return parts, [f"it has no test {things}: half of the validation {things} are kept for the test"]
    for part in missing:
        training = parts == 0
        drawn = divided(labels[training], units[training], [1 - share, share])
        parts[training] = drawn * PARTS.index(part)
        remarks.append(f"it has no {part} {things}: {percent} of the training {things} are taken for them")
    return parts, remarks


def divided(labels: Array, units: Array, shares: Sequence[float], seed: int = SEED) -> Array:
    """Divide images into parts in which every class has its share, as nearly as whole units allow.

    The larger units come first, the largest at the front: each goes where it brings the numbers of images of its
    classes nearest to their shares (a greedy method, as that of scikit-learn's StratifiedGroupKFold). Then single
    images fill the gaps, class by class. The result is the same on every machine.

    Args:
        labels: ``(N,)``, the class of each image.
        units: ``(N,)``, the number of the unit of each image; a unit is never divided.
        shares: the share of each part, the largest first; their sum is 1.
        seed: decides the order of units of equal size.

    Returns:
        ``(N,)``, the part of each image. A part lacks a class only if it has fewer units than there are parts, or
        if they are entangled with those of other classes.
    """
    _, units, sizes = np.unique(units, return_inverse=True, return_counts=True)
    counts = np.bincount(labels)
    parts = np.full(len(labels), -1)
    wanted = np.outer(shares, counts)
    have = np.zeros_like(wanted)
    drawn = np.random.PCG64(seed).random_raw(len(sizes))  # raw numbers are the same in every version of NumPy
    members = np.split(np.argsort(units, kind="stable"), np.cumsum(sizes)[:-1])
    for unit in np.lexsort((drawn, -sizes)):
        if sizes[unit] == 1:
            break
        own = np.bincount(labels[members[unit]], minlength=len(counts))
        # The change of the squared distance from the shares, in each class relative to the share.
        cost = (own * (own + 2 * (have - wanted)) / np.maximum(wanted, 1e-9)).sum(1)
        part = int(cost.argmin())
        parts[members[unit]] = part
        have[part] += own
    single = np.flatnonzero(parts < 0)
    for label in range(len(counts)):
        rows = single[labels[single] == label]
        gaps = (wanted[:, label] - have[:, label]).clip(0) + 1e-9
        exact = len(rows) * gaps / gaps.sum()
        sizes_here = np.floor(exact).astype(int)
        for part in np.argsort(sizes_here - exact, kind="stable")[: len(rows) - sizes_here.sum()]:
            sizes_here[part] += 1
        for part, taken in enumerate(stratified(np.zeros(len(rows), int), sizes_here.tolist(), seed + label)):
            parts[rows[taken]] = part
        have[:, label] += sizes_here
    _fill_gaps(labels, parts, members, have)
    return parts


def _fill_gaps(labels: Array, parts: Array, members: Sequence[Array], have: Array) -> None:
    """Move the smallest unit to a part that lacks its class, if the part that it leaves keeps all its classes."""
    for label, part in np.argwhere((have == 0).T & (have.sum(0) > 0)[:, None]):
        if have[part, label]:
            continue  # a unit of another class has brought it
        for unit in sorted((m for m in members if label in labels[m]), key=len):
            own, old = np.bincount(labels[unit], minlength=have.shape[1]), parts[unit[0]]
            if (have[old][own > 0] > own[own > 0]).all():
                have[old] -= own
                have[part] += own
                parts[unit] = part
                break


def require_every_class(
    name: str, parts: Array, labels: Array, units: Array, classes: Sequence[str], things: str = "images"
) -> None:
    """Refuse a split without images of a class.

    Raises:
        DataError: there is one.
    """
    for number, part in enumerate(PARTS):
        for label, own_name in enumerate(classes):
            if not (labels[parts == number] == label).any():
                own = len(set(units[labels == label].tolist()))
                why = "add some, or remove the class"
                if own < len(PARTS):
                    why = f"all of its {things} belong to {own} groups, of which none is divided: {why}"
                raise DataError(f"{name}: the class {own_name} has no {part} {things}: {why}")


def about_groups(groups: Sequence[str], parts: Array) -> list[str]:
    """A line about the groups, if there are any.

    Args:
        groups: the group of each image, or "".
        parts: the split of each.
    """
    places: dict[str, set[int]] = defaultdict(set)
    for group, part in zip(groups, parts.tolist(), strict=True):
        if group:
            places[group].add(part)
    crossing = sum(len(place) > 1 for place in places.values())
    if crossing:
        return [f"warning: {crossing:,} of {len(places):,} groups are in several of the splits that it has"]
    return [f"it has {len(places):,} groups, each in one split"] if places else []
