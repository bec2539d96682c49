"""Means, standard deviations, scores of classifiers, the confidence interval of an accuracy, and a test of two
networks' difference.
"""

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
    average = mean(values)
    return float((sum((value - average) ** 2 for value in values) / (len(values) - 1)) ** 0.5)


def balanced_accuracy(right: Sequence[float], images: Sequence[float]) -> float:
    """The mean over the classes of the fraction of their images that are classified right.

    Args:
        right: the number of images of each class that are classified right.
        images: the number of images of each class; a class without any does not count.
    """
    return mean([found / count for found, count in zip(right, images, strict=True) if count])


def macro_f1(right: Sequence[float], answers: Sequence[float], images: Sequence[float]) -> float:
    """The mean over the classes of F1, the harmonic mean of precision and recall (van Rijsbergen, 1979).

    Args:
        right: the number of images of each class that are classified right.
        answers: how often each class was answered.
        images: the number of images of each class; a class without any does not count.
    """
    return mean([2 * f / (a + count) for f, a, count in zip(right, answers, images, strict=True) if count])


def standard_error(share: float, count: int) -> float:
    """The standard error of a share that was counted in so many cases; one more right and one wrong, so that it
    is not 0 (Agresti and Caffo, 2000).
    """
    moved = (min(1.0, max(0.0, share)) * count + 1) / (count + 2)
    return float((moved * (1 - moved) / (count + 2)) ** 0.5)


def interval(accuracy: float, images: int) -> tuple[float, float]:
    """The 95 % confidence interval of an accuracy that was measured on a number of images (Wilson, 1927).

    Unlike the normal approximation, it stays between 0 and 1, and it holds for accuracies near 1.
    """
    from scipy.stats import binomtest

    found = binomtest(round(accuracy * images), images).proportion_ci(CONFIDENCE, method="wilson")
    return float(found.low), float(found.high)


def difference_by_chance(only_first: int, only_second: int) -> float:
    """The probability that two equally good networks differ at least as much on the same images.

    It is the p-value of McNemar's exact test (1947), which uses only the images that just one classifies right.

    Args:
        only_first: the number of images that only the first network classifies right.
        only_second: the number of images that only the second network classifies right.
    """
    from scipy.stats import binomtest

    if not only_first + only_second:
        return 1.0
    return float(binomtest(only_first, only_first + only_second).pvalue)
