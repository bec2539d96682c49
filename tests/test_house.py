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

# Each package may import those above it in this list, and itself: a circle cannot be.
ORDER = [
    {"errors"},
    {"checks", "files", "statistics"},
    {"plugins"},
    {"architecture"},
    {"spaces"},
    {"trial"},
    {"objectives"},
    {"data", "training"},
    {"strategies", "evaluation", "records", "experiment"},
    {"search", "report", "testing"},
    {"dashboard", "winner"},
    {"run"},
    {"cli"},
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
ONLY = {
    "deap": {"strategies/evolve.py"},
    "optuna": {"strategies/trial_and_error.py"},
    "moocore": {"objectives.py"},
    "matplotlib": {"report/figures"},
    "jinja2": {"report/page.py"},
    "mlflow": {"dashboard"},
    "PIL": {"winner/images.py"},
    "onnxruntime": {"winner/export/fresh.py"},
}


def imports(path: Path) -> Iterator[str]:
    """What a file imports, now or later."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            if node.module == "nas":
                yield from (f"nas.{alias.name}" for alias in node.names)


def within(path: Path, places: set[str] | tuple[str, ...]) -> bool:
    relative = path.relative_to(ROOT).as_posix()
    return any(relative == place or relative.startswith(f"{place}/") for place in places)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nobody_imports_what_stands_above(path: Path) -> None:
    own = path.relative_to(ROOT).parts[0].removesuffix(".py")
    if own == "__init__":
        return
    # Experiment.run, at the bottom of the configuration, is a shorthand for a run: the one way back.
    allowed = {"run"} if own == "experiment" else set()
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "nas" and len(parts) > 1 and parts[1] in RANK:
            assert RANK[parts[1]] <= RANK[own] or parts[1] in allowed, f"{path} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_heavy_packages_are_imported_where_they_belong(path: Path) -> None:
    for name in imports(path):
        top = name.split(".")[0]
        if top in ONLY:
            assert within(path, ONLY[top]), f"{path} imports {name}"
        if top in ("torch", "torchvision", "safetensors"):
            assert not within(path, NO_TORCH), f"{path} imports {name}"


def test_only_one_file_opens_the_test_images() -> None:
    users = {p.relative_to(ROOT).as_posix() for p in FILES if ".load_test" in p.read_text()}
    # The contract of data sets compares the splits' images with one another; no search imports it.
    assert users == {"winner/sealed.py", "testing/datasets.py"}


@pytest.mark.parametrize(
    "words", [["--help"], *([name, "--help"] for name in ("search", "train", "predict", "export", "ui"))]
)
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    heavy = ["torch", "torchvision", "mlflow", "optuna", "deap", "numpy", "pydantic", "rich", "matplotlib", "onnx"]
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
