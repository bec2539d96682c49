"""Run an exported model in a new process, as another person would: a program that imports nothing of nas.

    python -BP fresh.py FORMAT MODEL IMAGES.npy LOGITS.npy [IMAGES.npy LOGITS.npy ...]

It reads raw images (N, C, H, W), uint8, or series or tokens, and writes the logits (N, classes). Only the format
"safetensors" needs nas; for the other formats its import is blocked, so that a model that needs nas fails.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

BATCH = 100  # inputs
Model = Callable[[Any], Any]  # from one array to another


def load_model(form: str, path: Path) -> Model:
    """An exported model as a function."""
    if form == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        [given] = session.get_inputs()
        kind = {"tensor(float)": np.float32, "tensor(int64)": np.int64}.get(given.type, np.uint8)

        def onnx(images: Any) -> Any:
            count = 1 if given.shape[0] == 1 else len(images)  # a model of fixed size takes one image at a time
            batches = (images[start : start + count].astype(kind) for start in range(0, len(images), count))
            return np.concatenate([session.run(["logits"], {given.name: batch})[0] for batch in batches])

        return onnx
    import torch

    module: Model
    if form == "torch":
        module = torch.export.load(path).module()
    elif form == "python":
        sys.path.insert(0, str(path))
        module = import_module("network").load()
    else:
        from nas.training.network import AnySize
        from nas.winner.best import read_best

        description, network = read_best(path)
        module = AnySize(network, description.fit)

    def run(images: Any) -> Any:
        with torch.no_grad():
            return module(torch.from_numpy(images)).numpy()

    return run


def main() -> None:
    """The program."""
    form, model, *files = sys.argv[1:]
    if form != "safetensors":
        sys.modules["nas"] = None  # type: ignore[assignment]  # `import nas` fails
    run = load_model(form, Path(model))
    for images, logits in zip(files[::2], files[1::2], strict=True):
        all_images = np.load(images, mmap_mode="c")
        batches = range(0, len(all_images), BATCH)
        np.save(logits, np.concatenate([run(np.array(all_images[start : start + BATCH])) for start in batches]))


if __name__ == "__main__":
    main()
