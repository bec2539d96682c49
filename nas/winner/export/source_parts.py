"""The pieces that a network's source code is put together from: text, formatted as ruff and black do."""

FILE = '''\
"""A network for {dataset}.

Images of {image}, {count} classes, {parameters} parameters; architecture {id}.
Written by nas export {version}. The weights are in weights.pt, beside this file;
what it needs is {needs}.

    from network import CLASSES, load

    network = load()
    logits = network(images)  # uint8 (N, {channels}, height, width), 0 to 255
    names = [CLASSES[best] for best in logits.argmax(1)]
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional{torchvision}

WEIGHTS = Path(__file__).with_name("weights.pt")
SIZE = {size}  # height and width of the images it learned from
CLASSES = {classes}
{helpers}

class Network(nn.Module):
    """Takes raw images; resizing and normalisation are its first steps."""

    def __init__(self) -> None:
        super().__init__()
        # Of each channel of the images it learned from; the weights have the values.
        self.register_buffer("mean", torch.zeros({channels}, 1, 1))
        self.register_buffer("std", torch.ones({channels}, 1, 1))
        self.layers = nn.Sequential(
{layers}        )

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, {count}) of images (N, {channels}, any height, any width), 0 to 255."""
        x = images.float()
        x = functional.interpolate(x, SIZE, mode="bilinear", antialias=True)
        x = (x - self.mean) / self.std
        return self.layers(x)


def load(weights: Path = WEIGHTS) -> Network:
    """The trained network, ready to be used."""
    network = Network()
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return network.eval()
'''

MAXOUT = '''
class Maxout(nn.Module):
    """The larger of two linear maps: the first and the second half of the channels."""

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=1)
        return torch.maximum(first, second)
'''

RESIDUAL = '''
class Residual(nn.Module):
    """Two convolutions, whose result is added to the input."""

    def __init__(self, channels, filters, kernel, activation, stride=1) -> None:
        super().__init__()
        pad = kernel // 2
        self.body = nn.Sequential(
            nn.Conv2d(channels, filters, kernel, stride, pad, bias=False),
            nn.BatchNorm2d(filters),
            activation,
            nn.Conv2d(filters, filters, kernel, 1, pad, bias=False),
            nn.BatchNorm2d(filters),
        )
        self.shortcut = nn.Identity()
        if stride > 1 or channels != filters:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, filters, 1, stride, bias=False),
                nn.BatchNorm2d(filters),
            )
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.body(x) + self.shortcut(x))
'''

CELL = '''
class Cell(nn.Module):
    """Nodes of which each is the sum of what all earlier ones send it, through an edge.

    The first one is the input, the last one the output; for each of the others there is
    a list of its edges, from the first node, from the second, ….
    """

    def __init__(self, channels: int, *nodes: list[str]) -> None:
        super().__init__()
        self.nodes = nn.ModuleList()
        for names in nodes:
            edges = [edge(name, channels) for name in names]
            self.nodes.append(nn.ModuleList(edges))

    def forward(self, x: Tensor) -> Tensor:
        maps = [x]
        for edges in self.nodes:
            maps.append(sum(edge(earlier) for edge, earlier in zip(edges, maps)))
        return maps[-1]


class Zeros(nn.Module):
    """Nothing, in the shape of its input."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


def edge(name: str, channels: int) -> nn.Module:
    """What an edge of a cell does, by the names of NAS-Bench-201."""
    if name == "none":
        return Zeros()
    if name == "skip_connect":
        return nn.Identity()
    if name == "avg_pool_3x3":
        return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
    kernel = 3 if name == "nor_conv_3x3" else 1
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(channels, channels, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(channels),
    )
'''

BACKBONE = '''
class Backbone(nn.Module):
    """torchvision's {model} without its classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.body = get_model({call})
        self.body.set_submodule({classifier}, nn.Identity())
{adapt}
    def forward(self, x: Tensor) -> Tensor:
        """Features (N, {features})."""
{resize}        return self.body(x)
'''

ADAPT = """\
        first = {first}
        self.body.set_submodule({name}, first)
"""
