"""The winner as an MLflow model."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING

from nas.outcome.handover import load_network
from nas.records.observer import Header, Outcome

if TYPE_CHECKING:
    from torch import Tensor


def log_model_of(header: Header) -> Callable[[Outcome, str, str], None]:
    """`log_model` for when the images are not at hand: the example is black."""
    import torch

    return partial(log_model, torch.zeros((2, *header.limits.input_shape), dtype=torch.uint8))


def log_model(example: Tensor, outcome: Outcome, tracking_uri: str, run_id: str) -> None:
    """Log the winner to a run, with a signature and an input example.

    The format is a ``torch.export`` archive: it runs no code of this package, or of anybody else, when it is
    loaded.

    Args:
        example: two or more raw images (N, C, H, W), uint8.
        outcome: whose winner.
        tracking_uri: the store.
        run_id: the run that the model belongs to.
    """
    import mlflow
    import torch
    from mlflow.models import infer_signature

    network = load_network(outcome.weights.parent)
    images = example.float()
    with torch.inference_mode():
        signature = infer_signature(images.numpy(), network(images).numpy())
    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(tracking_uri)  # which sets the variable, too
    try:
        with mlflow.start_run(run_id=run_id), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch.export's own, about tensors that share their memory
            mlflow.pytorch.log_model(
                network,
                name="model",
                signature=signature,
                input_example=images.numpy(),
                tags={"nas.job": outcome.winner.job.key},
                # Given, because finding them out takes longer than a training.
                pip_requirements=[f"{package}=={version(package)}" for package in ("mlflow", "torch")],
            )
    finally:
        mlflow.set_tracking_uri(before or "")
        if before is None:
            os.environ.pop("MLFLOW_TRACKING_URI", None)
