"""``nas plugins``: what is there, a new one that works at once, and what is broken."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from nas import plugins
from nas.cli.main import cli

STRATEGY = '''
from nas.strategies.strategy import Strategy

class Mine(Strategy):
    """Mine."""

    def ask(self, count):
        return [self.space.sample(self.rng) for _ in range(count + EXTRA)]
'''


def nas(*words: str, code: int = 0) -> Result:
    result = CliRunner().invoke(cli, ["plugins", *words])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


@pytest.fixture(autouse=True)
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to work in; what a test imports and offers is forgotten, as with a new process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(plugins, "_offered", [])
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def test_the_list_shows_what_is_there_and_what_is_wrong_with_it(empty: Path) -> None:
    folder = empty / "mine"
    folder.mkdir()
    (folder / "my_own.py").write_text(STRATEGY)
    (folder / "evolve.py").write_text(STRATEGY)
    (folder / "absent.py").write_text("import a_package_that_nobody_has\n" + STRATEGY)
    (folder / "damaged.py").write_text("def (:")
    (folder / "test_my_own.py").write_text("")
    for name in ("nas_plugin_my_own", "nas_plugin_absent"):  # other tests have imported their own
        sys.modules.pop(name, None)
    lines = nas("list", "--plugins", str(folder)).stdout.splitlines()
    heads = [line for line in lines if line and "·" not in line]
    assert heads == ["strategies", "spaces", "data sets", "evaluators", "layers", "files without a plugin in them"]

    def line(*words: str) -> str:
        [found] = [one for one in lines if all(word in one for word in words)]
        return found

    assert line("my-own").split() == ["my-own", "Mine.", "·", str(folder / "my_own.py")]
    assert "broken: there is no package 'a_package_that_nobody_has'" in line("absent.py")
    assert "broken: SyntaxError" in line("damaged.py")
    assert "2 plugins have this name" in line("nas.strategies.evolve:Evolve")
    assert "2 plugins have this name" in line("evolve.py")
    assert "MNIST" in line("mnist-5k", "nas.data.mnist5k:Mnist5k")
    assert not any("test_my_own" in one for one in lines)
    assert not {"nas_plugin_my_own", "nas_plugin_absent"} & set(sys.modules)


def test_the_list_is_readable_in_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"FORCE_COLOR": "1", "COLUMNS": "80", "TERM": "xterm"}.items():
        monkeypatch.setenv(name, value)
    shown = re.sub(r"\x1b\[[0-9;]*m", "", nas("list").stdout)
    assert "evolve" in shown
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize("kind", list(plugins.KINDS))
def test_a_new_plugin_keeps_its_contract(kind: str) -> None:
    told = nas("new", "my-own-one", "--kind", kind).stdout
    assert "nas plugins check my-own-one\n" in told
    assert (f"nas search --{kind} my-own-one" in told) == (kind != "layer")  # a space uses a layer
    checked = nas("check", "my-own-one").stdout
    assert checked.startswith(f"{kind} my-own-one: ")
    assert "requirements hold" in checked
    assert "my-plugin" not in Path("plugins/my_own_one.py").read_text()
    assert "(`nas plugins list` shows this line)" in nas("list").stdout


def test_the_test_of_a_new_plugin_passes() -> None:
    nas("new", "my-own-one", "--folder", "elsewhere")
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "elsewhere/test_my_own_one.py"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "12 passed" in done.stdout


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("../escape", "'../escape' cannot be the name of a plugin: use lowercase letters"),
        ("Mine", "'Mine' cannot be the name"),
        ("class", "'class' cannot be the name"),
        ("test-mine", "'test-mine' cannot be the name"),
        ("evolve", "there is a strategy 'evolve' already"),
        ("random", "'random' is the name of a Python module"),
        ("taken", "taken.py exists already"),
    ],
)
def test_a_name_that_will_not_do_is_refused_and_nothing_is_written(empty: Path, name: str, words: str) -> None:
    (empty / "plugins").mkdir()
    (empty / "plugins" / "taken.py").write_text(STRATEGY)
    told = nas("new", name, code=2).stderr
    assert words in told
    assert told.count("\n") == 1
    assert [path.relative_to(empty).as_posix() for path in empty.rglob("*.py")] == ["plugins/taken.py"]


def test_the_check_says_what_is_broken(empty: Path) -> None:
    (empty / "too_many.py").write_text(STRATEGY.replace("EXTRA", "1"))
    told = nas("check", "too-many", "--plugins", str(empty), code=1).stdout
    assert "  BROKEN  Returns a list of candidates, as many as were asked for or fewer\n" in told
    assert "          asked for 1 candidates, it returned 2\n" in told
    assert "  ok      Can be made, with its options\n" in told
    assert "of 12 requirements are broken" in told


def test_the_check_shows_what_does_not_apply(empty: Path) -> None:
    init = """
    def __init__(self, space, *, objectives, seed):
        super().__init__(space, seed=seed)
        if len(objectives) > 1:
            raise UsageError("one objective, please")
