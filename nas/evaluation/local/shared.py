"""The data set in temporary files that all workers map into memory."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.util import Finalize
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from nas.errors import StorageError

if TYPE_CHECKING:
    from nas.data.dataset import Dataset

LOCK = "lock"
CORES = "cores"  # a byte that the search writes and its workers read: the cores that each training may use
NEW, LOCKED = "nas-new-", "nas-data-"


class SharedDataset:
    """A data set in a temporary folder, which is removed when this process ends, or before.

    A killed process leaves its folder (47 MB for mnist), but no lock on the file in it. The next process that
    makes such a folder removes those whose lock is free. A process number in the folder's name would not be
    enough, because two containers that share a disk may have processes of the same number.

    Raises:
        StorageError: there is not enough space.
    """

    def __init__(self, dataset: Dataset) -> None:
        where = Path()
        try:
            where = Path(tempfile.gettempdir())
            _remove_abandoned(where)
            self.folder, lock = locked_folder(where)
            self.remove = Finalize(self, _remove, (self.folder, lock), exitpriority=0)
            dataset.save(self.folder)
            (self.folder / CORES).write_bytes(bytes(1))
            self._shared = 0
        except OSError as error:
            if hasattr(self, "remove"):
                self.remove()
            reason = error.strerror or error  # errors of NumPy have a message only
            raise StorageError(
                f"the data set cannot be copied to {where} ({reason}): "
                "free some space there, or name another folder in TMPDIR"
            ) from None

    def share(self, cores: int) -> None:
        """Let each training use so many cores from now on."""
        if cores != self._shared:
            self._shared = cores
            with suppress(OSError), (self.folder / CORES).open("r+b") as file:  # never shorter: it is mapped
                file.write(bytes([min(cores, 255)]))


def cores_of(folder: Path) -> Callable[[], int]:
    """Tells how many cores a training may use at this moment; ``folder``: of a `SharedDataset`."""
    cores = np.memmap(folder / CORES, np.uint8, "r")
    return lambda: int(cores[0])


def locked_folder(where: Path) -> tuple[Path, IO[bytes]]:
    """A new folder. Only when it is locked does it get the name that `_remove_abandoned` searches."""
    folder = Path(tempfile.mkdtemp(prefix=NEW, dir=where))
    lock = (folder / LOCK).open("wb")
    if os.name == "posix":  # other systems have no such lock, so that abandoned folders stay
        import fcntl

        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = folder.rename(where / folder.name.replace(NEW, LOCKED))
    return folder, lock


def _remove(folder: Path, lock: IO[bytes]) -> None:
    lock.close()  # Windows removes no open file
    shutil.rmtree(folder, ignore_errors=True)


def _remove_abandoned(where: Path) -> None:
    if os.name != "posix":
        return
    import fcntl

    for folder in where.glob(f"{LOCKED}*"):
        with suppress(OSError):
            status = folder.lstat()
            if stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid():  # no link, no other user's folder
                with (folder / LOCK).open("r+b") as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # an error if the folder is in use
                    shutil.rmtree(folder)
