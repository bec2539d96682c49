"""The data set on its way to the nodes: put into Ray's store once, and laid down in files by each agent once."""

from __future__ import annotations

import itertools
import json
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.data.dataset import CHUNK, Dataset, Split, mapped, new_array
from nas.errors import StorageError

if TYPE_CHECKING:
    from nas.data.dataset import Array


@dataclass(frozen=True)
class Packed:
    """A data set whose arrays are in the store; plain data and references."""

    number: int  # of the data set in this process: a sample of a data set has the same fingerprint
    content: dict[str, Any]  # of the file dataset.json
    arrays: dict[str, tuple[str, tuple[int, ...], list[Any]]]  # by file: type, shape, references to groups of rows


_packed: weakref.WeakKeyDictionary[Dataset, Packed] = weakref.WeakKeyDictionary()
_numbers: weakref.WeakKeyDictionary[Dataset, int] = weakref.WeakKeyDictionary()
_count = itertools.count()


def packed(dataset: Dataset, put: Callable[[Array], Any]) -> Packed:
    """Put a data set into the store, in pieces of at most 64 MiB, unless it is there already."""
    if dataset not in _packed:
        arrays = {}
        for file, tensor in dataset.tensors():
            array = tensor.numpy()
            step = max(1, CHUNK // max(1, array[:1].nbytes))
            rows = [put(np.ascontiguousarray(array[at : at + step])) for at in range(0, len(array), step)]
            arrays[file] = array.dtype.str, array.shape, rows
        number = _numbers.setdefault(dataset, next(_count))
        _packed[dataset] = Packed(number, dataset.content, arrays)
    return _packed[dataset]


def forget() -> None:
    """Let data sets be put anew when they are needed: the store is another one, or a node with copies was lost."""
    _packed.clear()


def laid_down(packed: Packed, folder: Path, get: Callable[[Any], Array]) -> Dataset:
    """A data set in files, as `Dataset.save` writes them, unless they are there already.

    Its images and labels are arrays, not tensors: an agent only counts them, and does without torch.

    Raises:
        StorageError: there is not enough space.
    """
    content, last = packed.content, folder / "dataset.json"
    try:
        if not last.is_file():
            _write(packed, folder, get)
            last.write_text(json.dumps(content), encoding="utf-8")
    except OSError as error:
        raise StorageError(
            f"the data set cannot be copied to {folder.parent.parent} ({error.strerror or error}): "
            "free some space there, or name another folder in TMPDIR"
        ) from None
    train, validation = (
        Split(*(mapped(folder / f"{part}_{kind}.npy") for kind in ("inputs", "labels")))  # type: ignore[arg-type]
        for part in ("train", "validation")
    )
    return Dataset.described(content, train, validation, folder)


def _write(packed: Packed, folder: Path, get: Callable[[Any], Array]) -> None:
    folder.mkdir(exist_ok=True)
    for file, (kind, shape, pieces) in packed.arrays.items():
        array, at = new_array(folder / file, shape, kind), 0
        for piece in pieces:
            rows = get(piece)
            array[at : at + len(rows)] = rows
            at += len(rows)
        array.flush()
