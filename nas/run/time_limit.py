"""The time limit of a search: how it is divided, and the shortest one that can give a winner here."""

from __future__ import annotations

import math
import os
import platform
from contextlib import suppress
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

from nas.errors import UsageError, plain
from nas.experiment import Experiment
from nas.records import searches
from nas.records.journal import FILE
from nas.records.outcome import GIVEN
from nas.records.record import entry_of, lines

SEARCH_SHARE = 0.45  # of the time after the start and before the end; the final selection gets the rest
# Seconds, measured with mnist-5k on two busy cores (docs/reliability.md).
START = 3.0  # from the start of the command until the first candidates are proposed
TRAINING = 8.0  # for the workers' start and the first training
SELECTING = 3.0  # of the shortest final selection
CLOSING = 3.0  # the test, the card and the records
MLFLOW = 12.0  # the winner's model and the figures in MLflow, after all else
COLD = 14.0  # to read PyTorch from the disk, if it is not in memory
LOOKED_AT = 5  # searches of the same data set, among the latest
MOST = 50  # of all data sets
# If no finalist waits for another one, and another program takes a part of the machine meanwhile, the final
# selection may take longer than its time by this share of it, and by so many seconds if it is short.
LATE, LATE_SECONDS = 0.3, 20.0
SLOWER = 1.25  # times as long as the fastest, because the machine may be busier


def closing(experiment: Experiment) -> float:
    """The seconds that the end of a search takes, after its last training."""
    return CLOSING + MLFLOW * (experiment.mlflow != "off")


def shortest(experiment: Experiment, *, trained: bool = False) -> float:
    """The seconds of the shortest search with a winner; its start as in the fastest of the latest ones here.

    ``trained``: whether it has trained a network already.
    """
    times = (_start(folder, experiment.dataset) for folder in _latest())
    known = list(islice((seconds for seconds in times if seconds is not None), LOOKED_AT))
    # One alone may have downloaded the data, or have read everything from a cold disk.
    start = SLOWER * min(known) if len(known) > 1 else START
    return start + (0 if trained else TRAINING) + SELECTING + closing(experiment)


def check(experiment: Experiment, spent: float = 0.0, *, trained: bool = False) -> None:
    """Refuse a time limit that is too short to give a winner; ``spent``: the seconds that the search has taken.

    Raises:
        UsageError: it is; the message has the shortest limit.
    """
    limit = experiment.time_limit
    if limit is None or experiment.evaluator != "local":  # nobody knows the pace of another evaluator
        return
    warm = spent + shortest(experiment, trained=trained)
    least = warm + COLD * _cold()
    if limit < least:
        name = plain(experiment.dataset.removeprefix(GIVEN))
        taken = f", of which {spent:.0f} s are over," if spent else ""
        later = f" ({math.ceil(warm)}s when PyTorch has been read from the disk once)" if least > warm + 1 else ""
        raise UsageError(
            f"a time limit of {limit:g} s{taken} is too short for the data set {name} on this machine: "
            f"give it --time-limit {math.ceil(least)}s or more{later}"
        )


def _latest() -> list[Path]:
    """The folders of the latest searches, the last one first."""
    times = {folder: (folder / FILE).stat().st_mtime for folder in searches.every()}
    return sorted(times, key=times.__getitem__, reverse=True)[:MOST]


def _start(folder: Path, dataset: str) -> float | None:
    """The seconds until an earlier search of a data set here proposed its first candidates; None for any other."""
    calibration = 0.0  # shorter searches have none
    with suppress(OSError, LookupError, TypeError, AttributeError, ValueError):
        for line in lines(folder / FILE):
            entry = entry_of(line) or {}
            if "session" in entry:
                changes = entry["session"]["changes"]
                names = changes.get("config", {}).get("dataset"), changes.get("dataset", {}).get("name")
                if entry["session"]["host"] != platform.node() or dataset not in names:
                    return None
                calibration = float(changes.get("plan", {}).get("calibration", 0.0))
            elif "asked" in entry:
                return float(entry["seconds"]) - calibration
    return None


def _cold() -> float:
    """The share of PyTorch's modules that are not in the page cache, as after a restart of the machine."""
    spec = find_spec("torch")
    folders = spec.submodule_search_locations or () if spec else ()
    files = [file for folder in folders for file in Path(folder, "nn", "modules", "__pycache__").glob("*.pyc")]
    return sum(not _in_memory(file) for file in files) / max(1, len(files))


def _in_memory(file: Path) -> bool:
    """Whether the beginning of a file is in the page cache; true where the system does not tell."""
    try:
        with file.open("rb", buffering=0) as opened:
            os.preadv(opened.fileno(), [bytearray(1)], 0, os.RWF_NOWAIT)
    except BlockingIOError:
        return False
    except (OSError, AttributeError):
        return True
    return True
