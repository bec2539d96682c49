"""What the networks learn from: a data set by its name. Light: what is heavy is imported when it is used."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas import plugins
from nas.errors import DataError

if TYPE_CHECKING:
    from nas.data.source import Source

AUTO = "auto"


def search_folders(data_dir: Path | None = None) -> list[Path]:
    """Where data sets are looked for, in order; the last one is where they are downloaded to."""
    import platformdirs

    named = [data_dir, os.environ.get("NAS_DATA_DIR")]
    return [*(Path(folder) for folder in named if folder), platformdirs.user_cache_path("nas")]


def open_named(
    name: str, data_dir: Path | None = None, options: Mapping[str, Any] | None = None, extra: Sequence[Path] = ()
) -> Source:
    """The source of one data set; loads nothing yet.

    Args:
        name: of a plugin of the kind "dataset"; - and _ are the same in it.
        data_dir: the first folder to look in.
        options: of the plugin's constructor.
        extra: folders of plugin files.

    Raises:
        UsageError: there is no data set of that name.
    """
    source: Source = plugins.create(
        plugins.find("dataset", name, extra), options or {}, folders=search_folders(data_dir)
    )
    source.name = plugins.canonical(name)
    return source


def open_source(
    name: str, data_dir: Path | None = None, options: Mapping[str, Any] | None = None, extra: Sequence[Path] = ()
) -> Source:
    """The source of a data set by name, or of what ``auto`` means here (see `open_named` for the arguments).

    ``auto`` is mnist where it is on disk or can be downloaded, otherwise mnist-5k, with a `Source.note` that
    says so. The download happens here; without a network, finding that out takes at most five seconds. A
    damaged mnist on disk stays mnist: loading it is an error.

    Raises:
        UsageError: there is no data set of that name.
    """
    if plugins.canonical(name) != AUTO:
        return open_named(name, data_dir, options, extra)
    mnist = open_named("mnist", data_dir, options)
    if mnist.locate() is not None:
        return mnist
    try:
        mnist.note = f"mnist has been downloaded to {mnist.fetch()}"
    except DataError as error:
        source = open_named("mnist-5k", data_dir, options)
        source.note = f"{mnist.searched()}, and {error}: using mnist-5k, 5,000 images"
        return source
    return mnist
