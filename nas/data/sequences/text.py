"""A text: the next character after a window of characters is the class."""

from __future__ import annotations

import codecs
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np

from nas import checks
from nas.data.dataset import Array, Dataset, Split
from nas.data.files import readable
from nas.data.plugin import DatasetPlugin
from nas.errors import DataError, OptionError

PREFIX = "text:"  # of `--dataset text:FILE`, which nas/data/__init__.py removes
SHARES = 80, 90  # per cent of the text: the end of the training part, and of the validation part
LEAST = 1_000  # characters of a text
MOST_BYTES = 2**27  # of a text: as characters and numbers, it takes ten times the memory
RARE = 5  # a character that is more seldom in the training part has no class of its own
WINDOWS = 2, 1_024  # characters
MOST_WINDOWS = 2**20  # of the training part
MOST_MEMORY = 2**28  # bytes of them
HELD_OUT = 20_000  # windows of the validation part, and as many of the test, at most
OTHER = "other"
NAMES = {" ": "space", "\n": "newline", "\t": "tab", "\r": "carriage return"}


@dataclass(frozen=True)
class Alphabet:
    """The characters of a text and their numbers: plain values, with which the text can be continued later.

    A character with the number n is the class n of the data set.
    """

    characters: str  # sorted by code point; the position of each is its number
    unknown: int  # the number of all others: a class of its own, after the last, or that of the most frequent one

    def __post_init__(self) -> None:
        points = [ord(character) for character in self.characters]
        if not points or points != sorted(set(points)) or any(0xD800 <= point < 0xE000 for point in points):
            raise DataError("the characters of an alphabet should be different, and sorted by their code points")
        if not 0 <= self.unknown <= len(points):
            raise DataError(f"unknown = {self.unknown}: it should be from 0 to {len(points)}")

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the characters, and "other" if it is a class of its own."""
        names = tuple(name_of(character) for character in self.characters)
        return (*names, OTHER) if self.unknown == len(names) else names

    @property
    def kind(self) -> str:
        """The type of tokens, as NumPy names it: uint8 for at most 256 classes, otherwise int32."""
        return "uint8" if len(self.classes) <= 256 else "int32"

    def encode(self, text: str) -> Array:
        """The numbers ``(len(text),)`` of characters; a line that ends as on Windows has one "newline"."""
        return self.numbers_of(code_points(text))

    def numbers_of(self, points: Array) -> Array:
        """The numbers of code points, in the same shape."""
        known = np.array([ord(character) for character in self.characters], np.uint32)
        places = np.searchsorted(known, points).clip(0, len(known) - 1)
        return np.where(known[places] == points, places, self.unknown).astype(self.kind)

    def decode(self, tokens: Sequence[int] | Array) -> str:
        """The text of numbers; of "other", the character U+FFFD.

        Raises:
            DataError: a number is none of a class.
        """
        letters = [*self.characters, "\ufffd"][: len(self.classes)]
        numbers = np.asarray(tokens).tolist()
        for number in numbers:
            if not (isinstance(number, int) and 0 <= number < len(letters)):
                raise DataError(f"{number!r} is no number of a character: they are from 0 to {len(letters) - 1}")
        return "".join(letters[number] for number in numbers)

    def to_json(self) -> str:
        """All values, as a JSON object."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Alphabet:
        """The alphabet that `to_json` wrote.

        Raises:
            DataError: it is none.
        """
        try:
            characters, unknown = checks.record(checks.parse(text), "alphabet", "characters", "unknown")
            if not isinstance(characters, str):
                raise ValueError("characters should be a text")  # noqa: TRY004, TRY301
            return cls(characters, checks.whole(unknown, "unknown", len(characters) + 1))
        except ValueError as error:
            raise DataError(f"this is no alphabet: {error}") from None

    @classmethod
    def of(cls, points: Array) -> Alphabet:
        """The alphabet of a training part.

        A character that is there fewer than `RARE` times is "other", which is a class if there is such a one. If
        not, any other character (of the validation, the test, or a text to continue) counts as the most frequent.

        Args:
            points: ``(N,)``, the code points of its characters.

        Raises:
            DataError: there are no two classes.
        """
        known, counts = np.unique(points, return_counts=True)
        own = known[counts >= RARE]
        if len(own) == 0 or len(known) < 2:
            raise DataError(
                f"of the characters of the text, {len(own)} are in its training part {RARE} times or more: take a "
                "longer text"
            )
        unknown = len(own) if len(own) < len(known) else int(counts.argmax())
        return cls("".join(map(chr, own.tolist())), unknown)


def name_of(character: str) -> str:
    """A character as a class is called: itself, its name if it is white space, or its code point."""
    if character in NAMES:
        return NAMES[character]
    return character if character.isprintable() else f"U+{ord(character):04X}"


def beginning(points: Array) -> str:
    """The text of code points up to the end of a line, or of a word: what may stand before another text."""
    text = "".join(map(chr, points.tolist()))
    end = max(text.rfind("\n"), 0) or text.rfind(" ")
    return text[: end + 1]


def code_points(text: str) -> Array:
    """The code points ``(N,)`` uint32 of a text whose lines end with one character."""
    return np.frombuffer(text.replace("\r\n", "\n").encode("utf-32-le", "surrogatepass"), "<u4")


