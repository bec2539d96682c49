"""Files from somebody else: they run no code, cannot eat the machine, and only ever end in our own error."""

from __future__ import annotations

import copy
import json
import math
import os
import pickle
import re
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import LOSS, finished, job
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file

from nas import plugins
from nas.architecture.architecture import (
    LARGEST_FILE,
    MAX_FLOPS,
    MAX_PARAMETERS,
    Architecture,
    Limits,
    distance,
)
from nas.architecture.backbones import BACKBONES
from nas.architecture.known import KNOWN, LECTURE
from nas.architecture.layers import (
    Cell,
    Conv2d,
    Dense,
    Flatten,
    Layer,
    Pretrained,
    ResidualBlock,
)
from nas.cli.console import QuietConsole, View
from nas.cli.main import cli
from nas.data.dataset import Dataset
from nas.errors import ArchitectureError, NasError, UsageError, plain, quoted
from nas.experiment import Experiment
from nas.objectives import scored
from nas.strategies.reference import Reference
from nas.training.network import Network
from nas.trial import Failure, Job, Trial
from nas.winner.best import load_network, write_best

NET = Architecture((Flatten(), Dense(4, "relu")))
SHAPE = (1, 8, 8)


def one_line(error: object) -> str:
    """The message, which a person can read: short, and without anything that a terminal obeys."""
    text = str(error)
    assert len(text) < 700, text[:1000]
    assert text == plain(text)
    assert "\n" not in text
    return text


# Limits


@pytest.mark.parametrize(
    ("size", "layers", "words"),
    [
        (28, [Flatten(), Dense(65_536), Dense(65_536)], "layer 3 (Dense 65536) on 65536: up to here the"),
        (28, [Flatten(), *[Dense(15_000)] * 900], "layer 7 (Dense 15000) on 15000: up to here the network has 1,"),
        (28, [Conv2d(65_536, 1), Conv2d(65_536, 1)], "parameters; 1,000,000,000 are the most"),
        (28, [ResidualBlock(65_536)], "parameters; 1,000,000,000 are the most"),
        (28, [Conv2d(2_000, 1), *[Cell(("nor_conv_3x3",) * 6)] * 100], "layer 6 (Cell conv3×3"),
        (28, [Conv2d(4_096, 1)] * 50, "network has 67,436,544 output values for one image; 67,108,864 are"),
        (224, [Conv2d(600, 1), Conv2d(600, 31, padding="same")], "flops; 10,000,000,000,000 are the most"),
    ],
)  # fmt: skip
def test_settings_that_are_harmless_one_by_one_are_refused_together(
    size: int, layers: list[Layer], words: str
) -> None:
    with pytest.raises(ArchitectureError, match=re.escape(words)) as caught:
        Architecture(tuple(layers)).table((1, size, size), 10)
    one_line(caught.value)


def test_every_network_that_somebody_designed_is_allowed() -> None:
    """With room to spare for the largest ones: three quarters more parameters, four times the operations."""
    most_parameters = most_flops = 0
    for architecture in (*KNOWN.values(), *(Architecture((Pretrained(name),)) for name in BACKBONES)):
        for size in (28, 224):
            rows = architecture.table((3, size, size), 1000)
            most_parameters = max(most_parameters, sum(row.parameters for row in rows))
            most_flops = max(most_flops, sum(row.flops for row in rows))
    assert 1.5 * most_parameters < MAX_PARAMETERS
    assert 4 * most_flops < MAX_FLOPS


def test_a_thousand_layers_are_compared_in_seconds() -> None:
    first, second = (Architecture(tuple(Conv2d(1 + i % n, 3) for i in range(1000))) for n in (5, 7))
    begun = time.monotonic()
    assert 0 < distance(first, second) <= 1000
    assert time.monotonic() - begun < 30  # 2 s on one core


# Files of architectures


def _written(content: bytes | str) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content.encode() if isinstance(content, str) else content)


FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing": (lambda path: None, "No such file"),
    "a folder": (Path.mkdir, "a folder, and should be a file"),
    "a pipe that nobody writes to": (os.mkfifo, "is a device or a pipe"),
    "a device that never ends": (lambda path: path.symlink_to("/dev/zero"), "is a device or a pipe"),
    "a terabyte": (lambda path: _sparse(path, 2**40), f"has more than {LARGEST_FILE:,} bytes"),
    "a link to itself": (lambda path: path.symlink_to(path), "cannot be read"),
    "no text": (_written(b'{"layers": ["\xff"]}'), "is not a text file: byte 14"),
    "no JSON": (_written("layers"), "this is no JSON"),
    "empty": (_written(""), "this is no JSON"),
    "deep": (_written("[" * 1_000_000), "this is no JSON"),
    "a long number": (_written('{"format": ' + "9" * 5000 + "}"), "this is no JSON"),
    "NaN": (_written('{"layers": [{"type": "Dropout", "rate": NaN}]}'), "NaN is no number"),
    "infinite": (_written('{"layers": [{"type": "Dropout", "rate": 1e999}]}'), "rate must be a fraction"),
    "twice": (_written('{"layers": [{"type": "Flatten"}], "layers": []}'), "'layers' is there twice"),
    "a long word": (_written(json.dumps({"layers": [{"type": "x" * 10**6}]})), "there is no layer 'xxx"),
    "a long value": (_written(json.dumps({"layers": [{"type": "Dense", "units": "x" * 10**6}]})), "not 'xxx"),
    "an escape": (_written(json.dumps({"layers": [{"type": "\x1b[31m\x07"}]})), "there is no layer"),
    "a class": (_written('{"layers": [{"type": "Layer"}]}'), "there is no layer 'Layer'"),
    "an attribute": (_written('{"layers": [{"type": "Dense", "units": 3, "__class__": 1}]}'), "no Dense setting"),
}  # fmt: skip


