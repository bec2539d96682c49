"""Figures of a search, each readable on its own, in colour and in grey. Matplotlib is imported when one is drawn.

Only objects of a figure are used, never ``pyplot``: whatever thread draws, nothing is shared.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from nas.records.record import Record

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 130
CAPTIONS = {
    "best_over_trials": "The validation loss of every trial, and the best one so far, over the trials.",
    "best_over_seconds": "The validation loss of every trial, and the best one so far, over the search's time.",
    "accuracy_and_parameters": "The validation accuracy of every trial over its number of parameters.",
    "pareto_front": "The objectives of the search against one another, with the Pareto front.",
    "choices": "The validation accuracy of the trials by what was chosen for each network.",
    "learning_curves": "The validation loss of the best networks after every epoch of their training.",
    "family_tree": "The ancestors of the best network, with how each was made of its parents.",
}
"""What each figure shows, in a sentence, by its name; in the order in which they are drawn."""


def figures(record: Record) -> Iterator[tuple[str, Figure]]:
    """Every figure that a record has something for, with its name.

    Raises:
        JournalError: the record does not say what was searched, or its outcome names what is not there.
    """
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it tells where its cache is, and when it makes one
    from nas.report.figures import choices, progress, tradeoff, tree
    from nas.report.figures.scene import Scene

    scene = Scene.of(record)
    makers = {
        "best_over_trials": progress.best_over_trials,
        "best_over_seconds": progress.best_over_seconds,
        "accuracy_and_parameters": tradeoff.accuracy_and_parameters,
        "pareto_front": tradeoff.pareto_front,
        "choices": choices.choices,
        "learning_curves": progress.learning_curves,
        "family_tree": tree.family_tree,
    }
    for name in ("learning_curves",) if scene.header.kind == "train" else CAPTIONS:
        if (figure := makers[name](scene)) is not None:
            yield name, figure


def warm_up() -> None:
    """Import Matplotlib."""
    from nas.report.figures import choices, progress, tradeoff, tree  # noqa: F401


def draw(record: Record, folder: Path, kind: Literal["png", "svg"] = "png") -> dict[str, Path]:
    """Write every figure that a record has something for into a folder.

    Returns:
        The files by the names of the figures, in the order of `CAPTIONS`.

    Raises:
        JournalError: the record does not say what was searched, or its outcome names what is not there.
    """
    files = {}
    for name, figure in figures(record):
        files[name] = folder / f"{name}.{kind}"
        figure.savefig(files[name], format=kind, dpi=DPI, metadata={"Date": None} if kind == "svg" else None)
    return files
