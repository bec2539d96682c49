"""The winner as an MLflow model: logged to the run of its search, and registered under its data set."""

from __future__ import annotations

import json
import math
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from importlib.metadata import version
from threading import Lock
from typing import TYPE_CHECKING

from nas.dashboard.runs import search_scores
from nas.dashboard.store import IMPORTING, client_of, import_mlflow
from nas.records.outcome import Header, Outcome
from nas.report import figures
from nas.report.words import percent
from nas.statistics import standard_error
from nas.winner.best import load_network

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion
    from torch import Tensor

CHAMPION = "champion"
MODEL = "nas.model"  # the tag of a registered version that names its logged model
IMAGES = "dataset_fingerprint"  # the tag of a registered model that names its images
EXPORTING = Lock()  # torch.export and Python's filters of warnings serve one thread at a time


def log_model_of(header: Header) -> Callable[[Outcome, str, str], None]:
    """`log_model` with zeros as the example, for a process that has no data."""
    import torch

    return partial(log_model, torch.zeros((2, *header.limits.input_shape), dtype=torch.uint8))


def warm_up() -> None:
    """Import the modules of `log_model` and of the figures; that takes most of the time of their first call."""
    import_mlflow()
    with IMPORTING:
        for name in ("mlflow.pytorch", "torch.export._trace"):
            import_module(name)
    figures.warm_up()


def log_model(example: Tensor, outcome: Outcome, tracking_uri: str, run_id: str) -> None:
    """Log the winner to a run, with a signature and an input example, and register it, unless both are done.

    The format is a ``torch.export`` archive: to load it runs no code of this package or of others.

    Args:
        example: two or more raw inputs (N, …).
        outcome: of the search.
        tracking_uri: the address of the store.
        run_id: the search's run.
    """
    client = client_of(tracking_uri)
    model = _logged(client, outcome, run_id) or _log(client, example, outcome, run_id)
    if outcome.header.kind != "train":
        _register(client, outcome, run_id, model)


def _logged(client: MlflowClient, outcome: Outcome, run_id: str) -> str | None:
    """The id of the winner's model, if it is logged; a model that a kill left unfinished is removed.

    A search with more budget may train the same winner again, so a model is known by its training.
    """
    experiment = client.get_run(run_id).info.experiment_id
    for model in client.search_logged_models([experiment], f"source_run_id = '{run_id}'"):
        if model.status != "READY":
            client.delete_logged_model(model.model_id)
        elif model.tags.get("nas.job") == outcome.handed_over.job.key:
            return str(model.model_id)
    return None


def _log(client: MlflowClient, example: Tensor, outcome: Outcome, run_id: str) -> str:
    """Log the winner's network; the id of the model.

    ``mlflow.pytorch.log_model`` would do it through the active run and the store of the whole process.
    """
    warm_up()
    import torch
    from mlflow.entities import LoggedModelOutput, Metric
    from mlflow.models import Model, infer_signature
    from mlflow.pytorch import save_model

    network = load_network(outcome.weights.parent)
    is_text = len(outcome.header.limits.input_shape) == 1
    images = example.long() if is_text else example.float()
    with torch.inference_mode():
        signature = infer_signature(images.numpy(), network(images).numpy())
    # Named here, because MLflow takes longer than a training to infer them.
    requirements = [f"{package}=={version(package)}" for package in ("mlflow", "torch")]
    run = client.get_run(run_id)
    tags = {"nas.job": outcome.handed_over.job.key}
    name = f"{outcome.winner.id}-{outcome.parameters}"
    made = client.create_logged_model(run.info.experiment_id, name, run_id, tags, run.data.params)
    client.log_outputs(run_id, [LoggedModelOutput(made.model_id, step=0)])
    about = Model(made.artifact_location, run_id, model_uuid=made.model_id, model_id=made.model_id)
    with tempfile.TemporaryDirectory() as folder:
        with EXPORTING, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch.export, about tensors that share their memory
            save_model(
                network, f"{folder}/model", mlflow_model=about, signature=signature, input_example=images.numpy(),
                pip_requirements=requirements, serialization_format="pt2",
            )  # fmt: skip
        client.log_model_artifacts(made.model_id, f"{folder}/model")
    at = int(1000 * time.time())
    scores = {name: score for name, score in search_scores(outcome).items() if math.isfinite(score)}
    metrics = [Metric(name, score, at, outcome.trials, made.model_id) for name, score in scores.items()]
    client.log_batch(run_id, metrics)
    client.finalize_logged_model(made.model_id, "READY")
    return str(made.model_id)


