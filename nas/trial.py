"""What crosses processes and machines, and what is remembered: a job, and the trial that came of it.

Plain data. A trial is a function of its job: (architecture, recipe, data set, epochs, seed) → metrics.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from nas.errors import UsageError, unknown
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


@dataclass(frozen=True)
class Job:
    """One network to train: ``epochs`` times the training images, or a fraction of them once."""

    candidate: Candidate
    epochs: float
    seed: int

    @property
    def key(self) -> str:
        """Names this job among those of a search: equal jobs have equal keys."""
        return f"{self.candidate.architecture.id}-{self.epochs:g}-{self.seed}"

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {"candidate": self.candidate.to_dict(), "epochs": self.epochs, "seed": self.seed}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Job:
        """The job that `to_dict` wrote down."""
        return cls(Candidate.from_dict(data["candidate"]), data["epochs"], data["seed"])


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

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON. Scores follow from the metrics and the objectives; they are not written."""
        failure = {"kind": self.failure.kind, "message": self.failure.message} if self.failure else None
        return {
            "job": self.job.to_dict(),
            "metrics": dict(self.metrics),
            "curve": [dict(point) for point in self.curve],
            "failure": failure,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Trial:
        """The trial that `to_dict` wrote down, without scores."""
        failure = Failure(**data["failure"]) if data["failure"] else None
        return cls(Job.from_dict(data["job"]), data["metrics"], tuple(data["curve"]), (), failure)

    @classmethod
    def failed(cls, job: Job, kind: Kind, message: str) -> Trial:
        """A trial that came to nothing."""
        return cls(job, failure=Failure(kind, " ".join(message.split())[:500]))


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
        return self.sign * (value / trial.job.epochs if self.metric == "train_seconds" else value)

    def __str__(self) -> str:
        """As `parse` reads it."""
        return ("-" if self.sign < 0 else "") + self.metric


def rank(trial: Trial) -> tuple[float, tuple[float, ...], str]:
    """What to sort good trials by, the best being the largest: the longest training, then the scores.

    The id decides between equals, so that nothing follows from who was finished first.
    """
    return trial.job.epochs, trial.scores, trial.id


def scored(trial: Trial, objectives: Sequence[Objective]) -> Trial:
    """The trial with its scores; one that claims success without finite numbers has failed.

    Not a number here never reaches a strategy: NaN compares with nothing and would win any tournament.
    """
    if trial.failure is not None:
        return replace(trial, scores=())
    bad = [name for name, value in trial.metrics.items() if not math.isfinite(value)]
    bad += [o.metric for o in objectives if o.metric not in trial.metrics]
    if bad:
        value = trial.metrics.get(bad[0], "missing")
        return replace(Trial.failed(trial.job, "not_finite", f"{bad[0]} is {value}"), curve=trial.curve)
    return replace(trial, scores=tuple(o.score(trial) for o in objectives))
