"""Classify series in files, and recordings, with a trained network; they are prepared as those of its training."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nas.data.dataset import Array
from nas.data.decoder import TOO_LITTLE
from nas.data.kinds import kind_of
from nas.data.sequences.prepare import padded
from nas.data.sequences.reading import ENDINGS, SeriesReading
from nas.data.sequences.sound import SoundFormat
from nas.data.sequences.wav import ENDINGS as SOUNDS
from nas.errors import DataError, NasError
from nas.winner.best import read_best
from nas.winner.predict import BATCH, VALUES, Refusal, probabilities_of, ranked


@dataclass(frozen=True)
class FilePrediction:
    """The network's answer for a series or a recording."""

    file: str
    place: str  # the name of a recording; of a series, its place in the file
    label: str | None  # that the file has for it
    steps: int  # of a series as the network gets it, without padding; of a spectrogram, its frames
    probabilities: Array  # (classes,) float64, in the order of the network's classes
    note: str = ""

    def ranked(self) -> list[int]:
        """The indices of the classes, the most probable class first."""
        return ranked(self.probabilities)


class _Input(NamedTuple):
    """What a network gets, and whose it is."""

    file: str
    place: str
    label: str | None
    values: Array  # of the shape that the network takes


class FileClassifier:
    """The trained network in a best/ folder that takes series or recordings.

    Args:
        best: the folder, which may come from a stranger.

    Raises:
        NasError: the folder is damaged, or the network takes neither.
    """

    def __init__(self, best: Path) -> None:
        description, self.network = read_best(best)
        self.shape, self.classes = description.input_shape, description.classes
        self.is_padded = description.is_padded
        reading = description.reading
        if not isinstance(reading, SoundFormat) and kind_of(self.shape) != "series":
            raise NasError(f"{best} has a network that takes neither series nor recordings")
        self.reading = reading if isinstance(reading, SeriesReading | SoundFormat) else SeriesReading()

    @property
    def takes_sounds(self) -> bool:
        """Whether the files are recordings."""
        return isinstance(self.reading, SoundFormat)

    @property
    def endings(self) -> tuple[str, ...]:
        """Of the names of the files that the network takes."""
        return SOUNDS if self.takes_sounds else ENDINGS

    def predict(self, files: Iterable[str]) -> Iterator[FilePrediction | Refusal]:
        """Classify files; refusals may come before the predictions of their batch.

        Args:
            files: paths of WAV files or of files of series, each of which may have many.

        Yields:
            A result for each recording or series; the predictions are in the order of the files.

        Raises:
            NasError: the network computes no finite probabilities.
        """
        size = max(1, min(BATCH, VALUES // math.prod(self.shape)))
        batch: list[_Input] = []
        for file in files:
            for found in self._inputs(file):
                if isinstance(found, Refusal):
                    yield found
                    continue
                batch.append(found)
                if len(batch) == size:
                    yield from self._classified(batch)
                    batch = []
        if batch:
            yield from self._classified(batch)

    def _inputs(self, file: str) -> Iterator[_Input | Refusal]:
        """The inputs in a file; a refusal for each that the network does not take, or for the whole file."""
        path = Path(file)
        try:
            if isinstance(self.reading, SoundFormat):
                yield self._recording(file, self.reading)
            else:
                yield from self._series(file, self.reading)
        except DataError as error:
            yield Refusal(file, _reason(error, path))
        except MemoryError:
            yield Refusal(file, TOO_LITTLE)

    def _recording(self, file: str, form: SoundFormat) -> _Input:
        values = form.input_of(Path(file))
        if not self.is_padded and values.dtype == np.float32 and np.isnan(values).any():
            seconds = int((~np.isnan(values[0])).sum()) / form.rate
            raise DataError(f"has {seconds:.3g} s, and the network takes recordings of {form.seconds:g} s or more")
        return _Input(file, file, None, values)

    def _series(self, file: str, reading: SeriesReading) -> Iterator[_Input | Refusal]:
        parts = reading.read(Path(file)).parts
        found = [one for part in parts for one in zip(part.values, part.labels, part.places, strict=True)]
        reasons = [self._refused(values, reading) for values, _, _ in found]
        if not found:
            raise DataError("has no series")
        if len(found) > 1 and reasons[0] and len(set(reasons)) == 1:
            raise DataError(f"cannot be used: each of its {len(found):,} series {reasons[0]}")
        for (values, label, place), reason in zip(found, reasons, strict=True):
            if reason:
                yield Refusal(place, reason)
            else:
                [row] = padded([reading.prepared(values)], self.shape[1])
                yield _Input(file, place, label or None, row)

    def _refused(self, values: Array, reading: SeriesReading) -> str:
        """Why the network does not take a series (channels, time); "" if it does."""
        channels, steps = values.shape
        wanted, length = self.shape
        known = ~np.isnan(values).all(1)
        if not values.size or not known.any():
            return "has no value"
        if channels != wanted:
            return f"has {channels:,} channel{'s' * (channels != 1)}, and the network takes {wanted:,}"
        if not known.all():
            return f"has no value in channel {1 + int(known.argmin())}"
        if np.isinf(values).any():
            return "has an infinite value, or one beyond 3.4e38"
        least, most = (length - 1) * reading.factor + 1, length * reading.factor
        if steps > most or (steps < least and not self.is_padded):
            allowed = f"{least:,} to {most:,}" if least < most else f"{most:,}"
            return (
                f"has {steps:,} steps, and the network takes {f'at most {most:,}' if self.is_padded else allowed}"
            )
        return ""

    def _classified(self, batch: Sequence[_Input]) -> Iterator[FilePrediction]:
        values = np.stack([one.values for one in batch])
        for one, row in zip(batch, probabilities_of(self.network, values), strict=True):
            steps = int((~np.isnan(one.values[0])).sum()) if one.values.ndim == 2 else one.values.shape[-1]
            yield FilePrediction(one.file, one.place, one.label, steps, row)


def _reason(error: DataError, path: Path) -> str:
    """The message of an error about a file, without its path and without options that prediction does not have."""
    message = re.sub(r"^(there is no file) .*", r"\1 of this name", str(error))
    message = message.removeprefix(str(path)).lstrip(" ,:")
    return re.sub(
        r": (name|say) [^:]*--set dataset\..*$", ": it should be a file like those of the training", message
    )
