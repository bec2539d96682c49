"""Export a trained network in formats of other tools; each file is checked before it is moved to its place."""

from __future__ import annotations

import errno
import math
import mmap
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from nas.data import open_source
from nas.errors import NasError, UsageError, plain
from nas.files import sync_folder
from nas.records import searches
from nas.records.journal import FILE
from nas.records.record import read
from nas.winner.export import fresh
from nas.winner.export.formats import FORMATS, MARK, Format, Model, read_model
from nas.winner.sealed import test_images

if TYPE_CHECKING:
    from torch import Tensor

    from nas.training.network import Network

TOLERANCE = 1e-4  # difference of a logit; the rounding of single precision is a tenth of it
RANDOM = 1_000  # random images, where there are no test images
VALUES = 2**28  # numbers in all random images, at most
DRAFT = ".export.part"  # a folder has one writer: the rest that a kill left is overwritten


class Images(NamedTuple):
    """The images on which the exported models are compared with their original."""

    images: Tensor  # (N, C, H, W) uint8
    note: str = ""  # the reason, if they are not the test images


@dataclass(frozen=True)
class Exported:
    """A model that was written and agrees with the original."""

    format: str
    path: Path  # a file or a folder
    bytes: int
    largest_difference: float  # of a logit, over all images
    images: int
    seconds: float


def load_model(folder: Path) -> Model:
    """The winner of a search, or the network of a training.

    Raises:
        NasError: there is no winner (yet), or it is damaged.
    """
    best = folder / "best"
    if not (best / "architecture.json").exists():
        state = searches.State.of(folder)
        config = state.record.about.get("config", {})
        going_on = (
            searches.resume_command(folder, config) if "strategy" in config else "`nas train` trains it again"
        )
        advice = "wait until it is finished" if state.status == "running" else going_on
        raise NasError(f"{folder.name} has no winner yet ({state.status}): {advice}")
    try:
        dataset = str(read(folder / FILE)[0].about["dataset"]["name"])
    except (NasError, LookupError, TypeError):
        dataset = "images"
    return read_model(best, dataset)