"""
    text = STRATEGY.replace(" + EXTRA", "").replace("\n    def ask", f"{init}\n    def ask")
    (empty / "single.py").write_text(f"from nas.errors import UsageError\n{text}")
    shown = nas("check", "single", "--plugins", str(empty)).stdout
    assert "  skipped Works with two objectives, or refuses them when it is made\n" in shown
    assert "          it refuses two objectives: one objective, please\n" in shown
    assert "all 11 requirements hold, 1 skipped" in shown


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["check", "evolv"], "there is no plugin 'evolv'; did you mean 'evolve'?"),
        (["check", "evolve", "--kind", "space"], "there is no space 'evolve'"),
        (["check", "damaged"], "damaged.py cannot be imported: SyntaxError"),
        (["check", "both"], "there is a strategy and a space 'both': choose with --kind"),
        (["check", "evolve", "--set", "populaton=3"], "there is no option of Evolve 'populaton'"),
        (["check", "evolve", "--set", "population=1"], "population must be 2 or more, not 1"),
    ],
)
def test_what_cannot_be_checked_is_one_line(empty: Path, words: list[str], told: str) -> None:
    (empty / "plugins").mkdir()
    (empty / "plugins" / "damaged.py").write_text("def (:")
    (empty / "plugins" / "both.py").write_text(STRATEGY)
    (empty / "both.py").write_text(
        "from nas.spaces.space import SearchSpace\n\nclass Other(SearchSpace):\n    build = None\n"
    )
    result = CliRunner().invoke(cli, ["plugins", *words, "--plugins", "."])
    assert result.exit_code in (1, 2)
    assert told in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


OPTIONS = '''
from nas.strategies.strategy import Strategy

class Mine(Strategy):
    """Draws.

    Args:
        width (int): how far it looks,
            in answers.
    """

    def __init__(self, space, *, objectives=(), seed=0, width: int = 3, unsaid=None):
        super().__init__(space, objectives=objectives, seed=seed)

    def ask(self, count):
        return [self.space.sample(self.rng) for _ in range(count)]
'''


def test_the_options_of_a_plugin_are_shown_with_their_defaults(empty: Path) -> None:
    (empty / "plugins").mkdir()
    (empty / "plugins" / "mine.py").write_text(OPTIONS)
    shown = " ".join(nas("show", "mine").output.split())
    assert "width How far it looks, in answers (int). Default: 3." in shown
    assert "unsaid Default: none." in shown
    assert "objectives" not in shown  # which the search gives
    built_in = " ".join(nas("show", "evolve").output.split())
    assert "population The largest number" in built_in
    assert "(one of auto, aging, nsga2). Default: auto." in built_in
    assert "space.max_flops" in nas("show", "cnn").output
    assert "no options" in nas("show", "mnist").output


def test_a_plugin_that_is_not_there_cannot_be_shown() -> None:
    assert "did you mean 'evolve'?" in nas("show", "evolv", code=2).output


def test_the_help_of_a_search_has_sections() -> None:
    found = CliRunner().invoke(cli, ["search", "--help"]).output
    sections = [
        found.index(f"\n{name}:\n") for name in ("Search", "Training", "Machine", "Output", "Other options")
    ]
    assert sections == sorted(sections)
    assert sections[0] < found.index("--strategy NAME") < sections[1] < found.index("--recipe NAME") < sections[2]
