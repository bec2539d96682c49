"""Your own recordings: WAV files in a folder for each class, or in a table; decoded once, into the cache."""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nas.data import cache
from nas.data.cleaning import cleaned, summary
from nas.data.dataset import CHUNK, Array, Dataset, Split, load_split, new_array, write_splits
from nas.data.decoder import ENDINGS as IMAGES
from nas.data.decoders import Seen
from nas.data.division import PARTS, about_groups, parts_of, require_every_class, together
from nas.data.files import TABLES, Listing, Medium, by_value, in_folder, in_table, readable
from nas.data.plugin import DatasetPlugin, Fields
from nas.data.sequences.sound import LONGEST, MELS, RATES, SECONDS, SILENCE, SPECTRAL, SoundFormat
from nas.data.sequences.wav import ENDINGS, Header, WavError, header_of, read_wav
from nas.errors import DataError, OptionError

SOUNDS = Medium("recording", "sound", ENDINGS)
VERSION = 1  # of what a recording becomes
MOST_RATE = 16_000  # Hz: speech, and most other sounds, have little above 8 kHz
MOST_SECONDS = 10.0
USUAL = 0.98  # the share of the recordings that are kept whole
RANGE = 8.0  # powers of ten, 80 dB, that a spectrogram shows at most: what is quieter is noise
DARK, LIGHT = 0.01, 0.999  # the shares of all values of the training part that become black, and not yet white
BINS = 0.01  # of the logarithms, as which these shares are found
SPECTROGRAMS: Fields = {"base": "default", "shift": 2, "erasing": 0.2}  # a mirrored one is no such sound
WAVES: Fields = {"base": "default", "shift": 0}


