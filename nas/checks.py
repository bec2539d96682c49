"""Checks of plain data from files: a wrong value raises `ValueError`, with a message of one short line.

In plain Python, because a journal of 1,000 trainings has 50,000 numbers and is read whenever a search is resumed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from numbers import Real
from typing import Any

from nas.errors import label, quoted

LONGEST = 1_000  # characters of a name or a message


def parse(text: str | bytes) -> Any:
    """The value of a JSON text, without the NaN and Infinity that Python would allow."""
    try:
        return json.loads(text, parse_constant=_constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"this is not JSON: {' '.join(str(error).split())[:200]}") from None


def _constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")


def record(data: object, what: str, *names: str) -> list[Any]:
    """The values of the keys ``names`` of an object, in this order; other keys are ignored."""
    if not isinstance(data, Mapping):
        raise ValueError(f"a {what} is an object with {', '.join(names)}, not {quoted(data)}")  # noqa: TRY004
    for name in names:
        if name not in data:
            raise ValueError(f"a {what} needs {name!r}")
    return [data[name] for name in names]


def number(value: Any, what: str) -> float:
    """A finite number; NumPy's numbers become Python's."""
    kind: Any = type(value)
    if kind is float and math.isfinite(value):
        return value  # type: ignore[no-any-return]
    if kind is not bool and issubclass(kind, Real):
        with suppress(OverflowError):  # a whole number of more than 308 digits is infinite
            if math.isfinite(converted := float(value)):
                return value if kind is int else converted
    raise ValueError(f"{label(what)} is {quoted(value)}, which is not a finite number")


def whole(value: object, what: str, below: int) -> int:
    """A whole number from 0 to ``below - 1``."""
    if type(value) is int and 0 <= value < below:
        return value
    raise ValueError(f"{label(what)} is {quoted(value)}, and should be a whole number from 0 to {below - 1}")


def text(value: object, what: str) -> str:
    """A text of at most `LONGEST` characters that can be encoded, so without single surrogates."""
    if not isinstance(value, str) or len(value) > LONGEST:
        limit = f"a text of at most {LONGEST:,} characters"
        raise ValueError(f"{label(what)} is {quoted(value)}, and should be {limit}")
    if not value.isascii():
        value.encode()  # UnicodeEncodeError is a ValueError
    return value


def scalar(value: object, what: str) -> bool | int | float | str | None:
    """None, a truth value, a finite number, or a text."""
    if value is None or isinstance(value, bool):
        return value
    return text(value, what) if isinstance(value, str) else number(value, what)


def several(value: object, what: str) -> list[Any]:
    """A list."""
    if not isinstance(value, list | tuple):
        raise ValueError(f"{label(what)} is {quoted(value)}, and should be a list")  # noqa: TRY004
    return list(value)


def named(value: object, what: str) -> dict[str, Any]:
    """An object whose keys are texts."""
    if not isinstance(value, Mapping):
        raise ValueError(f"{label(what)} is {quoted(value)}, and should be an object")  # noqa: TRY004
    return {text(name, f"a name in {what}"): item for name, item in value.items()}


def numbers(value: object, what: str) -> dict[str, float]:
    """An object of finite numbers."""
    return {name: number(item, name) for name, item in named(value, what).items()}
