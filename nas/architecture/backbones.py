"""The sizes and counts of torchvision's classification models, which are needed before a model is built.

``python experiments/backbones.py`` made backbones.csv: each model was built without its classifier and run on
PyTorch's meta device, where ``torch.utils.flop_counter`` counted its operations.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple


class Facts(NamedTuple):
    """The sizes and counts of a model without its classifier, for images of three channels."""

    size: int  # of the smallest square image that it takes, in pixels, but at least 28
    features: int  # the length of the vector that its classifier would get
    parameters: int
    flops: int  # for one image of that size
    channel_parameters: int  # the part of these that the first convolution has for each channel
    channel_flops: int
    fixed: int  # 1 if it takes no other size, 0 otherwise

    def takes(self, height: int, width: int) -> tuple[int, int]:
        """The height and width to which an image is resized: a side that is too small is enlarged."""
        return (self.size, self.size) if self.fixed else (max(height, self.size), max(width, self.size))


TABLE = Path(__file__).with_name("backbones.csv")
_version, _, *_lines = TABLE.read_text(encoding="utf-8").splitlines()
_rows = [(model, family, list(map(int, numbers))) for model, family, *numbers in csv.reader(_lines)]

TORCHVISION = _version.removeprefix("torchvision ")  # the version that was measured
BACKBONES = {model: Facts(*numbers) for model, _, numbers in _rows}
# The member with the fewest operations of each family; a family is a module of torchvision.
FAMILIES = {
    family: min((model for model, other, _ in _rows if other == family), key=lambda model: BACKBONES[model].flops)
    for family in sorted({family for _, family, _ in _rows})
}
