"""The folders of searches: a new one, one by its name, a network in one, its state, what has changed."""

from __future__ import annotations

import os
import re
import secrets
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from nas.architecture.architecture import Architecture
from nas.architecture.backbones import BACKBONES
from nas.architecture.known import KNOWN
from nas.architecture.layers import Pretrained
from nas.errors import JournalError, NasError, UsageError, plain, unknown
from nas.records.journal import FILE, LOCK, is_running
from nas.records.record import RUNS, Record, place, read

TOML = "search.toml"
# In the record, before the name of the class of a strategy, space, data set or evaluator that was given as a
# Python object. No file holds the object: the search goes on only with the same one.
GIVEN = "object:"
WINNER = Path("best/architecture.json")
# What may change between two sessions of a search without changing what it finds.
FREE = frozenset({"trials", "time_limit", "workers", "mlflow", "data_dir", "plugins"})


def new_folder(out: Path | None, kind: str) -> Path:
    """A new or empty folder for a run.

    Raises:
        NasError: it cannot be made or written, or is not empty.
    """
    stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    folder = (out or RUNS / f"{stamp}-{kind}-{secrets.token_hex(2)}").absolute()
    try:
        if folder.exists() and any(_is_work(path) for path in folder.iterdir()):
            raise UsageError(f"{folder} is not empty; choose another folder with --out, or `nas resume` it")
        (folder / "retrained").mkdir(parents=True, exist_ok=True)
        (folder / FILE).touch()
    except OSError as error:
        raise NasError(f"{folder} cannot be written: {error.strerror}; choose another folder with --out") from None
    return folder


def _is_work(path: Path) -> bool:
    """Whether something would be lost; what a run leaves that was ended before it began is nothing."""
    if path.name == FILE:
        return path.stat().st_size > 0
    return path.name != LOCK and not (path.name == "retrained" and not any(path.iterdir()))


def named(search: str | None, *, to_resume: bool = False) -> Path:
    """The folder of a search: by its path, by its name under runs/, or the latest one.

    Args:
        search: path, name, or None.
        to_resume: the latest one is the latest search, not a training.

    Raises:
        UsageError: there is none.
    """
    if search is None:
        known = [folder for folder in every() if not to_resume or (folder / TOML).exists()]
        if not known:
            raise UsageError(f"there are no searches in {RUNS.absolute()}: run `nas search`, or name a folder")
        return max(known, key=lambda folder: (folder / FILE).stat().st_mtime)
    path = Path(search)
    for folder in (RUNS / path if path.name == search else path, path):
        if (folder / FILE).is_file():
            return folder.absolute()
    if path.is_dir():
        raise UsageError(f"{path} is not the folder of a search: there is no {FILE} in it")
    raise UsageError(unknown("search", search, [folder.name for folder in every()]))


def any_network(text: str) -> tuple[str, Architecture]:
    """A network that ``nas train`` takes, and its name.

    Args:
        text: the name of a known network or of a torchvision model; a search, for its winner; the id of a network
            of any search (see `network`); or the path of an architecture.json.

    Raises:
        NasError: there is no such network, or its file cannot be read.
    """
    if text in KNOWN:
        return text, KNOWN[text]
    if text in BACKBONES:
        return text, Architecture((Pretrained(text),))
    path = Path(text)
    if not path.is_file() and (found := network(text)):
        return found
    if not os.path.lexists(text):
        raise UsageError(f"{unknown('network', text, (*KNOWN, *BACKBONES))}, nor a search or a file of that name")
    return plain(path.stem), Architecture.read(path)


def network(text: str) -> tuple[str, Architecture] | None:
    """A network of a search, and its name.

    Args:
        text: the search, for its winner; or the id of a network of any search under runs/, or its first digits;
            or SEARCH/ID.

    Returns:
        None where the text is neither an id nor a search.

    Raises:
        UsageError: there is no such network, or more than one.
        JournalError: the journal cannot be read.
    """
    within, _, digits = text.rpartition("/")
    if re.fullmatch("[0-9a-f]{4,12}", digits) and not _is_search(text):
        folders = [named(within)] if within else every()
        every_id = {key: one for folder in folders for key, one in _networks(folder).items()}
        found = {key: one for key, one in every_id.items() if key.startswith(digits)}
        if len(found) == 1:
            return found.popitem()
        if found:
            some = ", ".join(sorted(found)[:5])
            raise UsageError(f"{len(found)} networks have an id that begins with {digits}: {some}; say more of it")
        where = within or f"the {len(folders)} searches of {RUNS.absolute()}"
        raise UsageError(f"there is no network with the id {digits} in {where}; `nas show` lists the best")
    if not _is_search(text):
        return None
    return Path(text).name, Architecture.read(named(text) / "best" / "architecture.json")


