"""The family tree of the winner: its ancestors, and the operation that made each from its parents."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import PathPatch
from matplotlib.path import Path

from nas.report.figures import style
from nas.report.figures.scene import Entry, Scene
from nas.report.words import compact, percent
from nas.statistics import mean

MOST = 40  # ancestors
GENERATIONS = 8  # at the most, below one another
WIDEST = 10  # boxes beside one another
SWEEPS = 8  # over the generations, until few lines cross
OTHER = "other means"
LINES: dict[str, Any] = {"mutation": ("-", style.INK), "crossover": ("--", style.BLUE), OTHER: (":", style.INK)}

Node = tuple[int, int, int]  # a box: (number, 0, 0); a line that passes a generation: (parent, child, generation)


def family_tree(scene: Scene) -> Figure | None:
    """The winner's ancestors, the oldest above, down to the winner."""
    if scene.leader is None:
        return None
    parents, generation = _ancestors(scene, scene.leader)
    shown = _shown(generation)
    if len(shown) < 2:
        return None
    paths = [
        [(child, 0, 0), *((parent, child, level) for level in range(generation[child] + 1, generation[parent])),
         (parent, 0, 0)]
        for child in shown for parent in parents[child] if parent in shown
    ]  # fmt: skip
    rows: dict[int, list[Node]] = defaultdict(list)
    for number in shown:
        rows[generation[number]].append((number, 0, 0))
    for path in paths:
        for node in path[1:-1]:
            rows[node[2]].append(node)
    places = _arranged(rows, paths)
    right, above = max(x for x, _ in places.values()) + 0.6, max(y for _, y in places.values()) + 0.55
    title = f"the ancestors of the {scene.leader_name}, the oldest above"
    if hidden := len(generation) - len(shown):
        title += f" ({hidden} older {'ones are' if hidden > 1 else 'one is'} not shown)"
    width = max(7.0, 1.15 * right)
    figure = style.canvas(scene, title, width, 1.4 + 1.3 * above)
    axes = figure.subplots()
    axes.set_axis_off()
    centre, half = right / 2 - 0.3, width / 1.15 / 2
    axes.set(xlim=(centre - half, centre + half), ylim=(-0.55, above))
    used = set()
    for path in paths:
        origin = scene.entries[path[0][0] - 1].trial.job.candidate.origin
        used.add(origin if origin in LINES else OTHER)
        _draw_line(axes, [places[node] for node in path], *LINES.get(origin, LINES[OTHER]))
    for number in shown:
        entry = scene.entries[number - 1]
        is_leader = entry is scene.leader
        label = _label(entry, is_root=not any(path[0][0] == number for path in paths))
        if entry.trial.job.candidate.origin == "mutation" and len(parents[number]) == 1:
            changed = _changed(entry, scene.entries[parents[number][0] - 1])
            label += f"\n{changed}" * bool(changed)
        box = axes.text(
            *places[number, 0, 0], label, url=style.pointed(entry),
            ha="center", va="center", fontsize=style.SMALL, color=style.INK,
            linespacing=1.25, zorder=4, weight="bold" if is_leader else "normal",
            bbox={"boxstyle": "round,pad=0.4", "facecolor": "#fbe3d4" if is_leader else "white",
                  "edgecolor": style.RED if is_leader else style.INK, "linewidth": 2.2 if is_leader else 1.0},
        ).get_bbox_patch()  # fmt: skip
        if box is not None:
            box.set_url(style.pointed(entry))
    lines = [(name, *LINES[name]) for name in LINES if name in used]
    handles = [Line2D([], [], linestyle=line, color=colour, label=f"by {name}") for name, line, colour in lines]
    sign = Line2D([], [], color=style.INK, marker="s", markerfacecolor="white", markersize=9, linestyle="none")
    sign.set_label("trial, validation accuracy, parameters")
    handles.append(sign)
    style.legend(figure, handles)
    return figure


