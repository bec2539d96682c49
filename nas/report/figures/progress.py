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
from nas.report.summary import leaders, percent
from nas.trial import Trial

LOSS = "validation_loss"
BEST = 10  # curves in one figure
LOOKS = tuple(
    zip(
        (style.BLUE, style.GREEN, style.ORANGE, style.PURPLE, style.SKY),
        ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1))),
        ("o", "s", "^", "D", "v"),
        strict=True,
    )
)


def best_over_trials(scene: Scene) -> Figure | None:
    """The best validation loss so far, over the trials."""
    many = f"{len(scene.entries)} trial{'s' * (len(scene.entries) != 1)}"
    figure = _best(scene, f"the best validation loss over {many}", lambda entry: float(entry.number))
    if figure:
        axes = figure.axes[0]
        axes.set_xlabel("trial (number)")
        axes.set_xlim(0, 1.02 * len(scene.entries) + 1)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    return figure


def best_over_seconds(scene: Scene) -> Figure | None:
    """The best validation loss so far, over the seconds of the search."""
    figure = _best(scene, "the best validation loss over time", lambda entry: entry.seconds)
    if figure:
        axes = figure.axes[0]
        last = scene.entries[-1].seconds
        size, unit = next(
            (s, u) for s, u in ((3600, "hours"), (60, "minutes"), (1, "seconds")) if last >= 3 * s or s == 1
        )
        axes.set_xlabel(f"time of the search ({unit})")
        axes.set_xlim(0, 1.03 * last or 1.0)
        marks = MaxNLocator(8).tick_values(0, last / size)
        axes.set_xticks([mark * size for mark in marks if mark * size <= 1.03 * last], None)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value / size:g}")
    return figure


def _best(scene: Scene, title: str, x: Callable[[Entry], float]) -> Figure | None:
    if not scene.good:
        return None
    figure = style.canvas(scene, title)
    axes = style.frame(figure.subplots())
    losses = style.values(scene, LOSS, scene.good)
    style.scale(axes, "y", LOSS, losses)
    handles = style.dots(scene, axes, lambda some: [x(entry) for entry in some], LOSS)
    so_far = list(accumulate(losses, min))
    places = [x(entry) for entry in scene.good]
    handles += axes.plot(
        [*places, x(scene.entries[-1])], [*so_far, so_far[-1]], color=style.RED, linewidth=2, label="best so far",
        drawstyle="steps-post", zorder=4,
    )  # fmt: skip
    if scene.failed:
        handles += axes.plot(
            [x(entry) for entry in scene.failed], [0.985] * len(scene.failed), "x", color=style.INK, markersize=6,
            transform=axes.get_xaxis_transform(), label=f"failed ({len(scene.failed)}), at the upper edge",
        )  # fmt: skip
    if scene.leader:
        loss = style.place(scene, LOSS, scene.leader.trial.metrics[LOSS])
        handles.append(style.star(scene, axes, x(scene.leader), loss))
    style.legend(figure, handles)
    return figure


def learning_curves(scene: Scene) -> Figure | None:
    """The validation loss of the best ten networks by epoch; beside it that of the final selection."""
    entries = {entry.trial.job.key: entry for entry in reversed(scene.good) if _curve(entry.trial)}
    ranked = leaders(entry.trial for entry in entries.values())
    best = {trial.id: entries[trial.job.key] for trial in ranked}
    if scene.leader and _curve(scene.leader.trial):
        best = {scene.leader.trial.id: scene.leader} | best
    chosen = list(best.values())[:BEST]
    trained = scene.header.kind == "train"
    again = (
        []
        if trained or not scene.outcome
        else [t for group in scene.outcome.finalists for t in group if _curve(t)]
    )
    if not chosen:
        return None
    title = "the learning curves of the best networks" if len(chosen) > 1 else "the learning curve"
    figure = style.canvas(scene, title, 10.0 if again else 8.0, 5.4)
    panels = figure.subplots(1, 2 if again else 1, squeeze=False, sharey=True)[0]
    handles = _search(scene, panels[0], chosen, trained=trained)
    if again:
        panels[0].set_title("during the search", fontsize=10)
        handles += _selection(scene, panels[1], again)
    losses = [loss for trial in (*(entry.trial for entry in chosen), *again) for _, loss in _curve(trial)]
    for axes in panels:
        style.scale(axes, "y", LOSS, losses)
        axes.set_xlabel("epochs (number)")
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(7, integer=axes.get_xlim()[1] >= 3))
    if again:
        panels[1].set_ylabel("")
    style.legend(figure, handles, 4 if again else 3)
    return figure


def _search(scene: Scene, axes: Axes, chosen: Sequence[Entry], *, trained: bool) -> list[Line2D]:
    handles: list[Line2D] = []
    style.frame(axes)
    for entry, (colour, line, mark) in zip(chosen, cycle(LOOKS), strict=False):
        metrics = entry.trial.metrics
        name = "training" if trained else f"trial {entry.number}"
        label = f"{name}: {percent(metrics['validation_accuracy'])}"
        points = _curve(entry.trial)
        seldom = max(1, len(points) // 8)
        first = entry is scene.leader
        filled = "white" if len(handles) >= len(LOOKS) else colour
        handles += axes.plot(
            *zip(*points, strict=True), color=style.RED if first else colour, linestyle="-" if first else line,
            marker="*" if first else mark, markersize=11 if first else 5, linewidth=2.6 if first else 1.3,
            markevery=seldom, markerfacecolor=style.RED if first else filled, zorder=5 if first else 3,
            label=f"{label} ({scene.leader_name})" if first and not trained else label,
        )  # fmt: skip
    return handles


def _selection(scene: Scene, axes: Axes, again: Sequence[Trial]) -> list[Line2D]:
    handles = {}
    style.frame(axes)
    axes.set_title("in the final selection, trained again", fontsize=10)
    assert scene.outcome is not None  # noqa: S101  # there is a final selection
    for trial in again[::-1]:
        first = trial.id == scene.outcome.winner.id
        label = "the winner, by seed" if first else "other finalists, by seed"
        (handles[label],) = axes.plot(
            *zip(*_curve(trial), strict=True), color=style.RED if first else "#8a939c",
            linewidth=1.6 if first else 1.2,
            linestyle="-" if first else "--", zorder=4 if first else 3, label=label,
            marker="." if len(trial.curve) == 1 else "",
        )  # fmt: skip
    return list(handles.values())


def _curve(trial: Trial) -> list[tuple[float, float]]:
    """The points of a curve that have an epoch and a loss."""
    points = [(p["epoch"], p[LOSS]) for p in trial.curve if "epoch" in p and LOSS in p]
    limit = style.FARTHEST
    return [(epoch, min(limit, max(-limit, loss))) for epoch, loss in points if 0 <= epoch <= limit]
