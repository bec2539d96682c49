"""Where a data set comes from: the small surface that a plugin of this kind fills in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import numpy as np

from nas.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from nas.data.dataset import Array, Dataset, Split


# How a file's image is brought into the shape of a data set's: see `DatasetPlugin.framing`.
FRAMINGS = ("whole", "centred")


class DatasetPlugin(ABC):
    """Where a data set comes from: what a plugin of the kind "data set" is.

    The first line of its docstring describes it to people. `load` and `load_test` are enough; the other
    methods are for data that lie in files.
    """

    name: str
    # How an image from elsewhere is made like these. "whole": it is resized. "centred": a light drawing on black,
    # scaled to fit 20/28 of the sides, its centre of mass in the centre, as MNIST was made (LeCun et al., 1998).
    framing: str = "whole"
    note: str = ""  # a line that the person has to see: what `auto` had to do to get here

    def __init__(self, folders: Sequence[Path]) -> None:
        """Look in these folders, one or more, in this order; download to the last one."""
        self.folders = list(folders)

    @abstractmethod
    def load(self) -> Dataset:
        """Training and validation images, the same on every machine (see `stratified`), made by `Dataset.of`.

        Raises:
            DataError: they are absent, incomplete or damaged.
        """

    @abstractmethod
    def load_test(self) -> Split:
        """The test images: only nas/outcome may call this, once, for the winner.

        Raises:
            DataError: they are absent, incomplete or damaged.
        """

    def locate(self) -> Path | None:
        """Where the data lie on this machine, or None. Does not say that they are sound."""
        return None

    def fetch(self, folder: Path | None = None) -> Path:
        """Download what is missing, if this source knows how; returns where the data lie now.

        Raises:
            DataError: it could not be had.
        """
        found = self.locate()
        if found is None:
            raise DataError(f"{self.name} cannot be downloaded")
        return found

    def verify(self) -> list[str]:
        """Check what can be checked without a look at the test images; one line for each thing in order.

        Raises:
            DataError: something is not.
        """
        data = self.load()
        parts = {"train": data.train, "validation": data.validation}
        return [f"{part}: ok ({len(split):,} images)" for part, split in parts.items()]

    def searched(self) -> str:
        """For a message: where the data were looked for, in vain."""
        return f"{self.name} is in none of {', '.join(str(folder) for folder in self.folders)}"


def stratified(labels: Array, sizes: Sequence[int], seed: int) -> list[Array]:
    """Divide images into parts in which every class has its share.

    The same on every machine and with every version of NumPy: it rests on the raw numbers of PCG64, which
    NumPy promises to keep, not on ``Generator``'s methods, which it does not.

    Args:
        labels: ``(N,)``, the class of each image.
        sizes: how many images each part gets, exactly; together at most N.
        seed: another seed, another division.

    Returns:
        The sorted indices of each part, in the order of ``sizes``. In the first part, the number of images of
        each class is its exact share to within one image; in each further part, to within one more.
    """
    if sum(sizes) > len(labels) or min(sizes, default=0) < 0:
        raise DataError(f"{len(labels)} images cannot be divided into parts of {list(sizes)}")
    # Class after class, shuffled within each; then every (left / size)-th image goes to the part.
    order = np.lexsort((np.random.PCG64(seed).random_raw(len(labels)), labels))
    parts = []
    for size in sizes:
        taken = np.diff(np.arange(len(order) + 1) * size // max(len(order), 1)) == 1
        parts.append(np.sort(order[taken]))
        order = order[~taken]
    return parts
