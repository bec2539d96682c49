"""The winner as an MLflow model."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from nas.training.network import Network


def log_model(tracking_uri: str, run_id: str, network: Network, example: Tensor) -> None:
    """Log the network to a run, with a signature and an input example.

    Args:
        tracking_uri: the store.
        run_id: the run that the model belongs to.
        network: in evaluation mode.
        example: two or more raw images (N, C, H, W), uint8.
    """
    import mlflow
    import torch
    from mlflow.models import infer_signature

    images = example.float()
    with torch.inference_mode():
        signature = infer_signature(images.numpy(), network(images).numpy())
    mlflow.set_tracking_uri(tracking_uri)
    with mlflow.start_run(run_id=run_id):
        mlflow.pytorch.log_model(
            network,
            name="model",
            signature=signature,
            input_example=images.numpy(),
            # Given, because finding them out takes longer than a training.
            pip_requirements=[f"{package}=={version(package)}" for package in ("mlflow", "torch")],
        )
