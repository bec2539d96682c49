"""What a person sees of a search: a live view in a terminal, plain lines elsewhere, a table at the end.

Progress goes to standard error, the result to standard output.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from nas.architecture.architecture import Limits
from nas.architecture.known import lecture_parameters
from nas.architecture.layers import show
from nas.errors import plain
from nas.objectives import rank
from nas.records.observer import Observer
from nas.records.outcome import Header, Outcome
from nas.records.searches import resume_command
from nas.report.texts import spread
from nas.trial import Trial

SHOWN = ("parameters", "validation_accuracy", "validation_loss")
BARS = "▁▂▃▄▅▆▇█"


class QuietConsole(Console):
    """A console that falls silent when its reader has gone; a search goes on without an audience.

    It prints texts as they are: "[red]" in the name of a network, or in a message, is no markup.
    """

    def __init__(self, *, stderr: bool = False, highlight: bool = True) -> None:
        super().__init__(stderr=stderr, highlight=highlight, markup=False, emoji=False)

    def on_broken_pipe(self) -> None:
        """Write nothing any more."""
        self.quiet = True

    def print(self, *objects: Any, **how: Any) -> None:
        """Print; a terminal that was closed, or a log on a full disk, is no reason to end a search."""
        with _quiet(self):
            super().print(*objects, **how)


@contextmanager
def _quiet(console: Console) -> Iterator[None]:
    try:
        yield
    except OSError:
        console.quiet = True


class View(Observer):
    """Counts what happens; tells it in plain lines, or in a few lines of a terminal that are drawn anew."""

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

    def hello(self, what: str) -> None:
        """The first sign of life, before anything slow is imported."""
        self.console.print(f"nas {what}: starting", style="dim")

    def started(self, header: Header) -> None:
        """Say what is about to happen."""
        self.header = header
        config, data = header.config, header.dataset
        if header.note:
            self.console.print(f"note: {plain(header.note)}", style="yellow", soft_wrap=True)
        what = f"{header.kind} on {config['space']}" if header.kind != "train" else f"training {config['network']}"
        self.console.print(
            f"{what}, {data['name']} ({data['train']:,} images to train, {data['validation']:,} to validate)",
            f"→ {header.folder}",
            soft_wrap=True,
        )
        self.phase = "searching" if header.kind != "train" else "training"
        if self.console.is_terminal:
            self.live = Live(get_renderable=self.draw, console=self.console, refresh_per_second=2, transient=True)
            self.live.start()

    def resumed(self, told: int, trained: Collection[str], seconds: float) -> None:
        """Say what is known from before, and do not show it again."""
        self.begun -= seconds
        self.shown |= set(trained)
        known = f"{told} candidates and {len(trained)} trainings are known, {clock(seconds)} of work"
        self.console.print(f"going on: {known}", soft_wrap=True)

    def trained(self, trial: Trial) -> None:
        """Count a training, and show it."""
        self.trained_count += 1
        self.final_count += self.phase == "selecting"
        if self.live is None:
            self.shown.add(trial.job.key)
            self.console.print(f"{self.clock:>6}  {self.phase}: {words(trial, self.limits)}", soft_wrap=True)

    def told(self, trial: Trial) -> None:
        """Count a candidate that is through, and remember the best."""
        self.told_count += 1
        self.failed_count += trial.failure is not None
        if trial.failure is None and (self.best is None or rank(trial) > rank(self.best)):
            self.best = trial
        if trial.failure is not None and trial.job.key not in self.shown:
            self.console.print(f"{self.clock:>6}  {words(trial, self.limits)}", soft_wrap=True)
        if self.best is not None:
            self.best_scores.append(self.best.scores[0])

    def selecting(self, jobs: int, epochs: float) -> None:
        """The second half begins."""
        self.phase, self.final_jobs, self.phase_begun = "selecting", jobs, time.monotonic()
        if self.live is None:
            self.console.print(f"{self.clock:>6}  training the best again: {jobs} trainings of {epochs:g} epochs")

    def warned(self, message: str) -> None:
        """Show a warning above everything else."""
        self.console.print(f"warning: {plain(message)}", style="yellow", soft_wrap=True)

    def interrupted(self) -> None:
        """Answer the person's Ctrl-C."""
        self.close()
        self.console.print("interrupted: writing the record (again: leave at once)", style="yellow")

    def failed(self, message: str) -> None:
        """Say what is left; the message itself is the last line."""
        self.close()
        if self.header and self.header.kind != "train" and self.trained_count + len(self.shown):
            command = resume_command(self.header.folder, self.header.config)
            self.console.print(f"every finished training is kept; when it is put right: {command}", soft_wrap=True)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self.live is not None:
            live, self.live = self.live, None
            with _quiet(self.console):
                live.stop()

    @property
    def limits(self) -> Limits:
        """The run's; it has begun."""
        return self.header.limits if self.header else Limits()

    @property
    def clock(self) -> str:
        """Time since the start."""
        return clock(time.monotonic() - self.begun)

    @property
    def progress(self) -> tuple[int, int | None]:
        """How many are done, of how many (if that is known)."""
        if self.phase == "selecting":
            return self.final_count, self.final_jobs
        if self.header is None or self.header.kind == "train":
            return self.trained_count, self.header.config.get("seeds", 1) if self.header else 1
        return self.told_count, self.header.config["trials"]

    def draw(self) -> Group:
        """The live view: four lines or fewer, 80 columns or fewer."""
        assert self.header is not None  # noqa: S101
        done, total = self.progress
        limit = self.header.config.get("time_limit")
        elapsed = time.monotonic() - self.begun
        left = ""
        if limit:
            left = f" · {clock(max(0, limit - elapsed))} left"
        elif total and done:
            pace = (time.monotonic() - self.phase_begun) / done
            left = f" · about {clock(pace * (total - done))} left of this"
        count = f"{done}/{total}" if total else str(done)
        failed = f" · {self.failed_count} failed" if self.failed_count else ""
        grid = Table.grid(padding=(0, 1))
        share = done / total if total else (elapsed / limit if limit else 0)
        bar = ProgressBar(total=1.0, completed=min(1.0, share), width=20)
        grid.add_row(Text(f"{self.phase:<10}"), bar, Text(f"{count}{failed} · {self.clock}{left}"))
        lines: list[Any] = [grid]
        if self.best is not None:
            lines.append(Text(f"best       {words(self.best, self.limits)}", style="bold"))
            lines.append(Text(f"so far     {sparkline(self.best_scores, 60)}", style="cyan"))
        return Group(*lines)


