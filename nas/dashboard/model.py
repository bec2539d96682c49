"""The winner as an MLflow model: logged to the run of its search, and registered for its data set."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

from nas.objectives import best_seed
from nas.records.outcome import Header, Outcome
from nas.report import figures
from nas.winner.best import load_network

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from torch import Tensor

CHAMPION = "champion"
MODEL = "nas.model"  # the tag of a version of a registered model: the logged model that it is
NONE = (-1.0, 0.0)  # scores below any


def log_model_of(header: Header) -> Callable[[Outcome, str, str], None]:
    """`log_model` for when the images are not at hand: the example is black."""
    import torch

    return partial(log_model, torch.zeros((2, *header.limits.input_shape), dtype=torch.uint8))


def warm_up() -> None:
    """Import what `log_model` and the figures need: most of the time that they take, the first time."""
    for name in ("mlflow.pytorch", "torch.export._trace"):
        import_module(name)
    figures.warm_up()


def log_model(example: Tensor, outcome: Outcome, tracking_uri: str, run_id: str) -> None:
    """Log the winner to a run, with a signature and an input example, and register it; what is there stays.

    The format is a ``torch.export`` archive: it runs no code of this package, or of anybody else, when it is
    loaded.

    Args:
        example: two or more raw images (N, C, H, W), uint8.
        outcome: whose winner.
        tracking_uri: the store.
        run_id: the run that the model belongs to.
    """
    from mlflow import MlflowClient

    with _tracking(tracking_uri):
        client = MlflowClient()
        model = _logged(client, outcome, run_id) or _log(example, outcome, run_id)
        if outcome.header.kind != "train":
            _register(client, outcome, run_id, model)


@contextmanager
def _tracking(uri: str) -> Iterator[None]:
    """MLflow's functions use this store; afterwards, what they used before."""
    import mlflow

    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri)  # which sets the variable, too
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before or "")
        if before is None:
            os.environ.pop("MLFLOW_TRACKING_URI", None)


def _handed_over(outcome: Outcome) -> str:
    """The key of the training whose weights are in best/: a search that was given more may train it again."""
    return best_seed(outcome.retrained).job.key


def _logged(client: MlflowClient, outcome: Outcome, run_id: str) -> str | None:
    """The id of the winner's model, if it is logged; what a kill has left of one is removed."""
    experiment = client.get_run(run_id).info.experiment_id
    for model in client.search_logged_models([experiment], f"source_run_id = '{run_id}'"):
        if model.status != "READY":
            client.delete_logged_model(model.model_id)
        elif model.tags.get("nas.job") == _handed_over(outcome):
            return str(model.model_id)
    return None


def _log(example: Tensor, outcome: Outcome, run_id: str) -> str:
    """Log the winner's network; the id of the model."""
    import mlflow
    import torch
    from mlflow.models import infer_signature

    network = load_network(outcome.weights.parent)
    images = example.float()
    with torch.inference_mode():
        signature = infer_signature(images.numpy(), network(images).numpy())
    with mlflow.start_run(run_id=run_id), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.export's own, about tensors that share their memory
        logged = mlflow.pytorch.log_model(
            network,
            name="model",
            signature=signature,
            input_example=images.numpy(),
            tags={"nas.job": _handed_over(outcome)},
            # Given, because finding them out takes longer than a training.
            pip_requirements=[f"{package}=={version(package)}" for package in ("mlflow", "torch")],
        )
    return str(logged.model_id)


def _register(client: MlflowClient, outcome: Outcome, run_id: str, model: str) -> None:
    """Make the model a version of the data set's registered model, and its champion if it is the best so far.

    Searches are compared by the mean on the validation images after their winners were trained again, never by the
    test images.
    """
    name = _registered(client, outcome.header)
    tags = {
        MODEL: model,
        "search": outcome.header.name,
        "strategy": outcome.header.kind,
        "architecture_id": outcome.winner.id,
        "parameters": str(outcome.parameters),
        "test_accuracy": str(outcome.test_accuracy),
        "validation_accuracy": str(outcome.validation_accuracy),
        "validation_loss": str(outcome.validation_loss),
    }
    known = client.search_model_versions(f"name = '{name}' and tags.`{MODEL}` = '{model}'")
    if known:
        version = str(known[0].version)
    else:
        words = (
            f"{100 * outcome.validation_accuracy:.2f} % of the validation images (mean of "
            f"{len(outcome.retrained)}), {outcome.parameters:,} parameters, found by {outcome.header.name}"
        )
        made = client.create_model_version(name, f"models:/{model}", run_id, tags, None, words, model_id=model)
        version = str(made.version)
    place = [{"name": name, "version": version}]
    client.set_logged_model_tags(model, {"mlflow.modelVersions": json.dumps(place)})  # the dashboard's link
    _crown(client, name, version, _scores(tags))


def _crown(client: MlflowClient, name: str, version: str, scores: tuple[float, float]) -> None:
    """Make a version the champion if it is better than the one of now."""
    from mlflow.exceptions import MlflowException

    for has_failed in (False, True):
        if scores <= _champion(client, name):
            return
        try:
            client.set_registered_model_alias(name, CHAMPION, version)
        except MlflowException:  # in the same moment, another search has made the first champion
            if has_failed:
                raise
        else:
            return


def _champion(client: MlflowClient, name: str) -> tuple[float, float]:
    """The scores of the champion of now, lower than any where there is none."""
    from mlflow.exceptions import MlflowException

    try:
        return _scores(client.get_model_version_by_alias(name, CHAMPION).tags)
    except MlflowException:  # there is none, or its version was deleted
        return NONE


def _registered(client: MlflowClient, header: Header) -> str:
    """The registered model of a data set, made if it is not there. Other images of its name have their own."""
    from mlflow.exceptions import MlflowException

    fingerprint = str(header.dataset["fingerprint"])
    plain = f"nas-{header.dataset['name']}"
    for name in (plain, f"{plain}-{fingerprint[:8]}"):
        words = f"The winners of nas on {header.dataset['name']} (fingerprint {fingerprint})"
        try:
            client.create_registered_model(name, {"dataset_fingerprint": fingerprint}, words)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        if client.get_registered_model(name).tags.get("dataset_fingerprint") == fingerprint:
            return name
    raise MlflowException(f"the registered model {name} is of other images")


def _scores(tags: dict[str, str]) -> tuple[float, float]:
    """What champions are compared by: higher is better."""
    try:
        return float(tags["validation_accuracy"]), -float(tags["validation_loss"])
    except (KeyError, ValueError):  # somebody else's version
        return NONE