def _register(client: MlflowClient, outcome: Outcome, run_id: str, model: str) -> None:
    """Make the model a version of the data set's registered model, and its champion if it is clearly the best.

    Searches are compared by the validation accuracy of their retrained winners (means over the seeds), never by
    the test images. A champion stays if another one is better by no more than the difference's standard error.
    """
    from mlflow.exceptions import MlflowException

    name = _registered(client, outcome.header)
    tags = {
        MODEL: model,
        "search": outcome.header.name,
        "strategy": outcome.header.kind,
        "architecture_id": outcome.winner.id,
        "parameters": str(outcome.parameters),
        "test_accuracy": str(outcome.test_accuracy),
        "validation_accuracy": str(outcome.validation_accuracy),
        "validation_accuracy_error": str(_error(outcome)),
        "validation_loss": str(outcome.validation_loss),
    }
    try:
        champion: ModelVersion | None = client.get_model_version_by_alias(name, CHAMPION)
    except MlflowException:  # there is none, or its version was deleted
        champion = None
    is_better, how = _compared(tags, champion)
    known = client.search_model_versions(f"name = '{name}' and tags.`{MODEL}` = '{model}'")
    if known:
        version = str(known[0].version)
    else:
        accuracy = f"{percent(outcome.validation_accuracy)} of the validation {outcome.header.inputs.many}"
        count = len(outcome.retrained)
        trainings = f"mean of {count} trainings" if count > 1 else "one training"
        text = f"{accuracy} ({trainings}), {outcome.parameters:,} parameters, found by {outcome.header.name}{how}"
        # For the address models:/ID, MLflow would look into the store of the whole process.
        source = client.get_logged_model(model).artifact_location
        created = client.create_model_version(name, source, run_id, tags, None, text, model_id=model)
        version = str(created.version)
    versions = [{"name": name, "version": version}]
    client.set_logged_model_tags(model, {"mlflow.modelVersions": json.dumps(versions)})  # the dashboard's link
    if is_better:
        client.set_registered_model_alias(name, CHAMPION, version)


def _error(outcome: Outcome) -> float:
    """The standard error of the retrained winner's accuracy: over its seeds, but at least that over the inputs."""
    of_inputs = standard_error(outcome.validation_accuracy, outcome.header.validated)
    return max(of_inputs, outcome.spread / math.sqrt(len(outcome.retrained)))


def _compared(tags: Mapping[str, str], champion: ModelVersion | None) -> tuple[bool, str]:
    """Whether a version replaces the champion, and how they compare, in words."""
    if champion is None or _accuracy(champion.tags) < 0:
        return True, ""
    apart = _accuracy(tags) - _accuracy(champion.tags)
    error = math.hypot(*(_number(one, "validation_accuracy_error", 0.0) for one in (tags, champion.tags)))
    points = f"{100 * abs(apart):.2f} points"
    if abs(apart) <= error:
        return False, f"; a tie with version {champion.version}: {points} apart, standard error {100 * error:.2f}"
    return apart > 0, f"; {points} {'better' if apart > 0 else 'worse'} than version {champion.version}"


def unregister(client: MlflowClient, version: ModelVersion) -> bool:
    """Delete a version that `_register` made. If it was the champion, the best of the others follows it.

    Returns:
        Whether `_register` made it; a version that a user made stays.
    """
    registered = client.get_registered_model(version.name)
    if MODEL not in version.tags or IMAGES not in registered.tags:  # MLflow's copy of a version has its tags
        return False
    client.delete_model_version(version.name, version.version)
    others = client.search_model_versions(f"name = '{version.name}'")
    if not others:
        client.delete_registered_model(version.name)
    elif str(registered.aliases.get(CHAMPION)) == str(version.version):
        best = max(others, key=lambda other: _accuracy(other.tags))
        client.set_registered_model_alias(version.name, CHAMPION, best.version)
    return True


def _registered(client: MlflowClient, header: Header) -> str:
    """The name of a data set's registered model, made if missing; other images of the same name have their own."""
    from mlflow.exceptions import MlflowException

    fingerprint = str(header.dataset["fingerprint"])
    plain = f"nas-{header.dataset['name']}"
    for name in (plain, f"{plain}-{fingerprint[:8]}"):
        text = f"The winners of nas on {header.dataset['name']} (fingerprint {fingerprint})"
        try:
            client.create_registered_model(name, {IMAGES: fingerprint}, text)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        if client.get_registered_model(name).tags.get(IMAGES) == fingerprint:
            return name
    raise MlflowException(f"the registered model {name} belongs to other data")


def _accuracy(tags: Mapping[str, str]) -> float:
    """The accuracy by which champions are compared; below all others for a version of another program."""
    return _number(tags, "validation_accuracy", -1.0)


def _number(tags: Mapping[str, str], name: str, otherwise: float) -> float:
    """The number in a tag, which a user may have changed."""
    try:
        number = float(tags[name])
    except (KeyError, ValueError):
        return otherwise
    return number if math.isfinite(number) else otherwise
