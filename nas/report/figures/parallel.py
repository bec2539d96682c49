"""Every trial as a line through its choices."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from nas.report.figures import style
from nas.report.figures.choices import labels_of, place_of
from nas.report.figures.scene import Entry, Scene
from nas.report.figures.style import ACCURACY
from nas.report.forest import spread
from nas.report.words import compact, percent

AXES = 7  # the most important choices
LINES = 1_000  # networks; more would be a carpet
BEST = 0.1  # the share of the trials whose lines are red


def parallel_coordinates(scene: Scene) -> Figure | None:
    """The most important choices as axes beside one another, the accuracy as the last one, a line for each trial.

    Of more than `LINES` trials, the best and a sample of the others.
    A choice that a trial was not asked has its place below the axis.
    """
    names = [one.name for one in scene.importances[:AXES] if one.share > 0]
    entries = [entry for entry in scene.full if entry.trial.job.candidate.choices]
    if len(names) < 2 or len(entries) < 2:
        return None
    ranked = sorted(entries, key=lambda entry: -entry.trial.metrics[ACCURACY])
    count = max(1, round(BEST * min(LINES, len(entries))))
    others, best = spread(ranked[count:], LINES - count), ranked[:count]
    entries = [*others, *best]
    figure = style.canvas(scene, "the choices of each network", 1.6 + 1.35 * (len(names) + 1), 5.0)
    axes = figure.subplots()
    columns = [_column(scene, entries, name) for name in names]
    accuracies = [entry.trial.metrics[ACCURACY] for entry in entries]
    columns.append((_scaled(accuracies), [(0.0, percent(min(accuracies))), (1.0, percent(max(accuracies)))]))
    heights = zip(*(places for places, _ in columns), strict=True)
    lines = [list(enumerate(places)) for places in heights]
    pale: style.Look = {"colors": style.PALE, "linewidths": 0.9, "alpha": 0.7}
    red: style.Look = {"colors": style.RED, "linewidths": 1.8, "zorder": 3}
    for some, own, look in ((others, lines[: len(others)], pale), (best, lines[len(others) :], red)):
        drawn = LineCollection(own, **look)
        style.point(drawn, some, choices=False)
        axes.add_collection(drawn)
    for position, (_, marks) in enumerate(columns):
        axes.axvline(position, color=style.INK, linewidth=1)
        for height, text in marks:
            axes.annotate(
                text, (position, height), (4, 0), textcoords="offset points", va="center", fontsize=style.SMALL,
                zorder=4, bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.6},
            )  # fmt: skip
    shown = [style.short(name, 16) for name in names]
    axes.set_xticks(range(len(columns)), [*shown, "accuracy"], fontsize=style.SMALL)
    axes.set(xlim=(-0.1, len(columns) - 0.4), ylim=(-0.16, 1.06), yticks=[])
    axes.set(ylabel="answer (numbers grow upwards)", xlabel="choice, and accuracy at the end")
    axes.spines[:].set_visible(False)
    handles = [Line2D([], [], color=style.RED, linewidth=1.8, label=f"the best {len(best)}")]
    if others:
        of = "the other" if len(others) == len(ranked) - count else f"{len(others)} of the other"
        label = f"{of} {len(ranked) - count} that were trained as long"
        handles.append(Line2D([], [], color=style.PALE, label=label))
    style.legend(figure, handles)
    return figure


def _column(scene: Scene, entries: Sequence[Entry], name: str) -> tuple[list[float], list[tuple[float, str]]]:
    """The heights of the trials on the axis of a choice, and the marks of the axis."""
    labels = labels_of(scene, name)
    asked = [entry for entry in entries if name in entry.trial.job.candidate.choices]
    places = {entry.number: place_of(entry, name, labels) for entry in asked}
    ends = [0.0, len(labels) - 1.0] if labels else [*places.values()] or [0.0]
    low, high = min(ends), max(ends)
    size = high - low or 1.0
    heights = [(places[e.number] - low) / size if e.number in places else -0.12 for e in entries]
    marks = [(number / size, label) for number, label in enumerate(labels)]
    if not labels:
        marks = [(0.0, compact(low)), (1.0, compact(high))]
    return heights, marks + [(-0.12, "not asked")] * (len(asked) < len(entries))


def _scaled(numbers: Sequence[float]) -> list[float]:
    low, size = min(numbers), (max(numbers) - min(numbers)) or 1.0
    return [(number - low) / size for number in numbers]
