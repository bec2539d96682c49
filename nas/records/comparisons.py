"""The folders of comparisons: finding them."""

from __future__ import annotations

from pathlib import Path

from nas.records import searches
from nas.records.journal import FILE as JOURNAL
from nas.records.record import RUNS

TOML, FILE, LOCK = "comparison.toml", "comparison.json", ".lock"


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
    others = [(folder / JOURNAL).stat().st_mtime for folder in searches.every()]
    time, latest = max(known, default=(0.0, None))
    return latest if latest is not None and time > max(others, default=0.0) else None


def members(folder: Path) -> list[Path]:
    """The folders of the searches of a comparison that have begun, by name."""
    return sorted(path.parent for path in folder.glob(f"*/{JOURNAL}"))


def _latest(folder: Path) -> float:
    """When a comparison was last written, in seconds since 1970."""
    return max((path.stat().st_mtime for path in (folder / FILE, *folder.glob(f"*/{JOURNAL}"))), default=0.0)
