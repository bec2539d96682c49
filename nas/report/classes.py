"""Which classes a network confuses: recall, precision and confusions, from its answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from nas.errors import plain
from nas.records.predictions import Array, Predictions

PICTURED = 24  # classes of which pictures are shown
TABULATED = 40  # classes in the table of a report
LISTED = 10  # confusions in a report
SPOKEN = 3  # confusions, and classes, in the sentences for the terminal
LONGEST = 24  # characters of the name of a class


class Pair(NamedTuple):
    """A confusion: images of one class for which the network answers another."""

    label: int
    answer: int
    times: int


class Confusion:
    """The confusion matrix of a network, kept sparse: of 1,000 classes it would have a million numbers.

    Args:
        labels: (N,), the class of each image.
        answers: (N,), the class that the network answers.
        classes: their number.
    """

    def __init__(self, labels: Array, answers: Array, classes: int) -> None:
        self.images, self.answered, self.right = (
            np.bincount(some, minlength=classes) for some in (labels, answers, labels[labels == answers])
        )
        # The cells with images: their numbers in the whole matrix, row by row, and the number of images.
        self._cells, self._counts = np.unique(labels.astype(np.int64) * classes + answers, return_counts=True)
        self.classes = classes

    @property
    def recall(self) -> Array:
        """(classes,): the share of the images of each class for which it is answered; NaN without an image."""
        return self.right / np.where(self.images, self.images, np.nan)

    @property
    def precision(self) -> Array:
        """(classes,): the share of its answers in which each class is right; NaN for a class never answered."""
        return self.right / np.where(self.answered, self.answered, np.nan)

    def pairs(self, most: int) -> list[Pair]:
        """The most frequent confusions, the most frequent first."""
        labels, answers = np.divmod(self._cells, self.classes)
        order = np.lexsort((answers, labels, -self._counts))
        order = order[labels[order] != answers[order]][:most]
        return [Pair(int(labels[i]), int(answers[i]), int(self._counts[i])) for i in order]

    def weakest(self, most: int) -> list[int]:
        """The classes with the lowest recall, the lowest first."""
        order = np.lexsort((-self.images, np.nan_to_num(self.recall, nan=2.0)))
        return [int(label) for label in order[:most]]

    def shown(self, most: int) -> list[int]:
        """All classes in their order; if there are more than ``most``, only those with the lowest recall."""
        return sorted(self.weakest(most))

    def matrix(self, shown: Sequence[int]) -> Array:
        """(K, K + 1): the images of the shown classes by their answer, the last column for all other answers."""
        place = np.full(self.classes, len(shown))
        place[list(shown)] = np.arange(len(shown))
        rows, columns = (place[some] for some in np.divmod(self._cells, self.classes))
        matrix = np.zeros((len(shown) + 1, len(shown) + 1), np.int64)
        np.add.at(matrix, (rows, columns), self._counts)
        return matrix[:-1]


class Score(NamedTuple):
    """A class in the table of a report; the fractions are None where they are not defined."""

    name: str
    test_images: int
    test_recall: float | None
    test_precision: float | None
    validation_images: int
    validation_recall: float | None
    validation_precision: float | None


def confusions(predictions: Predictions) -> tuple[Confusion, Confusion]:
    """The confusions of the test images, and of the validation images."""
    test, validation = (
        Confusion(split.labels, split.answers, len(predictions.classes))
        for split in (predictions.test, predictions.validation)
    )
    return test, validation


def scores(predictions: Predictions, shown: Iterable[int]) -> Iterator[Score]:
    """Precision and recall of some classes."""
    both = [(split.images, split.recall, split.precision) for split in confusions(predictions)]
    for label in shown:
        row = [
            (int(images[label]), _number(recall[label]), _number(precision[label]))
            for images, recall, precision in both
        ]
        yield Score(named(predictions.classes[label]), *row[0], *row[1])


def _number(fraction: float) -> float | None:
    return None if np.isnan(fraction) else float(fraction)


def sentences(predictions: Predictions, noun: str) -> tuple[str, ...]:
    """The most frequent confusions of the test, and the lowest recall; () if all are right.

    ``noun``: what was classified: images, series or texts.
    """
    test, names = confusions(predictions)[0], predictions.classes
    pairs = [f"{arrow(pair, names)} ({times(pair.times)})" for pair in test.pairs(SPOKEN)]
    if not pairs:
        return ()
    weakest = [label for label in test.weakest(SPOKEN) if test.recall[label] < 1]
    recalls = [f"{named(names[label])} ({100 * test.recall[label]:.1f} %)" for label in weakest]
    return (
        f"Most frequent confusions of the test {noun} (class → answer): {', '.join(pairs)}.",
        f"Lowest recall: {', '.join(recalls)}.",
    )


def arrow(pair: Pair, names: Sequence[str]) -> str:
    """A confusion as text: ``4 → 9``."""
    return f"{named(names[pair.label])} → {named(names[pair.answer])}"


def times(count: int) -> str:
    """A number of times as text."""
    return "once" if count == 1 else f"{count:,} times"


def named(text: str, most: int = LONGEST) -> str:
    """The name of a class, which comes from outside, in one line, its middle left out if it is long."""
    line = " ".join(plain(text[:1_000]).split()) or "(no name)"
    half = (most - 1) // 2
    return line if len(line) <= most else f"{line[: most - 1 - half]}…{line[-half:]}"
