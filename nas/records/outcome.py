"""What a search is, and how it ended: plain data, without a word of how it is shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas.architecture.architecture import Architecture, Limits
from nas.objectives import Objective
from nas.statistics import CONFIDENCE, deviation, difference_by_chance, interval, mean
from nas.trial import Trial


@dataclass(frozen=True)
class Header:
    """What a search is: known before its first trial."""

    folder: Path
    config: Mapping[str, Any]  # the resolved configuration: plain scalars, lists and one table of options
    dataset: Mapping[str, Any]  # name, fingerprint, train and validation (numbers of images)
    limits: Limits
    objectives: tuple[Objective, ...]
    note: str = ""  # what the user should know about the data that were chosen

    @property
    def name(self) -> str:
        """The search's name: that of its folder."""
        return self.folder.name

    @property
    def recipe(self) -> str:
        """The recipe in one line: ``lecture``, or ``default, learning_rate 0.005``."""
        recipe = self.config.get("recipe", "")
        if not isinstance(recipe, Mapping):
            return str(recipe)
        return ", ".join([str(recipe.get("base")), *(f"{k} {v}" for k, v in recipe.items() if k != "base")])

    @property
    def kind(self) -> str:
        """The strategy that searched, or ``train`` where one network was trained without a search."""
        return str(self.config.get("strategy", "train"))


BESIDE = {"second": "the second of the final selection", "lecture": "the lecture's network"}
"""With what a winner is compared."""


@dataclass(frozen=True)
class Comparison:
    """The winner's training beside that of another network, on the same test images.

    It says whether these two trained networks differ: other seeds might have made others.
    """

    what: str  # which other one: see `BESIDE`
    trial: Trial  # the other network's training
    accuracy: float  # its accuracy on the test images, as a fraction
    only_winner: int  # images that only the winner classifies right
    only_other: int  # images that only the other one does

    @property
    def chance(self) -> float:
        """How likely two equally good networks would differ by as much: McNemar's p-value."""
        return difference_by_chance(self.only_winner, self.only_other)

    @property
    def name(self) -> str:
        """What the other one is."""
        return BESIDE[self.what]

    @property
    def verdict(self) -> str:
        """Whether the two differ by more than chance, at the usual 5 %."""
        likely = f"p = {self.chance:.2g}, McNemar"
        if self.chance >= 1 - CONFIDENCE:
            return f"the difference may be chance ({likely})"
        better = "better" if self.only_winner > self.only_other else "worse"
        return f"the winner is {better}, by more than chance ({likely})"


@dataclass(frozen=True)
class Outcome:
    """How a search ended: its winner, and the three scores that tell how honest the first one was."""

    header: Header
    trials: int
    failed: int
    seconds: float
    winner: Trial  # of the search; its metrics are what the search saw
    retrained: tuple[Trial, ...]  # the winner again, from scratch, one per seed
    finalists: tuple[tuple[Trial, ...], ...]  # all that were trained again, the winner first
    front: tuple[Trial, ...]  # the Pareto front of the search, the best by the first objective first
    test_accuracy: float
    test_loss: float
    test_images: int
    weights: Path  # best/weights.safetensors
    opened: int = 1  # how often the test images were opened: once, or again for a search that was given more
    compared: tuple[Comparison, ...] = ()  # after everything was decided: nothing was chosen by it

    @property
    def architecture(self) -> Architecture:
        """The winner's."""
        return self.winner.job.candidate.architecture

    @property
    def parameters(self) -> int:
        """The winner's."""
        return self.architecture.parameters(self.header.limits.input_shape, self.header.limits.classes)

    @property
    def validation_accuracy(self) -> float:
        """The winner's mean over the seeds, after it was trained again."""
        return mean([trial.metrics["validation_accuracy"] for trial in self.retrained])

    @property
    def validation_loss(self) -> float:
        """Likewise, in nats."""
        return mean([trial.metrics["validation_loss"] for trial in self.retrained])

    @property
    def spread(self) -> float:
        """The standard deviation of that over the seeds."""
        return deviation([trial.metrics["validation_accuracy"] for trial in self.retrained])

    @property
    def test_interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of the test accuracy."""
        return interval(self.test_accuracy, self.test_images)

    @property
    def opened_words(self) -> str:
        """How often the test images were opened, in words."""
        return "opened once" if self.opened == 1 else f"opened {self.opened} times"

    @property
    def selection_bias(self) -> float:
        """The score during the search less the test score: what was won by choosing, as a fraction."""
        return self.winner.metrics["validation_accuracy"] - self.test_accuracy
