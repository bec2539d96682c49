"""An architecture becomes a PyTorch module."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import reduce

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.architecture.architecture import Architecture
from nas.architecture.layers import (
    LEAKY_SLOPE,
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
    same_padding,
)
from nas.training.backbone import Backbone

# f(max(x)) = max(f(x)) for every f that never falls, so pooling first is the same function at a quarter of the
# work. Maxout is a maximum itself. GELU and SiLU fall before they rise.
MONOTONE = frozenset({"sigmoid", "tanh", "relu", "leaky_relu", "elu", "maxout"})

Named = tuple[str, nn.Module]


class Maxout(nn.Module):
    """The maximum of two linear maps: of the first and the second half of the channels (Goodfellow, 2013)."""

    def forward(self, x: Tensor) -> Tensor:
        """Half as many channels."""
        first, second = x.chunk(2, dim=1)
        return torch.maximum(first, second)


def activation(name: str) -> nn.Module:
    """The module of an activation's name."""
    modules: dict[str, Callable[[], nn.Module]] = {
        "sigmoid": nn.Sigmoid,
        "tanh": nn.Tanh,
        "relu": nn.ReLU,
        "leaky_relu": lambda: nn.LeakyReLU(LEAKY_SLOPE),
        "maxout": Maxout,
        "elu": nn.ELU,
        "gelu": nn.GELU,
        "silu": nn.SiLU,
    }
    return modules[name]()


class Residual(nn.Module):
    """Two convolutions, the input added (through ``shortcut``), the activation."""

    def __init__(self, layer: ResidualBlock, shape: Shape) -> None:
        super().__init__()
        size, pad, filters = layer.kernel, same_padding(layer.kernel), layer.filters
        self.body = nn.Sequential(
            nn.Conv2d(shape[0], filters, size, layer.stride, pad, bias=False),
            nn.BatchNorm2d(filters),
            activation(layer.activation) if layer.activation != "linear" else nn.Identity(),
            nn.Conv2d(filters, filters, size, 1, pad, bias=False),
            nn.BatchNorm2d(filters),
        )
        self.shortcut: nn.Module = nn.Identity()
        if layer.projects(shape):
            self.shortcut = nn.Sequential(
                nn.Conv2d(shape[0], filters, 1, layer.stride, bias=False), nn.BatchNorm2d(filters)
            )
        self.activation = activation(layer.activation) if layer.activation != "linear" else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """``activation(body(x) + shortcut(x))``."""
        return self.activation(self.body(x) + self.shortcut(x))  # type: ignore[no-any-return]


class Zeros(nn.Module):
    """Nothing, in the shape of its input."""

    def forward(self, x: Tensor) -> Tensor:
        """Zeros."""
        return torch.zeros_like(x)


class CellGraph(nn.Module):
    """Four nodes, each the sum of what the edges from all earlier ones bring."""

    def __init__(self, layer: Cell, shape: Shape) -> None:
        super().__init__()
        self.edges = nn.ModuleList(_operation(name, shape[0]) for name in layer.operations)

    def forward(self, x: Tensor) -> Tensor:
        """The last node."""
        maps = [x]
        for first in (0, 1, 3):  # of the edges into a node
            edges = self.edges[first : first + len(maps)]
            maps.append(reduce(torch.add, [edge(node) for edge, node in zip(edges, maps, strict=True)]))
        return maps[-1]


