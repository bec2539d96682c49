"""Reading image files: files a second the first time, and the seconds of the second start.

It draws 60,000 JPEG files of 32×32 and 3,000 of 500×375 in ten class folders, and loads them twice, each time in
a new process and with PyTorch imported before, as it is in a search: first all files are decoded into an empty
cache, then they come from it. ``--folder`` reads a folder of yours instead, ``--dataset`` a data set by its name::

    python experiments/benchmarks/reading.py [--folder FOLDER | --dataset NAME]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

KINDS = ((60_000, 32, 32), (3_000, 500, 375))  # files, width, height
DETAIL = 8  # pixels of a patch of one colour, which is blurred
NOISE = 12  # of 255: about 1 kB and 40 kB a file, as photographs have
LOAD = """
import sys, time
import torch
from nas.data import open_source
start = time.perf_counter()
data = open_source(sys.argv[1]).load()
print(time.perf_counter() - start)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--dataset")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        if options.folder or options.dataset:
            measure(str((options.folder and options.folder.absolute()) or options.dataset), Path(temporary))
            return
        for count, width, height in KINDS:
            folder = Path(temporary, f"{width}x{height}")
            draw(folder, count, width, height)
            measure(str(folder), Path(temporary))


def draw(folder: Path, count: int, width: int, height: int) -> None:
    """Write JPEG files of blurred patches and noise, all of them different."""
    random = np.random.default_rng(0)
    noise = random.integers(-NOISE, NOISE, (2 * height, 2 * width, 3), np.int16)
    for number in range(count):
        place = folder / f"class-{number % 10}"
        if number < 10:
            place.mkdir(parents=True)
        patches = random.integers(0, 256, (-(-height // DETAIL), -(-width // DETAIL), 3), np.uint8)
        down, right = random.integers(height), random.integers(width)
        pixels = np.asarray(Image.fromarray(patches).resize((width, height))).astype(np.int16)
        pixels += noise[down : down + height, right : right + width]
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(place / f"{number}.jpg")


def measure(name: str, temporary: Path) -> None:
    """Load a data set twice, in new processes with a new cache."""
    environment = os.environ | {"XDG_CACHE_HOME": str(temporary / "cache")}
    command = [sys.executable, "-c", LOAD, name]
    for start in ("first", "second"):
        run = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        seconds = float(run.stdout)
        print(f"{name}: {start} start {seconds:.2f} s", end="\n" if start == "second" else ", ", flush=True)


if __name__ == "__main__":
    main()
