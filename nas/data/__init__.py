"""Data sets, opened by their names. Heavy packages are imported when they are used."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas import plugins
from nas.errors import DataError, UsageError, unknown

if TYPE_CHECKING:
    from nas.data.plugin import DatasetPlugin

AUTO = "auto"
TEXT = "text:"  # before the path of a text


def search_folders(data_dir: Path | None = None) -> list[Path]:
    """The folders that are searched for data sets, in this order; downloads go to the last one."""
    import platformdirs

    named = [data_dir, os.environ.get("NAS_DATA_DIR")]
    return [*(Path(folder) for folder in named if folder), platformdirs.user_cache_path("nas")]


def is_path(name: str, extra: Sequence[Path] = ()) -> bool:
    """Whether the name of a data set is a path: it has a separator, or it exists and is no plugin's name."""
    if name.startswith(TEXT) or "/" in name or os.sep in name or name in (".", ".."):
        return True
    return plugins.canonical(name) not in (AUTO, *plugins.names("dataset", extra)) and os.path.lexists(name)


def _kind_of(name: str, options: Mapping[str, Any]) -> tuple[type[DatasetPlugin], Path, Mapping[str, Any]]:
    """The class that opens what lies at a path, the path, and its options."""
    from nas.data.sequences.paths import holds_series
    from nas.data.sequences.recordings import Recordings, are_recordings

    if name.startswith(TEXT):
        from nas.data.sequences.text import Text

        return Text, Path(name.removeprefix(TEXT)), options
    path = Path(name)
    if options.get("view") not in ("series", "images") and are_recordings(path.expanduser()):
        return Recordings, path, options
    if holds_series(path.expanduser(), options):
        from nas.data.sequences.sequences import Sequences

        return Sequences, path, options
    from nas.data.photographs import Photographs

    if options.get("view") == "images":  # for them, it is only the answer to the question above
        options = {name: value for name, value in options.items() if name != "view"}
    return Photographs, path, options


def open_named(
    name: str,
    data_dir: Path | None = None,
    options: Mapping[str, Any] | None = None,
    extra: Sequence[Path] = (),
    device: str = "cpu",
) -> DatasetPlugin:
    """The plugin of a data set by its name, or of your own data at a path; nothing is loaded yet.

    Args:
        name: the name of a plugin of the kind "dataset", in which - and _ are the same; or the path of images (see
            `nas.data.photographs`), of series (see `nas.data.sequences.paths`) or of recordings (see
            `nas.data.sequences.recordings`), with a separator if a plugin has its name; or "text:" and the path of
            a text (see `nas.data.sequences.text`).
        data_dir: the first folder to look in.
        options: options of the plugin's constructor.
        extra: more folders of plugin files.
        device: the device that trains, which decides how large images at a path may be.

    Raises:
        UsageError: there is no data set of that name.
    """
    if is_path(name, extra):
        kind, path, options = _kind_of(name, options or {})
        own: DatasetPlugin = plugins.create(
            kind, options, folders=search_folders(data_dir), path=path, device=device
        )
        return own
    if plugins.canonical(name) not in (known := plugins.names("dataset", extra)):
        raise UsageError(f"{unknown('dataset', name, [AUTO, *known])}, and no file or folder of that name")
    source: DatasetPlugin = plugins.create(
        plugins.find("dataset", name, extra), options or {}, folders=search_folders(data_dir)
    )
    source.name = plugins.canonical(name)
    return source


def open_source(
    name: str,
    data_dir: Path | None = None,
    options: Mapping[str, Any] | None = None,
    extra: Sequence[Path] = (),
    device: str = "cpu",
) -> DatasetPlugin:
    """Like `open_named`, but the name may be ``auto``: mnist if possible, otherwise mnist-5k.

    mnist is possible if it is on disk or can be downloaded, which happens here; `DatasetPlugin.note` gives the
    reason. Without a network, this takes at most five seconds. If mnist is on disk and damaged, ``auto`` is mnist,
    and loading it is an error.

    Raises:
        UsageError: there is no data set of that name.
    """
    if plugins.canonical(name) != AUTO:
        return open_named(name, data_dir, options, extra, device)
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