def _operation(name: str, channels: int) -> nn.Module:
    """The module of a cell's edge."""
    match name:
        case "none":
            return Zeros()
        case "skip_connect":
            return nn.Identity()
        case "avg_pool_3x3":
            return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
    kernel = 3 if name == "nor_conv_3x3" else 1
    convolution = nn.Conv2d(channels, channels, kernel, padding=same_padding(kernel), bias=False)
    return nn.Sequential(nn.ReLU(), convolution, nn.BatchNorm2d(channels))


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
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).clamp(min=1.0).view(-1, 1, 1))
        shapes = [input_shape, *(row.shape for row in architecture.table(input_shape, classes))]
        layers = (*architecture.layers, Dense(classes))
        self.layers = nn.Sequential()
        for name, module in _pool_first(layers, shapes):
            self.layers.add_module(name, module)
        self.to(memory_format=torch.channels_last)  # 1.2–1.5× on CPUs

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, C, H, W), uint8 or float on the scale of 0 to 255."""
        x = (images.float() - self.mean) / self.std
        return self.layers(x.contiguous(memory_format=torch.channels_last))  # type: ignore[no-any-return]


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
    for position, (layer, shape) in enumerate(zip(layers, shapes, strict=False), 1):
        linear, act = _modules(layer, shape)
        if not isinstance(layer, MaxPool):
            yield from held
            held = []
        yield from ((f"{position}_{name}", module) for name, module in linear)
        if isinstance(layer, MaxPool):
            yield from held
            held = []
        if act != "linear":
            held = [(f"{position}_{act}", activation(act))]
            if act not in MONOTONE:
                yield from held
                held = []
    yield from held


def _modules(layer: Layer, shape: Shape) -> tuple[list[Named], str]:
    """What a layer does before its activation, and the activation's name."""
    match layer:
        case Conv2d():
            convolution = nn.Conv2d(
                shape[0], layer.maps, layer.kernel, layer.stride, layer.pad, bias=not layer.batch_norm
            )
            return [("conv", convolution), *_norm(layer)], layer.activation
        case SeparableConv2d():
            channels = shape[0]
            depth = nn.Conv2d(
                channels, channels, layer.kernel, layer.stride, layer.pad, groups=channels, bias=False
            )
            point = nn.Conv2d(channels, layer.maps, 1, bias=not layer.batch_norm)
            return [("depthwise", depth), ("pointwise", point), *_norm(layer)], layer.activation
        case ResidualBlock():
            return [("residual", Residual(layer, shape))], "linear"
        case Cell():
            return [("cell", CellGraph(layer, shape))], "linear"
        case Pretrained():
            return [("backbone", Backbone(layer, shape))], "linear"
        case MaxPool():
            return [("max_pool", nn.MaxPool2d(layer.size))], "linear"
        case AveragePool():
            return [("average_pool", nn.AvgPool2d(layer.size))], "linear"
        case GlobalAveragePool():
            return [("global_average_pool", nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))], "linear"
        case Flatten():
            return [("flatten", nn.Flatten())], "linear"
        case Dropout():
            return [("dropout", nn.Dropout(layer.rate))], "linear"
        case BatchNorm():
            return [("bn", nn.BatchNorm2d(shape[0]) if len(shape) == 3 else nn.BatchNorm1d(shape[0]))], "linear"
        case Activation():
            return [], layer.name
        case Dense():
            return [("dense", nn.Linear(shape[0], layer.maps))], layer.activation
    raise TypeError(f"no module is known for {layer!r}")


def _norm(layer: Conv2d | SeparableConv2d) -> list[Named]:
    return [("bn", nn.BatchNorm2d(layer.maps))] if layer.batch_norm else []


def accuracy_and_loss(network: nn.Module, images: Tensor, labels: Tensor, batch: int = 500) -> tuple[float, float]:
    """The fraction classified right, and the mean cross-entropy in nats."""
    right, loss = right_and_loss(network, images, labels, batch)
    return int(right.sum().item()) / len(labels), loss


def right_and_loss(network: nn.Module, images: Tensor, labels: Tensor, batch: int = 500) -> tuple[Tensor, float]:
    """Which images are classified right, (N,) bool, and the mean cross-entropy in nats.

    Reads the device once, at the end.
    """
    was_training = network.training
    network.eval()
    right, loss = [], torch.zeros((), device=images.device)
    with torch.inference_mode():
        for start in range(0, len(labels), batch):
            logits = network(images[start : start + batch])
            truth = labels[start : start + batch]
            right.append(logits.argmax(1) == truth)
            loss += functional.cross_entropy(logits, truth, reduction="sum")
    network.train(was_training)
    return torch.cat(right), loss.item() / len(labels)
