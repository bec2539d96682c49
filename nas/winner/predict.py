"""What the winner says of images: one by one read, in batches classified, as many as there are."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nas.architecture.layers import Shape
from nas.errors import ImageError, NasError
from nas.winner.best import described, framing_of, load_network
from nas.winner.images import ENDINGS, Array, Picture, read_picture

if TYPE_CHECKING:
    from nas.training.network import Network

BATCH = 256
VALUES = 2**22  # of the images of a batch: 256 of 3×74×74, 27 of 3×224×224


@dataclass(frozen=True)
class Refusal:
    """An image that cannot be classified, and why."""

    image: str
    reason: str


@dataclass(frozen=True)
class Prediction:
    """What the network says of one image."""

    image: str
    picture: Picture
    probabilities: Array  # (classes,) float64, in the order of the network's classes

    def ranked(self) -> list[int]:
        """The classes, the most probable first."""
        return [int(one) for one in (-self.probabilities).argsort(kind="stable")]


class Classifier:
    """The trained network in a best/ folder, and how it wants its images.

    Args:
        best: the folder, which may be a stranger's.

    Raises:
        NasError: it is damaged, or its network takes no images that a file holds.
    """

    def __init__(self, best: Path) -> None:
        self.network: Network = load_network(best)
        _, self.shape, self.classes = described(best / "architecture.json")
        self.framing = framing_of(best)
        _check_channels(best, self.shape)

    def predict(self, images: Iterable[str]) -> Iterator[Prediction | Refusal]:
        """Classify image files; refusals may come before the predictions of their batch.

        Args:
            images: paths, and ``-`` for standard input (see `listed` for folders).

        Yields:
            One for each image; the predictions are in the order of the images.

        Raises:
            NasError: the network computes no probabilities.
        """
        size = max(1, min(BATCH, VALUES // (self.shape[0] * self.shape[1] * self.shape[2])))
        batch: list[tuple[str, Picture]] = []
        for name in images:
            try:
                batch.append((name, read_picture(name, self.shape, self.framing)))
            except ImageError as error:
                yield Refusal(name, str(error))
            if len(batch) == size:
                yield from self._classified(batch)
                batch = []
        yield from self._classified(batch)

    def _classified(self, batch: Sequence[tuple[str, Picture]]) -> Iterator[Prediction]:
        import numpy as np
        import torch

        if not batch:
            return
        images = torch.from_numpy(np.stack([picture.pixels for _, picture in batch]))
        with torch.inference_mode():
            probabilities = self.network(images).double().softmax(dim=1).numpy()
        if not np.isfinite(probabilities).all():
            raise NasError("the network computes no probabilities: its weights are out of range")
        for (name, picture), row in zip(batch, probabilities, strict=True):
            yield Prediction(name, picture, row)


def _check_channels(best: Path, shape: Shape) -> None:
    if shape[0] not in (1, 3):
        raise NasError(f"{best} has a network for {shape[0]} channels: images from files have one or three")


def listed(image: str) -> tuple[list[str], int]:
    """The images that a word of the command line means: itself, or those in the folder, by name.

    Returns:
        Their paths; and how many other files are in the folder.

    Raises:
        ImageError: a folder without images, or one that cannot be read.
    """
    try:
        if not Path(image).is_dir():
            return [image], 0
        names = sorted(one.name for one in os.scandir(image) if not (one.name.startswith(".") or one.is_dir()))
    except OSError as error:
        raise ImageError(f"cannot be read ({error.strerror or error})") from None
    found = [os.path.join(image, name) for name in names if name.lower().endswith(ENDINGS)]  # noqa: PTH118  # "./a"
    if not found:
        raise ImageError(f"is a folder without images ({', '.join(ENDINGS)})")
    return found, len(names) - len(found)
