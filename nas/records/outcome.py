"""The configuration and the end of a search as plain data; nas/report/ words them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from nas.architecture.architecture import Architecture, Limits
from nas.data.kinds import Noun, noun_of
from nas.objectives import Objective, best_seed
from nas.records.cost import Cost
from nas.statistics import deviation, difference_by_chance, interval, mean
from nas.trial import Trial

# Stands in the record before the name of a class, where a strategy, space, data set or evaluator was given as a
# Python object. No file holds the object: the search goes on only with the same one.
GIVEN = "object:"
# Classes are of unequal size if the largest has so many times the training images of the smallest (mnist: 1.24).
UNEQUAL = 1.5


@dataclass(frozen=True)
class Header:
    """The configuration of a search, known before its first trial."""

    folder: Path
    config: Mapping[str, Any]  # the resolved configuration: plain scalars, lists and one table of options
    # Name, fingerprint, train and validation (numbers of inputs); counts: of each class, both of these numbers;
    # folds: their number, if candidates are validated on folds.
    dataset: Mapping[str, Any]
    limits: Limits
    objectives: tuple[Objective, ...]
    note: str = ""  # a remark for the user, for example that mnist is not available and mnist-5k is used
    plan: str = ""  # what the search was going to do, and how long that would take
    decided: Mapping[str, float] = field(default_factory=dict)  # what follows from the pace (`nas.run.planning`)

    @property
    def name(self) -> str:
        """The search's name: that of its folder."""
        return self.folder.name

    @property
    def counts(self) -> dict[str, tuple[int, int]]:
        """The training and the validation inputs of each class; empty in the record of an older version."""
        counts = self.dataset.get("counts") or {}
        return {name: (train, validation) for name, (train, validation) in counts.items()}

    @property
    def inputs(self) -> Noun:
        """What the networks classify, in words: images, series or texts."""
        return noun_of(self.limits.input_shape)

    @property
    def folds(self) -> int:
        """On how many folds each candidate is validated; 0 if it is validated on one split."""
        return int(self.dataset.get("folds") or 0)

    @property
    def validated(self) -> int:
        """The number of inputs on which a candidate is validated."""
        return int(self.dataset["validation"]) + (int(self.dataset["train"]) if self.folds else 0)

    @property
    def is_unequal(self) -> bool:
        """Whether the classes are of unequal size."""
        sizes = [train for train, _ in self.counts.values()]
        return max(sizes, default=0) >= UNEQUAL * min(sizes, default=1)

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
        return str(self.settings.get("strategy", "train"))

    @property
    def device(self) -> str:
        """Where the networks train: ``cpu``, ``cuda:0``, …"""
        return str(self.config.get("device", "cpu"))

    @property
    def noun(self) -> str:
        """What is counted: the candidates of a search, or the seeds of a training."""
        return "seed" if self.kind == "train" else "candidate"

    @property
    def settings(self) -> dict[str, Any]:
        """The configuration for people: a class that was given in Python stands there by its name alone."""
        return {k: v.removeprefix(GIVEN) if isinstance(v, str) else v for k, v in self.config.items()}


FRONT = "front"
COMPARED_WITH = {
    "second": "the second finalist",
    "lecture": "the lecture's network",
    FRONT: "a network of the Pareto front",
}
"""The networks that a winner is compared with, by the names that the journal has for them."""


@dataclass(frozen=True)
class Comparison:
    """The winner's training and that of another network on the same test images.

    It compares these two trained networks: other seeds might have given others.
    """

    what: str  # the other network: a key of `COMPARED_WITH`
    trial: Trial  # the other network's training
    accuracy: float  # the other network's accuracy on the test images, as a fraction
    only_winner: int  # images that only the winner classifies right
    only_other: int  # images that only the other network classifies right

    @property
    def chance(self) -> float:
        """The probability that two equally good networks differ by as much: McNemar's p-value."""
        return difference_by_chance(self.only_winner, self.only_other)


class Importance(NamedTuple):
    """What a choice of a space is worth for telling good networks from bad ones (see `nas.report.forest`)."""

    name: str
    share: float  # of the variance of log10(error) that is no longer explained without it
    error: float  # its standard error, over the trees


@dataclass(frozen=True)
class Outcome:
    """The end of a search: its winner, with the scores of the search, of the retraining and of the test."""

    header: Header
    trials: int
    failed: int
    seconds: float  # of the whole search
    winner: Trial  # the search's trial of the winner, with the metrics that the search saw
    retrained: tuple[Trial, ...]  # the winner trained again from scratch, one trial per seed
    finalists: tuple[tuple[Trial, ...], ...]  # all networks that were trained again, the winner first
    front: tuple[Trial, ...]  # the Pareto front of the search, the best by the first objective first
    test_accuracy: float
    test_loss: float  # nats
    test_images: int
    weights: Path  # best/weights.safetensors
    opened: int = 1  # how often the test images were opened: again for a search that was given more budget
    # None in the record of an older version.
    test_balanced_accuracy: float | None = None
    test_macro_f1: float | None = None
    test_largest: float | None = None  # the share of the test images of the class that has most training images
    compared: tuple[Comparison, ...] = ()  # made after the winner was chosen: nothing was chosen by it
    cost: Cost | None = None
    failures: Mapping[str, int] = field(default_factory=dict)  # how many candidates failed in each way
    mattered: tuple[Importance, ...] = ()  # the choices of the space, the most important one first
    smaller: Trial | None = None  # a network of the search that is nearly as good: see `nas.records.cost.smaller`
    sample: str = ""  # where the data are a text: what the winner writes
    numbers: Mapping[str, int] = field(default_factory=dict)  # of each candidate's trial in the search, by its id

    @property
    def is_front(self) -> bool:
        """Whether there are several objectives, so that the finalists represent the Pareto front."""
        return len(self.header.objectives) > 1

    @property
    def of_front(self) -> tuple[Comparison, ...]:
        """The finalists beside the winner, tested and handed over, too, where there are several objectives."""
        ids = {group[0].id for group in self.finalists} if self.is_front else set()
        return tuple(other for other in self.compared if other.trial.id in ids)

    @property
    def handed_over(self) -> Trial:
        """The winner's training whose weights are in best/."""
        return best_seed(self.retrained)

    @property
    def architecture(self) -> Architecture:
        """The winner's architecture."""
        return self.winner.job.candidate.architecture

    @property
    def parameters(self) -> int:
        """The winner's number of parameters."""
        return self.architecture.parameters(self.header.limits.input_shape, self.header.limits.classes)

    @property
    def validation_accuracy(self) -> float:
        """The retrained winner's validation accuracy: its mean over the seeds."""
        return mean([trial.metrics["validation_accuracy"] for trial in self.retrained])

    @property
    def validation_loss(self) -> float:
        """The retrained winner's validation loss in nats: its mean over the seeds."""
        return mean([trial.metrics["validation_loss"] for trial in self.retrained])

    @property
    def spread(self) -> float:
        """The standard deviation of the retrained winner's validation accuracy over the seeds."""
        return deviation([trial.metrics["validation_accuracy"] for trial in self.retrained])

    @property
    def test_interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of the test accuracy."""
        return interval(self.test_accuracy, self.test_images)

    @property
    def selection_bias(self) -> float:
        """The search's validation accuracy minus the test accuracy, as a fraction: the gain of choosing."""
        return self.winner.metrics["validation_accuracy"] - self.test_accuracy
