"""What was chosen for the networks, and how accurate they are."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from statistics import median

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
FEW = 6  # so many numbers or fewer are shown side by side, as words are: 8, 16 and 32 then have equal room
GROUPS = 7  # words in one panel; the rarest share the last place
LETTERS = 34  # that have room below a panel
BINS = 5  # of a choice of many numbers, for its medians


def choices(scene: Scene) -> Figure | None:
    """A panel for every choice of the space: the accuracy of the trials by what was chosen."""
    asked = [entry for entry in scene.good if entry.trial.job.candidate.choices]
    names = list(dict.fromkeys(name for entry in asked for name in entry.trial.job.candidate.choices))
    if not names:
        return None
    what = "accuracy by what was chosen"
    if len(names) > PANELS:
        what = f"accuracy by what was chosen (the {PANELS} of {len(names)} choices that tell most)"
        names = sorted(names, key=lambda name: -_told(scene, name))[:PANELS]
    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    figure = style.canvas(scene, what, max(6.5, 0.9 + 3.0 * columns), 1.5 + 2.2 * rows)
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True)
    errors = style.values(scene, ACCURACY, asked)
    for position, (name, axes) in enumerate(zip(names, panels.flat, strict=False)):
        style.frame(axes)
        _panel(scene, axes, name)
        style.scale(axes, "y", ACCURACY, errors, scene.least_error)
        axes.set_xlabel(style.words(name), fontsize=style.SMALL, labelpad=3)
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
    """The words below a panel; every other one is lower where two side by side would touch."""
    room = LETTERS / len(labels)
    most = LETTERS if len(labels) < 2 else int(room if len(labels) < 3 else 2 * room) - 1
    short = [one if len(one) <= most else f"{one[: most - 1]}…" for one in labels]
    touch = any(len(one) + len(other) > 2 * room - 2 for one, other in pairwise(short))
    return [f"\n{one}" if touch and i % 2 else one for i, one in enumerate(short)]


def _numbers(axes: Axes, found: Sequence[float]) -> None:
    low, high = min(found), max(found)
    if low > 0 and high / low > 50:
        axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(style.ticks(low, high, 4)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: style.compact(value)))


def _chosen(some: Sequence[Entry], name: str) -> list[Entry]:
    """Those that were asked for this choice: which choices there are may depend on others."""
    return [entry for entry in some if name in entry.trial.job.candidate.choices]


def _answer(entry: Entry, name: str) -> Scalar:
    return entry.trial.job.candidate.choices[name]


def _word(answer: Scalar) -> str:
    text = f"{answer:.4g}" if isinstance(answer, float) else str(answer)
    return style.words(text.lower() if answer is None or isinstance(answer, bool) else text, 12) or "(empty)"


def _labels(scene: Scene, name: str) -> list[str]:
    """The words of a choice in the order of their places; none for a choice of many numbers."""
    answers = [_answer(entry, name) for entry in _chosen(scene.good, name)]
    numbers = sorted({one for one in answers if isinstance(one, int | float) and not isinstance(one, bool)})
    if len(numbers) > FEW and all(isinstance(one, int | float) and not isinstance(one, bool) for one in answers):
        return []
    known = Counter(map(_word, answers))
    order = {_word(number): i for i, number in enumerate(numbers)}
    most = sorted(known, key=lambda word: (-known[word], word))[:GROUPS]
    kept = most if len(known) <= GROUPS else most[:-1]
    return sorted(kept, key=lambda word: (order.get(word, -1), word)) + ["others"] * (len(known) > len(kept))


def _place(entry: Entry, name: str, labels: Sequence[str]) -> float:
    answer = _answer(entry, name)
    if labels:
        word = _word(answer)
        return float(labels.index(word) if word in labels else len(labels) - 1)
    assert isinstance(answer, int | float)  # noqa: S101  # no labels: all are numbers
    return float(min(style.FARTHEST, max(-style.FARTHEST, answer)))


def _jitter(entry: Entry) -> float:
    """A little to the side, so that dots hide one another less; the same in every drawing."""
    return 0.5 * (int(entry.trial.id[:6], 16) / 0xFFFFFF - 0.5)


def _medians(scene: Scene, name: str, labels: Sequence[str]) -> list[tuple[float, float, float]]:
    """From where, to where, and the median error there, of the longest trainings."""
    found = _chosen(scene.full, name)
    points = sorted(
        zip((_place(e, name, labels) for e in found), style.values(scene, ACCURACY, found), strict=True)
    )
    if labels:
        groups = [[point for point in points if point[0] == i] for i in range(len(labels))]
        return [(g[0][0] - 0.36, g[0][0] + 0.36, median(y for _, y in g)) for g in groups if g]
    size = math.ceil(len(points) / BINS) or 1
    bins = [points[i : i + size] for i in range(0, len(points), size)]
    return [(one[0][0], one[-1][0], median(y for _, y in one)) for one in bins if one[0][0] < one[-1][0]]


def _told(scene: Scene, name: str) -> float:
    """How much of the spread of the errors a choice explains (orders of magnitude, between its groups)."""
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
    # A choice with many answers explains something by chance alone: less by as much.
    return between / spread - (len(groups) - 1) / (len(points) - 1) if spread else 0.0
