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
from nas.spaces.space import Scalar
from nas.statistics import mean

ACCURACY = "validation_accuracy"
PANELS = 20
FEW = 6  # up to six different numbers are shown at equal distances, as labels are: for example 8, 16 and 32
GROUPS = 7  # labels in one panel; the rarest share the last place
LETTERS = 34  # the room for letters below a panel
BINS = 5  # medians of a choice of many numbers


def choices(scene: Scene) -> Figure | None:
    """A panel for every choice of the space: the accuracy of the trials by its values."""
    asked = [entry for entry in scene.good if entry.trial.job.candidate.choices]
    names = list(dict.fromkeys(name for entry in asked for name in entry.trial.job.candidate.choices))
    if not names:
        return None
    title = "accuracy by choices"
    if len(names) > PANELS:
        title = f"accuracy by choices (the {PANELS} of {len(names)} that explain most)"
        names = sorted(names, key=lambda name: -_explained(scene, name))[:PANELS]
    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    figure = style.canvas(scene, title, max(6.5, 0.9 + 3.0 * columns), 1.5 + 2.2 * rows)
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True)
    errors = style.values(scene, ACCURACY, asked)
    for position, (name, axes) in enumerate(zip(names, panels.flat, strict=False)):
        style.frame(axes)
        _panel(scene, axes, name)
        style.scale(axes, "y", ACCURACY, errors, scene.least_error)
        axes.set_xlabel(style.short(name), fontsize=style.SMALL, labelpad=3)
        axes.set_ylabel("")
        axes.tick_params(labelleft=position % columns == 0)
    for axes in panels.flat[len(names) :]:
        axes.remove()
    figure.supylabel(style.UNITS[ACCURACY], fontsize=10)
    style.legend(figure, _handles(scene))
    return figure


def _handles(scene: Scene) -> list[Line2D]:
    many = len(scene.good) >= 100
    shown = [
        Line2D([], [], color=style.BLUE, marker="o", linestyle="none", markersize=5,
               label=f"trained for {style.epochs(scene.longest)}"),
        Line2D([], [], color=style.RED, linewidth=2.5, label="median of these"),
    ]  # fmt: skip
    if scene.short:
        shown.append(
            Line2D([], [], markeredgecolor=style.PALE, markerfacecolor="none", marker="o", linestyle="none",
                   markersize=3 if many else 4, label="stopped earlier")
        )  # fmt: skip
    return shown


def _panel(scene: Scene, axes: Axes, name: str) -> None:
    many = len(scene.good) >= 100
    labels = _labels(scene, name)
    for some, look in (
        (scene.short, {"markerfacecolor": "none", "markeredgecolor": style.PALE, "markersize": 3 if many else 4}),
        (scene.full, {"color": style.BLUE, "alpha": 0.45 if many else 0.8, "markersize": 3 if many else 5,
                      "markeredgewidth": 0}),
    ):  # fmt: skip
        chosen = _chosen(some, name)
        at = [_place(entry, name, labels) + (_jitter(entry) if labels else 0) for entry in chosen]
        axes.plot(at, style.values(scene, ACCURACY, chosen), "o", zorder=3, **look)
    for left, right, middle in _medians(scene, name, labels):
        axes.plot([left, right], [middle, middle], color=style.RED, linewidth=2.5, zorder=4, solid_capstyle="butt")
    if labels:
        axes.set_xticks(range(len(labels)), _fitted(labels), fontsize=style.SMALL)
        axes.set_xlim(-0.6, len(labels) - 0.4)
    else:
        _numbers(axes, [_place(entry, name, labels) for entry in _chosen(scene.good, name)])


def _fitted(labels: Sequence[str]) -> list[str]:
    """The labels below a panel; every other label is lower where neighbours would touch."""
    room = LETTERS / len(labels)
    most = LETTERS if len(labels) < 2 else int(room if len(labels) < 3 else 2 * room) - 1
    short = [label if len(label) <= most else f"{label[: most - 1]}…" for label in labels]
    touch = any(len(one) + len(other) > 2 * room - 2 for one, other in pairwise(short))
    return [f"\n{label}" if touch and i % 2 else label for i, label in enumerate(short)]


