"""The accuracy of the networks of a search against their cost."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from nas.architecture.known import LECTURE, lecture_parameters
from nas.objectives import MORE_IS_BETTER, front
from nas.report.figures import style
from nas.report.figures.scene import Scene
from nas.report.figures.style import ACCURACY, PARAMETERS
from nas.report.words import compact, duration
from nas.statistics import mean
from nas.trial import Trial

MARKS = ("s", "^", "v", "D", "P", "X", "<", ">", "p")  # of references, to distinguish them without colours


def accuracy_and_parameters(scene: Scene) -> Figure | None:
    """Every trial's accuracy over its parameters, the front of the two, the winner and the references."""
    if not scene.good:
        return None
    figure = style.canvas(scene, "the accuracy of the networks and their parameters", 8.0, 5.8)
    axes = style.frame(figure.subplots())
    handles = style.dots(scene, axes, lambda entries: style.values(scene, PARAMETERS, entries), ACCURACY)
    best: list[tuple[float, float]] = []  # no smaller network is as accurate as one of these
    for x, y in sorted(_point(scene, entry.trial) for entry in scene.full):
        if not best or y < best[-1][1]:
            best.append((x, y))
    handles += axes.plot(
        *zip(*best, strict=True), color=style.RED, drawstyle="steps-post", linewidth=1.6, zorder=2,
        label="best for so many parameters",
    )  # fmt: skip
    for (name, entry), mark in zip(scene.references().items(), MARKS, strict=False):
        label = "the lecture's network" if name == "lecture" else style.short(name)
        point = _point(scene, entry.trial)
        about = f"{label}: trial {entry.number}", style.pointed(entry)
        handles += _marked(axes, point, mark, 9, style.ORANGE, *about)
    points = [_point(scene, entry.trial) for entry in scene.good]
    for mark, size, label, point, trial in _retrained(scene):
        handles += _marked(axes, point, mark, size, "white", label, style.pointed_training(label, trial))
        points.append(point)
    sizes = [x for x, _ in points] + _lecture_line(scene, axes, handles)
    if scene.leader:
        handles += style.star(axes, _leader(scene), *_point(scene, scene.leader.trial), scene.leader)
    style.scale(scene, axes, "x", PARAMETERS, sizes)
    style.scale(scene, axes, "y", ACCURACY, [y for _, y in points], scene.least_error)
    style.legend(figure, handles, 2)
    return figure


def _leader(scene: Scene) -> str:
    return f"{scene.leader_name}: trial {scene.leader.number if scene.leader else 0}"


def _point(scene: Scene, trial: Trial) -> tuple[float, float]:
    x, y = (style.place(scene, metric, trial.metrics[metric]) for metric in (PARAMETERS, ACCURACY))
    return x, y


def _marked(
    axes: Axes, point: tuple[float, float], mark: str, size: int, fill: str, label: str, url: str
) -> list[Line2D]:
    look: style.Look = {"markersize": size, "markerfacecolor": fill, "markeredgecolor": style.INK, "zorder": 5}
    look["url"] = url
    return axes.plot(*([value] for value in point), mark, label=label, **look)


def _retrained(scene: Scene) -> list[tuple[str, int, str, tuple[float, float], Trial]]:
    """The winner and the lecture's network after the final selection: mark, size, label, point, a training."""
    if scene.outcome is None:
        return []
    retrained = scene.outcome.retrained
    length = duration(retrained[0].job.epochs)
    accuracy = style.place(scene, ACCURACY, mean([trial.metrics[ACCURACY] for trial in retrained]))
    winner = _point(scene, retrained[0])[0], accuracy
    marked = [("*", 15, f"the winner, trained again for {length}", winner, retrained[0])]
    lecture = [other.trial for other in scene.outcome.compared if other.trial.id == LECTURE.id][:1]
    label = f"the lecture's network, trained for {length}"
    return marked + [("D", 8, label, _point(scene, trial), trial) for trial in lecture]


def _lecture_line(scene: Scene, axes: Axes, handles: list[Line2D]) -> list[float]:
    """Mark the size of the lecture's network; returns its parameters, or nothing if it does not fit the images."""
    lecture = lecture_parameters(scene.header.limits)
    if lecture is None:
        return []
    label = f"the lecture's network: {compact(lecture)} parameters"
    handles.append(axes.axvline(lecture, color=style.INK, linestyle=":", linewidth=1.2, label=label))
    return [lecture]


def pareto_front(scene: Scene) -> Figure | None:
    """The first objective against each of the others, the Pareto front as steps."""
    metrics = [objective.metric for objective in scene.header.objectives]
    if not scene.good or len(metrics) < 2:
        return None
    first, *others = metrics
    chosen = {trial.job.key for trial in front(entry.trial for entry in scene.good)}
    best = list({entry.trial.job.key: entry for entry in scene.good if entry.trial.job.key in chosen}.values())
    rows, columns = -(-len(others) // 2), min(2, len(others))
    figure = style.canvas(scene, "the objectives of the networks", 4 + 4.5 * columns, 1.3 + 4.0 * rows)
    panels = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    handles: list[Any] = []
    for axes, other in zip(panels, others, strict=False):
        style.frame(axes)
        handles += style.dots(scene, axes, lambda some, metric=other: style.values(scene, metric, some), first)  # type: ignore[misc]
        x, y = style.values(scene, other, best), style.values(scene, first, best)
        if len(others) == 1:  # with more than two objectives, the projection of the front is no line
            falling = other in MORE_IS_BETTER and other != ACCURACY
            points = sorted(zip(x, y, strict=True), reverse=falling)
            axes.plot(*zip(*points, strict=True), color=style.RED, drawstyle="steps-post", zorder=4)
        squares = axes.scatter(x, y, 36, style.RED, marker="s", zorder=4, label=f"Pareto front ({len(best)})")
        squares.set_urls(list(map(style.pointed, best)))
        handles.append(squares)
        if scene.leader:
            [x_of_it], [y_of_it] = (style.values(scene, metric, [scene.leader]) for metric in (other, first))
            handles += style.star(axes, _leader(scene), x_of_it, y_of_it, scene.leader)
        found = style.values(scene, other, scene.good)
        if other == PARAMETERS:
            found += _lecture_line(scene, axes, handles)
        style.scale(scene, axes, "x", other, found, scene.least_error)
        style.scale(scene, axes, "y", first, style.values(scene, first, scene.good), scene.least_error)
    for axes in panels[len(others) :]:
        axes.remove()
    style.legend(figure, handles)
    return figure
