"""Networks for series, of equal and unequal lengths, and for tokens leave in every format, computing the same."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from click.testing import Result
from command import inline
from safetensors.torch import save_file
from test_export import run_python
from torch import Tensor, nn

from nas.architecture.architecture import Architecture
from nas.architecture.layers import (
    GRU,
    Add,
    AveragePool,
    BatchNorm,
    Concatenate,
    Conv1d,
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
from nas.errors import NasError
from nas.training.network import Network
from nas.winner.best import Description, read_best
from nas.winner.export.export import random_inputs
from nas.winner.export.formats import FORMATS, Model, Onnx, Steps, free_steps, onnx
from nas.winner.export.masked import rule_of

CLASSES = ("a", "b", "c")
PADDED: dict[str, Sequence[Layer]] = {
    "pooled": (
        Conv1d(8, 3, padding="causal", activation="relu", batch_norm=True, dilation=2),
        MaxPool(2),
        SeparableConv1d(6, 3, 2, "same", "gelu"),
        BatchNorm(),
        AveragePool(3),
        Conv1d(5, 2),
        GlobalMaxPool(),
    ),
    "flat": (Conv1d(4, 5, 3, "same", "tanh"), Flatten()),
    "recurrent": (GRU(4, 2), LayerNorm(), GRU(3), TakeLast()),
    "attention": (Conv1d(8, 4, 4), Positions(), TransformerBlock(2), SelfAttention(4), GlobalAveragePool()),
    "graph": (
        ResidualBlock1d(6, (3, 3), 2),
        InceptionBlock(2, 9, 4),
        Conv1d(8, 1, batch_norm=True, inputs=(1,)),
        Add(inputs=(2, 3)),
        GlobalAveragePool(),
        GlobalMaxPool(inputs=(4,)),
        Concatenate(inputs=(5, 6)),
    ),
}
SHAPE = (3, 40)


def made(folder: Path, layers: Sequence[Layer], shape: Shape, *, is_padded: bool = False) -> Model:
    """A network with random weights and statistics."""
    torch.manual_seed(0)
    architecture = Architecture(tuple(layers))
    moments = {"mean": [4.0] * shape[0], "std": [30.0] * shape[0]} if len(shape) > 1 else {"mean": [], "std": []}
    network = Network(architecture, shape, len(CLASSES), **moments, is_padded=is_padded).eval()
    for part in network.modules():
        if isinstance(part, nn.BatchNorm1d):
            nn.init.normal_(part.running_mean)  # type: ignore[arg-type]
            nn.init.uniform_(part.running_var, 0.5, 2)  # type: ignore[arg-type]
    folder.mkdir(parents=True, exist_ok=True)
    save_file({n: v.contiguous() for n, v in network.state_dict().items()}, folder / "weights.safetensors")
    (folder / "architecture.json").write_text(json.dumps(architecture.to_dict()))
    return Model(folder, Description(architecture, shape, CLASSES, is_padded=is_padded), network, "made")


def run_onnx(content: bytes, inputs: Tensor) -> Tensor:
    """The logits of a model for onnxruntime."""
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    [given] = session.get_inputs()
    return torch.from_numpy(session.run(["logits"], {given.name: inputs.numpy()})[0])


def agree(actual: Tensor, model: Model, inputs: Tensor) -> None:
    with torch.no_grad():
        torch.testing.assert_close(actual, model.network(inputs), atol=1e-5, rtol=1e-5)


# Networks with random weights, of every kind of layer


@pytest.mark.parametrize("name", PADDED)
def test_the_python_file_knows_where_series_end(name: str, tmp_path: Path) -> None:
    model = made(tmp_path / "best", PADDED[name], SHAPE, is_padded=True)
    for file, content in FORMATS["python"].write(model).items():
        (tmp_path / file).write_bytes(content)
    network = run_python(tmp_path).load()
    inputs = random_inputs(model, (20, *SHAPE))
    assert inputs.isnan().any()
    with torch.no_grad():
        agree(network(inputs), model, inputs)
        for one in inputs[1::4]:
            steps = int((~one[0].isnan()).sum())
            agree(network(one[None, :, :steps]), model, one[None])  # as a file has it


@pytest.mark.parametrize("name", PADDED)
def test_torch_export_knows_where_series_end(name: str, tmp_path: Path) -> None:
    model = made(tmp_path / "best", PADDED[name], SHAPE, is_padded=True)
    assert free_steps(model) is None
    (tmp_path / "model.pt2").write_bytes(FORMATS["torch"].write(model)[""])
    module = torch.export.load(tmp_path / "model.pt2").module()
    for count in (1, 12):
        inputs = random_inputs(model, (count, *SHAPE))
        with torch.no_grad():
            agree(module(inputs), model, inputs)


SLOW = [pytest.param(name, marks=pytest.mark.faults) for name in ("flat", "recurrent", "attention")]


@pytest.mark.parametrize("name", ["pooled", "graph", *SLOW])
def test_onnx_knows_where_series_end(name: str, tmp_path: Path) -> None:
    model = made(tmp_path / "best", PADDED[name], SHAPE, is_padded=True)
    inputs = random_inputs(model, (12, *SHAPE))
    agree(run_onnx(FORMATS["onnx"].write(model)[""], inputs), model, inputs)
    agree(run_onnx(onnx(model, Onnx(fixed=True))[""], inputs[1:2]), model, inputs[1:2])


FREE: dict[str, Sequence[Layer]] = {
    "convolutions": (
        Conv1d(8, 3, padding="causal", activation="relu", batch_norm=True, dilation=2),
        SeparableConv1d(6, 3, 2, "same", "gelu"),
        AveragePool(3),
        Conv1d(5, 2),
        GlobalMaxPool(),
    ),
    "residual": (
        ResidualBlock1d(6, (3, 3)),
        Conv1d(6, 1, batch_norm=True),
        Add(inputs=(1, 2)),
        TransformerBlock(2),
        GlobalAveragePool(),
    ),
}


@pytest.mark.parametrize(("name", "least"), [("convolutions", 17), ("residual", 2)])
def test_a_network_for_equal_lengths_takes_others_if_its_layers_do(name: str, least: int, tmp_path: Path) -> None:
    model = made(tmp_path / "best", FREE[name], SHAPE)
    steps = free_steps(model)
    assert steps == Steps(least, None)
    model = model._replace(steps=steps)
    assert model.takes == f"series (N, 3, {steps.least} or more steps) float32"
    content = FORMATS["onnx"].write(model)[""]
    (tmp_path / "model.pt2").write_bytes(FORMATS["torch"].write(model)[""])
    module = torch.export.load(tmp_path / "model.pt2").module()
    for length in (steps.least, 40, 57):
        inputs = random_inputs(model, (3, 3, length))
        agree(run_onnx(content, inputs), model, inputs)
        with torch.no_grad():
            agree(module(inputs), model, inputs)


def test_other_networks_take_one_length(tmp_path: Path) -> None:
    flat = made(tmp_path / "flat", PADDED["flat"], SHAPE)
    assert free_steps(flat) is None
    assert flat.takes == "series (N, 3, 40 steps) float32"
    learned = made(tmp_path / "learned", (Embedding(8, 3), Positions("learned"), TakeLast()), (15,))
    most = free_steps(learned)
    assert most is None or most.most == 15
    padded = made(tmp_path / "padded", PADDED["pooled"], SHAPE, is_padded=True)
    assert padded.takes == "series (N, 3, 40 steps) float32, with NaN after the end of a shorter one"


def test_tokens_are_whole_numbers_in_every_format(tmp_path: Path) -> None:
    layers = Embedding(8, 3), Conv1d(8, 3, padding="causal", activation="relu"), TakeLast()
    model = made(tmp_path / "best", layers, (15,))
    model = model._replace(steps=free_steps(model))
    assert model.steps == Steps(2, None)
    assert model.takes == "tokens (N, 2 or more characters) int64, the positions of the classes"
    for file, content in FORMATS["python"].write(model).items():
        (tmp_path / file).write_bytes(content)
    (tmp_path / "model.pt2").write_bytes(FORMATS["torch"].write(model)[""])
    written = FORMATS["onnx"].write(model)[""]
    for length in (2, 15, 30):
        tokens = random_inputs(model, (4, length))
        assert tokens.dtype == torch.int64
        agree(run_onnx(written, tokens), model, tokens)
        with torch.no_grad():
            agree(run_python(tmp_path).load()(tokens), model, tokens)
            agree(torch.export.load(tmp_path / "model.pt2").module()(tokens), model, tokens)


@pytest.mark.parametrize(
    ("layer", "rule"),
    [
        (Conv1d(4, 3), "(n - 2)"),
        (Conv1d(4, 4, 4), "((n) // 4)"),
        (Conv1d(4, 3, 2, "same"), "((n + 1) // 2)"),
        (Conv1d(4, 3, padding="causal"), "(n)"),
        (MaxPool(3), "((n) // 3)"),
        (ResidualBlock1d(4, (3,), 2), "((n + 1) // 2)"),
    ],
)
def test_the_rule_for_lengths_is_that_of_the_layer(layer: Layer, rule: str) -> None:
    shape = (2, 17)
    found = rule_of(layer, shape, "n")
    assert found == rule
    for length in range(1, 18):
        assert eval(found, {"n": length}) == layer.filled(length, shape)


def test_a_layer_without_a_rule_is_refused() -> None:
    class Odd(MaxPool):
        def filled(self, length: Any, shape: Shape) -> Any:
            return length * length

    with pytest.raises(NasError, match="no simple rule for the lengths"):
        rule_of(Odd(2), (1, 9), "n")


# Trained networks, by the command


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three trained networks: for series of equal and of unequal lengths, and for a text."""
    folder, random = tmp_path_factory.mktemp("export"), np.random.default_rng(0)
    labels = np.arange(60) % 3
    series = random.normal(0, 1, (60, 2, 24)) + labels[:, None, None]
    np.savez(folder / "equal.npz", series=series, labels=labels)
    for row, length in enumerate(random.integers(8, 25, 60)):
        series[row, :, length:] = np.nan
    np.savez(folder / "unequal.npz", series=series, labels=labels)
    (folder / "text.txt").write_text("one two three four five\n" * 100)
    networks: dict[str, Sequence[Layer]] = {
        "equal": (Conv1d(8, 3, padding="same", activation="relu", batch_norm=True), GlobalAveragePool()),
        "unequal": (Conv1d(8, 3, 2, "same", "relu", batch_norm=True), MaxPool(2), Flatten()),
        "text": (Embedding(8, 16), Conv1d(16, 4, padding="causal", activation="relu"), TakeLast()),
    }
    data = {name: str(folder / f"{name}.npz") for name in networks} | {"text": f"text:{folder / 'text.txt'}"}
    for name, layers in networks.items():
        (folder / f"{name}.json").write_text(json.dumps(Architecture(tuple(layers)).to_dict()))
        words = ["--dataset", data[name], "--epochs", "2", "--mlflow", "off", "--out", str(folder / name)]
        inline("train", str(folder / f"{name}.json"), *words)
    return folder


