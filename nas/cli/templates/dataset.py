"""A data set: what networks learn from. `nas search --dataset my-plugin` finds it by the name of this file."""

from __future__ import annotations

import numpy as np

from nas.data.dataset import Dataset, Split
from nas.data.plugin import DatasetPlugin, stratified

CLASSES = ("horizontal", "vertical")
SIZES = (1_400, 200, 400)  # training, validation, test


class MyPlugin(DatasetPlugin):
    """Stripes across or down, in noise (`nas plugins list` shows this line)."""

    def load(self) -> Dataset:
        """Training and validation images, the only ones that a search uses."""
        train, validation, _ = self._splits()
        return Dataset.of(self.name, train, validation, CLASSES)  # checks types, shapes and labels

    def load_test(self) -> Split:
        """The test images: opened once, for the winner."""
        return self._splits()[2]

    def _splits(self) -> list[Split]:
        # Read your own images here: (N, channels, height, width) uint8, and labels (N,), whole numbers from 0.
        # self.folders lists the folders to look in: --data-dir, NAS_DATA_DIR and the user's cache folder.
        rng = np.random.default_rng(0)
        labels = np.arange(sum(SIZES)) % len(CLASSES)
        images = rng.integers(0, 150, (len(labels), 1, 16, 16))
        across = np.zeros((16, 16), np.int64)
        across[::4] = 100
        images += np.where(labels[:, None, None, None] == 0, across, across.T)
        pixels = images.astype(np.uint8)
        # Every class has its share in each part, and the division is the same on every machine.
        return [Split.of(pixels[part], labels[part]) for part in stratified(labels, SIZES, seed=0)]
