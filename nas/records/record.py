"""The entries of a journal, line by line, and the record that they add up to: the state of a search.

A line is ``{"check": CRC-32 of the rest, "at": seconds since 1970, "seconds": of the search so far, KIND: …}``:

| kind | content |
|---|---|
| header | the version of the format and the id of the search; the first line |
| session | a process begins to work on the search: its number, and the sections of the header that changed |
| asked | the strategy proposed a batch: its number, the number of candidates wanted, the candidates |
| trial | a training has ended |
| told | a candidate is finished: the key of its training, or the whole trial where no training has it |
| retold | the trials told from this number on are void and are told again |
| searched | the search is over: the plan of the final selection |
| outcome | there is a winner |
| ended | the process stops without a winner: interrupted, or failed |

The decisions of a clock (asked, searched) are kept, so that a resumed search does not decide them again.
"""

from __future__ import annotations

import json
import re
import shlex
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from nas import checks
from nas.architecture.architecture import Limits
from nas.errors import JournalError, NasError, quoted
from nas.objectives import Objective, scored
from nas.records.cost import Cost, smaller
from nas.records.outcome import COMPARED_WITH, Comparison, Header, Importance, Outcome
from nas.spaces.space import Candidate
from nas.trial import Trial, trial_numbers

RUNS = Path("runs")
VERSION = 2
LONGEST = 1 << 24  # bytes of a line; a trial of a hundred layers has 10,000
SECTIONS = {"config", "dataset", "limits", "plan", "plugins", "versions"}
DECIDED = {"search_share": 1.0, "enough": 1e4, "alone": 1e3, "calibration": 1e9}  # of a plan, at most
LOST = 1_000  # batches that may be missing from a repaired journal
KINDS = ("header", "session", "asked", "trial", "told", "retold", "searched", "outcome", "ended")
SCORES = ("trials", "failed", "seconds", "test_accuracy", "test_loss", "test_images")  # of an outcome
LATER = ("test_balanced_accuracy", "test_macro_f1", "test_largest")  # scores that older journals lack
# Raised by an entry that is not as this module writes it; a `NasError` by a network in it that cannot exist.
WRONG = (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, NasError)


class Asked(NamedTuple):
    """A batch of candidates."""

    wanted: int  # the number of candidates that the strategy was asked for
    candidates: tuple[Candidate, ...]  # in the order of the strategy


class Told(NamedTuple):
    """A finished candidate."""

    trial: Trial  # without scores
    at: float  # seconds since 1970
    seconds: float  # since the start of the search, without the time between its processes


class Session(NamedTuple):
    """A process that worked on the search."""

    process: int
    host: str
    at: float  # seconds since 1970