def _sparse(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.truncate(size)


@pytest.mark.parametrize(("make", "words"), FILES.values(), ids=FILES)
def test_a_file_that_is_no_architecture_is_one_line_for_everyone(
    tmp_path: Path, make: Callable[[Path], object], words: str
) -> None:
    folder = tmp_path / "search" / "best"
    folder.mkdir(parents=True)
    path = folder / "architecture.json"
    make(path)
    with pytest.raises(ArchitectureError, match=re.escape(words)) as caught:
        Architecture.read(path)
    assert str(path) in one_line(caught.value)
    with pytest.raises(NasError, match=re.escape(words)) as refused:
        load_network(folder)
    one_line(refused.value)
    result = CliRunner().invoke(cli, ["train", str(path), "--mlflow", "off"])
    assert result.exit_code in (1, 2)
    assert one_line(result.output.strip().splitlines()[-1]).startswith("nas: ")
    if path.exists() or path.is_symlink():
        with pytest.raises(UsageError) as proposed:
            Reference(Any, winners=tmp_path)  # type: ignore[arg-type]
        one_line(proposed.value)


# Weights


@pytest.fixture
def best(tmp_path: Path, blobs: Dataset) -> Path:
    """The folder of a trained network."""
    save_file(Network(NET, SHAPE, 3).state_dict(), tmp_path / "w")
    write_best(tmp_path / "best", NET, tmp_path / "w", blobs)
    return tmp_path / "best"


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def safetensors(tensors: dict[str, Any] | bytes, data: bytes = b"", length: int | None = None) -> bytes:
    """A file with any header."""
    header = tensors if isinstance(tensors, bytes) else json.dumps(tensors).encode()
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def entry(kind: str, shape: list[int], start: int, end: int) -> dict[str, Any]:
    return {"dtype": kind, "shape": shape, "data_offsets": [start, end]}


DENSE = "layers.2_dense.weight"  # 4×64


def _with(name: str, tensor: torch.Tensor | None) -> bytes:
    """The right weights, but for one."""
    state = {**Network(NET, SHAPE, 3).state_dict()}
    if tensor is None:
        del state[name]
    else:
        state[name] = tensor
    return save(state)


WEIGHTS: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "is damaged, or not a safetensors file"),
    "seven bytes": (lambda: b"1234567", "is damaged, or not a safetensors file"),
    "truncated": (lambda: _with(DENSE, torch.zeros(4, 64))[:-10], "is damaged"),
    "longer": (lambda: _with(DENSE, torch.zeros(4, 64)) + b"\0", "bytes of numbers, and the architecture needs"),
    "a long header": (lambda: safetensors(b" " * 100_000_000), "its header would have 100,000,000 bytes"),
    "a header of exabytes": (lambda: safetensors({}, length=2**63), "its header would have 9,223,372,036,"),
    "no JSON": (lambda: safetensors(b"{{{{"), "is damaged"),
    "a name of two lines": (
        lambda: safetensors({"a\nb": entry("F32", [2], 0, 8), "c": entry("F32", [2], 4, 12)}, b"\0" * 12),
        "is damaged",
    ),
    "no tensors": (lambda: safetensors({}), "the weights lack mean"),
    "declares terabytes": (lambda: safetensors({DENSE: entry("F32", [2**20, 2**20], 0, 2**42)}), "is damaged"),
    "overflows": (lambda: safetensors({DENSE: entry("F32", [2**40, 2**40], 0, 8)}, b"\0" * 8), "is damaged"),
    "overlaps": (
        lambda: safetensors({"a": entry("F32", [2], 0, 8), "b": entry("F32", [2], 4, 12)}, b"\0" * 12),
        "is damaged",
    ),
    "another shape": (lambda: _with(DENSE, torch.zeros(64, 4)), "as F32 [64, 4], and it should be F32 [4, 64]"),
    "another kind": (lambda: _with(DENSE, torch.zeros(4, 64, dtype=torch.float16)), f"{DENSE} as F16 [4, 64]"),
    "one too few": (lambda: _with(DENSE, None), f"the weights lack {DENSE}"),
    "one too many": (
        lambda: _with("\x1b[31mx", torch.zeros(0)),
        "the weights have '\\x1b[31mx', which the architecture does not have",
    ),
    "NaN": (lambda: _with(DENSE, torch.full((4, 64), math.nan)), f"{DENSE} holds NaN or infinity"),
    "infinity": (lambda: _with("mean", torch.full((1, 1, 1), -math.inf)), "mean holds NaN or infinity"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "words"), WEIGHTS.values(), ids=WEIGHTS)