class Text(DatasetPlugin):
    """A text file, in UTF-8: the next character after a window of characters is the class.

    The first 80 % of the text are for training, the next 10 % for validation and the last 10 % for the test; no
    window is in two parts.

    Args:
        folders: not used.
        path: of the file.
        device: not used.
        window: the number of characters that a network sees.
        stride: from the beginning of one training window to the next; 0 for a quarter of a window, or more for a
            text so long that it has more than 2^20 windows, or 256 MiB of them. (A network that does not look
            ahead learns from every step of a window: with windows at every character, it would learn the same 64
            times.) Of validation and test windows, at most 20,000 are used, at equal distances.
    """

    recipe = {"base": "default", "shift": 0}  # noqa: RUF012  # as the interface has it

    def __init__(
        self, folders: Sequence[Path], path: Path, device: str = "cpu", *, window: int = 64, stride: int = 0
    ) -> None:
        super().__init__(folders)
        if not WINDOWS[0] <= window <= WINDOWS[1]:
            raise OptionError(f"window = {window}: it should be from {WINDOWS[0]} to {WINDOWS[1]:,}", "window")
        if stride < 0:
            raise OptionError(f"stride = {stride}: it should be 1 or more, or 0 to choose it", "stride")
        self.path = path.expanduser().absolute()
        self.name = readable(self.path.resolve().stem) or "text"
        self.address = f"{PREFIX}{self.path}"
        self._window, self._stride = window, stride

    def load(self) -> Dataset:
        """Training and validation windows."""
        train, validation, _ = self._parts
        alphabet, stride = self.alphabet, self._step
        self.chosen = {"stride": str(stride)}
        self.reading = {"text": {**asdict(alphabet), "before": beginning(self._pieces[0][: self._window])}}
        every = f"every {stride} characters" if stride > 1 else "at every character"
        self.note = (
            f"{len(self._points):,} characters, of {len(alphabet.classes)} classes; a window has {self._window}, "
            f"and training windows begin {every}"
        )
        if alphabet.unknown == len(alphabet.characters):
            self.note += f'; "{OTHER}" are those that are in the training part fewer than {RARE} times'
        return Dataset.of(self.name, train, validation, alphabet.classes)

    def load_test(self) -> Split:
        """The windows of the last tenth of the text."""
        return self._parts[2]

    def locate(self) -> Path | None:
        """The path."""
        return self.path if self.path.exists() else None

    @cached_property
    def alphabet(self) -> Alphabet:
        """The characters that are classes."""
        points = self._pieces[0]
        if int(points.min()) == int(points.max()):
            name = name_of(chr(points[0]))
            raise DataError(f"the training part of {self.path} has only the character {name}: take another text")
        return Alphabet.of(points)

    @cached_property
    def _points(self) -> Array:
        return code_points(read_text(self.path))

    @cached_property
    def _pieces(self) -> list[Array]:
        """The code points of the training, the validation and the test part."""
        points = self._points
        borders = [0, *(len(points) * share // 100 for share in SHARES), len(points)]
        pieces = [points[start:end] for start, end in pairwise(borders)]
        least = min(map(len, pieces))
        if least <= self._window:
            raise OptionError(
                f"window = {self._window} is too long for {self.path}, of which the validation part has {least:,} "
                f"characters: it should be at most {least - 1}",
                "window",
            )
        return pieces

    @cached_property
    def _step(self) -> int:
        """From the beginning of one training window to the next."""
        windows = len(self._pieces[0]) - self._window
        width = 1 if len(np.unique(self._pieces[0])) < 256 else 4  # bytes of a token
        most = min(MOST_WINDOWS, MOST_MEMORY // (self._window * width))
        least = -(-windows // most)
        if self._stride and self._stride < least:
            raise OptionError(
                f"stride = {self._stride} makes {windows // self._stride:,} training windows, more than {most:,}: "
                f"it should be {least} or more, or 0 to choose it",
                "stride",
            )
        return self._stride or max(least, self._window // 4)

    @cached_property
    def _parts(self) -> list[Split]:
        alphabet, splits = self.alphabet, []
        for number, points in enumerate(self._pieces):
            count = len(points) - self._window
            starts = np.arange(0, count, self._step)
            if number > 0:
                starts = np.arange(min(count, HELD_OUT)) * count // min(count, HELD_OUT)
            tokens = alphabet.numbers_of(points)
            windows = np.lib.stride_tricks.sliding_window_view(tokens, self._window)
            splits.append(Split.of(windows[starts], tokens[starts + self._window].astype(np.int64)))
        return splits


def read_text(path: Path) -> str:
    """A text in UTF-8, without the mark of byte order.

    Raises:
        DataError: it cannot be read, is no text in UTF-8, or is too short or too long.
    """
    try:
        if not path.is_file():
            what = "is a folder or a device" if path.exists() else "is not there"
            raise DataError(f"{path} {what}: name a text file, with --dataset {PREFIX}FILE")
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise DataError(
                f"{path} has {size / 2**20:,.0f} MiB, more than {MOST_BYTES // 2**20}: take a part of it"
            )
        content = path.read_bytes()[: MOST_BYTES + 1]
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error}): make it readable") from None
    convert = "convert it, for example with `iconv -f ENCODING -t UTF-8`"
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(f"{path} is a text in UTF-16, not in UTF-8: {convert}")
    if b"\0" in content:
        raise DataError(f"{path} is no text: byte {content.index(0):,} is 0; name a text file")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path} is no text in UTF-8: line {line:,} has the byte 0x{content[error.start]:02x} where no "
            f"character has it: {convert}"
        ) from None
    if len(text) < LEAST:
        raise DataError(f"{path} has {len(text):,} characters, and needs {LEAST:,}: take a longer text")
    return text
