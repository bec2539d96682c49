"""What a person sees: in a terminal of 80 columns, and without one."""

from __future__ import annotations

import re
from io import StringIO
from pathlib import Path

from conftest import LOSS, finished, job
from rich.console import Console

from nas.architecture.architecture import Limits
from nas.architecture.known import LECTURE, LENET5
from nas.cli.console import clock
from nas.cli.view import View, sparkline
from nas.objectives import scored
from nas.records.outcome import Header
from nas.trial import Trial

HEADER = Header(
    Path("runs/20261122-153000-evolve-3f9a"),
    {"strategy": "evolve", "space": "cnn", "trials": 40, "time_limit": None},
    {"name": "mnist-5k", "fingerprint": "f", "train": 3500, "validation": 500},
    Limits(),
    LOSS,
    note="mnist is nowhere: using mnist-5k",
)


def told(view: View) -> None:
    view.started(HEADER)
    for epochs, network in ((0.25, LECTURE), (1.0, LENET5)):
        trial = scored(finished(job(network, epochs), 0.3 / epochs), LOSS)
        view.trained(trial)
        view.told(trial)
    view.told(Trial.failed(job(LECTURE), "oom", "too large for this machine"))


def test_a_terminal_shows_progress_the_best_and_failures_in_80_columns() -> None:
    screen = StringIO()
    console = Console(file=screen, force_terminal=True, width=80, highlight=False)
    view = View(console)
    told(view)
    with console.capture() as capture:
        console.print(view.draw())
    view.close()
    lines = [re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", line) for line in capture.get().splitlines()]
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    assert "3/40 · 1 failed" in text
    assert "best       test  " in text  # where a network has a name, it is called by it
    assert "best loss " in text
    assert "left" in text
    assert "too large for this machine" in screen.getvalue()
    assert "\x1b[?25h" in screen.getvalue()  # the cursor is back


def test_the_reading_of_images_is_shown_before_the_search_begins() -> None:
    screen = StringIO()
    view = View(Console(file=screen, force_terminal=True, width=80, highlight=False))
    for done in (0, 12_000, 60_000):
        view.reading(done, 60_000)
    view.started(HEADER)  # the live view of the reading has to end
    view.close()
    assert "60,000 of 60,000 files" in screen.getvalue()
    plain = StringIO()
    view = View(Console(file=plain, width=80, highlight=False))
    for done in range(0, 1_002, 7):
        view.reading(done, 1_001)
    assert plain.getvalue().count("reading the files") == 10


def test_without_a_terminal_there_are_plain_lines() -> None:
    output = StringIO()
    view = View(Console(file=output, width=80, highlight=False))
    told(view)
    view.selecting(6, 16.0)
    view.close()
    assert "\x1b" not in output.getvalue()
    assert "note: mnist is nowhere: using mnist-5k" in output.getvalue()
    assert "searching: test · 100 parameters" in output.getvalue()
    assert "training the best again: 6 trainings of 16 epochs" in output.getvalue()


def test_times_and_curves_are_short() -> None:
    assert [clock(s) for s in (0, 61, 3_661)] == ["0:00", "1:01", "1:01:01"]
    assert sparkline([0, 1, 2, 3], 10) == "▁▃▆█"
    assert len(sparkline(list(range(500)), 60)) == 60
    assert sparkline([], 60) == ""
