"""Figures of a search, readable in colour and in grey. Matplotlib is imported when a figure is drawn.

They use no ``pyplot``, so that threads that draw at the same time share nothing.
"""

from __future__ import annotations

import base64
import html
import io
import logging
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

from nas.data.kinds import NOUNS, Noun
from nas.records.record import Record

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 130
# Those that can be pointed at in MLflow's copy of the report, too: as SVG, a figure costs 0.2 s more.
FIRST_POINTED = ("best_over_trials", "accuracy_and_parameters", "pareto_front")
MOST_SVG = 400_000  # bytes; a figure of thousands of points is smaller as pixels
ALL_OF_IT = ' pointer-events="all"'
OF_CLASSES = ("confusion_test", "most_wrong", "examples", "confusion_validation")  # what went wrong, and with what
CAPTIONS = {  # in the order in which the figures are drawn; in braces, the fields of `nas.data.kinds.Noun`
    "confusion_test": "The test {many} by their class and the answer of the network.",
    "most_wrong": "The wrongly classified test {many} for whose class the network's probability is smallest, the "
    "worst first, with the probability of its answer.",
    "examples": "Training images of the classes as the network sees them: in the size and the colours that it "
    "gets and, on the right, changed at random as in training. Images of more than 96 pixels are shown smaller.",
    "confusion_validation": "The validation {many} by their class and the answer of the network.",
    "best_over_trials": "The first objective of every trial, and the best one so far, over the trials.",
    "best_over_seconds": "The first objective of every trial, and the best one so far, over the search's time.",
    "accuracy_and_parameters": "The validation accuracy of every trial over its number of parameters.",
    "pareto_front": "The objectives of the search against one another, with the Pareto front.",
    "importance": "How much each choice of the space mattered: the permutation importance of a random forest that "
    "is fitted to the trials (Breiman, 2001).",
    "choices": "The validation accuracy of the trials by the choices for their networks: by those that mattered "
    "most, if there are enough trials to tell.",
    "parallel_coordinates": "Each network as a line through the choices that mattered most, to its accuracy.",
    "learning_curves": "The validation loss of the best networks after every epoch of their training.",
    "timeline": "What the workers did: each training from its begin to its end. Cores that have helped one count "
    "as busy.",
    "family_tree": "The ancestors of the best network, with the operation that made each from its parents.",
}
EXAMPLES_OF_SERIES = (
    "Training series of the classes as curves, a colour for each channel, all with the same axes; on the right, "
    "if the recipe changes them, the same series changed at random. Of more than six channels, six are drawn."
)


def captions(noun: Noun) -> dict[str, str]:
    """The captions by the names of the figures; ``noun``: what the networks classify."""
    found = {name: text.format(**noun._asdict()) for name, text in CAPTIONS.items()}
    return found | ({"examples": EXAMPLES_OF_SERIES} if noun is NOUNS["series"] else {})


def figures(record: Record, names: Collection[str] = tuple(CAPTIONS)) -> Iterator[tuple[str, Figure]]:
    """The figures of these names for which a record has data.

    Raises:
        JournalError: the record does not say what was searched, or its outcome names a training that it lacks.
        NasError: the predictions of the winner are damaged.
    """
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it logs where its cache is
    from nas.report.figures import choices, classes, importance, parallel, progress, timeline, tradeoff, tree
    from nas.report.figures.scene import Scene

    scene = Scene(record)
    of_classes = [classes.confusion_test, classes.most_wrong, classes.examples, classes.confusion_validation]
    makers = [
        progress.best_over_trials, progress.best_over_seconds, tradeoff.accuracy_and_parameters,
        tradeoff.pareto_front, importance.importance, choices.choices, parallel.parallel_coordinates,
        progress.learning_curves, timeline.timeline, tree.family_tree,
    ]  # fmt: skip
    for maker in [*of_classes, *([progress.learning_curves] if scene.header.kind == "train" else makers)]:
        if maker.__name__ in names and (figure := maker(scene)) is not None:
            yield maker.__name__, figure


def warm_up() -> None:
    """Import Matplotlib."""
    from nas.report.figures import choices, classes, importance, parallel, progress, timeline, tradeoff, tree  # noqa: F401


class Picture(NamedTuple):
    """A figure in a page."""

    name: str  # a key of `CAPTIONS`
    image: str  # an address that holds the whole image; empty if there is an SVG
    svg: str = ""  # what can be pointed at


def draw(record: Record, folder: Path) -> list[Picture]:
    """Write every figure for which a record has data into a folder, as PNG; and return all for a page."""
    from nas.report.figures.style import MOST_POINTED

    pictures = []
    for name, figure in figures(record):
        file = folder / f"{name}.png"
        figure.savefig(file, dpi=DPI)
        is_pointed = name in FIRST_POINTED and len(record.told) <= MOST_POINTED
        svg = pointable(svg_of(figure)) if is_pointed else ""
        pictures.append(Picture(name, "" if svg else address("png", file.read_bytes()), svg))
    return pictures


def drawn(record: Record) -> Iterator[Picture]:
    """Every figure for a page, as SVG; letters are outlines, so that no font is needed."""
    for name, figure in figures(record):
        written = svg_of(figure)
        svg = pointable(written)
        yield Picture(name, "" if svg else image_of(figure, written), svg)


def svg_of(figure: Figure) -> str:
    """A figure as SVG; its marks have addresses that are texts (`nas.report.figures.style.pointed`)."""
    svg = io.StringIO()
    figure.savefig(svg, format="svg", dpi=DPI, metadata={"Date": None})
    return svg.getvalue()


def image_of(figure: Figure, svg: str | None = None) -> str:
    """A figure as an address that holds it, as SVG if that is not too large; ``svg``: if it is written already."""
    written, png = svg_of(figure) if svg is None else svg, io.BytesIO()
    if len(written) <= MOST_SVG:
        return address("svg+xml", written.encode())
    figure.savefig(png, format="png", dpi=DPI)
    return address("png", png.getvalue())


def pointable(svg: str) -> str:
    """The SVG of a figure as it can stand in a page, where each mark shows its text when it is pointed at.

    The addresses that Matplotlib writes around the marks become titles, which a browser shows by itself. Empty if
    there is no such mark, or if the result is too large.
    """
    from nas.report.figures.style import POINT

    def titled(match: re.Match[str]) -> str:
        title = f"<title>{html.escape(unquote(match[1]))}</title>"
        # The inside of a hollow dot belongs to it, that of an open line does not.
        is_line = any(not shape.rstrip().endswith("z") for shape in re.findall(r' d="([^"]*)"', match[2]))
        return f"<g{'' if is_line else ALL_OF_IT}>{title}{match[2]}</g>"

    text, marks = re.subn(rf'<a xlink:href="{POINT}([^"]*)"[^>]*>(.*?)</a>', titled, svg, flags=re.DOTALL)
    if not marks or len(text) > MOST_SVG:
        return ""
    return text[text.index("<svg") :].replace("<svg", '<svg role="img"', 1)


def address(mime: str, content: bytes) -> str:
    """An image as an address that holds the whole of it."""
    return f"data:image/{mime};base64,{base64.b64encode(content).decode()}"
