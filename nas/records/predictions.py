"""What the winner answers for the validation and the test images, and a few pictures: a file beside the journal.

The test images are opened once. What a report says about them later comes from this file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nas.errors import NasError, quoted
from nas.files import write_whole
from nas.records.outcome import Outcome

Array = np.ndarray[Any, np.dtype[Any]]

FILE = "predictions.safetensors"
LARGEST = 2**28  # bytes; a million images take 16 MB, the pictures at most 9 MB
ARRAYS = {  # the dimensions and the type of each array in the file
    "validation_labels": (1, "int32"),
    "validation_answers": (1, "int32"),
    "validation_chances": (2, "float32"),
    "test_labels": (1, "int32"),
    "test_answers": (1, "int32"),
    "test_chances": (2, "float32"),
    "examples_of": (1, "int32"),
    "examples": (6, "uint8"),
    "wrong": (1, "int64"),
    "wrong_pictures": (4, "uint8"),
}


@dataclass(frozen=True)
class Answers:
    """What a network answers for the images of one split."""

    labels: Array  # (N,): the class of each image
    answers: Array  # (N,): the class with the largest probability
    chances: Array  # (N, 2): the probability of this class, and of the right one


@dataclass(frozen=True)
class Predictions:
    """The answers of the winner, and pictures: ``(…, h, w, 1)`` grey or ``(…, h, w, 3)`` in colour, uint8.

    Where the images of a data set cannot be shown, such as recordings, the pictures have no pixels.
    """

    training: str  # the key of the job whose weights were handed over
    classes: tuple[str, ...]
    validation: Answers
    test: Answers
    examples_of: Array  # (K,): the classes of which there are examples
    examples: Array  # (K, 2, E, h, w, 1 or 3): of each class E training images, and the same images augmented
    wrong: Array  # (W,): the positions of the most wrong test images, the worst first
    wrong_pictures: Array  # (W, h, w, 1 or 3)

    def write(self, folder: Path) -> None:
        """Write the file into the folder of the search.

        Raises:
            StorageError: the file cannot be written.
        """
        from safetensors.numpy import save

        splits = {"validation": self.validation, "test": self.test}
        arrays = {f"{name}_{part}": array for name, split in splits.items() for part, array in vars(split).items()}
        arrays |= {name: getattr(self, name) for name in ARRAYS.keys() - arrays.keys()}
        arrays = {name: np.ascontiguousarray(arrays[name], ARRAYS[name][1]) for name in ARRAYS}
        # One entry, because safetensors writes several in any order.
        about = json.dumps({"training": self.training, "classes": self.classes})
        write_whole(folder / FILE, save(arrays, {"about": about}))


def predictions_of(outcome: Outcome) -> Predictions | None:
    """The answers of a winner; None for a search of an earlier version, or if the file is of another winner.

    Raises:
        NasError: the file is damaged.
    """
    path = outcome.header.folder / FILE
    if not path.exists():
        return None
    try:
        found = _read(path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:150]
        advice = "remove the file, and the search is shown without its classes"
        raise NasError(f"{path} is damaged ({quoted(reason)}): {advice}") from None
    return found if found.training == outcome.handed_over.job.key else None


def _read(path: Path) -> Predictions:
    from safetensors import SafetensorError, safe_open

    if not path.is_file() or path.stat().st_size > LARGEST:  # opening a pipe would wait for its writer
        raise ValueError(f"it should be a file of at most {LARGEST:,} bytes")
    try:
        with safe_open(path, framework="np") as file:
            about = json.loads((file.metadata() or {})["about"])
            arrays = {name: file.get_tensor(name) for name in ARRAYS}
    except SafetensorError as error:
        raise ValueError(str(error)) from None
    classes = tuple(map(str, about["classes"]))
    _check(arrays, len(classes))
    validation, test = (
        Answers(*(arrays.pop(f"{split}_{part}") for part in ("labels", "answers", "chances")))
        for split in ("validation", "test")
    )
    return Predictions(str(about["training"]), classes, validation, test, **arrays)


def _check(arrays: Mapping[str, Array], classes: int) -> None:
    """Refuse arrays that do not belong together: the file may come from a stranger."""
    for name, (dimensions, kind) in ARRAYS.items():
        array = arrays[name]
        if (array.ndim, str(array.dtype)) != (dimensions, kind):
            raise ValueError(f"{name} is {array.dtype} with {array.ndim} dimensions")
        if (
            name.endswith(("labels", "answers", "_of"))
            and array.size
            and not 0 <= array.min() <= array.max() < classes
        ):
            raise ValueError(f"{name} has a class that there is not")
    for split in ("validation", "test"):
        labels, answers, chances = (arrays[f"{split}_{part}"] for part in ("labels", "answers", "chances"))
        is_empty = not len(labels) and split == "test"  # with folds, no validation inputs are left for the winner
        if is_empty or labels.shape != answers.shape or chances.shape != (len(labels), 2):
            raise ValueError(f"{split} has {len(labels)} labels and {len(answers)} answers")
        if not ((chances >= 0) & (chances <= 1)).all():
            raise ValueError(f"{split} has a probability that is not from 0 to 1")
    examples, wrong, pictures = arrays["examples"], arrays["wrong"], arrays["wrong_pictures"]
    if len(examples) != len(arrays["examples_of"]) or examples.shape[1] != 2 or len(wrong) != len(pictures):
        raise ValueError("it has more pictures than images, or fewer")
    if wrong.size and not 0 <= wrong.min() <= wrong.max() < len(arrays["test_labels"]):
        raise ValueError("it has a picture of no test image")
    if examples.shape[-1] not in (1, 3) or pictures.shape[-1] not in (1, 3):
        raise ValueError("its pictures have neither one channel nor three")
