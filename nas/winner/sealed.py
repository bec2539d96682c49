"""The sealed test images. No other file opens them, and a search opens them once, after everything is decided."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from nas import plugins
from nas.records.outcome import Comparison
from nas.statistics import balanced_accuracy, macro_f1
from nas.trial import Trial

if TYPE_CHECKING:
    from torch import Tensor

    from nas.data.dataset import Dataset, Split
    from nas.data.plugin import DatasetPlugin
    from nas.records.predictions import Array
    from nas.training.network import Network

WORST = 24  # test images that a report shows


class Result(NamedTuple):
    """The result of one network on the test images."""

    labels: Tensor  # (N,) int64
    answers: Tensor  # (N,) int64: the classes that the network answers
    loss: float  # nats
    chances: Tensor  # (N, 2) float32: the probabilities of the answer and of the right class

    @property
    def right(self) -> Tensor:
        """Whether the network classifies each image correctly, (N,) bool."""
        return self.answers == self.labels

    @property
    def accuracy(self) -> float:
        """The fraction of the images that the network classifies correctly."""
        return int(self.right.sum()) / len(self.labels)

    def balanced(self) -> tuple[float, float]:
        """The balanced accuracy and the macro F1."""
        classes = int(self.labels.max()) + 1
        images, answers, right = (
            some.bincount(minlength=classes).tolist()[:classes]
            for some in (self.labels, self.answers, self.labels[self.right])
        )
        return balanced_accuracy(right, images), macro_f1(right, answers, images)

    def share_of(self, label: int) -> float:
        """The fraction of the images that are of a class: the accuracy of always answering it."""
        return int((self.labels == label).sum()) / len(self.labels)

    def compared_with(self, other: Result, what: str, trial: Trial) -> Comparison:
        """The comparison with another network, of the kind ``what`` in `COMPARED_WITH`, on the same images."""
        only_winner, only_other = self.right & ~other.right, other.right & ~self.right
        return Comparison(what, trial, other.accuracy, int(only_winner.sum()), int(only_other.sum()))

    def worst(self, most: int) -> Tensor:
        """The positions of the most wrong images, whose right class is least probable; the worst first."""
        wrong = (~self.right).nonzero().flatten()
        return wrong[self.chances[wrong, 1].argsort(stable=True)[:most]]


class Opened(NamedTuple):
    """All that is kept of the test images."""

    results: list[Result]  # of each network, the winner's first
    worst: Tensor  # (W,) int64: the positions of the images that the winner got most wrong, the worst first
    pictures: Array  # (W, h, w, 1 or 3) uint8: these images, small


def open_test(source: DatasetPlugin, data: Dataset, networks: Sequence[Network]) -> Opened:
    """Open the test images and classify them with the winner and with the networks that it is compared with.

    Raises:
        NasError: the test images are not what they were when the run began (see `DatasetPlugin.check_test`), or
            they cannot be classified.
    """
    from nas.data.dataset import verify_test
    from nas.training.network import answers_and_loss
    from nas.winner.pictures import pictures

    test = _load(source)
    verify_test(test, data)
    results = plugins.guarded(
        lambda: [
            Result(test.labels, *answers_and_loss(network, test.images, test.labels)) for network in networks
        ],
        f"the test images of {source.name} cannot be classified",
    )
    worst = results[0].worst(WORST)
    return Opened(results, worst, pictures(test.images[worst]))


def test_images(source: DatasetPlugin) -> Tensor:
    """The test images (N, C, H, W) uint8, without their labels, to compare an exported model with its original.

    The seal holds: without labels, the images say nothing about the quality of a network, and no result returns to
    a search.

    Raises:
        DataError: the images cannot be loaded on this machine.
    """
    return _load(source).images


def _load(source: DatasetPlugin) -> Split:
    return plugins.guarded(source.load_test, f"the test images of {source.name} cannot be loaded")
