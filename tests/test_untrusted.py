"""Files from somebody else: they run no code, cannot eat the machine, and only ever end in our own error."""

from __future__ import annotations

import copy
import json
import math
import os
import pickle
import re
import resource
import struct
import sys
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
from nas.architecture.architecture import LARGEST_FILE, Architecture
from nas.architecture.backbones import BACKBONES
from nas.architecture.known import KNOWN, LECTURE, NETWORKS, SERIES, TEXTS
from nas.architecture.layers import Conv2d, Dense, Flatten, Layer, Pretrained
from nas.cli.console import QuietConsole
from nas.cli.main import cli
from nas.cli.view import View
from nas.data.dataset import Dataset
from nas.errors import ArchitectureError, NasError, UsageError, plain, quoted
from nas.experiment import Experiment
from nas.objectives import scored
from nas.spaces.cnn import Cnn
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
        (28, [Conv2d(4_096, 1)] * 50, "network has 67,436,544 output values for one input; 67,108,864 are"),
        (224, [Conv2d(600, 1), Conv2d(600, 31, padding="same")], "flops; 10,000,000,000,000 are the most"),
    ],
)
def test_settings_that_are_harmless_one_by_one_are_refused_together(
    size: int, layers: list[Layer], words: str
) -> None:
    with pytest.raises(ArchitectureError, match=re.escape(words)) as caught:
        Architecture(tuple(layers)).table((1, size, size), 10)
    one_line(caught.value)


def test_every_network_that_somebody_designed_is_within_the_limits() -> None:
    for known, shape in ((SERIES, (12, 1_500)), (TEXTS, (1_000,))):
        for architecture in known.values():
            assert architecture.table(shape, 100)[-1].shape == (100,)
    images = [network for name, network in NETWORKS.items() if name not in SERIES | TEXTS]
    for architecture in (*images, *(Architecture((Pretrained(name),)) for name in BACKBONES)):
        assert architecture.table((3, 224, 224), 1000)[-1].shape == (1000,)


# Files of architectures


def _written(content: bytes | str) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content.encode() if isinstance(content, str) else content)


FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing": (lambda path: None, "No such file"),
    "a folder": (Path.mkdir, "a folder, and should be a file"),
    "a pipe that nobody writes to": (os.mkfifo, "is a device or a pipe"),
    "a device that never ends": (lambda path: path.symlink_to("/dev/zero"), "is a device or a pipe"),
    "too large": (lambda path: path.write_bytes(b" " * (LARGEST_FILE + 1)), f"more than {LARGEST_FILE:,} bytes"),
    "no text": (_written(b'{"layers": ["\xff"]}'), "is not a text file: byte 14"),
    "no JSON": (_written("layers"), "this is not JSON"),
    "deep": (_written("[" * 1_000_000), "this is not JSON"),
    "NaN": (_written('{"layers": [{"type": "Dropout", "rate": NaN}]}'), "NaN is not a number"),
    "a long word": (_written(json.dumps({"layers": [{"type": "x" * 10**6}]})), "there is no layer 'xxx"),
    "an escape": (_written(json.dumps({"layers": [{"type": "\x1b[31m\x07"}]})), "there is no layer"),
    "a class": (_written('{"layers": [{"type": "Layer"}]}'), "there is no layer 'Layer'"),
    "an attribute": (_written('{"layers": [{"type": "Dense", "units": 3, "__class__": 1}]}'), "no Dense setting"),
}  # fmt: skip


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
            Reference(Cnn(), winners=tmp_path)
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