class Recordings(DatasetPlugin):
    """Your own recordings: a folder with a folder of WAV files for each class, or a table of paths and labels.

    Args:
        folders: not used: the path says where the recordings are.
        path: of a folder or a table (.csv, .tsv, .parquet).
        device: not used.
        view: what a recording becomes: a series of its samples, or an image of its log-mel spectrogram; auto: a
            spectrogram, from which small networks learn far more, unless the rate is below 2,000 Hz.
        rate: samples a second; 0 for the most frequent one of the files, at most 16,000.
        seconds: of a longer recording, its loudest part of this duration is used; 0 for the duration that 98 % of
            the recordings do not exceed, at most 10.
        mels: the number of bands of a spectrogram.
        channels: of a series; auto: stereo if half of the files or more are. A spectrogram is mono.
        depth: how many folders of the path of a class are its name; 0 for all.
        paths: the column of paths in a table; "" to find it.
        labels: the column of labels in a table.
        splits: the column of splits in a table.
        group: the column of groups, or a regular expression that finds the group, such as the speaker, in a path.
        allow_broken: whether any number of files may be broken, and a class may lose all its recordings.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        path: Path,
        device: str = "cpu",
        *,
        view: Literal["auto", "wave", "spectrogram"] = "auto",
        rate: int = 0,
        seconds: float = 0.0,
        mels: int = 40,
        channels: Literal["auto", "mono", "stereo"] = "auto",
        depth: int = 0,
        paths: str = "",
        labels: str = "",
        splits: str = "",
        group: str = "",
        allow_broken: bool = False,
    ) -> None:
        super().__init__(folders)
        for name, value, (least, most) in (("rate", rate, RATES), ("seconds", seconds, SECONDS)):
            if value and not least <= value <= most:
                raise OptionError(f"{name} = {value:g}: it should be from {least:g} to {most:,g}, or 0", name)
        if not MELS[0] <= mels <= MELS[1]:
            raise OptionError(f"mels = {mels}: it should be from {MELS[0]} to {MELS[1]}", "mels")
        self.path = path.expanduser().absolute()
        place = self.path.resolve()
        self.name = readable(place.stem if place.is_file() else place.name) or "recordings"
        self.address = str(self.path)
        self._view, self._rate, self._seconds, self._mels, self._channels = view, rate, seconds, mels, channels
        self._columns = {"paths": paths, "labels": labels, "splits": splits}
        self._depth, self._group, self._allow_broken = depth, group, allow_broken
        self._has_decoded = False

    def load(self) -> Dataset:
        """Training and validation recordings; decoded now, if they are not in the cache."""
        folder = self._decoded(self._holds)
        about = cache.read_about(folder)
        before = [(readable(path), why) for path, why in self._listing.left_out]
        self.left_out = [*before, *((path, why) for path, why in about["left_out"])]
        form = SoundFormat.from_json(about["format"])
        self.reading = {"sound": asdict(form)}
        self.chosen = {
            "view": form.view, "rate": str(form.rate), "seconds": str(form.seconds),
            "channels": "stereo" if form.channels == 2 else "mono",
        }  # fmt: skip
        lines = [self._format[1], *about["remarks"]]
        if self.left_out:
            lines.append(summary(self.left_out, about["images"] + len(self.left_out)))
        self.note = "\n".join(lines)
        self.recipe = SPECTROGRAMS if form.view == "spectrogram" else WAVES
        return Dataset.load(folder)

    def load_test(self) -> Split:
        """The test recordings."""
        return load_split(self._decoded(), "test")

    def locate(self) -> Path | None:
        """The path."""
        return self.path if self.path.exists() else None

    def format(self) -> SoundFormat:
        """What a recording becomes: with it, any other WAV file can be prepared alike."""
        return SoundFormat.from_json(cache.read_about(self._decoded())["format"])

    @cached_property
    def _listing(self) -> Listing:
        path, columns = self.path, self._columns
        if path.is_dir():
            for name, value in columns.items():
                if value:
                    raise OptionError(f"{self.name} is a folder, which has no option {name}: leave it out", name)
            return in_folder(path, depth=self._depth, group=self._group, medium=SOUNDS)
        if not path.exists():
            raise DataError(f"there is no file or folder {path}")
        if path.suffix.lower() not in TABLES:
            raise DataError(f"{path} is no folder, and its name does not end in {', '.join(TABLES)}")
        if self._depth:
            raise OptionError(f"{self.name} is a table, which has no option depth: leave it out", "depth")
        names = columns["paths"], columns["labels"], columns["splits"]
        return in_table(
            path, paths=names[0], labels=names[1], splits=names[2], group=self._group, medium=SOUNDS
        )  # fmt: skip

    @cached_property
    def _key(self) -> str:
        return cache.key_of("recordings", VERSION, self.name, self._listing.files, self._allow_broken)

    @cached_property
    def _format(self) -> tuple[SoundFormat, str]:
        """What the recordings become, apart from the range of values; and this in words."""

        def look(folder: Path) -> None:
            looked = [_header(self._listing.folder / file.path) for file in self._listing.files]
            headers = [header for header, _ in looked if header]
            if not headers:
                raise DataError(f"{self.path} has no recordings that can be read: the first one {looked[0][1]}")
            rates = Counter(header.rate for header in headers)
            durations = sorted(header.seconds for header in headers)
            cache.write_about(folder, {
                "rate": max(rates, key=lambda rate: (rates[rate], rate)), "longest": durations[-1],
                "usual": durations[max(0, round(USUAL * len(durations)) - 1)],
                "stereo": sum(header.channels == 2 for header in headers) / len(headers), "rates": len(rates),
            })  # fmt: skip

        about = cache.read_about(cache.cached(f"sample-{self._key}", look))
        rate = self._rate or min(MOST_RATE, max(RATES[0], about["rate"]))
        usual = min(MOST_SECONDS, max(SECONDS[0], math.ceil(100 * about["usual"] - 1e-6) / 100))
        seconds, view, words = self._seconds or usual, self._view, ""
        if view == "auto":
            view = "spectrogram" if rate >= SPECTRAL else "wave"
        if view == "spectrogram":
            if rate < SPECTRAL:
                raise OptionError(
                    f"a spectrogram needs a rate of {SPECTRAL:,} Hz or more, and it is {rate:,}: take view=wave",
                    "view",
                )
            if self._channels == "stereo":
                raise OptionError(
                    "a spectrogram has one channel: leave channels out, or take view=wave", "channels"
                )
        elif round(seconds * rate) > LONGEST:
            words = f", lowered from {rate:,} for at most {LONGEST:,} samples"
            rate = int(LONGEST / seconds)
        stereo = self._channels == "stereo" or (self._channels == "auto" and about["stereo"] >= 0.5)
        form = SoundFormat(view, rate, seconds, 2 if stereo and view == "wave" else 1, self._mels)
        what = (
            f"log-mel spectrograms of {form.shape[1]} bands and {form.shape[2]} frames"
            if view == "spectrogram"
            else f"series of {form.samples:,} samples, {'stereo' if form.channels == 2 else 'mono'}"
        )
        cut = "; of longer ones, their loudest part is used" * (about["longest"] > seconds + 0.005)
        return form, (
            f"recordings become {what} ({seconds:g} s at {rate:,} Hz{words}){cut}; "
            "--set dataset.view, .rate and .seconds change that"
        )

    def _holds(self, about: dict[str, Any]) -> bool:
        """Whether the files that could not be read for a reason that may pass still cannot."""
        if self._has_decoded:
            return True
        return all(_header(self._listing.folder / path)[1] for path in about["may_pass"])

    def _decoded(self, holds: Callable[[dict[str, Any]], bool] = lambda about: True) -> Path:
        """The folder of the decoded recordings in the cache."""
        plain = re.sub(r"[^A-Za-z0-9._]+", "-", self.name)[:40]
        key = cache.key_of(self._key, self._format[0].to_json())
        return cache.cached(f"{plain}-{key}", self._decode, holds)

    def _decode(self, folder: Path) -> None:
        form, listing = self._format[0], self._listing
        is_wave = form.view == "wave"
        shape = form.shape if is_wave else form.shape[1:]
        scratch = new_array(folder / "all.npy", (len(listing.files), *shape), "<f4")
        seen: list[Seen] = []
        hashes: list[bytes] = []
        for row, file in enumerate(listing.files):
            one, sound = _sound(listing.folder / file.path, form)
            seen.append(one)
            hashes.append(hashlib.sha256(sound.data).digest())
            if not one.reason:
                scratch[row] = form.padded(sound) if is_wave else form.log_mel(sound)
            self.progress(row + 1, len(listing.files))
        clean = cleaned(self.name, listing, seen, hashes, allow_broken=self._allow_broken)
        files = [listing.files[row] for row in clean.rows]
        classes = sorted({file.label for file in files}, key=by_value)
        index = {label: number for number, label in enumerate(classes)}
        labels = np.array([index[file.label] for file in files])
        keys = [
            [("sound", hashes[row]), *([("group", file.group)] if file.group else [])]
            for file, row in zip(files, clean.rows, strict=True)
        ]
        units = together(keys)
        parts, remarks = parts_of(labels, units, [file.split for file in files], "recordings")
        require_every_class(self.name, parts, labels, units, classes, "recordings")
        remarks += about_groups([file.group for file in files], parts)
        rows = np.array(clean.rows)
        inputs: Array = scratch
        if not is_wave:
            low, high = range_of(scratch, rows[parts == 0])
            form = replace(form, low=low, high=high)
            inputs = new_array(folder / "images.npy", (len(scratch), *form.shape), "u1")
            for start in range(0, len(scratch), step := max(1, CHUNK // scratch[0].nbytes)):
                inputs[start : start + step] = form.image_of(scratch[start : start + step])
        splits = {part: (rows[parts == number], labels[parts == number]) for number, part in enumerate(PARTS)}
        write_splits(folder, self.name, classes, inputs, splits)
        for name in ("all.npy", "images.npy"):
            (folder / name).unlink(missing_ok=True)
        cache.write_about(folder, {
            "path": str(self.path), "images": len(files), "left_out": clean.left_out, "format": form.to_json(),
            "may_pass": [f.path for f, s in zip(listing.files, seen, strict=True) if s.may_pass],
            "remarks": [*listing.remarks, *remarks, *clean.remarks],
        })  # fmt: skip
        self._has_decoded = True


def _header(path: Path) -> tuple[Header | None, str]:
    """The header of a file; or the reason why it has none."""
    try:
        return header_of(path), ""
    except WavError as error:
        return None, error.reason


def _sound(path: Path, form: SoundFormat) -> tuple[Seen, Array]:
    """What is seen in a file, and its sound ``(channels, samples)`` float32; nothing of a broken one."""
    try:
        header = header_of(path)
        return Seen(kind=header.words), form.excerpt(*read_wav(path))
    except WavError as error:
        return Seen(error.reason, may_pass=error.may_pass), np.zeros((1, 0), np.float32)


def range_of(spectrograms: Array, rows: Array) -> tuple[float, float]:
    """The logarithms that are black and white, by those of the training part that are not of perfect silence.

    Args:
        spectrograms: ``(N, bands, frames)`` float32.
        rows: of the training part.

    Returns:
        The quantiles `DARK` and `LIGHT`, to within 0.01, and the former at most 80 dB below the latter.
    """
    edges = np.arange(-10.0, 20.0 + BINS / 2, BINS)
    counts = np.zeros(len(edges) - 1, np.int64)
    step = max(1, CHUNK // max(1, spectrograms[:1].nbytes))
    floor = np.float32(np.log10(SILENCE))
    for start in range(0, len(rows), step):
        some = spectrograms[rows[start : start + step]]
        counts += np.histogram(some[some > floor], edges)[0]
    total = counts.cumsum()
    if not total[-1]:
        return -10.0, 0.0
    low, high = (float(edges[np.searchsorted(total, share * total[-1])]) for share in (DARK, LIGHT))
    high = round(high + BINS, 2)
    return round(max(min(low, high - BINS), high - RANGE), 2), high


def are_recordings(path: Path) -> bool:
    """Whether a folder has WAV files and no images, in the folders in it; or whether a table names WAV files."""
    if os.path.isdir(path):  # noqa: PTH112  # Path.is_dir may raise an error
        found = False
        for inner, folders, names in os.walk(path):
            folders[:] = [name for name in folders if not name.startswith(".")]
            shown = [name.lower() for name in names if not name.startswith(".")]
            if any(name.endswith(IMAGES) for name in shown):
                return False
            found = found or (inner != str(path) and any(name.endswith(ENDINGS) for name in shown))
        return found
    if path.suffix.lower() not in TABLES[:2]:
        return False
    try:
        with path.open("rb") as file:
            beginning = file.read(2**16).lower()
    except (OSError, ValueError):
        return False  # which becomes an error with a reason when the table is opened
    return any(ending.encode() in beginning for ending in ENDINGS)
