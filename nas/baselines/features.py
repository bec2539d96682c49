"""Twenty-two numbers that sum up a channel of a series, for models that take no series."""

from __future__ import annotations

import numpy as np

from nas.data.dataset import Array

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
LAGS = (1, 2, 3, 5, 10)  # steps, of the autocorrelations
PEAKS = 2  # of the spectrum
NAMES = (
    "mean", "deviation", "smallest", "largest", *(f"{share:.0%} quantile" for share in QUANTILES), "slope",
    "skewness", "kurtosis", "mean change", "crossings of the mean",
    *(f"autocorrelation after {lag}" for lag in LAGS),
    *(f"frequency of peak {number}" for number in range(1, PEAKS + 1)), "share of peak 1",
)  # fmt: skip


def features(series: Array) -> Array:
    """The features of series, and their lengths.

    Args:
        series: (N, C, T) float32; NaN after the end of a series.

    Returns:
        (N, C·22 + 1) float32: the features of the first channel in the order of `NAMES`, of the second, …, and the
        length in steps. A feature that has no meaning for a series, such as the slope of one step, is 0.
    """
    lengths = (~np.isnan(series[:, 0])).sum(1)
    found = np.zeros((len(series), series.shape[1] * len(NAMES) + 1), np.float32)
    for length in np.unique(lengths):
        rows = (lengths == length).nonzero()[0]
        values = _of_one_length(series[rows, :, :length].astype(np.float64))
        found[rows, :-1] = values.reshape(len(rows), -1)
    found[:, -1] = lengths
    return found


def _of_one_length(series: Array) -> Array:
    """The features (N, C, 22) of series (N, C, T) without NaN."""
    steps = series.shape[2]
    mean = series.mean(2, keepdims=True)
    centred = series - mean
    deviation = np.sqrt((centred**2).mean(2))
    scale = np.where(
        deviation > 1e-9 * (1 + abs(mean[..., 0])), deviation, np.inf
    )  # of a constant: 0 of all that follows
    unit = centred / scale[..., None]
    time = np.linspace(-1, 1, steps) if steps > 1 else np.zeros(1)
    changes = abs(np.diff(series, axis=2)).mean(2) if steps > 1 else np.zeros(deviation.shape)
    above = centred > 0
    parts = [
        mean[..., 0], deviation, series.min(2), series.max(2), *np.quantile(series, QUANTILES, axis=2),
        (centred @ time) / max(1e-12, float(time @ time)), (unit**3).mean(2), (unit**4).mean(2), changes,
        (above[..., 1:] != above[..., :-1]).sum(2) / steps,
        *((unit[..., lag:] * unit[..., : max(0, steps - lag)]).sum(2) / steps for lag in LAGS),
        *_peaks(unit),
    ]  # fmt: skip
    return np.stack(parts, axis=2)


def _peaks(unit: Array) -> list[Array]:
    """The frequencies of the largest values of the spectrum, in periods per step, and the share of the largest."""
    count, channels, steps = unit.shape
    power = abs(np.fft.rfft(unit, axis=2)[..., 1:]) ** 2
    if power.shape[2] < PEAKS:
        return [np.zeros((count, channels)) for _ in range(PEAKS + 1)]
    # Rounded, so that of equal values the lowest frequency is first on every machine.
    order = np.argsort(-power.round(6), axis=2, kind="stable")[..., :PEAKS]
    total = power.sum(2)
    largest = np.take_along_axis(power, order[..., :1], axis=2)[..., 0]
    share = np.divide(largest, total, out=np.zeros_like(total), where=total > 0)
    return [*np.moveaxis((order + 1) / steps * (total > 0)[..., None], 2, 0), share]
