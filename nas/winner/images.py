"""Turn image files of any origin into the images that a network was trained on; a bad file is refused alone."""

from __future__ import annotations

import io
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter, ImageOps, UnidentifiedImageError

from nas.architecture.layers import Shape
from nas.errors import ImageError, plain
from nas.files import kind_of

Array = np.ndarray[Any, np.dtype[Any]]

STDIN = "-"
FORMATS = ("PNG", "JPEG")
ENDINGS = (".png", ".jpg", ".jpeg")
MAX_PIXELS = Image.MAX_IMAGE_PIXELS or 0  # Pillow's own limit: 89 megapixels, four bytes each
MAX_BYTES = 100 * 2**20
ORIENTATION = 0x0112  # of EXIF

DARK = "dark on light"
LIGHT = "light on dark"
WORK = 320  # pixels of the longer side on which a drawing is looked for: removes noise, takes 10 ms
INK = 20 / 28  # the part of a side that the ink fills, as in MNIST (LeCun et al., 1998)
FAINT = 12.0  # of 255: ink has to differ from its paper by more


@dataclass(frozen=True)
class Picture:
    """An image in the form that a network takes."""

    pixels: Array  # (C, H, W) uint8
    size: tuple[int, int]  # width and height of the file's image
    polarity: str = ""  # of a drawing: `DARK` or `LIGHT`
    inverted: bool = False


def read_picture(name: str, shape: Shape, framing: str) -> Picture:
    """An image file in the shape and the framing (see `DatasetPlugin.framing`) of a network's own images.

    Args:
        name: the path of a PNG or JPEG file, or ``-`` for standard input.
        shape: channels (1 or 3), height, width.
        framing: how the training images were framed.

    Raises:
        ImageError: it is no image, too large, damaged, or without a drawing; the message is the reason alone.
    """
    image, size = _decode(_content(name))
    if framing == "centred":
        grey = np.asarray(image.convert("L"))
        pixels, polarity = _centre(grey, shape[1], shape[2])
        return Picture(np.repeat(pixels[None], shape[0], axis=0), size, polarity, polarity == DARK)
    image = image.convert("L" if shape[0] == 1 else "RGB")
    if image.size != (shape[2], shape[1]):
        image = image.resize((shape[2], shape[1]), Image.Resampling.BICUBIC)
    pixels = np.asarray(image)
    return Picture(pixels[None] if shape[0] == 1 else pixels.transpose(2, 0, 1), size)


def _content(name: str) -> bytes:
    try:
        if name == STDIN:
            content = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            path = Path(name)
            if not path.is_file():  # checked first, because opening a pipe waits for its writer
                raise ImageError(f"is {kind_of(path)}, not an image file")
            with path.open("rb") as file:
                content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise ImageError("there is no such file") from None
    except OSError as error:
        raise ImageError(f"cannot be read ({error.strerror or error})") from None
    if not content:
        raise ImageError("is empty")
    if len(content) > MAX_BYTES:
        raise ImageError(f"has more than {MAX_BYTES // 2**20} MiB, which is too large: make it smaller")
    return content


