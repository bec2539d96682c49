"""How a space fits the images and the limits: how often it halves them, and how wide its layers are."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nas.architecture.architecture import Limits

# Operations for one image of MNIST. The lecture's network needs 4,881,920; larger ones train too slowly on a CPU.
MNIST_FLOPS = 5_000_000
# The widths of a space are for so many operations for each pixel of the first stage, and for so many parameters.
CHEAP_PER_PIXEL, DEAR_PER_PIXEL = MNIST_FLOPS / (28 * 28), 20_000
CHEAP_PARAMETERS, DEAR_PARAMETERS = 100_000, 200_000
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
    scale: float  # of the widths
    is_cheap: bool  # whether the networks cost no more than those for MNIST

    @classmethod
    def of(cls, limits: Limits) -> Fit:
        """The fit to images of ``limits.input_shape`` (channels, height, width)."""
        height, width = limits.input_shape[1:] if len(limits.input_shape) == 3 else (1, 1)
        halvings = max(0, math.ceil(math.log2(max(height, width) / LARGEST_MAP)))
        smallest = min(height, width) / 2**halvings
        stages = 1 + max(0, math.floor(math.log2(max(1.0, smallest / SMALLEST_MAP))))
        flops = limits.max_flops or MNIST_FLOPS
        is_cheap = flops <= MNIST_FLOPS
        # The operations of a convolution grow with the square of the widths, and so do its parameters.
        per_pixel = flops / (height * width / 4**halvings)
        scale = math.sqrt(per_pixel / (CHEAP_PER_PIXEL if is_cheap else DEAR_PER_PIXEL))
        if limits.max_parameters:
            usual = CHEAP_PARAMETERS if is_cheap else DEAR_PARAMETERS
            scale = min(scale, math.sqrt(limits.max_parameters / usual))
        return cls(halvings, min(MOST_STAGES, stages), max(1.0, scale) if is_cheap else scale, is_cheap)

    def widths(self, *usual: int) -> list[int]:
        """The widths that are offered: scaled, and then multiples of 8, from 64 on of 16."""
        scaled = [width if self.scale == 1 else _multiple(self.scale * width) for width in usual]
        return list(dict.fromkeys(scaled))


def _multiple(width: float) -> int:
    step = 8 if width < 64 else 16
    return max(step, step * round(width / step))
