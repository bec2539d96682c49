"""The sealed test images. No other file opens them, and a search opens them once, after everything is decided."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

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
# Inputs (N, …) as those of a `Split` → labels (N,) int64, or probabilities (N, classes).
Model: TypeAlias = "Callable[[Array], Array]"


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


class Answers(NamedTuple):
    """What several models answer for the same test images."""

    labels: Array  # (N,) int64
    answers: list[Array]  # of each model, (N,) int64
    bits: list[float | None]  # of each model that says probabilities, per character of the test texts

    @property
    def accuracies(self) -> list[float]:
        """The fraction of the inputs that each model classifies correctly."""
        return [int((answers == self.labels).sum()) / len(self.labels) for answers in self.answers]


def open_test(source: DatasetPlugin, data: Dataset, networks: Sequence[Network]) -> Opened:
    """Open the test images and classify them with the winner and with the networks that it is compared with.

    Raises:
        NasError: see `open_together`.
    """
    return open_together(source, data, [networks], [])[0][0]


def open_answers(source: DatasetPlugin, data: Dataset, models: Sequence[Model]) -> Answers:
    """Open the test images, once for all models.

    Raises:
        NasError: see `open_together`.
    """
    return open_together(source, data, [], models)[1]


def open_together(
    source: DatasetPlugin, data: Dataset, groups: Sequence[Sequence[Network]], models: Sequence[Model]
) -> tuple[list[Opened], Answers]:
    """Open the test images once, for the winners of several searches and for other models.

    Args:
        source: has the test images.
        data: the data set from which all have learned.
        groups: the networks of each search, its winner first.
        models: functions from inputs to labels or probabilities.

    Returns:
        What is kept for each search, and the answers of the models.

    Raises:
        NasError: the test images are not what they were when the run began (see `DatasetPlugin.check_test`), or
            they cannot be classified.
    """
    from nas.baselines.baseline import bits_of, labels_of
    from nas.data.dataset import verify_test
    from nas.data.kinds import NOUNS

    noun = NOUNS[data.kind].many
    test = _load(source, noun)
    verify_test(test, data)
    opened, answers = plugins.guarded(
        lambda: (
            [_opened(test, networks) for networks in groups],
            [model(test.inputs.numpy()) for model in models],
        ),
        f"the test {noun} of {source.name} cannot be classified",
    )
    labels = test.labels.numpy()
    bits = [bits_of(answer, labels) for answer in answers]
    return opened, Answers(labels, [labels_of(answer) for answer in answers], bits)


def _opened(test: Split, networks: Sequence[Network]) -> Opened:
    """The results of the networks of a search, and the images that its winner got most wrong."""
    from nas.training.network import answers_and_loss
    from nas.winner.pictures import pictures

    results = [Result(test.labels, *answers_and_loss(network, test.inputs, test.labels)) for network in networks]
    worst = results[0].worst(WORST)
    return Opened(results, worst, pictures(test.inputs[worst]))


def test_images(source: DatasetPlugin) -> Tensor:
    """The test images (N, C, H, W) uint8, without their labels, to compare an exported model with its original.

    The seal holds: without labels, the images say nothing about the quality of a network, and no result returns to
    a search.

    Raises:
        DataError: the images cannot be loaded on this machine.
    """
    return _load(source).images


def _load(source: DatasetPlugin, noun: str = "data") -> Split:
    return plugins.guarded(source.load_test, f"the test {noun} of {source.name} cannot be loaded")