def safetensors(tensors: dict[str, Any] | bytes) -> bytes:
    """A file with any header, and no numbers."""
    header = tensors if isinstance(tensors, bytes) else json.dumps(tensors).encode()
    return struct.pack("<Q", len(header)) + header


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
    "no safetensors": (lambda: b"1234567", "is damaged, or not a safetensors file"),
    "truncated": (lambda: _with(DENSE, torch.zeros(4, 64))[:-10], "is damaged"),
    "longer": (lambda: _with(DENSE, torch.zeros(4, 64)) + b"\0", "bytes of numbers, and the architecture needs"),
    "a long header": (lambda: safetensors(b" " * 100_000_000), "its header would have 100,000,000 bytes"),
    "declares terabytes": (lambda: safetensors({DENSE: entry("F32", [2**20, 2**20], 0, 2**42)}), "is damaged"),
    "another shape": (lambda: _with(DENSE, torch.zeros(64, 4)), "as F32 [64, 4], and it should be F32 [4, 64]"),
    "another kind": (lambda: _with(DENSE, torch.zeros(4, 64, dtype=torch.float16)), f"{DENSE} as F16 [4, 64]"),
    "one too few": (lambda: _with(DENSE, None), f"the weights lack {DENSE}"),
    "one too many": (
        lambda: _with("\x1b[31mx", torch.zeros(0)),
        "the weights have '\\x1b[31mx', which the architecture does not have",
    ),
    "NaN": (lambda: _with(DENSE, torch.full((4, 64), math.nan)), f"{DENSE} holds NaN or infinity"),
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
    weights.unlink()
    with pytest.raises(NasError, match="No such file"):
        load_network(best)
    os.mkfifo(weights)
    with pytest.raises(NasError, match="is not a file"):
        load_network(best)


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({"input_shape": [1, 8, 8, 8]}, "input_shape is [1, 8, 8, 8], and should be"),
        ({"input_shape": [1, 8, -8]}, "input_shape is [1, 8, -8]"),
        ({"input_shape": [10**9, 8, 8]}, "channels (at most 1,000) and up to two sizes (at most 16,384)"),
        ({"input_shape": [1000, 4096, 4096]}, "layer 1 (Flatten) on 4096×4096×1000: up to here the network has"),
        ({"classes": []}, "there are no classes"),
        ({"classes": [1, 2, 3]}, "a class is 1"),
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
    """One gibibyte is enough to refuse a network of 3.4, whose weights are in a file of a kilobyte."""
    path = best / "architecture.json"
    wide = [{"type": "Flatten"}, {"type": "Dense", "units": 65_536}, {"type": "Dense", "units": 14_000}]
    path.write_text(json.dumps({**json.loads(path.read_text()), "layers": wide}))
    limits = resource.getrlimit(resource.RLIMIT_AS)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + 2**30, limits[1]))
    try:
        with pytest.raises(NasError, match=re.escape(f"{DENSE} as F32 [4, 64], and it should be F32 [65536, 64]")):
            load_network(best)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


# Experiments


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = '" + "x" * 2**20 + "'", "has more than 1,048,576 bytes"),
        ("trials = " + "[" * 50_000, "is not TOML"),
        ("x" * 100_000 + " = 1", "there is no setting 'xxx"),
        ('strategy = "\\u001b[31m"\ntrials = 0', "trials = 0"),
        ("time_limit = nan", "time_limit = nan: input should be"),
        ('time_limit = "999999999h"', "input should be less than or equal to"),
        ("trials = {a = 1}", "trials = {'a': 1}"),
        ("options = 3", "options = 3"),
        ("[options.space]\na = {b = 1}", "option space.a = {'b': 1}: should be a number, text"),
        ("[options]\nmutation = nan", "option mutation = nan: should be a finite number"),
        ('objectives = ["' + "x" * 100_000 + '"]', "there is no metric 'xxx"),
        ('device = "cuda:one"', "a device is written like cuda:1"),
        ('data_dir = "' + "x" * 300 + '"', "a path has at most 4,096 bytes, each name in it at most 255"),
        ("_file = 1", "there is no setting '_file'"),
    ],
)  # fmt: skip
def test_an_experiment_of_a_stranger_is_refused_in_one_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "theirs.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(NasError) as caught:
        Experiment.read(path)
    assert words in one_line(caught.value)


