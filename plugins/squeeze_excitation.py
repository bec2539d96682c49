"""A layer that weighs the channels. A space, or an architecture.json, names it by its class."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nas.architecture.layer import Layer, Shape, channels_of, count


class Gate(nn.Module):
    """Multiplies each channel of (N, channels, *sizes) by a number from 0 to 1 that all channels decide."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, hidden)
        self.excite = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        weights = torch.sigmoid(self.excite(torch.relu(self.squeeze(x.flatten(2).mean(2)))))
        return x * weights.view(*weights.shape, *[1] * (x.ndim - 2))


@dataclass(frozen=True)
class SqueezeExcitation(Layer):
    """Squeeze and excitation (Hu et al., Squeeze-and-excitation networks, 2018)."""

    reduction: int = count(4)  # the number of channels for each unit of the hidden layer

    def hidden(self, shape: Shape) -> int:
        return max(1, channels_of(shape) // self.reduction)

    def output_shape(self, shape: Shape) -> Shape:
        self.hidden(shape)
        return shape

    def parameters(self, shape: Shape) -> int:
        return 2 * shape[0] * self.hidden(shape) + shape[0] + self.hidden(shape)

    def flops(self, shape: Shape) -> int:
        return 4 * shape[0] * self.hidden(shape)

    def module(self, shape: Shape) -> nn.Module:
        return Gate(shape[0], self.hidden(shape))
