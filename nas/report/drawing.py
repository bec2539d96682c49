"""Drawings of networks as SVG. A drawing takes 0.4 ms, because every candidate has one."""

from __future__ import annotations

import math
import textwrap
from html import escape

from nas.architecture.architecture import Architecture, Limits
from nas.architecture.layers import Shape, show
from nas.errors import ArchitectureError

COLUMNS = 6  # layers in a row
STEP, ROW, PICTURE, LINE = 150, 160, 72, 15  # pixels: a layer's width and height, its picture's, a line of text
TOP, MARGIN = 44, 16
LETTERS = 21  # of 11 pixels, in the width of a layer
# The colour of a layer by its role; the colours differ in grey, too.
FILLS = {"convolution": "#4c78a8", "pooling": "#d8dee6", "dense": "#f2a65a", "other": "#ffffff"}


def network_svg(architecture: Architecture, limits: Limits) -> str:
    """A drawing of the network: the output of each layer, from left to right, row after row.

    A short arrow comes from the layer before, a curve from any other layer that is an input. A rectangle is as
    high as the map (by its square root) and as wide as it has channels (by their logarithm). If the network does
    not fit its input, the drawing is the error message.
    """
    try:
        rows = architecture.table(limits.input_shape, limits.classes)
    except ArchitectureError as error:
        return _page(900, 60, [_text(12, 36, str(error)[:140], 12)], "an impossible network")
    title = f"{architecture.id}: {sum(row.parameters for row in rows):,} parameters"
    shapes = [limits.input_shape, *(row.shape for row in rows)]
    largest = max(max(shape[1:], default=1) for shape in shapes)
    parts = [_text(12, 26, title, 14, bold=True)]
    parts += _layer(0, "other", limits.input_shape, largest, ["input", show(limits.input_shape)])
    for position, row in enumerate(rows, 1):
        name = f"{row.layer}{' (the classes)' * (position == len(rows))}"
        name = name if architecture.is_chain else f"{position}: {name}"
        lines = [*textwrap.wrap(name, LETTERS, max_lines=2, placeholder="…"), show(row.shape)]
        lines += [f"{row.parameters:,} parameters"] * bool(row.parameters)
        parts += _layer(position, row.layer.role, row.shape, largest, lines)
        parts += [_arrow(source, position) for source in row.inputs]
        if row.layer.mark:
            x, y = _centre(position)
            parts.append(f'<g transform="translate({x:g} {y:g})">{row.layer.mark}</g>')
    width, height = min(COLUMNS, len(shapes)) * STEP, TOP + math.ceil(len(shapes) / COLUMNS) * ROW
    return _page(width, height, parts, f"the network {architecture.id}")


def _place(position: int) -> tuple[int, int]:
    """The upper left corner of a layer."""
    row, column = divmod(position, COLUMNS)
    return column * STEP, TOP + row * ROW


def _centre(position: int) -> tuple[float, float]:
    """The centre of a layer's picture."""
    left, top = _place(position)
    return left + STEP / 2, top + PICTURE / 2


def _arrow(source: int, position: int) -> str:
    """The path from one layer to another: a short arrow to the next layer, a curve to any later layer."""
    left, top = _place(position)
    x, y = _centre(position)
    if source == position - 1:
        return f'<path d="M{left - 14} {y:g} h20 m-5 -4 l5 4 l-5 4" fill="none" stroke="#333"/>'
    (from_x, from_y), end = _centre(source), top + 4
    if _place(source)[1] == top:  # in one row: an arc over the layers between them
        high = top - 6 - 3 * min(position - source, 8)
        line = f"M{from_x:g} {end} C{from_x:g} {high} {x:g} {high} {x:g} {end}"
    else:  # between the columns, then between the rows; each source has a lane of its own there
        lane = 3 * (source % 4)
        down, x = _place(source)[0] + STEP - 6 - lane, x - 6 + lane
        line = f"M{from_x + 20:g} {from_y + 8 + lane:g} H{down} V{top - 4 - lane} H{x:g} V{end}"
    return f'<path d="{line} m-3 -5 l3 5 l3 -5" fill="none" stroke="#a0522d" stroke-width="1.2"/>'


def _layer(position: int, role: str, shape: Shape, largest: int, lines: list[str]) -> list[str]:
    """The output of a layer as a rectangle, and the lines of text below it."""
    width = 8 + 7 * math.log2(1 + shape[0])
    height = PICTURE * 0.9 * math.sqrt(max(shape[1:], default=1) / largest)
    if len(shape) == 1:  # a vector: its length by the logarithm
        width, height = 10, min(PICTURE * 0.9, 8 + 6 * math.log2(1 + shape[0]))
    x, y = _centre(position)
    dashes = ' stroke-dasharray="3 2"' * (role == "other")
    rectangle = (
        f'<rect x="{x - width / 2:.1f}" y="{y - height / 2:.1f}" width="{width:.1f}" height="{height:.1f}" '
        f'fill="{FILLS[role]}" stroke="#333" stroke-width="1.2"{dashes}/>'
    )
    first = _place(position)[1] + PICTURE + LINE
    texts = (_text(x, first + LINE * i, line, 11, middle=True, bold=i == 0) for i, line in enumerate(lines))
    return [rectangle, *texts]


def _text(x: float, y: float, text: str, size: int, *, middle: bool = False, bold: bool = False) -> str:
    anchor = ' text-anchor="middle"' if middle else ""
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}"{anchor}{weight}>{escape(text)}</text>'


def _page(width: int, height: int, parts: list[str], title: str) -> str:
    width = max(width, 400) + MARGIN
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-{MARGIN} 0 {width} {height}" '
        f'width="{width}" height="{height}" font-family="Helvetica, Arial, DejaVu Sans, sans-serif" '
        f'role="img"><title>{escape(title)}</title><rect x="-{MARGIN}" width="100%" height="100%" fill="#fff"/>'
    )
    return "\n".join([head, *parts, "</svg>", ""])
