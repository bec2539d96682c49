"""The interface of every data set."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.data.dataset import verify_test
from nas.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from nas.data.dataset import Array, Dataset, Split
    from nas.data.resize import Fit


# The ways to make an image file similar to the images of a data set: see `DatasetPlugin.framing`.
FRAMINGS = ("stretch", "crop", "pad", "centred", "whole")  # "whole" is an earlier name of "stretch"


# What coloured photographs show does not change if they are mirrored. Of many, batches are twice as large as
# elsewhere: in bfloat16, a core does up to 1.6 times as many images a second, and an epoch has enough steps.
# Few are learned by heart, unless they are changed more (docs/decisions/0012-the-plan.md). Muon learns more in an
# epoch (0013-muon.md). Two parts of a batch let a finalist that trains alone use two cores (0014-idle-cores.md).
Fields = Mapping[str, str | int | float]
PHOTOGRAPHS: Fields = {"base": "photographs", "optimiser": "muon", "batch_size": 128, "parts": 2}
SMALL_PHOTOGRAPHS: Fields = {**PHOTOGRAPHS, "shift": 2}
GREY: Fields = {"base": "default", "optimiser": "muon", "parts": 2}
FEW_GREY: Fields = {**GREY, "brightness": 0.3, "erasing": 0.3}
FEW_PHOTOGRAPHS: Fields = {**FEW_GREY, "base": "photographs", "colour": 0.3, "mixup": 0.2}
# Series learn with smaller steps than images: of ArrowHead's, 78 % were right with the default rate of 0.01, 82 %
# with 0.003 (two seeds of one network). Few of them are changed more, and have smaller batches.
SERIES: Fields = {"base": "default", "learning_rate": 0.003, "shift": 0}
FEW_SERIES: Fields = {
    **SERIES, "batch_size": 16, "label_smoothing": 0.1, "window": 0.1, "warp": 0.1, "magnitude": 0.1,
}  # fmt: skip
MANY = 20_000  # images
SMALL = 48  # pixels: many images of smaller sides are moved by less (0014-idle-cores.md)


def fit_of(framing: str) -> Fit:
    """How the resize of a framing treats the aspect ratio: see `nas.data.decoder.Frame`."""
    return "crop" if framing == "crop" else "pad" if framing == "pad" else "stretch"


class DatasetPlugin(ABC):
    """A data set: it loads its images, and finds, downloads and verifies their files.

    The first line of a plugin's docstring is shown to users. `load` and `load_test` are enough; the other methods
    are for data that are stored in files. A method raises `DataError` if data are missing, incomplete or damaged.
    """

    name: str
    # How an image file is made similar to these images by `nas predict` and by exported models: it is resized, and
    # if it has another aspect ratio, it is cropped to its centre ("crop"), padded with black ("pad") or distorted
    # ("stretch"). "centred": it becomes a light drawing on black, scaled to 20/28 of the sides, its centre of mass
    # in the middle, as in MNIST (LeCun, 1998); exported models stretch it.
    framing: str = "stretch"
    # How a file becomes an input, where it is no image: plain JSON (`nas.data.sequences.reading`), kept with the
    # winner for `nas predict`. `load` may set it.
    reading: Mapping[str, Any] = {}
    # The name of the recipe for these images (see `nas.training.recipe`), or a table of its fields with a "base".
    recipe: str | Mapping[str, str | int | float] = "default"
    # Names of ways to change training images (`nas.training.recipe.AUGMENTATIONS`), of which a short comparison
    # before a search takes one; the first one is that of the recipe. Empty: the recipe is right for these images.
    augmentations: Sequence[str] = ()
    # The operations of a network for an image, at most, if a search does not set it; None: by the size of the
    # images and the time that the search has.
    max_flops: int | None = None
    note: str = ""  # lines for the user, such as the reason for the choice of `auto`
    address: str = ""  # what `--dataset` takes for it, where that is not its name: a path
    chosen: Mapping[str, str] = {}  # options that `load` has decided, which are kept in the record
    left_out: Sequence[tuple[str, str]] = ()  # path and reason, of what `load` has left out
    progress: Callable[[int, int], None] = staticmethod(lambda done, total: None)  # `load` says how far it is

    def __init__(self, folders: Sequence[Path]) -> None:
        """Search for the data in these folders (at least one), in this order; download to the last one."""
        self.folders = list(folders)

    @abstractmethod
    def load(self) -> Dataset:
        """Training and validation images, the same on every machine (see `stratified`), made by `Dataset.of`."""

    @abstractmethod
    def load_test(self) -> Split:
        """The test images, which only nas/winner opens: once, for the winner."""

    def check_test(self, data: Dataset) -> None:
        """Refuse test images on which a network for ``data`` could not be tested; nobody is shown them.

        A search asks for this before its first training, which would otherwise be lost.
        """
        verify_test(self.load_test(), data)

    def locate(self) -> Path | None:
        """The file or folder of the data on this machine, or None if there is none. The data are not verified."""
        return None

    def fetch(self, folder: Path | None = None) -> Path:
        """Download missing files, or raise `DataError` if that is impossible; returns the file or folder."""
        path = self.locate()
        if path is None:
            raise DataError(f"{self.name} cannot be downloaded")
        return path

    def verify(self) -> list[str]:
        """Verify the data; returns one line for each part."""
        data = self.load()
        self.check_test(data)
        parts = {"train": data.train, "validation": data.validation}
        return [*(f"{part}: ok ({len(split):,} {data.kind})" for part, split in parts.items()), "test: ok"]

    def searched(self) -> str:
        """The beginning of an error message about missing data, with the folders that were searched."""
        return f"{self.name} was not found in {', '.join(str(folder) for folder in self.folders)}"


def stratified(labels: Array, sizes: Sequence[int], seed: int) -> list[Array]:
    """Divide images into parts in which every class has its share (a stratified split).

    The division is the same on every machine and with every version of NumPy: it uses the raw numbers of PCG64,
    which NumPy promises not to change, unlike the methods of ``Generator``.

    Args:
        labels: ``(N,)``, the class of each image.
        sizes: the number of images of each part; their sum is at most N.
        seed: decides the division.

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
