"""What is counted when a network is validated, and the metrics that follow."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nas.data.kinds import Kind
from nas.statistics import balanced_accuracy, macro_f1

POINTS = 100  # of a curve of series, at most: an epoch of 36 takes less time than their validation


def points_of(epochs: float, kind: Kind) -> int:
    """How often a training of so many epochs is validated: after each epoch, of series at most `POINTS` times."""
    every = math.ceil(epochs)
    return min(POINTS, every) if kind == "series" else every


@dataclass(frozen=True)
class Tally:
    """What was counted on validation inputs."""

    loss: float  # nats, summed
    right: Sequence[float]  # of each class: the inputs that are classified right
    answers: Sequence[float]  # how often it is answered
    inputs: Sequence[float]  # how many there are

    @classmethod
    def sum(cls, tallies: Iterable[Tally]) -> Tally:
        """What was counted on the inputs of all of them."""
        loss, *counts = zip(*((one.loss, one.right, one.answers, one.inputs) for one in tallies), strict=True)
        return cls(sum(loss), *([sum(same) for same in zip(*several, strict=True)] for several in counts))

    @property
    def count(self) -> float:
        """The number of inputs."""
        return sum(self.inputs)

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics of a trial that follow."""
        return {
            "validation_accuracy": sum(self.right) / self.count,
            "balanced_accuracy": balanced_accuracy(self.right, self.inputs),
            "macro_f1": macro_f1(self.right, self.answers, self.inputs),
            "validation_loss": self.loss / self.count,
        }
