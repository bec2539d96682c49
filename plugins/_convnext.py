"""A file of plain PyTorch, as it might come with a paper: it does not use nas.

ConvNeXt's block (Liu et al., A ConvNet for the 2020s, 2022).
"""

import torch
from torch import Tensor, nn


class Block(nn.Module):
    """A depthwise convolution and a perceptron for each pixel, added to the input (N, channels, H, W)."""

    def __init__(self, channels: int, kernel: int = 7, widening: int = 4) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.widen = nn.Linear(channels, widening * channels)
        self.narrow = nn.Linear(widening * channels, channels)
        self.scale = nn.Parameter(torch.full((channels,), 1e-2))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.scale * self.narrow(nn.functional.gelu(self.widen(y)))
        return x + y.permute(0, 3, 1, 2)
