"""Decoded images in the user's cache folder, so that they are decoded once; a search maps them into memory."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from nas.data.dataset import new_images
from nas.errors import DataError
from nas.files import write_whole

ABOUT = "about.json"
VERSION = 3  # of the content of the entries; a change makes all of them anew


def cache_folder() -> Path:
    """The folder of the cache, which may not exist."""
    import platformdirs

    return platformdirs.user_cache_path("nas") / "images"


def key_of(*values: Any) -> str:
    """A short hash of plain values, for the name of an entry."""
    return hashlib.sha256(json.dumps([VERSION, *values], sort_keys=True).encode()).hexdigest()[:16]


def cached(
    name: str, build: Callable[[Path], None], holds: Callable[[dict[str, Any]], bool] = lambda about: True
) -> Path:
    """The folder of an entry, which is built if it is not there, or damaged. Two processes do not build it twice.

    Args:
        name: of the entry, with a `key_of` everything that its content follows from.
        build: fills an empty folder.
        holds: whether an entry is still good, by what is known about it; otherwise it is built anew.

    Raises:
        DataError: the cache cannot be written.
    """
    place = cache_folder() / name
    try:
        if _is_whole(place) and holds(read_about(place)):
            return place
        place.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{place}.lock"):
            if not (_is_whole(place) and holds(read_about(place))):
                draft = place.with_name(f"{name}.part")  # of a process that was killed, if it is there
                for old in (draft, place):
                    if old.exists():
                        shutil.rmtree(old)
                draft.mkdir()
                try:
                    build(draft)
                    draft.rename(place)
                finally:
                    shutil.rmtree(draft, ignore_errors=True)
    except OSError as error:
        advice = "free some space there, or name another folder in XDG_CACHE_HOME"
        raise DataError(
            f"the decoded images cannot be written to {cache_folder()} ({error.strerror or error}): {advice}"
        ) from None
    return place


def black_images(path: Path, shape: tuple[int, int, int, int]) -> None:
    """Write an .npy file of black images (N, C, H, W) uint8, if the disk has space for these and for a copy.

    Raises:
        OSError: it has not.
    """
    size, free = 2 * math.prod(shape), shutil.disk_usage(path.parent).free
    if free < size:
        raise OSError(f"{size / 2**30:,.1f} GiB are needed, and {free / 2**30:,.1f} GiB are free")
    new_images(path, shape)


def write_about(folder: Path, about: dict[str, Any]) -> None:
    """Write what is known about an entry; after that, it is complete."""
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    write_whole(folder / ABOUT, json.dumps({**about, "files": sizes}))


def read_about(folder: Path) -> dict[str, Any]:
    """What is known about an entry."""
    about: dict[str, Any] = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    return about


def _is_whole(folder: Path) -> bool:
    """Whether an entry is there, with all its files, none of which has lost or gained bytes."""
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        return all((folder / name).stat().st_size == size for name, size in read_about(folder)["files"].items())
    return False


def entries() -> Iterator[tuple[Path, dict[str, Any], int]]:
    """All complete entries: folder, what is known about it, and its bytes."""
    for file in sorted(cache_folder().glob(f"*/{ABOUT}")):
        with suppress(OSError, ValueError):
            yield file.parent, read_about(file.parent), sum(path.stat().st_size for path in file.parent.iterdir())


def clear() -> tuple[int, int, int]:
    """Remove all entries, except for those that a process is building just now.

    Searches that use them keep what they have mapped. The locks stay: another process may wait for one.

    Returns:
        The number of removed entries and their bytes, and the number of those that stay.

    Raises:
        DataError: something cannot be removed.
    """
    known = {folder.name: size for folder, _, size in entries()}
    names = {
        path.name.removesuffix(".lock").removesuffix(".part") for path in cache_folder().glob("*") if path.is_dir()
    }
    busy = 0
    for name in sorted(names):
        place = cache_folder() / name
        try:
            with FileLock(f"{place}.lock", timeout=0):
                for folder in (place, place.with_name(f"{name}.part")):
                    if folder.exists():
                        shutil.rmtree(folder)
        except Timeout:
            busy += 1
            known.pop(name, None)
        except OSError as error:
            raise DataError(f"{error.filename or place} cannot be removed: {error.strerror}") from None
    return len(known), sum(known.values()), busy
