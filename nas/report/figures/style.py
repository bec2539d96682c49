"""The look of every figure: sizes, colours for the colour-blind, axes, legends, texts from outside."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Literal
from urllib.parse import quote

from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.collections import Collection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from nas.data.kinds import Noun
from nas.errors import plain
from nas.objectives import METRICS
from nas.report.figures.scene import Entry, Scene
from nas.report.words import compact, duration, percent
from nas.trial import Trial

# Okabe and Ito's palette, made for the colour-blind; as greys they are 35, 50 and 60 % bright.
BLUE, RED, GREEN, SKY, ORANGE, PURPLE = "#0072b2", "#d55e00", "#009e73", "#56b4e9", "#e69f00", "#cc79a7"
PALE, INK = "#98a1aa", "#222222"
Look = dict[str, Any]  # arguments of Matplotlib
POINT = "nas:"  # the beginning of an address that stands for a text about a dot
MOST_CHOICES = 20  # lines of such a text
MOST_POINTED = 1_000  # trials; as SVG, more would be larger than a page takes
SMALL = 9.0  # points of the smallest text
FARTHEST = 1e30  # the end of an axis: larger numbers of a plugin are shown here
ACCURACY, LOSS, PARAMETERS = "validation_accuracy", "validation_loss", "parameters"
UNITS = {  # in braces, the fields of `nas.data.kinds.Noun`
    ACCURACY: "validation accuracy (%, error on a log scale)",
    "balanced_accuracy": "balanced accuracy (fraction)",
    "macro_f1": "macro F1 (fraction)",
    LOSS: "validation loss (nats)",
    PARAMETERS: "parameters (number)",
    "flops": "operations of one forward pass (FLOP {each})",
    "train_seconds": "training (seconds an epoch)",
    "images_per_second": "training speed ({many} a second)",
    "latency_ms": "latency of one {one} (ms)",
}
assert UNITS.keys() == METRICS.keys()  # noqa: S101  # a metric without a label would be an error at the end of a search


def unit(metric: str, noun: Noun) -> str:
    """The label of a metric's axis; ``noun``: what the networks classify."""
    return UNITS[metric].format(**noun._asdict())


