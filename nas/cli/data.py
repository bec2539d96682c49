"""``nas data``: list, download and check data sets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from nas.cli.options import data_dir_option, set_option


@click.group()
def data() -> None:
    """List, download and check data sets."""


@data.command("list")
@data_dir_option
def list_(data_dir: Path | None) -> None:
    """Show all data sets, the folder of each on this machine, and the decoded files in the cache."""
    import inspect

    from nas import plugins
    from nas.data import open_named
    from nas.data.plugin import DatasetPlugin
    from nas.errors import NasError, plain

    known = sorted(name for name, places in plugins.names("dataset").items() if plugins.describe(places[0]).kinds)
    width = max(map(len, known))
    for name in known:
        try:
            source = open_named(name, data_dir)
            place = plugins.guarded(source.locate, f"{name} cannot be looked for")
        except NasError as error:
            click.echo(f"{name:{width}}  {error}")
            continue
        absent = f"not on this machine: `nas data fetch {name}` downloads it"
        if type(source).locate is DatasetPlugin.locate:
            absent = "needs no file"
        click.echo(f"{name:{width}}  {(inspect.getdoc(type(source)) or '').partition(chr(10))[0]}")
        click.echo(f"{'':{width}}  {place or absent}")
    from nas.data import cache

    for folder, about, size in cache.entries():
        if "images" in about:
            noun, sizes = ("images", about["frame"]) if "frame" in about else ("recordings", _shape(about))
            shape = "×".join(map(str, sizes))
            click.echo(f"{plain(about['path'])}")
            click.echo(f"{'':{width}}  {about['images']:,} {noun}, decoded to {shape}, {size / 2**20:,.1f} MiB")
            click.echo(f"{'':{width}}  {folder}: `nas data clear` removes it")


@data.command()
def clear() -> None:
    """Remove decoded images and recordings from the cache; they are decoded again when they are needed.

    Your own image files and downloaded data sets stay.
    """
    from nas.data import cache

    count, size, busy = cache.clear()
    stay = f"; {busy} that a process is building stay" if busy else ""
    click.echo(f"{size / 2**20:,.1f} MiB of decoded files removed ({count} entries{stay})")


@data.command()
@click.argument("name")
@data_dir_option
def fetch(name: str, data_dir: Path | None) -> None:
    """Download a data set, without the files that are there already.

    NAME is the name of the data set. It is written to --data-dir or, without that, to the user's cache folder.
    """
    from nas.data import open_named

    source = open_named(name, data_dir)
    click.echo(f"{source.name} is in {source.fetch(data_dir)}")


@data.command()
@click.argument("name")
@data_dir_option
@set_option("Option of the data set, such as dataset.depth=1.")
def verify(name: str, data_dir: Path | None, options: dict[str, str]) -> None:
    """Compare the files of a data set with their checksums, or read your own data.

    NAME is the name of the data set, or the path of your own data, as for `nas search`.
    """
    from nas import plugins
    from nas.data import is_path, open_named

    chosen, device = {key.removeprefix("dataset."): value for key, value in options.items()}, "cpu"
    if is_path(name):  # whose images become as large as for `nas search`, which then finds them in the cache
        from nas.run.resolve import available_device

        device = available_device("auto")
    source = open_named(name, data_dir, chosen, device=device)
    source.progress = _progress()
    for line in plugins.guarded(source.verify, f"{name} cannot be verified"):
        click.echo(line)
    for path, reason in source.left_out:
        click.echo(f"left out: {path} {reason}")
    if source.note:
        click.echo(source.note)


def _progress() -> Callable[[int, int], None]:
    """Shows how many files are read, after each tenth of them."""
    before = 0

    def show(done: int, total: int) -> None:
        nonlocal before
        if 10 * done // total > 10 * before // total:
            click.echo(f"reading the files: {done:,} of {total:,}", err=True)
        before = done

    return show


def _shape(about: Mapping[str, Any]) -> tuple[int, ...]:
    """The shape of decoded recordings; ``about``: what the cache says of them."""
    from nas.data.sequences.sound import SoundFormat

    return SoundFormat.from_json(about["format"]).shape
