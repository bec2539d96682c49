"""Read WAV files: PCM of 8, 16, 24 and 32 bits, and floating point of 32 and 64, mono or stereo.

The file may be anything: no size that it states is used before it is compared with the size of the file, and
whatever is wrong with it becomes a `WavError`. The layout is that of "Multimedia Programming Interface and Data
Specifications 1.0" (IBM and Microsoft, 1991), with WAVE_FORMAT_EXTENSIBLE of "Multiple Channel Audio Data and WAVE
Files" (Microsoft, 2001).
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from nas.data.dataset import Array
from nas.errors import DataError

ENDINGS = (".wav", ".wave")  # of the names of WAV files
MOST_BYTES = 2**27  # of a file: 12 minutes of a CD
MOST_CHUNKS = 1_000  # parts of a file; a usual one has two to ten
MOST_RATE = 768_000  # samples a second
LOUDEST = 1e6  # the largest value: sound is from -1 to 1, and some programs write -32,768 to 32,767 as floats
FINEST = 10_000  # the largest number of a ratio of two rates: the filter has 20 times as many coefficients
PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE
COMPRESSED = {2: "ADPCM", 6: "A-law", 7: "µ-law", 0x11: "IMA ADPCM", 0x31: "GSM", 0x50: "MPEG", 0x55: "MP3"}
GUID = b"\x00\x00\x00\x00\x10\x00\x80\x00\x00\xaa\x008\x9bq"  # follows the number of the format
STREAMED = (0, 0xFFFFFFFF)  # the sizes that a program states which cannot go back to write the true one
CONVERT = "convert it, for example with `ffmpeg -i IN -c:a pcm_s16le OUT.wav`"
AGAIN = "record or copy it again, or remove it"


class WavError(DataError):
    """A file that is no WAV file which can be read."""

    def __init__(self, path: Path, reason: str, step: str = AGAIN, *, may_pass: bool = False) -> None:
        super().__init__(f"{path} {reason}: {step}")
        self.reason = reason  # without the path
        self.may_pass = may_pass  # whether it is one of memory or of the system


class Header(NamedTuple):
    """What the beginning of a WAV file says, compared with the size of the file."""

    kind: int  # PCM or FLOAT
    bits: int  # of a sample
    channels: int  # 1 or 2
    rate: int  # samples a second
    start: int  # the position of the samples in the file
    samples: int  # of each channel

    @property
    def seconds(self) -> float:
        """The duration."""
        return self.samples / self.rate

    @property
    def words(self) -> str:
        """The form of the samples, for the user."""
        sound = {1: "mono", 2: "stereo"}[self.channels]
        return f"WAV {self.bits} bit {'float ' * (self.kind == FLOAT)}{sound} {self.rate} Hz"


def header_of(path: Path) -> Header:
    """The header of a WAV file; the samples are not read.

    Raises:
        WavError: see `read_wav`.
    """
    with _errors_of(path), path.open("rb") as file:
        return _header(file, path)


def read_wav(path: Path) -> tuple[Array, int]:
    """The sound of a WAV file.

    Returns:
        ``(channels, samples)`` float32, from -1 to 1; and the rate in Hz.

    Raises:
        WavError: the file cannot be read, is none, is compressed, damaged or too large, or has values that are no
            numbers.
    """
    with _errors_of(path), path.open("rb") as file:
        header = _header(file, path)
        file.seek(header.start)
        size = header.samples * header.channels * header.bits // 8
        content = file.read(size)
        if len(content) < size:
            raise WavError(path, "has become shorter while it was read")
        values = _values(content, header).reshape(-1, header.channels).T
        if header.kind == FLOAT:
            largest = np.abs(values).max()  # NaN, if there is one
            if not largest <= LOUDEST:
                raise WavError(path, f"has the value {largest:g}, and sound is from -1 to 1", "write it anew")
        return np.ascontiguousarray(values, np.float32), header.rate


def resampled(sound: Array, rate: int, wanted: int) -> Array:
    """A sound at another rate.

    Args:
        sound: ``(channels, samples)`` float32.
        rate: its rate in Hz.
        wanted: the new rate in Hz.

    Returns:
        ``(channels, ceil(samples * wanted / rate))`` float32. The ratio of unusual rates is replaced by
        one of smaller numbers, which is off by less than 0.01 %.
    """
    if rate == wanted:
        return sound
    from scipy.signal import resample_poly

    ratio = Fraction(wanted, rate)
    if max(ratio.numerator, ratio.denominator) > FINEST:
        near = max(Fraction(min(wanted, rate), max(wanted, rate)).limit_denominator(FINEST), Fraction(1, FINEST))
        ratio = near if wanted < rate else 1 / near
    made = resample_poly(sound, ratio.numerator, ratio.denominator, axis=1)
    length = math.ceil(sound.shape[1] * wanted / rate)
    made = np.pad(made[:, :length], ((0, 0), (0, max(0, length - made.shape[1]))))
    return made.astype(np.float32)


@contextmanager
def _errors_of(path: Path) -> Iterator[None]:
    """What the system and the memory refuse becomes a `WavError`."""
    try:
        yield
    except OSError as error:
        reason = f"cannot be read ({error.strerror or error})"
        raise WavError(path, reason, "make it readable, or remove it", may_pass=True) from None
    except MemoryError:
        raise WavError(path, "needs more memory than there is", "end other programs", may_pass=True) from None


def _header(file: BinaryIO, path: Path) -> Header:
    size = os.fstat(file.fileno()).st_size
    if size == 0:
        raise WavError(path, "is empty")
    beginning = file.read(12)
    if beginning[:4] in (b"RF64", b"RIFX", b"BW64"):
        raise WavError(path, f"is a WAV file of the rare form {beginning[:4].decode()}", CONVERT)
    if beginning[:4] != b"RIFF" or beginning[8:] != b"WAVE":
        raise WavError(path, "is no WAV file", CONVERT)
    if size > MOST_BYTES:
        raise WavError(
            path, f"has {size / 2**20:,.0f} MiB, more than {MOST_BYTES // 2**20}", "cut it into shorter recordings"
        )
    form: tuple[int, int, int, int] | None = None
    position = 12
    for _ in range(MOST_CHUNKS):
        file.seek(position)
        head = file.read(8)
        if len(head) < 8:
            break
        name, stated = head[:4], int.from_bytes(head[4:], "little")
        start, left = position + 8, size - position - 8
        if name == b"fmt " and form is None:
            form = _form(file.read(min(stated, 40)), path)
        elif name == b"data":
            if form is None:
                raise WavError(path, "has samples before the description of their format")
            return _measured(path, form, start, stated, left)
        position = start + stated + stated % 2
    what = "samples" if form else "description of its format"
    raise WavError(path, f"has no {what}: it is cut off or damaged")


def _form(content: bytes, path: Path) -> tuple[int, int, int, int]:
    """The kind, bits, channels and rate of a chunk "fmt "."""
    if len(content) < 16:
        raise WavError(path, "has a damaged description of its format")
    kind, channels, rate, _, block, bits = struct.unpack("<HHIIHH", content[:16])
    if kind == EXTENSIBLE:
        if len(content) < 40 or content[26:40] != GUID:
            raise WavError(path, "has a format that is not known", CONVERT)
        kind = int.from_bytes(content[24:26], "little")
    if kind not in (PCM, FLOAT):
        known = COMPRESSED.get(kind)
        raise WavError(path, f"is compressed ({known})" if known else f"has the unknown format {kind}", CONVERT)
    if channels not in (1, 2):
        raise WavError(
            path, f"has {channels} channels, and should have one or two", "convert it to mono or stereo"
        )
    if not 1 <= rate <= MOST_RATE:
        raise WavError(path, f"has {rate:,} samples a second, and should have 1 to {MOST_RATE:,}", CONVERT)
    if bits not in ((8, 16, 24, 32) if kind == PCM else (32, 64)):
        raise WavError(path, f"has samples of {bits} bits", CONVERT)
    if block != channels * bits // 8:
        raise WavError(path, f"has {block} bytes for {channels} samples of {bits} bits", CONVERT)
    return kind, bits, channels, rate


def _measured(path: Path, form: tuple[int, int, int, int], start: int, stated: int, left: int) -> Header:
    """The header of samples that have ``stated`` bytes, if as many are left in the file."""
    kind, bits, channels, rate = form
    size = left if stated in STREAMED else stated
    if size > left:
        raise WavError(path, f"is cut off: it states {stated:,} bytes of samples, and has {left:,}")
    samples = size // (channels * bits // 8)
    if samples == 0:
        raise WavError(path, "has no samples")
    return Header(kind, bits, channels, rate, start, samples)


def _values(content: bytes, header: Header) -> Array:
    """The samples as numbers from -1 to 1, the channels side by side."""
    if header.kind == FLOAT:
        return np.frombuffer(content, f"<f{header.bits // 8}")
    if header.bits == 8:  # without a sign, alone among the formats
        return (np.frombuffer(content, np.uint8).astype(np.float32) - 128) / 128
    if header.bits == 24:
        wide = np.zeros((len(content) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(content, np.uint8).reshape(-1, 3)
        return wide.view("<i4")[:, 0].astype(np.float32) / np.float32(2**31)
    return np.frombuffer(content, f"<i{header.bits // 8}").astype(np.float32) / np.float32(2 ** (header.bits - 1))
