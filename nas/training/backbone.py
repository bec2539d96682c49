"""The networks of torchvision without their classifiers, and the weights that they have from ImageNet.

torchvision is imported when one is built: that takes 5 seconds, and most searches do without.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.architecture.layers import Pretrained, Shape
from nas.data.download import FAILURES, WEIGHTS_SECONDS, stream
from nas.errors import DataError

LARGEST = 3_000_000_000  # bytes; the largest of torchvision's files has 2.5 · 10⁹
# Two models scale what they get to another range than all others do, by these factors for red, green and blue.
OWN_RANGE = dict.fromkeys(("googlenet", "inception_v3"), (0.458, 0.448, 0.45))

State = dict[str, Tensor]


class Backbone(nn.Module):
    """A classification network of torchvision without its classifier.

    It is built with random weights, and `adopt` gives it those from ImageNet: a network that was trained is built
    and loaded without them.

    Args:
        layer: which one, and how it learns.
        shape: of its input.
    """

    def __init__(self, layer: Pretrained, shape: Shape) -> None:
        super().__init__()
        self.model, self.pretrained, self.frozen = layer.model, layer.weights, layer.frozen
        self.size = layer.facts.takes(shape[1], shape[2])
        self.resizes = self.size != tuple(shape[1:])
        self.shrinks = self.size[0] < shape[1] or self.size[1] < shape[2]
        self.body = headless(layer.model, shape[0])
        self.body.requires_grad_(not layer.frozen)

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, features)."""
        if self.resizes:
            x = functional.interpolate(x, self.size, mode="bilinear", antialias=self.shrinks)
        features: Tensor = self.body(x)
        return features

    def train(self, mode: bool = True) -> Backbone:
        """As always; but a frozen one stays in evaluation mode, statistics and all."""
        return super().train(mode and not self.frozen)

    def adopt(self, weights: State) -> None:
        """Take over the weights of an ImageNet classifier; changes ``weights``.

        Where there are not three channels, each gets the mean over the three, larger by as much as there are fewer
        of them, so that grey images give what they would give as coloured ones.

        Raises:
            DataError: they are not those of the model.
        """
        try:
            missing = self._load(weights)
        except (RuntimeError, TypeError, AttributeError, LookupError, ValueError) as error:
            raise _damaged(self.model, str(error)) from None
        if missing:
            raise _damaged(self.model, f"{missing[0]} is missing")

    def _load(self, weights: State) -> list[str]:
        """Take over what there is but the classifier, and tell what is missing."""
        for key in list(weights):  # densenet's have names that modules cannot have any more
            weights[re.sub(r"(denselayer\d+\.(?:norm|conv))\.(?=[12]\.)", r"\1", key)] = weights.pop(key)
        name, first = input_convolution(self.body)
        kernel = weights[f"{name}.weight"]
        if kernel.shape != (first.out_channels, 3, *first.kernel_size):
            raise ValueError(f"{name}.weight has the shape {tuple(kernel.shape)}")
        if self.model in OWN_RANGE:
            kernel = kernel * torch.tensor(OWN_RANGE[self.model]).view(3, 1, 1)
        if first.in_channels != 3:
            kernel = kernel.mean(1, keepdim=True).repeat(1, first.in_channels, 1, 1) * (3 / first.in_channels)
        weights[f"{name}.weight"] = kernel
        missing: list[str] = self.body.load_state_dict(weights, strict=False).missing_keys
        return missing


def headless(model: str, channels: int) -> nn.Module:
    """A classification network of torchvision that gives what its classifier would get; its weights are random."""
    from torchvision.models import get_model

    network: nn.Module = get_model(model, weights=None, **options_of(model))
    network.set_submodule(classifier_of(network), nn.Identity())
    name, first = input_convolution(network)
    if channels != 3:
        how: dict[str, Any] = {"stride": first.stride, "padding": first.padding, "bias": first.bias is not None}
        adapted = nn.Conv2d(channels, first.out_channels, first.kernel_size, **how)  # type: ignore[arg-type]
        network.set_submodule(name, adapted)
    return network


def options_of(model: str) -> dict[str, Any]:
    """What torchvision has to be told to build a model as it is used here."""
    from torchvision.models import get_model_weights

    if model in ("googlenet", "inception_v3"):
        return {"aux_logits": False, "init_weights": False}
    if model.startswith("vit_"):
        return {"image_size": get_model_weights(model).DEFAULT.meta["min_size"][0]}
    return {}


def classifier_of(network: nn.Module) -> str:
    """The name of the classifier in a model of torchvision: the last linear map; squeezenet's is a convolution."""
    classifier: str
    *_, classifier = (name for name, part in network.named_modules() if isinstance(part, nn.Linear | nn.Conv2d))
    return classifier


def input_convolution(network: nn.Module) -> tuple[str, nn.Conv2d]:
    """The first convolution of a model, and its name."""
    return next((name, part) for name, part in network.named_modules() if isinstance(part, nn.Conv2d))


def imagenet(model: str) -> State:
    """The weights that torchvision has for a model, from torchvision's own cache, or downloaded to there.

    Raises:
        DataError: they are neither cached nor to be had, or damaged.
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
        raise _damaged(model, f"but a {type(weights).__name__}")
    return weights


def _place(model: str) -> tuple[str, Path]:
    """Where the weights of a model are to be had, and where they are kept."""
    from torchvision.models import get_model_weights

    url: str = get_model_weights(model).DEFAULT.url
    return url, Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])


def _fetch(url: str, path: Path) -> None:
    """Download a file, whose name ends in the beginning of its SHA-256; it is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")  # several workers may want the same file
    digest = hashlib.sha256()
    try:
        with part.open("wb") as file:
            for chunk in stream(url, LARGEST, time.monotonic() + WEIGHTS_SECONDS):
                digest.update(chunk)
                file.write(chunk)
        if not digest.hexdigest().startswith(path.stem.rpartition("-")[2]):
            raise OSError(f"what came has the SHA-256 {digest.hexdigest()[:16]}…")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _damaged(model: str, reason: str) -> DataError:
    reason = " ".join(reason.split())[:150]
    return DataError(
        f"{_place(model)[1]} does not hold the ImageNet weights of {model} ({reason}): remove it, so that it is "
        "downloaded again, or use random weights (pretrained=false)"
    )
