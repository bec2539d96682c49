"""Options that several commands share, and how their values are read and results are printed."""

from __future__ import annotations

import json
import os
import sys
import tomllib
from collections.abc import Callable
from contextlib import suppress
from functools import reduce
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False)


def plugins_option(*, expose: bool = False) -> Callable[[Command], Command]:
    """``--plugins``: this process may use the plugins in its folders, layers among them.

    Args:
        expose: whether the command gets the folders, too, as ``plugins``.
    """

    def offer(_: click.Context, parameter: click.Parameter, folders: tuple[Path, ...]) -> tuple[Path, ...]:
        from nas.plugins import offer

        offer(folders)
        return folders

    return click.option(
        "--plugins",
        metavar="FOLDER",
        multiple=True,
        type=click.Path(path_type=Path, file_okay=False, exists=True),
        callback=offer,
        expose_value=expose,
        help="Folder of plugin files, whose code may run. May be repeated. The folders in NAS_PLUGINS and "
        "./plugins are always used.",
    )


def number(_: click.Context, parameter: click.Parameter, value: str | None) -> int | float | str | None:
    """A number, if the text is one. The configuration checks it, and knows where ``auto`` is allowed."""
    for kind in (int, float):
        with suppress(ValueError, TypeError):
            return kind(value)  # type: ignore[arg-type]
    return value


def pairs(_: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """``KEY=VALUE`` options as a dictionary."""
    split = [text.partition("=") for text in values]
    for text, (key, equals, _rest) in zip(values, split, strict=True):
        if not key or not equals:
            raise click.BadParameter(f"{text!r} is not of the form KEY=VALUE", param=parameter)
    return {key.strip(): value.strip() for key, _equals, value in split}


def options_of(*sections: str) -> Callable[[Command], Command]:
    """Add the options in these sections of options.toml."""
    table = tomllib.loads(Path(__file__).with_name("options.toml").read_text(encoding="utf-8"))
    added = []
    for key, text in (item for section in sections for item in table[section].items()):
        *names, last = key.split()
        if last.startswith("--") or last.islower():
            added.append(click.option(*names, last, is_flag=True, help=text))
            continue
        added.append(
            click.option(
                *names,
                metavar=last,
                help=text,
                type={"FOLDER": FOLDER, "FILE.html": FILE}.get(last, str),
                multiple=last in ("METRIC", "KEY=VALUE"),
                callback={"N": number, "KEY=VALUE": pairs}.get(last),
            )
        )
    return lambda command: reduce(lambda decorated, option: option(decorated), reversed(added), command)


def given(**values: Any) -> dict[str, Any]:
    """The options that were set."""
    return {name: value for name, value in values.items() if value not in (None, (), {})}


def print_out(text: str) -> None:
    """Print a result; a reader that has gone (``nas list | head``) is no error."""
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_json(data: dict[str, Any]) -> None:
    """Print one object in one line."""
    print_out(json.dumps(data, ensure_ascii=False))