def _draw_line(axes: Axes, points: list[tuple[float, float]], line: str, colour: str) -> None:
    """Draw the line from a child to a parent as curves."""
    corners = [points[0]]
    for (x, y), (to_x, to_y) in pairwise(points):
        corners += [(x, (y + to_y) / 2), (to_x, (y + to_y) / 2), (to_x, to_y)]
    path = Path(corners, [int(Path.MOVETO)] + [int(Path.CURVE4)] * (len(corners) - 1))
    axes.add_patch(PathPatch(path, facecolor="none", edgecolor=colour, linestyle=line, linewidth=1.5, zorder=2))


def _label(entry: Entry, *, is_root: bool) -> str:
    metrics, origin = entry.trial.metrics, entry.trial.job.candidate.origin
    lines = [f"trial {entry.number}", percent(metrics["validation_accuracy"]), compact(metrics["parameters"])]
    return "\n".join([*lines, style.short(origin, 13)] if is_root and origin else lines)


def _changed(entry: Entry, parent: Entry) -> str:
    """What a mutation has changed: ``dense 64→32``, or the first of several changes."""
    old, new = parent.trial.job.candidate.choices, entry.trial.job.candidate.choices
    names = [name for name in new if name in old and old[name] != new[name]]
    if not names:
        return ""
    name = names[0]
    more = f" +{len(names) - 1}" * (len(names) > 1)
    return style.short(f"{name.rpartition('/')[2]} {old[name]}→{new[name]}", 16) + more


def _ancestors(scene: Scene, leader: Entry) -> tuple[dict[int, list[int]], dict[int, int]]:
    """The parents of each ancestor, and its generation: 0 is the winner, parents come after their children."""
    first: dict[str, int] = {}
    for entry in scene.good:
        first.setdefault(entry.trial.id, entry.number)
    generation = {leader.number: 0}
    parents: dict[int, list[int]] = {}
    for number in range(leader.number, 0, -1):  # a later trial is never a parent, so there is no circle
        if number in generation:
            names = scene.entries[number - 1].trial.job.candidate.parents
            parents[number] = sorted({first[name] for name in names if first.get(name, number) < number})
            for parent in parents[number]:
                generation[parent] = max(generation.get(parent, 0), generation[number] + 1)
    return parents, generation


def _shown(generation: dict[int, int]) -> list[int]:
    """The ancestors that there is room for, the youngest generations first."""
    shown: set[int] = set()
    for level in range(GENERATIONS):
        here = sorted(number for number, own in generation.items() if own == level)
        room = min(WIDEST, MOST + 1 - len(shown))
        shown.update(here[max(0, len(here) - room) :])
        if len(here) > room:
            break
    return sorted(shown)


def _arranged(rows: dict[int, list[Node]], paths: list[list[Node]]) -> dict[Node, tuple[float, float]]:
    """The position of each box, in rows by generation, near its children and parents (Sugiyama et al., 1981)."""
    near: dict[Node, list[Node]] = defaultdict(list)
    for path in paths:
        for node, other in pairwise(path):
            near[node].append(other)
            near[other].append(node)
    x = {node: float(i) for row in rows.values() for i, node in enumerate(sorted(row))}
    for _ in range(SWEEPS):
        for level in (*sorted(rows), *sorted(rows, reverse=True)):
            wish = {node: mean([x[other] for other in near[node]] or [x[node]]) for node in rows[level]}
            row = rows[level] = sorted(rows[level], key=lambda node, wish=wish: (wish[node], node))  # type: ignore[misc]
            middle = mean(list(wish.values()))
            for node, other in pairwise(row):  # apart to the right, then the whole row back to its mean
                room = 1.0 if node[2] == other[2] == 0 else 0.65 if 0 in (node[2], other[2]) else 0.3
                wish[other] = max(wish[other], wish[node] + room)
            back = mean(list(wish.values())) - middle
            x.update({node: place - back for node, place in wish.items()})
    left = min(x.values()) - 0.6
    return {node: (x[node] - left, float(level)) for level, row in rows.items() for node in row}
