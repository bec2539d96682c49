"""The contents of MLflow's runs: tags, points, descriptions and files of a search and of its candidates."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from nas.architecture.architecture import Architecture, Limits
from nas.architecture.layers import show
from nas.errors import ArchitectureError
from nas.records.outcome import Header, Outcome
from nas.records.record import LATER
from nas.report.drawing import network_svg
from nas.report.summary import Summary, finalists_table, layer_rows
from nas.report.words import compact, duration, markdown_table, percent, unmarked
from nas.trial import REDUCTION, Trial

MOST_RUNS = 50_000  # in one answer of MLflow
CONSTANTS = ("parameters", "flops")  # metrics of a network that no training changes: they are tags, not charts
MOST_LAYERS, LONGEST = 80, 8_000  # in a description; characters, of which MLflow takes no more

Points = Mapping[tuple[str, int], tuple[float, float]]  # (metric, step) → value, time in seconds since 1970


def search_tags(header: Header) -> dict[str, str]:
    """The tags of a search's run."""
    return {
        "mlflow.parentRunId": header.config.get("mlflow_parent") or "",
        "nas.note": header.note,
        "nas.plan": header.plan,
        "space": header.settings.get("space", ""),
        "dataset": header.dataset["name"],
        "dataset_fingerprint": header.dataset["fingerprint"],
    }


def search_name(header: Header, begun: float, outcome: Outcome | None = None) -> str:
    """The name of a search's run: ``99.30 % · 108k · evolve · 17:18``, what differs first.

    The accuracy is that of the retrained winner on the validation data, as in the names of candidates. Before
    the end of the search the name has its strategy and its time only.

    Args:
        header: of the search.
        begun: when it began, in seconds since 1970.
        outcome: the end of the search.
    """
    words = [header.kind, datetime.fromtimestamp(begun).strftime("%H:%M")]
    if header.kind == "train":
        words.insert(1, str(header.config["network"]))
    elif header.config.get("mlflow_parent"):  # the searches of a comparison are told apart by their folders
        words = [header.name]
    if outcome is not None:
        words = [percent(outcome.validation_accuracy), compact(outcome.parameters), *words]
    return " · ".join(words)


def search_scores(outcome: Outcome) -> dict[str, float]:
    """The metrics of a search's run at its end; accuracies are fractions."""
    low, high = outcome.test_interval
    scores = {
        "validation_accuracy": outcome.validation_accuracy,
        "validation_accuracy_sd": outcome.spread,
        "test_accuracy": outcome.test_accuracy,
        "test_accuracy_low": low,
        "test_accuracy_high": high,
        "test_loss": outcome.test_loss,
        **{name: score for name in LATER if (score := getattr(outcome, name)) is not None},
    }
    if outcome.header.kind != "train":
        scores["validation_accuracy_search"] = outcome.winner.metrics["validation_accuracy"]
        scores["selection_bias"] = outcome.selection_bias
    return {f"winner/{name}": score for name, score in scores.items()}


def search_description(outcome: Outcome, run: str, winner: str | None) -> str:
    """The text on the page of a search's run, in Markdown: the verdict first.

    Args:
        outcome: the end of the search.
        run: the place of the search's run in the dashboard.
        winner: the place of the run of its winner, if there is one.
    """
    summary, header = Summary.of(outcome), outcome.header
    links = [f"[the report]({run}/artifacts/report.html)", f"[the figures]({run}/artifacts/figures)"]
    if winner:
        links.insert(0, f"[the winner as a candidate]({winner})")
    parts = [
        f"**{unmarked(summary.sentence)}** See {', '.join(links)}.",
        f"{summary.effort}, in the folder {unmarked(header.name)}. {unmarked(header.note)}".rstrip(),
        finalists_table(outcome),
        summary.markdown(),
        "\n".join(["How to use it:", "```", *summary.commands, "```"]),
        _table_of_layers([row[:3] for row in layer_rows(outcome.architecture, header.limits)]),
    ]
    text = "\n\n".join(part for part in parts if part)
    return text if len(text) <= LONGEST else "\n\n".join(parts[:-1])[:LONGEST]


def _table_of_layers(rows: Sequence[Sequence[str]]) -> str:
    """Layers, the last row being the total, as a table in Markdown that is not too long."""
    *lines, total = rows
    if len(lines) > MOST_LAYERS:
        lines = [*lines[:MOST_LAYERS], (f"… {len(lines) - MOST_LAYERS} more", "", "")]
    return markdown_table(("layer", "output", "parameters"), [*lines, total])


def candidate_name(number: int, trial: Trial) -> str:
    """The name of a candidate's run: ``17 · 98.80 % · 24.1k · 4 epochs``.

    The epochs stand there because scores after unequal trainings stand side by side.
    """
    if trial.failure:
        return f"{number} · failed: {trial.failure.kind}"
    parameters, accuracy = trial.metrics["parameters"], trial.metrics["validation_accuracy"]
    return f"{number} · {percent(accuracy)} · {compact(parameters)} · {duration(trial.epochs)}"


