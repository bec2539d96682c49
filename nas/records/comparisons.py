"""The folders of comparisons: finding, locking and removing them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from nas.errors import StorageError, UsageError, quoted
from nas.records import searches
from nas.records.journal import FILE as JOURNAL
from nas.records.record import RUNS

TOML, FILE, LOCK = "comparison.toml", searches.COMPARISON, ".lock"


def every() -> list[Path]:
    """The folders of all comparisons under runs/, by name."""
    return sorted(path.parent.absolute() for path in RUNS.glob(f"*/{FILE}"))


def named(name: str | None) -> Path | None:
    """The folder of a comparison, by its path or its name under runs/; None if a search is meant.

    Without a name, it is the latest comparison, if no search is later.
    """
    if name is not None:
        path = Path(name)
        found = [
            folder for folder in (RUNS / path if path.name == name else path, path) if (folder / FILE).is_file()
        ]
        return found[0].absolute() if found else None
    known = [(_latest(folder), folder) for folder in every()]
    others = [(folder / JOURNAL).stat().st_mtime for folder in searches.every(with_=searches.TOML)]
    time, latest = max(known, default=(0.0, None))
    return latest if latest is not None and time > max(others, default=0.0) else None


def members(folder: Path) -> list[Path]:
    """The folders of the searches of a comparison that have begun, by name."""
    return sorted(path.parent for path in folder.glob(f"*/{JOURNAL}"))


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a comparison, whose folder is made.

    Raises:
        UsageError: another process holds it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK, timeout=1.0).acquire()
    except Timeout:
        raise UsageError(f"{folder} is being compared by another process: wait for it, or end it") from None
    except OSError as error:
        raise StorageError.of(folder, error) from None
    with lock:
        yield


def removable(folder: Path) -> FileLock:
    """The lock of a comparison that may be removed, held.

    Raises:
        UsageError: it is running, or its folder holds other files than those of a comparison.
    """
    own = {TOML, FILE, LOCK, "lecture", "explain", *(member.name for member in members(folder))}
    drafts = {f".{name}.part" for name in (TOML, FILE)}  # of a process that was killed
    others = sorted(path.name for path in folder.iterdir() if path.name not in own | drafts)
    if others:
        some = ", ".join(map(quoted, others[:3]))
        raise UsageError(f"{folder} has files that no comparison writes: {some}; move them elsewhere first")
    lock = FileLock(folder / LOCK, timeout=0.1)
    try:
        lock.acquire()
    except Timeout:
        raise UsageError(f"{folder.name} is running: end it first") from None
    return lock


def remove(folder: Path, lock: FileLock) -> None:
    """Remove the folder of a comparison whose searches are removed, and whose lock is held."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in (FILE, LOCK):
            path.unlink()
    lock.release()
    (folder / LOCK).unlink(missing_ok=True)
    (folder / FILE).unlink()
    folder.rmdir()


def _latest(folder: Path) -> float:
    """When a comparison was last written, in seconds since 1970."""
    return max((path.stat().st_mtime for path in (folder / FILE, *folder.glob(f"*/{JOURNAL}"))), default=0.0)
