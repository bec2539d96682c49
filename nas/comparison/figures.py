"""The figures of a comparison, readable in colour and in grey. Matplotlib is imported when they are drawn."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.comparison.curves import best_so_far, quartiles
from nas.comparison.progress import progress_of
from nas.data.kinds import NOUNS
from nas.objectives import FRACTIONS, Objective
from nas.statistics import mean

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from nas.comparison.result import Compared

CAPTIONS = {
    "progress": "The best score so far of each strategy over the trials, and over the seconds of computing: the "
    "median of the seeds, and between the quartiles.",
    "winners": "The test accuracy of each winner and of each baseline.",
    "permutation": "The test accuracy of models that have learned from the images, and of models that have "
    "learned from the same images with their pixels in another order.",
    "shift": "The test accuracy when the test images are moved.",
    "images": "The test accuracy over the number of training images.",
}
POINTS = 200  # of a curve


def figures(compared: Compared) -> Iterator[tuple[str, Figure]]:
    """Every figure for which a comparison has data, with its name."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it logs where its cache is
    yield "progress", _progress(compared)
    yield "winners", _winners(compared)
    for experiment in compared.result.experiments:
        yield experiment["name"], _experiment(experiment)


def _progress(compared: Compared) -> Figure:
    from nas.report.figures import style

    figure = _canvas(compared, "the best score so far", 10.0)
    panels = figure.subplots(1, 2, sharey=True)
    objective = Objective.parse(compared.comparison.first.objectives[0])
    handles: list[Any] = []
    for label, look in zip(compared.comparison.entries, _looks(), strict=False):
        went = [
            progress_of(compared.folder / one.folder) for one in compared.result.searched if one.strategy == label
        ]
        if not went:
            continue
        for axes, by_seconds in zip(panels, (False, True), strict=True):
            curves = [
                best_so_far(one.scores, one.costs if by_seconds else [1.0] * len(one.scores)) for one in went
            ]
            end = max(curve[0][-1] for curve in curves)
            start = min(curve[0][0] for curve in curves)
            grid = np.linspace(start, end, POINTS) if by_seconds else np.arange(start, end + 1)
            low, middle, high = quartiles(curves, grid) * objective.sign
            handles += axes.step(grid, middle, where="post", label=style.short(label), **look)
            axes.fill_between(grid, low, high, step="post", color=look["color"], alpha=0.15, linewidth=0)
    for axes, name in zip(panels, ("trials", "seconds of computing"), strict=True):
        style.frame(axes).set_xlabel(name)
        if name != "trials":
            axes.set_xscale("log")
    panels[0].set_ylabel(style.unit(objective.metric, NOUNS[compared.state.kind]).split(",")[0])
    if objective.metric not in FRACTIONS:
        panels[0].set_yscale("log")
    style.legend(figure, handles, 4)
    return figure


def _winners(compared: Compared) -> Figure:
    """A row for each strategy and each baseline, the best one at the top."""
    from nas.report.figures import style

    result = compared.result
    rows = [
        (mean(found), found, label, True)
        for label in compared.comparison.entries
        if (found := [one.test_accuracy for one in result.searched if one.strategy == label])
    ]
    rows += [(one.accuracy, [one.accuracy], one.baseline.name, False) for one in result.tested]
    rows.sort()
    figure = _canvas(compared, "test accuracy", 8.0, 1.6 + 0.34 * len(rows))
    axes = style.frame(figure.subplots())
    for height, (average, found, _, is_search) in enumerate(rows):
        colour, mark = (style.BLUE, "o") if is_search else (style.ORANGE, "s")
        axes.plot([100 * value for value in found], [height] * len(found), mark, color=colour, alpha=0.5, ms=5)
        axes.plot([100 * average], [height], "|", color=style.INK, ms=16, mew=2)
    axes.set_yticks(range(len(rows)), [style.short(name, 40) for _, _, name, _ in rows])
    axes.set_xlabel(
        f"correctly classified test {NOUNS[compared.state.kind].many} (%); bar: the mean over the seeds"
    )
    return figure


def _experiment(experiment: dict[str, Any]) -> Figure:
    from matplotlib.figure import Figure

    from nas.report.figures import style

    points = experiment["points"]
    figure = Figure(figsize=(8.0, 4.6), layout="constrained", facecolor="white")
    axes = style.frame(figure.subplots())
    numbers = [float(point.replace(",", "")) for point in points] if experiment["name"] != "permutation" else []
    handles: list[Any] = []
    for (model, found), look in zip(experiment["accuracies"].items(), _looks(), strict=False):
        places = numbers or range(len(points))
        handles += axes.plot(
            places, [100 * one for one in found], marker="o", label=style.short(model, 40), **look
        )
    if experiment["name"] == "images":
        axes.set_xscale("log")
    axes.set_xticks(numbers or range(len(points)), points)
    axes.minorticks_off()
    names = {"permutation": "pixels", "shift": "moved by (pixels)", "images": "training images (number)"}
    axes.set(xlabel=names[experiment["name"]], ylabel="test accuracy (%)")
    style.legend(figure, handles, 2)
    return figure


def _canvas(compared: Compared, subject: str, width: float, height: float = 5.0) -> Figure:
    from matplotlib.figure import Figure

    from nas.report.figures import style

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    figure.suptitle(f"{style.short(compared.state.dataset, 30)}: {subject}", fontsize=12, color=style.INK)
    return figure


def _looks() -> Iterator[dict[str, Any]]:
    """Colours and kinds of lines, which differ in grey, too."""
    from nas.report.figures import style

    colours = (style.BLUE, style.RED, style.GREEN, style.PURPLE, style.ORANGE, style.SKY, style.INK)
    for colour, line in zip(cycle(colours), cycle(("-", "--", "-.", ":")), strict=False):
        yield {"color": colour, "linestyle": line, "linewidth": 1.8}
