"""Export a trained network in formats of other tools; each file is checked before it is moved to its place."""

from __future__ import annotations

import errno
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nas.data import is_path, open_source
from nas.data.decoder import Frame, resized
from nas.data.kinds import NOUNS
from nas.errors import DataError, NasError, UsageError, plain
from nas.files import sync_folder
from nas.records import searches
from nas.records.journal import FILE
from nas.records.record import read
from nas.report.summary import in_words
from nas.winner.best import BEST, DESCRIPTION, folder_of, read_best
from nas.winner.export import PLACES, fresh
from nas.winner.export.formats import FORMATS, MARK, Format, Model, Onnx, free_steps, onnx
from nas.winner.sealed import test_images

if TYPE_CHECKING:
    from torch import Tensor

TOLERANCE = 1e-4  # difference of a logit; the rounding of single precision is a tenth of it
RANDOM = 1_000  # random images, if there are no test images
OTHER_SIZES = ((2.3, 1.4), (0.6, 1.7))  # of the sides: random images, to compare the resize
VALUES = 2**28  # numbers in all random images, at most
DRAFT = ".export.part"  # the folder of unchecked files; a killed export leaves it, and the next one replaces it


class Images(NamedTuple):
    """The inputs on which the exported models are compared with their original."""

    images: Tensor  # (N, C, H, W) uint8; series (N, C, T) float32; tokens (N, T) int64
    note: str = ""  # the reason, if they are not those of the test


@dataclass(frozen=True)
class Exported:
    """A model that was written and agrees with the original."""

    format: str
    path: Path  # a file or a folder
    bytes: int
    largest_difference: float  # of a logit, over all images
    images: int  # or series, or tokens
    seconds: float
    takes: str = ""  # what the model takes, if it is no image


def load_model(folder: Path, network: str | None = None) -> Model:
    """The winner of a search, or the network of a training.

    Args:
        folder: of the search or the training.
        network: the id of another network of the search's Pareto front; None for the winner.

    Raises:
        NasError: there is no winner (yet), or it is damaged.
    """
    best = folder / BEST
    if not (best / DESCRIPTION).exists():
        state = searches.State.of(folder)
        config = state.record.about.get("config", {})
        advice = "`nas train` trains it again"
        if state.status == "running":
            advice = "wait until it is finished"
        elif "strategy" in config:
            advice = searches.resume_command(folder, config)
        raise NasError(f"{folder.name} has no winner yet ({state.status}): {advice}")
    best, dataset, result = folder_of(folder, network), "images", ""
    with suppress(NasError, LookupError, TypeError, ValueError, ArithmeticError):  # the record may be a stranger's
        record = read(folder / FILE)[0]
        dataset = str(record.about["dataset"]["name"])
        if (outcome := record.result()) is not None:
            result = in_words(outcome, network and best.name)
    return Model(best, *read_best(best), dataset, result)


