"""Searches in a notebook: their progress in the output of the cell, and their result as a table and figures.

Where a kernel of Jupyter runs, ``nas.search``, ``nas.train`` and ``nas.resume`` are the functions of this module.
They take and return the same as those of nas/run.
"""

from __future__ import annotations

import html
import io
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from typing import Any, ParamSpec

from IPython import display as ipython_display
from IPython.core.getipython import get_ipython
from rich.console import Console

from nas.cli.view import View
from nas.errors import NasError
from nas.records.journal import FILE
from nas.records.outcome import Outcome
from nas.records.record import read
from nas.report.figures import figures, image_of
from nas.report.summary import Summary
from nas.run import resumed, runs

P = ParamSpec("P")
_display: Any = ipython_display  # without types
COLUMNS, REFRESHED = 88, 1.0  # of the progress; seconds
FIGURES = ("accuracy_and_parameters", "best_over_trials", "importance", "confusion_test", "most_wrong")
PAGE = "<pre style='line-height:1.25'>{code}</pre>"


class Cell(View):
    """A view in the output of a cell: the messages and, while the search runs, what trains now below them."""

    def __init__(self) -> None:
        super().__init__(_page())
        self._handle = _display.display(_display.HTML(""), display_id=True)
        self._shown = ""
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._refresh, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Leave the messages in the cell, and stop to change it."""
        self._is_over.set()
        self._thread.join()
        self._show(self._messages())

    def _refresh(self) -> None:
        while not self._is_over.wait(REFRESHED):
            now = _page()
            with suppress(Exception):  # another thread changes what is drawn; the next second shows it
                if self.header is not None or self.to_read:
                    now.print(self.draw())
                self._show(self._messages() + now.export_html(inline_styles=True, code_format=PAGE))

    def _show(self, text: str) -> None:
        if text != self._shown:
            self._handle.update(_display.HTML(text))
            self._shown = text

    def _messages(self) -> str:
        return self.console.export_html(inline_styles=True, code_format=PAGE, clear=False)


def _page() -> Console:
    """A console that keeps what is printed. Names are strangers' texts, which are to be no markup."""
    return Console(
        file=io.StringIO(), width=COLUMNS, record=True, highlight=False, markup=False, emoji=False,
        force_jupyter=False, color_system=None,
    )  # fmt: skip


@contextmanager
def _cell() -> Iterator[Cell]:
    cell = Cell()
    try:
        yield cell
    finally:
        cell.end()


def _shown(action: Callable[P, Outcome]) -> Callable[P, Outcome]:
    """The same function, with the progress in the output of the cell."""

    @wraps(action)
    def shown(*arguments: P.args, **options: P.kwargs) -> Outcome:
        _register()
        with _cell() as cell:
            given: Any = options.pop("observers", ())
            options["observers"] = [cell, *given]
            return action(*arguments, **options)

    return shown


# To interrupt the kernel ends a search in order; `resume` goes on with it.
search, train, resume = _shown(runs.search), _shown(runs.train), _shown(resumed.resume)


def _register() -> None:
    """Let IPython show an `Outcome` as `html_of` makes it."""
    shell: Any = get_ipython()
    if shell is not None:
        shell.display_formatter.formatters["text/html"].for_type(Outcome, html_of)


def html_of(outcome: Outcome) -> str:
    """An outcome as HTML: the result in a sentence, why it is this network, the scores as a table, and figures."""
    summary = Summary.of(outcome)
    rows = "".join(
        f"<tr><td style='text-align:left'>{html.escape(row.label)}</td><td>{html.escape(row.value)}</td>"
        f"<td style='text-align:left'>{html.escape(row.note)}</td></tr>"
        for row in summary.rows
    )
    texts = [*summary.reasons, *summary.cost, f"{summary.effort}, in {outcome.header.folder}"]
    images = list[str]()
    with suppress(NasError, OSError):  # the folder may have been moved
        drawn = figures(read(outcome.header.folder / FILE)[0], FIGURES)
        images = [f"<img src='{image_of(figure)}' style='max-width:48%'>" for _, figure in drawn]
    words = "".join(f"<p>{html.escape(text)}</p>" for text in texts)
    return f"<p><b>{html.escape(summary.sentence)}</b></p><table>{rows}</table>{words}{''.join(images)}"
