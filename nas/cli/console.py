"""A search in the terminal: a live view, or plain lines if the output is no terminal; tables at the end.

Progress goes to standard error, the result to standard output.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Literal

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from nas.errors import plain, unprintable
from nas.objectives import FRACTIONS, rank
from nas.records.observer import Observer
from nas.records.outcome import Header, Outcome
from nas.records.searches import resume_command
from nas.report.summary import Summary, finalists, layer_rows, name_of, percent
from nas.trial import Trial

BARS = "▁▂▃▄▅▆▇█"
LONGEST_ID = 23  # characters of a candidate's id, with the mark of the winner


class QuietConsole(Console):
    """A console that becomes silent when nobody can read it any more; the search goes on.

    It prints texts unchanged: "[red]" in the name of a network or in a message is no markup. With NO_COLOR in the
    environment, it prints no escape codes at all.
    """

    def __init__(self, *, stderr: bool = False, highlight: bool = True) -> None:
        super().__init__(
            stderr=stderr, highlight=highlight, markup=False, emoji=False,
            color_system=None if os.environ.get("NO_COLOR") else "auto",
        )  # fmt: skip

    def on_broken_pipe(self) -> None:
        """Write nothing more."""
        self.quiet = True

    def print(self, *objects: Any, **options: Any) -> None:
        """Print. A closed terminal or a full log does not end a search, but no result is lost silently."""
        try:
            super().print(*objects, **options)
        except OSError as error:
            if not self.stderr:
                raise unprintable(error) from None
            self.quiet = True


class View(Observer):
    """Shows the progress of a search: in a few lines of a terminal that are redrawn, or in plain lines."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.begun = self.phase_begun = time.monotonic()
        self.live: Live | None = None
        self.header: Header | None = None
        self.phase = "reading the data"
        self.trained_count = self.told_count = self.failed_count = self.final_count = self.final_jobs = 0
        self.best: Trial | None = None
        self.best_scores: list[float] = []
        self.shown: set[str] = set()  # keys of jobs
        self.read = self.to_read = 0  # images

    def reading(self, done: int, total: int) -> None:
        """Show how many images are decoded; without a live view, each tenth of them."""
        before, self.read, self.to_read = self.read, done, total
        if self.live is None and self.console.color_system:
            self._start_live()
        if self.live is None and 10 * done // total > 10 * before // total:
            self.console.print(f"{self.clock:>6}  reading the images: {done:,} of {total:,}")

    def preparing(self, what: str) -> None:
        """Say what takes some seconds."""
        self.close()  # the live view of the reading
        self.console.print(f"{self.clock:>6}  {what}")

    def planned(self, plan: str) -> None:
        """Print the plan."""
        self.console.print(f"plan: {plain(plan)}")

    def started(self, header: Header) -> None:
        """Print the strategy, the data and the folder."""
        self.close()  # of the reading
        self.header = header
        config, data = header.config, header.dataset
        for line in header.note.splitlines():
            self.console.print(f"note: {plain(line)}", style="yellow", soft_wrap=True)
        self.phase, task = "searching", f"{header.kind} on {header.settings.get('space')}"
        if header.kind == "train":
            self.phase, task = "training", f"training {config['network']}"
        sizes = f"{data['train']:,} images to train, {data['validation']:,} to validate"
        self.console.print(f"{task}, {data['name']} ({sizes}) → {header.folder}", soft_wrap=True)
        if header.is_unequal:
            by_size = sorted(((train, plain(name)) for name, (train, _) in header.counts.items()), reverse=True)
            (most, largest), (least, smallest) = by_size[0], by_size[-1]
            unequal = f"{most:,} training images of {largest}, {least:,} of {smallest}"
            self.console.print(f"the classes are of unequal size: {unequal}", soft_wrap=True)
        if self.console.color_system:  # a terminal that knows escape codes, and may get them
            self._start_live()

    def resumed(self, told: int, trained: Collection[str], seconds: float) -> None:
        """Print how much of the search is done; these trainings are not shown again."""
        self.begun -= seconds
        self.shown |= set(trained)
        done = f"{told} candidates and {len(trained)} trainings are finished, after {clock(seconds)}"
        self.console.print(f"resuming: {done}", soft_wrap=True)

    def trained(self, trial: Trial) -> None:
        """Count a training, and show it."""
        self.trained_count += 1
        self.final_count += self.phase == "selecting"
        if self.live is None:
            self.shown.add(trial.job.key)
            self.console.print(f"{self.clock:>6}  {self.phase}: {describe(trial)}", soft_wrap=True)

    def told(self, trial: Trial) -> None:
        """Count a finished candidate, and remember the best."""
        self.told_count += 1
        self.failed_count += trial.failure is not None
        if trial.failure is None and (self.best is None or rank(trial) > rank(self.best)):
            self.best = trial
        if trial.failure is not None and trial.job.key not in self.shown:
            self.console.print(f"{self.clock:>6}  {describe(trial)}", soft_wrap=True)
        if self.best is not None:
            self.best_scores.append(self.best.scores[0])

    def ended(self, reason: str) -> None:
        """Print why the search ends."""
        self.console.print(f"{self.clock:>6}  {plain(reason)}", soft_wrap=True)

    def selecting(self, jobs: int, epochs: float) -> None:
        """Show that the final selection begins."""
        self.phase, self.final_jobs, self.phase_begun = "selecting", jobs, time.monotonic()
        if self.live is None:
            trainings = f"{jobs} training{'s' * (jobs != 1)}"
            self.console.print(f"{self.clock:>6}  training the best again: {trainings} of {epochs:g} epochs")

    def warned(self, message: str) -> None:
        """Show a warning above the live view."""
        self.console.print(f"warning: {plain(message)}", style="yellow", soft_wrap=True)

    def interrupted(self) -> None:
        """Answer Ctrl-C."""
        self.close()
        if self.console.is_terminal:
            text = "interrupted: writing the record (press Ctrl-C again to leave at once)"
            self.console.print(text, style="yellow")

    def failed(self, message: str) -> None:
        """Print how to continue; the command line prints the message itself afterwards."""
        self.close()
        if self.header and self.header.kind != "train" and self.trained_count + len(self.shown):
            command = resume_command(self.header.folder, self.header.config)
            text = f"all finished trainings are kept; solve the problem, then continue with: {command}"
            self.console.print(text, soft_wrap=True)

    def close(self) -> None:
        """Restore the terminal."""
        if self.live is not None:
            live, self.live = self.live, None
            with suppress(OSError):
                live.stop()

    @property
    def clock(self) -> str:
        """The time since the start."""
        return clock(time.monotonic() - self.begun)

    def _start_live(self) -> None:
        self.live = Live(get_renderable=self.draw, console=self.console, refresh_per_second=2, transient=True)
        self.live.start()

    def draw(self) -> Group:
        """The live view: at most four lines of 80 columns."""
        if self.header is None:
            row = Table.grid(padding=(0, 1))
            bar = ProgressBar(total=1.0, completed=self.read / self.to_read, width=20)
            row.add_row(Text("reading   "), bar, Text(f"{self.read:,} of {self.to_read:,} images · {self.clock}"))
            return Group(row)
        done, total = self.told_count, self.header.config.get("trials")
        if self.phase == "selecting":
            done, total = self.final_count, self.final_jobs
        elif self.header.kind == "train":
            done, total = self.trained_count, self.header.config.get("seeds", 1)
        limit = self.header.config.get("time_limit")
        elapsed = time.monotonic() - self.begun
        left = ""
        if limit:
            left = f" · {clock(max(0, limit - elapsed))} left"
        elif total and done:
            pace = (time.monotonic() - self.phase_begun) / done
            left = f" · about {clock(pace * (total - done))} left in this phase"
        count = f"{done}/{total}" if total else str(done)
        failed = f" · {self.failed_count} failed" if self.failed_count else ""
        grid = Table.grid(padding=(0, 1))
        share = done / total if total else (elapsed / limit if limit else 0)
        bar = ProgressBar(total=1.0, completed=min(1.0, share), width=20)
        grid.add_row(Text(f"{self.phase:<10}"), bar, Text(f"{count}{failed} · {self.clock}{left}"))
        if self.best is None:
            return Group(grid)
        best = Text(f"best       {describe(self.best)}", style="bold")
        return Group(grid, best, Text(f"so far     {sparkline(self.best_scores, 60)}", style="cyan"))


