"""What every recording of a data set becomes: a series of samples, or an image of its log-mel spectrogram."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from nas import checks
from nas.data.dataset import Array
from nas.data.sequences.wav import MOST_RATE, read_wav, resampled
from nas.errors import DataError

View = Literal["wave", "spectrogram"]

WINDOW, STEP = 0.025, 0.010  # seconds of a frame, and from one frame to the next, as in HTK and Kaldi
SILENCE = 1e-10  # power: less than that of the rounding of 16 bits
SECONDS = 0.05, 60.0  # the shortest and the longest excerpt
MELS = 8, 256  # the fewest and the most bands
RATES = 10, 96_000  # Hz
SPECTRAL = 2_000  # Hz: at a lower rate, a window has fewer than 50 samples
LONGEST = 16_384  # samples of a series
BOUND = 1e9  # of the logarithms


@dataclass(frozen=True)
class SoundFormat:
    """What every recording of a data set becomes: plain values, from which any other file is prepared alike."""

    view: View
    rate: int  # Hz
    seconds: float  # of a longer recording, the part of this duration that has the most energy
    channels: int  # 1 or 2; a spectrogram has 1
    mels: int = 40  # bands of a spectrogram
    low: float = -10.0  # the logarithm (base 10) of the power that is black, 0, in a spectrogram
    high: float = 0.0  # and of the power that is white, 255

    def __post_init__(self) -> None:
        bounds = {
            "rate": (SPECTRAL if self.view == "spectrogram" else RATES[0], RATES[1]), "seconds": SECONDS,
            "channels": (1, 1 if self.view == "spectrogram" else 2), "mels": MELS,
            "low": (-BOUND, self.high), "high": (self.low, BOUND),
        }  # fmt: skip
        if self.view not in get_args(View):
            raise DataError(f"a sound cannot be seen as {self.view!r}: {' or '.join(get_args(View))}")
        for name, (least, most) in bounds.items():
            if not least <= getattr(self, name) <= most:
                raise DataError(f"{name} = {getattr(self, name):g}: it should be from {least:g} to {most:g}")
        if self.low == self.high:
            raise DataError(f"low and high are both {self.low:g}: high should be larger")
        if self.view == "wave" and self.samples > LONGEST:
            raise DataError(f"a series of {self.samples:,} samples is too long: lower the rate or the seconds")

    @property
    def samples(self) -> int:
        """The number of samples of a recording, at most."""
        return max(1, round(self.seconds * self.rate))

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an input: (channels, samples), or (1, bands, frames)."""
        if self.view == "wave":
            return self.channels, self.samples
        window, step = frame_sizes(self.rate)
        return 1, self.mels, 1 + (self.samples - window) // step

    def input_of(self, path: Path) -> Array:
        """The input of a network, of one WAV file.

        Returns:
            Of the view "wave", ``(channels, samples)`` float32, with NaN after the end of a short recording; of
            "spectrogram", ``(1, bands, frames)`` uint8, with the highest band in the first row.

        Raises:
            WavError: the file cannot be read.
        """
        sound = self.excerpt(*read_wav(path))
        return self.padded(sound) if self.view == "wave" else self.image_of(self.log_mel(sound))

    def excerpt(self, sound: Array, rate: int) -> Array:
        """The part of a sound that is used.

        Args:
            sound: ``(channels, samples)`` float32.
            rate: in Hz.

        Returns:
            ``(self.channels, at most self.samples)`` float32, at the rate of the format. One channel is
            the mean of two; two may be the same one twice.
        """
        if len(sound) > self.channels:
            sound = sound.mean(0, keepdims=True)
        count = max(1, round(self.seconds * rate))
        if sound.shape[1] > count:
            start = loudest(sound, count)
            sound = sound[:, start : start + count]
        sound = resampled(sound, rate, self.rate)[:, : self.samples]
        return np.ascontiguousarray(np.repeat(sound, self.channels // len(sound), 0))

    def padded(self, sound: Array) -> Array:
        """An excerpt as ``(channels, samples)`` float32, with NaN after its end."""
        series = np.full(self.shape, np.nan, np.float32)
        series[:, : sound.shape[1]] = sound
        return series

    def log_mel(self, sound: Array) -> Array:
        """The log-mel spectrogram ``(bands, frames)`` float32 of an excerpt, which is followed by silence."""
        whole = np.zeros(self.samples)
        whole[: sound.shape[1]] = sound[0]
        return log_mel(whole, self.rate, self.mels)

    def image_of(self, spectrograms: Array) -> Array:
        """Log-mel spectrograms ``(…, bands, frames)`` as images of one channel, ``(…, 1, bands, frames)`` uint8.

        As in any picture of a spectrogram, time runs to the right, and the lowest band is at the bottom.
        """
        scaled = (spectrograms.astype(np.float64) - self.low) * (255 / (self.high - self.low))
        images: Array = np.rint(scaled.clip(0, 255)).astype(np.uint8)[..., None, ::-1, :]
        return images

    def to_json(self) -> str:
        """All values, as a JSON object."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> SoundFormat:
        """The format that `to_json` wrote.

        Raises:
            DataError: it is none, or a value is out of range.
        """
        try:
            values = checks.record(checks.parse(text), "format of sound", *(field.name for field in fields(cls)))
            view, rate, seconds, channels, mels, low, high = values
            return cls(
                checks.text(view, "view"),  # type: ignore[arg-type]  # is checked there
                checks.whole(rate, "rate", MOST_RATE), checks.number(seconds, "seconds"),
                checks.whole(channels, "channels", 3), checks.whole(mels, "mels", MELS[1] + 1),
                checks.number(low, "low"), checks.number(high, "high"),
            )  # fmt: skip
        except ValueError as error:
            raise DataError(f"this is no format of sound: {error}") from None


def loudest(sound: Array, count: int) -> int:
    """The start of the ``count`` samples of a sound ``(channels, samples)`` that have the most energy together.

    A constant offset is no sound. What a recording is about is seldom its first seconds, and hardly ever silent.
    """
    centred = sound - sound.mean(1, keepdims=True, dtype=np.float64)
    energy = np.concatenate([[0.0], np.cumsum((centred**2).sum(0))])
    return int((energy[count:] - energy[:-count]).argmax())


def frame_sizes(rate: int) -> tuple[int, int]:
    """The samples of a frame, and from one frame to the next."""
    return round(WINDOW * rate), round(STEP * rate)


def log_mel(sound: Array, rate: int, mels: int) -> Array:
    """The logarithm (base 10) of the power of a sound in bands, as in Davis and Mermelstein (1980).

    Args:
        sound: ``(samples,)``, at least one frame of 25 ms.
        rate: in Hz.
        mels: the number of bands.

    Returns:
        ``(mels, frames)`` float32, the lowest band first; a frame every 10 ms. Silence is -10.
    """
    window, step = frame_sizes(rate)
    filters = _sparse_filters(rate, mels)
    frames = np.lib.stride_tricks.sliding_window_view(sound, window)[::step]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    power = np.abs(np.fft.rfft(frames * hann, 2 * (filters.shape[1] - 1))) ** 2
    logarithms: Array = np.log10(np.maximum(filters @ power.T, SILENCE)).astype(np.float32)
    return logarithms


@lru_cache(maxsize=8)
def mel_filters(rate: int, mels: int) -> Array:
    """The weights ``(mels, bins)`` of triangular bands, equally wide in mel, from 0 Hz to half the rate.

    A mel is that of O'Shaughnessy (Speech Communication, 1987) and of HTK: 2,595 log10(1 + f / 700 Hz). The bins
    are those of a transform of 2^k samples: as many as a frame has, or more, so that the narrowest band, which is
    the lowest, has some.
    """
    corners = 700 * (10 ** (np.linspace(0, 2595 * math.log10(1 + rate / 1400), mels + 2) / 2595) - 1)
    least = max(frame_sizes(rate)[0], 2 * rate / corners[1])
    bins = 2 ** math.ceil(math.log2(least))
    frequencies = np.arange(bins // 2 + 1) * (rate / bins)
    rising = (frequencies - corners[:-2, None]) / np.diff(corners)[:-1, None]
    falling = (corners[2:, None] - frequencies) / np.diff(corners)[1:, None]
    weights: Array = np.minimum(rising, falling).clip(0)
    return weights


@lru_cache(maxsize=8)
def _sparse_filters(rate: int, mels: int) -> Any:
    """The same as a sparse matrix.

    Its products are the same on every machine, and no thread is started: on two busy cores, products
    of full matrices took 24 ms instead of 0.1 ms.
    """
    from scipy.sparse import csr_array

    return csr_array(mel_filters(rate, mels))
