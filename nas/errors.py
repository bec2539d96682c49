"""Errors whose messages are written for the person at the terminal.

Everything that a user can get wrong raises a `NasError`; the command line prints its message as one line.
"""

from __future__ import annotations

import difflib
import errno
import reprlib
from collections.abc import Iterable
from pathlib import Path


class NasError(Exception):
    """Something that a user can put right; the message names the bad value and says what to do next."""

    exit_code = 1


class UsageError(NasError):
    """A name that nobody knows, or a value out of range: nothing was begun."""

    exit_code = 2


class OptionError(UsageError):
    """An option of a plugin that its constructor does not take, or whose value it refuses."""

    def __init__(self, message: str, name: str) -> None:
        super().__init__(message)
        self.name = name  # the option's


class ArchitectureError(NasError):
    """A layer that cannot be, or that does not fit where it stands."""


class UnknownLayerError(ArchitectureError):
    """A layer that no plugin offers here: the file that names it may be sound."""


class SpaceError(NasError):
    """A search space that holds no (further) network within the limits."""


class DataError(NasError):
    """A data set that is absent, incomplete or damaged."""


class ImageError(NasError):
    """An image file that is none, or too large, or damaged; the message is the reason, without its name."""


class PluginError(NasError):
    """A plugin that is unknown, broken, or given options that it does not take."""


class JournalError(NasError):
    """A journal that cannot be read, or that is not of this search."""


class StorageError(NasError):
    """A file that cannot be written: the disk is full, or may not be written to."""

    @classmethod
    def of(cls, path: Path, error: OSError) -> StorageError:
        """What the system said, and what to do about it."""
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        what = "free some space" if full else "make it writable"
        return cls(f"{path} cannot be written ({error.strerror}): {what}, then go on with `nas resume`")


class Interrupted(KeyboardInterrupt):
    """Somebody ended a run; the message says how it goes on."""


MANY = 40  # names, too many for one line; letters that are compared of one: the time grows with them
LONG = 120  # characters of a value in a message
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxlong, _SHORT.maxother = 2, LONG, LONG, LONG


def quoted(value: object) -> str:
    """A value from outside as a message shows it: short, in one line, without control characters."""
    text = plain(_SHORT.repr(value))
    return text if len(text) <= LONG else f"{text[: LONG - 1]}…"


def label(name: str) -> str:
    """A name from outside in a message: as it is where that is short and plain."""
    return name if len(name) <= LONG and name.isprintable() else quoted(name)


def plain(text: str) -> str:
    """A text that a terminal only shows: what would be obeyed there (ANSI escapes, bells) becomes �."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one in "\n\t" else "\ufffd" for one in text)


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """One line about a name that nobody knows: the nearest one, and all that are known or the five nearest."""
    known = sorted(known)
    near = difflib.get_close_matches(name[:MANY], known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    if len(known) > MANY:
        nearest = difflib.get_close_matches(name[:MANY], known, n=5, cutoff=0.0)
        return f"there is no {kind} {quoted(name)}{hint} (the nearest of {len(known)}: {', '.join(nearest)})"
    return f"there is no {kind} {quoted(name)}{hint} (known: {', '.join(known) or 'none'})"
