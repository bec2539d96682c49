"""Turn image files into inputs of a network, prepared as its training images were."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from nas.architecture.layers import Shape
from nas.data.dataset import Array
from nas.data.decoder import MAX_BYTES, Frame, decoded, framed
from nas.data.plugin import fit_of
from nas.errors import ImageError

STDIN = "-"

DARK, LIGHT = "dark on light", "light on dark"
WORK = 320  # pixels of the longer side of the image in which a drawing is searched: removes noise, takes 10 ms
INK = 20 / 28  # the part of a side that the ink fills, as in MNIST (LeCun et al., 1998)
FAINT = 12.0  # of 255: the smallest difference between ink and paper


@dataclass(frozen=True)
class Picture:
    """An image in the form that a network takes."""

    pixels: Array  # (C, H, W) uint8
    size: tuple[int, int]  # width and height of the file's image
    polarity: str = ""  # of a drawing: `DARK` or `LIGHT`
    inverted: bool = False
    note: str = ""  # what was left out of the file, or assumed


def read_picture(name: str, shape: Shape, framing: str) -> Picture:
    """An image file in the shape and the framing (see `DatasetPlugin.framing`) of a network's training images.

    Args:
        name: the path of an image file (see `nas.data.decoder`), or ``-`` for standard input.
        shape: channels (1 or 3), height, width.
        framing: the framing of the training images.

    Raises:
        ImageError: the file is no image, too large, damaged, or without a drawing; the message is the reason.
    """
    pixels, note, _ = decoded(_given() if name == STDIN else Path(name))
    size, (channels, height, width) = (pixels.shape[1], pixels.shape[0]), shape
    if framing == "centred":
        grey = framed(pixels, Frame(1, size[1], size[0]))[0]
        drawing, polarity = _centre(grey, height, width)
        return Picture(np.repeat(drawing[None], channels, axis=0), size, polarity, polarity == DARK, note)
    return Picture(framed(pixels, Frame(channels, height, width, fit_of(framing))), size, note=note)


def _given() -> bytes:
    """The standard input."""
    try:
        return sys.stdin.buffer.read(MAX_BYTES + 1)
    except OSError as error:
        raise ImageError(f"cannot be read ({error.strerror or error})") from None


def _centre(grey: Array, height: int, width: int) -> tuple[Array, str]:
    """A drawing prepared as those of MNIST, and its polarity (see `DatasetPlugin.framing`).

    An image (H, W) uint8 that already has the height and width of the network is kept bit for bit, or inverted.
    """
    work, is_ready = grey, grey.shape == (height, width)
    factor = max(grey.shape) / WORK
    if factor > 1 and not is_ready:
        small_height, small_width = (max(1, round(side / factor)) for side in grey.shape)
        work = np.asarray(Image.fromarray(grey).resize((small_width, small_height), Image.Resampling.BOX))
    paper = _paper(work.astype(np.float32))
    above = work - paper
    # Ink differs most from its paper: the sum of the cubed differences has its sign.
    is_light = float((above**3).sum()) > 0
    polarity = LIGHT if is_light else DARK
    if not is_light:  # ink takes the same share of the light in the shade as elsewhere
        above *= -255 / paper.clip(min=32)
    ink = above.clip(0, 255)
    # The paper's standard deviation: neighbours differ by noise, except along the edges of the ink.
    noise = 1.4826 / 2**0.5 * float(np.median(np.abs(np.diff(above, axis=1)))) if above.shape[1] > 1 else 0.0
    candidates = ink[ink > max(FAINT, 4 * noise)]
    if not len(candidates):
        raise ImageError("shows no drawing: no part of it differs enough from its paper")
    if is_ready:
        return (grey if is_light else 255 - grey), polarity
    mask = ink > _otsu(candidates)
    if max(mask.shape) >= 4 * max(height, width):  # in a smaller drawing, lines may be one pixel thin
        image = Image.fromarray(mask.astype(np.uint8) * 255)
        without_specks = np.asarray(image.filter(ImageFilter.MedianFilter(3))) > 0
        mask = without_specks if without_specks.any() else mask
    top = float(np.quantile(ink[mask], 0.9))
    stretched = ((ink - 3 * noise) / max(top - 3 * noise, 1.0)).clip(0, 1) * 255
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    box = stretched[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return _placed(box, height, width), polarity


def _paper(image: Array) -> Array:
    """The brightness of the paper at every pixel: a quadratic surface, fitted to the image's border.

    It is fitted by least absolute deviations, so that ink at the border does not bend it.
    """
    height, width = image.shape
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    terms = np.stack([np.ones_like(x), x, y, x * y, x * x, y * y], axis=-1).astype(np.float32)
    border = np.ones(image.shape, dtype=bool)
    depth, side = max(1, height // 12), max(1, width // 12)
    border[depth : height - depth, side : width - side] = False
    step = max(1, int(border.sum()) // 4_000)
    known, values = (array[border][::step].astype(np.float64) for array in (terms, image))
    weights = np.ones(len(values))
    for _ in range(15):
        weighted = known * weights[:, None]
        solution = np.linalg.lstsq(weighted.T @ known, weighted.T @ values, rcond=None)[0]
        missed = np.abs(values - known @ solution)
        if missed.max() < 1:  # a border of one brightness, as in MNIST itself
            break
        weights = 1 / np.maximum(missed, 1.0)
    return (terms @ solution.astype(np.float32)).clip(0, 255)


def _otsu(values: Array) -> float:
    """The threshold that best divides values (0 to 255) into two groups (Otsu, 1979)."""
    counts = np.bincount(values.astype(np.uint8), minlength=256).astype(np.float64)
    below = counts.cumsum()
    sums = (counts * np.arange(256)).cumsum()
    above = below[-1] - below
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (sums[-1] * below / below[-1] - sums) ** 2 / (below * above)
    return float(np.nan_to_num(between, nan=0.0, posinf=0.0)[:-1].argmax())


def _placed(ink: Array, height: int, width: int) -> Array:
    """The ink scaled to `INK` of the sides, its centre of mass in the centre of a black image."""
    scale = min(INK * height / ink.shape[0], INK * width / ink.shape[1])
    size = max(1, round(ink.shape[1] * scale)), max(1, round(ink.shape[0] * scale))
    small = np.asarray(Image.fromarray(ink.astype(np.float32)).resize(size, Image.Resampling.BICUBIC))
    small = small.clip(0, 255).round().astype(np.uint8)
    total = max(int(small.sum()), 1)
    placed = np.zeros((height, width), dtype=np.uint8)
    slices = []
    for axis, side in enumerate(placed.shape):
        length = small.shape[axis]
        centre = (small.sum(axis=1 - axis, dtype=np.int64) @ np.arange(length)) / total
        start = min(max(round(side / 2 - centre), 0), side - length)
        slices.append(slice(start, start + length))
    placed[tuple(slices)] = small
    return placed
