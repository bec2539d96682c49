"""Every code block of the docs does what the page says, in an empty folder, from top to bottom."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from nas.cli.main import cli

ROOT = Path(__file__).parent.parent
PAGES: list[Any] = [
    "docs/write-a-strategy.md",
    "docs/write-a-space.md",
    "docs/write-a-dataset.md",
    "docs/your-own-images.md",
    "docs/time-series.md",
    "docs/write-a-layer.md",
    pytest.param("docs/use-the-winner.md", marks=pytest.mark.faults),  # 35 s: it exports in every format
]


def blocks(text: str) -> list[tuple[str, str]]:
    """(language, code) of every fenced block that is meant to be run."""
    found = re.findall(r"^```(\w+)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [(language, code) for language, code in found if language in ("python", "bash")]


def run_line(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line of a bash block. `nas` runs in this process: torch and the workers' server have started already."""
    words = shlex.split(line)
    if words[0] == "export":
        name, _, value = words[1].partition("=")
        monkeypatch.setenv(name, value)
    elif words[0] == "nas":
        off = ["--mlflow", "off"] if words[1] == "search" else []  # its first database takes ten seconds
        result = CliRunner().invoke(cli, [*words[1:], *off])
        assert result.exit_code == 0, f"{line}\n{result.output}"
    else:
        assert words[:3] == ["python", "-m", "pytest"], line
        done = subprocess.run([sys.executable, *words[1:]], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}\n{done.stdout}"


@pytest.mark.parametrize("page", PAGES)
def test_every_block_of_the_page_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NAS_PLUGINS", raising=False)
    for language, code in blocks((ROOT / page).read_text(encoding="utf-8")):
        if language == "bash":
            for line in filter(None, code.splitlines()):
                run_line(line, monkeypatch)
        elif file := re.match(r"# (\S+\.py)\n", code):  # the block is a file
            path = Path(file[1])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(code, encoding="utf-8")
        else:
            exec(compile(code, page, "exec"), {"__name__": "__main__"})


def test_a_strategy_is_five_lines_or_fewer() -> None:
    code = next(code for _, code in blocks((ROOT / PAGES[0]).read_text(encoding="utf-8")))
    lines = [line for line in code.splitlines() if line.strip() and not line.strip().startswith(("#", '"""'))]
    assert len(lines) <= 5
