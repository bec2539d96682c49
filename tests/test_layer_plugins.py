"""Layers from somebody's file: in a whole search with the real command, and in what comes from a stranger."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from command import QUICK, error_line, inline
from conftest import finished, job
from PIL import Image

import nas as front_door
from nas import plugins
from nas.architecture.architecture import Architecture, Limits
from nas.architecture.layer import Layer, Shape, setting
from nas.architecture.layers import Add, Conv2d, GlobalAveragePool
from nas.errors import ArchitectureError, JournalError, NasError, PluginError
from nas.records.journal import FILE, Journal, locked, repair
from nas.records.record import read
from nas.records.searches import State
from nas.testing import check
from nas.training.network import Network

EXAMPLES = Path(__file__).parent.parent / "plugins"
SPACE = '''
from convnext_block import ConvNextBlock
from squeeze_excitation import SqueezeExcitation

from nas.architecture.architecture import Architecture, Limits
from nas.architecture.layer import Layer, Shape, setting
from nas.architecture.layers import Add, Conv2d, GlobalAveragePool
from nas.spaces.space import SearchSpace


class Attentive(SearchSpace):
    """A convolution, an attention or a block around which the input goes, too."""

    def build(self, choose):
        first = Conv2d(choose.suggest_categorical("filters", [4, 6, 8]), 5, stride=3, activation="relu")
        if choose.suggest_categorical("block", [True, False]):
            second = ConvNextBlock(choose.suggest_categorical("kernel", [3, 5]))
        else:
            second = SqueezeExcitation(choose.suggest_categorical("reduction", [1, 2, 4]))
        return Architecture((first, second, Add(inputs=(1, 2)), GlobalAveragePool()))
'''


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of plugins: a space, and the layers of the examples that it imports from beside it."""
    folder = tmp_path_factory.mktemp("mine")
    for name in ("squeeze_excitation", "convnext_block", "_convnext"):
        shutil.copy(EXAMPLES / f"{name}.py", folder)
    (folder / "attentive.py").write_text(SPACE)
    return folder