def _decode(content: bytes) -> tuple[Image.Image, tuple[int, int]]:
    """The image, upright, grey (L) or RGB, and its size; transparent parts become white."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of strange metadata
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                image.load()
                turned = image.getexif().get(ORIENTATION, 1) not in (0, 1)
                upright = ImageOps.exif_transpose(image) if turned else image
                plain_image = _on_white(upright)
    except UnidentifiedImageError:
        raise ImageError("is not a PNG or JPEG image") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise ImageError(f"has more than {MAX_PIXELS // 10**6} megapixels: make it smaller") from None
    except Exception as error:  # noqa: BLE001  # for damaged files, the decoders raise anything
        reason = " ".join(plain(str(error) or type(error).__name__).split())[:100]
        raise ImageError(f"is damaged ({reason})") from None
    return plain_image, plain_image.size


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits a pixel, which PIL would clip instead of scale
        return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _centre(grey: Array, height: int, width: int) -> tuple[Array, str]:
    """A drawing prepared as those of MNIST, and its polarity (see `DatasetPlugin.framing`).

    An image that already has the right size is kept bit for bit, or inverted.

    Args:
        grey: (H, W) uint8.
        height: of the result, in pixels.
        width: of the result, in pixels.
    """
    ready = grey.shape == (height, width)
    if max(grey.shape) > WORK and not ready:
        factor = max(grey.shape) / WORK
        small = [max(1, round(side / factor)) for side in reversed(grey.shape)]
        work = np.asarray(Image.fromarray(grey).resize((small[0], small[1]), Image.Resampling.BOX))
    else:
        work = grey
    paper = _paper(work.astype(np.float32))
    above = work - paper
    # Ink differs most from its paper: the sum of the cubed differences has its sign.
    light = float((above**3).sum()) > 0
    if not light:  # ink takes the same share of the light in the shade as elsewhere
        above *= -255 / paper.clip(min=32)
    ink = above.clip(0, 255)
    # The paper's standard deviation: neighbours differ by noise, except along the edges of the ink.
    noise = 1.4826 / 2**0.5 * float(np.median(np.abs(np.diff(above, axis=1)))) if above.shape[1] > 1 else 0.0
    candidates = ink[ink > max(FAINT, 4 * noise)]
    if not len(candidates):
        raise ImageError("shows no drawing: nothing in it differs enough from its paper")
    if ready:
        return (grey if light else 255 - grey), (LIGHT if light else DARK)
    threshold = _otsu(candidates)
    mask = _without_specks(ink > threshold, max(height, width))
    top = float(np.quantile(ink[mask], 0.9))
    stretched = ((ink - 3 * noise) / max(top - 3 * noise, 1.0)).clip(0, 1) * 255
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    box = stretched[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return _placed(box, height, width), (LIGHT if light else DARK)


def _paper(image: Array) -> Array:
    """The brightness of the paper at every pixel: a quadratic surface, fitted to the image's border.

    It is fitted by least absolute deviations, so that ink at the border does not bend it.
    """
    height, width = image.shape
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    terms = np.stack([np.ones_like(x), x, y, x * y, x * x, y * y], axis=-1).astype(np.float32)
    frame = np.ones(image.shape, dtype=bool)
    deep = max(1, height // 12), max(1, width // 12)
    frame[deep[0] : height - deep[0], deep[1] : width - deep[1]] = False
    known, values = terms[frame], image[frame]
    step = max(1, len(values) // 4_000)
    known, values = known[::step].astype(np.float64), values[::step].astype(np.float64)
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


def _without_specks(mask: Array, side: int) -> Array:
    """The ink without single pixels of noise; the whole ink if nothing else remains."""
    if max(mask.shape) < 4 * side:  # a small drawing, whose lines may be one pixel thin
        return mask
    kept = np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).filter(ImageFilter.MedianFilter(3))) > 0
    return kept if kept.any() else mask


def _placed(ink: Array, height: int, width: int) -> Array:
    """The ink scaled to `INK` of the sides, its centre of mass in the centre of a black image."""
    scale = min(INK * height / ink.shape[0], INK * width / ink.shape[1])
    size = max(1, round(ink.shape[1] * scale)), max(1, round(ink.shape[0] * scale))
    small = np.asarray(Image.fromarray(ink.astype(np.float32)).resize(size, Image.Resampling.BICUBIC))
    small = small.clip(0, 255).round().astype(np.uint8)
    total = max(int(small.sum()), 1)
    placed = np.zeros((height, width), dtype=np.uint8)
    starts = []
    for axis, side in ((0, height), (1, width)):
        centre = (small.sum(axis=1 - axis, dtype=np.int64) @ np.arange(small.shape[axis])) / total
        starts.append(min(max(round(side / 2 - centre), 0), side - small.shape[axis]))
    placed[starts[0] : starts[0] + small.shape[0], starts[1] : starts[1] + small.shape[1]] = small
    return placed
