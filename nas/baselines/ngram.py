"""The baselines of texts: how frequent characters are, and which follow the last few characters.

The second is an n-gram model with interpolated Kneser-Ney smoothing, in the modified form with three discounts
(Chen and Goodman, "An empirical study of smoothing techniques for language modeling", Computer Speech and Language
13, 1999). It says a probability for every character, so that it has bits per character.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from nas.baselines.baseline import MOST_FREQUENT, Family, unchanged
from nas.data.dataset import Array, Dataset
from nas.errors import UsageError, label, unknown

NAMES = (MOST_FREQUENT, "n-grams")
ORDERS = (5, 4, 3, 6)  # characters of an n-gram, the next one included; the first is that of equally good ones
PAIRS = 1_000  # of windows that are compared, to find by how much they are shifted


class Level(NamedTuple):
    """What is known about the characters after contexts of one length."""

    codes: Array  # (contexts,) int64, sorted: of a context without its oldest token, times tokens, plus that token
    first: Array  # (contexts + 1,): where the followers of each context begin
    followers: Array  # the classes that were seen after each context
    shares: Array  # of each follower, its probability before smoothing, discounted
    rest: Array  # (contexts,): the probability that the shorter context distributes


class Ngrams:
    """An n-gram model: the probability of a class after the last tokens of a window.

    The probability after a context is the discounted share of the class, plus the rest times its probability after
    the context without the oldest token; that of shorter contexts counts in how many contexts a class was seen,
    not how often. After no context the rest is distributed equally.
    """

    def __init__(self, order: int, classes: int) -> None:
        self.order, self.classes = order, classes
        self.levels: list[Level] = []
        self.tokens = 0  # those from 0 to tokens - 1 were seen

    def fit(self, windows: Array, labels: Array) -> Self:
        """Count.

        Args:
            windows: (N, T) tokens. Consecutive windows of a text may overlap; each position counts once.
            labels: (N,) the class that follows.
        """
        order = min(self.order, windows.shape[1] + 1)
        found = events(windows, labels, order)
        found = found[found[:, -1] < self.classes]
        self.tokens = int(found[:, :-1].max(initial=0)) + 1
        # Contexts of each length get numbers; that of length 0 is 0.
        numbers, codes = [np.zeros(len(found), np.int64)], [np.zeros(1, np.int64)]
        for back in range(2, order + 1):
            known, number = np.unique(numbers[-1] * self.tokens + found[:, -back], return_inverse=True)
            codes.append(known)
            numbers.append(number)
        self.levels = []
        pairs, counts = np.unique(numbers[-1] * self.classes + found[:, -1], return_counts=True)
        for length in reversed(range(order)):
            self.levels.append(_level(codes[length], pairs // self.classes, pairs % self.classes, counts))
            if length:  # in how many longer contexts each class was seen after the shorter one
                shorter = codes[length][pairs // self.classes] // self.tokens
                pairs, counts = np.unique(shorter * self.classes + pairs % self.classes, return_counts=True)
        self.levels.reverse()
        return self

    def predict_proba(self, windows: Array) -> Array:
        """The probabilities (M, classes) float32 of windows (M, T)."""
        chances = np.full((len(windows), self.classes), 1 / self.classes)
        number, rows = np.zeros(len(windows), np.int64), np.arange(len(windows))
        for length, level in enumerate(self.levels):
            if length:
                token = windows[rows, -length].astype(np.int64)
                code = number * self.tokens + token
                place = np.minimum(np.searchsorted(level.codes, code), len(level.codes) - 1)
                is_known = (level.codes[place] == code) & (token < self.tokens)
                rows, number = rows[is_known], place[is_known]
            chances[rows] *= level.rest[number, None]
            many = level.first[number + 1] - level.first[number]
            # All followers of all rows: their positions in `followers`.
            ends = np.cumsum(many)
            at = np.arange(many.sum()) - np.repeat(ends - many - level.first[number], many)
            chances[np.repeat(rows, many), level.followers[at]] += level.shares[at]
        return chances.astype(np.float32)

    @property
    def size(self) -> int:
        """The number of counts."""
        return sum(len(level.followers) for level in self.levels)


class Frequencies:
    """The share of each class, after one more of each: what is known without looking at a text."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.shares: Array = np.full(classes, 1 / classes)

    def fit(self, windows: Array, labels: Array) -> Self:
        """Count the labels (N,)."""
        counts = np.bincount(labels, minlength=self.classes) + 1
        self.shares = counts / counts.sum()
        return self

    def predict_proba(self, windows: Array) -> Array:
        """The same probabilities (M, classes) float32 for each of M windows."""
        return np.tile(self.shares.astype(np.float32), (len(windows), 1))