def _networks(folder: Path) -> dict[str, Architecture]:
    """The networks of a search by their ids, as far as its journal can be read."""
    record = State.of(folder).record
    candidates = [told.trial.job.candidate for told in record.told]
    candidates += [trial.job.candidate for trial in record.trials.values()]
    return {one.architecture.id: one.architecture for one in candidates}


def _is_search(text: str) -> bool:
    return any((folder / FILE).is_file() for folder in (RUNS / text, Path(text)))


def with_winner(search: str | None) -> Path:
    """The folder of a search that has handed its winner over: see `named`, or the latest one.

    Raises:
        UsageError: there is none.
        NasError: it has no winner.
    """
    if search is None:
        known = [folder for folder in every() if (folder / WINNER).exists()]
        if not known:
            raise UsageError(f"no search in {RUNS.absolute()} has a winner: run `nas search`, or name a folder")
        return max(known, key=lambda folder: (folder / WINNER).stat().st_mtime)
    folder = named(search)
    if not (folder / WINNER).exists():
        raise NasError(f"{folder.name} has no winner: `nas show {place(folder)}` says how far it is")
    return folder


def every() -> list[Path]:
    """The folders of all searches under runs/, by name."""
    return sorted(path.parent.absolute() for path in RUNS.glob(f"*/{FILE}"))


@dataclass(frozen=True)
class State:
    """A search as it stands."""

    folder: Path
    record: Record  # as far as it can be read
    word: str  # running, interrupted, finished, failed, damaged
    words: str = ""  # what else there is to say

    @classmethod
    def of(cls, folder: Path) -> State:
        """The state of one search; nothing is written."""
        running = is_running(folder)
        try:
            record = read(folder / FILE)[0]
        except JournalError as error:
            return cls(folder, Record(folder / FILE), "damaged", str(error))
        latest = record.sessions[-1] if record.sessions else None
        process = f"process {latest.process} on {latest.host}" if latest else ""
        if running:
            return cls(folder, record, "running", process)
        if record.outcome is not None:
            return cls(folder, record, "finished")
        if record.ended and record.ended["status"] == "failed":
            return cls(folder, record, "failed", record.ended["message"])
        return cls(folder, record, "interrupted", "" if record.ended else f"{process or 'its process'} was killed")


def resume_command(folder: Path, config: Mapping[str, Any]) -> str:
    """How to go on with a search: a command, or a line of Python where the search was given Python objects.

    Folders of plugins have to be named again, as their code will run.
    """
    objects = {kind: str(name).removeprefix(GIVEN) for kind, name in config.items() if str(name).startswith(GIVEN)}
    if objects:
        again = ", ".join(f"{kind}={name}" for kind, name in objects.items())
        return f"nas.resume({place(folder)!r}, {again}) in Python"
    options = [word for path in config.get("plugins", ()) for word in ("--plugins", str(path))]
    return shlex.join(["nas", "resume", place(folder), *options])


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What has changed of a search since it was begun, a line for each change that can change its result.

    Args:
        before: the header of its journal.
        now: what the header would be.
    """
    then, own = before.get("config", {}), now.get("config", {})
    found = [
        f"{name} was {then.get(name)!r:.60}, and is {own.get(name)!r:.60}"
        for name in sorted({*then, *own} - FREE)
        if then.get(name) not in (own.get(name), "auto")  # "auto" had decided nothing
    ]
    old = before.get("dataset", {}).get("fingerprint")
    if old and old != now["dataset"]["fingerprint"]:
        found.append(f"the images of {now['dataset']['name']} are others (their fingerprint was {old})")
    sources = before.get("plugins", {})
    changed = [kind for kind, source in now["plugins"].items() if sources.get(kind, source) != source]
    return found + [f"the source of the {kind} has changed" for kind in changed]
