"""Which images or recordings there are, in a folder or in a table, and their classes; nothing is decoded here."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from nas.data.columns import column_of, columns_of
from nas.data.decoder import ENDINGS
from nas.errors import DataError, quoted

TABLES = (".csv", ".tsv", ".parquet")
# The names of folders and the values in tables that name a split.
SPLITS = {
    "train": "train", "training": "train",
    "val": "validation", "valid": "validation", "validation": "validation", "dev": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip
# The names of columns, the best first.
PATHS = ("path", "file", "filename", "file_name", "filepath", "file_path", "image", "image_path", "img")
LABELS = ("label", "class", "category", "target", "labels", "class_name", "y")
SPLIT_COLUMNS = ("split", "subset", "set", "partition")
GROUPS = ("group", "groups")
HIDDEN = (
    "thumbs.db",
    "desktop.ini",
    "__macosx",
    "$recycle.bin",
    "lost+found",
)  # of systems that have other ways to hide files
HIDES, EMPTY = "is hidden", "is an empty folder"  # reasons that are worth no error


class Medium(NamedTuple):
    """What the files of a data set are."""

    noun: str
    content: str  # that which is equal if two of them are
    endings: tuple[str, ...]  # of the names of files


IMAGES = Medium("image", "pixels", ENDINGS)


class File(NamedTuple):
    """A file that may be an image, or a recording."""

    path: str  # from the folder of the data
    label: str  # the name of its class
    split: str  # train, validation, test, or "" if it may be in any
    group: str  # files of one group belong in one split; "" if it is alone
    size: int  # bytes
    changed: int  # the time of its last change, in nanoseconds


class Listing(NamedTuple):
    """The files of a data set."""

    folder: Path
    files: list[File]  # sorted by path
    left_out: list[tuple[str, str]]  # other paths, and the reason why they are not in the data set
    remarks: list[str]  # lines for the user
    classes: Mapping[str, str]  # every class that it names, also without a file, and the path of an example
    medium: Medium = IMAGES

    def claims(self, path: str) -> bool:
        """Whether the name of a file ends like that of an image, or whatever the files are."""
        return path.lower().endswith(self.medium.endings)


def in_folder(folder: Path, *, depth: int = 0, group: str = "", medium: Medium = IMAGES) -> Listing:
    """The files below a folder that has a folder for each class, perhaps inside of folders for the splits.

    Nothing outside of the folder is listed, and no link to a folder is followed.

    Args:
        folder: the folder.
        depth: how many parts of the path of a class are its name; 0 for all of them.
        group: a regular expression, see `groups_of`.
        medium: what the files are.

    Raises:
        DataError: there are no two classes.
    """
    root = Path(os.path.realpath(folder))
    left_out: list[tuple[str, str]] = []
    found = sorted(_walk(str(root), left_out))
    lost = [path for path, reason in left_out if reason not in (HIDES, EMPTY)]
    outer, splits = _layout([_parts(path) for path, _ in found], medium)
    files = []
    classes: dict[str, str] = {}
    for path, state in found:
        split, label, reason = _class_of(path, outer, splits, depth)
        if reason:
            left_out.append((path, reason))
            continue
        file = File(path, label, split, "", state.st_size, state.st_mtime_ns)
        files.append(file)
        if path.lower().endswith(medium.endings):
            classes.setdefault(label, path)
    around = {"", *(label[: match.start()] for label in classes for match in re.finditer("/", label))}
    for path in lost:
        # A folder that cannot be read, or a link that leads out or nowhere, may be a class if it lies beside one.
        is_image, place = path.lower().endswith(medium.endings), root / path
        is_gone = not os.path.exists(place)  # noqa: PTH110  # Path.exists may raise an error
        may_be_folder = not is_image and (not place.suffix if is_gone else os.path.isdir(place))  # noqa: PTH112
        _, label, _ = _class_of(f"{path}{os.sep}" if may_be_folder else path, outer, splits, depth)
        parent = label.rpartition("/")[0]
        if label and (is_image or (may_be_folder and parent in around and parent not in classes)):
            classes.setdefault(label, path)
    if not splits and classes and all(label.casefold() in SPLITS for label in classes):
        raise DataError(
            f"{folder} has splits ({', '.join(sorted(classes))}) without folders of classes: make a folder for "
            f"each class in them, with its {medium.noun}s, or give a table"
        )
    listing = Listing(root, files, left_out, [], classes, medium)
    if len({file.label for file in files}) < 2:
        tables = sorted(path for path, _ in found if path.lower().endswith((*TABLES, ".npz")))
        hint = f", or name the table: --dataset {folder / tables[0]}" if tables else ", or give a table"
        labels = {file.label for file in files}
        what = (
            f"has only the class {quoted(labels.pop())}"
            if labels
            else f"has no folders of classes with {medium.noun}s"
        )
        raise DataError(f"{folder} {what}: make a folder for each class, with its {medium.noun}s{hint}")
    return listing._replace(files=groups_of(files, group)) if group else listing


def _layout(parts: Sequence[tuple[str, ...]], medium: Medium) -> tuple[tuple[str, ...], set[str]]:
    """The folders around the data, as in an archive that was unpacked into a folder, and those of the splits.

    Only images count, if there are files that claim to be images: a script beside them changes nothing.

    Args:
        parts: the parts of the path of every file.
        medium: what the files are.
    """
    images = [p for p in parts if p[-1].lower().endswith(medium.endings)]
    inner = images or list(parts)
    outer: tuple[str, ...] = ()
    while len(tops := {p[0] for p in inner if len(p) > 1}) == 1:
        (top,) = tops
        if top.casefold() in SPLITS or (images and any(len(p) == 2 for p in inner)):
            break
        outer = (*outer, top)
        inner = [p[1:] for p in inner if len(p) > 1]
    with_classes = {p[0] for p in inner if len(p) > 2 and p[0].casefold() in SPLITS}
    kinds = {SPLITS[top.casefold()] for top in with_classes}
    splits = {top for top in tops if top.casefold() in SPLITS}
    has_splits = "train" in kinds and (len(kinds) > 1 or splits == tops)
    return outer, splits if has_splits else set()


def _parts(path: str) -> tuple[str, ...]:
    return tuple(path.split(os.sep))  # noqa: PTH206  # 60,000 of Path.parts take 0.2 s


def _class_of(path: str, outer: tuple[str, ...], splits: set[str], depth: int) -> tuple[str, str, str]:
    """The split and the class of a file by its path; or "", "" and the reason why it has none."""
    parts = _parts(path)
    split, name = "", parts[len(outer) : -1] if parts[: len(outer)] == outer else ()
    if splits:
        if not name or name[0] not in splits:
            return "", "", "is in none of the folders of the splits"
        split, name = SPLITS[name[0].casefold()], name[1:]
    if not name:
        return "", "", "is in no folder of a class"
    return split, readable("/".join(name[:depth] if depth > 0 else name)), ""


def in_table(
    table: Path,
    *,
    paths: str = "",
    labels: str = "",
    splits: str = "",
    group: str = "",
    medium: Medium = IMAGES,
) -> Listing:
    """The files that a table names: CSV, TSV or Parquet, with a line of column names.

    Args:
        table: the file. Its paths begin at the folder in which it lies, and must stay in it.
        paths: the column of paths; "" for the first of `PATHS` that is there.
        labels: the column of labels, as for ``paths``.
        splits: the column of splits, which may be missing.
        group: the column of groups, or a regular expression, see `groups_of`.
        medium: what the files are.

    Raises:
        DataError: the table cannot be read, or lacks a column.
    """
    columns = columns_of(table)
    path_of = columns[column_of(table, columns, "paths", paths, PATHS)]
    label_of = columns[column_of(table, columns, "labels", labels, LABELS)]
    split_name = column_of(table, columns, "splits", splits, SPLIT_COLUMNS, needed=False)
    is_column = group in columns
    group_name = (
        group if is_column else "" if group else column_of(table, columns, "group", "", GROUPS, needed=False)
    )
    root = Path(os.path.realpath(table.parent))
    files: dict[str, File] = {}
    left_out: list[tuple[str, str]] = []
    doubtful: dict[str, str] = {}  # path and reason
    classes: dict[str, str] = {}
    none = [""] * len(path_of)
    rows = zip(path_of, label_of, columns.get(split_name, none), columns.get(group_name, none), strict=True)
    for path, label, split, its_group in rows:
        path = os.path.normpath(_with_slashes(root, path)) if path else path
        name = os.path.relpath(path, root) if Path(path).is_absolute() else path
        reason, state = _state(root, name, may_lead_out=_may_lead_out(root, name))
        if not path:
            reason = "has no path"
        elif not label:
            reason = "has no label"
        elif split and split.casefold() not in SPLITS:
            known = "train, validation or test"
            raise DataError(f"{table}: the column {quoted(split_name)} has {quoted(split)}; it should be {known}")
        if label:
            label = readable(label)
            classes.setdefault(label, name)
        if state is None or reason:
            left_out.append((name, reason))
            continue
        file = File(name, label, SPLITS.get(split.casefold(), ""), its_group, state.st_size, state.st_mtime_ns)
        first = files.setdefault(name, file)
        if first != file:
            doubtful.setdefault(name, _contradiction(first, file))
    left_out += doubtful.items()
    listed = sorted(file for file in files.values() if file.path not in doubtful)
    if len({file.label for file in listed}) < 2:
        what = left_out[0] if left_out else None
        example = f"; the first, {quoted(what[0])}, {what[1]}" if what else ""
        raise DataError(f"{table} names no files of two classes or more{example}")
    remarks = [f"the groups are the column {group_name}"] if group_name else []
    if group and not is_column:
        listed = groups_of(listed, group)
    return Listing(root, listed, left_out, remarks, classes, medium)


def _with_slashes(root: Path, path: str) -> str:
    r"""A path of a table that was written on Windows, such as ``cat\1.jpg``, as it is called here."""
    is_there = "\\" not in path or os.path.exists(root / path)  # noqa: PTH110  # which may raise an error
    return path if is_there else path.replace("\\", os.sep)


def _contradiction(first: File, second: File) -> str:
    """What two rows of a table say about one file."""
    pairs = {
        "classes": (first.label, second.label),
        "splits": (first.split, second.split),
        "groups": (first.group, second.group),
    }
    what, (one, other) = next((what, pair) for what, pair in pairs.items() if pair[0] != pair[1])
    return f"is in the table in two {what} ({one or 'none'} and {other or 'none'})"


def groups_of(files: Sequence[File], pattern: str) -> list[File]:
    """The files with their groups: the part of each path that a regular expression finds (its first ``(…)``).

    Raises:
        DataError: it is no regular expression, or finds nothing in any path.
    """
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise DataError(
            f"dataset.group={quoted(pattern)} is no column and no regular expression ({error})"
        ) from None
    matches = [expression.search(file.path) for file in files]
    if not any(matches):
        first = quoted(files[0].path)
        raise DataError(f"dataset.group={quoted(pattern)} is no column, and is found in no path, such as {first}")
    groups = [(m[1] if expression.groups else m[0]) if m else "" for m in matches]
    return [file._replace(group=group or "") for file, group in zip(files, groups, strict=True)]


def by_value(label: str) -> tuple[int, int, str]:
    """A key that sorts numbers by their value, before other names."""
    return (0, int(label), label) if label.isdecimal() else (1, 0, label)


@lru_cache(maxsize=1_000)  # of 60,000 files in ten classes
def readable(name: str) -> str:
    """A name as text that can be written anywhere: bytes that are no UTF-8 and control characters are escaped."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _walk(root: str, left_out: list[tuple[str, str]]) -> Iterator[tuple[str, os.stat_result]]:
    """All regular files below a folder, by their paths from there."""
    waiting = [""]
    while waiting:
        inner = waiting.pop()
        try:
            with os.scandir(os.path.join(root, inner)) as entries:  # noqa: PTH118  # 60,000 Path objects take 0.3 s
                names = [(e.name, e.is_dir(follow_symlinks=False), e.is_symlink()) for e in entries]
        except OSError as error:
            left_out.append((inner, f"cannot be read ({error.strerror or error})"))
            continue
        if not names:
            left_out.append((inner, EMPTY))
        for name, is_folder, is_link in names:
            path = f"{inner}{os.sep}{name}" if inner else name  # 60,000 of os.path.join take 0.2 s
            if name.startswith(".") or name.casefold() in HIDDEN:
                left_out.append((path, HIDES))
            elif is_folder:
                waiting.append(path)
            else:
                reason, state = _state(root, path, may_lead_out=is_link)
                if state is None or reason:
                    left_out.append((path, reason))
                else:
                    yield path, state


def _state(root: str | Path, path: str, *, may_lead_out: bool) -> tuple[str, os.stat_result | None]:
    """The state of a regular file in a folder; or the reason why it is none."""
    try:
        whole = f"{root}{os.sep}{path}"
        real = os.path.realpath(whole) if may_lead_out else whole
        if may_lead_out and os.path.commonpath([root, real]) != str(root):
            return "leads out of the folder", None
        state = os.stat(real)  # noqa: PTH116
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        if isinstance(error, FileNotFoundError):
            return "is not there", None
        return f"cannot be read ({getattr(error, 'strerror', None) or error})", None
    if stat.S_ISDIR(state.st_mode):
        return "is a link to a folder", None
    if not stat.S_ISREG(state.st_mode):
        return "is a device or a pipe", None
    return "", state


def _may_lead_out(root: str | Path, path: str) -> bool:
    """Whether there is a link on the way, or a "..": `realpath` asks the system about every folder of a path."""
    place, parts = Path(root), Path(path).parts
    if ".." in parts or Path(path).is_absolute():
        return True
    for part in parts:
        place /= part
        if os.path.islink(place):  # noqa: PTH114  # is_symlink raises an error for a long name
            return True
    return False
