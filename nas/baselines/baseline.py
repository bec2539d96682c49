"""A baseline as plain data, and what each kind of input says about its models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nas import checks
from nas.data.dataset import Array, Dataset

TUNING_INPUTS = 5_000  # the settings are compared on as many training inputs; the best one is fitted to all
MOST_FREQUENT = "most frequent class"


@dataclass(frozen=True)
class Baseline:
    """A model with its best setting."""

    name: str  # one of `names`, or that of a network
    setting: str  # chosen on the validation inputs, such as "3 neighbours"
    validation_accuracy: float  # with folds, the mean over them
    seconds: float  # of fitting it with this setting to all training inputs
    tuning: float  # seconds of everything else: the other settings, and the answers on the validation inputs
    size: str  # such as "7,850 coefficients"
    bits: float | None = None  # per character of the validation texts; None of images and series

    def to_dict(self) -> dict[str, Any]:
        """As plain data; without bits, where there are none."""
        content = {
            "name": self.name, "setting": self.setting, "validation_accuracy": self.validation_accuracy,
            "seconds": self.seconds, "tuning": self.tuning, "size": self.size,
        }  # fmt: skip
        return content if self.bits is None else {**content, "bits": self.bits}

    @classmethod
    def from_dict(cls, data: object) -> Baseline:
        """From plain data.

        Raises:
            ValueError: they are not those of a baseline.
        """
        names = ("name", "setting", "validation_accuracy", "seconds", "tuning", "size")
        name, setting, accuracy, seconds, tuning, size = checks.record(data, "baseline", *names)
        bits = data.get("bits") if isinstance(data, Mapping) else None
        numbers = {"validation_accuracy": accuracy, "seconds": seconds, "tuning": tuning}
        for what, value in (numbers if bits is None else {**numbers, "bits": bits}).items():
            if checks.number(value, what) < 0:
                raise ValueError(f"{what} is {value}, and should not be negative")
        if accuracy > 1:
            raise ValueError(f"validation_accuracy is {accuracy}, and should be at most 1")
        return cls(
            checks.text(name, "name"), checks.text(setting, "setting"), float(accuracy), float(seconds),
            float(tuning), checks.text(size, "size"), None if bits is None else float(bits),
        )  # fmt: skip


@dataclass(frozen=True)
class Family:
    """The models for one kind of input.

    A model is as scikit-learn's: ``fit(inputs, labels)`` and ``predict(inputs)``; that of texts has
    ``predict_proba(inputs)`` instead. If it has ``n_jobs``, that is the number of threads; if it has
    ``warm(inputs)``, this compiles what it needs.
    """

    names: tuple[str, ...]
    prepared: Callable[[str, Array], Array]  # of a model's name and inputs (N, …): what is kept for it, (N, …)
    converted: Callable[[Array], Array]  # some rows of that → what the model takes
    settings: Callable[[str, Dataset, Array, int], Mapping[str, Any]]  # name, data, inputs, seed → models
    size: Callable[[Any, Sequence[str]], str]  # of a fitted model and the classes: how much it keeps
    most: int | None = TUNING_INPUTS  # training inputs with which settings are compared; None: all


def accuracy_of(answers: Array, labels: Array) -> float:
    """The share of right answers; they are labels (N,) or probabilities (N, classes)."""
    return float((labels_of(answers) == labels).mean())


def labels_of(answers: Array) -> Array:
    """The labels (N,) int64 of answers, of which probabilities (N, classes) become the most probable class."""
    found: Array = answers.argmax(1) if answers.ndim == 2 else answers
    return found


def bits_of(answers: Array, labels: Array) -> float | None:
    """The mean of −log2 of the probabilities (N, classes) of the right classes; None if the answers are labels."""
    if answers.ndim == 1:
        return None
    return float(-np.log2(answers[np.arange(len(labels)), labels], dtype=np.float64).mean())


def unchanged(inputs: Array) -> Array:
    """The inputs themselves."""
    return inputs
