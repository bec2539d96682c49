"""The report of a search: one HTML file that needs neither a server nor other files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from nas import __version__
from nas.errors import ArchitectureError, NasError, plain
from nas.files import read_small
from nas.objectives import scored
from nas.records.outcome import Outcome
from nas.records.predictions import predictions_of
from nas.records.record import Record
from nas.report.classes import LISTED, TABULATED, arrow, confusions, scores, times
from nas.report.drawing import network_svg
from nas.report.figures import OF_CLASSES, Picture, address, captions, drawn
from nas.report.leaders import leaders
from nas.report.summary import Summary, effort_of, finalists, layer_rows, training_of
from nas.report.words import duration, effort, percent, sizes
from nas.trial import Trial, trial_numbers

LEADERS = 20


def report(record: Record, pictures: Iterable[Picture] | None = None) -> str:
    """The page as HTML, with every figure for which the record has data.

    Args:
        record: of the search.
        pictures: the figures; None draws them, as SVG.

    Raises:
        JournalError: the record does not say what was searched, or its outcome names a training that it lacks.
        NasError: the predictions of the winner are damaged.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("nas.report", "")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters |= {"percent": percent, "duration": duration}
    header, outcome = record.header, record.result()
    trials = [scored(told.trial, header.objectives) for told in record.told]
    best = leaders(trial for trial in trials if trial.failure is None)
    shown = outcome.winner if outcome else next(iter(best), None)
    failures = Counter(plain(trial.failure.message) for trial in trials if trial.failure)
    config = {**header.settings, "recipe": header.recipe}
    settings = {k.replace("_", " "): config[k] for k in SETTINGS if config.get(k) not in (None, "", [])}
    settings |= dict(config.get("options") or {})
    try:
        toml = plain(read_small(header.folder / "search.toml"))
    except (NasError, OSError):
        toml = ""
    shown_pictures = list(drawn(record) if pictures is None else pictures)
    return environment.get_template("page.html").render(
        header=header,
        is_search=header.kind != "train",
        settings={
            k: plain(", ".join(map(str, v)) if isinstance(v, list) else str(v)) for k, v in settings.items()
        },
        outcome=outcome,
        summary=Summary.of(outcome) if outcome else None,
        status="" if outcome else _status(record),
        effort=effort_of(outcome)
        if outcome
        else effort(len(trials), failures.total(), record.seconds, noun=header.noun),
        trials=len(trials),
        failures=failures.most_common(10),
        leaders=best[:LEADERS],
        numbers=trial_numbers(trials),
        network=_network(record, shown) if shown else None,
        finalists=finalists(outcome) if outcome else None,
        again=training_of(outcome, outcome.winner) if outcome else "",
        classes=_classes(outcome) if outcome else None,
        captions=captions(header.inputs),
        noun=header.inputs,
        sizes=sizes(header),
        pictures=[one for one in shown_pictures if one.name in OF_CLASSES],
        figures=[one for one in shown_pictures if one.name not in OF_CLASSES],
        toml=toml,
        versions={**record.about.get("versions", {}), "nas that wrote this page": __version__},
    )


SETTINGS = (
    "strategy", "space", "network", "dataset", "objectives", "trials", "time_limit", "epochs", "rungs", "batch",
    "ahead", "max_parameters", "max_flops", "recipe", "precision", "seed", "seeds", "device", "workers", "group",
)  # fmt: skip


def _status(record: Record) -> str:
    if record.ended and record.ended["status"] == "failed":
        return f"It failed: {plain(record.ended['message'])}"
    return "It has no winner yet: it is still running, or it was interrupted. This page may change."


def _network(record: Record, trial: Trial) -> dict[str, Any]:
    """The layers of a network, and its drawing."""
    architecture, limits = trial.job.candidate.architecture, record.header.limits
    try:
        rows = layer_rows(architecture, limits)
    except ArchitectureError:  # the journal was changed by hand
        rows = []
    drawing = address("svg+xml", network_svg(architecture, limits).encode())
    return {"id": trial.id, "rows": rows, "drawing": drawing}


def _classes(outcome: Outcome) -> dict[str, Any] | None:
    """The most frequent confusions of the test, and a table of the classes."""
    predictions = predictions_of(outcome)
    if predictions is None:
        return None
    test = confusions(predictions)[0]
    pairs = [f"{arrow(pair, predictions.classes)}: {times(pair.times)}" for pair in test.pairs(LISTED)]
    rows = list(scores(predictions, test.shown(TABULATED)))
    return {"pairs": pairs, "rows": rows, "count": len(predictions.classes)}