def test_weights_that_are_not_the_architecture_s_are_refused(
    best: Path, make: Callable[[], bytes], words: str
) -> None:
    (best / "weights.safetensors").write_bytes(make())
    with pytest.raises(NasError, match=re.escape(words)) as caught:
        load_network(best)
    assert "does not hold a trained network" in one_line(caught.value)


@pytest.mark.parametrize("how", ["pickle", "torch", "zip"])
def test_a_pickle_in_place_of_weights_is_not_loaded(best: Path, tmp_path: Path, how: str) -> None:
    weights, mark = best / "weights.safetensors", tmp_path / "it ran"
    if how == "pickle":
        weights.write_bytes(pickle.dumps(Payload(mark)))
    elif how == "torch":
        torch.save({"a": Payload(mark)}, weights)
    else:
        with zipfile.ZipFile(weights, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(Payload(mark)))
    with pytest.raises(NasError, match="is damaged, or not a safetensors file"):
        load_network(best)
    assert not mark.exists()
    pickle.loads(pickle.dumps(Payload(mark)))
    assert mark.exists()  # so it would have


def test_weights_that_are_no_file_are_refused(best: Path) -> None:
    weights = best / "weights.safetensors"
    for make, words in ((Path.mkdir, "is not a file"), (os.mkfifo, "is not a file"), (None, "No such file")):
        if weights.is_dir():
            weights.rmdir()
        else:
            weights.unlink()
        if make is not None:
            make(weights)
        else:
            weights.symlink_to("nowhere")
        with pytest.raises(NasError, match=words):
            load_network(best)


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({"input_shape": [1, 8, 8, 8]}, "input_shape is [1, 8, 8, 8], and should be"),
        ({"input_shape": [1, 8, -8]}, "input_shape is [1, 8, -8]"),
        ({"input_shape": [1, 8, True]}, "input_shape is [1, 8, True]"),
        ({"input_shape": [1, 8, 8.0]}, "input_shape is [1, 8, 8.0]"),
        ({"input_shape": [10**9, 8, 8]}, "channels (at most 1,000) and up to two sizes (at most 4,096)"),
        ({"input_shape": [1, 8, 10**30]}, "and should be channels"),
        ({"input_shape": [1000, 4096, 4096]}, "layer 1 (Flatten) on 4096×4096×1000: up to here the network has"),
        ({"input_shape": None}, "input_shape is None"),
        ({"input_shape": "8" * 10**6}, "input_shape is '8888"),
        ({"classes": []}, "there are no classes"),
        ({"classes": "abc"}, "classes is 'abc'"),
        ({"classes": [1, 2, 3]}, "a class is 1"),
        ({"classes": ["\ud800"]}, "surrogates not allowed"),
        ({"classes": ["x"] * 65_537}, "a list of at most 65,536"),
        ({"layers": [{"type": "Flatten"}, *[{"type": "Dense", "units": 65_536}] * 3]}, "layer 3 (Dense 65536)"),
    ],
)
def test_what_a_trained_network_says_of_its_images_is_checked(
    best: Path, about: dict[str, Any], words: str
) -> None:
    path = best / "architecture.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **about}))
    with pytest.raises(NasError, match=re.escape(words)) as caught:
        load_network(best)
    one_line(caught.value)


@pytest.mark.skipif(sys.platform != "linux", reason="the memory of a process is limited as Linux does it")
def test_nothing_is_allocated_for_what_is_refused(best: Path) -> None:
    """A gibibyte more than torch itself takes is enough to refuse what describes 400, 4 and 2.6, in a moment."""
    wide = {
        "layers": [{"type": "Flatten"}, {"type": "Dense", "units": 65_536}, {"type": "Dense", "units": 14_000}]
    }
    about = json.loads((best / "architecture.json").read_text())
    allowed: dict[str, dict[str, Any]] = {
        "wide": wide,
        "regnet": {"layers": [{"type": "Pretrained", "model": "regnet_y_128gf"}]},
    }
    for name, layers in allowed.items():  # of 9.2 and 6.4 · 10⁸ parameters
        (best / name).mkdir()
        (best / name / "architecture.json").write_text(json.dumps({**about, **layers}))
        (best / name / "weights.safetensors").write_bytes((best / "weights.safetensors").read_bytes())
    huge = {"layers": [{"type": "Flatten"}, *[{"type": "Dense", "units": 65_536}] * 900]}
    (best / "architecture.json").write_text(json.dumps({**about, **huge}))
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from nas.winner.best import load_network\n"
        "import nas.training.network, torchvision.models\n"
        "pages = int(Path('/proc/self/statm').read_text().split()[0])\n"
        "limit = pages * resource.getpagesize() + 2**30\n"
        "resource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n"
        "for best in sys.argv[1:]:\n"
        "    try: load_network(Path(best))\n"
        "    except Exception as error: print(type(error).__name__, error)\n"
    )
    words = [sys.executable, "-c", code, str(best), *(str(best / name) for name in allowed)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)
    first, second, third = done.stdout.splitlines()
    assert first.startswith("NasError")
    assert "parameters; 1,000,000,000 are the most" in first
    assert second.startswith("NasError")
    assert f"{DENSE} as F32 [4, 64], and it should be F32 [65536, 64]" in second
    assert "the weights lack layers.1_backbone" in third


