"""``import nas``: searches and trainings from Python, with classes and objects of one's own."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from command import results
from conftest import Tiny
from torch import nn

import nas
from nas import plugins
from nas.architecture.layer import Shape
from nas.architecture.layers import Conv2d, GlobalAveragePool
from nas.cli.main import cli
from nas.dashboard.runs import flat
from nas.data.dataset import Dataset, Split
from nas.data.plugin import DatasetPlugin
from nas.errors import Interrupted, JournalError, NasError, UsageError
from nas.records.journal import FILE
from nas.records.observer import Observer
from nas.records.record import entry_of, line_of, lines, read
from nas.records.searches import go_on
from nas.report.page import report
from nas.run import resolve
from nas.training.recipe import RECIPES, Recipe

PLUGINS = Path(__file__).parent.parent / "plugins"
INLINE = plugins.find("evaluator", "inline", [PLUGINS])  # trains in this process: no worker has to start
NETWORK = nas.Architecture((Conv2d(2, 3), GlobalAveragePool()))


class Blobs(DatasetPlugin):
    """Images of 8×8 pixels in two classes: bright above, or bright below."""

    def load(self) -> Dataset:
        """Training and validation images."""
        return Dataset.of("blobs", self.split(64, 0), self.split(32, 1), ("above", "below"))

    def load_test(self) -> Split:
        """The test images."""
        return self.split(32, 2)

    @staticmethod
    def split(count: int, seed: int) -> Split:
        """Some images."""
        images = np.random.default_rng(seed).integers(0, 60, (count, 1, 8, 8)).astype(np.uint8)
        labels = np.arange(count) % 2
        images[labels == 0, :, :4] += 150
        images[labels == 1, :, 4:] += 150
        return Split.of(images, labels)


class Draws(nas.Strategy):
    """Draws every candidate."""

    def __init__(self, space: nas.SearchSpace, *, seed: int = 0, width: int = 3) -> None:
        super().__init__(space, seed=seed)
        self.width = width

    def ask(self, count: int) -> list[nas.Candidate]:
        return [self.space.sample(self.rng) for _ in range(count)]


OURS: dict[str, Any] = {
    "strategy": Draws, "space": Tiny(), "dataset": Blobs, "evaluator": INLINE,
    "trials": 6, "batch": 3, "epochs": 1.0, "precision": "float32", "device": "cpu", "mlflow": "off",
}  # fmt: skip


class Stop(Observer):
    """Presses Ctrl-C after some candidates."""

    def __init__(self, after: int) -> None:
        self.left = after

    def told(self, trial: nas.Trial) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def test_a_search_with_objects_goes_on_with_the_same_objects_alone(tmp_path: Path) -> None:
    whole = nas.search(**OURS, out=tmp_path / "whole")
    assert whole.header.config["strategy"] == "object:Draws"
    assert whole.header.dataset["name"] == "blobs"
    folder = tmp_path / "stopped"
    with pytest.raises(
        Interrupted, match=r"go on in Python with: nas\.resume\(.*strategy=Draws, space=Tiny, dataset=Blobs"
    ):
        nas.search(**OURS, out=folder, observers=[Stop(2)])
    assert "nas.resume(FOLDER, strategy=Draws, space=Tiny" in (folder / "search.toml").read_text()
    for page in (
        CliRunner().invoke(cli, ["show", str(folder)]).output,
        report(read(folder / FILE)[0]).split("toml")[0],
    ):
        assert "Draws" in page
        assert "object:" not in page
    result = CliRunner().invoke(cli, ["resume", str(folder)])
    assert result.exit_code == 2
    last = result.output.splitlines()[-1]
    assert last.startswith("nas: stopped was given Python objects, and goes on only with the same: nas.resume(")
    result = CliRunner().invoke(cli, ["search", str(folder / "search.toml"), "--out", str(tmp_path / "again")])
    assert "strategy = 'object:Draws' is a Python object, which no file holds" in result.output.splitlines()[-1]
    objects = {kind: OURS[kind] for kind in ("strategy", "space", "dataset", "evaluator")}
    outcome = nas.resume(folder, **objects)
    assert outcome.test_accuracy == whole.test_accuracy
    assert results(folder) == results(tmp_path / "whole")


def test_the_advice_to_go_on_names_the_plugins_again() -> None:
    advice = go_on(Path("/a/run"), {"strategy": "object:Draws", "plugins": ["pl"]})
    assert advice == "go on in Python with: nas.resume('/a/run', strategy=Draws, plugins=['pl'])"


@dataclass(frozen=True)
class Homeless(nas.Layer):
    """A layer that stands in no file of plugins."""

    def output_shape(self, shape: Shape) -> Shape:
        return shape

    def module(self, shape: Shape) -> nn.Module:
        return nn.Identity()


class Proposes(Draws):
    """Proposes a layer that no worker can find."""

    def ask(self, count: int) -> list[nas.Candidate]:
        return [nas.Candidate(nas.Architecture((Homeless(), GlobalAveragePool())))]


def test_a_layer_outside_of_plugin_files_is_refused_in_one_line(tmp_path: Path) -> None:
    message = f"the layer Homeless is defined in {__name__}, where workers cannot find it: save"
    with pytest.raises(NasError, match=f"^{re.escape(message)}"):
        nas.search(**{**OURS, "strategy": Proposes}, out=tmp_path / "out")


class Other(Draws):
    """Another class of another name."""


def test_another_class_is_another_search(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        nas.search(**OURS, out=tmp_path / "stopped", observers=[Stop(2)])
    objects = {kind: OURS[kind] for kind in ("space", "dataset", "evaluator")}
    with pytest.raises(JournalError, match="strategy was 'object:Draws', and is 'object:Other'"):
        nas.resume(tmp_path / "stopped", strategy=Other, **objects)


def test_a_class_is_what_its_name_is(tmp_path: Path) -> None:
    """The same search by names and by classes, on top of an experiment, finds the same networks."""
    names = {"strategy": "random-search", "evaluator": "inline", "plugins": (PLUGINS,)}
    by_name = nas.search(**{**OURS, **names}, out=tmp_path / "names")
    classes = {"strategy": plugins.find("strategy", "random-search", [PLUGINS]), "evaluator": INLINE}
    experiment = nas.Experiment.of(**{**OURS, **classes, "trials": 1})
    by_class = nas.search(experiment, trials=6, out=tmp_path / "classes")
    assert (by_name.header.kind, by_class.header.kind) == ("random-search", "RandomSearch")
    assert results(tmp_path / "names") == results(tmp_path / "classes")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"strategy": Draws(Tiny())}, r"strategy: give the class Draws, not an object of it.*options=\{…\}"),
        ({"strategy": Tiny}, "strategy: Tiny is no subclass of Strategy"),
        ({"space": Draws}, "space: Draws is no subclass of SearchSpace"),
        ({"evaluator": Tiny}, "evaluator: Tiny is no subclass of Evaluator"),
        (
            {"dataset": Dataset.of("x", Blobs.split(8, 0), Blobs.split(8, 0), ("a", "b"))},
            "a Dataset has no test images: give a class or an object that has load_test",
        ),
        ({"strategy": 3}, r"strategy = 3: give the name of a plugin, or a class \(a subclass of Strategy\)"),
        ({"options": {"space.filters": 3}}, "the space is an object.*leave out the option space.filters"),
        ({"options": {"depth": 3}}, "there is no option of Draws 'depth'"),
        ({"observers": Stop(1)}, "observers = .*: it should be a list of objects of Observer"),
        ({"observers": [print]}, "observers = .*: it should be a list of objects of Observer"),
        ({"plugins": "pl"}, "plugins = 'pl': input should be a valid tuple"),
        ({"trails": 3}, "there is no setting 'trails'; did you mean 'trials'"),
    ],
    ids=lambda value: str(list(value)) if isinstance(value, dict) else "",
)
def test_a_mistake_in_python_is_one_line(tmp_path: Path, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(NasError, match=words):
        nas.search(**{**OURS, **settings}, out=tmp_path / "out")
    if settings.keys() & nas.Experiment.model_fields.keys() - {"options"}:  # the rest needs the data
        with pytest.raises(NasError, match=words):
            nas.Experiment(**{**OURS, **settings})
    assert not (tmp_path / "out").exists()


def test_an_argument_of_a_wrong_type_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "search.toml"
    path.write_text("trials = 3")
    calls: list[tuple[Callable[..., object], tuple[Any, ...], dict[str, Any], str]] = [
        (nas.search, (5,), {}, "5 is no Experiment and no path of one"),
        (nas.search, ({"trials": 3},), {}, "{'trials': 3} is no Experiment"),
        (nas.train, ("lecture",), {"seeds": "2"}, "seeds = '2': it should be a whole number"),
        (nas.train, ("lecture",), {"observers": 3}, "observers = 3"),
        (nas.Experiment.read, (path,), {"options": None}, "options = None: input should be a valid dictionary"),
        (nas.Experiment.read, (path,), {"plugins": ["pl"]}, ""),
        *((call, (tmp_path,), {"plugins": "pl"}, "plugins = 'pl'") for call in (nas.load, nas.resume)),
    ]
    for call, arguments, named, words in calls:
        if words:
            with pytest.raises(UsageError, match=re.escape(words)):
                call(*arguments, **named)
        else:
            call(*arguments, **named)
    assert not plugins._offered


@pytest.mark.parametrize(("there", "device"), [((), "cpu"), (("mps",), "mps"), (("mps", "cuda"), "cuda")])
def test_the_fastest_device_is_taken(monkeypatch: pytest.MonkeyPatch, there: tuple[str, ...], device: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in there)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)  # NVML counts what the driver is too old for
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in there)
    assert resolve.available_device("auto") == device


def test_options_reach_a_class_that_is_given() -> None:
    resolved = resolve.resolve(nas.Experiment.of(**{**OURS, "options": {"width": "7"}}))
    strategy = resolved.make_strategy()
    assert isinstance(strategy, Draws)
    assert strategy.width == 7


def test_a_data_set_may_be_an_object_with_a_name(tmp_path: Path) -> None:
    data = Blobs([])
    data.name = "my blobs"
    outcome = nas.train(NETWORK, dataset=data, **_training(), out=tmp_path / "out", seeds=2)
    assert outcome.header.dataset["name"] == "my blobs"
    assert len(outcome.retrained) == 2


def _training(**more: Any) -> dict[str, Any]:
    names = ("evaluator", "epochs", "precision", "device", "mlflow")
    return {**{name: OURS[name] for name in names}, **more}


def test_a_trained_network_is_loaded_from_its_folder(tmp_path: Path) -> None:
    outcome = nas.train(NETWORK, dataset=Blobs, **_training(), out=tmp_path / "out")
    assert outcome.header.config["network"] == NETWORK.id
    test = Blobs([]).load_test()
    for folder in (tmp_path / "out", str(tmp_path / "out" / "best")):
        network = nas.load(folder)
        assert not network.training
        right = (network(test.images).argmax(1) == test.labels).double().mean()
        assert right.item() == outcome.test_accuracy
    with pytest.raises(NasError, match="does not hold a trained network"):
        nas.load(tmp_path)


def test_a_training_has_no_settings_of_a_search(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="trials is for searches"):
        nas.train("lenet5", trials=3, out=tmp_path / "out")
    with pytest.raises(UsageError, match="the option population is for searches"):
        nas.train("lenet5", options={"population": 3}, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_function_is_not_hidden_by_the_module_of_its_name() -> None:
    code = (
        "import nas.search, nas.run.runs, importlib\n"
        "from nas.search import Search\n"
        "from nas import search\n"
        "assert nas.search is search is nas.run.runs.search\n"
        "assert importlib.import_module('nas.search').Search is Search\n"
        "assert set(nas.__all__) <= set(dir(nas))\n"
        "assert all(getattr(nas, name) is not None for name in nas.__all__)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# Recipes


@pytest.mark.parametrize(
    ("given", "recipe"),
    [
        ("lecture", RECIPES["lecture"]),
        ({}, Recipe()),
        ({"base": "lecture"}, RECIPES["lecture"]),
        ({"shift": 0, "learning_rate": 1}, Recipe(shift=0, learning_rate=1.0)),
        (Recipe(optimiser="adam", batch_size=32), Recipe(optimiser="adam", batch_size=32)),
    ],
)
def test_a_recipe_is_a_name_a_table_or_an_object(tmp_path: Path, given: object, recipe: Recipe) -> None:
    resolved = resolve.resolve(nas.Experiment.of(**{**OURS, "recipe": given}))
    assert resolved.recipe == replace(recipe, class_weights="none")
    path = tmp_path / "search.toml"
    path.write_text(resolved.experiment.to_toml())
    assert nas.Experiment.read(path, **{kind: OURS[kind] for kind in ("strategy", "space", "dataset")}).recipe == (
        resolved.experiment.recipe
    )


def test_the_command_line_changes_fields_of_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("[recipe]\nbase = 'lecture'\nshift = 1\n")
    words = ["search", str(tmp_path / "mine.toml"), "--dataset", "shapes", "--evaluator", "inline", "--strategy"]
    words += ["random-search", "--plugins", str(PLUGINS), "--set", "dataset.images=200", "--trials", "2"]
    words += ["--rungs", "1", "--set", "recipe.learning_rate=0.002", "--epochs", "0.1", "--mlflow", "off"]
    result = CliRunner().invoke(cli, [*words, "--max-flops", "500000", "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    recipe = {"base": "lecture", "shift": 1, "learning_rate": 0.002}
    record = read(tmp_path / "out" / FILE)[0]
    assert record.header.config["recipe"] == recipe
    shown = "lecture, shift 1, learning_rate 0.002"
    assert shown in (tmp_path / "out" / "best" / "README.md").read_text()
    assert shown in report(record)
    assert dict(flat(record.header.config))["recipe.learning_rate"] == 0.002  # as MLflow gets it
    assert nas.Experiment.read(tmp_path / "out" / "search.toml", plugins=(PLUGINS,)).recipe == recipe
    with pytest.raises(JournalError, match=r"recipe was \{.*0\.002\}, and is 'default'"):
        nas.resume(tmp_path / "out", plugins=(PLUGINS,), recipe="default", trials=3)


def test_a_mistake_in_a_field_on_the_command_line_does_not_blame_the_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[recipe]\nshift = 1\n")
    with pytest.raises(UsageError, match=r"^recipe\.shift = '-1': should be 0 or more"):
        nas.Experiment.read(path, options={"recipe.shift": "-1"})


# Searches of versions that nobody has


def test_a_search_of_an_unreleased_version_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        nas.search(**OURS, out=tmp_path / "old", observers=[Stop(2)])
    path = tmp_path / "old" / FILE
    entries = [entry for line in lines(path) if (entry := entry_of(line))]
    del entries[1]["session"]["changes"]["config"]["precision"]
    path.write_bytes(b"".join(map(line_of, entries)))
    with pytest.raises(JournalError, match="old was made by an unreleased version of nas: start the search again"):
        nas.resume(tmp_path / "old")


def test_a_plan_of_an_unreleased_version_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / FILE
    plan = {"finalists": 1, "seeds": 1, "epochs": 1.0}
    path.write_bytes(line_of({"header": {"version": 2, "id": "0" * 16}}) + line_of({"searched": plan}))
    with pytest.raises(JournalError, match="made by an unreleased version"):
        read(path)