@dataclass
class Record:
    """The content of a journal. Entries are only ever added, so that another thread may read it meanwhile."""

    path: Path
    id: str = ""  # of the search, on all machines: sixteen hexadecimal digits
    about: dict[str, Any] = field(default_factory=dict)  # the header with the changes of later sessions
    trials: dict[str, Trial] = field(default_factory=dict)  # every training by the key of its job, without scores
    finished: dict[str, float] = field(default_factory=dict)  # the second of the search when each training ended
    asked: dict[int, Asked] = field(default_factory=dict)  # by the number of the batch, from 0
    told: list[Told] = field(default_factory=list)
    retold: int = 0  # how often trials have become void
    plan: dict[str, Any] | None = None
    outcome: dict[str, Any] | None = None
    outcomes: int = 0  # how often the test images were opened for a winner
    ended: dict[str, Any] | None = None
    sessions: list[Session] = field(default_factory=list)
    before_more: float = 0.0  # the seconds of the search when it was last given more budget after its plan
    before_plan: dict[str, Any] | None = None  # the plan at that time
    forced: bool = False  # whether it was ever resumed although something had changed
    seconds: float = 0.0  # the time of the search over all sessions
    at: float = 0.0  # of the latest line

    @property
    def header(self) -> Header:
        """The configuration of the search.

        Raises:
            JournalError: the journal lacks it.
        """
        about = self.about
        try:
            config, limits = dict(about["config"]), dict(about["limits"])
            limits["input_shape"] = tuple(int(size) for size in limits["input_shape"])
            objectives = tuple(Objective.parse(text) for text in config["objectives"])
            note, data = str(about["note"]), dict(about["dataset"])
            for size in ("train", "validation"):
                checks.whole(data[size], size, 2**40)
            checks.whole(data.get("folds", 0), "folds", 2**20)
            for counts in checks.named(data.get("counts") or {}, "counts").values():
                for size, count in zip(("train", "validation"), counts, strict=True):
                    checks.whole(count, size, 2**40)
            checks.named(config.get("options") or {}, "options")
            plan = dict(about.get("plan", {}))
            text = str(plan.pop("text", ""))
            decided = {name: _within(value, name, DECIDED[name]) for name, value in plan.items()}
            return Header(self.path.parent, config, data, Limits(**limits), objectives, note, text, decided)
        except (KeyError, TypeError, ValueError, AttributeError, NasError) as error:
            raise JournalError(f"{self.path} does not say what was searched ({error!r:.100})") from None

    def result(self) -> Outcome | None:
        """The outcome of the search; None without a winner.

        Raises:
            JournalError: the outcome names trainings that the journal lacks.
        """
        if self.outcome is None:
            return None
        header, outcome = self.header, self.outcome
        told = {entry.trial.job.key: scored(entry.trial, header.objectives) for entry in self.told}
        later: dict[str, Any] = {name: outcome.get(name) for name in LATER}
        try:
            groups = [
                [scored(self.trials[key], header.objectives) for key in group] for group in outcome["finalists"]
            ]
            compared = tuple(map(self._comparison, outcome["compared"]))
            last = [*chain(*groups), *(other.trial for other in compared)]
            return Outcome(
                header=header,
                winner=told[outcome["winner"]],
                finalists=tuple(map(tuple, groups)),
                retrained=tuple(groups[0]),
                front=tuple(told[key] for key in outcome["front"]),
                failures=Counter(entry.trial.failure.kind for entry in self.told if entry.trial.failure),
                mattered=_importances(outcome.get("mattered")),
                opened=self.outcomes,
                compared=compared,
                cost=Cost.of(self.trials.values(), last, self.finished, header.device),
                smaller=smaller(
                    told[outcome["winner"]],
                    told.values(),
                    groups,
                    header.validated,
                    header.objectives[0].metric,
                ),
                numbers=trial_numbers(entry.trial for entry in self.told),
                weights=self.path.parent / "best" / "weights.safetensors",
                **{name: outcome[name] for name in SCORES},
                **later,
                sample=outcome.get("sample", ""),
            )
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise JournalError(f"{self.path}: its outcome names a missing training ({error!r:.100})") from None

    def _comparison(self, content: Mapping[str, Any]) -> Comparison:
        if content["what"] not in COMPARED_WITH:
            raise ValueError(f"unknown comparison {quoted(content['what'])}")
        trial = scored(self.trials[content["trial"]], self.header.objectives)
        counts = (checks.whole(content[name], name, 2**31) for name in ("only_winner", "only_other"))
        return Comparison(content["what"], trial, _within(content["accuracy"], "accuracy", 1.0), *counts)

    def take(self, entry: Mapping[str, Any], made: Any = None) -> None:
        """Add one entry, or raise one of `WRONG` if it is not valid.

        Args:
            entry: from the journal.
            made: the trial or the candidates of this entry, if it was just written: reading them takes 0.5 ms.
        """
        kind = next((kind for kind in KINDS if kind in entry), None)
        if kind is None:
            raise ValueError(f"an entry of no known kind: {', '.join(map(str, entry))[:80]}")
        content = entry[kind]
        self.at = _within(entry.get("at", self.at), "at", 1e11)
        self.seconds = max(self.seconds, _within(entry.get("seconds", 0.0), "seconds", 1e10))
        match kind:
            case "header":
                self.about = _header(content)
                self.id = content["id"]
            case "session":
                self.about = {**self.about, **_sections(content["changes"])}
                self.sessions.append(Session(int(content["process"]), str(content["host"]), self.at))
                self.ended = None
                self.forced |= bool(content["forced"])
                if content["more"]:  # the search goes on to another winner
                    self.before_more, self.before_plan = self.seconds, self.plan
                    self.plan = self.outcome = None
            case "trial":
                trial = made or Trial.from_dict(content)
                self.trials[trial.job.key] = trial
                self.finished[trial.job.key] = self.seconds
            case "asked":
                candidates = made or tuple(map(Candidate.from_dict, content["candidates"]))
                batch = checks.whole(content["batch"], "batch", len(self.asked) + LOST)
                self.asked[batch] = Asked(checks.whole(content["count"], "count", 10_001), candidates)
            case "told":
                trial = self.trials[content] if isinstance(content, str) else Trial.from_dict(content)
                self.told.append(Told(trial, self.at, self.seconds))
            case "retold":
                self.retold += 1  # first, so that a thread that reads the rest knows that it is stale
                self.told = self.told[: int(content)]
            case "searched":
                if "lecture" not in content:
                    raise JournalError("it was made by an unreleased version of nas: start the search again")
                self.plan = {name: checks.whole(content[name], name, 10_001) for name in ("finalists", "seeds")}
                self.plan["epochs"] = _within(content["epochs"], "epochs", 1e4)
                self.plan["lecture"] = bool(content["lecture"])
            case "outcome":
                checks.numbers({name: content[name] for name in SCORES}, "outcome")
                checks.numbers({name: content[name] for name in LATER if name in content}, "outcome")
                checks.text(content.get("sample", ""), "sample")
                _within(content["test_accuracy"], "test_accuracy", 1.0)
                checks.whole(content["test_images"] - 1, "test_images", 2**31)
                self.outcome = {**content, "at": self.at}
                self.outcomes += 1
            case "ended":
                self.ended = {"status": str(content["status"]), "message": str(content["message"])}


