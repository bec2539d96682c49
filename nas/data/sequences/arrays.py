"""Series in an .npz file."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from nas.data.arrays import DAMAGED, NAMES, ROLES, labels_of, read_arrays, role_of, texts_of
from nas.data.dataset import Array
from nas.data.sequences.material import Material, Part, without_end
from nas.errors import DataError, listed, quoted

OWN = "series"  # an array of this name, or of series_train and so on, holds series and no images
SERIES_ROLES = {**{name: role for name, role in ROLES.items() if not name.startswith("image")}, OWN: "images"}
CHUNK = 1_024  # series that are looked at together


def read_npz(path: Path, *, labels: str = "", group: str = "", needs_labels: bool = True) -> Material:
    """The series of an .npz file with arrays such as ``series`` and ``labels``, or ``x_train`` and ``y_train``.

    The series are (N, channels, time), or (N, time) for one channel. NaN in all channels at the end is not part of
    a series; elsewhere, it is a missing value.

    Args:
        path: of the file.
        labels: the name of the array of labels; "" to find it.
        group: the name of the array of groups; "" to find it, if there is one.
        needs_labels: whether there must be labels.

    Raises:
        DataError: the file cannot be read, or has no series and labels that fit.
    """
    arrays = read_arrays(path, "")
    roles = {name: role_of(name, SERIES_ROLES) for name in arrays}
    for name, role, option in ((labels, "labels", "labels"), (group, "groups", "group")):
        if name:
            if name not in roles:
                raise DataError(
                    f"{path} has no array {quoted(name)} for --set dataset.{option} (its arrays: {listed(arrays)})"
                )
            roles[name] = (role, roles[name][1])
    found = {role: arrays[name] for name, role in roles.items()}
    splits = sorted(split for kind, split in found if kind == "images")
    if not splits:
        raise DataError(f"{path} has no array that is called series or x (its arrays: {listed(arrays)})")
    names = next((texts_of(arrays[name]) for name in NAMES if name in arrays), None)
    parts: list[Part] = []
    remarks: list[str] = []
    for split in splits:
        if needs_labels and ("labels", split) not in found:
            raise DataError(
                f"{path} has no labels for its {split} series (its arrays: {listed(arrays)}): name them with "
                "--set dataset.labels=NAME"
            )
        values = _numbers(path, found["images", split])
        given = found.get(("labels", split))
        texts = [""] * len(values) if given is None else labels_of(path, given, names)
        groups = texts_of(found.get(("groups", split), np.array([]))) or [""] * len(texts)
        if not len(values) == len(texts) == len(groups):
            sizes = f"{len(values):,} series, {len(texts):,} labels and {len(groups):,} groups"
            raise DataError(f"{path} has {sizes}: they should be equally many")
        if not remarks and values.shape[1] > values.shape[2] > 0:
            remarks.append(
                f"warning: the series have {values.shape[1]:,} channels and {values.shape[2]:,} steps; if these "
                "are exchanged, write series.transpose(0, 2, 1) for (N, channels, time)"
            )
        series = [without_end(one) for one in values]
        place = f"{path.name}[{split}, " if split else f"{path.name}["
        parts.append(Part(split, series, texts, groups, [f"{place}{row}]" for row in range(len(texts))]))
    return Material(parts, remarks)


def _numbers(path: Path, values: Array) -> Array:
    """The series of an array, (N, channels, time) float32."""
    shape = f"({', '.join(map(str, values.shape))})"
    if values.ndim not in (2, 3):
        raise DataError(
            f"{path}: the series have the shape {shape}; it should be (N, channels, time), or (N, time)"
        )
    if values.dtype.kind not in "biuf":
        raise DataError(f"{path}: the series are of the type {values.dtype}; they should be numbers")
    with np.errstate(over="ignore"):  # what becomes infinite is refused
        return (values if values.ndim == 3 else values[:, None]).astype(np.float32)


def holds_series(path: Path) -> bool:
    """Whether an .npz file holds series and no images, if nobody says it.

    It does if an array is called ``series`` (or ``series_train`` and so on), or if the array ``x`` (or ``data`` …)
    is (N, channels, time) of floats, some of which are below 0, above 255 or NaN: such images are refused.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
            kinds = {name: role_of(name, SERIES_ROLES)[0] for name in names}
            if any(kind == "images" and OWN in name.lower() for name, kind in kinds.items()):
                return True
            xs = [name for name, kind in kinds.items() if kind == "images"]
            if any(role_of(name)[0] == "images" and name not in xs for name in names):
                return False  # an array is called images
            shapes = [_shape(archive, f"{name}.npy") for name in xs]
        if not all(len(shape) == 3 and kind == "f" for shape, kind in shapes):
            return False
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            return any(_is_beyond(file[name]) for name in xs)
    except DAMAGED:
        return False


def _shape(archive: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], str]:
    """The shape and the kind of numbers of an array, which is not read."""
    with archive.open(name) as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, kind = read(file)
        return shape, kind.kind


def _is_beyond(values: Array) -> bool:
    """Whether some values are none of an image."""
    chunks = (values[start : start + CHUNK] for start in range(0, len(values), CHUNK))
    return any(not ((chunk >= 0) & (chunk <= 255)).all() for chunk in chunks)
