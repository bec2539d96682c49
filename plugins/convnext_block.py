"""A layer in ten lines: it wraps a module from the file beside this one."""

from dataclasses import dataclass

from _convnext import Block
from torch import nn

from nas.architecture.layer import Layer, Shape, image_of, setting


@dataclass(frozen=True)
class ConvNextBlock(Layer):
    """A block of ConvNeXt (Liu et al., A ConvNet for the 2020s, 2022)."""

    kernel: int = setting(lambda value: value in (3, 5, 7), "3, 5 or 7", 7)

    def output_shape(self, shape: Shape) -> Shape:
        return image_of(shape)

    def module(self, shape: Shape) -> nn.Module:
        return Block(shape[0], self.kernel)
