"""Run an exported model in a new process, as another person would: a program that imports nothing of nas.

    python -P fresh.py FORMAT MODEL IMAGES.npy LOGITS.npy

It reads raw images (N, C, H, W), uint8, and writes the logits (N, classes). Only the format "safetensors" needs
nas; for the other formats its import is blocked, so that a model that needs nas fails.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

BATCH = 100  # images
Model = Callable[[Any], Any]  # from one array to another


def load_onnx(path: Path) -> Model:
    """Through onnxruntime, without PyTorch."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: session.run(["logits"], {"images": images})[0]


def load_torch(path: Path) -> Model:
    """Through torch.export."""
    import torch

    return _of_arrays(torch.export.load(path).module())


def load_python(path: Path) -> Model:
    """Through the file's own `load`."""
    sys.path.insert(0, str(path))
    from network import load  # type: ignore[import-not-found]

    return _of_arrays(load())


def load_safetensors(path: Path) -> Model:
    """Through nas."""
    from nas.training.network import AnySize
    from nas.winner.best import load_network

    return _of_arrays(AnySize(load_network(path)))


def _of_arrays(module: Callable[[Any], Any]) -> Model:
    """A function of arrays instead of tensors."""
    import torch

    def run(images: Any) -> Any:
        with torch.no_grad():
            return module(torch.from_numpy(images)).numpy()

    return run


def main() -> None:
    """The program."""
    form, model, images, logits = sys.argv[1:]
    if form != "safetensors":
        sys.modules["nas"] = None  # type: ignore[assignment]  # `import nas` fails
    load = {"onnx": load_onnx, "torch": load_torch, "python": load_python, "safetensors": load_safetensors}[form]
    run = load(Path(model))
    all_images = np.load(images, mmap_mode="c")
    batches = range(0, len(all_images), BATCH)
    np.save(logits, np.concatenate([run(np.array(all_images[start : start + BATCH])) for start in batches]))


if __name__ == "__main__":
    main()
