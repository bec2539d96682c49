"""Training from files that are larger than the memory that the process may use: images a second.

The images are random, colour, 96×96; the network needs 5 million operations. Each training runs in a control
group of its own with that much memory (version 1 or 2; this needs root), after the files have left the system's
cache. One data set fits in it; the other one is four times as large as all of it, and is trained on without and
with asking the system for the images of the next steps::

    python experiments/benchmarks/larger_than_memory.py [--memory MiB] [--images COUNT] [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

SHAPE = 3, 96, 96
GROUPS = Path("/sys/fs/cgroup")
NAME = "nas-larger-than-memory"
BLOCK = 1_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory", type=int, default=1024, help="MiB that the process may use")
    parser.add_argument("--images", type=int, default=12_000, help="to train on, in each training")
    parser.add_argument("--folder", type=Path, help="for the data, on the disk that is measured")
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--inside", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        trained(Path(options.inside[0]), options.images, options.seed, asks=options.inside[1] == "asks")
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        each = int(np.prod(SHAPE))
        sizes = {"fits": options.memory * 2**20 // 5 // each, "four times": 4 * options.memory * 2**20 // each}
        for name, count in sizes.items():
            write(Path(folder, name), count)
        plan = [("fits", "asks"), ("four times", "asks")] * 3 + [("four times", "waits")]
        for seed, (name, how) in enumerate(plan):
            drop(Path(folder, name))
            group = control_group(options.memory * 2**20)
            count = options.images // 4 if how == "waits" else options.images
            command = [sys.executable, __file__, "--images", str(count), "--seed", str(seed)]
            command += ["--inside", f"{folder}/{name}", how]
            enter = f'echo $$ > "{group}/cgroup.procs" && exec "$@"'
            print(f"{name} ({sizes[name]:,} images), {how}:", end=" ", flush=True)
            subprocess.run(["/bin/sh", "-c", enter, "sh", *command], check=False)
            group.rmdir()


def write(folder: Path, count: int) -> None:
    """The files of a data set, as they are in the cache of decoded images."""
    from nas.data.dataset import Dataset, Split, load_split

    folder.mkdir()
    random, blocks = np.random.default_rng(0), count // BLOCK
    path = folder / "train_inputs.npy"
    out = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(blocks * BLOCK, *SHAPE))
    for start in range(0, len(out), BLOCK):
        out[start : start + BLOCK] = random.integers(0, 256, (BLOCK, *SHAPE), np.uint8)
    out.flush()
    del out
    np.save(folder / "train_labels.npy", np.arange(blocks * BLOCK) % 10)
    np.save(folder / "validation_inputs.npy", random.integers(0, 256, (100, *SHAPE), np.uint8))
    np.save(folder / "validation_labels.npy", np.arange(100) % 10)
    validation = load_split(folder, "validation")
    train = Split(validation.images, validation.labels)
    Dataset.of("noise", train, validation, [str(name) for name in range(10)]).describe(folder)


def drop(folder: Path) -> None:
    """Take the files out of the system's cache, where they count for the process that has written them."""
    for path in folder.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def control_group(size: int) -> Path:
    """A new control group whose processes may use so many bytes, the cached pages of their files included."""
    is_first = (GROUPS / "memory").is_dir()
    group = (GROUPS / "memory" if is_first else GROUPS) / NAME
    group.mkdir()
    (group / ("memory.limit_in_bytes" if is_first else "memory.max")).write_text(str(size))
    return group


def trained(folder: Path, images: int, seed: int, *, asks: bool) -> None:
    """Train on some images, after as many for warming up as fit, and print the images a second."""
    import torch

    from nas.architecture.architecture import Architecture
    from nas.architecture.layers import Conv2d, GlobalAveragePool, MaxPool
    from nas.data.dataset import Dataset
    from nas.spaces.space import Candidate
    from nas.training import batches
    from nas.training.recipe import recipe_of
    from nas.training.trainer import train
    from nas.trial import Job

    torch.set_num_threads(1)
    if not asks:
        batches.LARGE = 2**60
    data = Dataset.load(folder)
    first, second = Conv2d(8, 3, activation="relu"), Conv2d(16, 3, activation="relu")
    candidate = Candidate(Architecture((first, MaxPool(2), second, MaxPool(2), GlobalAveragePool())))
    for count in (images // 3, images):
        trial, _ = train(
            Job(candidate, count / len(data.train), 2 * seed + (count < images)), data, recipe_of("default")
        )
    status = Path("/proc/self/status").read_text().splitlines()
    own = next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) / 2**10
    speed = f"{trial.metrics['images_per_second']:,.0f} images a second" if not trial.failure else trial.failure
    print(f"{speed}; the process has {own:.0f} MiB of its own")


if __name__ == "__main__":
    main()
