"""What a person reads of a search in its record: names of runs, tables, the story."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

from nas.architecture.architecture import Architecture, Limits
from nas.architecture.layers import Layer, show
from nas.errors import ArchitectureError
from nas.objectives import rank
from nas.records.outcome import Header, Outcome
from nas.trial import REDUCTION, Trial

LEADERS = 50  # rows of the leaderboard
MOST_LAYERS = 80  # in a description, of which MLflow takes 8,000 characters


def run_name(kind: str, number: int, trial: Trial) -> str:
    """A trial in a list of many: ``evolve 0017 · 24.1k · 99.31 %``."""
    words = [f"{kind} {number:04d}"]
    if trial.failure:
        return f"{words[0]} · failed: {trial.failure.kind}"
    if (parameters := trial.metrics.get("parameters")) is not None:
        words.append(_compact(parameters))
    if (accuracy := trial.metrics.get("validation_accuracy")) is not None:
        words.append(f"{accuracy * 100:.2f} %")
    return " · ".join(words)


def rung(header: Header, trial: Trial) -> str:
    """How far a trial got in successive halving: ``1 of 2`` was stopped early; empty where there is none."""
    rungs, epochs = header.config.get("rungs"), header.config.get("epochs")
    if not rungs or not epochs:
        return ""
    return f"{max(1, rungs - round(math.log(epochs / trial.job.epochs, REDUCTION)))} of {rungs}"


def _compact(number: float) -> str:
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return f"{number:.0f}"


def pretty(architecture: Architecture) -> str:
    """The architecture as JSON for people, and for ``nas train``."""
    return json.dumps(architecture.to_dict(), indent=2) + "\n"


def layers(architecture: Architecture, limits: Limits) -> str:
    """The table of layers as text, shapes with the channels last."""
    try:
        rows = architecture.table(limits.input_shape, limits.classes)
    except ArchitectureError as error:
        return f"{error}\n"
    lines = [("", "layer", "output", "parameters"), ("", "input", show(limits.input_shape), "")]
    lines += [(str(i), str(row.layer), show(row.shape), f"{row.parameters:,}") for i, row in enumerate(rows, 1)]
    lines += [("", "", "", f"{sum(row.parameters for row in rows):,}")]
    return "".join(f"{i:>4}  {layer:<36}  {shape:>12}  {count:>12}\n" for i, layer, shape, count in lines)


def description(trial: Trial, header: Header) -> str:
    """A candidate in Markdown: what became of it, and its layers."""
    architecture, limits = trial.job.candidate.architecture, header.limits
    if trial.failure:
        message = trial.failure.message.replace("`", "'")
        begin = f"It failed ({trial.failure.kind}): `{message}`"
    else:
        accuracy, epochs = trial.metrics["validation_accuracy"], trial.job.epochs
        begin = f"**{100 * accuracy:.2f} %** of the validation images after {epochs:g} epochs"
    try:
        rows = architecture.table(limits.input_shape, limits.classes)
    except ArchitectureError as error:
        return f"{begin}\n\n{error}"
    lines = [f"| {cell(row.layer)} | {show(row.shape)} | {row.parameters:,} |" for row in rows[:MOST_LAYERS]]
    if len(rows) > MOST_LAYERS:
        lines.append(f"| … {len(rows) - MOST_LAYERS} more | | |")
    total = f"| | | **{sum(row.parameters for row in rows):,}** |"
    return "\n".join([begin, "", "| layer | output | parameters |", "|---|---:|---:|", *lines, total])


def cell(layer: Layer) -> str:
    """A layer in a table of Markdown, where a bar begins a column."""
    return str(layer).replace("|", "\\|")


def leaderboard(trials: Iterable[Trial]) -> dict[str, Sequence[Any]]:
    """A table with a row for each of the best networks; those that were trained longest come first."""
    leaders: dict[str, Trial] = {}
    for trial in sorted(trials, key=rank, reverse=True):
        leaders.setdefault(trial.id, trial)
    best = list(leaders.values())[:LEADERS]
    metrics = ("parameters", "validation_accuracy", "validation_loss")
    return {
        "rank": range(1, len(best) + 1),
        "id": [trial.id for trial in best],
        **{metric: [trial.metrics.get(metric) for trial in best] for metric in metrics},
        "epochs": [trial.job.epochs for trial in best],
        "origin": [trial.job.candidate.origin for trial in best],
    }


def story(outcome: Outcome) -> str:
    """The search in a few lines of Markdown, with the three scores."""
    header, seeds = outcome.header, len(outcome.retrained)
    low, high = outcome.test_interval
    interval = f"95 % interval {low * 100:.2f} to {high * 100:.2f} %"
    if header.kind == "train":
        return f"""\
`{header.config["network"]}` on **{header.dataset["name"]}**, {outcome.winner.job.epochs:g} epochs: \
{spread(outcome)} of the validation images, {outcome.test_accuracy * 100:.2f} % of the \
{outcome.test_images:,} test images ({interval}). {header.note}
""".rstrip()
    beside = "".join(
        f"\nOn the same images {one.name}, trained for as long, has {one.accuracy * 100:.2f} %: {one.verdict}.\n"
        for one in outcome.compared
    )
    return f"""\
**{header.kind}** on **{header.dataset["name"]}** found a network of **{outcome.parameters:,} parameters** that \
classifies **{outcome.test_accuracy * 100:.2f} %** of the {outcome.test_images:,} test images ({interval}): \
`{outcome.winner.id}`.

{outcome.trials} trial{"s" * (outcome.trials != 1)}, {outcome.failed} failed, {outcome.seconds:.0f} s. \
{header.note}

| its accuracy | |
|---|---|
| on the validation images, during the search | {outcome.winner.metrics["validation_accuracy"] * 100:.2f} % |
| there, trained again with {seeds} seed{"s" * (seeds > 1)} | {spread(outcome)} |
| on the test images, {outcome.opened_words} | {outcome.test_accuracy * 100:.2f} % |
| selection bias (the first less the last) | {outcome.selection_bias * 100:+.2f} points |
{beside}
The figures, and the same on one page: Artifacts, report.html.
"""


def spread(outcome: Outcome) -> str:
    """The winner's accuracy after being trained again: mean ± standard deviation, where there is more than one."""
    mean = f"{outcome.validation_accuracy * 100:.2f}"
    return f"{mean} ± {outcome.spread * 100:.2f} %" if len(outcome.retrained) > 1 else f"{mean} %"
