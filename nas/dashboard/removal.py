"""Removing a search from a store, with all that it has there."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from nas.dashboard.registry import unregister
from nas.dashboard.runs import MOST_RUNS
from nas.dashboard.store import client_of, probe, reason_of, sqlite_file
from nas.errors import NasError, masked

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


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