# Experiments


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = '" + "x" * 2**20 + "'", "has more than 1,048,576 bytes"),
        ("trials = " + "[" * 50_000, "is no TOML"),
        ("options = " + "{a = " * 50_000, "is no TOML"),
        ("trials = 0x" + "f" * 60_000, "trials = "),
        ("trials = " + "9" * 5_000, "is no TOML"),
        ("x" * 100_000 + " = 1", "there is no setting 'xxx"),
        ('"' + "x" * 100_000 + '" = 1\n"' + "x" * 100_000 + '" = 2', "is no TOML: Cannot overwrite"),
        ('strategy = "' + "x" * 100_000 + '"', "strategy = 'xxx"),
        ('strategy = "\\u001b[31m"\ntrials = 0', "trials = 0"),
        ("time_limit = inf", "time_limit = inf: input should be"),
        ("time_limit = nan", "time_limit = nan: input should be"),
        (f'time_limit = "{"9" * 400}h"', "a time is written like 90s, 10m or 1h30m"),
        ('time_limit = "999999999h"', "input should be less than or equal to"),
        ('time_limit = "１２s"', "a time is written like"),
        ("time_limit = 2026-11-22T15:30:00Z", "time_limit = datetime.datetime(2026"),
        ("epochs = nan", "epochs = nan"),
        ("epochs = inf", "epochs = inf"),
        ("trials = {a = 1}", "trials = {'a': 1}"),
        ("[[trials]]\na = 1", "trials = [{'a': 1}]"),
        ("[strategy.deep.deeper]\na = 1", "strategy = {'deep': {"),
        ("options = 3", "options = 3"),
        ("[[options]]\na = 1", "options = [{'a': 1}]"),
        ("[options.space]\na = {b = 1}", "option space.a = {'b': 1}: should be a number, text"),
        ("[options]\na = 07:32:00", "should be a number, text"),
        ("[options]\nmutation = nan", "option mutation = nan: should be a finite number"),
        ("[options]\npopulation = 0x" + "f" * 60_000, "should be a number of at most 64 bits"),
        ("[options]\n" + "x" * 100_000 + " = []", "should be a number, text"),
        ('objectives = "parameters"', "objectives = 'parameters'"),
        ("objectives = [1]", "objectives = 1"),
        ('objectives = ["' + "x" * 100_000 + '"]', "there is no metric 'xxx"),
        ('device = "cuda:²"', "a device is written like cuda:1"),
        ('device = "cuda:' + "9" * 5_000 + '"', "device = 'cuda:999"),
        ('data_dir = "a\\u0000b"', "no path can be like this"),
        ('data_dir = "' + "x" * 300 + '"', "no path can be like this"),
        ('plugins = ["a\\u0000b"]', "no path can be like this"),
        ("plugins = 3", "plugins = 3"),
        ("seed = -1", "seed = -1"),
        ("model_config = {}", "there is no setting 'model_config'"),
        ("_file = 1", "there is no setting '_file'"),
        ("self = 1", "there is no setting 'self'"),
        ("\ufeffseed = 1", "is no TOML"),
    ],
)  # fmt: skip
def test_an_experiment_of_a_stranger_is_refused_in_one_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "theirs.toml"
    path.write_text(text, encoding="utf-8")
    begun = time.monotonic()
    with pytest.raises(NasError) as caught:
        Experiment.read(path)
    assert words in one_line(caught.value)
    assert time.monotonic() - begun < 10


def test_an_experiment_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "binary.toml").write_bytes(b"seed = 1\n\xff\xfe")
    os.mkfifo(tmp_path / "pipe.toml")
    for name in ("binary.toml", "pipe.toml", "absent.toml", "."):
        with pytest.raises(NasError):
            Experiment.read(tmp_path / name)


def test_the_time_to_read_an_experiment_is_bounded(tmp_path: Path) -> None:
    """The slowest files that are allowed: keys of 100 parts, 100,000 options, 100,000 unknown settings."""
    texts = (
        "\n".join(f"[a{i}{'.a' * 99}]" for i in range(4_000)),
        "[options]\n" + "\n".join(f"a{i}=1" for i in range(100_000)),
        "\n".join(f"a{i}=1" for i in range(100_000)),
    )
    path = tmp_path / "theirs.toml"
    for text in texts:
        path.write_text(text)
        begun = time.process_time()
        try:
            Experiment.read(path).place("a1")
        except NasError as error:
            one_line(error)
        assert time.process_time() - begun < 15  # 1 to 2 s on one core


EVIL = """from pathlib import Path
from nas.strategies.strategy import Strategy

Path(__file__).with_suffix(".ran").touch()


class Evil(Strategy):
    def ask(self, count):
        return []
"""