def _numbers(axes: Axes, found: Sequence[float]) -> None:
    low, high = min(found), max(found)
    if low > 0 and high / low > 50:
        axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(style.ticks(low, high, 4)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: style.compact(value)))


def _chosen(some: Sequence[Entry], name: str) -> list[Entry]:
    """The trials with this choice: some choices exist only after others."""
    return [entry for entry in some if name in entry.trial.job.candidate.choices]


def _answer(entry: Entry, name: str) -> Scalar:
    return entry.trial.job.candidate.choices[name]


def _text(answer: Scalar) -> str:
    text = f"{answer:.4g}" if isinstance(answer, float) else str(answer)
    return style.short(text.lower() if answer is None or isinstance(answer, bool) else text, 12) or "(empty)"


def _is_number(answer: Scalar) -> TypeGuard[int | float]:
    return isinstance(answer, int | float) and not isinstance(answer, bool)


def _labels(scene: Scene, name: str) -> list[str]:
    """The labels of a choice in their order; none for a choice of many numbers."""
    answers = [_answer(entry, name) for entry in _chosen(scene.good, name)]
    numbers = sorted({answer for answer in answers if _is_number(answer)})
    if len(numbers) > FEW and all(map(_is_number, answers)):
        return []
    known = Counter(map(_text, answers))
    order = {_text(number): i for i, number in enumerate(numbers)}
    most = sorted(known, key=lambda label: (-known[label], label))[:GROUPS]
    kept = most if len(known) <= GROUPS else most[:-1]
    return sorted(kept, key=lambda label: (order.get(label, -1), label)) + ["others"] * (len(known) > len(kept))


def _place(entry: Entry, name: str, labels: Sequence[str]) -> float:
    answer = _answer(entry, name)
    if labels:
        label = _text(answer)
        return float(labels.index(label) if label in labels else len(labels) - 1)
    assert isinstance(answer, int | float)  # noqa: S101  # no labels: all are numbers
    return float(min(style.FARTHEST, max(-style.FARTHEST, answer)))


def _jitter(entry: Entry) -> float:
    """A small shift to the side, so that dots hide one another less; the same in every drawing."""
    return 0.5 * (int(entry.trial.id[:6], 16) / 0xFFFFFF - 0.5)


def _medians(scene: Scene, name: str, labels: Sequence[str]) -> list[tuple[float, float, float]]:
    """The left end, the right end and the height of each median of the longest trainings' errors."""
    found = _chosen(scene.full, name)
    points = sorted(
        zip((_place(e, name, labels) for e in found), style.values(scene, ACCURACY, found), strict=True)
    )
    if labels:
        groups = [[point for point in points if point[0] == i] for i in range(len(labels))]
        return [(g[0][0] - 0.36, g[0][0] + 0.36, median(y for _, y in g)) for g in groups if g]
    size = math.ceil(len(points) / BINS) or 1
    bins = [points[i : i + size] for i in range(0, len(points), size)]
    return [(b[0][0], b[-1][0], median(y for _, y in b)) for b in bins if b[0][0] < b[-1][0]]


def _explained(scene: Scene, name: str) -> float:
    """The share of the variance of log10(error) that a choice explains, less the share by chance."""
    labels = _labels(scene, name)
    found = _chosen(scene.full, name)
    points = [
        (_place(entry, name, labels), math.log10(error))
        for entry, error in zip(found, style.values(scene, ACCURACY, found), strict=True)
    ]
    if len(points) < 3:
        return 0.0
    places = sorted(x for x, _ in points)
    size = math.ceil(len(points) / BINS)
    groups: dict[float, list[float]] = {}
    for x, y in points:
        groups.setdefault(x if labels else bisect_left(places, x) // size, []).append(y)
    middle = mean([y for _, y in points])
    spread = sum((y - middle) ** 2 for _, y in points)
    between = sum(len(group) * (mean(group) - middle) ** 2 for group in groups.values())
    # A choice with many answers explains a part by chance alone.
    return between / spread - (len(groups) - 1) / (len(points) - 1) if spread else 0.0
