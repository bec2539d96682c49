"""A search on one page: a file of HTML that needs neither a server nor other files."""

from __future__ import annotations

import base64
import io
import shlex
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nas import __version__
from nas.errors import ArchitectureError, NasError, plain
from nas.files import read_small
from nas.objectives import scored
from nas.records.outcome import Outcome
from nas.records.record import Record, place
from nas.report.drawing import network_svg
from nas.report.figures import CAPTIONS, DPI, figures
from nas.report.summary import Summary, effort, layer_rows, leaders, mean_and_deviation, percent
from nas.trial import Trial

LEADERS = 20
MOST_SVG = 400_000  # bytes; a figure of thousands of points is smaller as pixels


def report(record: Record, pictures: Mapping[str, Path] | None = None) -> str:
    """The page, with every figure for which the record has data.

    Args:
        record: of the search.
        pictures: the figures as PNG files by their names; None draws them, as SVG.

    Raises:
        JournalError: the record does not say what was searched, or its outcome names a training that it lacks.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("nas.report", "")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters["percent"] = percent
    header, outcome = record.header, record.result()
    trials = [scored(told.trial, header.objectives) for told in record.told]
    best = leaders(trial for trial in trials if trial.failure is None)
    shown = outcome.winner if outcome else next(iter(best), None)
    failures = Counter(plain(trial.failure.message) for trial in trials if trial.failure)
    seconds = outcome.seconds if outcome else record.seconds
    return environment.get_template("page.html").render(
        header=header,
        is_search=header.kind != "train",
        settings=_settings(record),
        outcome=outcome,
        summary=Summary.of(outcome) if outcome else None,
        status=_status(record),
        effort=effort(len(trials), failures.total(), seconds),
        trials=len(trials),
        failures=failures.most_common(10),
        leaders=best[:LEADERS],
        network=_network(record, shown) if shown else None,
        finalists=_finalists(outcome) if outcome else [],
        figures=[(name, CAPTIONS[name], image) for name, image in _images(record, pictures)],
        search=plain(shlex.quote(place(header.folder))),
        toml=_toml(header.folder),
        versions={**record.about.get("versions", {}), "nas that wrote this page": __version__},
    )


SETTINGS = (
    "strategy", "space", "network", "dataset", "objectives", "trials", "time_limit", "epochs", "rungs", "batch",
    "max_parameters", "max_flops", "recipe", "precision", "seed", "seeds", "device", "workers", "group",
)  # fmt: skip


def _settings(record: Record) -> dict[str, str]:
    """The settings that decide the result of a search, as far as they were set."""
    config = {**record.header.config, "recipe": record.header.recipe}
    found = {name.replace("_", " "): config[name] for name in SETTINGS if config.get(name) not in (None, "", [])}
    found |= dict(config.get("options") or {})
    texts = {k: ", ".join(map(str, value)) if isinstance(value, list) else value for k, value in found.items()}
    return {name: plain(str(value)) for name, value in texts.items()}


def _status(record: Record) -> str:
    if record.outcome is not None:
        return ""
    if record.ended and record.ended["status"] == "failed":
        return f"It failed: {plain(record.ended['message'])}"
    return "It has no winner yet: it is still running, or it was interrupted. This page may change."


def _network(record: Record, trial: Trial) -> dict[str, Any]:
    """The layers of a network, and its drawing."""
    architecture, limits = trial.job.candidate.architecture, record.header.limits
    try:
        rows = layer_rows(architecture, limits)
    except ArchitectureError:  # a journal that somebody changed
        rows = []
    drawing = _uri("svg+xml", network_svg(architecture, limits).encode())
    return {"id": trial.id, "rows": rows, "drawing": drawing}


def _finalists(outcome: Outcome) -> list[dict[str, Any]]:
    """The networks that were trained again, the winner first."""
    return [
        {
            "first": group[0],
            "seeds": len(group),
            "accuracy": mean_and_deviation([t.metrics["validation_accuracy"] for t in group], percentage=True),
            "loss": mean_and_deviation([t.metrics["validation_loss"] for t in group]),
        }
        for group in outcome.finalists
    ]


def _images(record: Record, pictures: Mapping[str, Path] | None) -> list[tuple[str, str]]:
    """Every figure as an address that holds the whole image; letters are outlines, so that no font is needed."""
    if pictures is not None:
        return [(name, _uri("png", path.read_bytes())) for name, path in pictures.items()]
    found = []
    for name, figure in figures(record):
        image, pixels = io.BytesIO(), io.BytesIO()
        figure.savefig(image, format="svg", metadata={"Date": None})
        if len(image.getvalue()) > MOST_SVG:
            figure.savefig(pixels, format="png", dpi=DPI)
        found.append(
            (name, _uri("png", pixels.getvalue()) if pixels.tell() else _uri("svg+xml", image.getvalue()))
        )
    return found


def _uri(mime: str, content: bytes) -> str:
    return f"data:image/{mime};base64,{base64.b64encode(content).decode()}"


def _toml(folder: Path) -> str:
    """The configuration that repeats the search; empty where the file is missing."""
    try:
        return plain(read_small(folder / "search.toml"))
    except (NasError, OSError):
        return ""
