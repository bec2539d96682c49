"""Models that no search has found: six of scikit-learn's, which learn from the same images.

Each is fitted to the training images with two to four settings and takes the one with the highest accuracy on the
validation images; of equal ones, the first. For a seed, the answers are the same with any number of workers.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from nas import checks
from nas.data.dataset import CHUNK, Array, Dataset
from nas.data.plugin import stratified
from nas.errors import UsageError, label, unknown

NAMES = (
    "most frequent class", "logistic regression", "k nearest neighbours", "decision tree", "random forest",
    "histogram gradient boosting",
)  # fmt: skip
MOST_NUMBERS = 1_024  # of a small picture; the 784 of MNIST stay as they are
TUNING_IMAGES = 5_000  # the settings are compared on as many training images; the best one is fitted to all
STEPS = 100  # of logistic regression
TREES = 200  # of the forest
# Of gradient boosting, which needs a tree for each class in each round. Each split is the best for some numbers of
# a picture, drawn at random: on mnist-5k that is more accurate than the best for all 784, and faster.
ROUNDS, MOST_TREES, BINS, SPLIT_NUMBERS = 50, 500, 63, 64
ANSWERS = 8_192  # images that are classified at a time


@dataclass(frozen=True)
class Baseline:
    """A model with its best setting."""

    name: str  # one of `NAMES`, or that of a network
    setting: str  # chosen on the validation images, such as "3 neighbours"
    validation_accuracy: float
    seconds: float  # of fitting it with this setting to all training images
    tuning: float  # seconds of everything else: the other settings, and the answers on the validation images
    size: str  # such as "7,850 coefficients"

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: object) -> Baseline:
        """From plain data.

        Raises:
            ValueError: they are not those of a baseline.
        """
        names = ("name", "setting", "validation_accuracy", "seconds", "tuning", "size")
        name, setting, accuracy, seconds, tuning, size = checks.record(data, "baseline", *names)
        for what, value in {"validation_accuracy": accuracy, "seconds": seconds, "tuning": tuning}.items():
            if checks.number(value, what) < 0:
                raise ValueError(f"{what} is {value}, and should not be negative")
        if accuracy > 1:
            raise ValueError(f"validation_accuracy is {accuracy}, and should be at most 1")
        name, setting = checks.text(name, "name"), checks.text(setting, "setting")
        return cls(name, setting, float(accuracy), float(seconds), float(tuning), checks.text(size, "size"))


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


def tuned(name: str, dataset: Dataset, seed: int, workers: int) -> Baseline:
    """Fit a model with each of its settings, and choose the best on the validation images.

    Args:
        name: one of `NAMES`.
        dataset: the training and validation images.
        seed: of every random choice.
        workers: threads; they do not change the result.
    """
    images, labels = small_pictures(dataset.train.inputs.numpy()), dataset.train.labels.numpy()
    validation = small_pictures(dataset.validation.inputs.numpy()), dataset.validation.labels.numpy()
    part = _part(labels, seed)
    settings = _settings(name, len(dataset.classes), images[part], seed)
    begun = time.perf_counter()  # after the import of scikit-learn, which takes two seconds
    seconds, accuracies = {}, {}
    for setting, model in settings.items():
        seconds[setting] = _fit(model, images[part], labels[part], workers)
        accuracies[setting] = float((_answers(model, validation[0], workers) == validation[1]).mean())
    best = max(accuracies, key=accuracies.__getitem__)  # of equal ones, the first
    if len(part) < len(labels):
        seconds[best] = _fit(settings[best], images, labels, workers)
        accuracies[best] = float((_answers(settings[best], validation[0], workers) == validation[1]).mean())
    _keep((dataset.fingerprint, name, best, seed), settings[best])
    tuning = time.perf_counter() - begun - seconds[best]
    return Baseline(name, best, accuracies[best], seconds[best], tuning, _size(settings[best], dataset.classes))


def fitted(baseline: Baseline, dataset: Dataset, seed: int, workers: int) -> Callable[[Array], Array]:
    """The model of a baseline, fitted again if this process has not done that already.

    Args:
        baseline: what `tuned` returned for the same data set and seed, in this process or in an earlier one.
        dataset: the training images.
        seed: of every random choice.
        workers: threads; they do not change the result.

    Returns:
        A function from images (M, C, H, W) uint8 to labels (M,) int64.

    Raises:
        UsageError: this version of nas does not know the setting.
    """
    key = (dataset.fingerprint, baseline.name, baseline.setting, seed)
    if key not in _models:
        images, labels = small_pictures(dataset.train.inputs.numpy()), dataset.train.labels.numpy()
        settings = _settings(baseline.name, len(dataset.classes), images, seed)
        if baseline.setting not in settings:
            raise UsageError(unknown(f"setting of the {baseline.name}", baseline.setting, settings))
        _fit(settings[baseline.setting], images, labels, workers)
        _keep(key, settings[baseline.setting])
    model = _models[key]
    return lambda images: _answers(model, small_pictures(images), workers)


# The latest models of this process by the data set's fingerprint, the name, the setting and the seed.
_models: dict[tuple[str, str, str, int], Any] = {}


def _keep(key: tuple[str, str, str, int], model: Any) -> None:
    """A forest has up to 300 MB: no more models stay than one comparison needs."""
    _models[key] = model
    while len(_models) > len(NAMES):
        del _models[next(iter(_models))]


def _part(labels: Array, seed: int) -> Array:
    """The positions of the training images on which settings are compared, with at least one of each class."""
    if len(labels) <= TUNING_IMAGES:
        return np.arange(len(labels))
    [part] = stratified(labels, [TUNING_IMAGES], seed)
    return np.union1d(part, np.unique(labels, return_index=True)[1])


def _settings(name: str, classes: int, pictures: Array, seed: int) -> Mapping[str, Any]:
    """The estimators of a baseline by their settings in words; no more neighbours than pictures."""
    from sklearn.dummy import DummyClassifier
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer
    from sklearn.tree import DecisionTreeClassifier

    match name:
        case "most frequent class":
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


def _fit(model: Any, pictures: Array, labels: Array, workers: int) -> float:
    """Fit a model to pictures (N, numbers) uint8; returns the seconds."""
    from sklearn.exceptions import ConvergenceWarning

    begun = time.perf_counter()
    if hasattr(model, "n_jobs"):
        model.n_jobs = workers
    # The threads of boosting wait for each other thousands of times. With few images, two are at best 1.3 times as
    # fast as one, and many times as slow where another process uses a core.
    with _threads(workers if len(pictures) > TUNING_IMAGES else 1), warnings.catch_warnings():
        # Steps beyond `STEPS` do not make logistic regression more accurate; often they make it less so.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(pictures.astype(np.float32), labels)
    return time.perf_counter() - begun


def _answers(model: Any, pictures: Array, workers: int) -> Array:
    """The labels (M,) int64 of pictures (M, numbers) uint8."""
    if hasattr(model, "n_jobs"):
        model.n_jobs = 1  # a forest adds the votes in the order in which its threads end
    with _threads(workers):
        parts = [
            model.predict(pictures[start : start + ANSWERS].astype(np.float32))
            for start in range(0, len(pictures), ANSWERS)
        ]
    return np.concatenate(parts)


def _threads(workers: int) -> Any:
    """Threads for scikit-learn's own loops, whose results do not depend on their number; BLAS has one: its do."""
    from threadpoolctl import threadpool_limits

    return threadpool_limits({"openmp": workers, "blas": 1})


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
