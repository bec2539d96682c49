"""The command from its first moment to its last line, whatever the terminal does and whatever can be printed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from command import NAS, error_line, nas
from test_console import told

from nas.cli.console import QuietConsole
from nas.cli.view import View

CTRL_C = """
import os, signal, sys

class Press:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Press())
sys.argv[1:] = ["data", "list"]
from nas.cli.start import main
main()
"""


@pytest.mark.parametrize("module", ["click.core", "nas.cli.search", "numpy"])
def test_ctrl_c_during_an_import_is_one_line(module: str, tmp_path: Path) -> None:
    script = CTRL_C.format(module=module)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "nas: interrupted\n")


LAST = """
import atexit
import nas.cli.main

def cli(**_):
    atexit.register(print, "last words")
    raise {error}

nas.cli.main.cli = cli
from nas.cli.start import main
main()
"""


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        ("SystemExit(0)", 0, ""),
        ("SystemExit(3)", 3, ""),
        ("SystemExit('no')", 1, "no"),
        ("KeyError(7)", 1, "KeyError"),
    ],
)
def test_the_quick_end_keeps_the_exit_code_and_what_others_do_at_the_end(
    error: str, code: int, words: str
) -> None:
    script = LAST.format(error=error)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (code, "last words\n")
    assert words in done.stderr


ASCII = [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}]


@pytest.mark.parametrize("environment", ASCII, ids=["PYTHONIOENCODING", "locale"])
def test_an_encoding_without_our_characters_ends_nothing(place: Path, environment: dict[str, str]) -> None:
    [folder] = (place / "runs").iterdir()
    done = nas("show", f"./runs/{folder.name}", cwd=place, code=0, **environment)
    assert done.stdout.isascii()
    assert "evolve on mnist-5k - 10 candidates - validation " in done.stdout
    assert "+-" in done.stdout


@pytest.mark.parametrize("words", [["show"], ["show", "--json"], ["data", "list"], ["--help"]], ids=" ".join)
def test_a_result_that_cannot_be_written_is_an_error(place: Path, words: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*NAS, *words], cwd=place, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert "No space left on device" in error_line(done)
    assert len(done.stderr.splitlines()) == 1


def test_a_closed_output_ends_nothing(tmp_path: Path) -> None:
    command = ["bash", "-c", '"$0" -m nas data list >&- && "$0" -m nas data list 2>&-', sys.executable]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "mnist-5k" in done.stdout


def test_no_color_means_no_escape_codes(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")  # makes a terminal of what is none
    for color in ("", "1"):
        monkeypatch.setenv("NO_COLOR", color)
        view = View(QuietConsole(stderr=True))
        told(view)
        view.close()
        assert ("\x1b" in capfd.readouterr().err) == (not color)


PORTABLE = """
import importlib, multiprocessing, os, pkgutil, signal, sys
import torch, mlflow
for module, names in {
    os: ("killpg", "setsid", "getuid", "sched_getaffinity", "sysconf", "getsid"),
    signal: ("SIGKILL", "SIGHUP", "pthread_sigmask"),
}.items():
    for name in names:
        delattr(module, name)
for name in ("fcntl", "resource"):
    sys.modules[name] = None
import nas
for module in pkgutil.walk_packages(nas.__path__, "nas."):
    if module.name not in ("nas.training.gpu.kernels", "nas.evaluation.local.server"):  # of Linux
        importlib.import_module(module.name)
print("all")
"""


@pytest.mark.faults
def test_everything_is_imported_where_unix_is_missing() -> None:
    done = subprocess.run([sys.executable, "-c", PORTABLE], capture_output=True, text=True, check=False)
    assert done.stdout == "all\n", done.stderr
