"""The accuracy of the networks of a search against their cost."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from nas.architecture.known import LECTURE, lecture_parameters
from nas.objectives import MORE_IS_BETTER, front
from nas.report.figures import style
from nas.report.figures.scene import Entry, Scene
from nas.statistics import mean
from nas.trial import Trial

ACCURACY, PARAMETERS = "validation_accuracy", "parameters"
MARKS = ("s", "^", "v", "D", "P", "X", "<", ">", "p")  # of references, to distinguish them without colours


def accuracy_and_parameters(scene: Scene) -> Figure | None:
    """Every trial's accuracy over its parameters, the front of the two, the winner and the references."""
    if not scene.good:
        return None
    figure = style.canvas(scene, "the accuracy of the networks and their parameters", 8.0, 5.8)
    axes = style.frame(figure.subplots())
    handles = style.dots(scene, axes, lambda some: style.values(scene, PARAMETERS, some), ACCURACY)
    handles += _front(scene, axes)
    handles += _references(scene, axes)
    compared, again = _again(scene, axes)
    handles += again
    lecture = _lecture_line(scene, axes, handles)
    if scene.leader:
        x, y = _point(scene, scene.leader.trial)
        handles.append(style.star(scene, axes, x, y))
    errors = style.values(scene, ACCURACY, scene.good) + [y for _, y in compared]
    sizes = style.values(scene, PARAMETERS, scene.good) + [x for x, _ in compared] + lecture
    style.scale(axes, "x", PARAMETERS, sizes)
    style.scale(axes, "y", ACCURACY, errors, scene.least_error)
    style.legend(figure, handles, 2)
    return figure


def _point(scene: Scene, trial: Trial) -> tuple[float, float]:
    entry = [Entry(0, 0.0, trial)]
    return style.values(scene, PARAMETERS, entry)[0], style.values(scene, ACCURACY, entry)[0]


def _front(scene: Scene, axes: Axes) -> list[Line2D]:
    """The front of the longest trainings: no smaller network is as accurate as one on it."""
    points: list[tuple[float, float]] = []
    for x, y in sorted(_point(scene, entry.trial) for entry in scene.full):
        if not points or y < points[-1][1]:
            points.append((x, y))
    return axes.plot(
        *zip(*points, strict=True), color=style.RED, drawstyle="steps-post", linewidth=1.6, zorder=2,
        label="best for so many parameters",
    )  # fmt: skip


def _references(scene: Scene, axes: Axes) -> list[Line2D]:
    handles = []
    for (name, entry), mark in zip(scene.references.items(), MARKS, strict=False):
        x, y = _point(scene, entry.trial)
        label = "the lecture's network" if entry.trial.id == LECTURE.id else style.short(name)
        handles += axes.plot(
            [x], [y], mark, markersize=9, markerfacecolor=style.ORANGE, markeredgecolor=style.INK, zorder=5,
            label=f"{label}: trial {entry.number}",
        )  # fmt: skip
    return handles


def _again(scene: Scene, axes: Axes) -> tuple[list[tuple[float, float]], list[Line2D]]:
    """The winner and the lecture's network after their longer trainings in the final selection."""
    if scene.outcome is None:
        return [], []
    longer = style.epochs(scene.outcome.retrained[0].job.epochs)
    accuracy = mean([trial.metrics[ACCURACY] for trial in scene.outcome.retrained])
    winner = _point(scene, scene.outcome.retrained[0])[0], style.place(scene, ACCURACY, accuracy)
    marked = [("*", 15, f"the winner, trained again for {longer}", winner)]
    lecture = [other.trial for other in scene.outcome.compared if other.what == "lecture"][:1]
    marked += [("D", 8, f"the lecture's network, trained for {longer}", _point(scene, trial)) for trial in lecture]
    handles = []
    for mark, size, label, (x, y) in marked:
        handles += axes.plot(
            [x], [y], mark, markersize=size, markerfacecolor="white", markeredgecolor=style.INK, label=label,
            zorder=5,
        )  # fmt: skip
    return [point for *_, point in marked], handles


def _lecture_line(scene: Scene, axes: Axes, handles: list[Line2D]) -> list[float]:
    """Mark the size of the lecture's network; empty where it does not fit the images, otherwise its parameters."""
    lecture = lecture_parameters(scene.header.limits)
    if lecture is None:
        return []
    label = f"the lecture's network: {style.compact(lecture)} parameters"
    handles.append(axes.axvline(lecture, color=style.INK, linestyle=":", linewidth=1.2, label=label))
    return [lecture]


def pareto_front(scene: Scene) -> Figure | None:
    """The first objective against each of the others, the Pareto front as steps."""
    metrics = [objective.metric for objective in scene.header.objectives]
    if not scene.good or len(metrics) < 2:
        return None
    first, *others = metrics
    best = [Entry(0, 0.0, trial) for trial in front(entry.trial for entry in scene.good)]
    rows, columns = -(-len(others) // 2), min(2, len(others))
    figure = style.canvas(scene, "the objectives of the networks", 4 + 4.5 * columns, 1.3 + 4.0 * rows)
    panels = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    handles: list[Line2D] = []
    for axes, other in zip(panels, others, strict=False):
        style.frame(axes)
        handles += style.dots(scene, axes, lambda some, metric=other: style.values(scene, metric, some), first)  # type: ignore[misc]
        points = sorted(
            zip(style.values(scene, other, best), style.values(scene, first, best), strict=True),
            reverse=other in MORE_IS_BETTER and other != ACCURACY,
        )
        handles += axes.plot(
            *zip(*points, strict=True), color=style.RED, drawstyle="steps-post", marker="s", markersize=6,
            # With more than two objectives, the projection of the front is no line.
            linestyle="-" if len(others) == 1 else "none", label=f"Pareto front ({len(best)})", zorder=4,
        )  # fmt: skip
        if scene.leader:
            x, y = (style.values(scene, metric, [scene.leader])[0] for metric in (other, first))
            handles.append(style.star(scene, axes, x, y))
        found = style.values(scene, other, scene.good)
        if other == PARAMETERS:
            found += _lecture_line(scene, axes, handles)
        style.scale(axes, "x", other, found, scene.least_error)
        style.scale(axes, "y", first, style.values(scene, first, scene.good), scene.least_error)
    for axes in panels[len(others) :]:
        axes.remove()
    style.legend(figure, list({str(handle.get_label()): handle for handle in handles}.values()))
    return figure
