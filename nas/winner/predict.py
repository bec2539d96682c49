"""Classify image files with a trained network. They are read one by one and classified in batches."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nas.architecture.layers import show
from nas.data.dataset import Array
from nas.data.decoder import ENDINGS, TOO_LITTLE
from nas.data.files import readable
from nas.errors import ImageError, NasError
from nas.winner.best import read_best
from nas.winner.images import Picture, read_picture

if TYPE_CHECKING:
    from nas.training.network import Network

BATCH = 256  # images
VALUES = 2**22  # numbers in a batch: 256 images of 3×74×74, 27 of 3×224×224


@dataclass(frozen=True)
class Refusal:
    """An image that cannot be classified, and why."""

    image: str
    reason: str


@dataclass(frozen=True)
class Prediction:
    """The network's answer for one image."""

    image: str
    picture: Picture
    probabilities: Array  # (classes,) float64, in the order of the network's classes

    def ranked(self) -> list[int]:
        """The indices of the classes, the most probable class first."""
        return ranked(self.probabilities)

    @property
    def file(self) -> str:
        """The image's file."""
        return self.image

    @property
    def place(self) -> str:
        """The name that is shown."""
        return self.image

    @property
    def label(self) -> str | None:
        """None: an image file has no label."""
        return None

    @property
    def note(self) -> str:
        """A remark for the user."""
        return self.picture.note


class Classifier:
    """The trained network in a best/ folder, with the shape and the framing of its images.

    Args:
        best: the folder, which may come from a stranger.

    Raises:
        NasError: the folder is damaged, or the network takes images with neither one nor three channels.
    """

    endings = ENDINGS  # of the names of the files that it takes

    def __init__(self, best: Path) -> None:
        (_, self.shape, self.classes, self.framing, *_), self.network = read_best(best)
        if len(self.shape) != 3 or self.shape[0] not in (1, 3):
            raise NasError(f"{best} has a network for {show(self.shape)}: image files have one or three channels")

    def predict(self, images: Iterable[str]) -> Iterator[Prediction | Refusal]:
        """Classify image files; refusals may come before the predictions of their batch.

        Args:
            images: paths, and ``-`` for standard input (see `listed` for folders).

        Yields:
            A result for each image; the predictions are in the order of the images.

        Raises:
            NasError: the network computes no finite probabilities.
        """
        size = max(1, min(BATCH, VALUES // math.prod(self.shape)))
        batch: list[tuple[str, Picture]] = []
        for name in images:
            try:
                batch.append((name, read_picture(name, self.shape, self.framing)))
            except ImageError as error:
                yield Refusal(name, str(error))
            except MemoryError:
                yield Refusal(name, TOO_LITTLE)
            if len(batch) == size:
                yield from self._classified(batch)
                batch = []
        if batch:
            yield from self._classified(batch)

    def _classified(self, batch: Sequence[tuple[str, Picture]]) -> Iterator[Prediction]:
        import numpy as np

        images = np.stack([picture.pixels for _, picture in batch])
        for (name, picture), row in zip(batch, probabilities_of(self.network, images), strict=True):
            yield Prediction(name, picture, row)


def probabilities_of(network: Network, inputs: Array) -> Array:
    """The probabilities (N, classes) float64 of inputs (N, …).

    Raises:
        NasError: they are not finite.
    """
    import numpy as np
    import torch

    with torch.inference_mode():
        probabilities: Array = network(torch.from_numpy(inputs)).double().softmax(dim=1).numpy()
    if not np.isfinite(probabilities).all():
        raise NasError("the network computes no finite probabilities: its weights are out of range")
    return probabilities


def ranked(probabilities: Array) -> list[int]:
    """The indices of the classes, the most probable class first."""
    return list(map(int, (-probabilities).argsort(kind="stable")))


def listed(image: str, endings: Sequence[str] = ENDINGS, noun: str = "images") -> tuple[list[str], int]:
    """The files of an argument of the command line: one file, or the images in a folder, sorted by name.

    ``endings``: of the names of files in a folder that are meant; ``noun``: what they are.

    The folders in a folder are searched, too, but not those behind a link, which may lead back.

    Returns:
        Their paths, and the number of other files in the folder (and of folders behind links).

    Raises:
        ImageError: a folder without images, or one that cannot be read.
    """
    try:
        if not Path(image).is_dir():
            return [image], 0
        others, images = 0, []
        for folder, inner, files in os.walk(image, onerror=_raise):
            paths = [os.path.join(folder, name) for name in sorted(inner)]  # noqa: PTH118  # "./a"
            kept = [path for path in paths if not _is_hidden(path) and not Path(path).is_symlink()]
            inner[:] = map(os.path.basename, kept)
            found = [os.path.join(folder, name) for name in sorted(files)]  # noqa: PTH118
            good = [path for path in found if path.lower().endswith(tuple(endings)) and not _is_hidden(path)]
            images += good
            others += len(paths) - len(kept) + len(found) - len(good)
    except OSError as error:
        raise ImageError(f"cannot be read ({error.strerror or error})") from None
    if not images:
        raise ImageError(f"is a folder without {noun} ({', '.join(endings)})")
    return images, others


def class_of(image: str, folder: str, classes: Collection[str]) -> str | None:
    """The class whose name the folders of an image have, below the folder that was given; None if there is none.

    A class may be a path (``Fruit/Apple``). Of several, the longest counts, then the nearest to the image.
    """
    parts = [readable(part) for part in Path(os.path.relpath(os.path.dirname(image), folder)).parts]  # noqa: PTH120  "./a"
    runs = [parts[start:end] for end in range(len(parts), 0, -1) for start in range(end)]
    named = ["/".join(run) for run in sorted(runs, key=len, reverse=True)]
    return next((name for name in named if name in classes), None)


def _is_hidden(path: str) -> bool:
    return os.path.basename(path).startswith(".")  # noqa: PTH119


def _raise(error: OSError) -> None:
    raise error