@contextmanager
def observer(command: str) -> Iterator[View]:
    """The view of one command, from its first line to the restored terminal."""
    view = View(QuietConsole(stderr=True, highlight=False))
    view.console.print(f"nas {command}: starting", style="dim")
    try:
        yield view
    finally:
        view.close()


def show_result(outcome: Outcome) -> None:
    """Print the winner's layers and scores, and the next step."""
    console, summary, header = QuietConsole(highlight=False), Summary.of(outcome), outcome.header
    kind = "network" if header.kind == "train" else "winner"
    layer_texts = [row[:3] for row in layer_rows(outcome.architecture, header.limits)]
    layers = table(f"The {kind}, {name_of(outcome.winner)}", ("layer", "output", "parameters"), layer_texts[:-1])
    layers.add_section()
    layers.add_row(*layer_texts[-1], style="bold")
    console.print(layers)
    if len(header.objectives) > 1:
        metrics = dict.fromkeys([*(o.metric for o in header.objectives), "validation_accuracy", "parameters"])
        networks = [
            (name_of(trial) + " *" * (trial.id == outcome.winner.id), *_values(trial, metrics))
            for trial in outcome.front
        ]
        front = table("The Pareto front of the search", ("network", *metrics), networks)
        front.caption, front.caption_justify = (
            "* the winner: the best by the first objective after retraining",
            "left",
        )
        console.print(front)
    if header.kind != "train" and len(outcome.finalists) > 1:
        title = f"The finalists, trained again from scratch for {outcome.retrained[0].job.epochs:g} epochs"
        metric, best = header.objectives[0].metric, finalists(outcome)
        is_other = metric != "validation_accuracy"
        columns = ["network", *[metric] * is_other, "validation_accuracy", "parameters", "ms an image"]
        rows = [[row.network, *[row.score] * is_other, row.accuracy, row.parameters, row.latency] for row in best]
        rows[0][0] += " *"
        again = table(title, columns, rows)
        seeds = f"mean ± standard deviation over the seeds ({', '.join(row.seeds for row in best)})"
        again.caption, again.caption_justify = f"* the winner; {seeds}", "left"
        console.print(again)
    for reason in summary.reasons:
        console.print(reason)
    console.print()
    scores = Table.grid(padding=(0, 2))
    for no_wrap in (True, True, False):
        scores.add_column(no_wrap=no_wrap)
    for score in summary.rows:
        scores.add_row(*score[:3], style="bold" if score.is_main else "")
    console.print(scores)
    for comparison in summary.comparisons:
        console.print(f"\n{comparison}")
    if summary.classes:
        console.print("\n" + "\n".join(summary.classes))
    console.print("\n" + "\n".join(summary.cost))
    console.print(f"{summary.effort}. The network: {outcome.weights.parent}", soft_wrap=True)
    if header.config.get("mlflow") == "auto" and "MLFLOW_TRACKING_URI" not in os.environ:
        console.print("Look at it in the dashboard: nas ui")


