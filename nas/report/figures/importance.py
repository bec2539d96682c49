"""How much each choice of the space mattered."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from nas.report.figures import style
from nas.report.figures.scene import Scene

SHOWN = 12  # bars


def importance(scene: Scene) -> Figure | None:
    """The choices as bars, the most important one above."""
    found = scene.importances[:SHOWN]
    if not found or found[0].share == 0:
        return None
    figure = style.canvas(scene, "how much each choice mattered", 8.0, 1.5 + 0.32 * len(found))
    axes = style.frame(figure.subplots())
    places = range(len(found))
    ends: style.Look = {"xerr": [100 * one.error for one in found], "error_kw": {"ecolor": style.INK}}
    axes.barh(places, [100 * one.share for one in found], color=style.BLUE, height=0.62, **ends)
    axes.set_yticks(places, [style.short(one.name, 30) for one in found], fontsize=style.SMALL)
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set(xlabel="variance of the error that is not explained without the choice (%)", ylabel="choice (name)")
    line = Line2D([], [], color=style.INK, label="± standard error, over the trees of the forest")
    style.legend(figure, [line])
    axes.grid(visible=False, axis="y")
    return figure