@contextmanager
def observer() -> Iterator[View]:
    """The view of one command; whatever happens, the terminal is left as it was."""
    view = View(QuietConsole(stderr=True, highlight=False))
    try:
        yield view
    finally:
        view.close()


def show_result(outcome: Outcome) -> None:
    """The winner's layers and scores, and what to do next."""
    console = QuietConsole(highlight=False)
    limits, train = outcome.header.limits, outcome.header.kind == "train"
    layers = Table(
        title="The network" if train else f"The winner, {name_of(outcome.winner)}", title_justify="left"
    )
    layers.add_column("layer")
    layers.add_column("output", justify="right")
    layers.add_column("parameters", justify="right")
    for row in outcome.architecture.table(limits.input_shape, limits.classes):
        layers.add_row(str(row.layer), show(row.shape), f"{row.parameters:,}")
    layers.add_section()
    lecture = lecture_parameters(limits)
    beside = f"the lecture's network: {lecture:,}" if lecture else ""
    layers.add_row("all", beside, f"{outcome.parameters:,}", style="bold")
    console.print(layers)

    if len(outcome.header.objectives) > 1:
        console.print(_front(outcome))
    accuracies = [100 * trial.metrics["validation_accuracy"] for trial in outcome.retrained]
    scores = Table.grid(padding=(0, 2))
    if not train:
        seen = 100 * outcome.winner.metrics["validation_accuracy"]
        scores.add_row("validation, during the search", f"{seen:.2f} %")
        scores.add_row(
            f"validation, trained again ({len(accuracies)} seed{'s' * (len(accuracies) > 1)})",
            spread(outcome),
        )
    else:
        scores.add_row(f"validation{f' ({len(accuracies)} seeds)' * (len(accuracies) > 1)}", spread(outcome))
    test = f"{100 * outcome.test_accuracy:.2f} % (loss {outcome.test_loss:.4f})"
    scores.add_row(f"test, {outcome.test_images:,} images, {outcome.opened_words}", test, style="bold")
    low, high = outcome.test_interval
    scores.add_row("its 95 % interval", f"{100 * low:.2f} to {100 * high:.2f} %")
    if not train:
        scores.add_row("selection bias (first less third)", f"{100 * outcome.selection_bias:+.2f} points")
    console.print(scores)
    for one in outcome.compared:
        console.print(
            f"\n{one.name}, trained for as long, has {100 * one.accuracy:.2f} % on the same test images:"
        )
        console.print(f"{one.verdict}.")
    failed = f", {outcome.failed} failed" if outcome.failed else ""
    tried = "" if train else f"{outcome.trials} candidates{failed}; "
    console.print(
        f"\n{tried}{clock(outcome.seconds)} in all. The network: {outcome.weights.parent}", soft_wrap=True
    )
    if outcome.header.config.get("mlflow") == "auto" and "MLFLOW_TRACKING_URI" not in os.environ:
        console.print("Look at it in the dashboard: nas ui")


