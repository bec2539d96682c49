"""What crosses processes and machines, and what is remembered: a job, and the trial that came of it.

Plain data. A trial is a function of its job: (architecture, recipe, data set, epochs, seed) → metrics.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from nas import checks
from nas.errors import NasError, UsageError, plain, quoted, unknown
from nas.spaces.space import Candidate

# What is measured of every trial. Less is better of all but the accuracy and the images per second. Objectives of
# seconds and milliseconds depend on the machine and its load: such a search cannot be repeated exactly.
METRICS = {
    "validation_accuracy": "fraction of the validation images that are classified right",
    "validation_loss": "mean cross-entropy on the validation images, in nats",
    "parameters": "numbers that the network learns",
    "flops": "floating-point operations of one forward pass over one image",
    "train_seconds": "seconds of training, validation included",
    "images_per_second": "training images per second, validation left out",
    "latency_ms": "milliseconds for one image in one thread, median",
}
MORE_IS_BETTER = frozenset({"validation_accuracy", "images_per_second"})
SHOWN = ("validation_accuracy", "validation_loss", "parameters")  # of every trial, whatever is searched for

REDUCTION = 4  # of successive halving: one in so many goes on to the next rung, which trains so many times as long

OUT_OF_MEMORY = ("DefaultCPUAllocator", "out of memory", "Cannot allocate memory", "ALLOC_FAILED")

MAX_EPOCHS = 1e6
MAX_POINTS = 100_000  # of a curve


@dataclass(frozen=True)
class Job:
    """One network to train: ``epochs`` times the training images, or a fraction of them once."""

    candidate: Candidate
    epochs: float
    seed: int

    @property
    def key(self) -> str:
        """Names this job among those of a search, and its files: equal jobs have equal keys, others do not."""
        epochs = repr(float(self.epochs)).removesuffix(".0")  # every digit, and 1 as 1.0
        return f"{self.candidate.architecture.id}-{epochs}-{self.seed}"

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {"candidate": self.candidate.to_dict(), "epochs": self.epochs, "seed": self.seed}

    @classmethod
    def from_dict(cls, data: object) -> Job:
        """The job that `to_dict` wrote down.

        Raises:
            ValueError: something is missing, or of a wrong kind, or out of range.
            ArchitectureError: its network cannot be.
        """
        candidate, epochs, seed = checks.record(data, "job", "candidate", "epochs", "seed")
        if not 0 < checks.number(epochs, "epochs") <= MAX_EPOCHS:
            raise ValueError(f"epochs is {quoted(epochs)}, and should be above 0 and at most {MAX_EPOCHS:,.0f}")
        return cls(Candidate.from_dict(candidate), epochs, checks.whole(seed, "seed", 2**64))


def job_seed(search_seed: int, architecture_id: str, repeat: int = 0) -> int:
    """The seed of a job: from what it is, never from a position, a clock or a worker."""
    digest = hashlib.sha256(f"{search_seed}/{architecture_id}/{repeat}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


Kind = Literal["crash", "oom", "timeout", "not_finite", "invalid"]


@dataclass(frozen=True)
class Failure:
    """Why a trial has no metrics: a value, not an exception."""

    kind: Kind
    message: str

    @classmethod
    def from_dict(cls, data: object) -> Failure:
        """The failure that `Trial.to_dict` wrote down.

        Raises:
            ValueError: something is missing, or of a wrong kind.
        """
        kind, message = checks.record(data, "failure", "kind", "message")
        if kind not in get_args(Kind):
            raise ValueError(f"there is no failure of the kind {quoted(kind)}")
        return cls(kind, checks.text(message, "the message of a failure"))


@dataclass(frozen=True)
class Trial:
    """What came of a job."""

    job: Job
    metrics: Mapping[str, float] = field(default_factory=dict)  # see METRICS
    curve: tuple[Mapping[str, float], ...] = ()  # one entry per epoch
    scores: tuple[float, ...] = ()  # one per objective, HIGHER IS ALWAYS BETTER; empty when it failed
    failure: Failure | None = None

    @property
    def id(self) -> str:
        """The id of its architecture."""
        return self.job.candidate.architecture.id

    @property
    def epochs(self) -> float:
        """For how many it was trained: those of its job, unless it was stopped because it only guesses."""
        last = self.curve[-1].get("epoch", 0.0) if self.curve else 0.0
        return last if 0 < last < self.job.epochs else self.job.epochs

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON. Scores follow from the metrics and the objectives; they are not written.

        JSON has no NaN, so a trial that holds one is written as the failure that it is (see `scored`).
        """
        kept = scored(self, ())
        failure = {"kind": kept.failure.kind, "message": kept.failure.message} if kept.failure else None
        return {
            "job": self.job.to_dict(),
            "metrics": dict(kept.metrics),
            "curve": [dict(point) for point in kept.curve],
            "failure": failure,
        }

    @classmethod
    def from_dict(cls, data: object) -> Trial:
        """The trial that `to_dict` wrote down, without scores. Nothing in it is taken on trust.

        Raises:
            ValueError: something is missing, or of a wrong kind, or out of range.
            ArchitectureError: its network cannot be.
        """
        job, metrics, curve, failure = checks.record(data, "trial", "job", "metrics", "curve", "failure")
        return cls(
            Job.from_dict(job),
            checks.numbers(metrics, "metrics"),
            tuple(_points(curve)),
            failure=None if failure is None else Failure.from_dict(failure),
        )

    @classmethod
    def failed(cls, job: Job, kind: Kind, message: str) -> Trial:
        """A trial that came to nothing."""
        return cls(job, failure=Failure(kind, plain(" ".join(message.split()))[:500]))

    @classmethod
    def from_error(cls, job: Job, error: Exception) -> Trial:
        """The trial of a job whose training has raised."""
        if isinstance(error, NasError):  # its message is written for people
            return cls.failed(job, "invalid", str(error))
        kind: Kind = "oom" if is_out_of_memory(error) else "crash"
        return cls.failed(job, kind, f"{type(error).__name__}: {error}")


