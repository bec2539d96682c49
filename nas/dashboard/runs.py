"""The contents of MLflow's runs: tags, points, descriptions and files of a search and of its candidates."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.architecture.architecture import Architecture, Limits
from nas.architecture.layers import show
from nas.dashboard.registry import unregister
from nas.dashboard.store import client_of, probe, reason_of, sqlite_file
from nas.errors import ArchitectureError, NasError, masked
from nas.records.outcome import Header, Outcome
from nas.records.record import LATER
from nas.report.drawing import network_svg
from nas.report.summary import Summary, compact, layer_rows, markdown_table, percent
from nas.trial import REDUCTION, Trial

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

MOST_RUNS = 50_000  # in one answer of MLflow
MOST_LAYERS = 80  # in a description; MLflow takes at most 8,000 characters

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


def search_scores(outcome: Outcome) -> dict[str, float]:
    """The metrics of a search's run at its end; accuracies are fractions."""
    low, high = outcome.test_interval
    return {
        "winner_validation_accuracy_search": outcome.winner.metrics["validation_accuracy"],
        "winner_validation_accuracy_retrained": outcome.validation_accuracy,
        "winner_validation_accuracy_retrained_sd": outcome.spread,
        "winner_parameters": outcome.parameters,
        "test_accuracy": outcome.test_accuracy,
        "test_accuracy_low": low,
        "test_accuracy_high": high,
        "test_loss": outcome.test_loss,
        "selection_bias": outcome.selection_bias,
        **{name: score for name in LATER if (score := getattr(outcome, name)) is not None},
    }


def search_description(outcome: Outcome) -> str:
    """The text on the page of a search's run, in Markdown."""
    summary = Summary.of(outcome)
    effort = f"{summary.effort}. {outcome.header.note}".rstrip()
    hint = "The figures and a report are under Artifacts (report.html)."
    return "\n\n".join([summary.sentence, effort, summary.markdown(), hint])


def candidate_name(kind: str, number: int, trial: Trial) -> str:
    """The name of a candidate's run, with its parameters and accuracy: ``evolve 0017 · 24.1k · 99.31 %``."""
    if trial.failure:
        return f"{kind} {number:04d} · failed: {trial.failure.kind}"
    parameters, accuracy = trial.metrics["parameters"], trial.metrics["validation_accuracy"]
    return f"{kind} {number:04d} · {compact(parameters)} · {percent(accuracy)}"


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
        "rung": _rung(header, trial),
        "status": "failed" if failure else "finished",
        "failure": failure.kind if failure else "",
        "failure_message": failure.message if failure else "",
        "mlflow.note.content": _description(header, trial),
    }


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
        result = f"It failed ({trial.failure.kind}): `{message}`"
    else:
        accuracy = percent(trial.metrics["validation_accuracy"])
        result = f"**{accuracy}** of the validation images after {trial.job.epochs:g} epochs"
    try:
        *rows, total = layer_rows(trial.job.candidate.architecture, header.limits)
    except ArchitectureError as error:
        return f"{result}\n\n{error}"
    lines = [row[:3] for row in rows[:MOST_LAYERS]]
    if len(rows) > MOST_LAYERS:
        lines.append((f"… {len(rows) - MOST_LAYERS} more", "", ""))
    return f"{result}\n\n{markdown_table(('layer', 'output', 'parameters'), [*lines, total[:3]])}"


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
    return points | {(name, last): (value, end) for name, value in trial.metrics.items()}


def is_known(search: str, tracking_uri: str) -> bool:
    """Whether a store has a run of a search (`Record.id`).

    Raises:
        NasError: the store does not answer.
    """
    try:
        probe(tracking_uri)
        client = client_of(tracking_uri)
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        return bool(client.search_runs(experiments, f"tags.`nas.id` = '{search}'", max_results=1))
    except Exception as error:  # any exception of MLflow
        raise NasError(f"MLflow does not answer at {masked(tracking_uri)}: {reason_of(error)}") from error


def remove(search: str, tracking_uri: str) -> tuple[int, list[str]]:
    """Remove a search from a store: its runs with their files, its models, and its versions of registered models.

    A server only marks runs and models as deleted; `mlflow gc` on its side frees their space.

    Args:
        search: its id (`Record.id`).
        tracking_uri: the address of the store.

    Returns:
        The number of the runs that were removed, and the versions of registered models that a user made of the
        others: these versions stay, with their runs and files.

    Raises:
        NasError: the store does not answer, or cannot be changed.
    """
    file = sqlite_file(tracking_uri)
    if file and not file.exists():
        return 0, []
    try:
        probe(tracking_uri)
        return _remove(client_of(tracking_uri), search, tracking_uri)
    except Exception as error:
        advice = "--keep-mlflow removes the folder alone"
        raise NasError(
            f"MLflow cannot be changed at {masked(tracking_uri)} ({reason_of(error)}); {advice}"
        ) from error


def _remove(client: MlflowClient, search: str, tracking_uri: str) -> tuple[int, list[str]]:
    from mlflow.entities import ViewType
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    store: Any = client._tracking_client.store
    # Without the address, MLflow would look for mlflow-artifacts:/… in the store of the whole process.
    files: Callable[[str], Any] = partial(get_artifact_repository, tracking_uri=tracking_uri)
    is_database = hasattr(store, "_hard_delete_run")  # what `mlflow gc` calls
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    found = client.search_runs(experiments, f"tags.`nas.id` = '{search}'", ViewType.ALL, MOST_RUNS)
    removed, kept = 0, []
    for run in found:
        run_id = run.info.run_id
        versions = client.search_model_versions(f"run_id = '{run_id}'")
        if others := [version for version in versions if not unregister(client, version)]:
            kept += [f"{version.name} version {version.version}" for version in others]
            continue
        for model in client.search_logged_models(experiments, f"source_run_id = '{run_id}'"):
            client.delete_logged_model(model.model_id)
            if is_database:
                files(model.artifact_location).delete_artifacts()
                store._hard_delete_logged_model(model.model_id)
        remove_run(client, run, tracking_uri)
        removed += 1
    return removed, kept


def remove_run(client: MlflowClient, run: Run, tracking_uri: str) -> None:
    """Remove one run with its files.

    Raises:
        Exception: any exception of MLflow.
    """
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    store: Any = client._tracking_client.store
    if run.info.lifecycle_stage == "active":
        client.delete_run(run.info.run_id)
    if hasattr(store, "_hard_delete_run"):  # what `mlflow gc` calls
        files: Any = get_artifact_repository(run.info.artifact_uri, tracking_uri=tracking_uri)
        files.delete_artifacts()
        store._hard_delete_run(run.info.run_id)


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
