"""Which paths hold series, and the files of an archive that belong together."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nas.data.decoder import ENDINGS as IMAGES
from nas.data.files import PATHS, SPLITS, readable
from nas.data.sequences.arrays import holds_series as is_npz_of_series
from nas.data.sequences.table import is_ucr
from nas.errors import DataError, listed, quoted

FILES = (".ts", ".tsv", ".txt")  # of the archives, the best first: some folders have the same series in each
LONGEST = 2**20  # characters of the first line of a table that are looked at
NAMED = re.compile(r"(.+)_(train|test|validation|val)", re.IGNORECASE)


def holds_series(path: Path, options: Mapping[str, Any]) -> bool:
    """Whether there are series at a path, and no images.

    There are in: a folder with files such as NAME_TRAIN.ts (.tsv, .txt) and without images in its folders; a .ts
    file; a .tsv, .txt or .csv file whose first line is a label and numbers; a .csv or .tsv file whose first line
    names columns, and none of paths; an .npz file as `nas.data.sequences.arrays.holds_series` says. The option
    ``view`` (series or images) decides otherwise, and the option ``series`` names a column that only series have.
    """
    view = str(options.get("view", "auto"))
    if view in ("series", "images"):
        return view == "series"
    suffix = path.suffix.lower()
    if path.is_dir():
        return bool(_archive(path)) and not _has_images(path)
    if suffix == ".npz":
        return is_npz_of_series(path)
    if suffix == ".parquet":
        return "series" in options
    if suffix not in (*FILES, ".csv"):
        return False
    line = first_line(path)
    if suffix == ".ts" or "series" in options or is_ucr(line):
        return True
    if suffix == ".txt" or "paths" in options or not line.strip():
        return False
    found = max(",;\t", key=line.count) if suffix == ".csv" else "\t"
    names = [name.strip().strip('"').casefold().replace(" ", "_") for name in line.split(found)]
    return not set(names) & set(PATHS)


def first_line(path: Path) -> str:
    """The first line of a text that is not empty; "" if there is none, or it cannot be read."""
    try:
        if not path.is_file():
            return ""
        with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
            line = file.readline(LONGEST)
            while line and not line.strip():
                line = file.readline(LONGEST)
            return line
    except OSError:
        return ""


def files_of(path: Path) -> dict[str, Path]:
    """The files of an archive by their splits: of the folder ``path``, or of the file and those beside it.

    A file without a split in its name is alone: its split is "".

    Raises:
        DataError: the folder has files of several data sets, or no training file; or two files are of one split.
    """
    if not path.is_dir():
        match = NAMED.fullmatch(path.stem)
        if match is None:
            return {"": path}
        found = [
            other
            for other in _archive(path.parent)
            if other.suffix.lower() == path.suffix.lower() and _name(other) == _name(path)
        ] or [path]
    else:
        archive = _archive(path)
        names = sorted({_name(file) for file in archive})
        if len(names) > 1:
            raise DataError(
                f"{path} has several data sets ({listed(names)}): name a file, such as {readable(str(archive[0]))}"
            )
        ending = next(ending for ending in FILES if any(file.suffix.lower() == ending for file in archive))
        found = [file for file in archive if file.suffix.lower() == ending]
    files: dict[str, Path] = {}
    for file in found:
        split = SPLITS[_split(file)]
        if split in files:
            raise DataError(f"{files[split]} and {file.name} are both {split} series: remove or rename one")
        files[split] = file
    if "train" not in files:
        first = next(iter(files.values()))
        raise DataError(f"{first} has no training series beside it: {quoted(_name(first))}_TRAIN is needed")
    return {split: files[split] for split in ("train", "validation", "test") if split in files}


def _archive(folder: Path) -> list[Path]:
    """The files in a folder whose names end in a split."""
    try:
        return sorted(
            file
            for file in folder.iterdir()
            if file.suffix.lower() in FILES and NAMED.fullmatch(file.stem) and not file.name.startswith(".")
        )
    except OSError:
        return []


def _name(file: Path) -> str:
    match = NAMED.fullmatch(file.stem)
    return (match[1] if match else file.stem).casefold()


def _split(file: Path) -> str:
    match = NAMED.fullmatch(file.stem)
    return match[2].lower() if match else ""


def name_of(path: Path) -> str:
    """The name of the data set at a path: that of the folder, or of the file without its split."""
    place = path.resolve()
    if place.is_dir():
        return place.name
    match = NAMED.fullmatch(path.stem)
    return match[1] if match else path.stem


def _has_images(folder: Path) -> bool:
    """Whether a folder in a folder has a file that claims to be an image."""
    return any(
        name.lower().endswith(IMAGES)
        for place, _, names in os.walk(folder)
        if place != str(folder)
        for name in names
    )