@pytest.mark.faults  # slow
def test_a_search_with_layers_from_files_goes_all_the_way(
    mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    named = ["--plugins", str(mine)]
    quick = ["--space", "attentive", *named, *QUICK, "--mlflow", "off", "--workers", "2"]
    inline("search", *quick, "--trials", "3", "--out", "run")
    inline("resume", "run", "--trials", "4", *named)
    record = read(Path("run", FILE))[0]
    assert [told.trial.failure for told in record.told] == [None] * 4

    image = Image.new("L", (28, 28), 255)
    image.paste(0, (12, 4, 16, 24))
    image.save("digit.png")
    assert "digit.png" in inline("predict", "--search", "run", *named, "digit.png").stdout
    assert "Add ← 1, 2" in inline("show", "run", *named).stdout
    formats = ["--format", "onnx", "--format", "torch", "--format", "python"]
    inline("export", "run", *formats, *named)  # each is compared with the original in a process without nas
    code = Path("run/best/python/network.py").read_text()
    assert "class Gate(nn.Module)" in code or "class Block(nn.Module)" in code

    monkeypatch.setattr(plugins, "_offered", [])  # nothing is imported because the journal names it
    shown = inline("show", "run").stdout
    assert "unreadable" in shown
    assert "--plugins" in shown
    for command in (["predict", "--search", "run", "digit.png"], ["resume", "run"], ["repair", "run"]):
        line = error_line(inline(*command, code=1))
        assert "there is no layer" in line
        assert "--plugins" in line


def test_a_name_in_a_file_imports_nothing_that_is_not_offered(
    mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.py").write_text("raise SystemExit('imported')")
    for name in ("evil", "os.system", "nas.cli.main", "Layer", "Plain", "torch.nn.Linear", "../evil"):
        with pytest.raises(ArchitectureError, match="there is no layer"):
            Architecture.from_dict({"layers": [{"type": name}]})
    monkeypatch.setenv("NAS_PLUGINS", str(mine))
    layers = [{"type": "Conv2d", "filters": 8}, {"type": "SqueezeExcitation"}, {"type": "GlobalAveragePool"}]
    assert Architecture.from_dict({"layers": layers}).parameters((1, 8, 8), 2) == 80 + 42 + 18


def test_a_changed_layer_is_noticed_where_networks_have_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "plugins"
    folder.mkdir()
    text = (EXAMPLES / "squeeze_excitation.py").read_text() + "import _gates  # noqa\n"
    (folder / "gating.py").write_text(text)
    helper = folder / "_gates.py"
    helper.write_text("")
    gated = SPACE.replace("from convnext_block import ConvNextBlock", "").replace("squeeze_excitation", "gating")
    (folder / "gated.py").write_text(gated.replace("ConvNextBlock", "SqueezeExcitation"))
    for name in ("inline", "shapes"):
        shutil.copy(EXAMPLES / f"{name}.py", folder)
    quick = ["--space", "gated", *QUICK, "--mlflow", "off", "--evaluator", "inline"]
    inline("search", *quick, "--trials", "4", "--out", "run")
    for name, code in (("unused", "Unused"), ("gating", "SqueezeExcitation")):
        file = folder / f"{name}.py"
        file.write_text(
            f"{(EXAMPLES / 'squeeze_excitation.py').read_text().replace('SqueezeExcitation', code)}#\n"
        )
    line = inline("resume", "run", "--trials", "5", code=1).stderr
    assert "run has changed since it began: the source of the layer SqueezeExcitation has changed. --force" in line
    (folder / "gating.py").write_text(text)
    helper.write_text("#")  # a file that the layer imports
    line = inline("resume", "run", "--trials", "5", code=1).stderr
    assert "the source of the layer SqueezeExcitation has changed" in line
    helper.write_text("")
    with (folder / "unused.py").open("a") as unused:
        unused.write("#")
    inline("resume", "run", "--trials", "5")
    (folder / "unused.py").unlink()
    inline("resume", "run", "--trials", "6")
    best = {"layers": [{"type": "SqueezeExcitation", "reduction": 2}, {"type": "GlobalAveragePool"}]}
    Path("arch.json").write_text(json.dumps(best))
    shutil.move(folder, tmp_path / "elsewhere")
    outcome = front_door.train(
        "arch.json", plugins=["elsewhere"], dataset="shapes", options={"dataset.images": 200}, epochs=0.1,
        evaluator="inline", mlflow="off", out="trained",
    )  # fmt: skip
    plugins._offered.clear()
    plugins._layer_of_file.cache_clear()  # as in another process
    with pytest.raises(NasError, match="there is no layer 'SqueezeExcitation'"):
        front_door.load("trained")
    network = front_door.load("trained", plugins=["elsewhere"])
    assert network(torch.zeros(1, *outcome.header.limits.input_shape)).shape[0] == 1


def test_a_layer_that_does_not_work_now_is_no_damage(
    mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lines are sound: no repair may drop them, however the file of the plugin is broken."""
    monkeypatch.chdir(tmp_path)
    folder, file = tmp_path / "plugins", tmp_path / "plugins" / "squeeze_excitation.py"
    shutil.copytree(mine, folder)
    plugins.offer([folder])
    attention = {"type": "SqueezeExcitation", "reduction": 2}
    layers = [{"type": "Conv2d", "filters": 8}, attention, {"type": "GlobalAveragePool"}]
    path = tmp_path / FILE
    with Journal(path) as journal:
        journal.begin({"config": {}})
        journal.append(finished(job(Architecture.from_dict({"layers": layers}))))
    before, sound = path.read_bytes(), file.read_text()
    for broken in (f"import no_such_package\n{sound}", sound.replace("reduction", "ratio")):
        file.write_text(broken)
        plugins._layer_of_file.cache_clear()
        with pytest.raises(JournalError, match="cannot be repaired: "):
            repair(tmp_path)
        state = State.of(tmp_path)
        assert (state.status, "no entry of a journal" in state.detail) == ("unreadable", False)
        with locked(path):
            assert State.of(tmp_path).status == "running"
            with pytest.raises(JournalError, match="is being searched by another process"):
                locked(path)
    assert path.read_bytes() == before


def test_two_layers_of_one_name_are_an_error(mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(mine / "squeeze_excitation.py", tmp_path / "copied.py")
    monkeypatch.setenv("NAS_PLUGINS", f"{mine}:{tmp_path}")
    with pytest.raises(PluginError, match="there are two layers 'SqueezeExcitation'"):
        plugins.layer("SqueezeExcitation")


BROKEN = {
    "Makes the shape": ("return shape\n", "return (shape[0] + 1, *shape[1:])\n"),
    "Learns as many": ("2 * shape[0] * self.hidden(shape) + shape[0]", "2 * shape[0] * self.hidden(shape)"),
    "Does as many": ("4 * shape[0]", "2 * shape[0]"),
    "Passes a gradient": ("return x * weights", "return x.mul_(0).detach() * weights.detach()"),
    "Is written as JSON": ("count(4)", "setting(lambda v: True, 'anything', 4.5)"),
}


@pytest.mark.parametrize("requirement", BROKEN)
def test_the_contract_finds_a_broken_layer(
    requirement: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (EXAMPLES / "squeeze_excitation.py").read_text()
    old, new = BROKEN[requirement]
    assert old in text
    name = f"broken_{list(BROKEN).index(requirement)}"
    (tmp_path / f"{name}.py").write_text(
        text.replace(old, new).replace("Shape, channels", "Shape, setting, channels")
    )
    monkeypatch.setenv("NAS_PLUGINS", str(tmp_path))
    found_broken = [one.requirement for one in check("layer", plugins.find("layer", name)) if one.broken]
    assert any(words.startswith(requirement) for words in found_broken), found_broken


def test_a_module_that_has_no_source_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nas.winner.best import Description
    from nas.winner.export.source_code import source_code

    code = (EXAMPLES / "convnext_block.py").read_text().replace("ConvNextBlock", "Hidden")
    code = code.replace("from _convnext import Block\n", "")
    code = code.replace(
        "        return Block(",
        "        class Block(nn.Conv2d):\n            pass\n\n        return Block(shape[0], ",
    )
    (tmp_path / "hidden.py").write_text(code)
    monkeypatch.setenv("NAS_PLUGINS", str(tmp_path))
    layer = plugins.layer("Hidden")
    network = Architecture((Conv2d(4), layer(3), GlobalAveragePool()))
    with pytest.raises(
        NasError, match=r"layer 2 \(Hidden kernel=3\) cannot be written as Python: .* inside a function"
    ):
        source_code(Description(network, (1, 12, 12), ("a", "b")), "x")


@dataclass(frozen=True)
class Odd(Layer):
    """Whatever a test wants; not a layer of this package, although PyTorch's modules are in it."""

    kind: str = setting(lambda value: True, "anything", "pool")
    size: int = setting(lambda value: value > 0, "a number above 0", 3)

    def output_shape(self, shape: Shape) -> Shape:
        return shape if self.kind != "list" else list(shape)  # type: ignore[return-value]

    def module(self, shape: Shape) -> torch.nn.Module:
        match self.kind:
            case "pool":
                return torch.nn.Sequential(torch.nn.MaxPool2d(3, stride=1, padding=1))
            case "twice":
                act, conv = torch.nn.ReLU(), torch.nn.Conv2d(shape[0], shape[0], 1)
                return torch.nn.Sequential(act, conv, act)
            case "shuffle":
                order = torch.randperm(shape[0], device="cpu").tolist()
                return torch.nn.Conv2d(shape[0], len(order), 1)
        raise ValueError("this module cannot be made")


def built(*layers: Layer) -> Network:
    torch.manual_seed(1)
    return Network(
        Architecture((*layers, GlobalAveragePool())), (4, 6, 6), 2, mean=[0.0] * 4, std=[1.0] * 4
    ).eval()


def test_the_modules_of_a_plugin_do_what_they_are_told() -> None:
    x = torch.randn(2, 4, 6, 6)
    pooled = torch.nn.functional.max_pool2d(x, 3, stride=1, padding=1)
    network = built(Odd("pool"))
    torch.testing.assert_close(network(x), network.layers["3_dense"](pooled.mean((2, 3))))
    network = built(Odd("twice"))
    convolved = network.layers["1_1"](torch.relu(x))
    torch.testing.assert_close(network(x), network.layers["3_dense"](torch.relu(convolved).mean((2, 3))))


def test_random_numbers_do_not_depend_on_what_was_counted_before() -> None:
    first, second = (built(Odd("shuffle", size=9)).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("kind", "words"), [("none", "ValueError: this module cannot"), ("list", "its output_shape is")]
)
def test_what_a_plugin_raises_costs_its_network_one_line(kind: str, words: str) -> None:
    limits = Limits((4, 6, 6), 2)
    network = Architecture((Odd(kind), GlobalAveragePool()))
    assert not limits.allow(network)
    with pytest.raises(ArchitectureError, match=rf"layer 1 \(Odd kind={kind}\) on 6×6×4: {words}"):
        limits.check(network)


def test_settings_keep_their_type_and_their_line() -> None:
    for size in (3.0, True, "3", 0):
        with pytest.raises(ArchitectureError, match="Odd: size must be a number above 0"):
            Odd(size=size)  # type: ignore[arg-type]
    assert "\n" not in str(Odd("a\n            __import__('os').system('true'),\n#"))


def test_the_order_of_summands_makes_no_other_network() -> None:
    layers = (Conv2d(4, padding="same"), Conv2d(4, padding="same"))
    one, other = (Architecture((*layers, Add(inputs=inputs))) for inputs in ((1, 2), (2, 1)))
    assert one.id == other.id
