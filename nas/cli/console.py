"""What the commands print: tables and the result of a search, on standard output."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from nas.errors import unprintable
from nas.files import shown
from nas.objectives import FRACTIONS
from nas.records.outcome import Outcome
from nas.report.summary import SAMPLE, Summary, effort_of, finalists, layer_rows, number_of, numbered
from nas.report.words import duration, name_of, percent, several
from nas.trial import Trial

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


def show_result(outcome: Outcome, seconds: float | None = None) -> None:
    """Print the winner's layers and scores, and the next step; ``seconds``: what the whole command has taken."""
    console, summary, header = QuietConsole(highlight=False), Summary.of(outcome), outcome.header
    kind = "network" if header.kind == "train" else "winner"
    console.print(f"{summary.sentence}\n", style="bold")
    layer_texts = [row[:3] for row in layer_rows(outcome.architecture, header.limits)]
    layers = table(
        f"The {kind}, {numbered(outcome, outcome.winner)}", ("layer", "output", "parameters"), layer_texts[:-1]
    )
    layers.add_section()
    layers.add_row(*layer_texts[-1], style="bold")
    console.print(layers)
    if outcome.is_front:
        metrics = dict.fromkeys([*(o.metric for o in header.objectives), "validation_accuracy", "parameters"])
        networks = [
            (
                name_of(trial) + " *" * (trial.id == outcome.winner.id),
                number_of(trial, outcome.numbers),
                *_values(trial, metrics),
            )
            for trial in outcome.front
        ]
        size = several(len(networks), "network")
        front = table(f"The Pareto front of the search: {size}", ("network", "trial", *metrics), networks)
        front.caption, front.caption_justify = (
            "* the winner: the best by the first objective after retraining",
            "left",
        )
        console.print(front)
    if header.kind != "train" and len(outcome.finalists) > 1:
        epochs = outcome.retrained[0].job.epochs
        what = "The Pareto front" if outcome.is_front else "The finalists"
        best = finalists(outcome)
        rows = [[row[0] + " *" * (not place), *row[1:]] for place, row in enumerate(best.rows)]
        again = table(f"{what}, trained again from scratch for {duration(epochs)}", best.columns, rows)
        seeds = f"mean ± standard deviation over the seeds ({', '.join(best.seeds)})"
        again.caption, again.caption_justify = f"* the winner; {seeds}", "left"
        console.print(again)
        if best.commands:
            console.print("To take one of them:")
        for command in best.commands:
            console.print(command, soft_wrap=True)
    for reason in summary.reasons:
        console.print(reason)
    if summary.smaller:
        console.print(summary.smaller, soft_wrap=True)  # to be copied
    if summary.reasons:
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
    if summary.sample:
        console.print(f"\n{SAMPLE}:")
        console.print(Text(summary.sample))
    console.print("\n" + "\n".join(summary.cost))
    console.print(f"{effort_of(outcome, seconds)}. The network: {shown(outcome.weights.parent)}", soft_wrap=True)
    console.print("\nNext:")
    for command in summary.commands:
        console.print(command, soft_wrap=True)
    if header.config.get("mlflow") == "auto" and "MLFLOW_TRACKING_URI" not in os.environ:
        console.print("nas ui", soft_wrap=True)


def show_leaders(trials: Sequence[Trial], numbers: Mapping[str, int], noun: str) -> None:
    """Print the best networks of a search so far.

    ``numbers``: those of their trials; ``noun``: what they classify: images, series or texts.
    """
    metrics = ("parameters", "validation_accuracy", "validation_loss")
    rows = [
        (name_of(one), number_of(one, numbers), *_values(one, metrics), f"{one.job.epochs:g}") for one in trials
    ]
    if rows:
        # Longer names of columns would be cut where ids are long, in a terminal of 80 columns.
        columns = ("network", "trial", "parameters", "accuracy", "loss", "epochs")
        best = table(f"The best of the search, by its validation {noun}", columns, rows)
        QuietConsole(highlight=False).print(best)


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


def clock(seconds: float) -> str:
    """A time as minutes and seconds, with hours from one hour on."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
