"""What the ways to train on a CPU are worth: images a second in one thread, each way beside the others in one run.

    python experiments/benchmarks/training.py [REPEATS]

For the lecture's network (with its recipe) and one of the ``cnn`` space; every way is a process of its own, and
they take turns. The full MNIST has to be there (NAS_DATA_DIR); 8,960 images are trained on.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from typing import Any

from nas.architecture.architecture import Architecture
from nas.architecture.known import LECTURE
from nas.architecture.layers import Conv2d, Dense, Dropout, Flatten, MaxPool, ResidualBlock, SeparableConv2d
from nas.evaluation.local.spawn import ALLOCATOR

SMALL = Architecture(
    (
        Conv2d(12, 3, padding="same", activation="silu", batch_norm=True),
        MaxPool(2),
        ResidualBlock(24, 3, activation="silu"),
        MaxPool(2),
        SeparableConv2d(32, 3, padding="same", activation="silu", batch_norm=True),
        Flatten(),
        Dense(32, "silu"),
        Dropout(0.25),
    )
)
NETWORKS = {"the lecture's network": (LECTURE, "lecture"), "a network of the cnn space": (SMALL, "default")}
IMAGES = 8_960
WAYS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "batches of 64": {"batch": 64},
    "batches of 256": {"batch": 256},
    "glibc as it comes": {"allocator": False},
    "batches of 256, glibc as it comes": {"batch": 256, "allocator": False},
    "PyTorch's own masks": {"masks": False},
    "bfloat16": {"precision": "bfloat16"},
    "two threads": {"threads": 2},
}


def measure(network: str, batch: int, way: dict[str, Any]) -> float:
    """Images a second of one way, after a short training to warm up."""
    import torch

    from nas.data import open_source
    from nas.spaces.space import Candidate
    from nas.training.batches import Resident, draw_epochs
    from nas.training.recipe import RECIPES
    from nas.training.stepper import Stepper
    from nas.training.trainer import initial_network
    from nas.trial import Job

    torch.set_num_threads(way.get("threads", 1))
    architecture, name = NETWORKS[network]
    recipe = replace(RECIPES[name], batch_size=batch, precision=way.get("precision", "float32"))
    data = Resident(open_source("mnist", None, {}, []).load(), "cpu")
    job = Job(Candidate(architecture), IMAGES / len(data.labels), seed=0)
    built = initial_network(job, data.dataset)
    stepper = Stepper(built, data, recipe)
    if not way.get("masks", True):
        built.dropouts = []
    epochs = draw_epochs(job.seed, job.epochs, len(data.labels), len(built.dropouts), recipe)
    steps = stepper.begin(next(epochs))
    for step in range(steps // 5):
        stepper.step(step)
    start = time.perf_counter()
    for step in range(steps):
        stepper.step(step)
    return steps * batch / (time.perf_counter() - start)


def in_a_process(network: str, batch: int, way: dict[str, Any]) -> float:
    """The same in a process of its own, with the allocator of a worker or as it comes."""
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    if way.get("allocator", True):
        environment["GLIBC_TUNABLES"] = ":".join(f"glibc.malloc.{option}" for option in ALLOCATOR)
    words = [sys.executable, __file__, "one", json.dumps([network, batch, way])]
    return float(subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    if sys.argv[1:2] == ["one"]:
        print(measure(*json.loads(sys.argv[2])))
        return
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    print("| network | way | images a second, median | lowest | highest |\n|---|---|---|---|---|")
    for network, (_, recipe) in NETWORKS.items():
        found: dict[str, list[float]] = {name: [] for name in WAYS}
        for _ in range(repeats):
            for name, way in WAYS.items():
                batch = way.get("batch", 128 if recipe == "lecture" else 64)
                if name != "batches of 64" or batch != 64 or recipe == "lecture":
                    found[name].append(in_a_process(network, batch, way))
        for name, speeds in found.items():
            if speeds:
                numbers = (statistics.median(speeds), min(speeds), max(speeds))
                print("|", " | ".join([network, name, *(f"{number:,.0f}" for number in numbers)]), "|", flush=True)


if __name__ == "__main__":
    main()
