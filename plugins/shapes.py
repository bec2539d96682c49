"""A data set whose images are drawn by a program: it needs no files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nas.data.dataset import Array, Dataset, Split
from nas.data.plugin import DatasetPlugin, stratified
from nas.errors import UsageError

CLASSES = ("circle", "square", "triangle", "cross")
SIZE = 28  # pixels a side


class Shapes(DatasetPlugin):
    """Circles, squares, triangles and crosses of different sizes and positions, in noise: 28×28, grey.

    Args:
        folders: not used.
        images: the number of images: 70 % for training, 10 % for validation, 20 % for the test.
    """

    name = "shapes"

    def __init__(self, folders: Sequence[Path], *, images: int = 4_000) -> None:
        super().__init__(folders)
        if images < 40:
            raise UsageError(f"images must be 40 or more, not {images}")
        self.images = images

    def load(self) -> Dataset:
        """Training and validation images."""
        train, validation, _ = self._parts()
        return Dataset.of(self.name, train, validation, CLASSES)

    def load_test(self) -> Split:
        """The test images."""
        return self._parts()[2]

    def _parts(self) -> list[Split]:
        labels = np.arange(self.images) % len(CLASSES)
        images = draw(labels)
        sizes = [self.images * share // 10 for share in (7, 1, 2)]
        return [Split.of(images[part], labels[part]) for part in stratified(labels, sizes, seed=0)]


def draw(labels: Array) -> Array:
    """One image for each label: ``(N, 1, 28, 28)`` uint8.

    The raw numbers of PCG64 are the same on every machine and with every version of NumPy, unlike those of a
    ``Generator``.
    """
    numbers = np.random.PCG64(0)

    def integers(low: int, high: int, *shape: int) -> Array:
        """Whole numbers from ``low`` to ``high``."""
        raw = numbers.random_raw(int(np.prod(shape))) % np.uint64(high - low + 1)
        return raw.astype(np.int64).reshape(shape) + low

    count = len(labels)
    radius = integers(4, 9, count, 1, 1)
    middle = integers(0, 7, 2, count, 1, 1) + 10  # so that the largest shape is inside the image
    y, x = np.arange(SIZE)[:, None] - middle[0], np.arange(SIZE) - middle[1]
    in_square = np.maximum(abs(x), abs(y)) <= radius
    inside = {
        "circle": x**2 + y**2 <= radius**2,
        "square": in_square,
        "triangle": in_square & (2 * abs(x) <= y + radius),
        "cross": in_square & (np.minimum(abs(x), abs(y)) <= radius // 4),
    }
    shape = np.choose(labels[:, None, None], [inside[name] for name in CLASSES])
    noise = integers(0, 100, count, SIZE, SIZE)
    image = noise + shape * integers(60, 155, count, 1, 1)
    pixels: Array = image[:, None].astype(np.uint8)
    return pixels
