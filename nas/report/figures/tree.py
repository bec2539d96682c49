"""The family tree of the winner: its ancestors, and the operation that made each from its parents."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import PathPatch
from matplotlib.path import Path

from nas.report.figures import style
from nas.report.figures.scene import Entry, Scene
from nas.statistics import mean

MOST = 40  # ancestors
GENERATIONS = 8  # at the most, below one another
WIDEST = 10  # boxes beside one another
SWEEPS = 8  # over the generations, until few lines cross
LINES: dict[str, tuple[Any, str]] = {"mutation": ("-", style.INK), "crossover": ("--", style.BLUE)}
OTHER: tuple[Any, str] = (":", style.INK)


Spot = tuple[int, int, int]  # a box: (number, 0, 0); a line that passes a generation: (parent, child, generation)


@dataclass(frozen=True)
class Tree:
    """Ancestors by number, in generations."""

    entries: dict[int, Entry]
    parents: dict[int, list[int]]
    generation: dict[int, int]  # 0: the winner; parents are in later ones than their children
    hidden: int  # the number of ancestors that are not shown

    def path(self, child: int, parent: int) -> list[Spot]:
        """The spots of the line between two boxes."""
        between = range(self.generation[child] + 1, self.generation[parent])
        return [(child, 0, 0), *((parent, child, level) for level in between), (parent, 0, 0)]

    @property
    def paths(self) -> list[tuple[int, list[Spot]]]:
        """Every child with the path to each of its parents."""
        return [(child, self.path(child, parent)) for child, parents in self.parents.items() for parent in parents]


def family_tree(scene: Scene) -> Figure | None:
    """The winner's ancestors, the oldest above, down to the winner."""
    if scene.leader is None:
        return None
    tree = _tree(scene, scene.leader)
    if len(tree.entries) < 2:
        return None
    places = _arrange(tree)
    right, above = max(x for x, _ in places.values()) + 0.6, max(y for _, y in places.values()) + 0.55
    title = f"the ancestors of the {scene.leader_name}, the oldest above"
    if tree.hidden:
        title += f" ({tree.hidden} older {'ones are' if tree.hidden > 1 else 'one is'} not shown)"
    figure = style.canvas(scene, title, max(7.0, 1.15 * right), 1.4 + 1.3 * above)
    axes = figure.subplots()
    axes.set_axis_off()
    middle = max(7.0, 1.15 * right) / 1.15 / 2
    axes.set(xlim=(right / 2 - 0.3 - middle, right / 2 - 0.3 + middle), ylim=(-0.55, above))
    used = {_line(scene, axes, tree, child, [places[spot] for spot in path]) for child, path in tree.paths}
    for number, entry in tree.entries.items():
        first = entry is scene.leader
        axes.text(
            *places[number, 0, 0], _label(entry, root=not tree.parents[number]), ha="center", va="center",
            fontsize=style.SMALL, color=style.INK, linespacing=1.25, zorder=4,
            weight="bold" if first else "normal",
            bbox={"boxstyle": "round,pad=0.4", "facecolor": "#fbe3d4" if first else "white",
                  "edgecolor": style.RED if first else style.INK, "linewidth": 2.2 if first else 1.0},
        )  # fmt: skip
    handles = [
        Line2D([], [], color=colour, linestyle=line, label=f"by {name}")
        for name, (line, colour) in {**LINES, "other means": OTHER}.items()
        if name in used
    ]
    box = Line2D([], [], color=style.INK, marker="s", markerfacecolor="white", markersize=9, linestyle="none")
    box.set_label("trial, validation accuracy, parameters")
    style.legend(figure, [*handles, box])
    return figure


