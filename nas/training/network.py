"""An architecture becomes a PyTorch module."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.architecture.architecture import Architecture
from nas.architecture.layers import (
    Activation,
    AveragePool,
    BatchNorm,
    Cell,
    Conv2d,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePool,
    Layer,
    MaxPool,
    Pretrained,
    ResidualBlock,
    SeparableConv2d,
    Shape,
)
from nas.training import modules
from nas.training.backbone import Backbone

# f(max(x)) = max(f(x)) for every f that never falls, so pooling first is the same function at a quarter of the
# work. Maxout is a maximum itself. GELU and SiLU fall before they rise.
MONOTONE = frozenset({"sigmoid", "tanh", "relu", "leaky_relu", "elu", "maxout"})

Named = tuple[str, nn.Module]


class Network(nn.Module):
    """The module of an architecture, which takes raw images: normalisation is its first step.

    Args:
        architecture: what to build.
        input_shape: (channels, height, width) of an image.
        classes: how many there are.
        mean: of each channel over the training images, on the scale of 0 to 255.
        std: likewise.

    Raises:
        ArchitectureError: a layer does not fit.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        architecture: Architecture,
        input_shape: Shape,
        classes: int,
        *,
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (255.0,),
    ) -> None:
        super().__init__()
        self.size = tuple(input_shape[1:])  # height, width
        self.register_buffer("mean", torch.tensor([float(value) for value in mean]).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor([max(1.0, value) for value in std]).view(-1, 1, 1))
        shapes = [input_shape, *(row.shape for row in architecture.table(input_shape, classes))]
        layers = (*architecture.layers, Dense(classes))
        self.layers = nn.Sequential()
        for name, module in _pool_first(layers, shapes):
            self.layers.add_module(name, module)
        convolutions = [part for part in self.modules() if isinstance(part, nn.Conv2d)]  # torchvision's, too
        self.has_depthwise = any(part.groups == part.in_channels > 1 for part in convolutions)
        self.dropouts = [part for part in self.modules() if isinstance(part, modules.Dropout)]
        self.to(memory_format=torch.channels_last)  # 1.2–1.5× on CPUs

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, C, H, W), uint8 or float, 0 to 255."""
        x = (images.to(self.mean.dtype) - self.mean) / self.std
        return self.layers(x.contiguous(memory_format=torch.channels_last))  # type: ignore[no-any-return]

    def use_keys(self, keys: Tensor | None) -> None:
        """Let the masks of all dropout layers follow from ``keys`` (dropout layers,), or be PyTorch's again."""
        for number, layer in enumerate(self.dropouts):
            layer.keys = None if keys is None else keys[number]


class AnySize(nn.Module):
    """A trained network that takes images of any size: what an exported model does, preprocessing and all.

    Args:
        network: it takes images of one size.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of raw images (N, C, any height, any width), uint8, 0 to 255.

        They are resized as PIL does, bilinear with antialiasing; those of the right size stay as they are, bit for
        bit.
        """
        size = self.network.size
        resized = functional.interpolate(images.float(), size, mode="bilinear", antialias=True)
        return self.network(resized)  # type: ignore[no-any-return]


def _pool_first(layers: Sequence[Layer], shapes: Sequence[Shape]) -> Iterator[Named]:
    """The named modules of all layers; a monotone activation is moved behind the max pooling that follows."""
    held: list[Named] = []
    done = 0  # the position of a pooling that the convolution before it does
    for position, (layer, shape) in enumerate(zip(layers, shapes, strict=False), 1):
        if position == done:
            continue
        window = _window(layer, layers[position:])
        done = position + 1 if window else 0
        parts, act = _modules(layer, shape, window)
        if not isinstance(layer, MaxPool):
            yield from held
            held = []
        yield from ((f"{position}_{name}", module) for name, module in parts)
        if isinstance(layer, MaxPool):
            yield from held
            held = []
        if act != "linear":
            held = [(f"{position}_{act}", modules.activation(act))]
            if act not in MONOTONE:
                yield from held
                held = []
    yield from held


def _window(layer: Layer, following: Sequence[Layer]) -> int:
    """Of the max pooling that a convolution can do before its bias and its activation; 0 for none."""
    is_plain = isinstance(layer, Conv2d) and not layer.batch_norm and layer.activation in (*MONOTONE, "linear")
    return following[0].size if is_plain and following and isinstance(following[0], MaxPool) else 0


def _modules(layer: Layer, shape: Shape, window: int) -> tuple[list[Named], str]:
    """What a layer does before its activation, and the activation's name. Pooling has a window, or 0."""
    match layer:
        case Conv2d():
            how: dict[str, Any] = {"stride": layer.stride, "padding": layer.pad, "bias": not layer.batch_norm}
            convolution = modules.Conv(shape[0], layer.maps, layer.kernel, window=window, **how)
            return [("conv", convolution), *_norm(layer)], layer.activation
        case SeparableConv2d():
            channels = shape[0]
            how = {"stride": layer.stride, "padding": layer.pad, "bias": False}
            depth = modules.Conv(channels, channels, layer.kernel, groups=channels, **how)
            point = modules.Conv(channels, layer.maps, 1, bias=not layer.batch_norm)
            return [("depthwise", depth), ("pointwise", point), *_norm(layer)], layer.activation
        case ResidualBlock():
            return [("residual", modules.Residual(layer, shape))], "linear"
        case Cell():
            return [("cell", modules.CellGraph(layer, shape))], "linear"
        case Pretrained():
            return [("backbone", Backbone(layer, shape))], "linear"
        case MaxPool():
            return [("max_pool", modules.MaxPool(layer.size))], "linear"
        case AveragePool():
            return [("average_pool", nn.AvgPool2d(layer.size))], "linear"
        case GlobalAveragePool():
            return [("global_average_pool", nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))], "linear"
        case Flatten():
            return [("flatten", nn.Flatten())], "linear"
        case Dropout():
            return [("dropout", modules.Dropout(layer.rate))], "linear"
        case BatchNorm():
            norm = nn.BatchNorm2d if len(shape) == 3 else nn.BatchNorm1d
            return [("bn", norm(shape[0]))], "linear"
        case Activation():
            return [], layer.name
        case Dense():
            return [("dense", nn.Linear(shape[0], layer.maps))], layer.activation
    raise TypeError(f"no module is known for {layer!r}")


def _norm(layer: Conv2d | SeparableConv2d) -> list[Named]:
    return [("bn", nn.BatchNorm2d(layer.maps))] if layer.batch_norm else []


def right_and_loss(network: Network, images: Tensor, labels: Tensor, batch: int = 500) -> tuple[Tensor, float]:
    """Which images a network classifies right, (N,) bool, and the mean cross-entropy in nats.

    Reads the device once, at the end.
    """
    right, loss = measured(network, images, labels, batch)
    return right, loss.item() / len(labels)


def measured(network: Network, images: Tensor, labels: Tensor, batch: int = 500) -> tuple[Tensor, Tensor]:
    """Measure a network on images (N, C, H, W) in evaluation mode; everything stays on the device.

    Returns:
        Which images it classifies right, (N,) bool, and the summed cross-entropy in nats, ().
    """
    was_training = network.training
    network.eval()
    right, loss = [], network.mean.new_zeros(())
    with torch.inference_mode():
        for some, truth in zip(torch.split(images, batch), torch.split(labels, batch), strict=True):
            logits = network(some)[..., None]  # without the last dimension the loss has other last digits
            right.append(logits.argmax(1)[:, 0] == truth)
            loss += functional.cross_entropy(logits, truth[:, None], reduction="none").sum()
    network.train(was_training)
    return torch.cat(right), loss
