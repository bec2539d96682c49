"""``nas``: the group of all commands, and the only place where an error becomes a line of text."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import click
from click.exceptions import Exit, NoArgsIsHelpError

from nas import __version__
from nas.cli.baselines import baselines
from nas.cli.cluster import cluster
from nas.cli.compare import compare
from nas.cli.data import data
from nas.cli.export import export
from nas.cli.plugins import plugins
from nas.cli.predict import predict
from nas.cli.search import resume, search, train
from nas.cli.searches import list_, repair, rm, show, sync
from nas.cli.ui import ui
from nas.errors import NasError, plain


class Commands(click.Group):
    """A group of commands that reports a user's mistake in one line, without a traceback."""

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """Read the options before the command, such as --help."""
        with _reported():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; the console script gives a function to call before it."""
        with _reported():
            if ctx.obj is not None:
                ctx.obj()
            return super().invoke(ctx)


@contextmanager
def _reported() -> Iterator[None]:
    try:
        yield
    except NasError as error:
        if os.environ.get("NAS_DEBUG"):
            raise
        _say(str(error))
        raise Exit(error.exit_code) from None
    except NoArgsIsHelpError:
        raise
    except click.UsageError as error:
        message = " ".join(error.format_message().split())
        message = f"{message[0].lower()}{message[1:]}{'' if message.endswith(('.', '?')) else '.'}"
        _say(f"{message} See `{error.ctx.command_path if error.ctx else 'nas'} --help`.")
        raise Exit(error.exit_code) from None
    except KeyboardInterrupt as error:
        _say(str(error) or "interrupted")
        raise Exit(130) from None
    except OSError as error:  # a full disk, too many open files, a missing permission: no bug
        if os.environ.get("NAS_DEBUG") or isinstance(error, BrokenPipeError):
            raise
        place = f"{error.filename}: " if error.filename else ""
        _say(f"{place}{error.strerror or error}")
        raise Exit(1) from None


SETTINGS = {"help_option_names": ["-h", "--help"], "color": False if os.environ.get("NO_COLOR") else None}


@click.group(cls=Commands, context_settings=SETTINGS)
@click.version_option(__version__, prog_name="nas")
def cli() -> None:
    """Find a small neural network for images, series, recordings or a text.

    \b
    nas search    tries networks, and keeps the best one in a folder under runs/
    nas show      shows the result
    nas predict   classifies your own data with it, or continues a text
    """  # noqa: D301


for command in (
    search, resume, compare, baselines, list_, show, train, predict, export, ui, sync, repair, rm, plugins, data,
    cluster,
):  # fmt: skip
    cli.add_command(command)


def _say(message: str) -> None:
    """Print an error in one line; if nobody can read it, the exit code is enough."""
    with suppress(OSError):
        click.echo(plain(f"nas: {message}"), err=True)
