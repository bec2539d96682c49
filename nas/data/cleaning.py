"""Which of the decoded images are used; the others are left out, each for a reason that is listed."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from nas.data.decoders import Seen
from nas.data.files import File, Listing, readable
from nas.errors import DataError

BROKEN = 1 / 20  # the largest share of image files that may be broken
LEAST = 5  # images of a class
SEALED = {"": 0, "train": 0, "validation": 1, "test": 2}  # of two equal images, the one of the last split is kept
KINDS = 4  # of reasons that the summary names
GIVES_AWAY = 0.95  # the share of a class that has a property, from which on the property tells the class
STEP = "repair or remove them, or leave them out with --set dataset.allow_broken=true"


class Cleaned(NamedTuple):
    """The images that are used."""

    rows: list[int]  # positions in the listing
    left_out: list[tuple[str, str]]  # path and reason, of the others
    remarks: list[str]  # lines for the user


def cleaned(
    name: str, listing: Listing, seen: Sequence[Seen], hashes: Sequence[bytes], *, allow_broken: bool
) -> Cleaned:
    """Leave out the files that have no image, placeholders, and equal images of two classes or splits.

    Args:
        name: of the data set.
        listing: its files.
        seen: what the decoder saw in each.
        hashes: of the pixels, or of the sound, of each.
        allow_broken: whether any number of files may be broken, and a class may lose all its images.

    Raises:
        DataError: too many files are broken, or too few images are left.
    """
    files, medium = listing.files, listing.medium
    left_out: dict[int, str] = {row: found.reason for row, found in enumerate(seen) if found.reason}
    if not allow_broken:
        _check_broken(name, listing, left_out)
    left_out |= _placeholders([row for row in range(len(files)) if row not in left_out], seen)
    equal: dict[bytes, list[int]] = defaultdict(list)
    for row in range(len(files)):
        if row not in left_out:
            equal[hashes[row]].append(row)
    twins = 0
    for rows in equal.values():
        if len({files[row].label for row in rows}) > 1:
            for row in rows:
                other = next(files[o] for o in rows if files[o].label != files[row].label)
                left_out[row] = (
                    f"has the same {medium.content} as {readable(other.path)}, which is in another class"
                )
        elif len(rows) > 1:
            kept = max(rows, key=lambda row: (SEALED[files[row].split], -row))
            crossing = [row for row in rows if SEALED[files[row].split] != SEALED[files[kept].split]]
            for row in crossing:
                left_out[row] = (
                    f"has the same {medium.content} as {readable(files[kept].path)}, which is in another split"
                )
            twins += len(rows) - len(crossing) - 1
    if not allow_broken:
        _check_lost(name, listing, left_out)
    rows = [row for row in range(len(files)) if row not in left_out]
    _check_classes(name, Counter(files[row].label for row in rows), medium.noun)
    remarks = []
    if twins:
        things = f"{medium.noun}s"
        remarks = [
            f"{twins:,} {things} have the same {medium.content} as others: equal {things} stay in one split"
        ]
    remarks += _giveaways(rows, files, seen, f"{medium.noun}s")
    listed = [(readable(files[row].path), reason) for row, reason in sorted(left_out.items())]
    return Cleaned(rows, listed, remarks)


def summary(left_out: Sequence[tuple[str, str]], count: int) -> str:
    """One line about what is left out of ``count`` files."""
    kinds = Counter(_kind(reason) for _, reason in left_out)
    listed = ", ".join(f"{number:,} {kind}" for kind, number in kinds.most_common(KINDS))
    more = ", …" * (len(kinds) > KINDS)
    return (
        f"{len(left_out):,} of {count:,} files and folders are left out ({listed}{more}): left-out.csv in the "
        "folder of the search lists them"
    )


def _kind(reason: str) -> str:
    """A reason without what differs from file to file."""
    kind = reason.partition(" (")[0].partition(", ")[0].partition(" as ")[0]
    return kind.removeprefix("is ").replace("has ", "with ", 1)


def _check_broken(name: str, listing: Listing, left_out: dict[int, str]) -> None:
    """Refuse many broken files. Files that are no images are not broken."""
    files = listing.files
    absent = [(path, reason) for path, reason in listing.left_out if reason == "is not there"]
    broken = [(files[row].path, reason) for row, reason in left_out.items() if listing.claims(files[row].path)]
    broken += absent
    count = len(absent) + sum(row not in left_out or listing.claims(files[row].path) for row in range(len(files)))
    if len(broken) > BROKEN * count:
        some = "; ".join(f"{readable(path)} {reason}" for path, reason in broken[:3])
        raise DataError(
            f"{name}: {len(broken):,} of {count:,} {listing.medium.noun} files cannot be used ({some}): {STEP}"
        )


def _check_lost(name: str, listing: Listing, left_out: dict[int, str]) -> None:
    """Refuse that a class loses all its images, for whatever reasons."""
    kept = {file.label for row, file in enumerate(listing.files) if row not in left_out}
    reasons = {**dict(listing.left_out), **{listing.files[row].path: why for row, why in left_out.items()}}
    for label, path in listing.classes.items():
        if label not in kept:
            example = f"{readable(path)} {reasons.get(path, 'cannot be used')}"
            raise DataError(
                f"{name}: the class {label} has lost all its {listing.medium.noun}s ({example}): {STEP}"
            )


def _check_classes(name: str, counts: Counter[str], noun: str) -> None:
    if len(counts) < 2:
        raise DataError(f"{name} has {noun}s of {', '.join(counts) or 'no class'} only: two classes are needed")
    few = sorted(label for label, count in counts.items() if count < LEAST)
    if few:
        some = ", ".join(f"{label} ({counts[label]})" for label in few[:5]) + ", …" * (len(few) > 5)
        raise DataError(
            f"{name}: a class needs {LEAST} {noun}s or more, for training, validation and test; too few: {some}. "
            f"Add {noun}s, join classes (--set dataset.depth=1 joins those in one folder), or remove them"
        )


def _placeholders(rows: Sequence[int], seen: Sequence[Seen]) -> dict[int, str]:
    """Pictures of few colours, in another format than nearly all other files: "this photo is not available"."""
    formats = Counter(seen[row].kind.partition(" ")[0] for row in rows)
    usual = {kind for kind, count in formats.items() if count > BROKEN * len(rows)}
    flat = {row for row in rows if seen[row].colours}
    if len(flat) > BROKEN * len(rows):  # drawings
        return {}
    odd = {row: seen[row].kind.partition(" ")[0] for row in sorted(flat)}
    return {
        row: f"is a placeholder (a {kind} of {seen[row].colours} colours, unlike the others)"
        for row, kind in odd.items()
        if kind not in usual
    }


def _giveaways(rows: Iterable[int], files: Sequence[File], seen: Sequence[Seen], things: str) -> list[str]:
    """Warnings of properties of the files from which a class follows; a network may learn them."""
    rows = list(rows)
    classes = Counter(files[row].label for row in rows)
    properties = {
        "are of the kind": [seen[row].kind for row in rows],
        "have the size": [f"{seen[row].height}×{seen[row].width}" for row in rows],
    }
    remarks = []
    for words, values in properties.items():
        both = Counter(zip((files[row].label for row in rows), values, strict=True))
        total = Counter(values)
        telling = [
            (label, value)
            for (label, value), count in sorted(both.items())
            if count >= GIVES_AWAY * classes[label]
            and total[value] - count <= (1 - GIVES_AWAY) * (len(rows) - classes[label])
        ]
        if telling:
            (label, value), more = telling[0], len(telling) - 1
            others = f", and {more} other classes have such a mark" if more else ""
            remarks.append(
                f"warning: nearly all {things} of {label} {words} {value}, and hardly any others{others}: a "
                "network may learn this instead of what they show"
            )
    return remarks
