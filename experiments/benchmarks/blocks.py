"""Which blocks are worth their time: training images per second, in one thread, of one block at full resolution.

python experiments/benchmarks/blocks.py
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch
from torch.nn import functional

from nas.architecture.architecture import Architecture
from nas.architecture.layers import Conv2d, Flatten, Layer, MaxPool, SeparableConv2d
from nas.training.network import Network

BATCH, STEPS, REPEATS = 64, 10, 5


def images_per_second(block: Layer | None) -> float:
    """Of a small network with the block at 28×28, forward and backward."""
    torch.manual_seed(0)
    stem = Conv2d(16, 3, padding="same", activation="relu", batch_norm=True)
    layers = [stem, *([block] if block else []), MaxPool(4), Flatten()]
    network = Network(Architecture(tuple(layers)), (1, 28, 28), 10)
    images, labels = torch.randint(0, 256, (BATCH, 1, 28, 28), dtype=torch.uint8), torch.arange(BATCH) % 10
    for step in range(STEPS + 3):
        if step == 3:
            start = time.perf_counter()
        functional.cross_entropy(network(images), labels).backward()  # type: ignore[no-untyped-call]
    return BATCH * STEPS / (time.perf_counter() - start)


def main() -> None:
    torch.set_num_threads(1)
    same: dict[str, Any] = {"padding": "same", "batch_norm": True}
    blocks: dict[str, Layer | None] = {
        "none": None,
        "Conv2d 16 3×3 relu": Conv2d(16, 3, activation="relu", **same),
        "SeparableConv2d 16 3×3 relu": SeparableConv2d(16, 3, activation="relu", **same),
        "SeparableConv2d 16 5×5 relu": SeparableConv2d(16, 5, activation="relu", **same),
        "Conv2d 16 3×3 silu": Conv2d(16, 3, activation="silu", **same),
        "Conv2d 16 3×3 gelu": Conv2d(16, 3, activation="gelu", **same),
        "Conv2d 16 5×5 relu": Conv2d(16, 5, activation="relu", **same),
    }
    print("| block on 28×28×16 | MFLOP | images per second, median | lowest | highest |")
    print("|---|---|---|---|---|")
    rates: dict[str, list[float]] = {name: [] for name in blocks}
    for _ in range(REPEATS):  # in turn, so that a slow minute of the machine touches all of them
        for name, block in blocks.items():
            rates[name].append(images_per_second(block))
    for name, block in blocks.items():
        flops = block.flops((16, 28, 28)) / 1e6 if block else 0.0
        low, middle, high = min(rates[name]), statistics.median(rates[name]), max(rates[name])
        print(f"| {name} | {flops:.1f} | {middle:,.0f} | {low:,.0f} | {high:,.0f} |")


if __name__ == "__main__":
    main()
