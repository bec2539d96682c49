"""A search on one page, for those without a server: a file of HTML that needs nothing else."""

from __future__ import annotations

import base64
import io
import shlex
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nas import __version__
from nas.architecture.layers import show
from nas.errors import ArchitectureError, NasError, plain
from nas.files import read_small
from nas.objectives import rank, scored
from nas.records.outcome import Outcome
from nas.records.record import Record, place
from nas.report.drawing import network_svg
from nas.report.figures import CAPTIONS, DPI, figures
from nas.report.texts import leaderboard, spread
from nas.statistics import deviation, mean
from nas.trial import Trial

LEADERS = 20
MOST_SVG = 400_000  # bytes; a figure of thousands of points is smaller as pixels


def report(record: Record, pictures: Mapping[str, Path] | None = None) -> str:
    """The page, with every figure that the record has something for.

    Args:
        record: of the search.
        pictures: the figures by their names, as PNG, if they are drawn already; otherwise they are drawn as SVG.

    Raises:
        JournalError: the record does not say what was searched, or its outcome names what is not there.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("nas.report", "")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters["percent"] = lambda fraction: f"{100 * fraction:.2f} %"
    header, outcome = record.header, record.result()
    trials = [scored(told.trial, header.objectives) for told in record.told]
    good = sorted((trial for trial in trials if trial.failure is None), key=rank, reverse=True)
    board = leaderboard(good)
    best = outcome.winner if outcome else next(iter(good), None)
    if pictures is None:
        images = _drawn(record)
    else:
        images = [(name, _uri("png", path.read_bytes())) for name, path in pictures.items()]
    return environment.get_template("page.html").render(
        header=header,
        plain={name: plain(str(value)) for name, value in _settings(record).items()},
        outcome=outcome,
        status=_status(record),
        trials=len(record.told),
        failures=Counter(plain(trial.failure.message) for trial in trials if trial.failure).most_common(10),
        failed=len(trials) - len(good),
        seconds=outcome.seconds if outcome else record.seconds,
        leaders=list(zip(*(list(column)[:LEADERS] for column in board.values()), strict=True)),
        network=_network(record, best) if best else None,
        spread=spread(outcome) if outcome else "",
        finalists=_finalists(outcome) if outcome else [],
        figures=[(name, CAPTIONS[name], image) for name, image in images],
        search=plain(shlex.quote(place(header.folder))),
        toml=_toml(header.folder),
        versions={**record.about.get("versions", {}), "report": __version__},
    )


SETTINGS = (
    "strategy", "space", "network", "dataset", "objectives", "trials", "time_limit", "epochs", "rungs", "batch",
    "max_parameters", "max_flops", "recipe", "precision", "seed", "seeds", "device", "workers", "group",
)  # fmt: skip


def _settings(record: Record) -> dict[str, Any]:
    """What decides what a search finds, as far as it was set."""
    config = {**record.header.config, "recipe": record.header.recipe}
    found = {name.replace("_", " "): config[name] for name in SETTINGS if config.get(name) not in (None, "", [])}
    found |= dict(config.get("options") or {})
    return {
        name: ", ".join(map(str, value)) if isinstance(value, list) else value for name, value in found.items()
    }


def _status(record: Record) -> str:
    if record.outcome is not None:
        return ""
    if record.ended and record.ended["status"] == "failed":
        return f"It failed: {plain(record.ended['message'])}"
    return "It has no winner yet: it is running, or it was ended. What is shown may change."


def _network(record: Record, trial: Trial) -> dict[str, Any]:
    """The layers of a network, and its drawing."""
    architecture, limits = trial.job.candidate.architecture, record.header.limits
    try:
        rows = architecture.table(limits.input_shape, limits.classes)
    except ArchitectureError:  # a journal that somebody changed
        rows = []
    return {
        "id": trial.id,
        "rows": [(str(row.layer), show(row.shape), f"{row.parameters:,}", f"{row.flops:,}") for row in rows],
        "parameters": f"{sum(row.parameters for row in rows):,}",
        "flops": f"{sum(row.flops for row in rows):,}",
        "drawing": _uri("svg+xml", network_svg(architecture, limits).encode()),
    }


def _finalists(outcome: Outcome) -> list[tuple[str, int, int, float, str, str]]:
    """Of each: id, parameters, seeds, epochs, accuracy and loss (mean ± standard deviation)."""
    found = []
    for group in outcome.finalists:
        accuracies = [100 * trial.metrics["validation_accuracy"] for trial in group]
        losses = [trial.metrics["validation_loss"] for trial in group]
        several = len(group) > 1
        accuracy = f"{mean(accuracies):.2f}" + (f" ± {deviation(accuracies):.2f}" if several else "") + " %"
        loss = f"{mean(losses):.4f}" + (f" ± {deviation(losses):.4f}" if several else "")
        parameters = int(group[0].metrics["parameters"])
        found.append((group[0].id, parameters, len(group), group[0].job.epochs, accuracy, loss))
    return found


def _drawn(record: Record) -> list[tuple[str, str]]:
    """Every figure as an address that holds all of it; letters are outlines, so that no font is needed."""
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
    """The configuration that repeats the search, where it is there."""
    try:
        return plain(read_small(folder / "search.toml"))
    except (NasError, OSError):
        return ""
