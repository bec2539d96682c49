"""`nas predict`: image files from anywhere, whatever they are, through the network of a search."""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from command import NAS, inline
from PIL import ExifTags, Image
from safetensors.torch import save_file

from nas.architecture.architecture import Architecture
from nas.architecture.layers import Dense, Flatten, GlobalAveragePool
from nas.data import open_source
from nas.data.dataset import Array, Dataset
from nas.data.decoder import MAX_BYTES
from nas.errors import ImageError, NasError
from nas.training.network import Network
from nas.winner.best import load_network, read_best, write_best
from nas.winner.images import DARK, LIGHT, read_picture

SHAPE = (1, 28, 28)
COUNT = 100


@pytest.fixture(scope="module")
def digits() -> tuple[Array, Array]:
    """(N, 28, 28) uint8 and their classes: validation images of mnist-5k."""
    split = open_source("mnist-5k").load().validation
    step = len(split) // COUNT
    return split.images.numpy()[::step, 0][:COUNT], split.labels.numpy()[::step][:COUNT]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, digits: tuple[Array, Array]) -> Path:
    """A folder in which a network was trained, with a folder of digits."""
    folder = tmp_path_factory.mktemp("predict")
    words = ["lenet5", "--dataset", "mnist-5k", "--epochs", "6", "--mlflow", "off"]
    inline("train", *words, "--out", str(folder / "runs/trained"))
    (folder / "digits").mkdir()
    for number, (pixels, label) in enumerate(zip(*digits, strict=True)):
        Image.fromarray(pixels).save(folder / "digits" / f"{number:03}-{label}.png")
    return folder