def show_leaders(trials: Sequence[Trial]) -> None:
    """Print the best networks of a search so far."""
    metrics = ("parameters", "validation_accuracy", "validation_loss")
    rows = [(name_of(trial), *_values(trial, metrics), f"{trial.job.epochs:g}") for trial in trials]
    if rows:
        QuietConsole(highlight=False).print(table("The best of the search", ("network", *metrics, "epochs"), rows))


def table(title: str, columns: Iterable[str], rows: Iterable[Iterable[str]]) -> Table:
    """A table with text in the first column and numbers in the others."""
    cells = [list(row) for row in rows]
    widest = max((len(first) for first, *_ in cells), default=0)
    table = Table(title=title, title_justify="left")
    for column in columns:
        # In a narrow terminal the ids stay whole, with which `nas train` is called; longer names are wrapped.
        whole = column in ("network", "strategy") and widest <= LONGEST_ID
        justify: Literal["left", "right"] = "right" if table.columns else "left"
        table.add_column(column.replace("_", " "), justify=justify, no_wrap=whole, overflow="fold")
    for row in cells:
        table.add_row(*row)
    return table


def _values(trial: Trial, metrics: Iterable[str]) -> list[str]:
    return [number(metric, trial.metrics[metric]) for metric in metrics]


def number(metric: str, value: float) -> str:
    """The value of a metric as text."""
    if metric in FRACTIONS:
        return percent(value)
    return f"{value:,.0f}" if metric in ("parameters", "flops", "images_per_second") else f"{value:.4g}"


def describe(trial: Trial) -> str:
    """One trial in one line."""
    name = name_of(trial)
    if trial.failure is not None:
        return f"{name} failed ({trial.failure.kind}): {plain(trial.failure.message)}"
    metrics = trial.metrics
    return (
        f"{name} · {metrics['parameters']:,.0f} parameters · {percent(metrics['validation_accuracy'])} · "
        f"loss {metrics['validation_loss']:.4f} · {trial.job.epochs:.3g} epochs"
    )


def clock(seconds: float) -> str:
    """A time as minutes and seconds, with hours from one hour on."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def sparkline(values: list[float], width: int) -> str:
    """Values as a row of bars, scaled from the lowest to the highest."""
    if not values:
        return ""
    picked = values if len(values) <= width else [values[i * len(values) // width] for i in range(width)]
    low, high = min(picked), max(picked)
    return "".join(BARS[round((value - low) / (high - low or 1) * (len(BARS) - 1))] for value in picked)
