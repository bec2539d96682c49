"""The folders of searches: making and finding them, the networks in them, their state and their changes."""

from __future__ import annotations

import os
import platform
import re
import secrets
import shlex
import shutil
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock

from nas.architecture.architecture import Architecture
from nas.architecture.backbones import BACKBONES
from nas.architecture.known import NETWORKS
from nas.architecture.layers import Pretrained
from nas.data.kinds import noun_of
from nas.errors import JournalError, NasError, UsageError, plain, quoted, unknown
from nas.records.journal import FILE, LOCK, is_running, locked
from nas.records.outcome import GIVEN
from nas.records.record import RUNS, Record, entry_of, place, read
from nas.spaces.space import RECIPE, Candidate

TOML = "search.toml"
COMPARISON = "comparison.json"  # in the folder of a comparison, which holds the folders of its searches
LEFT_OUT = "left-out.csv"  # the files of the data set that are no part of it, and why
WINNER = Path("best/architecture.json")
HEADER = 1_000  # bytes of the first line of a journal, at most
# What is in the folder of a search: its files, their drafts, and the journals that `nas repair` has kept.
OURS = re.compile(
    r"best|front|retrained|search\.toml|left-out\.csv|predictions\.safetensors"
    r"|journal\.jsonl(\.damaged-\d+)?|\.lock|\..*\.part"
)
# What may change between two sessions of a search without changing what it finds.
FREE = frozenset(
    {"trials", "time_limit", "target", "patience", "workers", "data_dir", "plugins"}
    | {"mlflow", "mlflow_experiment", "mlflow_parent"}
)

ABSENT = {"ahead": 1}  # settings that older journals lack, and what they were


def new_folder(out: Path | None, kind: str) -> Path:
    """Make a new folder for a run, or take an empty one; None: a new one in runs/."""
    stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    folder = (out or RUNS / f"{stamp}-{kind}-{secrets.token_hex(2)}").absolute()
    refuse_used(folder)
    try:
        (folder / "retrained").mkdir(parents=True, exist_ok=True)
        (folder / FILE).touch()
    except OSError as error:
        raise NasError(f"{folder} cannot be written: {error.strerror}; choose another folder with --out") from None
    return folder


def refuse_used(folder: Path) -> None:
    """Raise a `UsageError` if a folder has anything in it that a new run would replace."""
    with suppress(OSError):  # it is not there, or no folder: `new_folder` says so
        if any(map(_is_work, folder.iterdir())):
            raise UsageError(f"{folder} is not empty; choose another folder with --out, or `nas resume` it")


def _is_work(path: Path) -> bool:
    """Whether deleting the path would lose work; a run that was killed before it began leaves none."""
    if path.name == FILE:
        return path.stat().st_size > 0
    return path.name != LOCK and not (path.name == "retrained" and not any(path.iterdir()))


def named(search: str | None, *, needs: str | Path = FILE) -> Path:
    """The folder of a search.

    Args:
        search: its path, or its name under runs/; None for the latest one.
        needs: a file that the latest one must have; a training has no `TOML`.

    Raises:
        UsageError: there is no such search.
    """
    if search is None:
        known = every(with_=needs)
        if not known:
            kind = "search with a winner" if needs == WINNER else "search"
            raise UsageError(f"there is no {kind} in {RUNS.absolute()}: run `nas search`, or name a folder")
        return max(known, key=lambda folder: (folder / needs).stat().st_mtime)
    path = Path(search)
    for folder in (RUNS / path if path.name == search else path, path):
        if (folder / FILE).is_file():
            return folder.absolute()
    if path.is_dir():
        raise UsageError(f"{path} is not the folder of a search: there is no {FILE} in it")
    raise UsageError(unknown("search", search, [folder.name for folder in every()]))


def any_network(text: str) -> Candidate:
    """A network that ``nas train`` takes: its origin is its name, its choices are the recipe of a search, if any.

    Args:
        text: the name of a known network or of a torchvision model; a search, for its winner; the id of a network
            of any search under runs/, its first four digits or more, or SEARCH/ID; or the path of an
            architecture.json.
    """
    if text in NETWORKS:
        return Candidate(NETWORKS[text], origin=text)
    if text in BACKBONES:
        return Candidate(Architecture((Pretrained(text),)), origin=text)
    path = Path(text)
    if path.is_file():
        return Candidate(Architecture.read(path), origin=plain(path.stem))
    if (RUNS / path / FILE).is_file() or (path / FILE).is_file():
        folder = named(text)
        architecture, outcome = Architecture.read(folder / WINNER), State.of(folder).record.result()
        return _named(outcome.winner.job.candidate if outcome else Candidate(architecture), path.name)
    within, _, digits = text.rpartition("/")
    if re.fullmatch("[0-9a-f]{4,12}(-[0-9a-f]{0,8})?", digits):
        return _network(within, digits)
    if not os.path.lexists(text):
        raise UsageError(
            f"{unknown('network', text, (*NETWORKS, *BACKBONES))}, nor a search or a file of that name"
        )
    return Candidate(Architecture.read(path), origin=plain(path.stem))


