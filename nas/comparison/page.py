"""The page of a comparison: one HTML file that needs neither a server nor other files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nas import __version__
from nas.comparison.figures import CAPTIONS, figures
from nas.comparison.tables import tables
from nas.data.kinds import NOUNS
from nas.report.figures import image_of
from nas.report.words import markdown_table

if TYPE_CHECKING:
    from nas.comparison.result import Compared


def page(compared: Compared) -> str:
    """The page as HTML."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("nas.report", "")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.get_template("comparison.html").render(
        name=compared.folder.name,
        dataset=compared.state.dataset,
        result=compared.result,
        noun=NOUNS[compared.state.kind].many,
        failed=compared.state.failed,
        tables=list(tables(compared).values()),
        figures=[(name, CAPTIONS[name], image_of(figure)) for name, figure in figures(compared)],
        toml=compared.comparison.to_toml(),
        version=__version__,
    )


def description(compared: Compared) -> str:
    """The tables and what may be concluded, in Markdown."""
    parts = [
        f"**{title}**\n\n{markdown_table(columns, rows)}" for title, columns, rows in tables(compared).values()
    ]
    return "\n\n".join([*parts, *(f"- {sentence}" for sentence in compared.conclusions)])
