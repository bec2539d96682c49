"""How much each choice of the space mattered, by a random forest that is fitted to the trials."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from nas.report.figures import style
from nas.report.figures.scene import Entry, Scene
from nas.report.figures.style import ACCURACY
from nas.spaces.space import Scalar

FEWEST = 12  # trials; fewer say nothing about a dozen choices
TREES = 100
SHOWN = 12  # bars
UNASKED = -1.0

Array = npt.NDArray[np.float64]


class Importance(NamedTuple):
    """What a choice is worth for telling good networks from bad ones."""

    name: str
    share: float  # of the variance of log10(error) that is no longer explained without it
    error: float  # its standard error, over the trees


def importances(scene: Scene) -> list[Importance]:
    """How much each choice mattered, the most important one first; empty if there are too few trials.

    The permutation importance of Breiman, Random Forests (2001): by how much the predictions of each tree for the
    trials that it has not seen become worse if the answers of a choice are exchanged among them. The epochs of a
    training are an input, too, because some trials were stopped early.
    """
    from sklearn.ensemble import RandomForestRegressor

    entries = [entry for entry in scene.good if entry.trial.job.candidate.choices]
    names = sorted({name for entry in entries for name in entry.trial.job.candidate.choices})
    errors = np.log10(style.values(scene, ACCURACY, entries))
    if len(entries) < FEWEST or np.ptp(errors) == 0:
        return []
    blocks = [_encoded(entries, name) for name in names]
    blocks.append(np.log([[entry.trial.job.epochs] for entry in entries]))
    inputs = np.hstack(blocks)
    forest = RandomForestRegressor(TREES, min_samples_leaf=2, max_features=0.5, random_state=0)
    forest.fit(inputs, errors)
    generator, lost = np.random.default_rng(0), np.zeros((len(names), TREES))
    ends = np.cumsum([block.shape[1] for block in blocks])
    for number, (tree, seen) in enumerate(zip(forest.estimators_, forest.estimators_samples_, strict=True)):
        unseen = np.setdiff1d(np.arange(len(entries)), seen)
        rows = inputs[unseen].astype(np.float32)
        worst = len(unseen) > 1
        before = _mean_square(tree.tree_.predict(rows), errors[unseen]) if worst else 0.0
        for place in range(len(names)) if worst else ():
            block = slice(ends[place] - blocks[place].shape[1], ends[place])
            changed = rows.copy()
            changed[:, block] = rows[generator.permutation(len(rows))][:, block]
            lost[place, number] = _mean_square(tree.tree_.predict(changed), errors[unseen]) - before
    lost /= np.var(errors)
    found = [
        Importance(name, max(0.0, float(some.mean())), float(some.std() / math.sqrt(TREES)))
        for name, some in zip(names, lost, strict=True)
    ]
    return sorted(found, key=lambda one: (-one.share, one.name))


def importance(scene: Scene) -> Figure | None:
    """The choices as bars, the most important one above."""
    found = scene.importances[:SHOWN]
    if not found or found[0].share == 0:
        return None
    figure = style.canvas(scene, "how much each choice mattered", 8.0, 1.5 + 0.32 * len(found))
    axes = style.frame(figure.subplots())
    places = range(len(found))
    ends: style.Look = {"xerr": [100 * one.error for one in found], "error_kw": {"ecolor": style.INK}}
    axes.barh(places, [100 * one.share for one in found], color=style.BLUE, height=0.62, **ends)
    axes.set_yticks(places, [style.short(one.name, 30) for one in found], fontsize=style.SMALL)
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_xlabel("variance of the error that is no longer explained without the choice (%, ± standard error)")
    axes.grid(visible=False, axis="y")
    return figure


def _encoded(entries: list[Entry], name: str) -> Array:
    """The answers to a question as columns: a number, or one column for each label. Not asked is a value, too."""
    answers: list[Scalar] = [entry.trial.job.candidate.choices.get(name, UNASKED) for entry in entries]
    numbers = [answer for answer in answers if isinstance(answer, int | float) and not isinstance(answer, bool)]
    if len(numbers) == len(answers):
        return np.array([[style.bounded(float(number))] for number in numbers])
    labels = sorted({str(answer) for answer in answers})
    return np.array([[float(str(answer) == label) for label in labels] for answer in answers])


def _mean_square(found: Array, expected: Array) -> float:
    return float(np.mean((found.ravel() - expected) ** 2))
