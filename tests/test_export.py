"""What is exported does what the network does, for people who do not have nas."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from command import NAS, error_line, inline
from onnx import TensorProto, load
from safetensors.torch import save_file
from torch import nn

from nas.architecture.architecture import Architecture
from nas.architecture.layers import (
    ACTIVATIONS,
    Activation,
    Add,
    AveragePool,
    BatchNorm,
    Cell,
    Concatenate,
    Conv2d,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePool,
    Layer,
    MaxPool,
    Pretrained,
    ResidualBlock,
    SeparableConv2d,
    Shape,
)
from nas.cli.main import cli
from nas.data.dataset import Dataset
from nas.data.decoder import decode
from nas.errors import NasError, UsageError
from nas.records.journal import FILE, Journal
from nas.training.network import AnySize, Network, resized
from nas.winner.best import read_best, write_best
from nas.winner.export.export import DRAFT, TOLERANCE, export, images_for, load_model
from nas.winner.export.formats import FORMATS, Model, Onnx
from nas.winner.predict import Classifier, Prediction

CLASSES = ("a", "b", "c")
PLAIN = (Conv2d(4, activation="relu"), MaxPool(2), Flatten())
EDGES = ("nor_conv_3x3", "skip_connect", "nor_conv_1x1", "avg_pool_3x3", "none", "nor_conv_3x3")
NETS: dict[str, tuple[Sequence[Layer], Shape]] = {
    "activations": (
        (
            *(Conv2d(4, 3, 1, "same", name, batch_norm=i % 2 == 0) for i, name in enumerate(ACTIVATIONS)),
            *(
                layer
                for name in ("maxout", "tanh", "gelu")
                for layer in (Conv2d(4, 3, activation=name), MaxPool(2))
            ),
            Activation("leaky_relu"),
            Flatten(),
            Dense(9, "maxout"),
            BatchNorm(),
            Dropout(0.25),
        ),
        (1, 37, 34),
    ),
    "blocks": (
        (
            SeparableConv2d(6, 3, 2, "same", "maxout", batch_norm=True),
            SeparableConv2d(5, 3, activation="elu"),
            AveragePool(2),
            ResidualBlock(8, 3, 2, "silu"),
            ResidualBlock(8),
            BatchNorm(),
            Cell(EDGES),
            GlobalAveragePool(),
        ),
        (3, 30, 41),
    ),
    "graph": (
        (
            Conv2d(4, 3, padding="same", activation="relu", batch_norm=True),
            Conv2d(4, 3, padding="same", activation="relu"),
            Add(inputs=(1, 2)),
            MaxPool(2),
            Conv2d(3, 1, activation="elu", inputs=(4,)),
            AveragePool(2, inputs=(1,)),
            Concatenate(inputs=(5, 6, 4)),
            GlobalAveragePool(),
        ),
        (2, 17, 14),
    ),
    "backbone": ((Pretrained("resnet18", weights=False), Dropout(0.5)), (1, 20, 28)),
}


def made(folder: Path, layers: Sequence[Layer] = PLAIN, shape: Shape = (1, 8, 8), **words: Any) -> Model:
    """A network with a life behind it, in the best/ of a folder."""
    classes = words.get("classes", CLASSES)
    torch.manual_seed(0)
    network = Network(
        Architecture(tuple(layers)), shape, len(classes), mean=[40.0] * shape[0], std=[70.0] * shape[0]
    )
    for part in network.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            part.momentum = 1.0
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias)
    images = pictures(32, *shape)
    with torch.no_grad():
        network(images)  # which sets the statistics
        *_, last = network.eval().layers.values()
        assert isinstance(last, nn.Linear)
        last.weight /= network(images).std(0)[:, None]  # random networks tell images apart by next to nothing
        assert (network(images).std(0) - 1).abs().max() < 0.1
    best = folder / "best"
    best.mkdir(parents=True)
    save_file({name: one.contiguous() for name, one in network.state_dict().items()}, best / "weights.safetensors")
    about = {**Architecture(tuple(layers)).to_dict(), "input_shape": list(shape), "classes": list(classes)}
    about["framing"] = words.get("framing", "stretch")
    (best / "architecture.json").write_text(json.dumps(about))
    return Model(best, *read_best(best), words.get("dataset", "made"))


def pictures(count: int, channels: int, height: int, width: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, channels, height, width), dtype=torch.uint8)


def searched(folder: Path, **config: Any) -> Path:
    """The folder of a search whose journal says this of it."""
    folder.mkdir(parents=True, exist_ok=True)
    with Journal(folder / FILE) as journal:
        journal.begin({"config": config, "dataset": {"name": config["dataset"]}})
    return folder


def run_onnx(path: Path) -> Callable[[torch.Tensor], torch.Tensor]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    [given] = session.get_inputs()  # "images", "series" or "tokens"
    return lambda inputs: torch.from_numpy(session.run(None, {given.name: inputs.numpy()})[0])


def run_python(folder: Path) -> Any:
    spec = importlib.util.spec_from_file_location("network_of_a_test", folder / "network.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_python(model: Model, folder: Path) -> dict[Path, bytes]:
    """What an earlier export to Python has left in a folder."""
    (folder / "python").mkdir(parents=True)
    files = {folder / "python" / name: content for name, content in FORMATS["python"].write(model).items()}
    for path, content in files.items():
        path.write_bytes(content)
    return files


@pytest.mark.faults
@pytest.mark.parametrize("name", NETS)
def test_every_layer_leaves_in_every_format_for_any_batch_and_any_size(name: str, tmp_path: Path) -> None:
    layers, shape = NETS[name]
    model = made(tmp_path, layers, shape)
    for form in ("onnx", "torch", "python"):
        for file, content in FORMATS[form].write(model).items():
            (tmp_path / (file or form)).write_bytes(content)
    assert "nas" not in re.findall(r"(?:import|from) (\w+)", (tmp_path / "network.py").read_text())
    exported = torch.export.load(tmp_path / "torch")
    runs = [run_onnx(tmp_path / "onnx"), exported.module(), run_python(tmp_path).load()]
    original = AnySize(model.network)
    channels, height, width = shape
    with torch.no_grad():
        for sizes in ((1, height, width), (3, 2 * height + 1, width - 5), (2, 1, 200)):
            images = pictures(sizes[0], channels, *sizes[1:])
            for run in runs:
                torch.testing.assert_close(run(images), original(images), atol=TOLERANCE, rtol=0)


@pytest.mark.faults  # slow
@pytest.mark.parametrize("name", NETS)
def test_a_model_of_fixed_size_is_one_float_image_and_does_not_resize_it(name: str, tmp_path: Path) -> None:
    layers, shape = NETS[name]
    model = made(tmp_path, layers, shape)
    [exported] = export(model, ["onnx"], tmp_path / "out", pictures(3, *shape), Onnx(fixed=True))
    proto = load(exported.path)
    [given] = proto.graph.input
    assert given.type.tensor_type.elem_type == TensorProto.FLOAT
    assert [size.dim_value for size in given.type.tensor_type.shape.dim] == [1, *shape]
    resizes = {node.op_type for node in proto.graph.node} & {"Resize"}
    assert resizes == ({"Resize"} if name == "backbone" else set())  # a backbone enlarges small images itself
    images = pictures(1, *shape).float()
    torch.testing.assert_close(run_onnx(exported.path)(images), model.network(images), atol=TOLERANCE, rtol=0)


@pytest.mark.faults
@pytest.mark.parametrize(
    ("variant", "versions"),
    [(Onnx(), (18, 8)), (Onnx(opset=21), (21, 10)), (Onnx(opset=20, ir_version=10), (20, 10))],
)
def test_the_versions_of_onnx_are_as_low_as_they_can_be_or_as_wanted(
    tmp_path: Path, variant: Onnx, versions: tuple[int, int]
) -> None:
    """onnxruntime 1.17 refuses a file of IR version 10."""
    [exported] = export(made(tmp_path), ["onnx"], tmp_path / "out", pictures(3, 1, 8, 8), variant)
    proto = load(exported.path)
    assert ([opset.version for opset in proto.opset_import], proto.ir_version) == ([versions[0]], versions[1])


def test_versions_that_do_not_fit_are_one_line(tmp_path: Path) -> None:
    folder = searched(tmp_path / "s", dataset="missing")
    made(folder)
    for words, line in (
        (["onnx", "--opset", "21", "--ir-version", "8"], "opset 21 needs --ir-version 10 or more, not 8"),
        (["safetensors", "--format", "all", "--opset", "19", "--ir-version", "8"], "needs --ir-version 9 or more"),
        (["python", "--format", "onnx", "--opset", "19", "--ir-version", "8"], "needs --ir-version 9 or more"),
        (["onnx", "--opset", "17"], "17 is not in the range 18<=x<=25"),
        (["torch", "--fixed"], "--fixed is for --format onnx: leave it out"),
        (["python", "--ir-version", "9"], "--ir-version is for --format onnx: leave it out"),
    ):
        assert line in error_line(inline("export", str(folder), "--format", *words, code=2))
    assert sorted(path.name for path in (folder / "best").iterdir()) == [
        "architecture.json",
        "weights.safetensors",
    ]


def test_another_opset_than_the_wanted_one_is_no_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch only warns when it cannot convert a network to an opset."""
    real: Callable[..., Any] = torch.onnx.export
    monkeypatch.setattr(torch.onnx, "export", lambda *net, **words: real(*net, **words | {"opset_version": 18}))
    with pytest.raises(NasError, match="with opset 18, not 20: choose another --opset"):
        list(export(made(tmp_path), ["onnx"], tmp_path / "out", pictures(3, 1, 8, 8), Onnx(opset=20)))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["mnasnet0_5", "shufflenet_v2_x0_5"])  # mnasnet's weights have a version
