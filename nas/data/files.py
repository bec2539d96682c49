"""Which image files there are, in a folder or in a table, and the class of each; nothing is decoded here."""

from __future__ import annotations

import csv
import os
import re
import stat
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from nas.data.decoder import ENDINGS
from nas.errors import DataError, plain, quoted, unknown

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
HIDDEN = ("thumbs.db", "desktop.ini", "__macosx", "$recycle.bin")  # of systems that have other ways to hide files


class File(NamedTuple):
    """A file that may be an image."""

    path: str  # from the folder of the data
    label: str  # the name of its class
    split: str  # train, validation, test, or "" if it may be in any
    group: str  # files of one group belong in one split; "" if it is alone
    size: int  # bytes
    changed: int  # the time of its last change, in nanoseconds

    @property
    def claims_to_be_an_image(self) -> bool:
        """Whether its name ends like that of an image file."""
        return self.path.lower().endswith(ENDINGS)


class Listing(NamedTuple):
    """The files of a data set."""

    folder: Path
    files: list[File]  # sorted by path
    left_out: list[tuple[str, str]]  # other paths, and the reason why they are no images of the data set
    remarks: list[str]  # lines for the user


def in_folder(folder: Path, *, depth: int = 0, group: str = "") -> Listing:
    """The files below a folder that has a folder for each class, perhaps inside of folders for the splits.

    Nothing outside of the folder is listed, and no link to a folder is followed.

    Args:
        folder: the folder.
        depth: how many parts of the path of a class are its name; 0 for all of them.
        group: a regular expression, see `groups_of`.

    Raises:
        DataError: there are no two classes.
    """
    root = Path(os.path.realpath(folder))
    left_out: list[tuple[str, str]] = []
    found = sorted(_walk(str(root), left_out))
    parts = [tuple(path.split(os.sep)) for path, _ in found]  # noqa: PTH206  # 60,000 of Path.parts take 0.2 s
    while len({p[0] for p in parts if len(p) > 1}) == 1 and not any(
        len(p) == 2 and p[1].lower().endswith(ENDINGS) for p in parts
    ):
        outer = next(p[0] for p in parts if len(p) > 1)  # as in an archive that was unpacked into a folder
        if outer.casefold() in SPLITS:
            break
        parts = [p[1:] if len(p) > 1 else () for p in parts]
    tops = {p[0] for p in parts if len(p) > 2 and p[0].casefold() in SPLITS}
    kinds = {SPLITS[top.casefold()] for top in tops}
    has_splits = "train" in kinds and (len(kinds) > 1 or all(p[0] in tops for p in parts if len(p) > 1))
    files = []
    for (path, state), own in zip(found, parts, strict=True):
        split, name = "", own[:-1]
        if has_splits:
            if not own or own[0] not in tops:
                left_out.append((path, "is in none of the folders of the splits"))
                continue
            split, name = SPLITS[own[0].casefold()], own[1:-1]
        if not name:
            left_out.append((path, "is in no folder of a class"))
            continue
        label = readable("/".join(name[:depth] if depth > 0 else name))
        files.append(File(path, label, split, "", state.st_size, state.st_mtime_ns))
    listing = Listing(root, files, left_out, [])
    if len({file.label for file in files}) < 2:
        tables = sorted(path for path, _ in found if path.lower().endswith((*TABLES, ".npz")))
        hint = f", or name the table: --dataset {folder / tables[0]}" if tables else ", or give a table"
        classes = {file.label for file in files}
        what = (
            f"has only the class {quoted(classes.pop())}" if classes else "has no folders of classes with images"
        )
        raise DataError(f"{folder} {what}: make a folder for each class, with its images{hint}")
    return listing._replace(files=groups_of(files, group)) if group else listing


