"""What a comparison has found so far, as plain data on the disk: comparison.json in its folder."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nas import checks
from nas.baselines.baseline import Baseline
from nas.comparison.settings import Comparison
from nas.comparison.verdicts import Verdict
from nas.data.kinds import NOUNS, Kind
from nas.errors import JournalError, quoted
from nas.files import write_whole
from nas.records.comparisons import FILE

VERSION = 1
WRONG = (ValueError, KeyError, TypeError, AttributeError)  # raised by content that this module has not written


@dataclass(frozen=True)
class Searched:
    """A search of the comparison, after the test."""

    strategy: str  # its label
    seed: int
    folder: str  # its name in the folder of the comparison
    winner: str  # the id of the network
    parameters: int
    validation_accuracy: float  # of the winner, trained again: the mean over its seeds
    test_accuracy: float
    trials: int
    seconds: float  # of computing: the sum over all trainings, as if none had been lent by another search
    reached: int | None = None  # the trials until the target of the comparison; None: never
    reached_seconds: float | None = None  # of computing, until then


@dataclass(frozen=True)
class Tested:
    """A baseline, after the test."""

    baseline: Baseline
    accuracy: float  # on the test inputs
    bits: float | None = None  # per character of the test texts


@dataclass(frozen=True)
class Result:
    """The end of a comparison."""

    searched: tuple[Searched, ...]
    tested: tuple[Tested, ...]
    verdicts: tuple[Verdict, ...]  # of each pair of strategies
    beside: tuple[Verdict, ...]  # of each strategy and the baselines that matter
    sentences: tuple[str, ...]
    test_images: int  # or series, or texts
    target: float  # a score of the first objective, larger is better: see `nas.comparison.progress`
    target_text: str
    opened: int = 1  # how often the test images were opened
    experiments: tuple[dict[str, Any], ...] = ()  # that explain: see `nas.comparison.explain`


@dataclass
class State:
    """What is known so far."""

    id: str  # of the comparison: sixteen hexadecimal digits
    dataset: str
    fingerprint: str  # of its training and validation inputs
    baselines: dict[str, Baseline] = field(default_factory=dict)  # by their names
    kind: Kind = "images"  # of its inputs
    left_out: dict[str, str] = field(default_factory=dict)  # a baseline that cannot be fitted here → the reason
    failed: dict[str, str] = field(default_factory=dict)  # folder of a search without a winner → the reason
    opened: int = 0
    run: str = ""  # the id of its run in MLflow
    written: bool = False  # whether that has the result
    result: Result | None = None

    def write(self, folder: Path) -> None:
        """Write the file, completely or not at all."""
        content = {
            "version": VERSION, "id": self.id, "dataset": self.dataset, "fingerprint": self.fingerprint,
            "kind": self.kind, "failed": self.failed, "left_out": self.left_out, "opened": self.opened,
            "run": self.run, "written": self.written,
            "baselines": [baseline.to_dict() for baseline in self.baselines.values()],
            "result": self.result and asdict(self.result),
        }  # fmt: skip
        write_whole(folder / FILE, json.dumps(content, indent=1) + "\n")

    @classmethod
    def read(cls, folder: Path) -> State:
        """The state in the folder of a comparison.

        Raises:
            JournalError: the file is missing, damaged, or of another version.
        """
        path = folder / FILE
        try:
            content = checks.parse(path.read_bytes())
            version, name, dataset, fingerprint, failed, opened, baselines, result = checks.record(
                content, "comparison",
                "version", "id", "dataset", "fingerprint", "failed", "opened", "baselines", "result",
            )  # fmt: skip
            if version != VERSION:
                raise ValueError(f"it is of version {quoted(version)}, and this nas reads {VERSION}")
            known = [Baseline.from_dict(each) for each in checks.several(baselines, "baselines")]
            reasons = {k: checks.text(v, k) for k, v in checks.named(failed, "failed").items()}
            kind = content.get("kind", "images")
            if kind not in NOUNS:
                raise ValueError(f"kind is {quoted(kind)}, and should be one of {', '.join(NOUNS)}")
            left_out = checks.named(content.get("left_out", {}), "left_out")
            return cls(
                checks.text(name, "id"), checks.text(dataset, "dataset"), checks.text(fingerprint, "fingerprint"),
                {one.name: one for one in known}, kind,
                {k: checks.text(v, k) for k, v in left_out.items()}, reasons,
                checks.whole(opened, "opened", 10**6), checks.text(content.get("run", ""), "run"),
                content.get("written") is True,
                _result(result) if result else None,
            )  # fmt: skip
        except OSError as error:
            raise JournalError(f"{path} cannot be read: {error.strerror}") from None
        except WRONG as error:
            raise JournalError(f"{path} is damaged ({error!s:.100}): start the comparison again") from None


def _result(content: dict[str, Any]) -> Result:
    return Result(
        tuple(Searched(**each) for each in content["searched"]),
        tuple(_tested(each) for each in content["tested"]),
        tuple(Verdict(**each) for each in content["verdicts"]),
        tuple(Verdict(**each) for each in content["beside"]),
        tuple(checks.text(sentence, "a sentence") for sentence in content["sentences"]),
        checks.whole(content["test_images"], "test_images", 2**40),
        checks.number(content["target"], "target"), checks.text(content["target_text"], "target_text"),
        checks.whole(content["opened"], "opened", 10**6),
        tuple(checks.named(each, "an experiment") for each in content["experiments"]),
    )  # fmt: skip


def _tested(content: dict[str, Any]) -> Tested:
    bits = content.get("bits")
    return Tested(
        Baseline.from_dict(content["baseline"]), checks.number(content["accuracy"], "accuracy"),
        None if bits is None else checks.number(bits, "bits"),
    )  # fmt: skip


@dataclass(frozen=True)
class Compared:
    """A finished comparison."""

    folder: Path
    comparison: Comparison
    state: State
    result: Result

    @property
    def conclusions(self) -> list[str]:
        """What may be concluded, what the experiments have shown, and what has no winner, in sentences."""
        shown = [sentence for one in self.result.experiments for sentence in one["sentences"]]
        failed = [f"{name} has no winner: {message}" for name, message in self.state.failed.items()]
        return [*self.result.sentences, *shown, *failed]