def test_a_file_names_only_those_plugins_that_the_caller_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "evil.py").write_text(EVIL)
    ran = folder / "evil.ran"
    path = tmp_path / "search.toml"
    path.write_text(f"strategy = 'evil'\nplugins = ['{folder}']\n")
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli, ["search", str(path), "--mlflow", "off"])
    assert result.exit_code == 2
    assert result.output.strip().splitlines()[-1] == (
        f"nas: {path}, line 2: it names the plugin folder {folder}, whose code would run: "
        f"add --plugins {folder} if you trust it"
    )
    assert not ran.exists()

    assert Experiment.read(path, plugins=(Path("theirs/../theirs"),)).plugins  # the same folder, spelled otherwise
    (tmp_path / "link").symlink_to(folder)
    assert Experiment.read(path, plugins=(tmp_path / "link",)).plugins
    with pytest.raises(UsageError, match="would run"):
        Experiment.read(path, plugins=(tmp_path,))
    monkeypatch.setenv("NAS_PLUGINS", str(folder))
    experiment = Experiment.read(path)
    assert not ran.exists()
    assert plugins.find("strategy", experiment.strategy, experiment.plugins).__name__ == "Evil"
    assert ran.exists()


def test_a_name_never_leaves_the_plugin_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "evil.py").write_text(EVIL)
    inside = tmp_path / "inside"
    (inside / "plugins").mkdir(parents=True)
    monkeypatch.chdir(inside)
    places = ("../evil", "../../evil", str(tmp_path / "evil"), str(tmp_path / "evil.py"), "plugins/../../evil")
    for name in (*places, "..", "", "/etc/passwd", "a\0b", "a\nb", "x" * 10_000, "evil\0.py", "os", "\x1b[31m"):
        for kind in plugins.KINDS:
            with pytest.raises(UsageError, match=f"there is no {kind} ") as caught:
                plugins.find(kind, name)
            one_line(caught.value)
        for setting in ("strategy", "space", "dataset", "evaluator", "recipe"):
            with pytest.raises(UsageError) as refused:
                Experiment.of(**{"mlflow": "off", "dataset": "mnist-5k", setting: name}).run(inside / "out")
            one_line(refused.value)
        for command in (["plugins", "new", name], ["plugins", "check", name]):
            result = CliRunner().invoke(cli, ["--", *command] if name.startswith("-") else command)
            assert result.exit_code in (1, 2)
            assert len(result.output) < 1_000
    assert not (tmp_path / "evil.ran").exists()
    assert sorted(path.name for path in tmp_path.rglob("*") if path.name != "__pycache__") == [
        "evil.py", "inside", "plugins",
    ]  # fmt: skip


def test_a_new_plugin_is_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "mine.py").symlink_to(tmp_path / "elsewhere")
    result = CliRunner().invoke(cli, ["plugins", "new", "mine", "--folder", str(tmp_path)])
    assert result.exit_code == 2
    assert "is there already" in result.output
    assert not (tmp_path / "elsewhere").exists()


# Trials


def trial_dict() -> dict[str, Any]:
    return json.loads(json.dumps(finished(job(LECTURE, 0.25)).to_dict()))  # type: ignore[no-any-return]


def changed(path: str, value: Any) -> dict[str, Any]:
    """A trial with something else at a place, given as keys with slashes; ... removes it."""
    data: Any = trial_dict()
    inner = data
    *names, last = path.split("/")
    for name in names:
        inner = inner[int(name) if isinstance(inner, list) else name]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return data  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("job", None), ("job", ...), ("job/seed", -1), ("job/seed", 2**64), ("job/seed", 1.0), ("job/seed", True),
        ("job/seed", "1"), ("job/epochs", 0), ("job/epochs", -1), ("job/epochs", True), ("job/epochs", math.nan),
        ("job/epochs", math.inf), ("job/epochs", 2e6), ("job/epochs", 10**400), ("job/epochs", "1"),
        ("job/epochs", [1]), ("metrics", None), ("metrics", []), ("metrics", ...), ("metrics/parameters", "1"),
        ("metrics/parameters", None), ("metrics/parameters", True), ("metrics/parameters", math.nan),
        ("metrics/parameters", -math.inf), ("metrics/parameters", 10**400), ("metrics/parameters", {}),
        ("metrics/" + "x" * 2000, 1.0), ("metrics/\ud800", 1.0), ("curve", None), ("curve", {}), ("curve", [1]),
        ("curve", [{"epoch": "1"}]), ("curve", [{"epoch": math.inf}]), ("curve", [{}] * 100_001), ("curve", ...),
        ("failure", {}), ("failure", []), ("failure", "crash"), ("failure", {"kind": "crash"}),
        ("failure", {"kind": "none", "message": ""}), ("failure", {"kind": [], "message": ""}),
        ("failure", {"kind": "crash", "message": None}), ("failure", {"kind": "crash", "message": "x" * 10**6}),
        ("failure", ...), ("job/candidate", []), ("job/candidate/architecture", None),
        ("job/candidate/architecture", {"layers": [{"type": "Dense", "units": 0}]}),
        ("job/candidate/choices", []), ("job/candidate/choices", {"\x1f": []}),
        ("job/candidate/choices", {"a": math.nan}),
        ("job/candidate/choices", {"a": 10**400}), ("job/candidate/choices", {"a": "\ud800"}),
        ("job/candidate/choices", {str(i): 1 for i in range(10_001)}), ("job/candidate/parents", "abc"),
        ("job/candidate/parents", [1]), ("job/candidate/parents", None), ("job/candidate/origin", None),
        ("job/candidate/origin", "x" * 10_000), ("job/candidate/origin", ...),
    ],
)  # fmt: skip
def test_a_trial_that_is_none_is_refused(path: str, value: Any) -> None:
    with pytest.raises((ValueError, ArchitectureError)) as caught:
        Trial.from_dict(changed(path, value))
    one_line(caught.value)