@pytest.fixture(autouse=True)
def _here(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


def run(*words: str, code: int = 0, given: bytes | None = None) -> Result:
    return inline("predict", *words, code=code, given=given)


def answers(result: Result) -> dict[str, Any]:
    return json.loads(result.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def accuracy(result: Result) -> float:
    """Of images that have their class before the dot of their names."""
    found = answers(result)["images"]
    return float(np.mean([one["class"] == Path(one["image"]).stem[-1] for one in found]))


def enlarged(pixels: Array, rng: np.random.Generator, *, dark: bool = True) -> Array:
    """A photo of the digit: larger, off-centre, with noise, on paper that is lit unevenly."""
    big = np.asarray(Image.fromarray(pixels).resize((196, 196), Image.Resampling.BICUBIC)) / 255
    canvas = np.zeros((320, 280))
    top, left = rng.integers(0, 124), rng.integers(0, 84)
    canvas[top : top + 196, left : left + 196] = big
    paper = 200 + 40 * np.linspace(-1, 1, 280)[None, :] - 20 * np.linspace(-1, 1, 320)[:, None]
    image = paper * (1 - canvas) + 50 * canvas if dark else 40 + 0.7 * paper * canvas
    return (image + rng.normal(0, 8, image.shape)).clip(0, 255).astype(np.uint8)


# Digits


def test_images_as_in_the_data_set_have_the_accuracy_of_the_network(
    place: Path, digits: tuple[Array, Array]
) -> None:
    import torch

    [line] = run("trained", "digits", "--json").stdout.splitlines()
    found = json.loads(line)
    assert found["refused"] == []
    with torch.inference_mode():
        logits = load_network(place / "runs/trained/best")(torch.from_numpy(digits[0])[:, None])
    classes = logits.argmax(1).tolist()
    assert [int(one["class"]) for one in found["images"]] == classes
    assert np.mean(np.array(classes) == digits[1]) > 0.9
    assert {(one["polarity"], one["inverted"]) for one in found["images"]} == {(LIGHT, False)}
    for one in found["images"]:
        assert sum(one["probabilities"].values()) == pytest.approx(1)
        assert max(one["probabilities"].values()) == one["probability"] == one["probabilities"][one["class"]]


@pytest.mark.parametrize("dark", [True, False])
def test_photos_of_digits_keep_their_classes(tmp_path: Path, digits: tuple[Array, Array], dark: bool) -> None:
    rng = np.random.default_rng(0)
    for number, (pixels, label) in enumerate(zip(*digits, strict=True)):
        Image.fromarray(enlarged(pixels, rng, dark=dark)).save(tmp_path / f"{number:03}-{label}.jpg", quality=85)
    result = run(str(tmp_path), "--json")
    found = answers(result)["images"]
    assert {(one["polarity"], one["inverted"]) for one in found} == {(DARK, True) if dark else (LIGHT, False)}
    assert {tuple(one["size"]) for one in found} == {(280, 320)}
    assert accuracy(result) > accuracy(run("digits", "--json")) - 0.05


def test_the_trained_size_is_taken_bit_for_bit_and_inverted_where_it_is_dark_on_light(
    tmp_path: Path, digits: tuple[Array, Array]
) -> None:
    for pixels in digits[0]:
        for name, content, polarity in (("l.png", pixels, LIGHT), ("d.png", 255 - pixels, DARK)):
            Image.fromarray(content).save(tmp_path / name)
            picture = read_picture(str(tmp_path / name), SHAPE, "centred")
            assert np.array_equal(picture.pixels[0], pixels)
            assert picture.polarity == polarity


def test_a_drawing_is_scaled_and_centred_as_mnist_was(tmp_path: Path) -> None:
    drawing = np.full((400, 300), 255, np.uint8)
    drawing[40:240, 30:70] = 0  # 200 high, 40 wide
    Image.fromarray(drawing).save(tmp_path / "bar.png")
    pixels = read_picture(str(tmp_path / "bar.png"), SHAPE, "centred").pixels[0]
    rows, columns = np.flatnonzero(pixels.max(1) > 127), np.flatnonzero(pixels.max(0) > 127)
    assert abs(len(rows) - 20) <= 1
    assert abs(len(columns) - 4) <= 1
    assert abs(rows.mean() - 14) <= 1
    assert abs(columns.mean() - 14) <= 1


SAVED: dict[str, Callable[[Image.Image], tuple[Image.Image, str, dict[str, Any]]]] = {
    "palette": lambda one: (one.convert("RGB").quantize(16), "png", {}),
    "rgb": lambda one: (one.convert("RGB"), "png", {}),
    "cmyk": lambda one: (one.convert("CMYK"), "jpg", {}),
    "black and white": lambda one: (one.convert("1", dither=Image.Dither.NONE), "png", {}),
    "16 bits": lambda one: (Image.fromarray(np.asarray(one).astype(np.uint16) * 257), "png", {}),
    "12 of 16 bits": lambda one: (Image.fromarray(np.asarray(one).astype(np.uint16) * 16 + 8), "png", {}),
    "webp": lambda one: (one.convert("RGB"), "webp", {"lossless": True}),
    "bmp": lambda one: (one, "bmp", {}),
    "tiff of 10 bits": lambda one: (Image.fromarray(np.asarray(one).astype(np.uint16) * 4 + 3), "tif", {}),
    "gif of two": lambda one: (one, "gif", {"save_all": True, "append_images": [one.rotate(90)]}),
    "transparent": lambda one: (_transparent(one), "png", {}),
    "turned": lambda one: (one.transpose(Image.Transpose.ROTATE_90), "jpg", {"exif": _turned()}),
}


def _transparent(image: Image.Image) -> Image.Image:
    """Black ink; what is not ink is not there."""
    ink = Image.new("RGBA", image.size, "black")
    ink.putalpha(Image.fromarray(255 - np.asarray(image)))
    return ink


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # turn it by 90° clockwise
    return exif


@pytest.mark.parametrize("kind", SAVED)
def test_every_kind_of_image_is_read(tmp_path: Path, digits: tuple[Array, Array], kind: str) -> None:
    big = Image.fromarray(255 - digits[0][2]).resize((280, 280))
    image, ending, how = SAVED[kind](big)
    image.save(tmp_path / f"one.{ending}", **how)
    big.save(tmp_path / "plain.png")
    picture = read_picture(str(tmp_path / f"one.{ending}"), SHAPE, "centred")
    known = read_picture(str(tmp_path / "plain.png"), SHAPE, "centred")
    assert (picture.polarity, picture.size) == (DARK, (280, 280))
    assert np.abs(picture.pixels.astype(float) - known.pixels).mean() < 6
    notes = {"12 of 16 bits": "taken as 12 bits", "tiff of 10 bits": "taken as 10 bits"}
    assert picture.note == {**notes, "gif of two": "first of several images"}.get(kind, "")


def test_nothing_in_a_folder_is_left_out_without_a_line(tmp_path: Path, digits: tuple[Array, Array]) -> None:
    for name in ("b.png", "a/c.TIF", "a/d/e.png", ".hidden.png", ".thumbnails/f.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(digits[0][0].astype(np.uint16) * 16).save(tmp_path / name)
    (tmp_path / "a/notes.txt").write_text("")
    (tmp_path / "a/again").symlink_to(tmp_path)
    result = run(str(tmp_path))
    shown = [line.split()[0][-6:] for line in result.stdout.splitlines()]
    assert shown == ["/b.png", "/c.TIF", "/e.png"]
    assert "4 other files are left out: hidden, or no image by the name" in result.stderr
    assert result.stderr.count(": taken as 12 bits\n") == 3


# Networks for other images


def test_images_of_other_data_sets_are_resized_in_their_colours(tmp_path: Path) -> None:
    colours = np.zeros((50, 90, 3), np.uint8)
    colours[..., 0], colours[..., 2] = 200, 40
    Image.fromarray(colours).save(tmp_path / "red.png")
    picture = read_picture(str(tmp_path / "red.png"), (3, 8, 6), "stretch")
    assert picture.pixels.shape == (3, 8, 6)
    assert picture.pixels[:, 4, 3].tolist() == [200, 0, 40]
    assert (picture.polarity, picture.inverted) == ("", False)
    assert read_picture(str(tmp_path / "red.png"), (1, 8, 6), "stretch").pixels.shape == (1, 8, 6)


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    """A folder with a search whose winner knows the mean colours of 16×16 images."""
    import torch

    net = Architecture((GlobalAveragePool(),))
    network = Network(net, (3, 16, 16), 3, mean=[0] * 3, std=[255.0] * 3)
    with torch.no_grad():
        [*_, last] = network.layers.values()
        assert isinstance(last, torch.nn.Linear)
        last.weight[:], last.bias[:] = 10 * torch.eye(3), 0
    best = tmp_path / "search/best"
    best.mkdir(parents=True)
    save_file(network.state_dict(), best / "weights.safetensors")
    about = {"input_shape": [3, 16, 16], "classes": ["red", "green/dark", "blue"], "framing": "crop"}
    (best / "architecture.json").write_text(json.dumps({**net.to_dict(), **about}))
    (tmp_path / "search/journal.jsonl").write_bytes(Path("runs/trained/journal.jsonl").read_bytes())
    return tmp_path


def test_images_in_class_folders_are_counted(colours: Path) -> None:
    shown = {"test/red/1.png": "red", "test/red/2.png": "blue", "test/green/dark/3.png": "green", "4.png": "red"}
    for name, colour in shown.items():
        (colours / "shown" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (90, 40), colour).save(colours / "shown" / name)
    (colours / "shown/test/red/5.png").write_text("Not Found")
    words = ["--search", str(colours / "search"), str(colours / "shown")]
    result = run(*words, code=1)
    *lines, last = result.stdout.splitlines()
    assert [line.split()[-1] for line in lines] == ["resized", "right", "right", "wrong"]
    assert last == "2 of 3 images (66.67 %) have the class that their folder names; 1 other"
    assert max(map(len, [*lines, last])) <= 80
    found = answers(run(*words, "--json", code=1))
    assert (found["right"], found["labelled"]) == (2, 3)
    labels = {Path(one["image"]).name: (one["label"], one["class"]) for one in found["images"]}
    assert labels == {
        "1.png": ("red", "red"), "2.png": ("red", "blue"), "3.png": ("green/dark", "green/dark"),
        "4.png": (None, "red"),
    }  # fmt: skip
    assert " of " not in run(*words[:2], str(colours / "shown/test/red/1.png")).stdout


def test_predict_crops_or_pads_as_the_data_set_says(colours: Path) -> None:
    image = np.zeros((20, 60, 3), np.uint8)
    image[:, 20:40, 2] = image[:, :20, 0] = image[:, 40:, 0] = 255  # blue between twice as much red
    Image.fromarray(image).save(colours / "wide.png")
    about = json.loads((colours / "search/best/architecture.json").read_text())
    for framing, colour in (("crop", "blue"), ("pad", "red"), ("stretch", "red"), ("whole", "red")):
        (colours / "search/best/architecture.json").write_text(json.dumps({**about, "framing": framing}))
        [one] = answers(run(str(colours / "search"), str(colours / "wide.png"), "--json"))["images"]
        assert one["class"] == colour
    padded = read_picture(str(colours / "wide.png"), (3, 16, 16), "pad").pixels
    assert (padded[:, :5] == 0).all()
    assert padded[2, 7:9, 8].tolist() == [255, 255]


def test_a_name_that_no_file_can_have_is_refused() -> None:
    with pytest.raises(ImageError, match="there is no such file"):
        read_picture("a\0b.png", SHAPE, "crop")


def test_the_framing_is_handed_over_and_checked(tmp_path: Path, place: Path, blobs: Dataset) -> None:
    assert read_best(place / "runs/trained/best")[0].framing == "centred"
    net = Architecture((Flatten(), Dense(4, "relu")))
    save_file(Network(net, (1, 8, 8), 3).state_dict(), tmp_path / "w")
    write_best(tmp_path / "best", net, tmp_path / "w", blobs)
    assert read_best(tmp_path / "best")[0].framing == "stretch"
    path = tmp_path / "best/architecture.json"
    about = json.loads(path.read_text())
    for wrong in ("\x1b[31mround", 3, ["whole"], None):
        path.write_text(json.dumps({**about, "framing": wrong}))
        with pytest.raises(
            NasError, match=r"framing is .* should be one of stretch, crop, pad, centred"
        ) as caught:
            read_best(tmp_path / "best")
        assert "\x1b" not in str(caught.value)


# Files that are refused


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int) -> bytes:
    """The header of an image, and nothing else."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(b"\0" * 99))


def _saved(kind: str, **how: Any) -> bytes:
    rng = np.random.default_rng(0)
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 255, (64, 64), dtype=np.uint8)).save(file, kind, **how)
    return file.getvalue()


def _fractions() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.ones((64, 64), np.float32)).save(file, "TIFF")
    return file.getvalue()


HOSTILE = {
    "empty": (b"", "is empty"),
    "text": (b"hello", "is no image in a known format"),
    "a portable grey map": (_saved("PPM"), "is no image in a known format (JPEG, PNG, WEBP, BMP, TIFF, GIF"),
    "fractions.tif": (_fractions(), "has fractions as pixels: save it with 8 or 16 bits a pixel"),
    "cut.gif": (_saved("GIF")[:1500], "is damaged ("),
    "cut.tif": (_saved("TIFF")[:1500], "is damaged ("),
    "cut.png": (_saved("PNG")[:1500], "is damaged ("),
    "cut.jpg": (_saved("JPEG")[:1500], "is damaged ("),
    "header alone": (_png(100, 100), "is damaged ("),
    "bomb": (_png(20_000, 5_000), "has more than 89 megapixels: make it smaller"),
    "larger bomb": (_png(60_000, 60_000), "has more than 89 megapixels: make it smaller"),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("content", "words"), HOSTILE.values(), ids=HOSTILE)
def test_a_file_that_is_no_sound_image_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ImageError) as caught:
        read_picture(str(tmp_path / "x"), SHAPE, "centred")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_of_too_many_bytes_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "x").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(ImageError, match="has more than 100 MiB"):
        read_picture(str(tmp_path / "x"), SHAPE, "centred")


def test_a_blank_page_is_refused(tmp_path: Path) -> None:
    for size in (28, 300):
        Image.new("L", (size, size), 200).save(tmp_path / "x.png")
        with pytest.raises(ImageError, match="shows no drawing"):
            read_picture(str(tmp_path / "x.png"), SHAPE, "centred")


@pytest.mark.skipif(os.name != "posix", reason="devices and pipes are files on POSIX")
def test_each_refusal_is_one_line_and_the_others_are_classified(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "none").mkdir()
    (tmp_path / "bad\x1b[31m\n.png").write_bytes(b"x")
    wrong = [
        "/dev/zero", str(tmp_path / "pipe.png"), str(tmp_path / "none"), str(tmp_path / "bad\x1b[31m\n.png"),
        "missing.png", os.fsdecode(b"./\xff.png"),
    ]  # fmt: skip
    done = subprocess.run(
        [*NAS, "predict", wrong[0], "digits/000-0.png", *wrong[1:], "--json"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if line.startswith("nas: ")]
    assert len(lines) == len(wrong)
    assert "\x1b" not in done.stderr
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr
    found = json.loads(done.stdout)
    assert [one["image"] for one in found["images"]] == ["digits/000-0.png"]
    reasons = {Path(one["image"]).name: one["reason"] for one in found["refused"]}
    assert "a device or a pipe" in reasons["zero"]
    assert "a device or a pipe" in reasons["pipe.png"]
    assert "a folder without images" in reasons["none"]
    assert reasons["missing.png"] == "there is no such file"


# The command


def test_what_people_see_fits_eighty_columns_and_is_aligned(tmp_path: Path, digits: tuple[Array, Array]) -> None:
    rng = np.random.default_rng(0)
    faint = enlarged(digits[0][0], rng)
    Image.fromarray(faint).save(tmp_path / f"{'a long name ' * 9}.png")
    Image.fromarray(rng.integers(0, 255, (300, 300), dtype=np.uint8)).save(tmp_path / "noise.png")
    (tmp_path / "notes.txt").write_text("")
    result = run(str(tmp_path), "digits", code=1)
    lines = result.stdout.splitlines()
    assert len(lines) == COUNT + 1
    assert max(map(len, lines)) <= 80
    assert len({line.index(" %") for line in lines}) == 1
    assert any(line.endswith("dark on light: inverted") for line in lines)
    for line in lines:
        percent = float(line.split(" %")[0].split()[-1])
        assert percent == 90 or ("or " in line) == (percent < 90)  # 90.00 may be rounded
    assert "noise.png: shows no drawing" in result.stderr
    assert "1 other file is left out" in result.stderr


def test_an_image_comes_from_standard_input() -> None:
    result = run("-", "--json", given=Path("digits/000-0.png").read_bytes())
    assert [one["image"] for one in answers(result)["images"]] == ["-"]
    assert "is empty" in run("-", given=b"", code=1).stderr


def test_the_first_word_may_be_a_search(tmp_path: Path) -> None:
    one = "digits/000-0.png"
    same = [run(*words).stdout for words in ([one], ["trained", one], ["runs/trained", one])]
    assert same[0] == same[1] == same[2] == run(one, "--search", "trained").stdout != ""
    assert "no file was given" in run(code=2).stderr
    assert "no file was given" in run("trained", code=2).stderr
    assert "there is no search 'traned'; did you mean 'trained'?" in run("traned", one, code=2).stderr
    assert "there is no search 'traned'" in run("--search", "traned", one, code=2).stderr


def test_a_word_that_may_be_either_is_an_error(place: Path) -> None:
    (place / "trained").mkdir()
    try:
        assert "write --search trained for the search, or ./trained for" in run("trained", "digits", code=2).stderr
        assert "a folder without images" in run("./trained", "digits/000-0.png", code=1).stderr
    finally:
        (place / "trained").rmdir()


def test_a_search_without_a_sound_winner_is_one_line(tmp_path: Path, place: Path) -> None:
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / "journal.jsonl").write_bytes((place / "runs/trained/journal.jsonl").read_bytes())
    one = str(place / "digits/000-0.png")
    assert "begun has no winner" in run(str(begun), one, code=1).stderr
    (begun / "best").mkdir()
    (begun / "best/architecture.json").write_text("{")
    assert "does not hold a trained network" in run(str(begun), one, code=1).stderr
