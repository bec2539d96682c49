"""How a file becomes an input of a network: what a trained network must know about its data.

A data set has it as its attribute ``reading``: plain JSON with one of the names series, sound and text.
It is kept beside the weights, so that `nas predict` prepares other files as those of the training were.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_args

from nas import checks
from nas.architecture.layers import Shape, show
from nas.data.dataset import Array
from nas.data.files import TABLES
from nas.data.kinds import kind_of
from nas.data.sequences.arrays import read_npz
from nas.data.sequences.material import Material
from nas.data.sequences.paths import FILES, first_line
from nas.data.sequences.prepare import Scaling, prepared
from nas.data.sequences.sound import SoundFormat
from nas.data.sequences.table import is_ucr, read_long, read_ucr
from nas.data.sequences.text import Alphabet
from nas.data.sequences.ts import read_ts
from nas.errors import DataError, quoted

ENDINGS = (*FILES, *(ending for ending in TABLES if ending not in FILES), ".npz")  # of files of series
MOST_FACTOR = 2**31
WINDOW = 4_096  # characters of a text that are kept, at most


@dataclass(frozen=True)
class SeriesReading:
    """How series of a file are prepared: plain values."""

    scaling: Scaling = "set"  # "series": each channel of each series is brought to the mean 0 and the deviation 1
    factor: int = 1  # how many neighbouring steps are averaged
    series: str = ""  # columns of a table in the long form, see `nas.data.sequences.table.read_long`
    time: str = ""
    values: str = ""
    labels: str = ""

    def read(self, path: Path) -> Material:
        """The series of a .ts file, of a table or of an .npz file, which need no labels.

        Raises:
            DataError: the file cannot be read, or is none of these.
        """
        suffix = path.suffix.lower()
        if not path.exists():
            raise DataError(f"there is no file {path}")
        if suffix not in ENDINGS:
            raise DataError(f"the name of {path} ends in none of {', '.join(ENDINGS)}: name a file of series")
        if suffix == ".npz":
            return read_npz(path, labels=self.labels, needs_labels=False)
        if suffix == ".ts":
            return read_ts(path, needs_labels=False)
        if suffix in TABLES and not is_ucr(first_line(path)):
            columns = {name: getattr(self, name) for name in ("series", "time", "values", "labels")}
            return read_long(path, **columns, needs_labels=False)
        return read_ucr(path)

    def prepared(self, values: Array) -> Array:
        """A series (channels, time) without missing values, shortened and scaled as those of the training."""
        return prepared(values, factor=self.factor, scaling=self.scaling)


@dataclass(frozen=True)
class TextReading:
    """The characters of a text, and what stands before a text that is shorter than a window."""

    alphabet: Alphabet
    before: str = ""


Reading = SeriesReading | SoundFormat | TextReading


def as_json(reading: Reading) -> dict[str, Any]:
    """A reading as plain JSON, which `reading_of` reads."""
    match reading:
        case SeriesReading():
            return {"series": asdict(reading)}
        case SoundFormat():
            return {"sound": asdict(reading)}
    return {"text": {**asdict(reading.alphabet), "before": reading.before}}


def reading_of(content: object, shape: Shape, classes: Sequence[str]) -> Reading | None:
    """The reading that `as_json` wrote; None if there is none.

    Args:
        content: plain JSON, perhaps of a stranger.
        shape: of an input of the network, to which it must fit.
        classes: the names of the network's classes.

    Raises:
        ValueError: it is no reading, or none for such inputs.
        DataError: a value is out of range.
    """
    if content == {}:
        return None
    if not isinstance(content, Mapping) or len(content) != 1 or not {"series", "sound", "text"} & content.keys():
        raise ValueError(f"reading is {quoted(content)}, and should be an object with series, sound or text")
    [(name, values)] = content.items()
    if name == "series" and kind_of(shape) == "series":
        return _series(values)
    if name == "sound":
        form = SoundFormat.from_json(json.dumps(values))
        if form.shape == shape:
            return form
    if name == "text" and kind_of(shape) == "tokens":
        [before] = checks.record(values, "reading of a text", "before")
        if not isinstance(before, str) or len(before) > WINDOW:
            raise ValueError(f"before is {quoted(before)}, and should be a text of at most {WINDOW:,} characters")
        alphabet = Alphabet.from_json(json.dumps(values))
        if alphabet.classes == tuple(classes):
            return TextReading(alphabet, before)
    raise ValueError(f"reading has {quoted(name)}, which does not fit a network for inputs of {show(shape)}")


def _series(values: object) -> SeriesReading:
    scaling, factor, *columns = checks.record(
        values, "reading of series", *(field.name for field in fields(SeriesReading))
    )
    if scaling not in get_args(Scaling):
        raise ValueError(f"scaling is {quoted(scaling)}, and should be {' or '.join(get_args(Scaling))}")
    if checks.whole(factor, "factor", MOST_FACTOR) < 1:
        raise ValueError("factor is 0, and should be 1 or more")
    return SeriesReading(scaling, factor, *(checks.text(name, "the name of a column") for name in columns))