@pytest.mark.parametrize("data", [None, [], 3, "trial", {}, {"job": 1, "metrics": 2, "curve": 3, "failure": 4}])
def test_what_is_no_trial_at_all_is_refused(data: object) -> None:
    for kind in (Trial, Job):
        with pytest.raises(ValueError):
            kind.from_dict(data)


def test_a_journal_of_a_thousand_trials_is_read_at_once() -> None:
    point = finished(job(LECTURE)).curve[0]
    data = json.loads(json.dumps(replace(finished(job(LECTURE)), curve=(point,) * 12).to_dict()))
    begun = time.process_time()
    for _ in range(1_000):
        Trial.from_dict(data)
    assert time.process_time() - begun < 3  # 0.15 s on one core


def test_jobs_that_differ_have_different_keys_and_a_key_is_a_file_s_name() -> None:
    epochs = (0.1, 1 / 3, 0.3333333, 1.0, 1_000_000.25, 1_000_000.5, 1e-7, 1e6, 5e-324)
    keys = [job(LECTURE, one).key for one in epochs]
    assert len({*keys}) == len(epochs)
    assert job(LECTURE, 1).key == job(LECTURE, 1.0).key == f"{LECTURE.id}-1-1"
    assert all(re.fullmatch(r"[0-9a-f]{12}-[0-9.e-]{1,24}-[0-9]{1,20}", key) for key in keys)


# What evaluators measure


@pytest.mark.parametrize(
    "value", [math.nan, -math.inf, "0.3", None, True, 10**400, [], np.float32("nan"), np.array([1.0]), b"1", 1j]
)
@pytest.mark.parametrize("where", ["metric", "curve"])
def test_what_is_no_finite_number_is_a_failure_of_its_trial(value: Any, where: str) -> None:
    good = finished(job(LECTURE), 0.3)
    if where == "metric":
        bad = replace(good, metrics={**good.metrics, "latency_ms": value})
    else:
        bad = replace(good, curve=(*good.curve, {**good.curve[0], "latency_ms": value}, *good.curve))
    trial = scored(bad, LOSS)
    assert trial.scores == ()
    assert trial.failure is not None
    assert trial.failure.kind == "not_finite"
    assert "latency_ms is " in one_line(trial.failure.message)
    assert trial.curve == good.curve
    for one in (trial, bad):  # whoever writes it down
        text = json.dumps(one.to_dict(), allow_nan=False)
        assert Trial.from_dict(json.loads(text)) == trial


def test_numbers_of_numpy_are_turned_into_python_s() -> None:
    good = finished(job(LECTURE), 0.25)
    metrics: dict[str, Any] = {**good.metrics, "validation_loss": np.float32(0.25), "parameters": np.int64(100)}
    trial = scored(replace(good, metrics=metrics, curve=({"epoch": np.float64(1)},)), LOSS)
    assert trial.scores == (-0.25,)
    assert {type(value) for value in (*trial.metrics.values(), *trial.curve[0].values(), *trial.scores)} == {float}


@pytest.mark.parametrize(
    "change",
    [
        {"metrics": None}, {"metrics": [1]}, {"metrics": {1: 2.0}}, {"metrics": {}}, {"curve": None},
        {"curve": 3}, {"curve": ([],)}, {"curve": ({"\ud800": 1.0},)}, {"failure": "it broke"},
        {"failure": Failure("strange", "x\x1b[31m" * 1000)}, {"failure": Failure("oom", None)},  # type: ignore[arg-type]
    ],
)  # fmt: skip
def test_whatever_an_evaluator_returns_is_a_failed_trial_that_can_be_written_down(change: dict[str, Any]) -> None:
    trial = scored(replace(finished(job(LECTURE), 0.3), **change), LOSS)
    assert trial.failure is not None
    one_line(trial.failure.message)
    assert Trial.from_dict(json.loads(json.dumps(trial.to_dict(), allow_nan=False))) == trial


def test_a_score_that_is_not_finite_is_a_failure() -> None:
    fast = finished(job(LECTURE, 1e-300), 0.3)
    objective = replace(LOSS[0], metric="train_seconds")
    trial = scored(replace(fast, metrics={**fast.metrics, "train_seconds": 1e300}), (objective,))
    assert trial.failure is not None
    assert "the score of -train_seconds is -inf" in trial.failure.message


# What a person sees