def export(place: Path, name: str, *words: str) -> Result:
    return inline("export", str(place / name), *words)


@pytest.mark.parametrize(
    ("name", "noun", "takes"),
    [
        ("equal", "series", "series (N, 2, 2 or more steps) float32"),
        ("unequal", "series", "series (N, 2, 24 steps) float32, with NaN after the end of a shorter one"),
        ("text", "texts", "tokens (N, 2 or more characters) int64, the positions of the classes"),
    ],
)
def test_the_command_writes_and_checks_every_format(place: Path, name: str, noun: str, takes: str) -> None:
    result = export(place, name, "--format", "all")
    lines = result.stdout.splitlines()
    assert len(lines) == 4
    for line in lines:
        assert f"the same class for all 1,000 random {noun}, the largest difference of a logit is" in line
        assert line.endswith(f"; it takes {takes}")
    assert f"compared on 1,000 random {noun}, because the data are a path" in result.stderr
    best = place / name / "best"
    description, network = read_best(best / "safetensors")
    assert description.reading == read_best(best)[0].reading is not None
    model = Model(best, description, network, name)
    inputs = random_inputs(model, (6, *description.input_shape))
    agree(run_onnx((best / "model.onnx").read_bytes(), inputs), model, inputs)
    text = (best / "python/network.py").read_text()
    kind = "tokens" if name == "text" else "series"
    assert f"network({kind})" in text
    assert "images" not in text
    about = json.loads(export(place, name, "--format", "python", "--json").stdout)["formats"]["python"]
    assert about["takes"] == takes