def images_for(folder: Path, model: Model, data_dir: Path | None = None, plugins: Sequence[Path] = ()) -> Images:
    """The test images of a search's data set; random images where these cannot be loaded.

    Args:
        folder: of the search. It may come from a stranger: the plugin folders that it names are not used.
        model: its winner.
        data_dir: the first folder in which the data are looked for.
        plugins: folders of plugins that may be used.
    """
    import torch

    shape = model.about.shape
    config: dict[str, Any] = {}
    try:
        config = read(folder / FILE)[0].about["config"]
        known = config.get("data_dir")
        options = {name: value for name, value in config.get("options", {}).items() if name.startswith("dataset.")}
        options = {name.removeprefix("dataset."): value for name, value in options.items()}
        source = open_source(config["dataset"], data_dir or (Path(known) if known else None), options, plugins)
        images = test_images(source)
        if images.dtype == torch.uint8 and tuple(images.shape[1:]) == shape and len(images):
            return Images(images)
        reason = f"the test images of {source.name} have another shape than the images of the network"
    except NasError as error:
        named = [] if plugins else config.get("plugins") or []
        reason = str(error) + "".join(f"; it may be a plugin: --plugins {folder}" for folder in named[:1])
    except (LookupError, TypeError, ValueError, AttributeError):
        reason = f"{folder / FILE} does not say which data set it was"
    count = max(1, min(RANDOM, VALUES // math.prod(shape)))
    random = torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Images(random, f"compared on {count:,} random images, because {reason}")


def export(model: Model, formats: Sequence[str], out: Path, images: Tensor) -> Iterator[Exported]:
    """Write a model in some formats, one after the other; each is moved to its place after it was checked.

    Args:
        model: to export.
        formats: names in `FORMATS`.
        out: the folder to write.
        images: (N, C, H, W) uint8, for the comparison.

    Raises:
        UsageError: a file or folder that is no earlier export stands in the place of an export.
        NasError: a model cannot be written, or does not agree with the original.
    """
    places = {name: out / FORMATS[name].place for name in formats}
    for name, place in places.items():  # before anything is written
        if os.path.lexists(place) and not _is_export(place, FORMATS[name]):
            raise UsageError(f"{place} was not written by `nas export`: move it, or write elsewhere with --out")
    expected = _logits(model.network, images)
    for name, place in places.items():
        begun = time.monotonic()
        files = _written(model, name)
        with _draft(out) as folder:
            path = _write(folder / place.name, files)
            difference = _check(name, path, images, expected)
            _put(path, place)
        size = sum(len(content) for content in files.values())
        yield Exported(name, place, size, difference, len(images), time.monotonic() - begun)


def _written(model: Model, name: str) -> dict[str, bytes]:
    """The files of a format."""
    try:
        return FORMATS[name].write(model)
    except Exception as error:  # noqa: BLE001  torch.export can raise anything
        raise NasError(f"this network cannot be written as {name}: {_short(error)}") from None


def _logits(network: Network, images: Tensor) -> Tensor:
    import torch

    with torch.inference_mode():
        return torch.cat([network(batch) for batch in torch.split(images, fresh.BATCH)])


def _check(name: str, path: Path, images: Tensor, expected: Tensor) -> float:
    """The largest difference of a logit between the original and a model that runs in a new process.

    Raises:
        NasError: the model does not run, or the difference is too large, or a class differs.
    """
    import numpy as np

    with tempfile.TemporaryDirectory(prefix="nas-export-") as temporary:
        given, got = Path(temporary, "images.npy"), Path(temporary, "logits.npy")
        np.save(given, images.numpy())
        command = [sys.executable, "-P", str(fresh.__file__), name, str(path), str(given), str(got)]
        done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, check=False)  # noqa: S603
        if done.returncode:
            lines = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"]
            raise NasError(f"the {name} model was written, but does not run: {plain(lines[-1])[:200]}")
        logits = np.load(got, allow_pickle=False)
    original = expected.numpy()
    if logits.shape != original.shape:
        raise NasError(f"the {name} model gives logits of {logits.shape}, and the original of {original.shape}")
    difference = float(np.abs(logits - original).max())
    different = int((logits.argmax(1) != original.argmax(1)).sum())
    if different or not difference <= TOLERANCE:  # true for NaN, too
        raise NasError(
            f"the {name} model is not kept, because it does not agree with the original: a logit differs by "
            f"{difference:.2g} (at most {TOLERANCE:g} is allowed), {different:,} of {len(logits):,} classes differ"
        )
    return difference


@contextmanager
def _draft(out: Path) -> Iterator[Path]:
    """A temporary folder beside the place of an export, for a model that is not checked yet."""
    folder = out / DRAFT
    try:
        out.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    except OSError as error:
        raise _unwritable(out, error) from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _put(path: Path, place: Path) -> None:
    """Move an export to its place: a file replaces an older file; an older folder is moved away first."""
    try:
        if place.is_dir():
            place.rename(path.parent / "old")
        path.replace(place)
        sync_folder(place.parent)
    except OSError as error:
        raise _unwritable(place, error) from None


def _write(path: Path, files: dict[str, bytes]) -> Path:
    """Write the files of a format to a new path, and flush them to the disk."""
    try:
        if "" not in files:
            path.mkdir()
        for name, content in files.items():
            with (path / name if name else path).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
    except OSError as error:
        raise _unwritable(path.parent.parent / path.name, error) from None
    return path


def _unwritable(path: Path, error: OSError) -> NasError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    what = "free some space" if full else "make it writable"
    return NasError(f"{path} cannot be written ({error.strerror}): {what}, or write elsewhere with --out")


def _is_export(place: Path, form: Format) -> bool:
    """Whether a file or folder is an earlier export and holds nothing else."""
    marked = place / form.files[0] if form.files else place
    if place.is_symlink() or not marked.is_file() or marked.stat().st_size == 0:
        return False
    if form.files and {path.name for path in place.iterdir()} - {*form.files, "__pycache__"}:
        return False
    with marked.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(MARK.encode()) >= 0


def _short(error: Any) -> str:
    message = " ".join(plain(str(error)).split())
    return f"{type(error).__name__}: {message[:200]}" if message else type(error).__name__
