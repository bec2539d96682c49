"""Models that no search has found, which learn from the same images, series or texts.

Each is fitted to the training inputs with a few settings and takes the one with the highest accuracy on the
validation inputs; of equal ones, the first. Where the data are divided into folds, that accuracy is the mean over
them, and the best setting is fitted to the training and validation inputs together. For a seed, the answers are
the same with any number of workers.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from nas.baselines import images, ngram, series
from nas.baselines.baseline import Baseline, Family, accuracy_of, bits_of
from nas.data.dataset import Array, Dataset, Split
from nas.data.kinds import Kind
from nas.data.plugin import stratified
from nas.errors import UsageError, unknown

FAMILIES: dict[Kind, Family] = {"images": images.FAMILY, "series": series.FAMILY, "tokens": ngram.FAMILY}
ANSWERS = 8_192  # inputs that are classified at a time


def names(kind: Kind) -> tuple[str, ...]:
    """The names of the baselines of a kind of input, in the order in which they are shown."""
    return FAMILIES[kind].names


def missing(name: str) -> str:
    """Why a baseline cannot be fitted here and what to install, in words; empty if it can."""
    return series.missing() if name in series.OF_AEON else ""


class _Part(NamedTuple):
    """What a model learns from, and what it is validated with."""

    train: tuple[Array, Array]  # prepared inputs (N, …) and labels (N,)
    validation: tuple[Array, Array]


def tuned(name: str, dataset: Dataset, seed: int, workers: int) -> Baseline:
    """Fit a model with each of its settings, and choose the best on the validation inputs.

    Args:
        name: one of `names`.
        dataset: the training and validation inputs.
        seed: of every random choice.
        workers: threads; they do not change the result.

    Raises:
        UsageError: there is no such baseline of this kind of input, or it needs a package that is not here.
    """
    family = _family(name, dataset)
    parts, whole = _parts(name, family, dataset, seed)
    settings = family.settings(name, dataset, parts[0].train[0], seed)
    _warm(settings, family, whole[0], workers)
    begun = time.perf_counter()  # after the import of scikit-learn, which takes two seconds, and after compiling
    seconds, accuracies = {}, {}
    for setting, model in settings.items():
        found = []
        for part in parts:
            seconds[setting] = _fit(model, family, *part.train, workers)
            found.append(_accuracy(model, family, *part.validation, workers))
        accuracies[setting] = sum(found) / len(found)
    best = max(accuracies, key=accuracies.__getitem__)  # of equal ones, the first
    model, bits = settings[best], None
    if len(parts[-1].train[1]) < len(whole[1]):
        seconds[best] = _fit(model, family, *whole, workers)
        if not dataset.folds:
            accuracies[best] = _accuracy(model, family, *parts[0].validation, workers)
    if dataset.kind == "tokens" and not dataset.folds:
        bits = bits_of(_answers(model, family, parts[0].validation[0], workers), parts[0].validation[1])
    _keep((dataset.fingerprint, name, best, seed), model)
    tuning = time.perf_counter() - begun - seconds[best]
    return Baseline(name, best, accuracies[best], seconds[best], tuning, family.size(model, dataset.classes), bits)


def fitted(baseline: Baseline, dataset: Dataset, seed: int, workers: int) -> Callable[[Array], Array]:
    """The model of a baseline, fitted again if this process has not done that already.

    Args:
        baseline: what `tuned` returned for the same data set and seed, in this process or in an earlier one.
        dataset: the training inputs.
        seed: of every random choice.
        workers: threads; they do not change the result.

    Returns:
        A function from inputs (M, …), as those of `Split`, to labels (M,) int64; of texts, to the probabilities of
        all classes, (M, classes) float32.

    Raises:
        UsageError: this version of nas does not know the setting, or a package is not here.
    """
    name, family = baseline.name, _family(baseline.name, dataset)
    key = (dataset.fingerprint, name, baseline.setting, seed)
    if key not in _models:
        inputs, labels = _learned(name, family, dataset)
        settings = family.settings(name, dataset, inputs, seed)
        if baseline.setting not in settings:
            raise UsageError(unknown(f"setting of the {name}", baseline.setting, settings))
        _fit(settings[baseline.setting], family, inputs, labels, workers)
        _keep(key, settings[baseline.setting])
    model = _models[key]
    return lambda inputs: _answers(model, family, family.prepared(name, inputs), workers)


def _family(name: str, dataset: Dataset) -> Family:
    family = FAMILIES[dataset.kind]
    if name not in family.names:
        raise UsageError(unknown(f"baseline of {dataset.kind}", name, family.names))
    if reason := missing(name):
        raise UsageError(f"{name}: {reason}")
    return family


# The latest models of this process by the data set's fingerprint, the name, the setting and the seed.
_models: dict[tuple[str, str, str, int], Any] = {}


def _keep(key: tuple[str, str, str, int], model: Any) -> None:
    """A forest has up to 300 MB: no more models stay than one comparison needs."""
    _models[key] = model
    while len(_models) > max(len(family.names) for family in FAMILIES.values()):
        del _models[next(iter(_models))]


def _prepared(name: str, family: Family, split: Split) -> tuple[Array, Array]:
    return family.prepared(name, split.inputs.numpy()), split.labels.numpy()


def _learned(name: str, family: Family, dataset: Dataset) -> tuple[Array, Array]:
    """All prepared inputs and labels from which the final model learns."""
    return _prepared(name, family, dataset.whole if dataset.folds else dataset.train)


def _parts(name: str, family: Family, dataset: Dataset, seed: int) -> tuple[list[_Part], tuple[Array, Array]]:
    """On what the settings are compared, for each fold; and all that the final model learns from."""
    inputs, labels = whole = _learned(name, family, dataset)
    if not dataset.folds:
        rows = _part(labels, seed, family.most)
        return [_Part((inputs[rows], labels[rows]), _prepared(name, family, dataset.validation))], whole
    folds, parts = np.array(dataset.folds), []
    for number in range(folds.max() + 1):
        train, validation = (folds != number).nonzero()[0], (folds == number).nonzero()[0]
        train = train[_part(labels[train], seed, family.most)]
        parts.append(_Part((inputs[train], labels[train]), (inputs[validation], labels[validation])))
    return parts, whole


def _part(labels: Array, seed: int, most: int | None) -> Array:
    """The positions of the training inputs on which settings are compared, with at least one of each class."""
    if most is None or len(labels) <= most:
        return np.arange(len(labels))
    [part] = stratified(labels, [most], seed)
    return np.union1d(part, np.unique(labels, return_index=True)[1])


def _warm(settings: Any, family: Family, inputs: Array, workers: int) -> None:
    """Let a model import and compile what it needs, which would count as seconds of fitting."""
    import sklearn.exceptions  # noqa: F401

    model = next(iter(settings.values()))
    if hasattr(model, "warm"):
        model.n_jobs = workers
        model.warm(family.converted(inputs[:3]))


def _fit(model: Any, family: Family, inputs: Array, labels: Array, workers: int) -> float:
    """Fit a model to prepared inputs (N, …); returns the seconds."""
    from sklearn.exceptions import ConvergenceWarning

    begun = time.perf_counter()
    if hasattr(model, "n_jobs"):
        model.n_jobs = workers
    # The threads of boosting wait for each other thousands of times. With few images, two are at best 1.3 times as
    # fast as one, and many times as slow where another process uses a core.
    with _threads(workers if len(inputs) > (family.most or 0) else 1), warnings.catch_warnings():
        # Steps beyond `images.STEPS` do not make logistic regression more accurate; often they make it less so.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(family.converted(inputs), labels)
    return time.perf_counter() - begun


def _accuracy(model: Any, family: Family, inputs: Array, labels: Array, workers: int) -> float:
    return accuracy_of(_answers(model, family, inputs, workers), labels)


def _answers(model: Any, family: Family, inputs: Array, workers: int) -> Array:
    """The labels (M,) int64, or of texts the probabilities (M, classes), of prepared inputs (M, …)."""
    if hasattr(model, "n_jobs"):
        # A forest adds the votes in the order in which its threads end.
        model.n_jobs = workers if hasattr(model, "warm") else 1
    answer = model.predict_proba if family is ngram.FAMILY else model.predict
    with _threads(workers):
        parts = [
            answer(family.converted(inputs[start : start + ANSWERS])) for start in range(0, len(inputs), ANSWERS)
        ]
    return np.concatenate(parts)


def _threads(workers: int) -> Any:
    """Threads for scikit-learn's own loops, whose results do not depend on their number; BLAS has one: its do."""
    from threadpoolctl import threadpool_limits

    return threadpool_limits({"openmp": workers, "blas": 1})