def _named(candidate: Candidate, name: str) -> Candidate:
    """The network and the recipe of a candidate under another name."""
    return Candidate(candidate.architecture, {f"{RECIPE}{k}": v for k, v in candidate.recipe.items()}, origin=name)


def _network(search: str, digits: str) -> Candidate:
    """The candidate whose id begins with some digits, of one search or, with an empty name, of any search."""
    folders = [named(search)] if search else every()
    records = [State.of(folder).record for folder in folders]
    trials = [trial for record in records for trial in (*(t.trial for t in record.told), *record.trials.values())]
    matches = {trial.id: trial.job.candidate for trial in trials if trial.id.startswith(digits)}
    if digits in matches:  # the other ids are those of the same network with another recipe
        return _named(matches[digits], digits)
    if not matches:
        place = search or f"the searches in {RUNS.absolute()}"
        raise UsageError(f"there is no network with the id {digits} in {place}; `nas show` lists the best")
    if len(matches) > 1:
        some = ", ".join(sorted(matches)[:5])
        raise UsageError(f"{len(matches)} networks have an id that begins with {digits}: {some}; add more digits")
    name, candidate = matches.popitem()
    return _named(candidate, name)


def latest() -> Path:
    """The folder of the latest search, or, if there is none, of the latest training of one network.

    Raises:
        UsageError: there is neither.
    """
    known = every(with_=TOML)
    return named(None, needs=TOML if known else FILE)


def with_winner(search: str | None) -> Path:
    """The folder of a search that has a winner, found as `named` finds it; None for the latest one."""
    folder = named(search, needs=WINNER)
    if not (folder / WINNER).exists():
        raise NasError(f"{folder.name} has no winner: `nas show {place(folder)}` says how far it is")
    return folder


def every(*, with_: str | Path = FILE) -> list[Path]:
    """The folders of all runs under runs/ that have a file, by name; of trainings, too, unless it is `TOML`."""
    folders = sorted(path.parent.absolute() for path in RUNS.glob(f"*/{FILE}"))
    return [folder for folder in folders if (folder / with_).exists()]


