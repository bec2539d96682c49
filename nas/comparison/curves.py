"""The best score so far over trials or seconds, and its quartiles over the seeds. Larger scores are better."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nas.records.predictions import Array


class Curve(NamedTuple):
    """The best score so far as a step function: each score holds from the end of its trial to that of the next."""

    ends: Array  # (T,) float64, ascending: what all trials so far have cost together
    scores: Array  # (T,) float64, ascending; -inf as long as all trials have failed


def best_so_far(scores: Sequence[float], costs: Sequence[float]) -> Curve:
    """The best score so far after each trial.

    Args:
        scores: (T,): of the trials in their order; -inf where one has failed.
        costs: (T,): of the same trials, for example their seconds, or 1 for each to count trials.

    Raises:
        ValueError: there are more scores than costs, or fewer.
    """
    if len(scores) != len(costs):
        raise ValueError(f"{len(scores)} scores and {len(costs)} costs: each trial must have both")
    return Curve(np.cumsum(costs, dtype=np.float64), np.maximum.accumulate(np.asarray(scores, np.float64)))


def quartiles(curves: Sequence[Curve], grid: Sequence[float] | Array) -> Array:
    """The lower quartile, the median and the upper quartile of several searches at each point of a grid, (3, G).

    Before the end of its first trial, a search has no score and counts as worse than every other, so that no
    median falls when a slow search has its first score; a quartile that depends on such a search is NaN. A search
    that has ended keeps its last score.
    """
    points = np.asarray(grid, np.float64)
    rows = np.full((len(curves), len(points)), -np.inf)
    for row, (ends, scores) in zip(rows, curves, strict=True):
        finished = np.searchsorted(ends, points, side="right")  # the number of trials at each point
        row[finished > 0] = scores[finished[finished > 0] - 1]
    with np.errstate(invalid="ignore"):  # between -inf and a score
        found = np.quantile(rows, (0.25, 0.5, 0.75), axis=0)
    found[~np.isfinite(found)] = np.nan
    return np.asarray(found)


def reached(scores: Sequence[float], costs: Sequence[float], target: float) -> tuple[int, float] | None:
    """The number of trials, and the sum of their costs, until a score is at least the target; None if none is."""
    for number, score in enumerate(scores, 1):
        if score >= target:
            return number, float(sum(costs[:number]))
    return None