def _header(content: Any) -> dict[str, Any]:
    version = checks.whole(checks.named(content, "header")["version"], "version", 1_000_000)
    if version < VERSION:
        raise JournalError(
            f"this search was made by an unreleased version of nas (journal version {version}; this version reads "
            f"{VERSION}): start the search again"
        )
    if version > VERSION:
        raise JournalError(f"the journal has version {version}, and this nas reads {VERSION}: use a newer nas")
    if not re.fullmatch("[0-9a-f]{16}", str(content["id"])):
        raise ValueError(f"the id {quoted(content['id'])} should be 16 hexadecimal digits")
    return _sections(content)


def _within(value: Any, name: str, high: float) -> float:
    number = checks.number(value, name)
    if not 0 <= number <= high:
        raise ValueError(f"{name} is {number}, and should be from 0 to {high:g}")
    return number


def _importances(content: Any) -> tuple[Importance, ...]:
    """What the choices were worth; nothing if a journal lacks it or was changed: the winner does not need it."""
    with suppress(*WRONG):
        limits = (("share", 1e3), ("error", 1e3))
        return tuple(
            Importance(
                checks.text(name, "a choice"),
                *(_within(n, what, most) for n, (what, most) in zip(numbers, limits, strict=True)),
            )
            for name, *numbers in content
        )
    return ()


def _sections(content: Any) -> dict[str, Any]:
    sections = checks.named(content, "header")
    for name in SECTIONS & sections.keys():
        checks.named(sections[name], name)
    checks.whole(sections.get("config", {}).get("ahead", 1), "ahead", 1_024)
    return sections


def place(folder: Path) -> str:
    """The argument that names a search on the command line: its name under runs/, otherwise its path."""
    return folder.name if folder.parent == RUNS.absolute() else str(folder)


def told_entry(record: Record, trial: Trial) -> str | dict[str, Any]:
    """The content of a told entry: the key of a training with the same trial, otherwise the whole trial."""
    unscored = replace(trial, scores=())
    return trial.job.key if record.trials.get(trial.job.key) == unscored else unscored.to_dict()


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
    """The record in a journal, and how many bytes of the file are whole lines.

    A last line that was torn by a kill is left out: no observer has seen it.

    Raises:
        JournalError: it cannot be read, or is of another version; or a line, which is named, is damaged.
        NasError: a network in it cannot be made now, for example because the plugin of a layer is missing.
    """
    record, whole = Record(path), 0
    try:
        for number, line in enumerate(lines(path), 1):
            if not line.endswith(b"\n") and len(line) < LONGEST:
                break
            where, entry = f"{path}, line {number}", entry_of(line)
            if entry is None:
                advice = f"`nas repair {shlex.quote(place(path.parent))}` keeps all whole lines"
                raise JournalError(f"{where}: damaged (its checksum is wrong); {advice}")
            if (number == 1) != ("header" in entry):
                raise JournalError(f"{where}: {'the header is missing' if number == 1 else 'a second header'}")
            try:
                record.take(entry)
            except JournalError as error:
                raise JournalError(f"{path} cannot be read: {error}") from None
            except NasError as error:  # its checksum holds: it is the layer of a plugin that does not work now
                raise NasError(f"{path} cannot be read: {error}") from None
            except WRONG as error:
                raise JournalError(f"{where}: this is no entry of a journal ({error!r:.100})") from None
            whole += len(line)
    except OSError as error:
        raise JournalError(f"{path} cannot be read: {error.strerror}") from None
    return record, whole
