"""The formats in which a trained network is exported, each as files of bytes."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from bisect import bisect_left
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from nas import __version__
from nas.data.kinds import Kind, kind_of
from nas.data.sequences.reading import as_json
from nas.errors import ArchitectureError, NasError, UsageError
from nas.winner.best import Description
from nas.winner.export.source_code import renamed, source_code

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from nas.training.network import Network

MARK = "nas export"  # stands in one file of every export and identifies it
OPSET = 18  # of ONNX: the lowest that torch writes
IR_VERSION = 8  # of the file: the one of this opset's time, which onnxruntime before 1.18 reads, too


class Steps(NamedTuple):
    """How many steps a network takes."""

    least: int
    most: int | None  # None: any number

    def __str__(self) -> str:
        return f"{self.least:,} or more" if self.most is None else f"{self.least:,} to {self.most:,}"


class Model(NamedTuple):
    """A trained network and its description."""

    best: Path  # its folder
    description: Description
    network: Network
    dataset: str
    result: str = ""  # sentences: how good it is, and how it was trained
    steps: Steps | None = None  # that an exported network for series or tokens takes; None: as in its training

    @property
    def kind(self) -> Kind:
        """What the network takes."""
        return kind_of(self.description.input_shape)

    @property
    def takes(self) -> str:
        """The inputs of the exported network in words; empty for images, which may have any size."""
        shape = self.description.input_shape
        if self.kind == "images":
            return ""
        *before, length = shape
        steps = f"{length:,}"
        if self.steps is not None:
            steps = str(self.steps)
        unit = "steps" if self.kind == "series" else "characters"
        sizes = ", ".join(["N", *map(str, before), f"{steps} {unit}"])
        if self.kind == "tokens":
            return f"tokens ({sizes}) int64, the positions of the classes"
        padded = ", with NaN after the end of a shorter one" * self.description.is_padded
        return f"series ({sizes}) float32{padded}"

    def metadata(self) -> dict[str, Any]:
        """The description that an exported model holds."""
        reading = self.description.reading
        return {
            **({"takes": self.takes} if self.takes else {}),
            **({"reading": as_json(reading)} if reading is not None else {}),
            "written_by": f"{MARK} {__version__}",
            "dataset": self.dataset,
            "architecture": self.description.architecture.id,
            "input_shape": list(self.description.input_shape),
            "classes": list(self.description.classes),
            "framing": self.description.framing,
        }


class Onnx(NamedTuple):
    """The variant of ONNX that a runtime needs."""

    opset: int = OPSET
    ir_version: int | None = None  # None: 8, or the lowest that the opset allows
    fixed: bool = False  # one float image of the network's size, with no resizing, for TensorRT and phones

    def file_version(self) -> int:
        """The IR version of the file.

        Raises:
            UsageError: the wanted one is too low for the opset.
        """
        from onnx.helper import find_min_ir_version_for, make_opsetid

        least = find_min_ir_version_for([make_opsetid("", self.opset)])
        if self.ir_version is None:
            return max(IR_VERSION, least)
        if self.ir_version < least:
            raise UsageError(f"opset {self.opset} needs --ir-version {least} or more, not {self.ir_version}")
        return self.ir_version


class Format(NamedTuple):
    """A format of export."""

    files: tuple[str, ...]  # the files of the folder, the first of which holds the mark; empty for a single file
    write: Callable[[Model], dict[str, bytes]]  # the content of each file; that of a single file has the name ""


def onnx(model: Model, variant: Onnx = Onnx()) -> dict[str, bytes]:  # noqa: B008  # it cannot change
    """One file for onnxruntime and other runtimes."""
    import torch
    from onnx.checker import check_model

    with _silence():
        module, images, shapes = _example(model)
        if variant.fixed:
            module, images, shapes = model.network, (_zeros(model, 1, torch.float32),), None
        program = torch.onnx.export(
            module, images, dynamic_shapes=shapes, input_names=[model.kind], output_names=["logits"],
            opset_version=variant.opset, dynamo=True, verbose=False,
        )  # fmt: skip
        proto = program.model_proto  # type: ignore[union-attr]
        [written] = [opset.version for opset in proto.opset_import if not opset.domain]
        if written != variant.opset:  # torch only warns that it cannot convert an operator
            raise NasError(
                f"torch writes this network with opset {written}, not {variant.opset}: choose another --opset"
            )
        proto.ir_version = variant.file_version()
        check_model(proto, full_check=True)
        for name, value in model.metadata().items():
            proto.metadata_props.add(key=name, value=value if isinstance(value, str) else json.dumps(value))
        return {"": proto.SerializeToString()}


def torch_export(model: Model) -> dict[str, bytes]:
    """An archive of torch.export; to load it runs no foreign code."""
    import torch

    archive = io.BytesIO()
    with _silence():
        module, images, shapes = _example(model)
        program = torch.export.export(module, images, dynamic_shapes=shapes)
        torch.export.save(program, archive, extra_files={"nas.json": json.dumps(model.metadata())})
    return {"": archive.getvalue()}


def safetensors(model: Model) -> dict[str, bytes]:
    """The two files of best/."""
    content = json.loads((model.best / "architecture.json").read_text(encoding="utf-8"))
    content["written_by"] = model.metadata()["written_by"]
    text = json.dumps(content, indent=2, ensure_ascii=False)
    weights = (model.best / "weights.safetensors").read_bytes()
    return {"architecture.json": f"{text}\n".encode(), "weights.safetensors": weights}


def python(model: Model) -> dict[str, bytes]:
    """One readable file of PyTorch code, and the weights, which `torch.load` reads without running code."""
    import torch

    weights = io.BytesIO()
    torch.save(renamed(model.description, model.network.state_dict()), weights)
    return {
        "network.py": source_code(model.description, model.dataset, model.result).encode(),
        "weights.pt": weights.getvalue(),
    }


FORMATS = {
    "onnx": Format((), onnx),
    "torch": Format((), torch_export),
    "safetensors": Format(("architecture.json", "weights.safetensors"), safetensors),
    "python": Format(("network.py", "weights.pt"), python),
}


def _example(model: Model) -> tuple[Any, tuple[Any], tuple[Any] | None]:
    """The module to export, an example of its input, and the sizes of the example that are free."""
    import torch
    from torch.export import Dim

    from nas.training.network import AnySize

    free = {0: Dim("batch", min=1)}
    if model.kind != "images":
        if model.steps is not None:
            free[len(model.description.input_shape)] = Dim("time", min=model.steps.least, max=model.steps.most)
        return model.network, (_zeros(model, 2, torch.float32),), (free,)
    channels, height, width = model.description.input_shape
    # Of another size than the network's: torch.export would take equal sizes for a rule.
    images = torch.zeros((2, channels, height + 3, width + 5), dtype=torch.uint8)
    free |= {2: Dim("height", min=1), 3: Dim("width", min=1)}
    return AnySize(model.network, model.description.fit).eval(), (images,), (free,)


def _zeros(model: Model, count: int, kind: torch.dtype) -> Tensor:
    """So many inputs, of the type ``kind``; tokens are int64."""
    import torch

    shape = (count, *model.description.input_shape)
    return torch.zeros(shape, dtype=torch.int64 if model.kind == "tokens" else kind)


def free_steps(model: Model) -> Steps | None:
    """The numbers of steps that an exported network takes; None if only that of the training.

    A network with `Flatten` or with learned positions has weights for one number only. Series of unequal lengths
    are followed by NaN up to the number of the training, so that windows end where they did there.
    """
    import torch

    if model.kind == "images" or model.description.is_padded:
        return None
    *_, length = model.description.input_shape
    least = bisect_left(range(length), 1, lo=2, key=partial(_fits, model))
    if least >= length:
        return None
    with _silence(), contextlib.suppress(Exception):  # of a plugin's layer, or of torch.export
        for most in (None, length):
            if most is not None or _runs(model, 3 * length + 1):
                free = model._replace(steps=Steps(least, most))
                module, inputs, shapes = _example(free)
                torch.export.export(module, inputs, dynamic_shapes=shapes)
                return free.steps
    return None


def _fits(model: Model, steps: int) -> bool:
    """Whether a network has the same weights for another number of steps, and two steps or more everywhere."""
    *before, length = model.description.input_shape
    architecture, classes = model.description.architecture, len(model.description.classes)
    try:
        rows = architecture.table((*before, steps), classes)
    except ArchitectureError:  # too few for a layer
        return False
    parameters = architecture.parameters((*before, length), classes)
    enough = all(row.shape[1] >= 2 for row in rows if len(row.shape) == 2)
    return enough and sum(row.parameters for row in rows) == parameters


def _runs(model: Model, steps: int) -> bool:
    """Whether a network computes something for so many steps: sines of positions are those of the training."""
    import torch

    *before, _ = model.description.input_shape
    kind = torch.int64 if model.kind == "tokens" else torch.float32
    try:
        with torch.inference_mode():
            model.network(torch.zeros((1, *before, steps), dtype=kind))
    except RuntimeError:
        return False
    return True


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Suppress the output of torch and onnxscript: progress, and warnings about their own internals."""
    disabled = logging.root.manager.disable
    output = io.StringIO()
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
