"""Reads and writes the TOML of experiments, and finds the line of a key."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

from nas.errors import NasError, plain


def read_table(path: Path, text: str) -> dict[str, Any]:
    """The table in the text of a TOML file; ``path`` is for messages.

    Raises:
        NasError: it is not TOML.
    """
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise NasError(f"{path} is not TOML: its lists are too deep") from None
    except ValueError as error:
        reason = " ".join(plain(str(error)).split())  # it ends with the place, and may begin with a long key
        reason = reason if len(reason) <= 200 else f"{reason[:100]}…{reason[-99:]}"
        raise NasError(f"{path} is not TOML: {reason}") from None


def place_of(path: Path, text: str, name: str) -> str:
    """File and line of a key, for a message; keys of tables are written with dots."""
    table = ""
    wanted = name.split(".")
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[([^\]]+)\]", line):
            table = header[1]
        key = re.match(r"""\s*([\w.'"-]+)\s*=""", line)
        parts = [part.strip(" '\"") for part in f"{table}.{key[1] if key else ''}".split(".")]
        found = [part for part in parts if part]
        inline = key and found == wanted[:-1] and re.search(rf"\b{re.escape(wanted[-1])}\b", line)
        if (found == wanted and (key or header)) or inline:
            return f"{path}, line {number}"
    return str(path)


def written_key(name: str) -> str:
    """A key in TOML, without quotes if it is simple."""
    return name if re.fullmatch("[a-z_]+", name) else written(name)


def written(value: Any) -> str:
    """A value in TOML: as in JSON, but DEL in a string is escaped, too."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
