"""A job and its result, the trial: plain data, which is sent between processes and kept in the journal.

A trial is a function of its job: (architecture, recipe, data set, epochs, seed) → metrics.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, get_args

from nas import checks
from nas.errors import NasError, plain, quoted
from nas.spaces.space import Candidate

REDUCTION = 4  # of successive halving: one network in 4 goes on to the next rung, which trains 4 times as long
MAX_EPOCHS = 1e6
OUT_OF_MEMORY = ("DefaultCPUAllocator", "out of memory", "Cannot allocate memory", "ALLOC_FAILED")


@dataclass(frozen=True)
class Job:
    """A candidate to train for a number of epochs, which may be a fraction of one."""

    candidate: Candidate
    epochs: float
    seed: int

    @cached_property  # asked for fifteen times a trial
    def key(self) -> str:
        """The name of this job in a search, and of its files; only equal jobs have equal keys."""
        epochs = repr(float(self.epochs)).removesuffix(".0")  # every digit, and 1 as 1.0
        return f"{self.candidate.id}-{epochs}-{self.seed}"

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {"candidate": self.candidate.to_dict(), "epochs": self.epochs, "seed": self.seed}

    @classmethod
    def from_dict(cls, data: object) -> Job:
        """The job that `to_dict` wrote.

        Raises:
            ValueError: a value is missing, of a wrong type, or out of range.
            ArchitectureError: its network is not valid.
        """
        candidate, epochs, seed = checks.record(data, "job", "candidate", "epochs", "seed")
        if not 0 < checks.number(epochs, "epochs") <= MAX_EPOCHS:
            raise ValueError(f"epochs is {quoted(epochs)}, and should be above 0 and at most {MAX_EPOCHS:,.0f}")
        return cls(Candidate.from_dict(candidate), epochs, checks.whole(seed, "seed", 2**64))


def job_seed(search_seed: int, candidate_id: str, repeat: int = 0) -> int:
    """The seed of a job: it follows from the candidate, never from a position, a clock or a worker."""
    digest = hashlib.sha256(f"{search_seed}/{candidate_id}/{repeat}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


Kind = Literal["crash", "oom", "timeout", "not_finite", "invalid"]


@dataclass(frozen=True)
class Failure:
    """Why a trial has no metrics: a value, not an exception."""

    kind: Kind
    message: str

    @classmethod
    def from_dict(cls, data: object) -> Failure:
        """The failure that `Trial.to_dict` wrote, or a ValueError."""
        kind, message = checks.record(data, "failure", "kind", "message")
        if kind not in get_args(Kind):
            raise ValueError(f"there is no failure of the kind {quoted(kind)}")
        return cls(kind, checks.text(message, "the message of a failure"))


@dataclass(frozen=True)
class Trial:
    """The result of a job."""

    job: Job
    metrics: Mapping[str, float] = field(default_factory=dict)  # see METRICS
    curve: tuple[Mapping[str, float], ...] = ()  # one entry per epoch
    scores: tuple[float, ...] = ()  # one per objective, HIGHER IS ALWAYS BETTER; empty when it failed
    failure: Failure | None = None

    @property
    def id(self) -> str:
        """The id of its candidate."""
        return self.job.candidate.id

    @property
    def seconds(self) -> float:
        """The seconds until its training was over; with more than one core, fewer than its ``train_seconds``."""
        known = self.metrics.get("train_seconds", 0.0)
        return self.curve[-1].get("seconds", known) if self.curve else known

    @property
    def epochs(self) -> float:
        """The epochs of its training: those of its job, unless it was stopped because it only guesses."""
        last = self.curve[-1].get("epoch", 0.0) if self.curve else 0.0
        return last if 0 < last < self.job.epochs else self.job.epochs

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON. The scores are left out: they follow from the metrics and the objectives.

        JSON has no NaN, so a trial with a NaN is written as a failed one (see `checked`).
        """
        kept = checked(self)
        failure = {"kind": kept.failure.kind, "message": kept.failure.message} if kept.failure else None
        curve = [dict(point) for point in kept.curve]
        return {"job": self.job.to_dict(), "metrics": dict(kept.metrics), "curve": curve, "failure": failure}

    @classmethod
    def from_dict(cls, data: object) -> Trial:
        """The trial that `to_dict` wrote, without scores; every value is checked.

        Raises:
            ValueError: a value is missing, of a wrong type, or out of range.
            ArchitectureError: its network is not valid.
        """
        job, metrics, curve, failure = checks.record(data, "trial", "job", "metrics", "curve", "failure")
        failed = None if failure is None else Failure.from_dict(failure)
        return cls(Job.from_dict(job), checks.numbers(metrics, "metrics"), tuple(_points(curve)), failure=failed)

    @classmethod
    def failed(cls, job: Job, kind: Kind, message: str) -> Trial:
        """A failed trial."""
        return cls(job, failure=Failure(kind, plain(" ".join(message.split()))[:500]))

    @classmethod
    def from_error(cls, job: Job, error: Exception) -> Trial:
        """The failed trial of a job whose training raised an exception."""
        if isinstance(error, NasError):  # its message is written for people
            return cls.failed(job, "invalid", str(error))
        kind: Kind = "oom" if is_out_of_memory(error) else "crash"
        return cls.failed(job, kind, f"{type(error).__name__}: {error}")


def trial_numbers(trials: Iterable[Trial]) -> dict[str, int]:
    """The number of each candidate's longest training in a search, from 1, by the candidate's id."""
    found: dict[str, tuple[float, int]] = {}
    for number, trial in enumerate(trials, 1):
        epochs = 0.0 if trial.failure else trial.job.epochs
        if trial.id not in found or epochs > found[trial.id][0]:
            found[trial.id] = epochs, number
    return {name: number for name, (_, number) in found.items()}


def is_out_of_memory(error: Exception) -> bool:
    """Whether there was not enough memory. PyTorch raises a RuntimeError, which another exception may follow."""
    if isinstance(error, MemoryError) or any(text in str(error) for text in OUT_OF_MEMORY):
        return True
    return isinstance(error.__context__, Exception) and is_out_of_memory(error.__context__)


def _points(curve: object) -> Iterator[dict[str, float]]:
    for point in checks.several(curve, "the curve"):
        yield checks.numbers(point, "a point of the curve")


def checked(trial: Trial, measured: Sequence[str] = ()) -> Trial:
    """The trial as JSON can hold it: without a finite number for each metric and in its curve, it has failed.

    Args:
        trial: the trial of an evaluator, which may be a plugin.
        measured: the metrics that a trial without a failure must have.
    """
    curve: list[dict[str, float]] = []
    failure: Any = trial.failure
    try:
        for point in _points(trial.curve):
            curve.append(point)  # noqa: PERF402  the points before a bad one are kept
        metrics = checks.numbers(trial.metrics, "metrics")
        if failure is None:
            checks.record(metrics, "trial", *measured)
            return replace(trial, metrics=metrics, curve=tuple(curve))
    except ValueError as error:
        failure = failure or Failure("not_finite", str(error))
    kind: Any = getattr(failure, "kind", None)
    kind = kind if kind in get_args(Kind) else "crash"
    return replace(Trial.failed(trial.job, kind, str(getattr(failure, "message", failure))), curve=tuple(curve))


def __getattr__(name: str) -> Any:
    if name == "Objective":  # plugins may import it from here, where it stood before
        return getattr(importlib.import_module("nas.objectives"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
