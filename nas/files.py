"""Files that are there whole or not at all, and are read only where they are small."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from nas.errors import NasError, StorageError

SMALL = 2**20  # bytes: far more than a person writes


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a file beside its place, bring it to the disk, rename it: whoever looks finds the old one or the new.

    Raises:
        StorageError: the disk does not take it; the file is as it was before.
    """
    draft = path.with_name(f".{path.name}.part")  # one writer a folder: what a kill left of it is written over
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
    """Bring the names in a folder to the disk: a file that was renamed is otherwise lost with the power."""
    if os.name != "posix":  # Windows has no such call
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_small(path: Path, limit: int = SMALL) -> str:
    """The text of a file that somebody wrote; a device or a pipe, which may never end, is not read.

    Raises:
        NasError: it is no file, cannot be read, has more than ``limit`` bytes, or holds no text.
    """
    try:
        if not path.is_file():  # asked first, because opening a pipe waits for its writer
            raise NasError(f"{path} is {kind_of(path)}, and should be a file of text")
        with path.open("rb") as file:
            content = file.read(limit + 1)
        if len(content) > limit:
            raise NasError(f"{path} has more than {limit:,} bytes: it is not what it should be")
        return content.decode()
    except OSError as error:
        raise NasError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise NasError(f"{path} is not a text file: byte {error.start + 1:,} is no UTF-8") from None


def kind_of(path: Path) -> str:
    """What is there instead of a file, in words."""
    mode = path.stat().st_mode  # raises where there is nothing
    return "a folder" if stat.S_ISDIR(mode) else "a device or a pipe"
