"""What a second core is worth for one training: images a second, on an idle machine and beside a busy process.

    python experiments/benchmarks/idle_cores.py [REPEATS]

Parts of a batch at the same time (`nas.training.cores`) beside PyTorch's own threads, for a network for 32×32
colour images that are made up. Every way is a process of its own, and they take turns. Two cores are needed.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from nas.architecture.architecture import Architecture
from nas.architecture.layers import Conv2d, Dense, GlobalAveragePool, MaxPool, ResidualBlock
from nas.data.dataset import Dataset, Split
from nas.data.plugin import PHOTOGRAPHS
from nas.evaluation.local.spawn import ALLOCATOR
from nas.spaces.space import Candidate
from nas.trial import Job

NETWORK = Architecture(
    (
        Conv2d(16, 3, padding="same", batch_norm=True),
        MaxPool(2),
        ResidualBlock(32),
        MaxPool(2),
        ResidualBlock(64),
        GlobalAveragePool(),
        Dense(10),
    )
)
IMAGES = 6_400
WAYS: dict[str, dict[str, int]] = {
    "one part, one core": {},
    "two parts, one core": {"parts": 2},
    "two parts, two cores": {"parts": 2, "cores": 2},
    "one part, two threads of PyTorch": {"threads": 2},
}


def measure(way: dict[str, int]) -> float:
    """Images a second of one way, in float32, after a short training to warm up."""
    import torch

    from nas.training.batches import Resident
    from nas.training.cores import Cores
    from nas.training.recipe import recipe_of
    from nas.training.trainer import train_resident

    torch.set_num_threads(way.get("threads", 1))
    numbers = np.random.default_rng(0)

    def split(count: int) -> Split:
        images = numbers.integers(0, 256, (count, 3, 32, 32), np.uint8)
        return Split.of(images, np.arange(count) % 10)

    data = Resident(Dataset.of("noise", split(IMAGES), split(10), [str(number) for number in range(10)]), "cpu")
    recipe = replace(recipe_of(PHOTOGRAPHS), parts=way.get("parts", 1))
    job = Job(Candidate(NETWORK), 0.2, seed=0)
    train_resident(job, data, recipe, Cores(lambda: way.get("cores", 1)))
    trial, _ = train_resident(replace(job, epochs=1.0), data, recipe, Cores(lambda: way.get("cores", 1)))
    return IMAGES / trial.seconds


def in_a_process(way: dict[str, int]) -> float:
    """The same in a process of its own, with the allocator of a worker."""
    tunables = ":".join(f"glibc.malloc.{option}" for option in ALLOCATOR)
    words = [sys.executable, __file__, "one", json.dumps(way)]
    environment = {**os.environ, "GLIBC_TUNABLES": tunables}
    return float(subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout)


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """So many processes that compute meanwhile."""
    others: list[Any] = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def main() -> None:
    if sys.argv[1:2] == ["one"]:
        print(measure(json.loads(sys.argv[2])))
        return
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    print("| way | other processes | images a second, median | lowest | highest |\n|---|---|---|---|---|")
    found: dict[tuple[str, int], list[float]] = {(name, others): [] for others in (0, 1) for name in WAYS}
    for _ in range(repeats):
        for (name, others), speeds in found.items():
            with busy(others):
                speeds.append(in_a_process(WAYS[name]))
    for (name, others), speeds in found.items():
        numbers = (statistics.median(speeds), min(speeds), max(speeds))
        print("|", " | ".join([name, str(others), *(f"{number:,.0f}" for number in numbers)]), "|")


if __name__ == "__main__":
    main()
