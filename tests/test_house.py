"""The rules of the house: who may import whom, and who may open the test images."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import nas

ROOT = Path(nas.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

# The rooms in the order that CONTRIBUTING.md draws: each may import those of its own line and of the lines above.
ORDER = [
    {"errors"},
    {"checks", "files", "statistics", "toml"},
    {"plugins"},
    {"architecture"},
    {"spaces"},
    {"trial"},
    {"objectives"},
    {"data", "training"},
    {"strategies", "evaluation", "records", "experiment"},
    {"search", "report", "baselines"},
    {"dashboard", "winner", "testing"},
    {"run"},
    {"comparison"},
    {"cli", "__main__", "notebook"},
]
RANK = {name: rank for rank, names in enumerate(ORDER) for name in names}

NO_TORCH = (
    "architecture",
    "spaces",
    "strategies",
    "records",
    "plugins.py",
    "trial.py",
    "objectives.py",
    "errors.py",
)
TORCH = {  # the modules of layers, imported where one is built
    ROOT / "architecture/modules.py",
    ROOT / "architecture/sequence_modules.py",
}
ONLY = {
    "deap": {"strategies/evolve.py"},
    "optuna": {"strategies/trial_and_error.py"},
    "moocore": {"objectives.py"},
    "matplotlib": {"report/figures", "comparison/figures.py"},
    "jinja2": {"report/page.py", "comparison/page.py"},
    "mlflow": {"dashboard"},
    "PIL": {"data/decoder.py", "winner/images.py", "winner/pictures.py"},
    "onnxruntime": {"winner/export/fresh.py"},
    "sklearn": {"baselines", "report/forest.py"},
    "IPython": {"notebook.py"},
    "ray": {"evaluation/cluster"},
    "aeon": {"baselines/series.py"},
    "numba": {"baselines/series.py"},
}


MODULES = {".".join(("nas", *path.relative_to(ROOT).with_suffix("").parts)): path for path in FILES}
MODULES = {name.removesuffix(".__init__"): path for name, path in MODULES.items()}


def imports(path: Path) -> Iterator[str]:
    """The modules that a file imports, now or later, for itself or for type checkers only."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from (name if name in MODULES else node.module for name in names)


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Counted are imports inside of functions, too. The front door imports nothing; it names for type checkers."""
    ahead = {name: set(imports(path)) & MODULES.keys() for name, path in MODULES.items()}
    ahead["nas"] = set()
    reached: dict[str, set[str]] = {}
    for start in MODULES:
        reached[start], waiting = set(), [start]
        while waiting:
            new = ahead[waiting.pop()] - reached[start]
            reached[start] |= new
            waiting += new
    circles = {name: sorted(other for other in reached[name] if name in reached[other]) for name in MODULES}
    assert {name: others for name, others in circles.items() if others} == {}


def within(path: Path, places: set[str] | tuple[str, ...]) -> bool:
    relative = path.relative_to(ROOT).as_posix()
    return any(relative == place or relative.startswith(f"{place}/") for place in places)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nobody_imports_what_stands_above(path: Path) -> None:
    own = path.relative_to(ROOT).parts[0].removesuffix(".py")
    if own == "__init__":
        return
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "nas" and len(parts) > 1 and parts[1] in RANK:
            assert RANK[parts[1]] <= RANK[own], f"{path} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_heavy_packages_are_imported_where_they_belong(path: Path) -> None:
    for name in imports(path):
        top = name.split(".")[0]
        if top in ONLY:
            assert within(path, ONLY[top]), f"{path} imports {name}"


def test_rooms_that_describe_do_not_import_torch() -> None:
    """A layer imports torch when its module is built: importing torch takes 3.5 s, and `nas list` does without."""
    light = sorted(name for name, path in MODULES.items() if within(path, NO_TORCH) and path not in TORCH)
    assert len(light) > 20
    imported = f"[importlib.import_module(name) for name in {light!r}]"
    code = f"import importlib, sys; {imported}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_only_one_file_opens_the_test_images() -> None:
    users = {p.relative_to(ROOT).as_posix() for p in FILES if ".load_test" in p.read_text()}
    # A data set checks its own and shows nothing of them; its contract compares the splits' images.
    assert users == {"winner/sealed.py", "data/plugin.py", "testing/datasets.py"}


@pytest.mark.parametrize(
    "words",
    [["--help"], *([name, "--help"] for name in ("search", "train", "predict", "export", "ui", "baselines"))],
)
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    heavy = ["torch", "torchvision", "mlflow", "optuna", "deap", "numpy", "pydantic", "rich", "matplotlib", "onnx"]
    heavy += ["sklearn", "aeon", "numba"]
    code = (
        "import sys; from nas.cli.main import cli\n"
        f"try: cli({words!r})\n"
        f"finally: print('HEAVY', [m for m in {heavy!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Usage:" in done.stdout
    assert "HEAVY []" in done.stdout


def test_a_file_stays_readable() -> None:
    long = {p.name: n for p in FILES if (n := len(p.read_text().splitlines())) > 420}
    assert not long
