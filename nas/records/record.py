"""What a journal says, line by line: the entries, and the state that they add up to.

A line is ``{"check": CRC-32 of the rest, "at": seconds since 1970, "seconds": of the search so far, KIND: …}``:

| kind | says |
|---|---|
| header | the version, and an id that no other search has; the first line |
| session | a process begins to work on it: which one, and what the search is where that has changed |
| asked | the strategy proposed a batch: its number, how many were wanted, the candidates |
| trial | a training has ended |
| told | a candidate is through: the key of its training, or the whole trial where no training has it |
| retold | from this number on, what was told is void: it is told anew |
| searched | the search is over, and this is the plan of the final selection |
| outcome | there is a winner |
| ended | the process stops without one: interrupted, or failed |

What a clock decided (asked, searched) is written down, so that a search that goes on does not decide it again.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from nas import checks
from nas.architecture.architecture import Limits
from nas.errors import JournalError, NasError, quoted
from nas.objectives import Objective, scored
from nas.records.outcome import BESIDE, Comparison, Header, Outcome
from nas.spaces.space import Candidate
from nas.trial import Trial

RUNS = Path("runs")
VERSION = 2  # 1 had the header and the trials only
LONGEST = 1 << 24  # bytes of a line; a trial of a hundred layers has 10,000
SECTIONS = {"config", "dataset", "limits", "plugins", "versions"}
LOST = 1_000  # so many batches may be missing from a journal that was repaired
KINDS = ("header", "session", "asked", "trial", "told", "retold", "searched", "outcome", "ended")


class Asked(NamedTuple):
    """A batch."""

    wanted: int  # for how many the strategy was asked
    candidates: tuple[Candidate, ...]  # in its order


class Told(NamedTuple):
    """A candidate that is through."""

    trial: Trial  # without scores
    at: float  # seconds since 1970
    seconds: float  # of the search, without the time between its processes


class Session(NamedTuple):
    """A process that worked on the search."""

    process: int
    host: str
    at: float  # seconds since 1970


@dataclass
class Record:
    """What a journal says. It is only ever added to, so that another thread may read it meanwhile."""

    path: Path
    about: dict[str, Any] = field(default_factory=dict)  # the header, with what later sessions changed
    trials: dict[str, Trial] = field(default_factory=dict)  # every training by the key of its job, without scores
    asked: dict[int, Asked] = field(default_factory=dict)  # by the number of the batch, from 0
    told: list[Told] = field(default_factory=list)
    retold: int = 0  # how often what was told has become void
    plan: dict[str, Any] | None = None
    outcome: dict[str, Any] | None = None
    outcomes: int = 0  # how often the test images were opened
    ended: dict[str, Any] | None = None
    sessions: list[Session] = field(default_factory=list)
    before_more: float = 0.0  # its seconds when it was last given more budget than the one of its plan
    before_plan: dict[str, Any] | None = None  # the plan of then
    forced: bool = False  # whether it ever went on although something had changed
    seconds: float = 0.0  # that the search has taken, over all sessions
    at: float = 0.0  # of the latest line

    @property
    def name(self) -> str:
        """The search's name: that of its folder."""
        return self.path.parent.name

    @property
    def id(self) -> str:
        """What no other search is called, wherever it is: sixteen hexadecimal digits."""
        known = str(self.about.get("id", ""))  # version 1 had none
        digits = hashlib.sha256(os.fsencode(self.path.parent)).hexdigest()[:16]
        return known if re.fullmatch("[0-9a-f]{16}", known) else digits

    @property
    def header(self) -> Header:
        """What the search is.

        Raises:
            JournalError: the journal does not say it.
        """
        about = self.about
        try:
            config, limits = dict(about["config"]), dict(about.get("limits", {}))
            if shape := limits.get("input_shape"):
                limits["input_shape"] = tuple(int(size) for size in shape)
            objectives = tuple(Objective.parse(text) for text in config["objectives"])
            note, data = str(about.get("note", "")), dict(about["dataset"])
            for size in ("train", "validation"):
                checks.whole(data[size], size, 2**40)
            checks.named(config.get("options") or {}, "options")
            return Header(self.path.parent, config, data, Limits(**limits), objectives, note)
        except (KeyError, TypeError, ValueError, AttributeError, NasError) as error:
            raise JournalError(f"{self.path} does not say what was searched ({error!r:.100})") from None

    def result(self) -> Outcome | None:
        """How the search ended, if it has a winner.

        Raises:
            JournalError: it names trainings that are not there.
        """
        if self.outcome is None:
            return None
        header, said = self.header, self.outcome
        told = {one.trial.job.key: scored(one.trial, header.objectives) for one in self.told}
        try:
            return Outcome(
                header=header,
                trials=int(said["trials"]),
                failed=int(said["failed"]),
                seconds=float(said["seconds"]),
                winner=told[said["winner"]],
                finalists=(
                    groups := tuple(
                        tuple(scored(self.trials[key], header.objectives) for key in keys)
                        for keys in said["finalists"]
                    )
                ),
                retrained=groups[0],
                front=tuple(told[key] for key in said["front"]),
                test_accuracy=float(said["test_accuracy"]),
                test_loss=float(said["test_loss"]),
                test_images=int(said["test_images"]),
                opened=self.outcomes,
                compared=tuple(self._comparison(one) for one in said.get("compared", ())),
                weights=self.path.parent / "best" / "weights.safetensors",
            )
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise JournalError(f"{self.path}: its outcome names what is not there ({error!r:.100})") from None

    def _comparison(self, said: Mapping[str, Any]) -> Comparison:
        if said["what"] not in BESIDE:
            raise ValueError(f"it is compared with {quoted(said['what'])}")
        trial = scored(self.trials[said["trial"]], self.header.objectives)
        counts = (checks.whole(said[name], name, 2**31) for name in ("only_winner", "only_other"))
        return Comparison(said["what"], trial, _within(said["accuracy"], "accuracy", 1.0), *counts)

    def take(self, entry: Mapping[str, Any]) -> None:
        """Add one entry.

        Raises:
            ValueError: it is none.
        """
        kind = next((kind for kind in KINDS if kind in entry), None)
        if kind is None:
            raise ValueError(f"an entry of no known kind: {', '.join(map(str, entry))[:80]}")
        said = entry[kind]
        self.at = _within(entry.get("at", self.at), "at", 1e11)
        self.seconds = max(self.seconds, _within(entry.get("seconds", 0.0), "seconds", 1e10))
        match kind:
            case "header":
                self.about = _header(said)
            case "session":
                self.about = {**self.about, **_sections(said["changes"])}
                self.sessions.append(Session(int(said["process"]), str(said["host"]), self.at))
                self.ended = None
                self.forced |= bool(said["forced"])
                if said["more"]:  # the search goes on, and there will be another winner
                    self.before_more, self.before_plan = self.seconds, self.plan
                    self.plan = self.outcome = None
            case "trial":
                trial = Trial.from_dict(said)
                self.trials[trial.job.key] = trial
            case "asked":
                candidates = tuple(Candidate.from_dict(one) for one in said["candidates"])
                batch = checks.whole(said["batch"], "batch", len(self.asked) + LOST)
                self.asked[batch] = Asked(checks.whole(said["count"], "count", 10_001), candidates)
            case "told":
                trial = self.trials[said] if isinstance(said, str) else Trial.from_dict(said)
                self.told.append(Told(trial, self.at, self.seconds))
            case "retold":
                self.retold += 1  # first, so that a thread that reads the rest knows that it is no good
                self.told = self.told[: int(said)]
            case "searched":
                self.plan = {name: _within(said[name], name, 1e4) for name in ("finalists", "seeds", "epochs")}
                if "lecture" not in said:
                    raise JournalError("it was made by an unreleased version of nas: start the search again")
                self.plan["lecture"] = bool(said["lecture"])
            case "outcome":
                scores = ("test_accuracy", "test_loss", "seconds", "trials", "failed", "test_images")
                checks.numbers({name: said[name] for name in scores}, "outcome")
                _within(said["test_accuracy"], "test_accuracy", 1.0)
                checks.whole(said["test_images"] - 1, "test_images", 2**31)
                self.outcome = {**said, "at": self.at}
                self.outcomes += 1
            case "ended":
                self.ended = {"status": str(said["status"]), "message": str(said["message"])}


