"""The baselines of series: the nearest neighbour by dynamic time warping, MiniRocket, and a forest on summaries.

The first two come from aeon, which is imported only when one of them is used; see `missing`.
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np

from nas.baselines.baseline import MOST_FREQUENT, Family, unchanged
from nas.baselines.features import features
from nas.data.dataset import Array, Dataset
from nas.data.plugin import stratified
from nas.errors import UsageError, label, unknown

OF_AEON = ("nearest neighbour by DTW", "MiniRocket and ridge")
NAMES = (MOST_FREQUENT, *OF_AEON, "random forest on summaries")
WINDOWS = (0, 5, 10, 20, 100)  # % of the length by which two series may be shifted against each other
# Of two series (C, T), DTW compares C·T² pairs of values, and a core does 0.2·10⁹ a second. So all validation
# series, those of all folds together, take at most two minutes without a window, and less with all other windows
# together. If the training series are too many for that, it has a part of them.
MOST_PAIRS = 25 * 10**9
MOST_SERIES = 5_000  # from which the ridge of MiniRocket learns: it solves equations as large
SHORTEST = 9  # steps, the length of MiniRocket's kernels
TREES = 200


def missing() -> str:
    """What to install for the models of `OF_AEON`, in words; empty if it is here."""
    if importlib.util.find_spec("aeon"):
        return ""
    return 'it needs aeon, which is not installed: pip install "nas[timeseries]"'


class Neighbour:
    """The class of the training series with the smallest distance by dynamic time warping; of equal ones, the
    first.

    The channels are warped together, as they are (so the published results are), or scaled: each with mean 0 and
    deviation 1 over all training series. Series may have different lengths; the window is a share of the shorter
    (Sakoe and Chiba, 1978).
    """

    def __init__(self, window: int, most: int, seed: int, *, scaled: bool = False) -> None:
        self.window, self.most, self.seed, self.scaled, self.n_jobs = window, most, seed, scaled, 1
        self.series: list[Array] = []
        self.labels: Array = np.zeros(0, np.int64)
        self.of = 0  # series that it was fitted to
        self.moments: tuple[Array, Array] = (np.zeros((1, 1)), np.ones((1, 1)))  # (C or 1, 1): mean and deviation

    def fit(self, series: Array, labels: Array) -> Self:
        """Keep series (N, C, T) and their labels (N,), or a part with each class in its share."""
        self.of = len(series)
        if self.scaled:
            mean = np.asarray(np.nanmean(series, (0, 2), np.float64))
            std = np.asarray(np.nanstd(series, (0, 2), np.float64))
            self.moments = mean[:, None], np.where(std > 0, std, 1)[:, None]
        rows = _some(labels, self.most, self.seed)
        self.series, self.labels = self._ready(series[rows]), labels[rows]
        return self

    def predict(self, series: Array) -> Array:
        """The labels (M,) of series (M, C, T)."""
        found: Array = self.labels[self.distances(series).argmin(1)]
        return found

    def distances(self, series: Array) -> Array:
        """The distance of each series (M, C, T) to each one that was kept, (M, kept)."""
        with _aeon(self.n_jobs) as threads:
            from aeon.distances import dtw_pairwise_distance

            found = dtw_pairwise_distance(
                self._ready(series), self.series, window=self.window / 100, n_jobs=threads
            )
        return np.asarray(found)

    def warm(self, series: Array) -> None:
        """Let numba compile, for a few series."""
        self.fit(series, np.zeros(len(series), np.int64)).predict(series)

    def _ready(self, series: Array) -> list[Array]:
        """Each series (C, length) without what is after its end."""
        mean, std = self.moments
        return [(one[:, ~np.isnan(one[0])].astype(np.float64) - mean) / std for one in series]


class Rocket:
    """MiniRocket's 9,996 shares of positive values, and a ridge classifier on them (Dempster and others, 2021).

    The weight of the penalty is the one with the best leave-one-out error on the training series, as published.
    Series of unequal length are padded with zeros or stretched to the longest; the validation series decide, as
    the authors of ROCKET (2020) decided between the original lengths and stretched series by cross-validation.
    """

    def __init__(self, *, stretched: bool, seed: int) -> None:
        self.stretched, self.seed, self.n_jobs = stretched, seed, 1
        self.steps = 0  # of all series
        self.learned, self.of = 0, 0  # the number of series from which it has learned, and to which it was fitted
        self.kernels: Any = None
        self.ridge: Any = None

    def fit(self, series: Array, labels: Array) -> Self:
        """Learn from series (N, C, T) and their labels (N,)."""
        from sklearn.dummy import DummyClassifier
        from sklearn.linear_model import RidgeClassifierCV
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        rows = _some(labels, MOST_SERIES, self.seed)
        self.learned, self.of, series, labels = len(rows), len(labels), series[rows], labels[rows]
        self._fit_kernels(series)
        ridge = make_pipeline(StandardScaler(with_mean=False), RidgeClassifierCV(np.logspace(-3, 3, 10)))
        self.ridge = ridge if len(np.unique(labels)) > 1 else DummyClassifier(strategy="most_frequent")
        self.ridge.fit(self._shares(series), labels)
        return self

    def predict(self, series: Array) -> Array:
        """The labels (M,) of series (M, C, T)."""
        found: Array = self.ridge.predict(self._shares(series))
        return found

    def warm(self, series: Array) -> None:
        """Let numba compile, for a few series."""
        self._fit_kernels(series)
        self._shares(series)

    def _fit_kernels(self, series: Array) -> None:
        self.steps = max(SHORTEST, series.shape[2])
        state = np.random.get_state()  # aeon seeds the global generator
        try:
            with _aeon(1):
                from aeon.transformations.collection.convolution_based import MiniRocket

                self.kernels = MiniRocket(random_state=self.seed).fit(self._ready(series))
        finally:
            np.random.set_state(state)

    def _shares(self, series: Array) -> Array:
        with _aeon(self.n_jobs) as threads:
            self.kernels._n_jobs = threads
            return np.asarray(self.kernels.transform(self._ready(series)))

    def _ready(self, series: Array) -> Array:
        return equal_lengths(series, self.steps, stretched=self.stretched)


def equal_lengths(series: Array, steps: int, *, stretched: bool) -> Array:
    """Series (N, C, steps) without NaN: each stretched by linear interpolation, or followed by zeros."""
    if stretched:
        found, places = np.empty((*series.shape[:2], steps), np.float32), np.linspace(0, 1, steps)
        for one, long in zip(series, found, strict=True):
            own = one[:, ~np.isnan(one[0])]
            for channel, values in zip(own, long, strict=True):
                values[:] = np.interp(places, np.linspace(0, 1, own.shape[1]), channel)
        return found
    padded = np.zeros((*series.shape[:2], steps), np.float32)
    padded[..., : series.shape[2]] = np.nan_to_num(series, nan=0.0)
    return padded


@contextmanager
def _aeon(workers: int) -> Iterator[int]:
    """Import and call aeon in this block; says the number of threads, at most those that numba has.

    Compiled code is kept beside aeon's, or, if nobody may write there, in the user's cache folder.
    """
    if "NUMBA_CACHE_DIR" not in os.environ and not os.access(_folder_of_aeon(), os.W_OK):
        import platformdirs

        folder = platformdirs.user_cache_path("nas") / "numba"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            folder = Path(tempfile.gettempdir())
        os.environ["NUMBA_CACHE_DIR"] = str(folder if os.access(folder, os.W_OK) else tempfile.gettempdir())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numba's, about conversions in aeon
        import numba

        yield max(1, min(workers, numba.config.NUMBA_NUM_THREADS))


def _folder_of_aeon() -> Path:
    found = importlib.util.find_spec("aeon")
    return Path(found.origin).parent if found and found.origin else Path()


def _some(labels: Array, most: int, seed: int) -> Array:
    """The positions of at most so many inputs, each class in its share, and of at least one of each."""
    if len(labels) <= most:
        return np.arange(len(labels))
    [part] = stratified(labels, [most], seed)
    return np.union1d(part, np.unique(labels, return_index=True)[1])


def _settings(name: str, data: Dataset, series: Array, seed: int) -> Mapping[str, Any]:
    """The models of a baseline by their settings in words."""
    from sklearn.dummy import DummyClassifier
    from sklearn.ensemble import RandomForestClassifier

    channels, steps = data.input_shape
    match name:
        case "most frequent class":
            return {"none": DummyClassifier(strategy="most_frequent")}
        case "nearest neighbour by DTW":
            # A channel of large values would decide alone; one of noise should not count as much as others.
            ways = [("", False), (", channels scaled", True)] if channels > 1 else [("", False)]
            answers = (len(data.folds) or len(data.validation)) * len(ways)
            most = max(1, MOST_PAIRS // (answers * channels * steps**2))
            return {
                f"window {window} %{words}": Neighbour(window, most, seed, scaled=scaled)
                for words, scaled in ways
                for window in WINDOWS
            }
        case "MiniRocket and ridge":
            if not data.is_padded:
                return {"9,996 kernels": Rocket(stretched=False, seed=seed)}
            return {
                f"{way} series": Rocket(stretched=way == "stretched", seed=seed) for way in ("padded", "stretched")
            }
        case "random forest on summaries":
            return {
                f"leaves of {least}+ series": RandomForestClassifier(
                    TREES, min_samples_leaf=least, random_state=seed
                )
                for least in (1, 3)
            }
    raise UsageError(unknown("baseline", name, NAMES))


def _size(model: Any, classes: Sequence[str]) -> str:
    """How much a fitted model keeps, in a number that says something for its kind."""
    if isinstance(model, Neighbour):
        return _of(len(model.labels), model.of)
    if isinstance(model, Rocket):
        coefficients = getattr(model.ridge[-1], "coef_", None) if hasattr(model.ridge, "steps") else None
        number = 0 if coefficients is None else coefficients.size + model.ridge[-1].intercept_.size
        return f"{number:,} coefficients" + (f" from {_of(model.learned, model.of)}") * (model.learned < model.of)
    if hasattr(model, "estimators_"):
        nodes = sum(tree.tree_.node_count for tree in model.estimators_)
        return f"{nodes:,} nodes in {len(model.estimators_):,} trees"
    return f"1 class, {label(classes[int(model.class_prior_.argmax())])}"


def _of(kept: int, all_of_them: int) -> str:
    return f"{kept:,} series" if kept == all_of_them else f"{kept:,} of {all_of_them:,} series"


def _prepared(name: str, series: Array) -> Array:
    return features(series) if name == NAMES[-1] else series


FAMILY = Family(NAMES, _prepared, unchanged, _settings, _size)