def test_an_experiment_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "binary.toml").write_bytes(b"seed = 1\n\xff\xfe")
    os.mkfifo(tmp_path / "pipe.toml")
    for name in ("binary.toml", "pipe.toml", "absent.toml", "."):
        with pytest.raises(NasError):
            Experiment.read(tmp_path / name)


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
    for name in ("../evil", str(tmp_path / "evil"), "plugins/../../evil", "..", "os", "\x1b[31m"):
        for kind in plugins.KINDS:
            with pytest.raises(UsageError, match=f"there is no {kind} ") as caught:
                plugins.find(kind, name)
            one_line(caught.value)
        for setting in ("strategy", "space", "dataset", "evaluator", "recipe"):
            with pytest.raises(NasError) as refused:
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
        ("job", ...), ("job/seed", -1), ("job/seed", True), ("job/epochs", 0), ("job/epochs", math.inf),
        ("job/candidate/architecture", {"layers": [{"type": "Dense", "units": 0}]}),
        ("job/candidate/choices", {"a": []}), ("job/candidate/parents", "abc"),
        ("job/candidate/origin", "x" * 10_000), ("metrics/parameters", "1"), ("metrics/parameters", math.nan),
        ("metrics/\ud800", 1.0), ("curve", [{"epoch": "1"}]), ("failure", {"kind": "none", "message": ""}),
    ],
)  # fmt: skip
def test_a_trial_that_is_none_is_refused(path: str, value: Any) -> None:
    with pytest.raises((ValueError, ArchitectureError)) as caught:
        Trial.from_dict(changed(path, value))
    one_line(caught.value)


@pytest.mark.parametrize("data", [None, [], {}])
def test_what_is_no_trial_at_all_is_refused(data: object) -> None:
    for kind in (Trial, Job):
        with pytest.raises(ValueError, match=r"is an object with|needs 'job'|needs 'candidate'"):
            kind.from_dict(data)


def test_jobs_that_differ_have_different_keys_and_a_key_is_a_file_s_name() -> None:
    epochs = (0.1, 1 / 3, 0.3333333, 1.0, 1_000_000.25, 1_000_000.5, 1e-7, 1e6, 5e-324)
    keys = [job(LECTURE, one).key for one in epochs]
    assert len({*keys}) == len(epochs)
    assert job(LECTURE, 1).key == job(LECTURE, 1.0).key == f"{LECTURE.id}-1-1"
    assert all(re.fullmatch(r"[0-9a-f]{12}-[0-9.e-]{1,24}-[0-9]{1,20}", key) for key in keys)


# What evaluators measure


@pytest.mark.parametrize("value", [math.nan, -math.inf, "0.3", None, True, np.float32("nan"), np.array([1.0])])
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
        {"metrics": None}, {"metrics": {1: 2.0}}, {"metrics": {}}, {"curve": None}, {"failure": "it broke"},
        {"failure": Failure("strange", "x\x1b[31m" * 1000)},  # type: ignore[arg-type]
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
    for value in ("x" * 10**6, ["x" * 10**6] * 1000, {"a": [[[[]]]]}, "\x1b[31m", "\ud800", object()):
        assert len(one_line(quoted(value))) <= 120
    assert quoted("Conv2D") == "'Conv2D'"
    assert quoted([3]) == "[3]"


# Files that were changed at random

NASTY: list[Any] = [
    None, True, 0, -1, 65_537, 2**64, 0.5, 1e308, math.nan, "", "x", "x" * 3_000, "\x1b[31m", "\ud800", "../x",
    "Dense", "same", [], {}, [1, 2, 3], {"type": "Dense", "units": 65_536},
]  # fmt: skip
fuzz = settings(max_examples=100, phases=[Phase.generate, Phase.shrink], suppress_health_check=list(HealthCheck))


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
        new = copy.deepcopy(draw(st.sampled_from(NASTY)))
        if what == 0 and name != "":
            del here[name]
        elif what == 1 and isinstance(inner, dict):
            inner["__class__"] = new
        elif what == 2 and isinstance(inner, list):
            inner.extend(inner[:1] * draw(st.sampled_from([1, 10, 1_000])))
        elif name == "":
            data = new
        else:
            here[name] = new
    return data