def size(folder: Path) -> int:
    """The bytes of all files of a search, without those in MLflow."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):  # a draft of a running search
                total += Path(parent, name).lstat().st_size
    return total


def copy_of(folder: Path) -> Path | None:
    """Another folder under runs/ that holds the same search, because somebody has copied it."""
    begin = _begin(folder)  # which has the id of the search and the time when it began
    return next((other for other in every() if _begin(other) == begin and not other.samefile(folder)), None)


def _begin(folder: Path) -> bytes:
    """The first line of a journal."""
    try:
        with (folder / FILE).open("rb") as file:
            return file.readline(HEADER)
    except OSError as error:
        raise JournalError(f"{folder / FILE} cannot be read: {error.strerror}") from None


def removable(folder: Path) -> FileLock:
    """The lock of a search that may be removed, held.

    Raises:
        NasError: it is running, or its folder holds other files than those of a search.
    """
    if folder.is_symlink():
        raise UsageError(f"{folder} is a link: remove it yourself, or name {folder.resolve()}")
    begin = _begin(folder)
    if begin and "header" not in (entry_of(begin) or {}):
        raise UsageError(f"{folder} is not the folder of a search: its {FILE} was not written by nas")
    others = sorted(path.name for path in folder.iterdir() if not OURS.fullmatch(path.name))
    if others:
        some = ", ".join(map(quoted, others[:3]))
        raise UsageError(f"{folder} has files that no search writes: {some}; move them elsewhere first")
    return locked(folder / FILE)


def remove(folder: Path, lock: FileLock) -> None:
    """Remove the folder of a search whose lock is held; the journal last, so that a kill leaves a search.

    Raises:
        NasError: something cannot be removed.
    """
    try:
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name not in (FILE, LOCK):
                path.unlink()
        lock.release()  # Windows and NFS remove no open file
        (folder / LOCK).unlink(missing_ok=True)
        (folder / FILE).unlink()
        folder.rmdir()
    except OSError as error:
        raise NasError(f"{error.filename or folder} cannot be removed: {error.strerror}") from None


@dataclass(frozen=True)
class State:
    """A search as it stands."""

    folder: Path
    record: Record  # as far as it can be read
    status: str  # running, interrupted, finished, failed, damaged, unreadable (a plugin's layer does not work)
    detail: str = ""  # the process, the error message, or the reason

    @classmethod
    def of(cls, folder: Path) -> State:
        """The state of one search; nothing is written."""
        running = is_running(folder)
        try:
            record = read(folder / FILE)[0]
        except NasError as error:
            status = "damaged" if isinstance(error, JournalError) else "unreadable"
            return cls(folder, Record(folder / FILE), "running" if running else status, str(error))
        latest = record.sessions[-1] if record.sessions else None
        process = f"process {latest.process} on {latest.host}" if latest else ""
        if running:
            return cls(folder, record, "running", process)
        if record.outcome is not None:
            return cls(folder, record, "finished")
        if record.ended and record.ended["status"] == "failed":
            return cls(folder, record, "failed", record.ended["message"])
        detail = record.ended["message"] if record.ended else f"{process or 'its process'} was killed"
        return cls(folder, record, "interrupted", detail)

    @property
    def is_killed(self) -> bool:
        """Whether its process, of this machine, ended without a word, and nobody has written that down yet.

        A lock alone does not tell: on a network drive, another machine may not see it.
        """
        if self.status != "interrupted" or self.record.ended or not self.record.sessions:
            return False
        latest = self.record.sessions[-1]
        ours = latest.host == platform.node() and os.access(self.folder, os.W_OK)
        try:  # the number may be that of a later process
            return ours and psutil.Process(latest.process).create_time() > latest.at
        except psutil.NoSuchProcess:
            return ours
        except psutil.Error:
            return False


def comparison_of(folder: Path) -> Path | None:
    """The folder of the comparison that a search belongs to; None if it is one of its own."""
    return folder.parent if (folder.parent / COMPARISON).is_file() else None


def resume_command(folder: Path, config: Mapping[str, Any]) -> str:
    """The command that resumes a search, or a line of Python if the search was given Python objects.

    It names the folders of plugins again, because their code will run.
    """
    folders = [str(path) for path in config.get("plugins", ())]
    folder = comparison_of(folder) or folder
    objects = {kind: str(name).removeprefix(GIVEN) for kind, name in config.items() if str(name).startswith(GIVEN)}
    if objects:
        objects |= {"plugins": str(folders)} if folders else {}
        again = ", ".join(f"{kind}={name}" for kind, name in objects.items())
        return f"nas.resume({place(folder)!r}, {again})"
    options = [part for path in folders for part in ("--plugins", path)]
    return shlex.join(["nas", "resume", place(folder), *options])


def go_on(folder: Path, config: Mapping[str, Any]) -> str:
    """The advice to resume a search: see `resume_command`."""
    command = resume_command(folder, config)
    return f"go on in Python with: {command}" if command.startswith("nas.") else f"go on with: {command}"


def differences(
    before: Mapping[str, Any], now: Mapping[str, Any], unused: AbstractSet[str] = frozenset()
) -> list[str]:
    """The changes of a search since it began that can change its result, a line for each.

    Args:
        before: the header in its journal.
        now: the header that this process would write.
        unused: parts that have changed no result: the layers that none of its networks has.
    """
    own = now.get("config", {})
    then = {name: value for name, value in ABSENT.items() if name in own} | before.get("config", {})
    changes = [
        f"{name} was {then.get(name)!r:.60}, and is {own.get(name)!r:.60}"
        for name in sorted({*then, *own} - FREE)
        if then.get(name) not in (own.get(name), "auto")  # "auto" had decided nothing
    ]
    old = before.get("dataset", {}).get("fingerprint")
    if old and old != now["dataset"]["fingerprint"]:
        noun = noun_of(now["limits"]["input_shape"]).many
        changes.append(f"the {noun} of {now['dataset']['name']} have changed (their fingerprint was {old})")
    sources = before.get("plugins", {})
    changed = sorted({kind for kind, _ in now["plugins"].items() - sources.items()} & sources.keys() - unused)
    return changes + [f"the source of the {kind} has changed" for kind in changed]
