"""Writes files completely or not at all, and reads small files only."""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from pathlib import Path

from nas.errors import NasError, StorageError

SMALL = 2**20  # bytes: far more than a person writes
MOUNTS = Path("/proc/mounts")  # Linux


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a draft beside the file, flush it to the disk, rename it: readers see the old file or the new one.

    Raises:
        StorageError: the draft cannot be written; the file is as it was before.
    """
    draft = path.with_name(f".{path.name}.part")  # a folder has one writer: a draft left by a kill is replaced
    try:
        with draft.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise StorageError.of(path, error) from None


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk: without it, a power failure can undo a renaming."""
    if os.name != "posix":  # Windows cannot open a folder
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_system(path: Path) -> str:
    """The kind of file system on which a path lies or would lie, such as ``ext4``; empty if it is unknown."""
    found = ("", "")
    with suppress(OSError):
        where = os.path.realpath(path)
        for line in MOUNTS.read_text(errors="replace").splitlines():  # the last of several at one place counts
            _, place, kind, *_ = line.split(" ")
            place = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), place)  # a space is \040
            if len(place) >= len(found[0]) and (where + "/").startswith(place.rstrip("/") + "/"):
                found = (place, kind)
    return found[1]


def read_small(path: Path, limit: int = SMALL) -> str:
    """The text of a file that a user wrote; devices and pipes, which may never end, are not read.

    Raises:
        NasError: it is not a file, cannot be read, has more than ``limit`` bytes, or is not text in UTF-8.
    """
    try:
        if not path.is_file():  # checked first, because opening a pipe waits for its writer
            raise NasError(f"{path} is {kind_of(path)}, and should be a file of text")
        with path.open("rb") as file:
            content = file.read(limit + 1)
        if len(content) > limit:
            raise NasError(f"{path} has more than {limit:,} bytes: it is not a file of this kind")
        return content.decode()
    except OSError as error:
        raise NasError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise NasError(f"{path} is not a text file: byte {error.start + 1:,} is not UTF-8") from None


def kind_of(path: Path) -> str:
    """The kind of a path that is not a file, for a message; an OSError if the path does not exist."""
    return "a folder" if stat.S_ISDIR(path.stat().st_mode) else "a device or a pipe"


def shown(path: Path) -> str:
    """A path for people: relative if it is in the current folder, which is shorter."""
    with suppress(OSError, ValueError):  # the current folder was removed, or it is in another one
        return str(path.relative_to(Path.cwd()))
    return str(path)
