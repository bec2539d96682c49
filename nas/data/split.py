"""The inputs of networks and their labels, and what every training relies on in them.

Inputs are of one of three kinds, everywhere:

- images ``(N, C, H, W)`` uint8;
- series ``(N, C, T)`` float32; a series that is shorter than T is followed by NaN;
- tokens ``(N, T)`` uint8 or int32, each the number of a class; the label is the token that follows them.

Labels are ``(N,)`` int64. Torch is imported only where a tensor is made, because the import takes 3.5 s, which
would delay the list of data sets.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.data.kinds import NOUNS, kind_of
from nas.errors import DataError

if TYPE_CHECKING:
    import torch

Array = np.ndarray[Any, np.dtype[Any]]

CHUNK = 2**26  # bytes of inputs that are read at a time

WITH_CHANNEL = "write images[:, None] for (N, 1, H, W)"
CHANNELS_FIRST = (
    "write images.transpose(0, 3, 1, 2) for (N, C, H, W), or, if they are maps of such a size, exchange H and W"
)


@dataclass(frozen=True, eq=False)
class Split:
    """Images, series or tokens, and their labels ``(N,)`` int64, in the same order."""

    inputs: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def images(self) -> torch.Tensor:
        """The inputs, by the name that they had when all of them were images."""
        return self.inputs

    def rows(self, chosen: torch.Tensor) -> Split:
        """The inputs at these positions, (M,) int64."""
        return Split(self.inputs[chosen], self.labels[chosen])

    @classmethod
    def of(cls, inputs: Array, labels: Array) -> Split:
        """The same arrays as tensors, without a copy where their types allow it."""
        import torch

        if np.can_cast(labels.dtype, np.int64):  # otherwise `verify_split` reports their type
            labels = labels.astype(np.int64, copy=False)
        with warnings.catch_warnings():  # torch does not like memory that is read only; nobody writes to it
            warnings.filterwarnings("ignore", message="The given NumPy array is not writ")
            return cls(torch.from_numpy(inputs), torch.from_numpy(labels))


def verify_split(
    split: Split,
    name: str,
    classes: Sequence[str],
    shape: Sequence[int] | None = None,
    is_padded: bool = True,
    *,
    reads_values: bool = True,
) -> None:
    """Check everything that a training, or a test, relies on.

    Args:
        split: the inputs and labels.
        name: begins the error message.
        classes: the names of the classes.
        shape: of a training input, which these inputs must have, too.
        is_padded: whether series may end before the last step.
        reads_values: whether to look at all values of series and tokens, too.

    Raises:
        DataError: a type or shape is wrong, the numbers of inputs and labels differ, a label is not from 0 to
            classes - 1, or a class has no input; the message gives the expected and the actual value.
    """
    import torch

    def expect(property_: str, expected: object, actual: object) -> None:
        if expected != actual:
            raise DataError(f"{name}: expected {property_} {expected}, found {actual}")

    if not isinstance(split, Split):
        raise DataError(f"{name}: expected a Split, found a {type(split).__name__}")
    inputs, labels = split.inputs, split.labels
    if inputs.dtype == torch.float32 and inputs.ndim == 3:
        if reads_values:
            _verify_series(inputs.numpy(), name, is_padded)
    elif inputs.dtype in (torch.uint8, torch.int32) and inputs.ndim == 2:
        if reads_values:
            _verify_tokens(inputs.numpy(), name, len(classes))
    else:
        expect("images of type", torch.uint8, inputs.dtype)
        if inputs.ndim == 3:
            raise DataError(
                f"{name}: the images {tuple(inputs.shape)} have no dimension of channels: {WITH_CHANNEL}"
            )
        expect("image dimensions (N, C, H, W):", 4, inputs.ndim)
        if _has_channels_last(inputs.shape):
            raise DataError(f"{name}: the images {tuple(inputs.shape)} look like (N, H, W, C): {CHANNELS_FIRST}")
    kind = kind_of(inputs.shape[1:])
    if kind != "images" and not inputs.numel():
        raise DataError(f"{name}: expected {kind}, found inputs of the shape {tuple(inputs.shape)}")
    expect("labels of type", torch.int64, labels.dtype)
    if shape is not None:
        expect(f"{kind} of the training {kind}' shape", tuple(shape), tuple(inputs.shape[1:]))
    expect("label dimensions (N):", 1, labels.ndim)
    expect(f"as many labels as {kind},", len(inputs), len(labels))
    known = np.unique(labels.numpy())  # no threads, see `_moments`
    wrong = [label for label in known.tolist() if not 0 <= label < len(classes)]
    if wrong:
        raise DataError(f"{name}: expected labels from 0 to {len(classes) - 1}, found {wrong[0]}")
    needed = range(len(classes)) if kind == "images" else ()
    empty = [classes[label] for label in needed if label not in known]
    if empty:
        raise DataError(f"{name}: expected {NOUNS[kind].each} of every class, found none of {', '.join(empty)}")


def _verify_series(series: Array, name: str, is_padded: bool) -> None:
    """Require numbers, which may only end before the last step, in all channels together."""
    for start in range(0, len(series), step := max(1, CHUNK // max(1, series[:1].nbytes))):
        part = series[start : start + step]
        if np.isinf(part).any():
            raise DataError(
                f"{name}: series {start + int(np.isinf(part).any((1, 2)).argmax())} has infinite values"
            )
        is_over = np.isnan(part)
        later = is_over[:, :, :-1] & ~is_over[:, :, 1:]
        bad = later.any((1, 2)) | (is_over != is_over[:, :1]).any((1, 2)) | is_over[:, 0, 0]
        if bad.any():
            raise DataError(
                f"{name}: series {start + int(bad.argmax())} has NaN before its end, or is empty: fill the "
                "missing values; only the steps after the end of a series are NaN, in all channels"
            )
        if not is_padded and is_over.any():
            raise DataError(
                f"{name}: series {start + int(is_over.any((1, 2)).argmax())} is shorter than those of the "
                "training: say Dataset.of(…, is_padded=True)"
            )


def _verify_tokens(tokens: Array, name: str, classes: int) -> None:
    """Require tokens that are classes: the label of a window is the token that follows it."""
    if tokens.size and not 0 <= tokens.min() <= tokens.max() < classes:
        wrong = tokens.min() if tokens.min() < 0 else tokens.max()
        raise DataError(f"{name}: a token is {wrong}: it should be from 0 to {classes - 1}, the number of a class")


def _has_channels_last(shape: Sequence[int]) -> bool:
    """Whether images look like (N, H, W, C), with one to four channels.

    Recordings (N, channels, time, 1) do not: of them, only the time is long.
    """
    _, height, width, channels = shape
    if channels == 1:
        return min(height, width) >= 8 and max(height, width) < 4 * min(height, width)
    return 2 <= channels <= 4 and min(height, width) > 4


def verify_both(
    name: str,
    train: Split,
    validation: Split,
    classes: Sequence[str],
    folds: Sequence[int] = (),
    *,
    reads_values: bool = True,
) -> None:
    """Check the training and the validation inputs of a data set, and its folds, if there are any."""
    verify_split(train, f"{name}, training {_kind(train)}", classes, reads_values=reads_values)
    where = f"{name}, validation {_kind(train)}"
    verify_split(validation, where, classes, train.inputs.shape[1:], reads_values=reads_values)
    labels = np.concatenate([split.labels.numpy() for split in (train, validation)])
    if kind_of(train.inputs.shape[1:]) == "tokens":  # a rare one may follow no window
        return
    lacking = sorted(set(range(len(classes))) - set((labels if folds else train.labels.numpy()).tolist()))
    if lacking:
        raise DataError(
            f"{name}: expected training {_kind(train)} of every class, found none of {classes[lacking[0]]}"
        )
    if folds and (
        len(folds) != len(labels) or sorted(set(folds)) != list(range(max(folds) + 1)) or max(folds) < 1
    ):
        raise DataError(f"{name}: expected a fold, 0 to K - 1, for each of {len(labels)} {_kind(train)}")


def _kind(split: Split) -> str:
    return (
        kind_of(split.inputs.shape[1:]) if isinstance(split, Split) and 2 <= split.inputs.ndim <= 4 else "images"
    )
