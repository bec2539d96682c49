"""Image files as people have them become arrays, and arrays become what a network takes."""

from __future__ import annotations

import io
import os
import struct
import zlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nas.data.dataset import Array
from nas.data.decoder import Frame, decode, decoded, framed
from nas.errors import DataError, ImageError

FORMATS = ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "MPO"]


def photograph(height: int = 40, width: int = 30) -> Array:
    """(H, W, 3) uint8: smooth, all different at the corners."""
    y, x = np.mgrid[:height, :width] / (max(height, width) - 1)
    return (255 * np.stack([y, x, 1 - y], axis=2)).astype(np.uint8)


def noise(height: int, width: int) -> Array:
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def png_of_16_bits(values: Array) -> bytes:
    """Values (H, W, C); Pillow writes grey ones only."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width, channels = values.shape
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0))
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_in_colour_and_grey(form: str, tmp_path: Path) -> None:
    colour = photograph()
    options: dict[str, Any] = {"quality": 95} if form in ("JPEG", "WEBP", "MPO") else {}
    path = tmp_path / "image"
    path.write_bytes(saved(Image.fromarray(colour), form, **options))
    found = decode(path)
    assert found.shape == (40, 30, 3)
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - colour).max() <= (20 if form == "GIF" else 10)
    assert (decode(path.read_bytes()) == found).all()

    grey = colour[:, :, 0]
    found = decode(saved(Image.fromarray(grey), form, **options))
    assert found.shape == ((40, 30, 3) if form in ("GIF", "WEBP") else (40, 30))  # those have no grey
    assert np.abs(found.astype(int).reshape(40, 30, -1) - grey[:, :, None]).max() <= 10


@pytest.mark.parametrize("form", ["GIF", "TIFF", "WEBP", "PNG", "MPO"])
def test_of_several_images_the_first_is_taken(form: str) -> None:
    first, second = Image.new("RGB", (8, 6), (250, 0, 0)), Image.new("RGB", (8, 6), (0, 0, 250))
    found = decoded(saved(first, form, save_all=True, append_images=[second]))
    assert np.abs(found.pixels.astype(int) - (250, 0, 0)).max() < 10
    assert found.note == ("" if form == "MPO" else "first of several images")


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_turned_upright(form: str, orientation: int) -> None:
    upright = photograph()
    turned = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.transpose(1, 0, 2),
        6: np.rot90(upright), 7: upright[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(upright, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    by_form: dict[str, dict[str, Any]] = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True}}
    options = by_form.get(form, {})
    found = decode(saved(Image.fromarray(np.ascontiguousarray(turned)), form, exif=exif, **options))
    assert found.shape == upright.shape
    assert np.abs(found.astype(int) - upright).max() < 12


def test_a_damaged_orientation_is_not_followed() -> None:
    content = saved(Image.fromarray(photograph()), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff broken")
    assert decode(content).shape == (40, 30, 3)


def test_palettes_and_cmyk_become_colours() -> None:
    image = Image.fromarray(photograph())
    found = decode(saved(image.quantize(64), "PNG"))
    assert (found == np.asarray(image.quantize(64).convert("RGB"))).all()
    found = decode(saved(image.convert("CMYK"), "JPEG", quality=95))
    assert np.abs(found.astype(int) - photograph()).max() < 12


def test_transparent_parts_are_white() -> None:
    colours = np.dstack([photograph(), np.full((40, 30), 255, np.uint8)])
    colours[:20, :, 3] = 0
    colours[20, :] = (100, 0, 0, 51)  # a fifth of dark red, four fifths of white
    for form in ("PNG", "WEBP", "TIFF"):
        found = decode(saved(Image.fromarray(colours), form, **({"lossless": True} if form == "WEBP" else {})))
        assert (found[:20] == 255).all()
        assert np.abs(found[20, 0].astype(int) - (224, 204, 204)).max() <= 1
        assert (found[21:] == photograph()[21:]).all()
    grey = Image.fromarray(colours[:, :, [0, 3]])
    assert decode(saved(grey, "PNG")).shape == (40, 30)
    assert (decode(saved(grey, "PNG"))[:20] == 255).all()
    palette = Image.new("P", (4, 2), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    palette.putpixel((0, 0), 0)
    found = decode(saved(palette, "PNG", transparency=0))
    assert found[0, :2].tolist() == [[255] * 3, [10, 20, 30]]


def test_one_bit_becomes_black_and_white() -> None:
    pattern = np.indices((5, 9)).sum(0) % 2 > 0
    for form in ("PNG", "BMP", "TIFF"):
        assert (decode(saved(Image.fromarray(pattern), form)) == pattern * 255).all()


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_sixteen_bits_are_taken_by_the_range_that_they_use(form: str, bits: int) -> None:
    grey = np.linspace(0, 2**bits - 1, 35).reshape(5, 7).astype(np.uint16)
    found = decoded(saved(Image.fromarray(grey), form))
    assert (found.pixels == grey >> (bits - 8)).all()
    assert found.note == ("" if bits == 16 else f"taken as {bits} bits")


def tiff_of_16_bits(values: Array, order: str) -> bytes:
    """Values (H, W, 3), uncompressed, in the byte order < or >."""
    height, width, _ = values.shape
    tags = {256: width, 257: height, 258: 16, 259: 1, 262: 2, 273: 122, 277: 3, 278: height, 279: values.size * 2}
    entries = b"".join(
        struct.pack(f"{order}HHIHxx" if tag == 258 else f"{order}HHII", tag, 3 if tag == 258 else 4, 1, value)
        for tag, value in tags.items()
    )
    header = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(tags))
    return header + entries + bytes(4) + values.astype(f"{order}u2").tobytes()


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_sixteen_bits_a_colour(bits: int) -> None:
    colours = np.linspace(0, 2**bits - 1, 105).reshape(5, 7, 3).astype(np.uint16)
    with_alpha = np.concatenate([colours, np.full((5, 7, 1), 2**16 - 1, np.uint16)], axis=2)
    contents = [png_of_16_bits(colours), png_of_16_bits(with_alpha)]
    contents += [tiff_of_16_bits(colours, order) for order in "<>"]
    for content in contents:
        assert (decode(content) == colours >> (bits - 8)).all()


def test_dark_grey_of_16_bits_with_alpha_is_refused() -> None:
    with pytest.raises(ImageError, match="save it with 8 bits a colour"):
        decode(png_of_16_bits(np.full((5, 7, 2), 2**12, np.uint16)))


def test_what_no_image_holds_is_refused_with_the_reason(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "large.png").open("wb") as file:
        file.truncate(101 * 2**20)
    (tmp_path / "text.png").write_text("Not Found")
    (tmp_path / "empty.png").touch()
    expected = {
        "pipe": "is a device or a pipe, not an image file",
        "large.png": "more than 100 MiB", "empty.png": "is empty",
        "text.png": r"is no image in a known format \(JPEG, PNG", "absent.png": "there is no such file",
        ".": "is a folder, not an image file",
    }  # fmt: skip
    for name, reason in expected.items():
        with pytest.raises(ImageError, match=reason):
            decode(tmp_path / name)


def test_fractions_and_many_bits_are_refused() -> None:
    with pytest.raises(ImageError, match="fractions as pixels"):
        decode(saved(Image.fromarray(np.ones((3, 3), np.float32)), "TIFF"))
    with pytest.raises(ImageError, match="more than 16 bits"):
        decode(saved(Image.fromarray(np.full((3, 3), 70_000, np.int32)), "TIFF"))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_truncated_files_are_refused(form: str) -> None:
    content = saved(Image.fromarray(noise(40, 30)), form)
    for length in range(1, len(content) * 9 // 10, max(1, len(content) // 25)):
        with pytest.raises(DataError, match=r"is damaged|is no image"):
            decode(content[:length])


def test_a_bomb_is_refused_before_it_fills_the_memory() -> None:
    line = b"\0" * 1_250  # 10,000 pixels of one bit
    for height in (9_000, 30_000):
        content = saved(Image.frombytes("1", (10_000, height), line * height), "PNG")
        assert len(content) < 100_000
        with pytest.raises(ImageError, match="more than 89 megapixels"):
            decode(content)


# Frames


def exactly(pixels: Array, frame: Frame) -> Array:
    """The definition in fractions: (C, H, W), of pixels (H, W, C)."""
    sizes, frame_sizes = pixels.shape[:2], (frame.height, frame.width)
    scale = [Fraction(side, frame_side) for side, frame_side in zip(sizes, frame_sizes, strict=True)]
    if frame.fit != "stretch":
        scale = [min(scale) if frame.fit == "crop" else max(scale)] * 2
    now: Array = np.vectorize(Fraction)(pixels.astype(int).astype(object))
    for axis in (0, 1):
        now, reach, lines = np.moveaxis(now, axis, 0), max(scale[axis], Fraction(1)), []
        for i in range(frame_sizes[axis]):
            centre = (i + Fraction(1, 2) - Fraction(frame_sizes[axis], 2)) * scale[axis] + Fraction(sizes[axis], 2)
            places = [Fraction(2 * j + 1, 2) for j in range(sizes[axis])]
            parts = [max(Fraction(0), 1 - abs(place - centre) / reach) for place in places]
            total = sum(parts) if 0 <= centre <= sizes[axis] else Fraction(0)
            parts = [part / total if total else Fraction(0) for part in parts]
            lines.append(sum(part * line for part, line in zip(parts, now, strict=True) if part) + 0 * now[0])
        now = np.vectorize(round)(np.moveaxis(np.array(lines), 0, axis)).astype(object)
    found: Array = now.astype(int).transpose(2, 0, 1)
    return found


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("size", [(17, 31), (31, 17), (4, 5), (12, 9), (9, 12), (7, 40)])
def test_the_resize_is_its_definition(fit: Any, size: tuple[int, int]) -> None:
    pixels, frame = noise(*size), Frame(3, 12, 9, fit)
    found = framed(pixels, frame).astype(int)
    assert found.shape == (3, 12, 9)
    assert np.abs(found - exactly(pixels, frame)).max() <= 1  # the weights have 16 bits: a value of x.5 may differ
    assert (found == exactly(pixels, frame)).mean() > 0.9


@pytest.mark.parametrize("size", [(40, 30), (100, 131), (11, 8), (300, 20)])
def test_stretched_images_are_those_of_pillow(size: tuple[int, int]) -> None:
    pixels = noise(*size)
    expected = np.asarray(Image.fromarray(pixels).resize((24, 32), Image.Resampling.BILINEAR))
    found = framed(pixels, Frame(3, 32, 24, "stretch")).transpose(1, 2, 0)
    assert np.abs(found.astype(int) - expected).max() <= 2
    assert abs(found.mean() - expected.mean()) < 0.1


def test_an_image_of_the_frames_size_is_not_changed() -> None:
    pixels = noise(32, 32)
    for fit in ("crop", "pad", "stretch"):
        assert (framed(pixels, Frame(3, 32, 32, fit)) == pixels.transpose(2, 0, 1)).all()


def test_crop_shows_the_middle_and_pad_all_between_black_borders() -> None:
    pixels = np.full((20, 60, 3), 200, np.uint8)  # three squares: red, light, red
    pixels[:, :20] = pixels[:, 40:] = (250, 0, 0)
    for turned, axis in ((pixels, 2), (pixels.transpose(1, 0, 2), 1)):
        cropped = np.moveaxis(framed(turned, Frame(3, 20, 20, "crop")), axis, 0)
        assert (cropped == 200).all()
        padded = np.moveaxis(framed(turned, Frame(3, 30, 30, "pad")), axis, 2)
        assert (padded[:, :10] == 0).all()
        assert (padded[:, 20:] == 0).all()
        assert (padded[:, 10:20, 11:19] == 200).all()
        assert (padded[0, 10:20, [0, 29]] == 250).all()


def test_grey_and_colour() -> None:
    colour, grey = noise(6, 5), noise(6, 5)[:, :, 0]
    assert (framed(grey, Frame(3, 6, 5)) == grey).all()
    assert (framed(colour, Frame(1, 6, 5))[0] == np.asarray(Image.fromarray(colour).convert("L"))).all()
    assert framed(grey, Frame(1, 3, 4)).shape == (1, 3, 4)


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (2, 3)])
def test_odd_sizes(fit: Any, size: tuple[int, int]) -> None:
    white = np.full((*size, 3), 255, np.uint8)
    found = framed(white, Frame(3, 9, 16, fit))
    assert found.shape == (3, 9, 16)
    assert set(np.unique(found)) <= ({0, 255} if fit == "pad" else {255})
    assert (found[:, 4, 7] == 255).all()
