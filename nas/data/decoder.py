"""Image files become arrays, always in this way: for training, for `nas predict`, and beside exported models."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import stat
import sys
import warnings
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from nas.data.dataset import Array
from nas.data.resize import Fit, pixel_scales, pixel_weights
from nas.errors import ImageError, PassingError, plain
from nas.files import kind_of

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")  # an MPO begins as a JPEG
ENDINGS = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".mpo", ".heic", ".heif",
)  # fmt: skip
HEIC = (b"ftypheic", b"ftypheix", b"ftypmif1")  # the beginnings of photographs of telephones
DEPTHS = (8, 10, 12, 14, 16)  # bits of a camera's numbers; files hold 9 bits and more in 16
MAX_PIXELS = 89_478_485  # Pillow's own limit, four bytes each: a file of 1 MB may hold many more
MAX_SIDE = 2**16 - 1  # that of a JPEG; the weights of a resize have a number for each of its pixels
MAX_BYTES = 100 * 2**20
SMALL = 2**18  # numbers of weights that are kept: 1 MiB
TOO_LITTLE = "needs more memory than there is"
STRIP = 2**24  # numbers that a resize converts to float32 at a time: 64 MiB
ORIENTATION = 0x0112  # the EXIF tag; 1 is upright

# Of strange metadata and of large images, which are measured here. `catch_warnings` would not be safe in threads.
warnings.filterwarnings("ignore", module=r"PIL\.")


@dataclass(frozen=True)
class Frame:
    """What every image of a data set becomes."""

    channels: int  # 1 is grey, 3 is colour
    height: int  # pixels
    width: int  # pixels
    # An image of another aspect ratio: its centre fills the frame (crop), all of it lies between black borders
    # (pad), or it is distorted (stretch).
    fit: Fit = "crop"


class Decoded(NamedTuple):
    """The image of a file."""

    pixels: Array  # (H, W) or (H, W, 3) uint8
    note: str  # what was left out of the file, or assumed; or ""
    kind: str = ""  # format and mode of the file, such as "JPEG RGB"


def decode(source: Path | bytes) -> Array:
    """The image of a file, (H, W) if the file is grey, otherwise (H, W, 3), uint8.

    It is the first one of several, upright (EXIF), palettes and CMYK as RGB, on white where it is transparent.
    Of 16 bits, those are taken that its brightest pixel needs, because cameras put 12 bits into files of 16.

    Args:
        source: the path of a file in one of `FORMATS` (and HEIC, if the package pillow-heif is installed), or its
            content.

    Raises:
        ImageError: the file is no image, too large, or damaged; the message is the reason, without the name. It is
            a `DataError`.
    """
    return decoded(source).pixels


def decoded(source: Path | bytes) -> Decoded:
    """Like `decode`, with a note."""
    content = source if isinstance(source, bytes) else _content(source)
    if not content:
        raise ImageError("is empty")
    if len(content) > MAX_BYTES:
        raise _too_large()
    try:
        with Image.open(io.BytesIO(content), formats=formats()) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError  # noqa: TRY301  # as Pillow does at twice the size
            if max(image.size) > MAX_SIDE:
                raise _too_long()  # noqa: TRY301
            is_cut = any(";16" in str(tile) for tile in image.tile)  # Pillow keeps the upper 8 of 16 bits
            # An MPO is a photograph for everybody but its camera.
            is_several = image.format != "MPO" and getattr(image, "is_animated", False)
            kind = f"{image.format} {image.mode}"
            image.load()
            result = _upright(image, content, is_cut=is_cut, note="first of several images" * is_several)
            return result._replace(kind=kind)
    except ImageError:
        raise
    except UnidentifiedImageError:
        if content[4:12] in HEIC and "HEIF" not in formats():
            raise ImageError("is a HEIC image, which needs a package: `pip install pillow-heif`") from None
        raise ImageError(f"is no image in a known format ({', '.join(formats())})") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(f"has more than {MAX_PIXELS // 10**6} megapixels: make it smaller") from None
    except MemoryError:
        raise PassingError(TOO_LITTLE) from None
    except Exception as error:  # noqa: BLE001  # for damaged files, the decoders raise anything
        reason = " ".join(plain(str(error) or type(error).__name__).split())[:100]
        raise ImageError(f"is damaged ({reason})") from None


def framed(pixels: Array, frame: Frame) -> Array:
    """An image in its frame: (C, H, W) uint8, of an image (H, W) or (H, W, 3) uint8 of any size.

    It becomes grey or coloured first (grey by ITU-R BT.601), then it is resized (see `nas.data.resize`). An image
    of the frame's size is not changed.
    """
    if frame.channels == 1 and pixels.ndim == 3:
        pixels = np.asarray(Image.fromarray(pixels).convert("L"))
    planes = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    if planes.shape[1:] != (frame.height, frame.width):
        planes = resized(planes, frame)
    return np.ascontiguousarray(np.broadcast_to(planes, (frame.channels, *planes.shape[1:])))


def few_colours(pixels: Array, most: int) -> int:
    """The number of colours of an image (H, W) or (H, W, 3) uint8, if it is at most ``most``; otherwise 0."""
    return len(Image.fromarray(pixels).getcolors(most) or ())


def _content(path: Path) -> bytes:
    """The content of a file."""
    try:
        state = path.stat()
        if not stat.S_ISREG(state.st_mode):  # checked first, because opening a pipe waits for its writer
            raise ImageError(f"is {kind_of(path)}, not an image file")
        if state.st_size > MAX_BYTES:
            raise _too_large()
        return path.read_bytes()
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        reason = "there is no such file" if missing else f"cannot be read ({error.strerror or error})"
        raise PassingError(reason) from None
    except ValueError:  # a NUL in the name
        raise ImageError("there is no such file") from None


def _too_long() -> ImageError:
    return ImageError(f"has a side of more than {MAX_SIDE:,} pixels: make it smaller")


def _too_large() -> ImageError:
    return ImageError(f"has more than {MAX_BYTES // 2**20} MiB, which is too large: make it smaller")


@cache
def formats() -> tuple[str, ...]:
    """The formats that are decoded here, by Pillow's names."""
    if importlib.util.find_spec("pillow_heif") is None:
        return FORMATS
    importlib.import_module("pillow_heif").register_heif_opener()
    return (*FORMATS, "HEIF")


