"""``nas``: the group of all commands, and the one place where an error becomes a line of text."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from typing import Any

import click

from nas import __version__
from nas.cli.data import data
from nas.cli.export import export
from nas.cli.plugins import plugins
from nas.cli.predict import predict
from nas.cli.search import resume, search
from nas.cli.searches import list_, repair, show, sync
from nas.cli.train import train
from nas.cli.ui import ui
from nas.errors import NasError, plain


class Commands(click.Group):
    """A group whose commands report the user's mistakes in one line, never as a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except NasError as error:
            if os.environ.get("NAS_DEBUG"):
                raise
            _say(str(error))
            ctx.exit(error.exit_code)
        except KeyboardInterrupt as error:
            _say(str(error) or "interrupted")
            ctx.exit(130)
        except OSError as error:  # no space, no more open files, no right to write: the machine's, not a bug's
            if os.environ.get("NAS_DEBUG") or isinstance(error, BrokenPipeError):
                raise
            place = f"{error.filename}: " if error.filename else ""
            _say(f"{place}{error.strerror or error}")
            ctx.exit(1)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="nas")
def cli() -> None:
    """Find a small convolutional network for a set of images.

    Start with: nas search --strategy evolve
    """


for command in (search, resume, list_, show, train, predict, export, ui, sync, repair, plugins, data):
    cli.add_command(command)


def main() -> None:
    """The console script."""
    _on_signals(_interrupt)
    try:
        cli()
    finally:
        _on_signals(signal.SIG_IGN)  # while Python exits, which takes its handlers away, the exit code stays ours
        _hush()


def _say(message: str) -> None:
    """The one line of an error; where nobody can read it, the exit code says enough."""
    with suppress(OSError):
        click.echo(plain(f"nas: {message}"), err=True)


def _interrupt(*_: object) -> None:
    """The first signal leaves through every `finally`; the second one leaves at once, and the workers follow."""
    _on_signals(lambda *_: os._exit(130))
    raise KeyboardInterrupt


def _on_signals(handler: Any) -> None:
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:  # `nohup` has a reason
            signal.signal(number, handler)


def _hush() -> None:
    """A reader that has gone (``nas search | head``) is no reason to complain while Python exits."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
