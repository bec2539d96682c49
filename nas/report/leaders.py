"""The best networks of a search, one row for each candidate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nas.objectives import rank
from nas.trial import Trial

LEADERS = 50  # rows of the leaderboard


def leaders(trials: Iterable[Trial]) -> list[Trial]:
    """The best trial of each candidate, the best candidate first; longer trainings come before shorter ones."""
    best: dict[str, Trial] = {}
    for trial in sorted(trials, key=rank, reverse=True):
        best.setdefault(trial.id, trial)
    return list(best.values())


def leaderboard(trials: Iterable[Trial], numbers: Mapping[str, int] | None = None) -> dict[str, Sequence[Any]]:
    """A table of the best networks, column by column: see `leaders`; ``numbers``: those of their trials."""
    best = leaders(trials)[:LEADERS]
    metrics = ("parameters", "validation_accuracy", "validation_loss")
    return {
        "rank": range(1, len(best) + 1),
        "id": [trial.id for trial in best],
        **({"trial": [numbers.get(trial.id) for trial in best]} if numbers else {}),
        **{metric: [trial.metrics.get(metric) for trial in best] for metric in metrics},
        "epochs": [trial.job.epochs for trial in best],
        "origin": [trial.job.candidate.origin for trial in best],
    }
