"""The data set in temporary files that all workers map into memory."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import weakref
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

from nas.errors import StorageError

if TYPE_CHECKING:
    from nas.data.dataset import Dataset

LOCK = "lock"
NEW, LOCKED = "nas-new-", "nas-data-"


class SharedDataset:
    """A data set in a temporary folder, which is removed when this process ends, or before.

    A process that is killed leaves its folder (47 MB for mnist), but no lock on the file in it. The next process
    that makes such a folder removes those whose lock is free. A process number in the folder's name would not do:
    two containers that share a disk may have processes of the same number.

    Args:
        dataset: is written to the folder.

    Raises:
        StorageError: there is no room for it.
    """

    def __init__(self, dataset: Dataset) -> None:
        where = Path()
        try:
            where = Path(tempfile.gettempdir())
            _remove_abandoned(where)
            self.folder, lock = _locked_folder(where)
            self._finalizer = weakref.finalize(self, _remove, self.folder, lock)
            dataset.save(self.folder)
        except OSError as error:
            if hasattr(self, "_finalizer"):
                self.remove()
            reason = error.strerror or error  # numpy says itself how much of an array it could not write
            raise StorageError(
                f"the data set cannot be copied to {where} ({reason}): "
                "free some space there, or name another folder in TMPDIR"
            ) from None

    def remove(self) -> None:
        """Remove the folder."""
        self._finalizer()


def _locked_folder(where: Path) -> tuple[Path, IO[bytes]]:
    """A new folder. It gets the name that `_remove_abandoned` looks for when it is locked, not before."""
    folder = Path(tempfile.mkdtemp(prefix=NEW, dir=where))
    lock = (folder / LOCK).open("wb")
    if os.name == "posix":  # elsewhere there is no such lock, so abandoned folders stay
        import fcntl

        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = folder.rename(where / folder.name.replace(NEW, LOCKED))
    return folder, lock


def _remove(folder: Path, lock: IO[bytes]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    lock.close()


def _remove_abandoned(where: Path) -> None:
    if os.name != "posix":
        return
    import fcntl

    for folder in where.glob(f"{LOCKED}*"):
        with suppress(OSError):
            status = folder.lstat()
            if stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid():  # no link, and no stranger's folder
                with (folder / LOCK).open("r+b") as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises where it is in use
                    shutil.rmtree(folder)