def is_out_of_memory(error: Exception) -> bool:
    """Whether a training has found no memory. PyTorch says so in a RuntimeError; another may have followed it."""
    first = error.__context__
    return (
        isinstance(error, MemoryError)
        or any(words in str(error) for words in OUT_OF_MEMORY)
        or (isinstance(first, Exception) and is_out_of_memory(first))
    )


def _points(curve: object) -> Iterator[dict[str, float]]:
    for point in checks.several(curve, "the curve", MAX_POINTS):
        yield checks.numbers(point, "a point of the curve")


@dataclass(frozen=True)
class Objective:
    """A metric and the direction in which it is better."""

    metric: str
    sign: int = 1  # -1: lower is better

    @classmethod
    def parse(cls, text: str) -> Objective:
        """``validation_accuracy`` (higher is better) or ``-parameters`` (lower is better).

        Raises:
            UsageError: there is no such metric, or it would be driven the wrong way.
        """
        metric = text.removeprefix("-").replace("-", "_")
        if metric not in METRICS:
            raise UsageError(unknown("metric", metric, METRICS))
        sign = 1 if metric in MORE_IS_BETTER else -1
        if text.startswith("-") != (sign < 0):
            right = f"{'-' if sign < 0 else ''}{metric}"
            raise UsageError(f"objective {text} would search for the worst; write {right}")
        return cls(metric, sign)

    def score(self, trial: Trial) -> float:
        """The trial's score: higher is better. Seconds of training count by the epoch, or the shortest wins."""
        value = trial.metrics[self.metric]
        return self.sign * (value / trial.epochs if self.metric == "train_seconds" else value)

    def __str__(self) -> str:
        """As `parse` reads it."""
        return ("-" if self.sign < 0 else "") + self.metric


def rank(trial: Trial) -> tuple[float, tuple[float, ...], str]:
    """What to sort good trials by, the best being the largest: the longest training, then the scores.

    The id decides between equals, so that nothing follows from who was finished first.
    """
    return trial.job.epochs, trial.scores, trial.id


def scored(trial: Trial, objectives: Sequence[Objective]) -> Trial:
    """The trial with its scores; one that claims success without finite numbers, in its curve too, has failed.

    Not a number here never reaches a strategy: NaN compares with nothing and would win any tournament. Whatever an
    evaluator measured, the trial that comes back can be written down as JSON and read again.
    """
    curve: list[dict[str, float]] = []
    failure: Any = trial.failure  # a stranger's evaluator made it
    try:
        for point in _points(trial.curve):
            curve.append(point)  # noqa: PERF402  what stands before a bad one is kept
        metrics = checks.numbers(trial.metrics, "metrics")
        if failure is None:
            checks.record(metrics, "trial", *(SHOWN if objectives else ()), *(o.metric for o in objectives))
            finite = replace(trial, metrics=metrics, curve=tuple(curve))
            scores = tuple(checks.number(o.score(finite), f"the score of {o}") for o in objectives)
            return replace(finite, scores=scores)
    except ValueError as error:
        failure = failure or Failure("not_finite", str(error))
    said: Any = getattr(failure, "kind", None)
    kind: Kind = said if said in get_args(Kind) else "crash"
    return replace(Trial.failed(trial.job, kind, str(getattr(failure, "message", failure))), curve=tuple(curve))