SMALL_RESNET = KNOWN["small-resnet"].to_dict()


@given(data=mutants(SMALL_RESNET))
@fuzz
def test_changed_architectures(data: Any) -> None:
    try:
        architecture = Architecture.from_json(json.dumps(data))
        assert Architecture.from_json(architecture.to_json()) == architecture
        architecture.table((3, 32, 32), 10)
    except NasError as error:
        one_line(error)


EXPERIMENT: dict[str, Any] = {
    "strategy": "evolve", "space": "cnn", "dataset": "mnist-5k", "trials": 3, "time_limit": "10m", "epochs": 0.5,
    "objectives": ["-validation_loss", "-parameters"], "max_parameters": 10, "batch": 4, "rungs": 2, "workers": 2,
    "device": "cpu", "seed": 1, "options": {"population": 9, "space.cells": 2, "dataset": {"size": 3}},
    "data_dir": "data", "mlflow": "off", "plugins": [], "recipe": "default", "evaluator": "local",
}  # fmt: skip


def toml(value: Any) -> str:
    """Plain data as TOML; nothing, which TOML does not have, becomes a date."""
    match value:
        case None:
            return "2026-11-22T15:30:00+01:00"
        case bool():
            return str(value).lower()
        case int() | float():
            return repr(value)
        case str():
            return json.dumps(value, ensure_ascii=False)
        case list():
            return f"[{', '.join(map(toml, value))}]"
    return "{" + ", ".join(f"{json.dumps(str(key))} = {toml(one)}" for key, one in value.items()) + "}"


@given(data=mutants(EXPERIMENT))
@fuzz
def test_changed_experiments(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    path, again = (tmp_path_factory.getbasetemp() / name for name in ("search.toml", "again.toml"))
    pairs = data.items() if isinstance(data, dict) else ()
    lines = [f"{json.dumps(str(key))} = {toml(value)}" for key, value in pairs]
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
    try:
        experiment = Experiment.read(path)
        again.write_text(experiment.to_toml(), encoding="utf-8")
        assert Experiment.read(again).model_dump() == experiment.model_dump()
    except NasError as error:
        one_line(error)


STATE = save(Network(NET, SHAPE, 3).state_dict())


@given(start=st.integers(0, len(STATE)), length=st.integers(0, 50), new=st.binary(max_size=12))
@fuzz
def test_damaged_weights(tmp_path_factory: pytest.TempPathFactory, start: int, length: int, new: bytes) -> None:
    """They are refused, or they are finite."""
    folder = tmp_path_factory.getbasetemp()
    about = {**NET.to_dict(), "input_shape": list(SHAPE), "classes": ["a", "b", "c"]}
    (folder / "architecture.json").write_text(json.dumps(about))
    (folder / "weights.safetensors").write_bytes(STATE[:start] + new + STATE[start + length :])
    try:
        network = load_network(folder)
    except NasError as error:
        one_line(error)
    else:
        assert all(tensor.isfinite().all() for tensor in network.state_dict().values())


@given(data=mutants(trial_dict()))
@fuzz
def test_changed_trials(data: Any) -> None:
    try:
        trial = Trial.from_dict(data)
    except (ValueError, ArchitectureError) as error:
        one_line(error)
        return
    kept = scored(trial, LOSS)
    assert kept.failure is not None or all(map(math.isfinite, kept.scores))
    assert Trial.from_dict(json.loads(json.dumps(kept.to_dict(), allow_nan=False))) == replace(kept, scores=())
