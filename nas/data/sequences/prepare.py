"""Makes series ready for networks: without missing values, not too long, and perhaps each on the same scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from nas.data.dataset import Array

Scaling = Literal["set", "series"]


def prepared(values: Array, *, factor: int = 1, scaling: Scaling = "set") -> Array:
    """A series (channels, time) as a network gets it, without the padding at its end.

    Args:
        values: (channels, time) float32, with a value in each channel; NaN is a missing value.
        factor: how many neighbouring steps are averaged.
        scaling: "series": the series alone is brought to the mean 0 and the deviation 1 in each channel.
    """
    short = shortened(filled(values), factor)
    return scaled(short) if scaling == "series" else short


def filled(values: Array) -> Array:
    """A series without missing values: by linear interpolation in each channel; at the ends, by the nearest value.

    Args:
        values: (channels, time), with a value in each channel.
    """
    missing = np.isnan(values)
    if not missing.any():
        return values
    out, steps = values.copy(), np.arange(values.shape[1])
    for channel, gaps in zip(out, missing, strict=True):
        if gaps.any():
            channel[gaps] = np.interp(steps[gaps], steps[~gaps], channel[~gaps].astype(np.float64))
    return out


def shortened(values: Array, factor: int) -> Array:
    """The averages of each ``factor`` neighbouring steps of a series (channels, time); the last one of fewer."""
    if factor == 1:
        return values
    starts = np.arange(0, values.shape[1], factor)
    sums = np.add.reduceat(values, starts, axis=1, dtype=np.float64)
    return (sums / np.diff(np.append(starts, values.shape[1]))).astype(np.float32)


def factor_for(longest: int, length: int) -> int:
    """How many neighbouring steps are averaged, so that ``longest`` steps become at most ``length``."""
    return max(1, math.ceil(longest / length))


def scaled(values: Array) -> Array:
    """A series in which each channel has the mean 0 and the deviation 1, or is 0 if it is constant."""
    exact = values.astype(np.float64)
    exact -= exact.mean(1, keepdims=True)
    is_constant = (values == values[:, :1]).all(1, keepdims=True)  # its deviation may be that of rounding
    deviation = np.where(is_constant, 1, exact.std(1, keepdims=True))
    return np.where(is_constant, 0, exact / deviation).astype(np.float32)


def padded(series: Sequence[Array], length: int) -> Array:
    """Series (channels, time) as one array (N, channels, length) float32, with NaN after the end of each."""
    out = np.full((len(series), len(series[0]), length), np.nan, np.float32)
    for row, values in zip(out, series, strict=True):
        row[:, : values.shape[1]] = values
    return out
