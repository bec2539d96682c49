"""Networks for sequences leave in every format, and compute the same there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from test_export import NETS as IMAGES
from test_export import run_onnx, run_python
from torch import nn

from nas.architecture.architecture import Architecture
from nas.architecture.layers import (
    GRU,
    LSTM,
    Add,
    AveragePool,
    BatchNorm,
    Conv1d,
    Dense,
    Embedding,
    Flatten,
    GlobalAveragePool,
    GlobalMaxPool,
    InceptionBlock,
    Layer,
    LayerNorm,
    MaxPool,
    Positions,
    ResidualBlock1d,
    SelfAttention,
    SeparableConv1d,
    Shape,
    TakeLast,
    TransformerBlock,
)
from nas.training.network import Network
from nas.winner.best import Description
from nas.winner.export.formats import FORMATS, Model, Onnx, onnx

CLASSES = ("a", "b", "c")
TOLERANCE = 1e-4
NETS: dict[str, tuple[Sequence[Layer], Shape]] = {
    "convolutions": (
        (
            Conv1d(8, 3, 1, "causal", "maxout", batch_norm=True, dilation=2),
            MaxPool(2),
            SeparableConv1d(6, 3, 2, "same", "gelu"),
            ResidualBlock1d(6),
            ResidualBlock1d(8, (3, 3), 2, activation="silu"),
            InceptionBlock(2, 9, 4),
            BatchNorm(),
            AveragePool(2),
            GlobalMaxPool(),
        ),
        (3, 40),
    ),
    "inception": (
        (InceptionBlock(2, 39, 4), InceptionBlock(2, 39, 4), Conv1d(8, 1, inputs=(0,)), Add(inputs=(2, 3)),
         GlobalAveragePool()),
        (1, 30),
    ),
    "recurrent": ((GRU(4, 2), LayerNorm(), LSTM(3, 2), LSTM(3), GRU(4), TakeLast(), LayerNorm()), (3, 12)),
    "attention": (
        (
            Embedding(8, 20),
            Positions("learned"),
            SelfAttention(2),
            Positions(),
            TransformerBlock(2, dropout=0.1),
            TransformerBlock(4, 2, causal=True),
            SelfAttention(4, causal=True),
            LayerNorm(),
            Flatten(),
        ),
        (15,),
    ),
}  # fmt: skip


def inputs(count: int, shape: Shape) -> torch.Tensor:
    """Series, or tokens, some of which are beyond the table."""
    return torch.randint(0, 25, (count, *shape)) if len(shape) == 1 else torch.randn(count, *shape) * 30


def made(folder: Path, layers: Sequence[Layer], shape: Shape) -> Model:
    """A network with random weights and statistics."""
    torch.manual_seed(0)
    architecture, tokens = Architecture(tuple(layers)), len(shape) == 1
    moments: dict[str, Any] = {
        "mean": [0.0 if tokens else 4.0] * shape[0],
        "std": [1.0 if tokens else 30.0] * shape[0],
    }
    network = Network(architecture, shape, len(CLASSES), **moments).eval()
    for part in network.modules():
        if isinstance(part, nn.BatchNorm1d):
            nn.init.normal_(part.running_mean)  # type: ignore[arg-type]
            nn.init.uniform_(part.running_var, 0.5, 2)  # type: ignore[arg-type]
    folder.mkdir(parents=True, exist_ok=True)
    save_file({n: v.contiguous() for n, v in network.state_dict().items()}, folder / "weights.safetensors")
    (folder / "architecture.json").write_text(json.dumps(architecture.to_dict()))
    return Model(folder, Description(architecture, shape, CLASSES), network, "made")


def test_the_networks_of_these_tests_have_every_layer() -> None:
    known = {point.load() for point in entry_points(group="nas.layers")}
    every = {**NETS, **IMAGES}.values()
    assert {type(layer) for layers, _ in every for layer in (*layers, Dense(1))} == known


@pytest.mark.parametrize("name", NETS)
def test_the_python_file_computes_the_same(name: str, tmp_path: Path) -> None:
    model = made(tmp_path / "best", *NETS[name])
    for file, content in FORMATS["python"].write(model).items():
        (tmp_path / file).write_bytes(content)
    text = (tmp_path / "network.py").read_text()
    assert "nas" not in re.findall(r"(?:import|from) (\w+)", text)
    options = ["--isolated", "--select=E,F,I", "--line-length=115", str(tmp_path / "network.py")]
    done = subprocess.run([sys.executable, "-m", "ruff", "check", *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    x = inputs(4, model.description.input_shape)
    with torch.no_grad():
        torch.testing.assert_close(run_python(tmp_path).load()(x), model.network(x), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", NETS)
def test_torch_export_computes_the_same_for_any_batch(name: str, tmp_path: Path) -> None:
    model = made(tmp_path / "best", *NETS[name])
    (tmp_path / "model.pt2").write_bytes(FORMATS["torch"].write(model)[""])
    exported = torch.export.load(tmp_path / "model.pt2").module()
    for count in (1, 5):
        x = inputs(count, model.description.input_shape)
        with torch.no_grad():
            torch.testing.assert_close(exported(x), model.network(x), atol=1e-5, rtol=0)


@pytest.mark.faults  # slow
@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("name", NETS)
def test_onnx_computes_the_same(name: str, fixed: bool, tmp_path: Path) -> None:
    model = made(tmp_path / "best", *NETS[name])
    (tmp_path / "model.onnx").write_bytes(onnx(model, Onnx(fixed=fixed))[""])
    session = run_onnx(tmp_path / "model.onnx")
    for count in (1,) if fixed else (1, 5):
        x = inputs(count, model.description.input_shape)
        with torch.no_grad():
            torch.testing.assert_close(session(x), model.network(x), atol=TOLERANCE, rtol=0)
