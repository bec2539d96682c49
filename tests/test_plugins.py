"""Plugins are found by name, checked, and imported one at a time."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import LOSS, finished, job

from nas import plugins
from nas.architecture.known import LECTURE
from nas.cli.main import cli
from nas.errors import PluginError, UsageError
from nas.evaluation.cached import CachedEvaluator
from nas.records.journal import Journal
from nas.spaces.cnn import Cnn
from nas.strategies.evolve import Evolve
from nas.trial import Job, Trial

GOOD = '''
from nas.strategies.strategy import Strategy

class Mine(Strategy):
    """Mine."""

    def __init__(self, space, *, objectives=(), seed=0, size: int = 3, ratio: float = 0.5, fast: bool = False):
        super().__init__(space, objectives=objectives, seed=seed)
        self.values = (size, ratio, fast)

    def ask(self, count):
        return []
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "my_own.py").write_text(GOOD)
    (tmp_path / "broken.py").write_text("def (:")
    (tmp_path / "absent.py").write_text("import a_package_that_nobody_has")
    (tmp_path / "leaves.py").write_text("raise SystemExit(3)")
    (tmp_path / "empty.py").write_text("from nas.strategies.strategy import Strategy")
    (tmp_path / "_private.py").write_text(GOOD)
    return tmp_path


def test_built_in_parts_come_in_through_the_same_door() -> None:
    assert plugins.find("strategy", "evolve") is Evolve
    assert plugins.find("space", "cnn") is Cnn
    assert plugins.find("strategy", "Evolve") is Evolve


def test_a_file_is_found_by_its_name_and_dashes_are_underscores(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert plugins.find("strategy", "my-own", [folder]).__name__ == "Mine"
    assert plugins.find("strategy", "my_own", [folder]).__name__ == "Mine"
    monkeypatch.setenv("NAS_PLUGINS", str(folder))
    assert plugins.find("strategy", "my-own").__name__ == "Mine"


def test_the_example_in_this_repository_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parent.parent)
    assert plugins.find("strategy", "random-search").__name__ == "RandomSearch"


def test_only_the_plugin_that_is_asked_for_is_imported(folder: Path) -> None:
    known = plugins.names("strategy", [folder])
    assert {"my-own", "broken", "absent", "evolve"} <= set(known)
    assert "-private" not in known
    plugins.find("strategy", "my-own", [folder])
    assert "nas_plugin_broken" not in sys.modules


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("broken", "broken.py cannot be imported: SyntaxError"),
        (
            "absent",
            "absent.py cannot be imported: ModuleNotFoundError: No module named 'a_package_that_nobody_has'",
        ),
        ("leaves", "leaves.py cannot be imported: SystemExit: 3"),
        ("empty", "empty.py must define one subclass of Strategy, and has: none"),
    ],
)
def test_a_broken_plugin_is_one_line(folder: Path, name: str, words: str) -> None:
    with pytest.raises(PluginError) as caught:
        plugins.find("strategy", name, [folder])
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_plugin_imports_the_file_beside_it_and_not_its_namesake_elsewhere(tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in ("first", "second")}
    for name, folder in folders.items():
        folder.mkdir()
        (folder / "_helper.py").write_text(f"FROM = {name!r}\n")
        (folder / "layer_like.py").write_text("class LayerLike: ...\n")
        source = GOOD + "\n    from _helper import FROM\n    from layer_like import LayerLike\n"
        (folder / f"{name}_plugin.py").write_text(source)
    found = {name: plugins.find("strategy", f"{name}-plugin", [folder]) for name, folder in folders.items()}
    assert {name: plugin.FROM for name, plugin in found.items()} == {"first": "first", "second": "second"}
    assert found["first"].LayerLike is not found["second"].LayerLike
    assert str(folders["second"]) in str(sys.modules["layer_like"].__file__)


def test_two_plugins_of_one_name_are_an_error_that_names_both(tmp_path: Path) -> None:
    (tmp_path / "evolve.py").write_text(GOOD)
    with pytest.raises(
        PluginError, match=r"two plugins 'evolve': nas\.strategies\.evolve:Evolve and .*evolve\.py"
    ):
        plugins.find("strategy", "evolve", [tmp_path])


def test_what_a_plugin_s_constructor_wants_and_raises_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "wants.py").write_text(
        GOOD.replace("size: int = 3", "size: int").replace("(size, ratio, fast)", "1 / size")
    )
    wants = plugins.find("strategy", "wants", [tmp_path])
    with pytest.raises(UsageError, match="Mine needs the option size: add --set size=VALUE"):
        plugins.create(wants, {}, space=Cnn(), objectives=(), seed=0)
    with pytest.raises(PluginError, match="Mine cannot be made: ZeroDivisionError"):
        plugins.create(wants, {"size": "0"}, space=Cnn(), objectives=(), seed=0)


def test_an_unknown_name_has_a_nearest_one() -> None:
    with pytest.raises(UsageError, match="there is no strategy 'evolv'; did you mean 'evolve'"):
        plugins.find("strategy", "evolv")


def test_options_are_typed_by_the_constructor_s_signature(folder: Path) -> None:
    mine = plugins.find("strategy", "my-own", [folder])
    made = plugins.create(mine, {"size": "7", "ratio": "0.25", "fast": "true"}, space=Cnn(), objectives=(), seed=1)
    assert made.values == (7, 0.25, True)
    assert made.seed == 1
    assert plugins.create(mine, {"size": 7}, space=Cnn()).values == (7, 0.5, False)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"populaton": "3"}, "there is no option of Evolve 'populaton'; did you mean 'population'"),
        ({"population": "many"}, "option population=many of Evolve: input should be a valid integer"),
        ({"seed": "3"}, "there is no option of Evolve 'seed'"),
        ({"population": "1"}, "population must be 2 or more, not 1"),
    ],
)
def test_a_wrong_option_is_one_line(options: dict[str, str], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        plugins.create(Evolve, options, space=Cnn(), objectives=(), seed=0)
    assert words in str(caught.value)


def test_a_file_that_does_not_say_what_it_is_never_disturbs_a_part_of_that_name(tmp_path: Path) -> None:
    (tmp_path / "local.py").write_text("def (:")
    (tmp_path / "cnn.py").write_text("from nas.strategies.evolve import Evolve\n\nclass Mine(Evolve):\n    pass\n")
    assert plugins.find("evaluator", "local", [tmp_path]).__name__ == "LocalEvaluator"
    assert plugins.find("space", "cnn", [tmp_path]) is Cnn
    assert plugins.find("strategy", "cnn", [tmp_path]).__name__ == "Mine"
    with pytest.raises(PluginError, match=r"local\.py cannot be imported: SyntaxError"):
        plugins.find("strategy", "local", [tmp_path])


def test_an_option_without_a_type_has_that_of_its_default(tmp_path: Path) -> None:
    (tmp_path / "loose.py").write_text(
        GOOD.replace("size: int = 3, ratio: float = 0.5, fast: bool = False", "size=3, ratio=0.5, fast=None")
    )
    loose = plugins.find("strategy", "loose", [tmp_path])
    assert plugins.create(loose, {"size": "7", "ratio": "0.25"}, space=Cnn()).values == (7, 0.25, None)
    with pytest.raises(UsageError, match="option size=many of Mine: input should be a valid integer"):
        plugins.create(loose, {"size": "many"}, space=Cnn())


def test_an_option_of_a_type_that_no_text_can_have_is_one_line(tmp_path: Path) -> None:
    odd_type = GOOD.replace("size: int = 3", "size: random.Random = None")
    (tmp_path / "odd.py").write_text("import random\n" + odd_type)
    odd = plugins.find("strategy", "odd", [tmp_path])
    with pytest.raises(UsageError, match=r"option size=3 of Mine: .*cannot be read from text"):
        plugins.create(odd, {"size": "3"}, space=Cnn())


def test_a_data_set_that_raises_is_one_line_and_does_not_end_the_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = "from nas.data.source import Source\n\nclass Mine(Source):\n    "  # the names of earlier docs
    (tmp_path / "needy.py").write_text(f"{base}def __init__(self, folders, *, path: str): pass\n")
    (tmp_path / "zzz.py").write_text(f"{base}def load(self): raise KeyError('x')\n    def load_test(self): pass\n")
    monkeypatch.setenv("NAS_PLUGINS", str(tmp_path))
    listed = CliRunner().invoke(cli, ["data", "list"])
    assert listed.exit_code == 0
    assert "Mine needs the option path" in listed.output
    assert "needs no file" in listed.output.split("zzz")[1]
    verified = CliRunner().invoke(cli, ["data", "verify", "zzz"])
    assert verified.exit_code == 1
    assert verified.output == "nas: zzz cannot be verified: KeyError: 'x'\n"


def test_an_evaluator_that_raises_or_makes_up_trials_is_named(tmp_path: Path) -> None:
    class Raising:
        def evaluate(self, jobs: Sequence[Job], /) -> Iterator[Trial]:
            raise KeyError("x")

    class Foreign:
        def evaluate(self, jobs: Sequence[Job], /) -> Iterator[Trial]:
            yield finished(job(LECTURE, epochs=9))

    for inner, words in (
        (Raising(), "evaluator Raising failed: KeyError"),
        (Foreign(), "which is not a trial of a job"),
    ):
        with Journal(tmp_path / f"{type(inner).__name__}.jsonl") as journal:
            recorded = CachedEvaluator(inner, journal, LOSS)
            with pytest.raises(PluginError, match=words):
                list(recorded.evaluate([job(LECTURE)]))
