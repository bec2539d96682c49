"""The progress of a search, and the learning curves of its networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate, cycle

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from nas.report.figures import style
from nas.report.figures.scene import Entry, Scene
from nas.report.figures.style import ACCURACY, LOSS
from nas.report.leaders import leaders
from nas.report.words import name_of, percent
from nas.trial import Trial

BEST = 10  # curves in one figure
COLOURS = (style.BLUE, style.GREEN, style.ORANGE, style.PURPLE, style.SKY)
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
MARKS = ("o", "s", "^", "D", "v")


def best_over_trials(scene: Scene) -> Figure | None:
    """The best first objective so far, over the trials; with several objectives, the size of the front, too."""
    many = f"{len(scene.entries)} trial{'s' * (len(scene.entries) != 1)}"
    figure = _best(scene, f"over {many}", lambda entry: float(entry.number))
    if figure:
        axes = figure.axes[0]
        axes.set_xlabel("trial (number)")
        axes.set_xlim(0, 1.02 * len(scene.entries) + 1)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    return figure


def best_over_seconds(scene: Scene) -> Figure | None:
    """The best first objective so far, over the time of the search."""
    seconds = scene.entries[-1].seconds if scene.entries else 0.0
    size, unit = unit_of(seconds)
    figure = _best(scene, "over time", lambda entry: entry.seconds / size)
    if figure:
        axes = figure.axes[0]
        axes.set_xlabel(f"time of the search ({unit})")
        axes.set_xlim(0, 1.03 * seconds / size or 1.0)
        axes.xaxis.set_major_locator(MaxNLocator(8))
    return figure


def unit_of(seconds: float) -> tuple[float, str]:
    """The unit in which such a time is readable: its seconds, and its name."""
    hours, minutes, plain = (3600, "hours"), (60, "minutes"), (1, "seconds")
    return hours if seconds >= 3 * 3600 else minutes if seconds >= 3 * 60 else plain


def _best(scene: Scene, over: str, x: Callable[[Entry], float]) -> Figure | None:
    if not scene.good:
        return None
    objective = scene.header.objectives[0]
    metric = objective.metric
    figure = style.canvas(scene, f"the best {style.unit(metric, scene.noun).partition(' (')[0]} {over}")
    axes = style.frame(figure.subplots())
    values = style.values(scene, metric, scene.good)
    style.scale(scene, axes, "y", metric, values, scene.least_error)
    handles = style.dots(scene, axes, lambda entries: [x(entry) for entry in entries], metric)
    # The axis of an accuracy is that of its error.
    so_far = list(accumulate(values, max if objective.sign > 0 and metric != ACCURACY else min))
    places = [x(entry) for entry in (*scene.good, scene.entries[-1])]
    look: style.Look = {"color": style.RED, "linewidth": 2, "drawstyle": "steps-post", "zorder": 4}
    handles += axes.plot(places, [*so_far, so_far[-1]], label="best so far", **look)
    if scene.failed:
        failed = axes.scatter(
            [x(entry) for entry in scene.failed], [0.985] * len(scene.failed), 36, style.INK, marker="x",
            transform=axes.get_xaxis_transform(), label=f"failed ({len(scene.failed)}), at the upper edge",
        )  # fmt: skip
        failed.set_urls(list(map(style.pointed, scene.failed)))
        handles.append(failed)
    if leader := scene.leader:
        [value] = style.values(scene, metric, [leader])
        handles += style.star(axes, f"{scene.leader_name}: trial {leader.number}", x(leader), value, leader)
    if len(scene.header.objectives) > 1:
        handles += _front(scene, axes, x)
    style.legend(figure, handles)
    return figure


def _front(scene: Scene, axes: Axes, x: Callable[[Entry], float]) -> list[Line2D]:
    """The number of networks on the Pareto front so far, on an axis of its own."""
    other, sizes = axes.twinx(), scene.front_sizes
    other.set_ylabel("Pareto front (networks)")
    other.set_ylim(0, 1.25 * max(sizes))
    other.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    other.spines[["top"]].set_visible(False)
    other.tick_params(labelsize=style.SMALL, colors=style.INK)
    look: style.Look = {"color": style.GREEN, "linewidth": 1.6, "linestyle": "--", "drawstyle": "steps-post"}
    places = [x(entry) for entry in (*scene.good, scene.entries[-1])]
    return other.plot(places, [*sizes, sizes[-1]], label=f"Pareto front ({sizes[-1]})", **look)


def learning_curves(scene: Scene) -> Figure | None:
    """The validation loss of the best ten networks by epoch; beside it that of the final selection."""
    entries = {entry.trial.job.key: entry for entry in reversed(scene.good) if _curve(entry.trial)}
    best = {trial.id: entries[trial.job.key] for trial in leaders(entry.trial for entry in entries.values())}
    if scene.leader and _curve(scene.leader.trial):
        best = {scene.leader.trial.id: scene.leader} | best
    chosen = list(best.values())[:BEST]
    if not chosen:
        return None
    is_search = scene.header.kind != "train"
    groups = scene.outcome.finalists if scene.outcome and is_search else ()
    retrained = [trial for group in groups for trial in group if _curve(trial)]
    title = "the learning curves of the best networks" if len(chosen) > 1 else "the learning curve"
    figure = style.canvas(scene, title, 10.0 if retrained else 8.0, 5.4)
    panels = figure.subplots(1, 2 if retrained else 1, squeeze=False, sharey=True)[0]
    handles = _plot_trials(scene, panels[0], chosen, is_search=is_search)
    if retrained:
        panels[0].set_title("during the search", fontsize=10)
        handles += _plot_retrained(scene, panels[1], retrained, groups[0][0].id)
    losses = [loss for trial in (*(entry.trial for entry in chosen), *retrained) for _, loss in _curve(trial)]
    for axes in panels:
        style.frame(axes)
        style.scale(scene, axes, "y", LOSS, losses)
        axes.set_xlabel("epochs (number)")
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(7, integer=axes.get_xlim()[1] >= 1))
    if retrained:
        panels[1].set_ylabel("")
    style.legend(figure, handles, 4 if retrained else 3)
    return figure


def _plot_trials(scene: Scene, axes: Axes, chosen: Sequence[Entry], *, is_search: bool) -> list[Line2D]:
    handles: list[Line2D] = []
    for entry, colour, line, mark in zip(chosen, cycle(COLOURS), cycle(LINES), cycle(MARKS), strict=False):
        points = _curve(entry.trial)
        name = f"trial {entry.number}" if is_search else "training"
        label = f"{name}: {percent(entry.trial.metrics['validation_accuracy'])}"
        filled = colour if len(handles) < len(COLOURS) else "white"
        look: style.Look = {"color": colour, "linestyle": line, "marker": mark, "markerfacecolor": filled}
        look |= {"markersize": 5, "linewidth": 1.3, "zorder": 3}
        if entry is scene.leader:
            label += f" ({scene.leader_name})" * is_search
            look |= {"color": style.RED, "linestyle": "-", "marker": "*", "markerfacecolor": style.RED}
            look |= {"markersize": 11, "linewidth": 2.6, "zorder": 5}
        look["url"] = style.pointed(entry) if is_search else style.pointed_training(name, entry.trial)
        seldom = max(1, len(points) // 8)
        handles += axes.plot(*zip(*points, strict=True), markevery=seldom, label=label, **look)
    return handles


def _named(scene: Scene, trial: Trial) -> str:
    """A network of the final selection by its name or id, and the number of its trial in the search."""
    number = scene.outcome.numbers.get(trial.id) if scene.outcome else None
    return style.short(name_of(trial), 14) + f" ({number})" * bool(number)


def _plot_retrained(scene: Scene, axes: Axes, trials: Sequence[Trial], winner: str) -> list[Line2D]:
    handles: list[Line2D] = []
    axes.set_title("in the final selection, trained again", fontsize=10)
    others = [name for name in dict.fromkeys(trial.id for trial in trials) if name != winner]
    for trial in reversed(trials):
        if trial.id == winner:
            name = f"{_named(scene, trial)}, the winner, by seed"
            look: style.Look = {"color": style.RED, "linewidth": 1.6, "zorder": 4, "label": name}
        else:
            place = others.index(trial.id)
            look = {
                "color": COLOURS[place % len(COLOURS)],
                "linewidth": 1.2,
                "label": f"{_named(scene, trial)}, by seed",
            }
            look["linestyle"] = LINES[1 + place % (len(LINES) - 1)]
        mark = "." if len(trial.curve) == 1 else ""
        look["url"] = style.pointed_training(f"{_named(scene, trial)}, trained again", trial)
        handles += axes.plot(*zip(*_curve(trial), strict=True), marker=mark, **look)
    return handles


def _curve(trial: Trial) -> list[tuple[float, float]]:
    """The points of a curve that have an epoch and a loss."""
    points = [(point["epoch"], point[LOSS]) for point in trial.curve if "epoch" in point and LOSS in point]
    return [(epoch, style.bounded(loss)) for epoch, loss in points if 0 <= epoch <= style.FARTHEST]