def _upright(image: Image.Image, content: bytes, *, is_cut: bool, note: str) -> Decoded:
    """The loaded image of a file, upright, grey or RGB; ``is_cut`` if Pillow kept 8 of its 16 bits."""
    orientation = _orientation(image)
    depth = DEPTHS[-1]
    if image.mode.startswith("I"):
        values, depth = _of_eight_bits(np.asarray(image))
        image = Image.fromarray(values)
    elif image.mode == "F":
        raise ImageError("has fractions as pixels: save it with 8 or 16 bits a pixel")
    elif is_cut and _brightest(image) < 2**6:  # 14 bits of 16 would fill 6 of the 8 that are left
        image, depth = _of_colours(image, content)
    if orientation != 1:
        image.getexif()[ORIENTATION] = orientation
        ImageOps.exif_transpose(image, in_place=True)
    notes = [note, f"taken as {depth} bits" * (depth < DEPTHS[-1])]
    return Decoded(np.asarray(_on_white(image)), ", ".join(filter(None, notes)))


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 (upright) to 8; damaged metadata say nothing about the pixels."""
    with contextlib.suppress(Exception):
        return int(image.getexif().get(ORIENTATION, 1))
    return 1


def _of_eight_bits(values: Array) -> tuple[Array, int]:
    """Whole numbers (which Pillow would clip instead of scale) as uint8, and the bits that they fill.

    The file does not say whether its 16 bits hold the 12 bits of a camera: its brightest pixel does.
    """
    if values.min() < 0 or values.max() >= 2**16:
        raise ImageError("has more than 16 bits a pixel: save it with 8 or 16")
    depth = next(depth for depth in DEPTHS if values.max() < 2**depth)
    return (values >> (depth - 8)).astype(np.uint8), depth


def _of_colours(image: Image.Image, content: bytes) -> tuple[Image.Image, int]:
    """An image of 16 bits a colour, of which Pillow keeps the upper 8, and the bits that they fill.

    The lower 8 bits come from the same decoder, told that the bytes have the other order.
    """
    with Image.open(io.BytesIO(content), formats=formats()) as lower:
        lower.tile = [tile._replace(args=_other_order(tile.args)) for tile in lower.tile]
        try:
            lower.load()
        except ValueError:  # the decoder does not know the other order: grey with alpha
            reason = "has fewer than 14 bits in its 16 bits a colour, which would be dark"
            raise ImageError(f"{reason}: save it with 8 bits a colour") from None
        values = np.asarray(image).astype(np.int32) << 8 | np.asarray(lower)
    colours, depth = _of_eight_bits(values[..., :3])
    alpha = (values[..., 3:] >> 8).astype(np.uint8)
    return Image.fromarray(np.concatenate([colours, alpha], axis=2)), depth


def _other_order(args: Any) -> Any:
    """The arguments of Pillow's decoder, a name such as RGB;16B or a tuple that begins with one."""
    name = args if isinstance(args, str) else args[0]
    own = {"N": sys.byteorder[0].upper()}.get(name[-1], name[-1])  # native, big or little
    other = name[:-1] + {"B": "L", "L": "B"}[own]
    return other if isinstance(args, str) else (other, *args[1:])


def _brightest(image: Image.Image) -> int:
    return max(high for _, high in image.convert("RGB").getextrema())  # type: ignore[misc]


def _on_white(image: Image.Image) -> Image.Image:
    """The image in grey (L) or RGB; its transparent parts become white."""
    kind = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == kind else image.convert(kind)


def resized(planes: Array, frame: Frame) -> Array:
    """Planes (C, H, W) of any number and size as (C, height, width) of the frame, uint8: see `nas.data.resize`."""
    count, height, width = planes.shape
    rows, columns, denominator = pixel_scales(height, width, frame.height, frame.width, frame.fit)
    for_rows, row_sums = _weights(frame.height, height, rows, denominator)
    for_columns, column_sums = _weights(frame.width, width, columns, denominator)
    done = np.empty((count, frame.height, frame.width), np.uint8)
    step = max(1, STRIP // height)
    for plane, result in zip(planes, done, strict=True):
        strips = [plane[:, start : start + step] for start in range(0, width, step)]
        few_rows = np.hstack([np.rint(for_rows @ strip.astype(np.float32) / row_sums) for strip in strips])
        result[:] = np.rint(few_rows @ for_columns.T / column_sums.T)
    return done


def _weights(frame_side: int, side: int, numerator: int, denominator: int) -> tuple[Array, Array]:
    """The weights of a side (frame_side, side) and their sums (frame_side, 1), float32."""
    matrix = _matrix if frame_side * side <= SMALL else _matrix.__wrapped__
    return matrix(frame_side, side, numerator, denominator)


@lru_cache(maxsize=64)  # most photographs of a camera have the same sides
def _matrix(frame_side: int, side: int, numerator: int, denominator: int) -> tuple[Array, Array]:
    frame_pixels, pixels = np.arange(frame_side)[:, None], np.arange(side)[None]
    found = pixel_weights(frame_pixels, pixels, numerator, denominator)
    return found.astype(np.float32), found.sum(1)[:, None].clip(1).astype(np.float32)
