"""What the networks learn from: a data set by its name. Light: what is heavy is imported when it is used."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from nas.errors import DataError, UsageError, unknown

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nas.data.source import Source

DATASETS = {"mnist": "nas.data.mnist:Mnist", "mnist-5k": "nas.data.mnist5k:Mnist5k"}
AUTO = "auto"


def search_folders(data_dir: Path | None = None) -> list[Path]:
    """Where data sets are looked for, in order; the last one is where they are downloaded to."""
    import platformdirs

    named = [data_dir, os.environ.get("NAS_DATA_DIR")]
    return [*(Path(folder) for folder in named if folder), platformdirs.user_cache_path("nas")]


def open_named(name: str, data_dir: Path | None = None) -> Source:
    """The source of one data set; loads nothing yet.

    Args:
        name: a key of `DATASETS`; - and _ are the same in it.
        data_dir: the first folder to look in.

    Raises:
        UsageError: there is no data set of that name.
    """
    module, _, attribute = DATASETS[_known(name, DATASETS)].partition(":")
    source: type[Source] = getattr(importlib.import_module(module), attribute)
    return source(search_folders(data_dir))


def open_source(name: str, data_dir: Path | None = None) -> Source:
    """The source of a data set by name, or of what ``auto`` means here.

    ``auto`` is mnist where it is on disk or can be downloaded, otherwise mnist-5k, with a `Source.note` that
    says so. The download happens here; without a network, finding that out takes at most five seconds. A
    damaged mnist on disk stays mnist: loading it is an error.

    Raises:
        UsageError: there is no data set of that name.
    """
    if _known(name, (AUTO, *DATASETS)) != AUTO:
        return open_named(name, data_dir)
    mnist = open_named("mnist", data_dir)
    if mnist.locate() is not None:
        return mnist
    try:
        mnist.note = f"mnist has been downloaded to {mnist.fetch()}"
    except DataError as error:
        source = open_named("mnist-5k", data_dir)
        source.note = f"{mnist.searched()}, and {error}: using mnist-5k, 5,000 images"
        return source
    return mnist


def _known(name: str, known: Iterable[str]) -> str:
    key = name.replace("_", "-")
    if key not in known:
        raise UsageError(unknown("dataset", name, known))
    return key