def candidate_tags(header: Header, number: int, trial: Trial) -> dict[str, str]:
    """The tags of a candidate's run; empty ones are left out when the run is made."""
    failure, candidate = trial.failure, trial.job.candidate
    return {
        "nas.trial": str(number),
        "nas.job": trial.job.key,
        "architecture_id": candidate.architecture.id,
        "origin": candidate.origin,
        "parents": ",".join(candidate.parents),
        "epochs": f"{trial.job.epochs:g}",
        "dataset": str(header.dataset["name"]),
        **constants(trial),
        "rung": _rung(header, trial),
        "status": "failed" if failure else "finished",
        "failure": failure.kind if failure else "",
        "failure_message": failure.message if failure else "",
        "mlflow.note.content": f"Trial {number}, the network {trial.id}: {_description(header, trial)}",
    }


def constants(trial: Trial) -> dict[str, str]:
    """What no training of a network changes, as text."""
    return {name: f"{trial.metrics[name]:.0f}" for name in CONSTANTS if name in trial.metrics}


def _rung(header: Header, trial: Trial) -> str:
    """The rung of successive halving that a trial reached, such as ``1 of 2``; empty without halving."""
    rungs, epochs = header.config.get("rungs"), header.config.get("epochs")
    if not rungs or not epochs:
        return ""
    return f"{max(1, rungs - round(math.log(epochs / trial.job.epochs, REDUCTION)))} of {rungs}"


def _description(header: Header, trial: Trial) -> str:
    """The result of a candidate and its layers, in Markdown."""
    if trial.failure:
        message = trial.failure.message.replace("`", "'")
        result = f"it failed ({trial.failure.kind}): `{message}`"
    else:
        accuracy = percent(trial.metrics["validation_accuracy"])
        result = f"**{accuracy}** of the validation {header.inputs.many} after {duration(trial.job.epochs)}"
    try:
        rows = layer_rows(trial.job.candidate.architecture, header.limits)
    except ArchitectureError as error:
        return f"{result}\n\n{error}"
    return f"{result}\n\n{_table_of_layers([row[:3] for row in rows])}"


def write_candidate(folder: Path, architecture: Architecture, limits: Limits) -> None:
    """Write the files of a candidate's run: its architecture, its layers as text, its drawing."""
    (folder / "architecture.json").write_text(architecture_json(architecture), encoding="utf-8")
    (folder / "layers.txt").write_text(_layers(architecture, limits), encoding="utf-8")
    (folder / "network.svg").write_text(network_svg(architecture, limits), encoding="utf-8")


def architecture_json(architecture: Architecture) -> str:
    """The architecture as JSON with indentation, which ``nas train`` reads."""
    return json.dumps(architecture.to_dict(), indent=2) + "\n"


def _layers(architecture: Architecture, limits: Limits) -> str:
    try:
        *rows, total = layer_rows(architecture, limits)
    except ArchitectureError as error:
        return f"{error}\n"
    lines = [("", "layer", "output", "parameters"), ("", "input", show(limits.input_shape), "")]
    lines += [(str(number), *row[:3]) for number, row in enumerate(rows, 1)]
    lines.append(("", *total[:3]))
    return "".join(f"{i:>4}  {layer:<36}  {shape:>12}  {count:>12}\n" for i, layer, shape, count in lines)


def candidate_points(trial: Trial, start: float) -> Points:
    """The trial's learning curve by epoch, and its metrics at the end.

    MLflow's steps are whole: epoch 0.25 is step 1, and of several points in one step MLflow shows the last.

    Args:
        trial: of the candidate.
        start: when its training began, in seconds since 1970.
    """
    points: dict[tuple[str, int], tuple[float, float]] = {}
    for point in trial.curve:
        for name in point.keys() - {"epoch", "seconds"}:
            points[name, math.ceil(point["epoch"])] = point[name], start + point.get("seconds", 0.0)
    end = start + trial.seconds
    last = math.ceil(trial.job.epochs)
    measured = {name: value for name, value in trial.metrics.items() if name not in CONSTANTS}
    return points | {(name, last): (value, end) for name, value in measured.items()}


def flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested tables, with names that are joined by dots."""
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, ", ".join(map(str, value)) if isinstance(value, list | tuple) else value


def key(name: str) -> str:
    """A name as MLflow takes it: letters, digits and ``_-. :/``, and no path out of its folder."""
    parts = (re.sub(r"[^\w\-. :]", "_", part).strip(".") for part in name.split("/"))
    return "/".join(part for part in parts if part)[:250] or "_"
