"""A network as a picture: the maps between its layers, as SVG, made in 0.4 ms, because every candidate has one."""

from __future__ import annotations

import math
from html import escape

from nas.architecture.architecture import Architecture, Limits
from nas.architecture.layers import (
    AveragePool,
    Cell,
    Conv2d,
    Dense,
    Flatten,
    GlobalAveragePool,
    MaxPool,
    Pretrained,
    ResidualBlock,
    SeparableConv2d,
    Shape,
    show,
)
from nas.errors import ArchitectureError

COLUMNS = 6  # layers in a row
STEP, ROW, PICTURE, LINE = 150, 160, 72, 15  # pixels: a layer's width and height, its picture's, a line of text
TOP, MARGIN = 44, 16
LETTERS = 23  # of 11 pixels, in the width of a layer
# By what a layer does; told apart in grey, too.
FILLS = {
    "map": "#4c78a8",  # convolutions
    "pool": "#d8dee6",
    "dense": "#f2a65a",
    "other": "#ffffff",
}


def network_svg(architecture: Architecture, limits: Limits) -> str:
    """A drawing of the network: what each layer makes of its input, from left to right, row after row.

    A rectangle is as high as the map (by its square root) and as wide as it has channels (by their logarithm). A
    network that does not fit its images is drawn as the sentence that says so.
    """
    try:
        rows = architecture.table(limits.input_shape, limits.classes)
    except ArchitectureError as error:
        return _page(900, 60, [_text(12, 36, str(error)[:140], 12)], "a network that cannot be")
    parts = [
        _text(12, 26, f"{architecture.id}: {sum(row.parameters for row in rows):,} parameters", 14, bold=True)
    ]
    largest = max(max(shape[1:], default=1) for shape in (limits.input_shape, *(row.shape for row in rows)))
    parts += _layer(0, "other", limits.input_shape, largest, ["input", show(limits.input_shape)])
    for position, row in enumerate(rows, 1):
        words = str(row.layer) if position < len(rows) else f"{row.layer} (the classes)"
        lines = [*_wrapped(words), show(row.shape), f"{row.parameters:,} parameters" if row.parameters else ""]
        parts += _layer(position, _kind(row.layer), row.shape, largest, lines)
        parts += _mark(position, row.layer)
    across = min(COLUMNS, len(rows) + 1)
    down = math.ceil((len(rows) + 1) / COLUMNS)
    return _page(across * STEP, TOP + down * ROW, parts, f"the network {architecture.id}")


def _kind(layer: object) -> str:
    if isinstance(layer, Conv2d | SeparableConv2d | ResidualBlock | Cell | Pretrained):
        return "map"
    if isinstance(layer, MaxPool | AveragePool | GlobalAveragePool | Flatten):
        return "pool"
    return "dense" if isinstance(layer, Dense) else "other"


def _place(position: int) -> tuple[int, int]:
    """The upper left corner of a layer."""
    row, column = divmod(position, COLUMNS)
    return column * STEP, TOP + row * ROW


def _layer(position: int, kind: str, shape: Shape, largest: int, lines: list[str]) -> list[str]:
    """An arrow from the layer before, the map that comes out, and what is said about it."""
    left, top = _place(position)
    width = 8 + 7 * math.log2(1 + shape[0])
    height = PICTURE * 0.9 * math.sqrt(max(shape[1:], default=1) / largest)
    if len(shape) == 1:  # a vector: as high as it is long, by its logarithm
        width, height = 10, min(PICTURE * 0.9, 8 + 6 * math.log2(1 + shape[0]))
    centre, middle = left + STEP / 2, top + PICTURE / 2
    dashes = ' stroke-dasharray="3 2"' if kind == "other" else ""
    x, y = centre - width / 2, middle - height / 2
    parts = [
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{FILLS[kind]}" '
        f'stroke="#333" stroke-width="1.2"{dashes}/>'
    ]
    if position:
        parts.append(f'<path d="M{left - 14} {middle} h20 m-5 -4 l5 4 l-5 4" fill="none" stroke="#333"/>')
    for number, line in enumerate(filter(None, lines)):
        parts.append(_text(centre, top + PICTURE + LINE * (number + 1), line, 11, middle=True, bold=number == 0))
    return parts


def _mark(position: int, layer: object) -> list[str]:
    """What a rectangle does not show: a shortcut around two convolutions, a cell's four nodes."""
    left, top = _place(position)
    centre, middle = left + STEP / 2, top + PICTURE / 2
    if isinstance(layer, ResidualBlock):
        begin, end, above = centre - 44, centre + 44, top - 16
        arc = f"M{begin} {middle} C{begin} {above} {end} {above} {end} {middle}"
        return [f'<path d="{arc}" fill="none" stroke="#333" stroke-width="1.5"/>']
    if isinstance(layer, Cell):
        dots = (f'<circle cx="{centre - 12 + 8 * i}" cy="{middle}" r="2.5" fill="#fff"/>' for i in range(4))
        return list(dots)
    return []


def _wrapped(words: str) -> list[str]:
    """At most two lines, broken between words."""
    first, *rest = words.split(" ")
    while rest and len(first) + 1 + len(rest[0]) <= LETTERS:
        first += f" {rest.pop(0)}"
    second = " ".join(rest)
    return [first, second if len(second) <= LETTERS else f"{second[: LETTERS - 1]}…"]


def _text(x: float, y: float, words: str, size: int, *, middle: bool = False, bold: bool = False) -> str:
    anchor = ' text-anchor="middle"' if middle else ""
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}"{anchor}{weight}>{escape(words)}</text>'


def _page(width: int, height: int, parts: list[str], title: str) -> str:
    width = max(width, 400) + MARGIN
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-{MARGIN} 0 {width} {height}" '
        f'width="{width}" height="{height}" font-family="Helvetica, Arial, DejaVu Sans, sans-serif" '
        f'role="img"><title>{escape(title)}</title><rect x="-{MARGIN}" width="100%" height="100%" fill="#fff"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )
