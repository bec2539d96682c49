"""Time limits: too short ones are refused, and a strategy that does not answer does not outlast one."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from threading import Event

import pytest
from command import NAS, QUICK, error_line, inline, nas
from conftest import Instant, Tiny

from nas.records.journal import FILE, Journal
from nas.records.observer import Observer
from nas.records.record import read
from nas.run import time_limit
from nas.run.time_limit import COLD, _in_memory
from nas.search import Budget, Search
from nas.spaces.space import Candidate
from nas.strategies.strategy import Strategy
from nas.trial import Trial

ABOUT = {"config": {}, "dataset": {"name": "mnist-5k"}}
SILENT = """
from nas.strategies.strategy import Strategy

class Silent(Strategy):
    def ask(self, count):
        while len(self.history) >= {answers}:
            pass
        return [self.space.sample(self.rng) for _ in range(2)]
"""


class Warnings(Observer):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def warned(self, message: str) -> None:
        self.lines.append(message)


@pytest.mark.parametrize("method", ["ask", "tell"])
def test_a_strategy_that_never_answers_ends_the_search_with_what_it_has(method: str) -> None:
    class Silent(Strategy):
        def ask(self, count: int) -> list[Candidate]:
            if method == "ask" and self.history:
                Event().wait()
            return [self.space.sample(self.rng)]

        def tell(self, trials: Sequence[Trial]) -> None:
            if method == "tell":
                Event().wait()

    told = Warnings()
    budget = Budget(until=time.monotonic() + 0.3)
    trials = Search(Silent(Tiny()), Instant(), budget, epochs=1.0, observer=told).run()
    assert len(trials) == 1
    assert told.lines == ["the strategy Silent has not answered in time: the search ends without waiting longer"]


def test_an_error_that_looks_like_a_late_answer_is_an_error() -> None:
    class Refused(Strategy):
        def ask(self, count: int) -> list[Candidate]:
            raise TimeoutError("the server is down")

    search = Search(Refused(Tiny()), Instant(), Budget(until=time.monotonic() + 60), epochs=1.0)
    with pytest.raises(Exception, match="Refused failed in ask: TimeoutError: the server is down"):
        search.run()


@pytest.mark.faults
def test_a_busy_strategy_ends_with_its_search_and_is_asked_again_with_more_time(tmp_path: Path) -> None:
    (tmp_path / "plugins").mkdir()
    plugin = tmp_path / "plugins" / "silent.py"
    plugin.write_text(SILENT.format(answers=2))
    words = ["--strategy", "silent", "--mlflow", "off", "--out", "silent", *QUICK]
    done = nas("search", "--time-limit", "40s", *words, cwd=tmp_path)
    assert "Silent has not answered in time" in done.stderr
    before = read(tmp_path / "silent" / FILE)[0]
    assert before.outcome is not None
    assert (len(before.told), before.seconds < 55) == (2, True)
    plugin.write_text(SILENT.format(answers=1_000))
    nas("resume", "silent", "--force", "--time-limit", "80s", "--trials", "4", cwd=tmp_path)
    after = read(tmp_path / "silent" / FILE)[0]
    assert after.outcome is not None
    assert [told.trial.id for told in after.told[:2]] == [told.trial.id for told in before.told]
    assert len(after.told) == 4


def test_a_limit_that_is_too_short_is_refused_before_anything_slow(tmp_path: Path) -> None:
    script = (
        "import sys; from nas.cli.start import run\n"
        "try: run()\nfinally: assert not {'torch', 'mlflow'} & sys.modules.keys()"
    )
    words = ["search", "--dataset", "mnist-5k", "--time-limit", "3s"]
    done = subprocess.run(
        [sys.executable, "-c", script, *words], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    line = "a time limit of 3 s is too short for the data set mnist-5k on this machine: give it --time-limit"
    least = int(error_line(done).partition(f"{line} ")[2].partition("s or more")[0])
    assert 29 <= least <= 29 + COLD + 1  # more while a part of PyTorch is not in memory
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("host", "names", "least"),
    [
        (platform.node(), ["mnist-5k", "mnist-5k"], 77),
        (platform.node(), ["mnist-5k"], 17),  # it may have downloaded the data
        ("elsewhere", ["mnist-5k", "mnist-5k"], 17),
        (platform.node(), ["mnist", "mnist"], 17),
    ],
)
def test_the_shortest_limit_is_known_from_earlier_searches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, names: list[str], least: int
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(platform, "node", lambda: host)
    for number, name in enumerate(names):
        folder = tmp_path / "runs" / f"earlier {number}"
        folder.mkdir(parents=True)
        with Journal(folder / FILE, begun=time.monotonic() - 50 * (number + 1)) as journal:
            journal.begin({**ABOUT, "dataset": {"name": name}})
            journal.asked(8, [])
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time_limit, "_cold", lambda: 0.0)
    words = ["search", "--dataset", "mnist-5k", "--mlflow", "off", "--time-limit", "3s"]
    assert f"--time-limit {least}s or more" in error_line(inline(*words, code=2))


def test_a_resumed_search_needs_enough_of_its_time(place: Path) -> None:
    folder = next((place / "runs").iterdir())
    seconds = read(folder / FILE)[0].seconds
    words = ["resume", str(folder), "--trials", "20", "--time-limit"]
    assert "has taken" in error_line(inline(*words, "1s", code=2))
    line = error_line(inline(*words, f"{seconds + 1:.0f}s", code=2))
    assert f"of which {seconds:.0f} s are over, is too short" in line


@pytest.mark.skipif(not hasattr(os, "RWF_NOWAIT"), reason="this system does not tell what is in memory")
def test_a_file_that_must_be_read_from_the_disk_is_known(tmp_path: Path) -> None:
    file = tmp_path / "module.pyc"
    file.write_bytes(bytes(100))
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
        # A page that another core still holds is kept, so that the system is asked more than once.
        for _ in range(100):
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            if gone := not _in_memory(file):
                break
            time.sleep(0.1)
    assert gone
    file.read_bytes()
    assert _in_memory(file)


def test_the_clock_begins_with_the_command() -> None:
    """A slow import counts; within another program, nothing from before the call does."""
    script = """
import sys, time, nas
def search(*_, begun, **__):
    print(0.0 if begun is None else time.monotonic() - begun)
    sys.exit()
nas.search = search
sys.argv = ["nas", "search"]
import nas.cli.start
class Slow:
    def find_spec(self, name, *_):
        time.sleep(0.5 * (name == "nas.cli.main"))
sys.meta_path.insert(0, Slow())
if COMMAND:
    nas.cli.start.main()
import nas.cli.main
nas.cli.main.cli()
"""
    for command in (True, False):
        words = [NAS[0], "-c", script.replace("COMMAND", str(command))]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert (0.5 < float(done.stdout) < 60) if command else float(done.stdout) == 0.0