def canvas(scene: Scene, subject: str, width: float = 8.0, height: float = 5.0) -> Figure:
    """A figure of a width and height in inches, with a title that names the search and the subject."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    name = f"{short(scene.header.kind, 30)} on {short(scene.header.dataset['name'], 30)}"
    figure.suptitle(textwrap.fill(f"{name}: {subject}", int(10.2 * width)), fontsize=12, color=INK)
    return figure


def frame(axes: Axes) -> Axes:
    """Axes in the common look: a light grid behind the data, small labels, no box."""
    axes.grid(visible=True, color="#e4e7ea", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=SMALL, colors=INK)
    return axes


def legend(figure: Figure, handles: Iterable[Any], columns: int = 3) -> None:
    """A legend below the axes, where it hides no data; each label stands in it once."""
    unique = list({str(handle.get_label()): handle for handle in handles}.values())
    place: Look = {"loc": "outside lower center", "ncols": min(columns, len(unique))}
    figure.legend(handles=unique, fontsize=SMALL, frameon=False, **place)


def short(text: str, most: int = 24) -> str:
    """A text from outside as one short line, without characters that Matplotlib interprets or lacks."""
    one_line = " ".join(plain(text[: 4 * most]).split())
    known = "".join(letter if ord(letter) in _letters() else "\ufffd" for letter in one_line)
    cut = known if len(known) <= most else f"{known[: most - 1]}…"
    return cut.replace("$", r"\$")  # a pair of them would begin a formula


@lru_cache(maxsize=1)
def _letters() -> frozenset[int]:
    """The characters of the font. Matplotlib would warn about every other character."""
    path = font_manager.findfont(font_manager.FontProperties())
    return frozenset(font_manager.get_font(path).get_charmap())


def values(scene: Scene, metric: str, entries: Iterable[Entry]) -> list[float]:
    """The positions of trials on the axis of a metric."""
    return [place(scene, metric, _value(entry.trial, metric)) for entry in entries]


def _value(trial: Trial, metric: str) -> float:
    """The value of a metric; the seconds of a training for each epoch, as `Objective.score` has them."""
    value = trial.metrics[metric]
    return value / trial.epochs if metric == "train_seconds" else value


def place(scene: Scene, metric: str, value: float) -> float:
    """The position of a value on the axis of a metric; an accuracy is placed by its error."""
    if metric == ACCURACY:
        return min(1.0, max(scene.least_error, 1 - value))
    return bounded(value)


def bounded(value: float) -> float:
    """A value that an axis can hold."""
    return min(FARTHEST, max(-FARTHEST, value))


def scale(
    scene: Scene, axes: Axes, which: Literal["x", "y"], metric: str, found: Sequence[float], least: float = 0.0
) -> None:
    """Set up the axis of a metric: its label, a range around the values, a few round numbers."""
    low, high, is_accuracy = min(found), max(found), metric == ACCURACY
    if low > 0:
        margin = max((high / low) ** 0.06, 1.1)
        ends = low / margin, min(high * margin, 1.0) if is_accuracy and high < 1 else high * margin
        axes.set(**{f"{which}lim": ends})  # first: of a single value, a new scale would warn
        axes.set(**{f"{which}scale": "log"})
    else:
        margin = 0.06 * (high - low) or max(abs(low), 1.0)
        ends = low - margin, high + margin
    label: Callable[[float], str] = compact
    if is_accuracy:
        is_wide = ends[1] / ends[0] >= 4
        marks = ticks(*ends) if is_wide else [1 - mark for mark in ticks(1 - ends[1], 1 - ends[0])]
        marks = [mark for mark in marks if mark > 1.4 * least] + [least] * (low <= least)
        ends = ends[::-1]

        def label(error: float) -> str:
            return "100 %" if error <= least else f"{100 * (1 - error):.6g} %"
    else:
        marks = ticks(*ends)
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(FixedLocator(marks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: label(value)))
    axes.set(**{f"{which}lim": ends, f"{which}label": unit(metric, scene.noun)})


def ticks(low: float, high: float, most: int = 8) -> list[float]:
    """At most ``most`` round numbers within a range: in equal steps or, in a wide range, in equal ratios."""
    if low <= 0 or high / low < 4:
        return [float(mark) for mark in MaxNLocator(6).tick_values(low, high) if low <= mark <= high]
    powers = range(math.floor(math.log10(low)), math.floor(math.log10(high)) + 1)
    for steps in ((1, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
        marks = [step * 10.0**power for power in powers for step in steps]
        marks = [mark for mark in marks if low <= mark <= high]
        if len(marks) <= most:
            return marks
    return marks[:: math.ceil(len(marks) / most)]


def dots(scene: Scene, axes: Axes, x: Callable[[list[Entry]], list[float]], y: str) -> list[Any]:
    """Every trial as a dot: dark if it was trained longest, light and hollow if it was stopped early.

    As SVG, each dot says what it is when it is pointed at (`nas.report.figures.pointable`).
    """
    hollow: Look = {"facecolors": "none", "edgecolors": PALE, "linewidths": 1.0}
    full: Look = {"facecolors": BLUE, "edgecolors": "white", "linewidths": 0.5}
    common: Look = {"s": 36.0 if len(scene.good) < 100 else 16.0, "zorder": 3, "alpha": 0.9}
    handles = []
    for entries, look, label in (
        (scene.short, hollow, f"stopped earlier ({len(scene.short)})"),
        (scene.full, full, f"trained for {duration(scene.longest)} ({len(scene.full)})"),
    ):
        if entries:
            drawn = axes.scatter(x(entries), values(scene, y, entries), label=label, **common, **look)
            point(drawn, entries)
            handles.append(drawn)
    return handles[::-1]


def point(drawn: Collection, entries: Sequence[Entry], *, choices: bool = True) -> None:
    """Let marks, one for each trial, say what they are when they are pointed at, unless they are too many."""
    if len(entries) <= MOST_POINTED:
        drawn.set_urls([pointed(entry, choices=choices) for entry in entries])


def pointed(entry: Entry, *, choices: bool = True) -> str:
    """The address of a mark that stands for a trial: its number, its score and its choices, in some lines."""
    about = _about(f"trial {entry.number}", entry.trial)
    return POINT + quote("\n".join([*about, *(_choices(entry.trial) if choices else ())]))


def pointed_training(name: str, trial: Trial) -> str:
    """The address of a mark that stands for a training that is no trial of the search."""
    return POINT + quote("\n".join(_about(name, trial)))


def _about(name: str, trial: Trial) -> Iterator[str]:
    metrics = trial.metrics
    if trial.failure is not None:
        yield plain(f"{name} failed ({trial.failure.kind}): {trial.failure.message}")[:80]
        yield trial.id
    else:
        yield f"{name}: {percent(metrics[ACCURACY])}, loss {metrics[LOSS]:.4f}"
        yield f"{metrics[PARAMETERS]:,.0f} parameters, {duration(trial.job.epochs)}, {trial.id}"


def _choices(trial: Trial) -> Iterator[str]:
    for name, value in list(trial.job.candidate.choices.items())[:MOST_CHOICES]:
        yield plain(f"{name}: {value}")[:80]


def star(axes: Axes, label: str, x: float, y: float, entry: Entry) -> list[Line2D]:
    """The winner as a star."""
    look: Look = {"markerfacecolor": RED, "markeredgecolor": INK, "url": pointed(entry)}
    return axes.plot([x], [y], "*", markersize=17, zorder=6, label=label, **look)
