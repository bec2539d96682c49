"""How much each choice of a space mattered, by a random forest that is fitted to the trials."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from nas.records.outcome import Importance
from nas.spaces.space import Scalar
from nas.trial import Trial

FEWEST = 12  # trials; fewer say nothing about a dozen choices
MOST = 1_000  # trials that are looked at, from all parts of the search; the forest of 6,000 takes 6 s
TREES = 100
LARGEST = 1e30  # numbers of a plugin beyond that are taken for it
UNASKED = -1.0

LEAST_ERROR = 1e-4  # where nobody says how many images there are
Array = npt.NDArray[np.float64]
Choices = Mapping[str, Scalar]
T = TypeVar("T")


def least_error(images: int | None) -> float:
    """The smallest share of wrong answers that has a logarithm: half an image of so many."""
    return 0.5 / images if images else LEAST_ERROR


def error_of(trial: Trial, images: int | None) -> float:
    """The share of so many validation images that a network classifies wrongly, above 0."""
    return min(1.0, max(least_error(images), 1 - trial.metrics["validation_accuracy"]))


def spread(items: Sequence[T], most: int) -> Sequence[T]:
    """At most so many items, from all parts of a sequence."""
    return items if len(items) <= most else [items[number * len(items) // most] for number in range(most)]


def importances_of(history: Iterable[Trial], images: int | None) -> list[Importance]:
    """How much each choice mattered to the trials of a search: see `importances`."""
    good = [one for one in history if one.failure is None and one.job.candidate.choices]
    some = spread(good, MOST)
    return importances([(one.job.candidate.choices, one.epochs, error_of(one, images)) for one in some])


def importances(trials: Sequence[tuple[Choices, float, float]]) -> list[Importance]:
    """How much each choice mattered, the most important one first; empty if there are too few trials.

    The permutation importance of Breiman, Random Forests (2001): by how much the predictions of each tree for the
    trials that it has not seen become worse if the answers of a choice are exchanged among them. The epochs of a
    training are an input, too, because some trials were stopped early.

    Args:
        trials: of each its choices, its epochs and its error, above 0.
    """
    every = [choices for choices, _, _ in trials]
    names = sorted({name for choices in every for name in choices})
    errors = np.log10([error for _, _, error in trials])
    if len(trials) < FEWEST or not names or np.ptp(errors) == 0:
        return []
    from sklearn.ensemble import RandomForestRegressor

    blocks = [_encoded([choices.get(name, UNASKED) for choices in every]) for name in names]
    blocks.append(np.log([[epochs] for _, epochs, _ in trials]))
    inputs = np.hstack(blocks).astype(np.float32)
    ends = np.cumsum([block.shape[1] for block in blocks])
    places = [slice(end - block.shape[1], end) for end, block in zip(ends, blocks, strict=True)]
    forest = RandomForestRegressor(TREES, min_samples_leaf=2, max_features=0.5, random_state=0)
    forest.fit(inputs, errors)
    generator, lost = np.random.default_rng(0), np.zeros((len(names), TREES))
    for number, (tree, seen) in enumerate(zip(forest.estimators_, forest.estimators_samples_, strict=True)):
        unseen = np.setdiff1d(np.arange(len(trials)), seen)
        if len(unseen) < 2:
            continue
        rows, expected = inputs[unseen], errors[unseen]
        before = _mean_square(tree.tree_.predict(rows), expected)
        for place, columns in enumerate(places[:-1]):
            changed = rows.copy()
            changed[:, columns] = rows[generator.permutation(len(rows))][:, columns]
            lost[place, number] = _mean_square(tree.tree_.predict(changed), expected) - before
    lost /= np.var(errors)
    found = [
        Importance(name, max(0.0, float(some.mean())), float(some.std() / math.sqrt(TREES)))
        for name, some in zip(names, lost, strict=True)
    ]
    return sorted(found, key=lambda one: (-one.share, one.name))


def _encoded(answers: Sequence[Scalar]) -> Array:
    """The answers to a question as columns: a number, or one column for each label. Not asked is a value, too."""
    numbers = [answer for answer in answers if isinstance(answer, int | float) and not isinstance(answer, bool)]
    if len(numbers) == len(answers):
        return np.clip([[float(number)] for number in numbers], -LARGEST, LARGEST)
    labels = sorted({str(answer) for answer in answers})
    return np.array([[float(str(answer) == label) for label in labels] for answer in answers])


def _mean_square(found: Array, expected: Array) -> float:
    return float(np.mean((found.ravel() - expected) ** 2))