def events(windows: Array, labels: Array, order: int) -> Array:
    """Every ``order`` consecutive tokens of the texts from which windows were cut; each position of a text once.

    Args:
        windows: (N, T). If each begins a fixed number of tokens after the one before it, at most T, they are
            joined again, and what is inside of the windows counts, too; otherwise only how each ends.
        labels: (N,) the token that follows each window.
        order: 1 to T + 1.

    Returns:
        (events, order) int64; the last column is that of the classes.
    """
    stride = shift(windows, labels)
    both = np.concatenate([windows, labels[:, None]], axis=1).astype(np.int64)
    if stride is None:
        return both[:, -order:]
    breaks = (~_follows(windows, labels, stride)).nonzero()[0] + 1
    starts = [0, *breaks.tolist(), len(windows)]
    texts = [
        np.concatenate([both[start], both[start + 1 : end, -stride:].ravel()])
        for start, end in itertools.pairwise(starts)
    ]
    return np.concatenate([np.lib.stride_tricks.sliding_window_view(text, order) for text in texts])


def shift(windows: Array, labels: Array) -> int | None:
    """By how many tokens, 1 to T, most windows (N, T) begin after the one before them; None: it varies."""
    few = slice(PAIRS + 1)
    for stride in range(1, windows.shape[1] + 1):
        if len(windows) > 1 and _follows(windows[few], labels[few], stride).mean() > 0.9:
            return stride
    return None


def _follows(windows: Array, labels: Array, stride: int) -> Array:
    """Whether each window but the first, (N - 1,) bool, begins so many tokens after the one before it."""
    kept = windows.shape[1] - stride
    same = (windows[1:, :kept] == windows[:-1, stride:]).all(1)
    found: Array = same & (windows[1:, kept] == labels[:-1])
    return found


def _level(codes: Array, contexts: Array, followers: Array, counts: Array) -> Level:
    """The level of contexts, from the counts of each context and class, which are sorted by the context."""
    cut = discounts(counts)[np.minimum(counts, 3)]
    total = np.bincount(contexts, counts, len(codes))
    rest = np.bincount(contexts, cut, len(codes)) / total
    first = np.searchsorted(contexts, np.arange(len(codes) + 1))
    return Level(codes, first, followers, (counts - cut) / total[contexts], rest)


def discounts(counts: Array) -> Array:
    """What is taken away from counts of 0, 1, 2, and 3 or more: (4,), estimated from how many counts are 1 to 4.

    Where there are too few of them for an estimate, it is a half of 1.
    """
    ones, twos, threes, fours = (int((counts == number).sum()) for number in (1, 2, 3, 4))
    if not (ones and twos):
        return np.array([0.0, 0.5, 0.5, 0.5])
    usual = ones / (ones + 2 * twos)
    cut = [1 - 2 * usual * twos / ones, usual, usual]
    if threes and fours:
        cut[1:] = [2 - 3 * usual * threes / twos, 3 - 4 * usual * fours / threes]
    return np.array([0.0, *np.clip(cut, 0.01, [1.0, 2.0, 3.0])])


def _settings(name: str, data: Dataset, windows: Array, seed: int) -> Mapping[str, Any]:
    """The models of a baseline by their settings in words."""
    classes = len(data.classes)
    if name == MOST_FREQUENT:
        return {"none": Frequencies(classes)}
    if name == NAMES[1]:
        orders = [order for order in ORDERS if order <= windows.shape[1] + 1]
        return {f"order {order}": Ngrams(order, classes) for order in orders or [windows.shape[1] + 1]}
    raise UsageError(unknown("baseline", name, NAMES))


def _size(model: Any, classes: Sequence[str]) -> str:
    if isinstance(model, Ngrams):
        return f"{model.size:,} counts"
    return f"1 class, {label(classes[int(model.shares.argmax())])}"


def _prepared(name: str, windows: Array) -> Array:
    return windows


FAMILY = Family(NAMES, _prepared, unchanged, _settings, _size, most=None)