def show_leaders(trials: Sequence[Trial]) -> None:
    """The best networks of a search so far."""
    if not trials:
        return
    table = Table(title="The best of the search", title_justify="left")
    table.add_column("network")
    for metric in ("parameters", "validation accuracy", "validation loss", "epochs"):
        table.add_column(metric, justify="right")
    for trial in trials:
        shown = (number(name, trial.metrics[name]) for name in SHOWN)
        table.add_row(name_of(trial), *shown, f"{trial.job.epochs:g}")
    QuietConsole(highlight=False).print(table)


def _front(outcome: Outcome) -> Table:
    """The networks that no other beats in every objective, as the search saw them."""
    metrics = dict.fromkeys([*(o.metric for o in outcome.header.objectives), "validation_accuracy", "parameters"])
    table = Table(title="The Pareto front of the search", title_justify="left")
    table.add_column("network")
    for metric in metrics:
        table.add_column(metric.replace("_", " "), justify="right")
    for trial in outcome.front:
        mark = " *" if trial.id == outcome.winner.id else ""
        table.add_row(name_of(trial) + mark, *(number(metric, trial.metrics[metric]) for metric in metrics))
    table.caption = "* the winner: the best by the first objective, after being trained again"
    table.caption_justify = "left"
    return table


def name_of(trial: Trial) -> str:
    """The network's name where somebody gave it one, otherwise its id."""
    candidate = trial.job.candidate
    return plain(candidate.origin) if candidate.origin and not candidate.choices else trial.id


def number(metric: str, value: float) -> str:
    """A metric as people read it."""
    if metric == "validation_accuracy":
        return f"{100 * value:.2f} %"
    return f"{value:,.0f}" if metric in ("parameters", "flops", "images_per_second") else f"{value:.4g}"


def words(trial: Trial, limits: Limits) -> str:
    """One trial in one line."""
    name = name_of(trial)
    if trial.failure is not None:
        return f"{name} failed ({trial.failure.kind}): {plain(trial.failure.message)}"
    metrics = trial.metrics
    return (
        f"{name} · {metrics['parameters']:,.0f} parameters · {100 * metrics['validation_accuracy']:.2f} % · "
        f"loss {metrics['validation_loss']:.4f} · {trial.job.epochs:.3g} epochs"
    )


def clock(seconds: float) -> str:
    """Minutes and seconds, hours if there are any."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def sparkline(values: list[float], width: int) -> str:
    """Values as a row of bars, the lowest to the highest."""
    if not values:
        return ""
    picked = values if len(values) <= width else [values[i * len(values) // width] for i in range(width)]
    low, high = min(picked), max(picked)
    return "".join(BARS[round((value - low) / (high - low or 1) * (len(BARS) - 1))] for value in picked)
