"""What may be concluded from a comparison of strategies.

Each strategy searches with the same seeds, and the winners of all searches classify the same test images. Two
strategies are therefore compared seed by seed and image by image. Their difference is uncertain for two reasons,
as in a bootstrap that draws seeds and images, each with replacement (Owen, "The pigeonhole bootstrap", 2007):

- Other seeds have other winners. For a mean, the standard error of the bootstrap over seeds has a closed form:
  nothing need be drawn. It is too small for few seeds: it is multiplied by √(n / (n - 1)), and the interval is as
  wide as Student's t asks for (Hesterberg, "What Teachers Should Know About the Bootstrap", 2015).
- Other test images have other results, as some images are easier for one strategy. This part of the variance is
  the covariance, over the images, of the winners' differences with two seeds, divided by the number of images.

The squares of both widths add up (Howe, "Approximate confidence limits on the mean of X + Y where X and Y are two
tabled independent random variables", 1974). Intervals and p-values are corrected for the number of pairs (Holm,
1979).

Accuracies need not be normal. Therefore p-values are multiplied by 1.25 and the intervals are as wide as belongs
to that: with 1,000 made-up comparisons each (docs/benchmarks.md), a 95 % interval holds the truth in 96 to 97 % of
them for normal and for exponential accuracies, but only in 88 to 94 % if one strategy has exponential ones and the
other always the same. Each interval holds by itself: where several pairs differ, that all hold at once is less
certain, as Holm's later steps have larger levels.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import exp, hypot, log, sqrt
from typing import NamedTuple

import numpy as np

from nas.records.predictions import Array
from nas.statistics import CONFIDENCE, difference_by_chance

LEVEL = 1 - CONFIDENCE
# Accuracies need not be normal, and a strategy may always find the same: p-values are so many times as large as
# Student's t says, and intervals as wide as belongs to that.
CAUTION = 1.25
POWER = 0.8  # the probability of telling two strategies apart with enough seeds
MOST_SEEDS = 1000  # more are never suggested
SMALLEST = 1e-15  # half of the smallest p-value


@dataclass(frozen=True)
class Sample:
    """A strategy and its winners."""

    name: str
    right: Mapping[int, Array]  # seed → (M,) bool: whether its winner classifies each test image right


@dataclass(frozen=True)
class Verdict:
    """What may be concluded about two strategies, or about a strategy and a model."""

    first: str
    second: str
    difference: float  # of the mean test accuracies over the common seeds, first minus second, as a fraction
    low: float  # its interval, 95 %, corrected for the number of pairs; from -1 to 1 with fewer than two seeds
    high: float
    chance: float  # the p-value, corrected for the number of pairs; 1 with fewer than two seeds
    seeds: int  # with which both have a winner
    enough: int | None  # seeds that tell the two apart with a probability of 80 %; None: over 1,000, or unknown
    alike: bool = False  # with every seed, the same test images are right
    models: float | None = None  # with one seed: the p-value of its two models (McNemar), corrected, too
    few_images: bool = False  # whether no number of seeds tells them apart on so few test images

    @property
    def is_clear(self) -> bool:
        """Whether the interval excludes 0; if and only if it does, `chance` is at most 5 %."""
        return self.low > 0 or self.high < 0

    @property
    def better(self) -> str | None:
        """The name of the better one; None if they cannot be told apart."""
        if not self.is_clear:
            return None
        return self.first if self.difference > 0 else self.second


def verdicts(samples: Sequence[Sample]) -> list[Verdict]:
    """What may be concluded about every pair of strategies, in their order.

    Args:
        samples: the strategies. A seed without a winner of one of two strategies does not count for this pair.

    Raises:
        ValueError: the winners have not classified the same number of images.
    """
    return _concluded(_pair(first, second) for first, second in combinations(samples, 2))


def beside(samples: Sequence[Sample], models: Mapping[str, Array]) -> list[Verdict]:
    """What may be concluded about every strategy and every one of some models that no search has found.

    Args:
        samples: the strategies.
        models: name → (M,) bool: whether the model classifies each test image right. The verdict is about this
            very model: that another seed would have trained another one is not considered.
    """
    return _concluded(
        _pair(sample, Sample(name, dict.fromkeys(sample.right, right)))
        for sample in samples
        for name, right in models.items()
    )


class _Pair(NamedTuple):
    """Two strategies: the difference of their test accuracies, and how uncertain it is."""

    first: str
    second: str
    seeds: int  # with which both have a winner
    difference: float = 0.0  # first minus second
    spread: float = 0.0  # the standard deviation of the difference over the seeds
    images: float = 0.0  # the standard error of the difference that is due to the choice of the test images
    alike: bool = False
    models: float = 1.0  # with one seed: the p-value of its two models

    def margin(self, tail: float, seeds: int | None = None) -> float:
        """Half the width of the interval beyond whose ends, with so many seeds, a probability of ``tail`` lies."""
        from scipy.special import ndtri, stdtrit

        seeds = seeds or self.seeds
        return hypot(stdtrit(seeds - 1, tail) * self.spread / sqrt(seeds), ndtri(tail) * self.images)

    def chance(self) -> float:
        """The p-value: one minus the confidence of the interval that ends at 0."""
        from scipy.optimize import brentq

        if self.seeds < 2:
            return 1.0
        distance = abs(self.difference)
        if self.margin(SMALLEST) <= distance:
            return 2 * SMALLEST
        return 2 * exp(brentq(lambda tail: self.margin(exp(tail)) - distance, log(SMALLEST), log(0.5)))

    def needs_images(self, level: float) -> bool:
        """Whether the choice of the test images alone makes the difference uncertain, with any number of seeds."""
        from scipy.special import ndtri

        return bool(-(ndtri(level / 2) + ndtri(1 - POWER)) * self.images > abs(self.difference))

    def enough(self, level: float) -> int | None:
        """The seeds with which a test at a level finds a true difference of this size with probability `POWER`."""

        def tells(seeds: int) -> bool:
            return self.margin(level / 2, seeds) + self.margin(1 - POWER, seeds) <= abs(self.difference)

        numbers = range(2, MOST_SEEDS + 1)
        place = bisect_left(numbers, True, key=tells)
        return numbers[place] if place < len(numbers) else None


def _pair(first: Sample, second: Sample) -> _Pair:
    common = sorted(first.right.keys() & second.right.keys())
    if not common:
        return _Pair(first.name, second.name, 0)
    apart = np.stack([first.right[seed].astype(np.int8) - second.right[seed] for seed in common])  # (n, M)
    seeds, images = apart.shape
    difference, alike = float(apart.mean()), not apart.any()
    if seeds == 1:
        models = difference_by_chance(int((apart > 0).sum()), int((apart < 0).sum()))
        return _Pair(first.name, second.name, 1, difference, alike=alike, models=models)
    # Of the variance over images, the seeds share a part (a covariance); the rest is different with each seed.
    own, joint = apart.var(axis=1).mean(), apart.mean(axis=0).var()
    shared = (seeds * joint - own) / (seeds - 1)
    # The rest is in the variance over seeds, which by chance may be smaller: two winners of equal accuracy.
    spread = max(apart.mean(axis=1).var(ddof=1), (own - shared) / images)
    # One image more for each of the two, as where they differ on few images (Bonett and Price, "Adjusted Wald
    # confidence interval for a difference of binomial proportions based on paired data", 2012).
    of_images = max(shared, 0.0) / images + 2 / images**2
    return _Pair(first.name, second.name, seeds, difference, sqrt(spread), sqrt(of_images), alike)


def _concluded(pairs: Iterable[_Pair]) -> list[Verdict]:
    """Correct for the number of pairs. Those with one seed count apart: they test models, not strategies."""
    known = list(pairs)
    several = [pair for pair in known if pair.seeds > 1]
    corrected = iter(zip(*holm([min(1.0, CAUTION * pair.chance()) for pair in several]), strict=True))
    models = iter(holm([pair.models for pair in known if pair.seeds == 1])[0])
    found = []
    for pair in known:
        chance, level, low, high, enough, few_images = 1.0, LEVEL, -1.0, 1.0, None, False
        if pair.seeds > 1:
            chance, level = next(corrected)
            margin, enough = pair.margin(level / CAUTION / 2), pair.enough(level / CAUTION)
            few_images = pair.needs_images(level / CAUTION)
            low, high = max(pair.difference - margin, -1.0), min(pair.difference + margin, 1.0)
        of_models = next(models) if pair.seeds == 1 else None
        found.append(
            Verdict(
                pair.first, pair.second, pair.difference, low, high,
                chance, pair.seeds, enough, pair.alike, of_models, few_images,
            )
        )  # fmt: skip
    return found


def holm(chances: Sequence[float]) -> tuple[list[float], list[float]]:
    """Correct p-values for their number (Holm, "A simple sequentially rejective multiple test procedure", 1979).

    Returns:
        The corrected p-values, and the level at which each is tested: that of its rank; from the first one on that
        is not rejected, that of this one. An interval of this level therefore excludes 0 if and only if the
        corrected p-value is at most 5 %.
    """
    corrected, levels = [1.0] * len(chances), [LEVEL] * len(chances)
    largest, tested = 0.0, len(chances)
    for left, place in zip(range(len(chances), 0, -1), np.argsort(chances, kind="stable").tolist(), strict=True):
        if largest <= LEVEL:  # all before are rejected
            tested = left
        corrected[place] = largest = min(max(largest, left * chances[place]), 1.0)
        levels[place] = LEVEL / tested
    return corrected, levels


def sentences(found: Sequence[Verdict], noun: str = "images") -> list[str]:
    """What may be concluded, in words: a sentence for each verdict, in their order."""
    return [sentence(verdict, noun) for verdict in found]


def sentence(verdict: Verdict, noun: str = "images") -> str:
    """What may be concluded about two strategies, in words; a difference is given in percentage points.

    Args:
        verdict: the numbers.
        noun: what the test consists of: images, series or texts.
    """
    both = f"{verdict.first} and {verdict.second}"
    if verdict.seeds == 0:
        return f"nothing can be said about {both}: no seed has results of both"
    if verdict.alike:
        return f"{both} classify the same test {noun} right: there is no difference"
    if verdict.seeds == 1:
        return f"nothing can be said about {both} from one seed; {_of_models(verdict, noun)}"
    if verdict.better is None:
        few = f"{both} cannot be told apart with {verdict.seeds} seeds"
        if verdict.few_images:
            return f"{few}, nor with more of them on so few test {noun}"
        if verdict.enough is None:
            return f"{few} (it would take more than {MOST_SEEDS:,})"
        return f"{few} (it would take about {_rounded(verdict.enough)})"
    worse = verdict.second if verdict.better == verdict.first else verdict.first
    return f"{verdict.better} is better than {worse} by {_points(verdict)}"


def _of_models(verdict: Verdict, noun: str) -> str:
    """What McNemar's test says about two models, which says nothing about how they were found."""
    chance = verdict.models or 0.0
    shown = f"p = {chance:.2g} in McNemar's test" if chance >= 0.001 else "p < 0.001 in McNemar's test"
    if chance > LEVEL:
        return f"the two models alone cannot be told apart on these test {noun} ({shown})"
    better = verdict.first if verdict.difference > 0 else verdict.second
    by = f"{100 * abs(verdict.difference):.2f} points"
    return f"of the two models alone, that of {better} is better on these test {noun} by {by} ({shown})"


def _points(verdict: Verdict) -> str:
    """The size of a clear difference: ``0.21 ± 0.12 points``, with more digits where its interval nears 0."""
    near, far = sorted(100 * abs(end) for end in (verdict.low, verdict.high))
    middle = 100 * abs(verdict.difference)
    for digits in range(2, 7):
        size, margin = round(middle, digits), round(far - middle, digits)
        if size > margin:
            break
    if far >= 100 or abs(far + near - 2 * middle) > 0.01 * middle:  # cut at its end
        return f"between {near:.{digits}f} and {far:.{digits}f} points"
    return f"{size:.{digits}f} ± {margin:.{digits}f} points"


def _rounded(number: int) -> str:
    """A number with two significant digits: 137 becomes 140."""
    return f"{round(number, 2 - len(str(number))) if number > 99 else number:,}"
