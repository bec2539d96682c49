"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from nas.errors import StorageError


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a file beside its place, bring it to the disk, rename it: whoever looks finds the old one or the new.

    Raises:
        StorageError: the disk does not take it; the file is as it was before.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
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
