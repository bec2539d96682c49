"""The journal of a search on the disk: a checksummed line of JSON for every event (see `record`).

One process writes it at a time. It is the first observer of a search: the others see only events that are on disk.
"""

from __future__ import annotations

import errno
import os
import platform
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

from nas.errors import JournalError, NasError, StorageError
from nas.files import write_whole
from nas.records.observer import Observer
from nas.records.outcome import Outcome
from nas.records.record import (
    LATER,
    SCORES,
    VERSION,
    WRONG,
    Record,
    entry_of,
    line_of,
    lines,
    read,
    told_entry,
)
from nas.spaces.space import Candidate
from nas.trial import Job, Trial, checked

FILE = "journal.jsonl"
LOCK = ".lock"
PATIENCE = 1.0  # seconds; `nas list` holds the lock for a moment to see whether another process does


class Journal(Observer):
    """The journal of one search, open for writing. Use it in a ``with`` block.

    A last line that was torn by a kill is cut off.

    Args:
        path: the file; it is made if it does not exist.
        begun: the moment (``time.monotonic``) at which this process began to work on the search.

    Raises:
        JournalError: it is damaged or of another version, or another process writes it.
        StorageError: it cannot be written.
    """

    def __init__(self, path: Path, begun: float | None = None) -> None:
        self.path = path
        self.begun = time.monotonic() if begun is None else begun
        self._asked = self._told = 0  # events of this process
        self._lock = locked(path)
        try:
            self.record, self._whole = read(path) if path.exists() else (Record(path), 0)
            self._file = self.path.open("ab", buffering=0)
            self._file.truncate(self._whole)
            batches = [len(batch.candidates) for batch in self.record.asked.values()]
            ahead = max(1, self.record.about.get("config", {}).get("ahead", 1))
            self._settled = sum(batches[:-ahead])  # candidates that cannot change: a clock cuts the last batches
            self.is_new = not self._whole
            if self._whole:
                self.begun -= self.record.seconds
            else:
                self._write({"header": {"version": VERSION, "id": secrets.token_hex(8)}})
        except BaseException as error:
            self._lock.release()
            if isinstance(error, OSError):
                raise StorageError.of(path, error) from None
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._lock.release()

    def __iter__(self) -> Iterator[Trial]:
        """The finished trainings, in their order."""
        return iter(self.record.trials.values())

    def find(self, job: Job) -> Trial | None:
        """The known trial of this job, without scores, or None."""
        trial = self.record.trials.get(job.key)
        return replace(trial, job=job) if trial else None

    def begin(self, about: Mapping[str, Any], *, more: bool = False, forced: bool = False) -> None:
        """Keep that this process begins to work on the search, and the sections of the header that have changed.

        Args:
            about: the sections of the header.
            more: whether the search was given more budget, so that its plan and its outcome are void.
            forced: whether the user accepts changes that change the result.
        """
        changes = {name: value for name, value in about.items() if self.record.about.get(name) != value}
        process = {"process": os.getpid(), "host": platform.node()}
        self._write({"session": {**process, "changes": changes, "more": more, "forced": forced}})

    def append(self, *trials: Trial) -> None:
        """Keep trainings; they are on the disk when this returns."""
        for trial in trials:
            kept = replace(checked(trial), scores=())
            self._write({"trial": kept.to_dict()}, made=kept, sync=trial is trials[-1])

    def asked(self, count: int, candidates: Sequence[Candidate]) -> None:
        """Keep the candidates that the strategy proposed, unless they are known."""
        number, self._asked = self._asked, self._asked + 1
        if number not in self.record.asked:
            proposed = [candidate.to_dict() for candidate in candidates]
            entry = {"asked": {"batch": number, "count": count, "candidates": proposed}}
            self._write(entry, made=tuple(candidates), sync=False)

    def told(self, trial: Trial) -> None:
        """Keep the trial of a finished candidate, unless it is known; refuse another candidate in its place."""
        number, self._told = self._told, self._told + 1
        if number < len(self.record.told):
            known = self.record.told[number].trial
            before = known.job.key
            if before == trial.job.key and (known.failure is None) == (trial.failure is None):
                return
            if number < self._settled and not self.record.forced:
                raise JournalError(
                    f"this search cannot go on: candidate {number + 1} was {before}, and is {trial.job.key} now; "
                    "--force goes on with it"
                )
            self._write({"retold": number}, sync=False)
        # Like `asked`, it reaches the disk with the next training: after a power cut it is told again.
        self._write({"told": told_entry(self.record, trial)}, sync=False)

    def searched(self, plan: Mapping[str, Any]) -> None:
        """Keep that the search is over, and the plan of the final selection."""
        self._write({"searched": dict(plan)})

    def finished(self, outcome: Outcome) -> None:
        """Keep the winner."""
        content = {
            **{name: getattr(outcome, name) for name in SCORES},
            **({"sample": outcome.sample} if outcome.sample else {}),
            **{name: score for name in LATER if (score := getattr(outcome, name)) is not None},
            "winner": outcome.winner.job.key,
            "finalists": [[trial.job.key for trial in group] for group in outcome.finalists],
            "front": [trial.job.key for trial in outcome.front],
            "mattered": [list(one) for one in outcome.mattered],
            "compared": [{**vars(other), "trial": other.trial.job.key} for other in outcome.compared],
        }
        self._write({"outcome": content})

    def stopped(self, status: str, message: str) -> None:
        """Keep that this process stops without a winner: ``interrupted`` or ``failed``."""
        self._write({"ended": {"status": status, "message": message}})

    def _write(self, entry: dict[str, Any], *, made: Any = None, sync: bool = True) -> None:
        entry = {"at": round(time.time(), 3), "seconds": round(time.monotonic() - self.begun, 3), **entry}
        data = line_of(entry)
        try:
            if self._file.write(data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # noqa: TRY301  # why the rest is missing
            if sync:
                os.fsync(self._file.fileno())
        except OSError as error:
            with suppress(OSError):  # half a line would spoil the next one
                self._file.truncate(self._whole)
            raise StorageError.of(self.path, error) from None
        self._whole += len(data)
        self.record.take(entry, made)


def locked(path: Path) -> FileLock:
    """The lock of a journal, held.

    Raises:
        JournalError: another process holds it.
        StorageError: it cannot be written.
    """
    lock = FileLock(path.with_name(LOCK), timeout=PATIENCE)
    try:
        lock.acquire()
    except Timeout:
        try:
            sessions = read(path)[0].sessions
        except NasError:
            sessions = []
        writer = f"process {sessions[-1].process} on {sessions[-1].host}" if sessions else "another process"
        raise JournalError(f"{path.parent} is being searched by {writer}: wait for it, or end it") from None
    except OSError as error:
        raise StorageError.of(path, error) from None
    return lock


def is_running(folder: Path) -> bool:
    """Whether a process is writing the journal of this search."""
    lock = folder / LOCK
    if not lock.exists():
        return False
    try:
        with FileLock(lock, timeout=0.05):
            return False
    except Timeout:
        return True
    except OSError:  # no permission to write there, so the answer is unknown
        return False


def repair(folder: Path) -> tuple[int, int]:
    """Write a damaged journal again without its damaged lines; the old file is kept beside it.

    Trainings stay. Trials that were told after the first damage are left out: the resumed search tells them again.

    Returns:
        The number of lines that were kept, and of those that were not.

    Raises:
        JournalError: no line is whole, the journal is of another version, a layer in it cannot be used now, or a
            process is writing it.
    """
    path = folder / FILE
    with locked(path):
        try:
            every = list(lines(path))
        except OSError as error:
            raise JournalError(f"{path} cannot be read: {error.strerror}") from None
        kept, lost = _whole_lines(every, path)
        if kept != every:
            copies = (path.with_name(f"{FILE}.damaged-{number}") for number in count(1))
            write_whole(next(copy for copy in copies if not copy.exists()), b"".join(every))
            write_whole(path, b"".join(kept))
        return len(kept), lost


def _whole_lines(every: list[bytes], path: Path) -> tuple[list[bytes], int]:
    """The lines that are valid after the lines before them, and the number of the others."""
    record, lost = Record(path), 0
    kept: list[bytes] = []
    for number, line in enumerate(every):
        entry = entry_of(line) if line.endswith(b"\n") else None
        if number == 0 and (entry is None or "header" not in entry):
            lost, entry = 1, {"header": {"version": VERSION, "id": secrets.token_hex(8)}}
            line = line_of(entry)
        misplaced = number > 0 and entry is not None and "header" in entry
        if entry is None or misplaced or (lost and entry.keys() & {"told", "retold", "searched", "outcome"}):
            lost += 1
            continue
        try:
            record.take(entry)
        except NasError as error:  # of another version, or with a layer that does not work now: the line is sound
            raise JournalError(f"{path} cannot be repaired: {error}") from None
        except WRONG:
            lost += 1
            continue
        kept.append(line)
    if len(kept) < 2:
        raise JournalError(f"{path} has no whole line: start the search again")
    return kept, lost