def _header(said: Any) -> dict[str, Any]:
    version = said.get("version")
    if version not in (1, VERSION):
        raise JournalError(f"it is of version {version}, and this nas reads 1 to {VERSION}: use a newer nas")
    return _sections(said)


def _within(value: Any, what: str, most: float) -> float:
    number = checks.number(value, what)
    if not 0 <= number <= most:
        raise ValueError(f"{what} is {number}, and should be from 0 to {most:g}")
    return number


def _sections(said: Any) -> dict[str, Any]:
    """The sections of a header, each of which is an object."""
    sections = checks.named(said, "header")
    for name in SECTIONS & sections.keys():
        checks.named(sections[name], name)
    return sections


def place(folder: Path) -> str:
    """What a command takes for a search: its name where it lies under runs/, else its path."""
    try:
        return folder.name if folder.parent == RUNS.absolute() else str(folder)
    except OSError:  # the current folder has gone
        return str(folder)


def told_entry(record: Record, trial: Trial) -> str | dict[str, Any]:
    """How a told trial is written: by its key where its training is known and is the very same."""
    plain = replace(trial, scores=())
    return trial.job.key if record.trials.get(trial.job.key) == plain else plain.to_dict()


def line_of(entry: Mapping[str, Any]) -> bytes:
    """An entry as a line, with its checksum."""
    return json.dumps({"check": _check(entry), **entry}, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def entry_of(line: bytes) -> dict[str, Any] | None:
    """The entry in a line; None if it is damaged."""
    try:
        entry: dict[str, Any] = checks.parse(line)
        return entry if entry.pop("check") == _check(entry) else None
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return None


def _check(entry: Mapping[str, Any]) -> str:
    text = json.dumps(entry, sort_keys=True, separators=(",", ":"))
    return f"{zlib.crc32(text.encode()):08x}"


def lines(path: Path) -> Iterator[bytes]:
    """The lines of a journal; the last one may be torn."""
    with path.open("rb") as file:
        while line := file.readline(LONGEST):
            yield line


def read(path: Path) -> tuple[Record, int]:
    """What a journal says, and how many bytes of it are whole lines.

    A last line that was torn by a kill is left out: nobody was told of it.

    Raises:
        JournalError: it cannot be read, or is of a newer version; or a line is damaged: says which.
    """
    record, whole = Record(path), 0
    try:
        for number, line in enumerate(lines(path), 1):
            if not line.endswith(b"\n") and len(line) < LONGEST:
                break
            _take(record, line, number)
            whole += len(line)
    except OSError as error:
        raise JournalError(f"{path} cannot be read: {error.strerror}") from None
    return record, whole


def _take(record: Record, line: bytes, number: int) -> None:
    where = f"{record.path}, line {number}"
    entry = entry_of(line)
    if entry is None:
        raise JournalError(
            f"{where}: damaged (its checksum is wrong); "
            f"`nas repair {shlex.quote(place(record.path.parent))}` keeps all that is whole"
        )
    if (number == 1) != ("header" in entry):
        raise JournalError(f"{where}: {'there is no header' if number == 1 else 'a second header'}")
    try:
        record.take(entry)
    except JournalError as error:
        raise JournalError(f"{record.path} cannot be read: {error}") from None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, NasError) as error:
        raise JournalError(f"{where}: this is nothing that a journal says ({error!r:.100})") from None