def _line(scene: Scene, axes: Axes, tree: Tree, child: int, points: list[tuple[float, float]]) -> str:
    """Draw the line from a child to a parent; returns how the child was made."""
    origin = tree.entries[child].trial.job.candidate.origin
    line, colour = LINES.get(origin, OTHER)
    corners, codes = [points[0]], [Path.MOVETO]
    for (x, y), (to_x, to_y) in pairwise(points):
        corners += [(x, (y + to_y) / 2), (to_x, (y + to_y) / 2), (to_x, to_y)]
        codes += [Path.CURVE4] * 3
    path = Path(corners, [int(code) for code in codes])
    axes.add_patch(PathPatch(path, facecolor="none", edgecolor=colour, linestyle=line, linewidth=1.5, zorder=2))
    return origin if origin in LINES else "other means"


def _label(entry: Entry, *, root: bool) -> str:
    metrics, origin = entry.trial.metrics, entry.trial.job.candidate.origin
    lines = [
        f"trial {entry.number}",
        f"{100 * metrics['validation_accuracy']:.2f} %",
        style.compact(metrics["parameters"]),
    ]
    return "\n".join([*lines, style.short(origin, 13)] if root and origin else lines)


def _tree(scene: Scene, leader: Entry) -> Tree:
    """The ancestors as far as they are shown. A later trial is never a parent, so there is no circle."""
    first: dict[str, Entry] = {}
    for entry in scene.good:
        first.setdefault(entry.trial.id, entry)
    entries, depth = {leader.number: leader}, {leader.number: 0}
    parents: dict[int, list[int]] = {}
    for number in range(leader.number, 0, -1):  # children come before their parents
        if number not in entries:
            continue
        known = (first.get(parent) for parent in entries[number].trial.job.candidate.parents)
        parents[number] = sorted({entry.number for entry in known if entry is not None and entry.number < number})
        for parent in parents[number]:
            entries[parent] = scene.entries[parent - 1]
            depth[parent] = max(depth.get(parent, 0), depth[number] + 1)
    shown: set[int] = set()
    for level in range(GENERATIONS):
        here = sorted(number for number, own in depth.items() if own == level)
        room = min(WIDEST, MOST + 1 - len(shown))
        shown.update(here[max(0, len(here) - room) :])
        if len(here) > room:
            break
    kept = {number: [parent for parent in parents[number] if parent in shown] for number in sorted(shown)}
    return Tree({number: entries[number] for number in kept}, kept, depth, len(entries) - len(shown))


def _arrange(tree: Tree) -> dict[Spot, tuple[float, float]]:
    """The position of each box, in rows by generation, near its children and parents (Sugiyama et al., 1981)."""
    rows: dict[int, list[Spot]] = defaultdict(list)
    near: dict[Spot, list[Spot]] = defaultdict(list)
    for number in tree.entries:
        rows[tree.generation[number]].append((number, 0, 0))
    for _, path in tree.paths:
        for spot in path[1:-1]:
            rows[spot[2]].append(spot)
        for spot, other in pairwise(path):
            near[spot].append(other)
            near[other].append(spot)
    x = {spot: float(i) for row in rows.values() for i, spot in enumerate(sorted(row))}
    for _ in range(SWEEPS):
        for level in (*sorted(rows), *sorted(rows, reverse=True)):
            wish = {spot: mean([x[other] for other in near[spot]] or [x[spot]]) for spot in rows[level]}
            rows[level].sort(key=lambda spot, wish=wish: (wish[spot], spot))  # type: ignore[misc]
            _spread(rows[level], wish)
            x.update(wish)
    left = min(x.values()) - 0.6
    return {spot: (x[spot] - left, float(level)) for level, row in rows.items() for spot in row}


def _spread(row: list[Spot], wish: dict[Spot, float]) -> None:
    """Move the spots of a row apart to the right, then the whole row back so that its mean stays."""
    middle = mean([wish[spot] for spot in row])
    for spot, other in pairwise(row):
        room = 1.0 if spot[2] == other[2] == 0 else 0.65 if 0 in (spot[2], other[2]) else 0.3
        wish[other] = max(wish[other], wish[spot] + room)
    back = mean([wish[spot] for spot in row]) - middle
    for spot in row:
        wish[spot] -= back
