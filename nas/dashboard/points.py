"""What a record holds, in MLflow's words: points with whole steps, flat tables, names that it takes."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from nas.trial import Trial

Points = dict[tuple[str, int], tuple[float, float]]  # (metric, step) → value, and when, in seconds since 1970


def curve(trial: Trial, start: float) -> Points:
    """The trial's curve by epoch, and its metrics at the end.

    MLflow's steps are whole: epoch 0.25 is step 1, and of several points in one step the last one is shown.
    """
    points: Points = {}
    for point in trial.curve:
        for name in point.keys() - {"epoch", "seconds"}:
            points[name, math.ceil(point["epoch"])] = point[name], start + point.get("seconds", 0.0)
    end = start + trial.metrics.get("train_seconds", 0.0)
    last = math.ceil(trial.job.epochs)
    return points | {(name, last): (value, end) for name, value in trial.metrics.items()}


def flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """A table of tables as names with dots, and their values."""
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, ", ".join(map(str, value)) if isinstance(value, list | tuple) else value


def key(name: str) -> str:
    """The name as MLflow takes it: letters, digits and ``_-. :/``, and no path that climbs."""
    parts = (re.sub(r"[^\w\-. :]", "_", part).strip(".") for part in name.split("/"))
    return "/".join(part for part in parts if part)[:250] or "_"
