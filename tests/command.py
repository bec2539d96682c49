"""The real command, as tests use it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
from click.testing import CliRunner, Result

from nas.cli.main import cli
from nas.records.journal import FILE
from nas.records.record import read

NAS = [sys.executable, "-m", "nas"]
QUICK = ["--dataset", "mnist-5k", "--epochs", "0.25", "--max-parameters", "20000", "--max-flops", "1500000"]
QUICK += ["--precision", "float32"]  # so that the result is the same on every CPU
TIMES = ("train_seconds", "images_per_second", "latency_ms")


def nas(*words: str, cwd: Path, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, and check that it prints no traceback."""
    done = subprocess.run(
        [*NAS, *words], cwd=cwd, capture_output=True, text=True, env={**os.environ, **environment}, check=False
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def inline(*words: str, code: int = 0, given: bytes | None = None) -> Result:
    """Run a command to its end in this process, which has done the slow imports already."""
    result = CliRunner().invoke(cli, words, input=given)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == code, result.output
    return result


def error_line(done: subprocess.CompletedProcess[str] | Result) -> str:
    """The error message of a command, which is one line."""
    [line] = [text for text in done.stderr.splitlines() if text.startswith("nas: ")]
    return line


def results(folder: Path) -> dict[str, Any]:
    """The results of a search without times: those of two equal searches are equal, bit for bit.

    Checks that no training is in the journal twice.
    """
    lines = [json.loads(line) for line in (folder / FILE).read_bytes().splitlines()]
    record = read(folder / FILE)[0]
    assert sum("trial" in line for line in lines) == len(record.trials), "a training was done twice"
    trials = {}
    for key, trial in record.trials.items():
        data = trial.to_dict()
        data["metrics"] = {name: value for name, value in data["metrics"].items() if name not in TIMES}
        data["curve"] = [{name: value for name, value in p.items() if name != "seconds"} for p in data["curve"]]
        trials[key] = data
    return {
        "trials": trials,
        "told": [told.trial.job.key for told in record.told],
        "plan": record.plan,
        "outcome": {k: v for k, v in (record.outcome or {}).items() if k not in ("at", "seconds")},
        "weights": {path.name: path.read_bytes() for path in folder.rglob("*.safetensors")},
        "architecture": (folder / "best" / "architecture.json").read_text(),
    }


def pace(folder: Path) -> float:
    """The seconds until a search had its first eight candidates; most of that is its start."""
    return read(folder / FILE)[0].told[7].seconds


def survivors(processes: list[psutil.Process], seconds: float = 2.0) -> list[psutil.Process]:
    """The processes that are still alive after some seconds."""
    until = time.monotonic() + seconds
    while (alive := [process for process in processes if _lives(process)]) and time.monotonic() < until:
        time.sleep(0.01)
    return alive


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
