"""A search in the terminal while it runs: a live view, or plain lines if the output is no terminal.

It goes to standard error; the result goes to standard output (`nas.cli.console`).
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

import nas.cli
from nas.cli.console import QuietConsole, clock, number
from nas.errors import plain
from nas.files import shown
from nas.objectives import front
from nas.records.observer import Observer
from nas.records.outcome import Header
from nas.records.searches import resume_command
from nas.report.leaders import leaders
from nas.report.words import compact, duration, mean_and_deviation, name_of, percent, several, sizes
from nas.spaces.space import Candidate
from nas.trial import REDUCTION, Job, Trial

BARS = "▁▂▃▄▅▆▇█"
BEST, RUNNING = 5, 6  # lines of the live view
CURVE = 40  # columns


class View(Observer):
    """Shows the progress of a search: in some lines of a terminal that are redrawn, or in plain lines.

    Args:
        console: where to show it.
        begun: the moment (``time.monotonic``) at which the command began; None for now.
    """

    def __init__(self, console: Console, begun: float | None = None) -> None:
        self.console = console
        self.begun = time.monotonic() if begun is None else begun
        self.phase_begun = time.monotonic()
        self.live: Live | None = None
        self.header: Header | None = None
        self.phase, self.doing = "reading the data", "waiting for the first training"
        self.trained_count = self.told_count = self.failed_count = self.final_jobs = 0
        self.running: dict[str, tuple[Job, float]] = {}  # by the key of the job: what trains, and since when
        self.in_batch = 0  # candidates
        self.in_rungs = Counter[int]()  # trainings of this batch that have ended, by their rungs
        self.best: list[Trial] = []
        self.front: list[Trial] = []  # with several objectives
        self.curve: list[float] = []  # the first score of the best candidate, after each candidate
        self.again: dict[str, list[Trial]] = {}  # the trainings of the final selection, by candidate
        self.shown: set[str] = set()  # keys of jobs
        self.read = self.to_read = 0  # files

    def reading(self, done: int, total: int) -> None:
        """Show how many files are decoded; without a live view, each tenth of them."""
        before, self.read, self.to_read = self.read, done, total
        if self.live is None and self.console.color_system:
            self._start_live()
        if self.live is None and 10 * done // total > 10 * before // total:
            self.console.print(f"{self.clock:>6}  reading the files: {done:,} of {total:,}")

    def preparing(self, what: str) -> None:
        """Say what takes some seconds."""
        self.doing = what
        self.running.clear()
        if self.header is None:
            self.close()  # the live view of the reading
        if self.live is None:
            self.console.print(f"{self.clock:>6}  {what}")

    def planned(self, plan: str) -> None:
        """Print the plan."""
        self.console.print(f"plan: {plain(plan)}", soft_wrap=not self.console.is_terminal)

    def started(self, header: Header) -> None:
        """Print the strategy, the data and the folder."""
        self.close()  # of the reading
        self.header, self.doing = header, "starting workers"
        self.phase_begun = time.monotonic()
        config, data = header.config, header.dataset
        for line in header.note.splitlines():
            self.console.print(f"note: {plain(line)}", style="yellow", soft_wrap=True)
        self.phase, task = "searching", f"{header.kind} on {header.settings.get('space')}"
        if header.kind == "train":
            self.phase, task = "training", f"training {config['network']}"
        self.console.print(f"{task}, {data['name']} ({sizes(header)}) → {shown(header.folder)}", soft_wrap=True)
        if header.is_unequal:
            by_size = sorted(((train, plain(name)) for name, (train, _) in header.counts.items()), reverse=True)
            (most, largest), (least, smallest) = by_size[0], by_size[-1]
            unequal = f"{most:,} training {header.inputs.many} of {largest}, {least:,} of {smallest}"
            self.console.print(f"the classes are of unequal size: {unequal}", soft_wrap=True)
        if self.console.color_system:  # a terminal that knows escape codes, and may get them
            self._start_live()

    def resumed(self, told: int, trained: Collection[str], seconds: float) -> None:
        """Print how much of the search is done; these trainings are not shown again."""
        self.begun -= seconds
        self.shown |= set(trained)
        noun = self.header.noun if self.header else "candidate"
        done = f"{several(told, noun)} and {several(len(trained), 'training')}"
        self.console.print(f"resuming: {done} finished, after {clock(seconds)}", soft_wrap=True)

    def asked(self, count: int, candidates: Sequence[Candidate]) -> None:
        """Begin to count the trainings of a batch."""
        self.in_batch = len(candidates)
        self.in_rungs.clear()

    def training(self, jobs: Sequence[Job]) -> None:
        """Show what a worker trains."""
        self.doing = ""
        if self.phase == "selecting":
            for job in jobs:
                self.again.setdefault(name_of(Trial(job)), [])
        self.running |= {job.key: (job, time.monotonic()) for job in jobs}

    def trained(self, trial: Trial) -> None:
        """Count a training, and show it."""
        self.trained_count += 1
        self.running.pop(trial.job.key, None)
        self.in_rungs[self._rung(trial.job.epochs)] += 1
        if self.phase == "selecting":
            self.again.setdefault(name_of(trial), []).append(trial)
        if self.live is None:
            self.shown.add(trial.job.key)
            count = f" · {self.told_count}{self._of_all()} done" if self.phase == "searching" else ""
            failed = f", {self.failed_count} failed" * bool(count and self.failed_count)
            self.console.print(f"{self.clock:>6}  {self.phase}: {describe(trial)}{count}{failed}", soft_wrap=True)

    def told(self, trial: Trial) -> None:
        """Count a finished candidate, and remember the best."""
        self.told_count += 1
        self.failed_count += trial.failure is not None
        if trial.failure is None:
            self.best = leaders([*self.best, trial])[:BEST]
            if len(trial.scores) > 1:
                self.front = front([*self.front, trial])
        elif trial.job.key not in self.shown:
            self.console.print(f"{self.clock:>6}  {describe(trial)}", soft_wrap=True)
        if self.best:
            self.curve.append(self.best[0].scores[0])

    def ended(self, reason: str) -> None:
        """Print why the search ends."""
        self.console.print(f"{self.clock:>6}  {plain(reason)}", soft_wrap=True)

    def selecting(self, jobs: int, epochs: float) -> None:
        """Show that the final selection begins."""
        self.phase, self.final_jobs, self.phase_begun = "selecting", jobs, time.monotonic()
        self.running.clear()
        self.doing = "waiting for the first training"
        if self.live is None:
            trainings = f"{several(jobs, 'training')} of {duration(epochs)}"
            self.console.print(f"{self.clock:>6}  training the best again: {trainings}")

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
    def seconds(self) -> float:
        """The time since the start."""
        return time.monotonic() - self.begun

    @property
    def clock(self) -> str:
        """The time since the start as text."""
        return clock(self.seconds)

    def _start_live(self) -> None:
        self.live = Live(get_renderable=self.draw, console=self.console, refresh_per_second=2, transient=True)
        self.live.start()

    def draw(self) -> Group:
        """The live view: at most twenty lines of 80 columns. Another thread calls it."""
        if self.header is None:
            row = Table.grid(padding=(0, 1))
            bar = ProgressBar(total=1.0, completed=self.read / self.to_read, width=20)
            row.add_row(Text("reading   "), bar, Text(f"{self.read:,} of {self.to_read:,} files · {self.clock}"))
            return Group(row)
        parts: list[Table | Text] = [self._progress(self.header)]
        parts += _lines("now" if self.doing else "training", [self.doing] if self.doing else [*self._running()])
        if self.phase == "selecting":  # the lecture's network among them
            parts += _lines("retrained", [_finalist(*one) for one in list(self.again.items())])
        metric = self.header.objectives[0].metric
        parts += _lines("best", [_columns(trial, metric) for trial in self.best])
        if self.front:
            parts += _lines("front", [several(len(self.front), "network")])
        if self.curve:
            first, last = (f"{abs(score):,.4g}" for score in (self.curve[0], self.curve[-1]))
            curve = [self.header.objectives[0].sign * score for score in self.curve]
            text = f"best {metric.removeprefix('validation_'):<9.9}  {sparkline(curve, CURVE)}"
            parts.append(Text(f"{text}  {first} → {last}", style="cyan", no_wrap=True, overflow="ellipsis"))
        return Group(*parts)

    def _progress(self, header: Header) -> Table:
        done, total = self.told_count, header.config.get("trials")
        if self.phase == "selecting":
            done, total = sum(map(len, self.again.values())), self.final_jobs
        elif header.kind == "train":
            done, total = self.trained_count, header.config.get("seeds", 1)
        limit, left = header.config.get("time_limit"), ""
        if limit:
            left = f" · {clock(max(0, limit - self.seconds))} left"
        elif total and done:
            pace = (time.monotonic() - self.phase_begun) / done
            left = f" · about {clock(pace * (total - done))} left"
        count = f"{done}/{total}" if total else str(done)
        failed = f" · {self.failed_count} failed" if self.failed_count else ""
        share = done / total if total else (self.seconds / limit if limit else 0)
        row = Table.grid(padding=(0, 1))
        bar = ProgressBar(total=1.0, completed=min(1.0, share), width=14)
        row.add_row(Text(f"{self.phase:<10}"), bar, Text(f"{count}{failed}{self._rungs()} · {self.clock}{left}"))
        return row

    def _running(self) -> Iterator[str]:
        every = sorted(self.running.values(), key=lambda one: one[1])
        for job, since in every[:RUNNING]:
            rung = "" if self.phase != "searching" or self._count() < 2 else f", rung {self._rung(job.epochs)}"
            yield f"{_name(job):<12} {duration(job.epochs)}{rung}, for {clock(time.monotonic() - since)}"
        if len(every) > RUNNING:
            yield f"and {len(every) - RUNNING} more"

    def _of_all(self) -> str:
        """The number of all candidates, if it is known: ``/40``."""
        total = self.header.config.get("trials") if self.header else None
        return f"/{total}" if total else ""

    def _rungs(self) -> str:
        """How many trainings of the rung that is in work have ended, of this batch, if it is alone."""
        rungs = {self._rung(job.epochs) for job, _ in list(self.running.values())}
        is_ahead = self.header is not None and self.header.config.get("ahead", 1) > 1
        if self.phase != "searching" or self._count() < 2 or not rungs or is_ahead:
            return ""
        rung = max(rungs)
        total = self.in_batch
        for _ in range(rung - 1):
            total = math.ceil(total / REDUCTION)
        return f" · rung {rung}: {min(self.in_rungs[rung], total)} of {total}"

    def _count(self) -> int:
        """The number of rungs of successive halving."""
        return int(self.header.config.get("rungs") or 1) if self.header else 1

    def _rung(self, epochs: float) -> int:
        """The rung of a training, from 1."""
        full = self.header.config.get("epochs") if self.header else None
        return max(1, self._count() - round(math.log(full / epochs, REDUCTION))) if full else 1


@contextmanager
def observer(command: str) -> Iterator[View]:
    """The view of one command, from its first line to the restored terminal."""
    view = View(QuietConsole(stderr=True, highlight=False), nas.cli.begun)
    view.console.print(f"nas {command}: starting (importing PyTorch, reading the data)", style="dim")
    try:
        yield view
    finally:
        view.close()


def describe(trial: Trial) -> str:
    """One trial in one line."""
    name = name_of(trial)
    if trial.failure is not None:
        return f"{name} failed ({trial.failure.kind}): {plain(trial.failure.message)}"
    metrics = trial.metrics
    return (
        f"{name} · {metrics['parameters']:,.0f} parameters · {percent(metrics['validation_accuracy'])} · "
        f"loss {metrics['validation_loss']:.4f} · {duration(trial.job.epochs)}"
    )


def sparkline(values: list[float], width: int) -> str:
    """Values as a row of bars, scaled from the lowest to the highest."""
    if not values:
        return ""
    picked = values if len(values) <= width else [values[i * len(values) // width] for i in range(width)]
    low, high = min(picked), max(picked)
    return "".join(BARS[round((value - low) / (high - low or 1) * (len(BARS) - 1))] for value in picked)


def _lines(label: str, lines: Sequence[str]) -> list[Text]:
    """Lines of the live view, the first of them with a label; a long one is cut."""
    labels = [label, *[""] * len(lines)]
    return [
        Text(f"{name:<10} {line}", no_wrap=True, overflow="ellipsis")
        for name, line in zip(labels, lines, strict=False)
    ]


def _name(job: Job) -> str:
    return name_of(Trial(job))


def _columns(trial: Trial, metric: str) -> str:
    """A network with its accuracy, and with the first objective if that is another one."""
    metrics = trial.metrics
    known = ("parameters", "validation_accuracy", "validation_loss")
    first = "" if metric in known else f"{number(metric, metrics[metric])} {metric.replace('_', ' ')}  "
    size = f"{metrics['parameters']:>11,.0f} parameters" if not first else f"{compact(metrics['parameters']):>6}"
    return (
        f"{name_of(trial):<12} {size}  "
        f"{percent(metrics['validation_accuracy']):>8}  {first}{duration(trial.job.epochs)}"
    )


def _finalist(name: str, group: Sequence[Trial]) -> str:
    """A finalist, as far as it is trained."""
    good = [trial.metrics["validation_accuracy"] for trial in group if trial.failure is None]
    score = mean_and_deviation(good, percentage=True) if good else "failed" if group else "in training"
    return f"{name:<12} {several(len(good), 'seed'):<8} {score}"
