"""How the searches of a comparison went: the best score so far over trials and over seconds of computing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from nas.comparison.curves import reached
from nas.objectives import FRACTIONS, Objective, scored
from nas.records.journal import FILE
from nas.records.record import read
from nas.report.words import percent


class Progress(NamedTuple):
    """A search, trial by trial."""

    scores: list[float]  # of the first objective, larger is better
    costs: list[float]  # seconds of training


def progress_of(folder: Path) -> Progress:
    """The progress of a search, from its journal. A failed trial counts, and is never the best."""
    record = read(folder / FILE)[0]
    objectives = record.header.objectives
    scores, costs = [], []
    for told in record.told:
        trial = scored(told.trial, objectives)
        scores.append(trial.scores[0] if trial.failure is None else -float("inf"))
        costs.append(trial.metrics.get("train_seconds", 0.0))
    return Progress(scores, costs)


def common_target(found: Mapping[str, Sequence[Progress]]) -> float:
    """The score that the median search of the weakest strategy reaches, so that every strategy reaches it."""
    return min(median(max(one.scores) for one in several) for several in found.values() if several)


def words(objective: Objective, target: float) -> str:
    """A target as text: ``98.20 %`` or ``loss 0.0612``."""
    value = objective.sign * target
    if objective.metric in FRACTIONS:
        return percent(value)
    return f"{objective.metric.replace('validation_', '').replace('_', ' ')} {value:.4g}"


def reached_by(one: Progress, target: float) -> tuple[int | None, float | None]:
    """The trials and the seconds until a search has reached a target; None, None if it never does."""
    return reached(one.scores, one.costs, target) or (None, None)
