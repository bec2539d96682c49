"""``nas data``: which data sets there are, downloading them, checking them."""

from __future__ import annotations

from pathlib import Path

import click

data_dir_option = click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="The folder to look in first, before NAS_DATA_DIR and the user's cache folder.",
)


@click.group()
def data() -> None:
    """List, download and check data sets."""


@data.command("list")
@data_dir_option
def list_(data_dir: Path | None) -> None:
    """Show every data set, and where it lies on this machine."""
    import inspect

    from nas import plugins
    from nas.data import open_named
    from nas.data.plugin import DatasetPlugin
    from nas.errors import NasError

    known = sorted(name for name, places in plugins.names("dataset").items() if plugins.describe(places[0]).kinds)
    width = max(map(len, known))
    for name in known:
        try:
            source = open_named(name, data_dir)
            place = plugins.guarded(source.locate, f"{name} cannot be looked for")
        except NasError as error:
            click.echo(f"{name:{width}}  {error}")
            continue
        if type(source).locate is DatasetPlugin.locate:
            where = "needs no file"
        else:
            where = str(place or f"not on this machine: `nas data fetch {name}` downloads it")
        click.echo(f"{name:{width}}  {(inspect.getdoc(type(source)) or '').partition(chr(10))[0]}")
        click.echo(f"{'':{width}}  {where}")


@data.command()
@click.argument("name")
@data_dir_option
def fetch(name: str, data_dir: Path | None) -> None:
    """Download the data set NAME, or what is missing of it, to DIR or else to the user's cache folder."""
    from nas.data import open_named

    source = open_named(name, data_dir)
    click.echo(f"{source.name} is in {source.fetch(data_dir)}")


@data.command()
@click.argument("name")
@data_dir_option
def verify(name: str, data_dir: Path | None) -> None:
    """Compare the data set NAME with its known checksums."""
    from nas import plugins
    from nas.data import open_named

    source = open_named(name, data_dir)
    for line in plugins.guarded(source.verify, f"{name} cannot be verified"):
        click.echo(line)
