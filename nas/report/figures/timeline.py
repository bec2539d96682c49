"""What the workers did, second by second."""

from __future__ import annotations

from typing import NamedTuple

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from nas.objectives import scored
from nas.report.figures import style
from nas.report.figures.progress import unit_of
from nas.report.figures.scene import Scene

MOST = 32  # rows; more could not be told apart
COLOURS = {"search": style.BLUE, "final selection": style.ORANGE, "failed": style.INK}


class Bar(NamedTuple):
    """A training, in the row of a worker."""

    row: int
    begin: float  # seconds of the search
    end: float
    kind: str  # a key of COLOURS
    busy: float  # seconds of one core, those of idle cores that have helped included
    about: str  # what is said when it is pointed at


def timeline(scene: Scene) -> Figure | None:
    """A row for each worker, a bar for each training from its begin to its end."""
    bars = _bars(scene)
    workers = scene.header.config.get("workers")
    rows = max([bar.row + 1 for bar in bars], default=0)
    rows = max(rows, workers) if rows and isinstance(workers, int) else rows
    if not 0 < rows <= MOST:
        return None
    end = max(bar.end for bar in bars)
    size, unit = unit_of(end)
    begin = min(bar.begin for bar in bars)
    busy = min(1.0, sum(bar.busy for bar in bars) / rows / (end - begin)) if end > begin else 1.0
    figure = style.canvas(scene, f"what trained when, {100 * busy:.0f} % of the time", 9.0, 1.7 + 0.3 * rows)
    axes = style.frame(figure.subplots())
    for kind, colour in COLOURS.items():
        for row in range(rows):
            here = [bar for bar in bars if (bar.row, bar.kind) == (row, kind)]
            spans = [(bar.begin / size, (bar.end - bar.begin) / size) for bar in here]
            look: style.Look = {"facecolor": colour, "edgecolor": "white", "linewidth": 0.6}
            if kind == "failed":
                look |= {"facecolor": "white", "edgecolor": colour, "hatch": "xxx"}
            drawn = axes.broken_barh(spans, (row - 0.36, 0.72), **look)
            drawn.set_urls([bar.about for bar in here])
    axes.set_yticks(range(rows), [str(row + 1) for row in range(rows)], fontsize=style.SMALL)
    axes.set(
        xlim=(0, 1.02 * end / size or 1.0),
        ylim=(rows - 0.4, -0.6),
        xlabel=f"time of the search ({unit})",
        ylabel="worker (number)",
    )
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(10))
    used = {bar.kind for bar in bars}
    style.legend(
        figure,
        [
            Line2D([], [], color=colour, linewidth=7, label=kind)
            for kind, colour in COLOURS.items()
            if kind in used
        ],
    )
    return figure


def _bars(scene: Scene) -> list[Bar]:
    """The trainings of a record; which worker did which is not recorded, so that each gets the first free row."""
    record, told = scene.record, {entry.trial.job.key: entry for entry in scene.entries}
    last = {key for group in (record.outcome or {}).get("finalists", ()) for key in group}
    last |= {one["trial"] for one in (record.outcome or {}).get("compared", ())}
    spans = []
    for key, end in tuple(record.finished.items()):
        trial = scored(record.trials[key], scene.header.objectives)
        kind = "failed" if trial.failure else "final selection" if key in last else "search"
        busy = max(trial.seconds, trial.metrics.get("train_seconds", 0.0))
        about = style.pointed(told[key]) if key in told else style.pointed_training(kind, trial)
        spans.append((max(0.0, end - trial.seconds), end, kind, busy, about))
    free: list[float] = []
    bars = []
    for begin, end, kind, busy, about in sorted(spans):
        row = next((row for row, until in enumerate(free) if until <= begin + 0.05), len(free))
        free[row : row + 1] = [end]
        bars.append(Bar(row, begin, end, kind, busy, about))
    return bars
