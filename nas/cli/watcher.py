"""A comparison in the terminal: a line for each step, with a live one below; tables at the end."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Self

from rich.live import Live
from rich.text import Text

from nas.baselines.baseline import Baseline
from nas.cli.console import QuietConsole, clock, table
from nas.comparison.result import Compared
from nas.comparison.tables import tables
from nas.comparison.watcher import Watcher
from nas.errors import plain
from nas.files import shown
from nas.records.observer import Observer
from nas.report.words import percent
from nas.run.conclude import Selected
from nas.statistics import mean
from nas.trial import Trial


class Count(Observer):
    """Counts the trainings of a search, since it began."""

    def __init__(self, view: View, title: str) -> None:
        self.title, self.trainings, self.begun, self._view = title, 0, time.monotonic(), view

    def trained(self, trial: Trial) -> None:
        """Count a training."""
        self.trainings += 1

    def warned(self, message: str) -> None:
        """Show a warning."""
        self._view.warned(message)


class View(Watcher):
    """Shows the progress of a comparison."""

    def __init__(self, command: str) -> None:
        self.console = QuietConsole(stderr=True, highlight=False)
        self.console.print(f"nas {command}: starting", style="dim")
        self.begun = self.since = time.monotonic()
        self.live: Live | None = None
        self.step = ""
        self.searches: dict[str, Count] = {}  # those that run now

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._rest()

    def searching(self, name: str, number: int, count: int) -> Observer:
        """Show that a search runs."""
        self._begin("")
        self.searches[name] = Count(self, f"{name} ({number} of {count})")
        return self.searches[name]

    def searched(self, name: str, decided: Selected) -> None:
        """Print what a search has found."""
        group, begun = decided.finalists[0], self.searches.pop(name).begun
        accuracy = mean([trial.metrics["validation_accuracy"] for trial in group])
        trials = f"{len(decided.history)} trials in {clock(time.monotonic() - begun)}"
        self._end(f"{name}: {decided.winner.id}, {percent(accuracy)} of the validation {self.noun}; {trials}")

    def failed(self, name: str, message: str) -> None:
        """Print why a search has no winner."""
        self.searches.pop(name, None)
        self._end(f"{name} has no winner: {plain(message)}", "yellow")

    def fitting(self, name: str) -> None:
        """Show which baseline it is."""
        self._begin(name)

    def fitted(self, baseline: Baseline) -> None:
        """Print the baseline's accuracy."""
        share = f"{percent(baseline.validation_accuracy)} of the validation {self.noun}"
        self._end(f"{baseline.name}: {share}, {baseline.setting}")

    def opening(self, models: int) -> None:
        """Print that the test images are opened."""
        self._end(f"everything is decided: the test {self.noun} are opened, once, for {models} models")
        self._begin("testing")

    def explaining(self, what: str) -> None:
        """Show which experiment it is."""
        self._begin(what)

    def warned(self, message: str) -> None:
        """Print a warning."""
        self.console.print(f"warning: {plain(message)}", style="yellow", soft_wrap=True)

    def _begin(self, step: str) -> None:
        self.step, self.since = step, time.monotonic()
        if self.live is None and self.console.color_system:
            self.live = Live(get_renderable=self._line, console=self.console, refresh_per_second=2, transient=True)
            self.live.start()

    def _end(self, line: str, style: str = "") -> None:
        self.console.print(f"{clock(time.monotonic() - self.begun):>7}  {line}", style=style, soft_wrap=True)

    def _line(self) -> Text:
        running, now = list(self.searches.values()), time.monotonic()
        trainings, since = sum(one.trainings for one in running), self.since
        step = self.step
        if running:
            others = f" and {len(running) - 1} more" * (len(running) > 1)
            step, since = f"{running[0].title}{others} · {trainings} trainings", running[0].begun
        return Text(f"{clock(now - self.begun):>7}  {step} · {clock(now - since)}", "cyan")

    def _rest(self) -> None:
        if self.live is not None:
            live, self.live = self.live, None
            with suppress(OSError):
                live.stop()


def show_tables(compared: Compared) -> None:
    """Print the tables of a comparison, and what may be concluded."""
    console = QuietConsole(highlight=False)
    for one in tables(compared).values():
        console.print(table(*one))
    for sentence in compared.conclusions:
        console.print(f"- {plain(sentence)}")
    console.print(f"\nThe comparison: {shown(compared.folder)}", soft_wrap=True)
