"""How `nas predict` does on images that are not MNIST's own: enlarged, inverted, cropped, photographed.

    nas train all-cnn --dataset mnist --epochs 1 --out runs/allcnn
    python experiments/benchmarks/predict.py runs/allcnn --data-dir DIR

Images are made of 1,000 of the test images (photographs are simulated), classified by the real command; then
one, and all 10,000, of the test images as they are.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nas.data import open_source

Pixels = np.ndarray[Any, np.dtype[Any]]


def enlarged(image: Pixels, times: int = 10) -> Pixels:
    """The image with so many times as many pixels a side, smooth."""
    return np.asarray(Image.fromarray(image).resize((28 * times, 28 * times), Image.Resampling.BICUBIC))


def cropped(image: Pixels, margin: float) -> Pixels:
    """Dark on light, cut to the ink, with a margin that is a share of the longer side."""
    large = enlarged(image)
    rows, columns = np.flatnonzero((large > 60).any(1)), np.flatnonzero((large > 60).any(0))
    ink = 255 - large[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return np.pad(ink, int(margin * max(ink.shape)), constant_values=255)


def photo(
    image: Pixels, rng: np.random.Generator, *, noise: float = 8.0, shade: float = 60.0, dark: bool = True
) -> Pixels:
    """Somewhere on a larger sheet, or board, in light that falls off to one side, with noise in grey levels."""
    digit = enlarged(image).astype(float) / 255
    height, width = (int(280 * rng.uniform(1.1, 2.0)) for _ in range(2))
    sheet = np.zeros((height, width))
    top, left = rng.integers(0, height - 279), rng.integers(0, width - 279)
    sheet[top : top + 280, left : left + 280] = digit
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    angle = rng.uniform(0, 2 * np.pi)
    light = 230 - shade * (0.5 + 0.35 * (np.cos(angle) * x + np.sin(angle) * y) + 0.15 * (x**2 + y**2))
    ink = rng.uniform(30, 80)
    made = light * (1 - sheet) + ink * sheet if dark else 20 + (255 - light) * 0.3 * (1 - sheet) + 225 * sheet
    made += rng.normal(0, noise, made.shape)
    return np.asarray(made.clip(0, 255), np.uint8)


def main(search: Path, data_dir: Path) -> None:
    """Print a table."""
    test = open_source("mnist", data_dir).load_test()
    images, labels = test.images[:, 0].numpy(), test.labels.numpy()
    rng = np.random.default_rng(0)
    chosen = rng.permutation(len(images))[:1000]
    makers: dict[str, Callable[[Pixels], Pixels]] = {
        "as they are": lambda image: image,
        "ten times as large, dark on light": lambda image: 255 - enlarged(image),
        "the same, cropped, a margin of 5 %": lambda image: cropped(image, 0.05),
        "the same, without any margin": lambda image: cropped(image, 0.0),
        "a photo": lambda image: photo(image, rng),
        "a bad photo": lambda image: photo(image, rng, noise=20, shade=120),
        "a blackboard": lambda image: photo(image, rng, dark=False),
    }
    for name, make in makers.items():
        classified(search, name, [make(images[i]) for i in chosen], labels[chosen])
    classified(search, "one test image", list(images[:1]), labels[:1])
    classified(search, "all test images as they are", list(images), labels)


def classified(search: Path, name: str, images: list[Pixels], labels: Pixels) -> None:
    """One line: what the command makes of images, and how long it takes, its start included."""
    with tempfile.TemporaryDirectory() as folder:
        for number, image in enumerate(images):
            Image.fromarray(image).save(Path(folder, f"{number:05}.png"))
        command = [
            sys.executable,
            "-m",
            "nas",
            "predict",
            "--search",
            str(search),
        ]
        began = time.perf_counter()
        done = subprocess.run([*command, folder, "--json"], capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - began
    found = {int(Path(one["image"]).stem): one["class"] for one in json.loads(done.stdout)["images"]}
    right = sum(found.get(number) == str(label) for number, label in enumerate(labels))
    print(f"{name:36} {100 * right / len(labels):6.2f} %  {len(images):6,} in {seconds:5.1f} s", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("search", type=Path)
    parser.add_argument("--data-dir", type=Path, required=True)
    given = parser.parse_args()
    main(given.search, given.data_dir)
