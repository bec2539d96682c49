"""The formats that a trained network is exported in: each as files of bytes, which others read."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from nas import __version__
from nas.winner.best import EXPORTS, described
from nas.winner.export.source_code import Described, renamed, source_code

if TYPE_CHECKING:
    from nas.training.network import Network

MARK = "nas export"  # in one file of every export: whose it is
OPSET = 18  # the first in which ONNX can resize as PIL does


class Model(NamedTuple):
    """A trained network, and what there is to say about it."""

    best: Path  # the folder that it comes from
    network: Network
    about: Described

    def note(self) -> dict[str, Any]:
        """What an exported model says about itself."""
        return {
            "written_by": f"{MARK} {__version__}",
            "dataset": self.about.dataset,
            "architecture": self.about.architecture.id,
            "input_shape": list(self.about.shape),
            "classes": list(self.about.classes),
        }


class Format(NamedTuple):
    """How a format is written, and where to."""

    place: str  # a file, or a folder of files
    files: tuple[str, ...]  # of the folder, the first one has the mark; none for a file, which has it itself
    write: Callable[[Model], dict[str, bytes]]  # the files of a folder; otherwise one, called ""


def onnx(model: Model) -> dict[str, bytes]:
    """One file for onnxruntime and others."""
    import torch

    with _silence():
        module, images, shapes = _traced(model)
        program = torch.onnx.export(
            module, images, dynamic_shapes=shapes, input_names=["images"], output_names=["logits"],
            opset_version=OPSET, dynamo=True, verbose=False,
        )  # fmt: skip
        proto = program.model_proto  # type: ignore[union-attr]
        for name, value in model.note().items():
            proto.metadata_props.add(key=name, value=value if isinstance(value, str) else json.dumps(value))
        return {"": proto.SerializeToString()}


def torch_export(model: Model) -> dict[str, bytes]:
    """An archive of torch.export; whoever loads it runs no code of anybody's."""
    import torch

    archive = io.BytesIO()
    with _silence():
        module, images, shapes = _traced(model)
        program = torch.export.export(module, images, dynamic_shapes=shapes)
        torch.export.save(program, archive, extra_files={"nas.json": json.dumps(model.note())})
    return {"": archive.getvalue()}


def safetensors(model: Model) -> dict[str, bytes]:
    """The files of best/ themselves."""
    text = json.loads((model.best / "architecture.json").read_text(encoding="utf-8"))
    text = json.dumps({**text, "written_by": model.note()["written_by"]}, indent=2, ensure_ascii=False)
    weights = (model.best / "weights.safetensors").read_bytes()
    return {"architecture.json": f"{text}\n".encode(), "weights.safetensors": weights}


def python(model: Model) -> dict[str, bytes]:
    """One readable file of PyTorch, and the weights, which `torch.load` reads without running code."""
    import torch

    weights = io.BytesIO()
    torch.save(renamed(model.about, model.network.state_dict()), weights)
    return {"network.py": source_code(model.about).encode(), "weights.pt": weights.getvalue()}


FORMATS = {
    "onnx": Format(EXPORTS["onnx"], (), onnx),
    "torch": Format(EXPORTS["torch"], (), torch_export),
    "safetensors": Format(EXPORTS["safetensors"], ("architecture.json", "weights.safetensors"), safetensors),
    "python": Format(EXPORTS["python"], ("network.py", "weights.pt"), python),
}


def _traced(model: Model) -> tuple[Any, tuple[Any], dict[str, Any]]:
    """The module that is exported, an example, and which of the example's sizes are free."""
    import torch
    from torch.export import Dim

    from nas.training.network import AnySize

    channels, height, width = model.about.shape
    # Of another size than the network's: what is equal there would be taken for a rule.
    images = torch.zeros((2, channels, height + 3, width + 5), dtype=torch.uint8)
    free = {0: Dim("batch", min=1), 2: Dim("height", min=1), 3: Dim("width", min=1)}
    return AnySize(model.network).eval(), (images,), {"images": free}


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep what torch and onnxscript say to themselves: progress, and warnings about their own insides."""
    disabled = logging.root.manager.disable
    nowhere = io.StringIO()
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def read_model(best: Path, network: Network, dataset: str) -> Model:
    """The network of a best/ folder, with what its architecture.json says."""
    architecture, shape, classes = described(best / "architecture.json")
    return Model(best, network, Described(architecture, shape, classes, dataset))