def test_the_file_computes_the_same_function_and_not_only_nearly(name: str, tmp_path: Path) -> None:
    model = made(tmp_path, (Pretrained(name, weights=False),), (1, 32, 32))
    for file, content in FORMATS["python"].write(model).items():
        (tmp_path / file).write_bytes(content)
    copy, original = run_python(tmp_path).load().double(), model.network.double()
    x = pictures(8, 1, 32, 32)
    with torch.no_grad():  # in double precision, because single precision rounds away what may be wrong
        copy.mean, copy.std = original.mean, original.std
        torch.testing.assert_close(copy(x), original(x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", NETS)
def test_the_source_code_uses_what_it_imports_and_imports_what_it_uses(name: str, tmp_path: Path) -> None:
    path = tmp_path / "network.py"
    path.write_bytes(FORMATS["python"].write(made(tmp_path, *NETS[name]))["network.py"])
    options = ["--isolated", "--select=E,F,I", "--line-length=115", str(path)]
    done = subprocess.run([sys.executable, "-m", "ruff", "check", *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_what_a_stranger_calls_a_class_is_only_a_text(tmp_path: Path) -> None:
    names = ('"', "it's", '"\'"', '"""', "\\", "\n\u202e\x1b", "é🙂", "{x}", '", exit(1), "', "n" * 90)
    code = FORMATS["python"].write(made(tmp_path, classes=names, dataset='x"""\nexit(1)\\'))
    for name, content in code.items():
        (tmp_path / name).write_bytes(content)
    assert tuple(run_python(tmp_path).CLASSES) == tuple(names)
    for words in ("format", "check"):
        options = ["--isolated", "--line-length=120", *(["--check"] if words == "format" else [])]
        subprocess.run([sys.executable, "-m", "ruff", words, *options, str(tmp_path / "network.py")], check=True)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Larger and smaller than a frame of 24×32, or of its size; upright, wide, and very wide."""
    image_module = pytest.importorskip("PIL.Image")
    folder, random, paths = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0), []
    for height, width in ((375, 500), (500, 375), (13, 20), (20, 13), (24, 32), (48, 64), (40, 7), (1, 90)):
        coarse = random.integers(0, 256, (max(1, height // 5), max(1, width // 5), 3), dtype=np.uint8)
        image = image_module.fromarray(coarse).resize((width, height), image_module.Resampling.BICUBIC)
        paths.append(folder / f"{height}x{width}.jpg")
        image.save(paths[-1])
    return paths


@pytest.mark.faults
@pytest.mark.parametrize("framing", ["crop", "pad", "stretch"])
def test_exports_give_the_probabilities_of_predict_for_photographs_of_any_size(
    framing: str, photographs: list[Path], tmp_path: Path
) -> None:
    model = made(tmp_path, (Conv2d(4, 3, activation="relu"), MaxPool(2), Flatten()), (3, 24, 32), framing=framing)
    for form in ("onnx", "torch", "python"):
        for file, content in FORMATS[form].write(model).items():
            (tmp_path / (file or form)).write_bytes(content)
    exported = torch.export.load(tmp_path / "torch")
    runs = [run_onnx(tmp_path / "onnx"), exported.module(), run_python(tmp_path).load()]
    for path, prediction in zip(photographs, Classifier(model.best).predict(map(str, photographs)), strict=True):
        assert isinstance(prediction, Prediction)
        image = torch.from_numpy(decode(path).transpose(2, 0, 1)[None].copy())
        pixels = resized(image.float(), (24, 32), framing)
        assert np.array_equal(pixels[0].numpy(), prediction.picture.pixels)  # bit for bit
        for run in runs:
            found = run(image).double().softmax(1)[0].detach().numpy()
            assert np.abs(found - prediction.probabilities).max() < 1e-4


def test_an_export_that_resizes_in_another_way_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = made(tmp_path / "search", (Conv2d(4, 3, activation="relu"), Flatten()), (3, 24, 32), framing="crop")
    files = FORMATS["python"].write(model)
    files["network.py"] = files["network.py"].replace(b'SIZE, "crop")', b'SIZE, "pad")')
    monkeypatch.setitem(FORMATS, "python", FORMATS["python"]._replace(write=lambda _: files))
    with pytest.raises(NasError, match="does not agree with the original"):
        list(export(model, ["python"], tmp_path / "out", pictures(5, 3, 24, 32)))


def test_an_exported_model_runs_elsewhere_and_says_what_it_is(tmp_path: Path) -> None:
    import onnx

    model = made(tmp_path)
    done = list(export(model, ["onnx", "torch"], tmp_path, pictures(20, 1, 8, 8)))  # docs/use-the-winner.md: all
    assert [one.format for one in done] == ["onnx", "torch"]
    assert max(one.largest_difference for one in done) < TOLERANCE
    said = {one.key: one.value for one in onnx.load(tmp_path / "model.onnx").metadata_props}
    extra = {"nas.json": ""}
    torch.export.load(tmp_path / "model.pt2", extra_files=extra)
    assert json.loads(said["classes"]) == json.loads(extra["nas.json"])["classes"] == list(CLASSES)
    assert said["architecture"] == model.description.architecture.id


@pytest.mark.faults  # slow
def test_a_model_that_is_not_the_original_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = pictures(50, 1, 8, 8)
    before = write_python(made(tmp_path / "old"), tmp_path)
    model = made(tmp_path / "new", (*PLAIN, Dense(4, "relu")))

    def wrong(change: Callable[[str], str]) -> None:
        files = FORMATS["python"].write(model)
        files["network.py"] = change(files["network.py"].decode()).encode()
        monkeypatch.setitem(FORMATS, "python", FORMATS["python"]._replace(write=lambda _: files))

    with monkeypatch.context():
        wrong(lambda code: code.replace("return self.layers(x)", "return self.layers(x) + 2e-4"))
        with pytest.raises(NasError, match=r"not kept.* differs by 0\.0002 .* 0 of 52 classes differ"):
            list(export(model, ["python"], tmp_path, images))
        monkeypatch.undo()
        wrong(lambda code: code.replace("import torch\n", "import nas\nimport torch\n", 1))
        with pytest.raises(NasError, match=r"does not run: ModuleNotFoundError.* nas"):
            list(export(model, ["python"], tmp_path, images))
    assert {path: path.read_bytes() for path in (tmp_path / "python").glob("*.*")} == before
    assert not (tmp_path / DRAFT).exists()


def test_only_an_earlier_export_is_written_over(tmp_path: Path) -> None:
    model, images = made(tmp_path / "search"), pictures(2, 1, 8, 8)
    out = tmp_path / "out"
    write_python(model, out)
    list(export(model, ["python"], out, images))
    (out / "python/notes.txt").write_text("mine")
    (out / "model.onnx").write_text("mine")
    for name in ("python", "onnx"):
        with pytest.raises(UsageError, match="was not written by `nas export`"):
            list(export(model, [name], out, images))
    assert (out / "model.onnx").read_text() == (out / "python/notes.txt").read_text() == "mine"


def test_a_new_winner_does_not_stand_beside_exports_of_the_old_one(tmp_path: Path, blobs: Dataset) -> None:
    model = made(tmp_path)
    list(export(model, ["safetensors"], model.best, pictures(2, 1, 8, 8)))
    (model.best / "model.onnx").write_bytes(b"old")
    (model.best / "mine.txt").write_text("mine")
    same = tmp_path / "same"
    same.write_bytes((model.best / "weights.safetensors").read_bytes())
    write_best(model.best, model.description.architecture, same, blobs)
    assert (model.best / "model.onnx").exists()
    save_file({name: 2 * one for name, one in model.network.state_dict().items()}, tmp_path / "other")
    write_best(model.best, model.description.architecture, tmp_path / "other", blobs)
    left = {path.name for path in model.best.iterdir()}
    assert left == {"architecture.json", "weights.safetensors", "mine.txt"}


def test_a_full_disk_leaves_the_earlier_export(tmp_path: Path) -> None:
    images = pictures(2, 1, 8, 8)
    write_python(made(tmp_path / "small"), tmp_path)
    before = (tmp_path / "python/weights.pt").read_bytes()
    large = made(tmp_path / "large", (Flatten(), Dense(600)))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(NasError, match=r"python cannot be written \(File too large\): free some space"):
            list(export(large, ["python"], tmp_path, images))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "python/weights.pt").read_bytes() == before
    assert not (tmp_path / DRAFT).exists()


@pytest.mark.faults
def test_a_killed_export_leaves_nothing_in_place_and_is_repeated(tmp_path: Path) -> None:
    folder = searched(tmp_path / "search", dataset="nowhere")
    made(folder)
    words = ["export", str(folder), "--format", "python"]
    process = subprocess.Popen([*NAS, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    draft = folder / "best" / DRAFT
    while not draft.exists() and process.poll() is None:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert draft.exists()
    assert not (folder / "best/python").exists()
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 0, result.output
    assert (folder / "best/python/network.py").exists()
    assert not draft.exists()


SOURCE = '''
import numpy as np
from nas.data.dataset import Dataset, Split
from nas.data.plugin import DatasetPlugin

class Wide(DatasetPlugin):
    """Colours."""
    def __init__(self, folders, shade: int = 0):
        super().__init__(folders)
        self.shade = shade
    def load(self):
        raise AssertionError("not needed")
    def load_test(self):
        return Split.of(np.full((6, 3, 7, 12), self.shade, np.uint8), np.arange(6) % 2)
'''


def test_the_images_are_those_of_the_search_or_random_ones_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins/wide.py").write_text(SOURCE)
    options = {"dataset.shade": 7, "population": 4}
    folder = searched(
        tmp_path / "search", dataset="wide", options=options, data_dir=None, plugins=[str(tmp_path / "plugins")]
    )
    made(folder, PLAIN, (3, 7, 12))
    model = load_model(folder)
    found = images_for(folder, model, plugins=[tmp_path / "plugins"])
    assert found.note == ""
    assert found.images.shape == (6, 3, 7, 12)
    assert set(found.images.flatten().tolist()) == {7}

    stranger = images_for(folder, model)  # the journal names a folder of plugins, and its code does not run
    assert stranger.images.shape == (1000, 3, 7, 12)
    assert "1,000 random images" in stranger.note
    assert f"--plugins {tmp_path / 'plugins'}" in stranger.note

    (tmp_path / "mine").mkdir()
    strange = searched(tmp_path / "strange", dataset=str(tmp_path / "mine"), data_dir=None)
    made(strange, PLAIN, (3, 7, 12))
    assert "because the data are a path" in images_for(strange, load_model(strange)).note  # nobody looks into it

    other = made(tmp_path / "other", PLAIN, (1, 8, 8))
    assert "have another shape" in images_for(folder, other, plugins=[tmp_path / "plugins"]).note


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        ("unknown", "there is no search 'nowhere'"),
        ("no winner", "has no winner yet (interrupted): nas resume"),
        ("damaged", "does not hold a trained network: weights.safetensors"),
        ("unwritable", "cannot be written (Not a directory): make it writable, or write elsewhere with --out"),
        ("format", "'pickle' is not one of"),
    ],
)
def test_a_users_mistake_is_one_line(
    damage: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = searched(tmp_path / "search", dataset="nowhere", strategy="evolve")
    if damage != "no winner":
        weights = made(folder).best / "weights.safetensors"
        if damage == "damaged":
            weights.write_bytes(weights.read_bytes()[:-10])
    words = ["nowhere" if damage == "unknown" else str(folder)]
    words += ["--out", f"{folder / FILE}/below"] if damage == "unwritable" else []
    result = CliRunner().invoke(cli, ["export", *words, "--format", "pickle" if damage == "format" else "python"])
    assert result.exit_code == (2 if damage in ("unknown", "format") else 1)
    assert line in result.output
    assert "Traceback" not in result.output


def test_the_command_exports_the_winner_of_a_search(place: Path, tmp_path: Path) -> None:
    search = json.loads((place / "printed.json").read_text())["search"]
    done = inline("export", search, "--format=onnx", "--format=python", "--json", "--out", str(tmp_path))
    assert done.stderr == ""
    [line] = done.stdout.splitlines()
    formats = json.loads(line)["formats"]
    assert list(formats) == ["onnx", "python"]
    for one in formats.values():
        assert (one["images"], one["images_are"], one["same_classes"]) == (1000, "test", True)
        assert one["largest_difference"] < TOLERANCE
        path = Path(one["path"])
        assert one["bytes"] == sum(file.stat().st_size for file in (path.iterdir() if path.is_dir() else [path]))