def in_table(table: Path, *, paths: str = "", labels: str = "", splits: str = "", group: str = "") -> Listing:
    """The files that a table names: CSV, TSV or Parquet, with a line of column names.

    Args:
        table: the file. Its paths begin at the folder in which it lies, and must stay in it.
        paths: the column of paths; "" for the first of `PATHS` that is there.
        labels: the column of labels, as for ``paths``.
        splits: the column of splits, which may be missing.
        group: the column of groups, or a regular expression, see `groups_of`.

    Raises:
        DataError: the table cannot be read, or lacks a column.
    """
    columns = _columns(table)
    path_of = columns[_column(table, columns, "paths", paths, PATHS)]
    label_of = columns[_column(table, columns, "labels", labels, LABELS)]
    split_name = _column(table, columns, "splits", splits, SPLIT_COLUMNS, needed=False)
    is_column = group in columns
    group_name = (
        group if is_column else "" if group else _column(table, columns, "group", "", GROUPS, needed=False)
    )
    root = Path(os.path.realpath(table.parent))
    files: dict[str, File] = {}
    left_out: list[tuple[str, str]] = []
    none = [""] * len(path_of)
    rows = zip(path_of, label_of, columns.get(split_name, none), columns.get(group_name, none), strict=True)
    for path, label, split, its_group in rows:
        path = os.path.normpath(path) if path else path
        name = os.path.relpath(path, root) if Path(path).is_absolute() else path
        reason, state = _state(root, name, may_lead_out=_may_lead_out(root, name))
        if not path:
            reason = "has no path"
        elif not label:
            reason = "has no label"
        elif split and split.casefold() not in SPLITS:
            known = "train, validation or test"
            raise DataError(f"{table}: the column {quoted(split_name)} has {quoted(split)}; it should be {known}")
        if state is None or reason:
            left_out.append((name, reason))
            continue
        file = File(
            name, readable(label), SPLITS.get(split.casefold(), ""), its_group, state.st_size, state.st_mtime_ns
        )
        if files.setdefault(name, file) != file:
            left_out.append((name, f"is in the table as {file.label}, too"))
            files[name] = file._replace(label="")
    listed = sorted(file for file in files.values() if file.label)
    if len({file.label for file in listed}) < 2:
        what = left_out[0] if left_out else None
        example = f"; the first, {quoted(what[0])}, {what[1]}" if what else ""
        raise DataError(f"{table} names no files of two classes or more{example}")
    remarks = [f"the groups are the column {group_name}"] if group_name else []
    if group and not is_column:
        listed = groups_of(listed, group)
    return Listing(root, listed, left_out, remarks)


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
            left_out.append((inner, "is an empty folder"))
        for name, is_folder, is_link in names:
            path = f"{inner}{os.sep}{name}" if inner else name  # 60,000 of os.path.join take 0.2 s
            if name.startswith(".") or name.casefold() in HIDDEN:
                left_out.append((path, "is hidden"))
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
        if place.is_symlink():
            return True
    return False


def _columns(table: Path) -> dict[str, list[str]]:
    """The columns of a table as texts."""
    try:
        if table.suffix.lower() == ".parquet":
            return _parquet_columns(table)
        # Bytes that are no UTF-8 become the characters by which Python names such files.
        with table.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            header = file.readline(2**20)
            found = max(",;\t", key=header.count) if table.suffix.lower() == ".csv" else "\t"
            file.seek(0)
            rows = csv.DictReader(file, delimiter=found, restval="", restkey="")
            names = list(rows.fieldnames or ())
            columns: dict[str, list[str]] = {name: [] for name in names}
            for row in rows:
                for name in names:
                    columns[name].append((row[name] or "").strip())
            return {name.strip(): values for name, values in columns.items()}
    except OSError as error:
        raise DataError(f"{table} cannot be read: {error.strerror or error}") from None
    except csv.Error as error:
        raise DataError(f"{table} is no table: {plain(str(error))}") from None


def _parquet_columns(table: Path) -> dict[str, list[str]]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise DataError(f"{table}: Parquet files need a package: `pip install pyarrow`") from None
    try:
        content = parquet.read_table(table).to_pydict()
    except ArrowException as error:
        raise DataError(f"{table} is no Parquet file: {' '.join(plain(str(error)).split())}") from None
    return {name: ["" if v is None else str(v) for v in values] for name, values in content.items()}


def _column(
    table: Path,
    columns: dict[str, list[str]],
    option: str,
    given: str,
    known: Sequence[str],
    *,
    needed: bool = True,
) -> str:
    """The name of a column: the given one, or the first with a known name; "" if there is none."""
    if given:
        if given not in columns:
            raise DataError(f"{table}: {unknown('column', given, columns)}")
        return given
    names = {name.casefold().replace(" ", "_"): name for name in reversed(columns)}
    found = next((names[name] for name in known if name in names), "")
    if needed and not found:
        listed = ", ".join(map(plain, columns)) or "none"
        raise DataError(
            f"{table} has no column that is called {', '.join(known[:3])} or so (its columns: {listed}): "
            f"name the column of {option} with --set dataset.{option}=NAME"
        )
    return found
