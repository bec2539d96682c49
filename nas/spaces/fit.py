"""How a space fits the images and the limits: how often it halves them, and how wide its layers are."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nas.architecture.architecture import Limits

# Operations for one image of MNIST. The lecture's network needs 4,881,920; larger ones train too slowly on a CPU.
MNIST_FLOPS = 5_000_000
MNIST_PIXELS = 28 * 28
# Parameters that networks of the widths for MNIST may have; a tighter limit than this does not narrow them.
MNIST_PARAMETERS = 100_000
LARGEST_MAP = 40  # pixels of a side of the first stage: there, twice the side means four times the operations
SMALLEST_MAP = 4  # pixels of a side of the last stage
MOST_STAGES = 4


@dataclass(frozen=True)
class Fit:
    """What a space of convolutional networks does for images of one size within some limits.

    For images of MNIST and its limit it halves nothing first, has three stages, and leaves the widths alone.
    """

    halvings: int  # by the first convolutions
    stages: int  # maps of so many sizes, each half as large as the one before
    scale: float  # of the widths: 1 for the limits of MNIST
    is_small: bool  # whether the networks cost no more than those for MNIST

    @classmethod
    def of(cls, limits: Limits) -> Fit:
        """The fit to images of ``limits.input_shape`` (channels, height, width)."""
        height, width = limits.input_shape[1:] if len(limits.input_shape) == 3 else (1, 1)
        halvings = max(0, math.ceil(math.log2(max(height, width) / LARGEST_MAP)))
        smallest = min(height, width) / 2**halvings
        stages = 1 + max(0, math.floor(math.log2(max(1.0, smallest / SMALLEST_MAP))))
        flops = limits.max_flops or MNIST_FLOPS
        # The operations of a convolution grow with the square of the widths, and so do its parameters.
        scales = [math.sqrt(flops / MNIST_FLOPS * MNIST_PIXELS / (height * width / 4**halvings))]
        if limits.max_parameters:
            scales.append(math.sqrt(limits.max_parameters / MNIST_PARAMETERS))
        return cls(halvings, min(MOST_STAGES, stages), max(1.0, min(scales)), flops <= MNIST_FLOPS)

    def widths(self, *of_mnist: int) -> list[int]:
        """The widths that are offered where MNIST has these: scaled, and then multiples of eight."""
        scaled = [width if self.scale == 1 else 8 * round(self.scale * width / 8) for width in of_mnist]
        return list(dict.fromkeys(scaled))