def images_for(folder: Path, model: Model, data_dir: Path | None = None, plugins: Sequence[Path] = ()) -> Images:
    """The test images of a search's data set; random images if these cannot be loaded.

    Args:
        folder: of the search. It may come from a stranger: the plugin folders that it names are not used, and data
            that are a path are not read, which might be any folder of the user.
        model: its winner.
        data_dir: the first folder in which the data are looked for.
        plugins: folders of plugins that may be used.
    """
    import torch

    shape, noun = model.description.input_shape, NOUNS[model.kind].many
    types = {"images": (torch.uint8,), "series": (torch.float32,), "tokens": (torch.uint8, torch.int32)}
    config: dict[str, Any] = {}
    try:
        config = read(folder / FILE)[0].about["config"]
        known, prefix = config.get("data_dir"), "dataset."
        options = {k: value for k, value in config.get("options", {}).items() if k.startswith(prefix)}
        options = {k.removeprefix(prefix): value for k, value in options.items()}
        if is_path(config["dataset"], plugins):
            raise DataError(f"the data are a path, {plain(config['dataset'])}")
        source = open_source(config["dataset"], data_dir or (Path(known) if known else None), options, plugins)
        images = test_images(source)
        if images.dtype in types[model.kind] and tuple(images.shape[1:]) == shape and len(images):
            return Images(images.long() if model.kind == "tokens" else images)
        reason = f"the test {noun} of {source.name} have another shape than the {noun} of the network"
    except NasError as error:
        named = [] if plugins else config.get("plugins") or []
        reason = str(error) + "".join(f"; it may be a plugin: --plugins {folder}" for folder in named[:1])
    except (LookupError, TypeError, ValueError, AttributeError):
        reason = f"{folder / FILE} does not name the data set of the search"
    count = max(1, min(RANDOM, VALUES // math.prod(shape)))
    return Images(random_inputs(model, (count, *shape)), f"compared on {count:,} random {noun}, because {reason}")


def random_inputs(model: Model, shape: tuple[int, ...]) -> Tensor:
    """Random inputs of this shape: images, series with the mean and the deviation of the training, or tokens.

    Half of the series are shorter than the others, if the network takes unequal lengths.
    """
    import torch

    dice = torch.Generator().manual_seed(0)
    if model.kind == "images":
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=dice)
    if model.kind == "tokens":
        return torch.randint(0, len(model.description.classes), shape, generator=dice)
    series = model.network.mean + model.network.std * torch.randn(shape, generator=dice)
    if model.description.is_padded:
        lengths = torch.randint(1, shape[2] + 1, (len(series),), generator=dice)
        lengths[::2] = shape[2]
        series[(torch.arange(shape[2]) >= lengths[:, None])[:, None].expand_as(series)] = torch.nan
    return series


def export(
    model: Model, formats: Sequence[str], out: Path, images: Tensor, variant: Onnx | None = None
) -> Iterator[Exported]:
    """Write a model in some formats, one after the other; each is moved to its place after it was checked.

    Args:
        model: to export.
        formats: names in `FORMATS`.
        out: the folder to write.
        images: for the comparison, see `Images`.
        variant: of ONNX; None for the default.

    Raises:
        UsageError: a file or folder that is no earlier export stands in the place of an export.
        NasError: a model cannot be written, or does not agree with the original.
    """
    import torch

    places = {name: out / PLACES[name] for name in formats}
    if variant and "onnx" in formats:
        variant.file_version()  # which refuses one that is too low, before anything is written
    for name, place in places.items():
        if os.path.lexists(place) and not _is_export(place, FORMATS[name]):
            raise UsageError(f"{place} was not written by `nas export`: move it, or write elsewhere with --out")
    model = model._replace(steps=free_steps(model))
    compared = [images, *_of_other_sizes(model)]
    with torch.inference_mode():
        expected = [_logits(model, batch) for batch in compared]
    draft = out / DRAFT
    for name, place in places.items():
        begun = time.monotonic()
        try:
            files = onnx(model, variant) if variant and name == "onnx" else FORMATS[name].write(model)
        except NasError:
            raise
        except Exception as error:  # noqa: BLE001  torch.export can raise anything
            message = " ".join(plain(str(error)).split())[:200]
            reason = f"{type(error).__name__}: {message}".removesuffix(": ")
            raise NasError(f"this network cannot be written as {name}: {reason}") from None
        try:
            with _disk(place):
                shutil.rmtree(draft, ignore_errors=True)
                draft.mkdir(parents=True)
                _write(draft / place.name, files)
            count = 1 if name == "onnx" and variant and variant.fixed else len(compared)
            difference = _check(name, draft / place.name, compared[:count], expected[:count])
            with _disk(place):
                if place.is_dir():  # a folder cannot replace a folder
                    place.rename(draft / "old")
                (draft / place.name).replace(place)
                sync_folder(out)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        size = sum(map(len, files.values()))
        yield Exported(name, place, size, difference, len(images), time.monotonic() - begun, model.takes)


def _of_other_sizes(model: Model) -> Iterator[Tensor]:
    """Random images (1, C, H, W) of other sizes than the network's; series and tokens of other lengths."""
    if model.kind != "images":
        *before, length = model.description.input_shape
        if model.steps is not None:
            for steps in {max(model.steps.least, length // 2), min(model.steps.most or 2 * length, length + 7)}:
                yield random_inputs(model, (2, *before, steps))
        return
    channels, *sides = model.description.input_shape
    for factors in OTHER_SIZES:
        size = [max(1, round(side * factor)) for side, factor in zip(sides, factors, strict=True)]
        yield random_inputs(model, (1, channels, *size))


def _logits(model: Model, images: Tensor) -> Tensor:
    """The original's logits (N, classes), of images that are resized as `nas predict` does it."""
    import torch

    shape = model.description.input_shape
    if model.kind == "images" and images.shape[1:] != shape:
        channels, height, width = shape
        frame = Frame(channels, height, width, model.description.fit)
        images = torch.from_numpy(np.stack([resized(image.numpy(), frame) for image in images]))
    return torch.cat([model.network(batch) for batch in torch.split(images, fresh.BATCH)])


def _check(name: str, path: Path, images: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest difference of a logit between the original and a model that runs in a new process.

    Raises:
        NasError: the model does not run, or the difference is too large, or a class differs.
    """
    with tempfile.TemporaryDirectory(prefix="nas-export-") as temporary:
        files = [Path(temporary, f"{number}.npy") for number in range(2 * len(images))]
        for file, batch in zip(files[::2], images, strict=True):
            np.save(file, batch.numpy())
        command = [sys.executable, "-BP", str(fresh.__file__), name, str(path), *map(str, files)]
        done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, check=False)  # noqa: S603
        if done.returncode:
            lines = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"]
            raise NasError(f"the {name} model was written, but does not run: {plain(lines[-1])[:200]}")
        answers = [np.load(file, allow_pickle=False) for file in files[1::2]]
    for answer, one in zip(answers, expected, strict=True):
        if answer.shape != one.shape:
            right = tuple(one.shape)
            raise NasError(f"the {name} model gives logits of {answer.shape}, and the original of {right}")
    logits, original = np.concatenate(answers), np.concatenate([one.numpy() for one in expected])
    difference = float(np.abs(logits - original).max())
    different = int((logits.argmax(1) != original.argmax(1)).sum())
    if different or not difference <= TOLERANCE:  # true for NaN, too
        raise NasError(
            f"the {name} model is not kept, because it does not agree with the original: a logit differs by "
            f"{difference:.2g} (at most {TOLERANCE:g} is allowed), {different:,} of {len(logits):,} classes differ"
        )
    return difference


def _write(path: Path, files: dict[str, bytes]) -> None:
    """Write the files of a format to a new path, and flush them to the disk."""
    if "" not in files:
        path.mkdir()
    for name, content in files.items():
        with (path / name if name else path).open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())


@contextmanager
def _disk(place: Path) -> Iterator[None]:
    """Turn an error of the disk into one line that names the place of the export and the next step."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        advice = "free some space" if full else "make it writable"
        message = f"{place} cannot be written ({error.strerror}): {advice}, or write elsewhere with --out"
        raise NasError(message) from None


def _is_export(place: Path, form: Format) -> bool:
    """Whether a file or folder is an earlier export and holds nothing else."""
    marked = place / form.files[0] if form.files else place
    if place.is_symlink() or not marked.is_file():
        return False
    if form.files and {path.name for path in place.iterdir()} - {*form.files, "__pycache__"}:
        return False
    return MARK.encode() in marked.read_bytes()
