"""A layer: one step of a network. A space, or an architecture.json, names it by its class."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from nas.architecture.layer import Layer, Shape, channels_of, count


class MyPluginModule(nn.Module):
    """Plain PyTorch: `nas export --format python` writes this class into its file."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.norm = nn.GroupNorm(groups, channels)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape as x: (N, channels, *sizes)."""
        return self.norm(x)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class MyPlugin(Layer):
    """Normalises groups of channels (`nas plugins list` shows this line)."""

    # Settings are checked; the error for a wrong value names the allowed ones.
    groups: int = count(1)

    def output_shape(self, shape: Shape) -> Shape:
        """The shape of the output for an input of (channels, *sizes), without the batch."""
        # Raise an ArchitectureError if the layer does not fit; its position is added to the message.
        channels_of(shape)
        return shape

    def module(self, shape: Shape) -> nn.Module:
        """The module for an input of that shape; its parameters and operations are counted."""
        return MyPluginModule(shape[0], self.groups if shape[0] % self.groups == 0 else 1)
