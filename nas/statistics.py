"""How sure a number is: means, spreads, an interval for an accuracy, and whether two networks differ."""

from __future__ import annotations

from collections.abc import Sequence

CONFIDENCE = 0.95


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean."""
    return sum(values) / len(values)


def deviation(values: Sequence[float]) -> float:
    """The standard deviation of a sample; zero for a single value."""
    if len(values) < 2:
        return 0.0
    middle = mean(values)
    return float((sum((value - middle) ** 2 for value in values) / (len(values) - 1)) ** 0.5)


def interval(accuracy: float, images: int) -> tuple[float, float]:
    """The 95 % confidence interval of an accuracy that was measured on so many images (Wilson, 1927).

    Unlike the usual ± it is never beyond 0 or 1, and it is right for accuracies near 1, too.
    """
    from scipy.stats import binomtest

    found = binomtest(round(accuracy * images), images).proportion_ci(CONFIDENCE, method="wilson")
    return float(found.low), float(found.high)


def difference_by_chance(only_first: int, only_second: int) -> float:
    """How likely two equally good networks would differ by as much, or more, on the same images.

    McNemar's test (1947), exact: the images that both classify right, or both wrong, say nothing.

    Args:
        only_first: images that only the first one classifies right.
        only_second: images that only the second one does.
    """
    from scipy.stats import binomtest

    if not only_first + only_second:
        return 1.0
    return float(binomtest(only_first, only_first + only_second).pvalue)
