"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

FOLDER = click.Path(path_type=Path, file_okay=False)


def plugins_option(*, expose: bool = False) -> Callable[[Command], Command]:
    """``--plugins``: the plugins of its folders, layers among them, may be used in this process.

    Args:
        expose: whether the command gets the folders, too, as ``plugins``.
    """

    def offer(_: click.Context, parameter: click.Parameter, folders: tuple[Path, ...]) -> tuple[Path, ...]:
        from nas.plugins import offer

        offer(folders)
        return folders

    return click.option(
        "--plugins",
        multiple=True,
        type=click.Path(path_type=Path, file_okay=False, exists=True),
        callback=offer,
        expose_value=expose,
        help="A folder of plugin files that may be used, besides NAS_PLUGINS and ./plugins. Repeatable.",
    )


def training_options(command: Command) -> Command:
    """What every command that trains takes."""
    for option in reversed(
        [
            click.option(
                "--dataset", help="mnist, mnist-5k, or auto: mnist where it can be had.  [default: auto]"
            ),
            click.option("--data-dir", type=FOLDER, help="Where data sets lie.  [default: NAS_DATA_DIR, a cache]"),
            click.option("--epochs", type=click.FloatRange(0, 10_000, min_open=True), help="Of a full training."),
            click.option("--recipe", help="default, or lecture: Adam, batches of 128.  [default: default]"),
            click.option(
                "--precision",
                type=click.Choice(["auto", "float32", "tf32", "bfloat16"]),
                help="auto: bfloat16 where the device has units for it.  [default: auto]",
            ),
            click.option("--device", help="auto, cpu, cuda, cuda:1, mps.  [default: auto]"),
            click.option(
                "--group",
                metavar="N|auto",
                callback=count_or_auto,
                help="Networks that train at a time on a GPU; 1: step by step.  [default: auto]",
            ),
            click.option(
                "--seed", type=click.IntRange(0, 2**32 - 1), help="Decides every random choice.  [default: 0]"
            ),
            click.option(
                "--set",
                "options",
                metavar="KEY=VALUE",
                multiple=True,
                callback=pairs,
                help="An option of the strategy; space.KEY, dataset.KEY, evaluator.KEY, recipe.KEY: of those.",
            ),
            click.option("--out", type=FOLDER, help="The folder to write.  [default: a new one in runs/]"),
            click.option(
                "--mlflow", metavar="URI|off", help="The tracking store.  [default: mlflow.db in this folder]"
            ),
            click.option("--json", "as_json", is_flag=True, help="Print one JSON object, as the last line."),
        ]
    ):
        command = option(command)
    return command


def count_or_auto(_: click.Context, parameter: click.Parameter, value: str | None) -> int | str | None:
    """A number, or a word of which the settings know whether it is ``auto``."""
    return int(value) if value is not None and value.isdecimal() else value


def pairs(_: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """``KEY=VALUE`` options as a dictionary."""
    found = {}
    for value in values:
        key, equals, rest = value.partition("=")
        if not key or not equals:
            raise click.BadParameter(f"{value!r} is not of the form KEY=VALUE", param=parameter)
        found[key.strip()] = rest.strip()
    return found


def given(**values: Any) -> dict[str, Any]:
    """The options that were set."""
    return {name: value for name, value in values.items() if value not in (None, (), {})}


def print_out(text: str) -> None:
    """Print a result; if nobody reads it any more, that is the reader's choice."""
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_json(data: dict[str, Any]) -> None:
    """Print one object in one line."""
    print_out(json.dumps(data, ensure_ascii=False))
