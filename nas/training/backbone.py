"""Torchvision's ImageNet weights: finding or downloading them, checking them, and loading them into a network."""

from __future__ import annotations

import hashlib
import os
import re
import time
from pathlib import Path

import torch
from torch import Tensor

from nas.architecture.modules import Backbone, input_convolution
from nas.data.download import FAILURES, WEIGHTS_SECONDS, stream
from nas.errors import DataError

LARGEST = 3_000_000_000  # bytes; torchvision's largest file has 2.5 · 10⁹
# Two models scale their input to another range than all others do, by these factors for red, green and blue.
OWN_RANGE = dict.fromkeys(("googlenet", "inception_v3"), (0.458, 0.448, 0.45))

State = dict[str, Tensor]


def adopt(backbone: Backbone, weights: State) -> None:
    """Load the weights of an ImageNet classifier, except its last layer, into a backbone; changes ``weights``.

    If the images do not have three channels, each channel gets the mean of the three kernels, scaled so that grey
    images give the same result as with three equal channels.

    Raises:
        DataError: the weights are not those of the model.
    """
    try:
        for key in list(weights):  # the file of densenet has names that modules cannot have any more
            weights[re.sub(r"(denselayer\d+\.(?:norm|conv))\.(?=[12]\.)", r"\1", key)] = weights.pop(key)
        name, first = input_convolution(backbone.body)
        kernel = weights[f"{name}.weight"]
        if kernel.shape != (first.out_channels, 3, *first.kernel_size):
            raise ValueError(f"{name}.weight has the shape {tuple(kernel.shape)}")  # noqa: TRY301
        if backbone.model in OWN_RANGE:
            kernel = kernel * torch.tensor(OWN_RANGE[backbone.model]).view(3, 1, 1)
        if first.in_channels != 3:
            kernel = kernel.mean(1, keepdim=True).repeat(1, first.in_channels, 1, 1) * (3 / first.in_channels)
        weights[f"{name}.weight"] = kernel
        missing = backbone.body.load_state_dict(weights, strict=False).missing_keys
    except (RuntimeError, TypeError, AttributeError, LookupError, ValueError) as error:
        raise _damaged(backbone.model, str(error)) from None
    if missing:
        raise _damaged(backbone.model, f"{missing[0]} is missing")


def imagenet(model: str) -> State:
    """The ImageNet weights of a model from torchvision's cache, into which they are downloaded if necessary.

    Raises:
        DataError: the weights are not in the cache and cannot be downloaded, or the file is damaged.
    """
    url, path = _place(model)
    if not path.is_file():
        try:
            _fetch(url, path)
        except FAILURES as error:
            raise DataError(
                f"the ImageNet weights of {model} are not in {path.parent} and cannot be downloaded ({error}): "
                f"put {path.name} there, or use random weights (pretrained=false)"
            ) from None
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001  a damaged file can raise anything
        raise _damaged(model, str(error)) from None
    if not isinstance(weights, dict):
        raise _damaged(model, f"it holds a {type(weights).__name__}")
    return weights


def _place(model: str) -> tuple[str, Path]:
    """The address of a model's weights, and their path in the cache."""
    from torchvision.models import get_model_weights

    url: str = get_model_weights(model).DEFAULT.url
    return url, Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])


def _fetch(url: str, path: Path) -> None:
    """Download a file completely or not at all; its name ends with the beginning of its SHA-256."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")  # several workers may download the same file
    digest = hashlib.sha256()
    try:
        with part.open("wb") as file:
            for chunk in stream(url, LARGEST, time.monotonic() + WEIGHTS_SECONDS):
                digest.update(chunk)
                file.write(chunk)
        if not digest.hexdigest().startswith(path.stem.rpartition("-")[2]):
            raise OSError(f"the downloaded file has the SHA-256 {digest.hexdigest()[:16]}…")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _damaged(model: str, reason: str) -> DataError:
    reason = " ".join(reason.split())[:150]
    return DataError(
        f"{_place(model)[1]} does not hold the ImageNet weights of {model} ({reason}): remove it, so that it is "
        "downloaded again, or use random weights (pretrained=false)"
    )
