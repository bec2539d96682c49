"""The baselines of images: six models of scikit-learn's, which learn from small pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nas.baselines import baseline
from nas.data.dataset import CHUNK, Array, Dataset
from nas.errors import UsageError, label, unknown

NAMES = (
    baseline.MOST_FREQUENT, "logistic regression", "k nearest neighbours", "decision tree", "random forest",
    "histogram gradient boosting",
)  # fmt: skip
MOST_NUMBERS = 1_024  # of a small picture; the 784 of MNIST stay as they are
STEPS = 100  # of logistic regression
TREES = 200  # of the forest
# Of gradient boosting, which needs a tree for each class in each round. Each split is the best for some numbers of
# a picture, drawn at random: on mnist-5k that is more accurate than the best for all 784, and faster.
ROUNDS, MOST_TREES, BINS, SPLIT_NUMBERS = 50, 500, 63, 64


def small_pictures(images: Array) -> Array:
    """Each image as a row of at most `MOST_NUMBERS` numbers, the means of equal squares of its pixels.

    The means are rounded: distances between whole numbers are exact, so neighbours are the same everywhere.

    Args:
        images: (N, C, H, W) uint8.

    Returns:
        (N, C·h·w) uint8. They are more numbers only if the images have more channels than that.
    """
    count, channels, height, width = images.shape
    side = 1
    while channels * math.ceil(height / side) * math.ceil(width / side) > MOST_NUMBERS and side < max(
        height, width
    ):
        side += 1
    if side == 1:
        return images.reshape(count, -1)
    rows, columns = np.arange(0, height, side), np.arange(0, width, side)  # a square at the border may be cut off
    pixels = np.outer(np.diff(rows, append=height), np.diff(columns, append=width))
    pictures = np.empty((count, channels, len(rows), len(columns)), np.uint8)
    step = max(1, CHUNK // max(1, 8 * images[0].size))
    for start in range(0, count, step):
        sums = np.add.reduceat(images[start : start + step], rows, axis=2, dtype=np.int64)
        sums = np.add.reduceat(sums, columns, axis=3)
        pictures[start : start + step] = (2 * sums + pixels) // (2 * pixels)
    return pictures.reshape(count, -1)


def _settings(name: str, data: Dataset, pictures: Array, seed: int) -> Mapping[str, Any]:
    """The estimators of a baseline by their settings in words; no more neighbours than pictures."""
    from sklearn.dummy import DummyClassifier
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer
    from sklearn.tree import DecisionTreeClassifier

    classes = len(data.classes)
    match name:
        case baseline.MOST_FREQUENT:
            return {"none": DummyClassifier(strategy="most_frequent")}
        case "logistic regression":  # C is scikit-learn's: a larger one allows larger coefficients
            return {
                f"C = {c:g}": make_pipeline(
                    FunctionTransformer(_from_0_to_1), LogisticRegression(C=c, max_iter=STEPS)
                )
                for c in (0.01, 0.1, 1.0)
            }
        case "k nearest neighbours":
            return {
                f"{k} neighbour{'s' * (k > 1)}": KNeighborsClassifier(k, algorithm="brute", metric="euclidean")
                for k in (1, 3, 5, 9)
                if k <= len(pictures)
            }
        case "decision tree":
            return {
                f"leaves of {least}+ images": DecisionTreeClassifier(min_samples_leaf=least, random_state=seed)
                for least in (1, 3, 10)
            }
        case "random forest":
            return {
                f"leaves of {least}+ images": RandomForestClassifier(
                    TREES, min_samples_leaf=least, random_state=seed
                )
                for least in (1, 3)
            }
        case "histogram gradient boosting":
            trees = 1 if classes == 2 else classes  # of a round
            # With a learning rate of 0.3 and no regularisation, it had 95 % on mnist-5k and 84 % on mnist.
            common: dict[str, Any] = {
                "learning_rate": 0.1, "l2_regularization": 1.0, "early_stopping": False, "random_state": seed,
                "max_iter": max(10, min(ROUNDS, MOST_TREES // trees)), "max_bins": BINS,
                "max_features": min(1.0, SPLIT_NUMBERS / pictures.shape[1]),
            }  # fmt: skip
            return {
                f"trees of {leaves} leaves": HistGradientBoostingClassifier(max_leaf_nodes=leaves, **common)
                for leaves in (31, 15)
            }
    raise UsageError(unknown("baseline", name, NAMES))


def _from_0_to_1(pictures: Array) -> Array:
    return pictures / np.float32(255)


def _float(pictures: Array) -> Array:
    return pictures.astype(np.float32)


def _size(model: Any, classes: Sequence[str]) -> str:
    """How much a fitted model keeps, in a number that says something for its kind."""
    kind = type(model).__name__
    if kind == "Pipeline":
        return f"{model[-1].coef_.size + model[-1].intercept_.size:,} coefficients"
    if kind == "KNeighborsClassifier":
        return f"{model.n_samples_fit_:,} images"
    if kind == "DecisionTreeClassifier":
        return f"{model.tree_.node_count:,} nodes"
    if kind == "RandomForestClassifier":
        nodes = sum(tree.tree_.node_count for tree in model.estimators_)
        return f"{nodes:,} nodes in {len(model.estimators_):,} trees"
    if kind == "HistGradientBoostingClassifier":
        trees = model.n_iter_ * model.n_trees_per_iteration_
        return f"{trees:,} trees"
    return f"1 class, {label(classes[int(model.class_prior_.argmax())])}"


def _prepared(name: str, images: Array) -> Array:
    return small_pictures(images)


FAMILY = baseline.Family(NAMES, _prepared, _float, _settings, _size)