def test_a_message_from_elsewhere_is_neither_markup_nor_obeyed_by_the_terminal() -> None:
    evil = "[/bold] [red]x :smile: \x1b]0;owned\x07\x9b31m\u202e"
    one = job(LECTURE)
    one = replace(one, candidate=replace(one.candidate, origin=evil))
    screen = StringIO()
    console = QuietConsole(stderr=True, highlight=False)
    console.file = screen
    view = View(console)
    failed = Trial(one, failure=Failure("crash", evil))
    view.told(failed)
    view.told(scored(finished(one, 0.3), LOSS))
    view.trained(scored(finished(one, 0.3), LOSS))
    view.warned(evil)
    shown = screen.getvalue()
    assert shown.count("[/bold] [red]x :smile: ") == 4
    assert not set(shown) & set("\x1b\x07\x9b\u202e")


def test_the_list_of_plugins_shows_what_a_file_says_and_does_not_obey_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plugins").mkdir()
    text = EVIL.replace("(Strategy):", '(Strategy):\n    """[red] \\x1b[31m\\x07"""')
    (tmp_path / "plugins" / "evil.py").write_text(text)
    result = CliRunner().invoke(cli, ["plugins", "list"])
    assert "[red] \ufffd[31m\ufffd" in result.output
    assert not (tmp_path / "plugins" / "evil.ran").exists()


def test_quoted_is_short_and_plain() -> None:
    deep: list[Any] = []
    for _ in range(10_000):
        deep = [deep]
    for value in (10**5000, "x" * 10**6, ["x" * 10**6] * 1000, deep, {"a": deep}, "\x1b[31m", "\ud800", object()):
        assert len(one_line(quoted(value))) <= 120
    assert quoted("Conv2D") == "'Conv2D'"
    assert quoted([3]) == "[3]"


# Fuzzing: 10,400 files and trials in all

NASTY: list[Any] = [
    None, True, False, 0, 1, -1, 3, 65_536, 65_537, 2**31, 2**63, 2**64, 10**30, 10**400, 0.5, -0.0, 1e308, 1e-320,
    math.nan, math.inf, -math.inf, "", "x", "x" * 3_000, "\0", "\x1b[31m", "\ud800", "../x", "Flatten", "Dense",
    "Pretrained", "vit_h_14", "same", "maxout", "1e999", [], {}, [[]], [1, 2, 3],
    {"type": "Dense", "units": 65_536}, [{}] * 20,
    {"type": "Conv2d", "filters": 65_536, "kernel": 65_535, "padding": "same"},
]  # fmt: skip
words = st.sampled_from(
    [
        "type", "units", "filters", "kernel", "stride", "padding", "activation", "layers", "format", "rate", "job",
        "epochs", "seed", "metrics", "curve", "failure", "kind", "message", "choices", "parents", "origin",
        "classes", "input_shape", "options", "plugins", "trials", "time_limit", "objectives", "data_dir",
        "__class__", "",
    ]
)  # fmt: skip
anything = st.one_of(
    st.sampled_from(NASTY),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(words | st.text(max_size=5), inner, max_size=3)
        ),
        max_leaves=5,
    ),
).map(copy.deepcopy)


@st.composite
def mutants(draw: st.DrawFn, data: Any) -> Any:
    """Plain data with one to three changes, each at any depth: replaced, removed, added, repeated."""
    data = json.loads(json.dumps(data))
    for _ in range(draw(st.integers(1, 3))):
        here: Any = None
        name: Any = ""
        inner: Any = data
        while isinstance(inner, dict | list) and inner and draw(st.integers(0, 4)):
            here = inner
            name = draw(
                st.sampled_from(sorted(inner)) if isinstance(inner, dict) else st.integers(0, len(inner) - 1)
            )
            inner = here[name]
        what = draw(st.integers(0, 5))
        if what == 0 and name != "":
            del here[name]
        elif what == 1 and isinstance(inner, dict):
            inner[draw(words)] = draw(anything)
        elif what == 2 and isinstance(inner, list):
            inner.extend(inner[:1] * draw(st.sampled_from([1, 10, 1_000])))
        elif name == "":
            data = draw(anything)
        else:
            here[name] = draw(anything)
    return data


def fuzz(examples: int) -> settings:
    """The same examples every time."""
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )


def bytes_of(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def raw(*valid: bytes) -> st.SearchStrategy[bytes]:
    """Bytes, most of them a valid file of which a part was replaced."""

    @st.composite
    def damaged(draw: st.DrawFn) -> bytes:
        content = draw(st.sampled_from(valid))
        start = draw(st.integers(0, len(content)))
        end = min(len(content), start + draw(st.sampled_from([0, 1, 1, 4, 50])))
        return content[:start] + draw(st.binary(max_size=12)) + content[end:]

    return damaged() | st.binary(max_size=200)


SMALL_RESNET = KNOWN["small-resnet"]
BASES = [SMALL_RESNET.to_dict(), Architecture((Cell(("none",) * 6), Flatten(), Dense(9, "maxout"))).to_dict()]
ARCHITECTURES = [json.dumps(base).encode() for base in BASES]


def read_architecture(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    try:
        architecture = Architecture.read(path)
        assert Architecture.from_json(architecture.to_json()) == architecture
        str(architecture.layers)
        for shape in ((1, 28, 28), (1000, 4096, 4096)):
            Limits(shape).allow(architecture)
        architecture.table((3, 32, 32), 10)
    except NasError as error:
        one_line(error)


@pytest.mark.faults
@given(content=st.sampled_from(BASES).flatmap(mutants).map(json.dumps).map(bytes_of))
@fuzz(2_500)
def test_fuzzed_architectures(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    read_architecture(tmp_path_factory.getbasetemp() / "architecture.json", content)


@pytest.mark.faults
@given(content=raw(*ARCHITECTURES))
@fuzz(1_000)
def test_fuzzed_bytes_of_architectures(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    read_architecture(tmp_path_factory.getbasetemp() / "architecture.json", content)


EXPERIMENT: dict[str, Any] = {
    "strategy": "evolve", "space": "cnn", "dataset": "mnist-5k", "trials": 3, "time_limit": "10m", "epochs": 0.5,
    "objectives": ["-validation_loss", "-parameters"], "max_parameters": 10, "batch": 4, "rungs": 2, "workers": 2,
    "device": "cpu", "seed": 1, "options": {"population": 9, "space.cells": 2, "dataset": {"size": 3}},
    "data_dir": "data", "mlflow": "off", "plugins": [], "recipe": "default", "evaluator": "local",
}  # fmt: skip


def toml(value: Any) -> str:
    """Plain data as TOML; what TOML does not have becomes something else that it has."""
    match value:
        case None:
            return "2026-11-22T15:30:00+01:00"
        case bool():
            return str(value).lower()
        case int():
            return hex(value) if value > 2**70 else str(value)
        case float():
            return repr(value)
        case str():
            return json.dumps(value, ensure_ascii=False)
        case list():
            return f"[{', '.join(map(toml, value))}]"
    return "{" + ", ".join(f"{json.dumps(str(key))} = {toml(one)}" for key, one in value.items()) + "}"


def toml_file(values: Any) -> bytes:
    if not isinstance(values, dict):
        return bytes_of(toml(values))
    return bytes_of("\n".join(f"{json.dumps(str(key))} = {toml(value)}" for key, value in values.items()))


def read_experiment(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    try:
        experiment = Experiment.read(path)
        again = path.with_name("again.toml")
        again.write_text(experiment.to_toml(), encoding="utf-8")
        assert Experiment.read(again).model_dump() == experiment.model_dump()
        for name in experiment.options:
            experiment.place(name)
    except NasError as error:
        one_line(error)


@pytest.mark.faults
@given(content=mutants(EXPERIMENT).map(toml_file))
@fuzz(2_000)
def test_fuzzed_experiments(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    read_experiment(tmp_path_factory.getbasetemp() / "search.toml", content)


@pytest.mark.faults
@given(content=raw(toml_file(EXPERIMENT), b"trials = 3\n[options]\npopulation = 9\n[[a.b]]\nc = 2026-01-01\n"))
@fuzz(1_000)
def test_fuzzed_bytes_of_experiments(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    read_experiment(tmp_path_factory.getbasetemp() / "search.toml", content)


STATE = save(Network(NET, SHAPE, 3).state_dict())
HEADER = json.loads(STATE[8 : 8 + int.from_bytes(STATE[:8], "little")])


def refuse_weights(folder: Path, content: bytes) -> None:
    """Load what may be weights; they are finite if they are loaded."""
    if not (folder / "architecture.json").exists():
        about = {**NET.to_dict(), "input_shape": list(SHAPE), "classes": ["a", "b", "c"]}
        (folder / "architecture.json").write_text(json.dumps(about))
    (folder / "weights.safetensors").write_bytes(content)
    try:
        network = load_network(folder)
    except NasError as error:
        one_line(error)
    else:
        assert all(tensor.isfinite().all() for tensor in network.state_dict().values())


@pytest.mark.faults
@given(header=mutants(HEADER), length=st.sampled_from([None, None, None, 0, 8, 2**20, 2**40, 2**64 - 1]))
@fuzz(1_000)
def test_fuzzed_headers_of_weights(
    tmp_path_factory: pytest.TempPathFactory, header: Any, length: int | None
) -> None:
    data = STATE[8 + int.from_bytes(STATE[:8], "little") :]
    content = safetensors(json.dumps(header).encode(), data, length)
    refuse_weights(tmp_path_factory.getbasetemp(), content)


@pytest.mark.faults
@given(content=raw(STATE))
@fuzz(900)
def test_fuzzed_bytes_of_weights(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    refuse_weights(tmp_path_factory.getbasetemp(), content)


@pytest.mark.faults
@given(data=mutants(trial_dict()))
@fuzz(2_000)
def test_fuzzed_trials(data: Any) -> None:
    try:
        trial = Trial.from_dict(data)
    except (ValueError, ArchitectureError) as error:
        one_line(error)
        return
    assert re.fullmatch(r"[0-9a-f]{12}-[0-9.e-]{1,24}-[0-9]{1,20}", trial.job.key)
    kept = scored(trial, LOSS)
    assert kept.failure is not None or all(map(math.isfinite, kept.scores))
    assert Trial.from_dict(json.loads(json.dumps(kept.to_dict(), allow_nan=False))) == replace(kept, scores=())
