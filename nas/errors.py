"""Errors whose messages are written for the person at the terminal.

Everything that a user can get wrong raises a `NasError`; the command line prints its message as one line.
"""

from __future__ import annotations

import difflib
import errno
import re
import reprlib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path


class NasError(Exception):
    """A mistake that a user can correct; the message names the bad value and says what to do next."""

    exit_code = 1


class UsageError(NasError):
    """An unknown name or a value out of range; nothing was started."""

    exit_code = 2


class OptionError(UsageError):
    """A setting, or an option of a plugin, that does not exist or whose value is refused."""

    def __init__(self, message: str, name: str) -> None:
        super().__init__(message)
        self.name = name  # of the setting or option


class ArchitectureError(NasError):
    """A layer that is not valid, or that does not fit its input."""


class TooLargeError(ArchitectureError):
    """A network beyond the limits of the search; ``above`` has its sizes that are, by the name of the limit."""

    def __init__(self, above: Mapping[str, int], most: Mapping[str, int | None]) -> None:
        reasons = [f"{size:,} {name}, more than the {most[name]:,} allowed" for name, size in above.items()]
        super().__init__(f"it has {' and '.join(reasons)}; {self.advice(above)} would do")
        self.above = dict(above)

    @staticmethod
    def advice(sizes: Mapping[str, int]) -> str:
        """The options that allow networks of these sizes."""
        return " ".join(f"--max-{name} {size}" for name, size in sizes.items())


class UnknownLayerError(ArchitectureError):
    """A layer that no plugin offers here: the file that names it may be sound."""


class SpaceError(NasError):
    """A search space without a (further) network within the limits."""


class DataError(NasError):
    """A data set that is missing, incomplete or damaged."""


class ImageError(DataError):
    """A file that is not an image, is too large, or is damaged; the message is the reason, without the name."""


class PassingError(ImageError):
    """An image that cannot be read for a reason that may pass: memory, time, or the system."""


class PluginError(NasError):
    """A plugin that is broken, or that shares its name with another one."""


class TooLateError(NasError):
    """A plugin that has not answered within the time limit."""


class JournalError(NasError):
    """A journal that cannot be read, or that belongs to another search."""


class StorageError(NasError):
    """A file that cannot be written, because the disk is full or read-only."""

    @classmethod
    def of(cls, path: Path, error: OSError) -> StorageError:
        """The reason of the system, and the next step."""
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        step = "free some space" if full else "make it writable"
        return cls(f"{path} cannot be written ({error.strerror}): {step}, then go on with `nas resume`")


def unprintable(error: OSError) -> NasError:
    """The result is on a full disk, for example; what a search has found is in its folder all the same."""
    return NasError(f"the result cannot be written to the standard output ({error.strerror}): send it elsewhere")


class Interrupted(KeyboardInterrupt):
    """The user ended a run; the message says how to continue it."""


MANY = 40  # the most names in one line, and the most letters of a name that are compared
LONG = 120  # characters of a value in a message
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxlong, _SHORT.maxother = 2, LONG, LONG, LONG


def quoted(value: object) -> str:
    """An untrusted value for a message: short, in one line, without control characters."""
    text = plain(_SHORT.repr(value))
    return text if len(text) <= LONG else f"{text[: LONG - 1]}…"


def label(name: str) -> str:
    """An untrusted name for a message: unchanged if it is short and printable."""
    return name if len(name) <= LONG and name.isprintable() else quoted(name)


def listed(names: Collection[str]) -> str:
    """Untrusted names for a message: the first of them, short, in one line."""
    some = [name if name.isprintable() and len(name) < MANY else quoted(name[:MANY]) for name in names]
    return (", ".join(some[: MANY // 2]) + ", …" * (len(some) > MANY // 2)) or "none"


def plain(text: str) -> str:
    """A text that a terminal only shows: control characters (ANSI escapes, bells) become �."""
    return "".join(letter if letter.isprintable() or letter in "\n\t" else "\ufffd" for letter in text)


def masked(text: str) -> str:
    """A text in which the credentials of addresses are ***: it may be written down and shown.

    The user stays in the address of a database. In that of a server it goes, too: it may be a token.
    """
    # A password ends at the last @ before the host; that of a database may contain any other character, too.
    text = re.sub(r"(?<!http)(?<!https)(://[^\s:/@?#]*):[^\s?]*@", r"\1:***@", text)
    text = re.sub(r"(\w://[^\s:/@?#]*):(?!\d*(?:[/?#]|$))[^\s@]*@(?:[^\s@/?#]*@)*", r"\1:***@", text)
    text = re.sub(r"(https?://)[^\s/@?#]+@", r"\1***@", text)
    return re.sub(r"(?i)([?&](?:\w*(?:password|passwd|pwd|secret|token)|odbc_connect)=)[^&\s]*", r"\1***", text)


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """One line about an unknown name: the nearest known name, and all known names or the five nearest."""
    known = sorted(known)
    near = difflib.get_close_matches(name[:MANY], known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    if len(known) > MANY:
        nearest = difflib.get_close_matches(name[:MANY], known, n=5, cutoff=0.0)
        return f"there is no {kind} {quoted(name)}{hint} (the nearest of {len(known)}: {', '.join(nearest)})"
    return f"there is no {kind} {quoted(name)}{hint} (known: {', '.join(known) or 'none'})"
