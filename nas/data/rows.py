"""MNIST as series: a digit is read row after row, as a lecture shows a recurrent network with 28 steps."""

from __future__ import annotations

import numpy as np

from nas.data.dataset import Array, Split
from nas.data.mnist import Mnist
from nas.data.mnist5k import Mnist5k
from nas.data.plugin import Fields

UNCHANGED: Fields = {
    "base": "default",
    "shift": 0,
}  # a shift would move a row in time, or a pixel to another channel


def rows_of(split: Split) -> Split:
    """Images ``(N, 1, H, W)`` uint8 as series ``(N, W, H)`` float32: a row is a step, a column is a channel."""
    pixels = split.inputs.numpy()[:, 0].transpose(0, 2, 1)
    return Split.of(np.ascontiguousarray(pixels, np.float32), split.labels.numpy())


class MnistRows(Mnist):
    """MNIST as series of 28 rows, each of 28 pixels: 54,000 training, 6,000 validation and 10,000 test series."""

    name = "mnist-rows"
    framing = "stretch"
    recipe = UNCHANGED
    without_network = "Use `--dataset mnist-5k-rows`"

    def _split(self, images: Array, labels: Array) -> Split:
        return rows_of(super()._split(images, labels))


class Mnist5kRows(Mnist5k):
    """The 5,000 digits of mnist-5k as series of 28 rows, each of 28 pixels; they need no download."""

    name = "mnist-5k-rows"
    framing = "stretch"
    recipe = UNCHANGED

    def _parts(self) -> list[Split]:
        return [rows_of(split) for split in super()._parts()]
