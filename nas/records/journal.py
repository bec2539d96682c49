"""The truth about a search: one line of JSON per finished training, checksummed and on the disk.

A line is ``{"check": CRC-32 of the rest, "trial": …}``. The first line is the header. A last line that was
torn by a kill is cut off when the journal is opened; a damaged line before it is an error that names it.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from nas.errors import JournalError
from nas.trial import Job, Trial

VERSION = 1


class Journal:
    """The journal of one search, open for appending. Use it in a ``with`` block.

    Args:
        path: the file; it is made if it is not there.
        header: what the search is, for a new journal.

    Raises:
        JournalError: the file cannot be written, is damaged, or is of another version.
    """

    def __init__(self, path: Path, header: Mapping[str, Any] | None = None) -> None:
        self.path = path
        self._trials: dict[str, Trial] = {}
        try:
            self._file = path.open("a+b", buffering=0)
        except OSError as error:
            raise JournalError(f"{path} cannot be opened: {error.strerror}") from None
        try:
            self.header, whole = self._read()
            self._file.truncate(whole)
        except BaseException:
            self._file.close()
            raise
        if whole == 0:
            self.header = {"version": VERSION, **(header or {})}
            self._write({"header": self.header})

    def __enter__(self) -> Self:
        """The journal."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self._file.close()

    def __len__(self) -> int:
        """How many trainings it holds."""
        return len(self._trials)

    def __iter__(self) -> Iterator[Trial]:
        """Its trials, in the order in which they were finished."""
        return iter(self._trials.values())

    def find(self, job: Job) -> Trial | None:
        """What is known of this job: a trial without scores, or None."""
        trial = self._trials.get(job.key)
        return replace(trial, job=job) if trial else None

    def append(self, trial: Trial) -> None:
        """Keep a trial; it is on the disk when this returns.

        Raises:
            JournalError: the disk does not take it.
        """
        self._write({"trial": trial.to_dict()})
        self._trials[trial.job.key] = trial

    def _write(self, entry: dict[str, Any]) -> None:
        line = json.dumps({"check": _check(entry), **entry}, separators=(",", ":"))
        try:
            data = line.encode() + b"\n"
            whole = self._file.write(data) == len(data)
            os.fsync(self._file.fileno())
        except OSError as error:
            raise JournalError(f"{self.path} cannot be written: {error.strerror}") from None
        if not whole:
            raise JournalError(f"{self.path} cannot be written: the disk is full")

    def _read(self) -> tuple[dict[str, Any], int]:
        """The header, and how many bytes are whole lines; fills the trials."""
        self._file.seek(0)
        header: dict[str, Any] = {}
        whole = 0
        for number, line in enumerate(self._file, 1):
            if not line.endswith(b"\n"):
                break  # torn by a kill: nobody was told of it
            entry = self._entry(line, number)
            if number == 1:
                header = self._header(entry)
            else:
                trial = Trial.from_dict(entry["trial"])
                self._trials[trial.job.key] = trial
            whole += len(line)
        return header, whole

    def _header(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        header: dict[str, Any] = entry.get("header", {})
        if header.get("version") != VERSION:
            raise JournalError(f"{self.path} is of version {header.get('version')}; this nas reads {VERSION}")
        return header

    def _entry(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            entry: dict[str, Any] = json.loads(line)
            if entry.pop("check") == _check(entry):
                return entry
        except (ValueError, KeyError, AttributeError, TypeError):
            pass
        raise JournalError(f"{self.path}, line {number}: damaged (its checksum is wrong)")


def _check(entry: Mapping[str, Any]) -> str:
    text = json.dumps(entry, sort_keys=True, separators=(",", ":"))
    return f"{zlib.crc32(text.encode()):08x}"
