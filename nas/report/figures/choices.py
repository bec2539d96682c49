"""The accuracy of the networks by the choices that were made for them."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from statistics import median
from typing import TypeGuard

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from nas.report.figures import style
from nas.report.figures.scene import Entry, Scene
from nas.report.figures.style import ACCURACY
from nas.report.words import compact, duration
from nas.spaces.space import Scalar

PANELS = 6
FEWEST = 3  # points of a median
FEW = 6  # up to six different numbers are shown at equal distances, as labels are: for example 8, 16 and 32
GROUPS = 7  # labels in one panel; the rarest share the last place
LETTERS = 34  # the room for letters below a panel
BINS = 5  # medians of a choice of many numbers


def choices(scene: Scene) -> Figure | None:
    """A panel for the choices that mattered most: the accuracy of the trials by its values."""
    asked = [entry for entry in scene.good if entry.trial.job.candidate.choices]
    names = list(dict.fromkeys(name for entry in asked for name in entry.trial.job.candidate.choices))
    if not names:
        return None
    answers = {name: {entry.trial.job.candidate.choices[name] for entry in _chosen(asked, name)} for name in names}
    names = [name for name in names if len(answers[name]) > 1] or names  # the same answer of all says nothing
    title = "accuracy by choices"
    if len(names) > PANELS:
        which = "that mattered most" if scene.importances else "that come first"
        title = f"accuracy by choices (the {PANELS} of {len(names)} {which})"
        order = {one.name: number for number, one in enumerate(scene.importances)}
        names = sorted(names, key=lambda name: order.get(name, len(order)))[:PANELS]
    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    figure = style.canvas(scene, title, max(6.5, 0.9 + 3.0 * columns), 1.5 + 2.2 * rows)
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True)
    errors = style.values(scene, ACCURACY, asked)
    many = len(scene.good) >= 100
    hollow: style.Look = {"facecolors": "none", "edgecolors": style.PALE, "s": 9 if many else 16}
    full: style.Look = {"color": style.BLUE, "alpha": 0.45 if many else 0.8, "s": 9 if many else 25}
    looks = [(scene.short, hollow), (scene.full, {**full, "linewidths": 0})]
    is_summed_up = False
    for position, (name, axes) in enumerate(zip(names, panels.flat, strict=False)):
        style.frame(axes)
        labels = labels_of(scene, name)
        for entries, look in looks:
            chosen = _chosen(entries, name)
            x = [place_of(entry, name, labels) + (_jitter(entry) if labels else 0) for entry in chosen]
            drawn = axes.scatter(x, style.values(scene, ACCURACY, chosen), zorder=3, **look)
            style.point(drawn, chosen, choices=False)
        for group in [some for some in _groups(scene, name, labels) if len(some) >= FEWEST]:
            is_summed_up = True
            left, right, middle = group[0][0], group[-1][0], median(error for _, error in group)
            ends = [left - 0.36, right + 0.36] if labels else [left, right]
            axes.plot(ends, [middle, middle], color=style.RED, linewidth=2.5, zorder=4, solid_capstyle="butt")
        if labels:
            axes.set_xticks(range(len(labels)), _fitted(labels), fontsize=style.SMALL)
            axes.set_xlim(-0.6, len(labels) - 0.4)
        else:
            _scale_numbers(axes, [place_of(entry, name, labels) for entry in _chosen(scene.good, name)])
        style.scale(scene, axes, "y", ACCURACY, errors, scene.least_error)
        axes.set_xlabel(style.short(name), fontsize=style.SMALL, labelpad=3)
        axes.set_ylabel("")
        axes.tick_params(labelleft=position % columns == 0)
    for axes in panels.flat[len(names) :]:
        axes.remove()
    figure.supylabel(style.unit(ACCURACY, scene.noun), fontsize=10)
    label = f"trained for {duration(scene.longest)}"
    handles = [Line2D([], [], color=style.BLUE, marker="o", linestyle="none", markersize=5, label=label)]
    if is_summed_up:
        handles.append(Line2D([], [], color=style.RED, linewidth=2.5, label="median of these"))
    if scene.short:
        look = {"markerfacecolor": "none", "markeredgecolor": style.PALE, "markersize": 4}
        handles.append(Line2D([], [], marker="o", linestyle="none", label="stopped earlier", **look))
    style.legend(figure, handles)
    return figure


def _fitted(labels: Sequence[str]) -> list[str]:
    """The labels below a panel; every other label is lower where neighbours would touch."""
    room = LETTERS / len(labels)
    most = LETTERS if len(labels) < 2 else int(room if len(labels) < 3 else 2 * room) - 1
    short = [label if len(label) <= most else f"{label[: most - 1]}…" for label in labels]
    touch = any(len(left) + len(right) > 2 * room - 2 for left, right in pairwise(short))
    return [f"\n{label}" if touch and i % 2 else label for i, label in enumerate(short)]


def _scale_numbers(axes: Axes, numbers: Sequence[float]) -> None:
    low, high = min(numbers), max(numbers)
    if low > 0 and high / low > 50:
        axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(style.ticks(low, high, 4)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: compact(value)))


def _chosen(entries: Sequence[Entry], name: str) -> list[Entry]:
    """The trials with this choice: some choices exist only after others."""
    return [entry for entry in entries if name in entry.trial.job.candidate.choices]


def _text(value: Scalar) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return style.short(text.lower() if value is None or isinstance(value, bool) else text, 12) or "(empty)"


def _is_number(value: Scalar) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def labels_of(scene: Scene, name: str) -> list[str]:
    """The labels of a choice in their order; none for a choice of many numbers."""
    values = [entry.trial.job.candidate.choices[name] for entry in _chosen(scene.good, name)]
    numbers = sorted({value for value in values if _is_number(value)})
    if len(numbers) > FEW and all(map(_is_number, values)):
        return []
    counts = Counter(map(_text, values))
    order = {_text(number): i for i, number in enumerate(numbers)}
    most = sorted(counts, key=lambda label: (-counts[label], label))[:GROUPS]
    kept = most if len(counts) <= GROUPS else most[:-1]
    return sorted(kept, key=lambda label: (order.get(label, -1), label)) + ["others"] * (len(counts) > len(kept))


def place_of(entry: Entry, name: str, labels: Sequence[str]) -> float:
    """The position of a trial's value: a number, or the position of its label."""
    value = entry.trial.job.candidate.choices[name]
    if not labels and _is_number(value):
        return float(style.bounded(value))
    label = _text(value)
    return float(labels.index(label) if label in labels else len(labels) - 1)


def _jitter(entry: Entry) -> float:
    """A small shift to the side, so that dots hide one another less; the same in every drawing."""
    return 0.5 * (int(entry.trial.id[:6], 16) / 0xFFFFFF - 0.5)


def _groups(scene: Scene, name: str, labels: Sequence[str]) -> list[list[tuple[float, float]]]:
    """The longest trainings as (position, error), by label or in a few groups of neighbouring numbers."""
    chosen = _chosen(scene.full, name)
    errors = style.values(scene, ACCURACY, chosen)
    points = sorted(zip((place_of(entry, name, labels) for entry in chosen), errors, strict=True))
    places, size = [x for x, _ in points], math.ceil(len(points) / BINS)
    groups: dict[float, list[tuple[float, float]]] = {}
    for x, y in points:
        groups.setdefault(x if labels else bisect_left(places, x) // size, []).append((x, y))
    return list(groups.values())
