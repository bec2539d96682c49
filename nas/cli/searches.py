"""``nas list``, ``nas show``, ``nas sync``, ``nas repair``: what there is of searches, and keeping it in order."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nas.cli.options import plugins_option, print_json, print_out
from nas.errors import plain

if TYPE_CHECKING:
    from nas.records.searches import State
    from nas.trial import Trial

SHOWN = 10  # of the best networks


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@plugins_option()
def list_(as_json: bool) -> None:
    """List the searches under runs/: running, interrupted, finished."""
    from nas.records import searches

    states = [searches.State.of(folder) for folder in searches.every()]
    if as_json:
        print_json({"searches": [_plain(state) for state in states]})
        return
    if not states:
        _say(f"there are no searches in {Path('runs').absolute()}: `nas search` makes one")
    for state in states:
        _say(f"{state.folder.name:38} {state.status}")
        for line in (state.detail, _summary(state) if "config" in state.record.about else ""):
            if line:
                _say(f"    {line}")


@click.command()
@click.argument("search", required=False)
@click.option(
    "--report", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE.html", help="Write a page."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@plugins_option()
def show(search: str | None, report: Path | None, as_json: bool) -> None:
    """Show a search: its state, its best, its winner. --report writes all that as one page, with the figures.

    SEARCH is the folder of a search, or its name under runs/, or nothing for the latest one.
    """
    from nas.records import searches

    state = searches.State.of(searches.named(search))
    if report is not None:
        _report(state, report)
        if not as_json:
            return
    if as_json:
        print_json({**_plain(state), "config": state.record.about.get("config", {}), "best": _leaders(state)})
        return
    _say(f"{state.folder.name}: {state.status}{f' ({state.detail})' if state.detail else ''}")
    if not state.record.about:
        return
    _say(_summary(state))
    if state.status not in ("finished", "running") and "strategy" in state.record.about.get("config", {}):
        _say(f"go on with: {searches.resume_command(state.folder, state.record.about.get('config', {}))}")
    _show_details(state)


def _report(state: State, path: Path) -> None:
    """Write the page; it needs neither a server nor a network."""
    from nas.errors import NasError
    from nas.files import write_whole
    from nas.report.page import report

    if state.status == "damaged":
        raise NasError(state.detail)
    if not path.parent.is_dir():
        raise NasError(f"{path} cannot be written: there is no folder {path.parent}")
    write_whole(path, report(state.record))
    click.echo(f"{path} has the report of {state.folder.name}", err=True)


@click.command()
@click.argument("search", required=False)
@click.option("--store", metavar="URI", help="The tracking store.  [default: the search's own]")
@plugins_option()
def sync(search: str | None, store: str | None) -> None:
    """Write to MLflow what it lacks of a search.

    SEARCH is the folder of a search, or its name under runs/, or nothing for the latest one.
    """
    from nas.errors import NasError
    from nas.records import searches

    state = searches.State.of(searches.named(search))
    if state.status == "running":
        raise NasError(f"{state.folder.name} is running ({state.detail}) and writes its record itself")
    if state.status == "damaged":
        raise NasError(state.detail)
    from nas.dashboard.registry import log_model_of
    from nas.dashboard.store import store_of
    from nas.dashboard.thread import sync as write
    from nas.records import journal

    chosen = state.record.about.get("config", {}).get("mlflow", "auto")
    uri = store or store_of(state.folder, "auto" if chosen == "off" else chosen)
    with journal.locked(state.record.path):  # two that write at once would write everything twice
        written = write(state.record, uri, log_model_of(state.record.header))
    _say(f"{uri} has all of {state.folder.name} now: {written} of {len(state.record.told)} candidates were new")


@click.command()
@click.argument("search", required=False)
@plugins_option()
def repair(search: str | None) -> None:
    """Keep all that is whole of a damaged journal.

    The old one stays beside it. What is lost is trained again when the search goes on.

    SEARCH is the folder of a search, or its name under runs/, or nothing for the latest one.
    """
    from nas.records import journal, searches

    folder = searches.named(search)
    kept, lost = journal.repair(folder)
    if not lost:
        _say(f"{folder.name}: all {kept} lines are whole, nothing was changed")
        return
    _say(f"{folder.name}: {kept} lines are kept and {lost} are not; the old journal is beside it")
    config = searches.State.of(folder).record.about.get("config", {})
    _say(f"go on with: {searches.resume_command(folder, config)}")


def _say(text: str) -> None:
    """Print what a journal says, which may be a stranger's: a terminal only shows it."""
    print_out(plain(text.encode(errors="replace").decode()))


def _best(state: State) -> list[Trial]:
    """The best trials that were told, each network once, the best first."""
    from nas.objectives import scored
    from nas.report.summary import leaders

    try:
        objectives = state.record.header.objectives
    except Exception:  # noqa: BLE001  # a header that does not say it: there is no best
        return []
    known = [scored(told.trial, objectives) for told in state.record.told]
    return leaders(trial for trial in known if trial.failure is None)


def _plain(state: State) -> dict[str, Any]:
    record = state.record
    config = record.about.get("config", {})
    best = _best(state)
    return {
        "search": str(state.folder),
        "state": state.status,
        "words": state.detail,
        "begun": record.sessions[0].at if record.sessions else None,
        "strategy": config.get("strategy", "train"),
        "dataset": record.about.get("dataset", {}).get("name"),
        "trials": len(record.told),
        "failed": sum(told.trial.failure is not None for told in record.told),
        "trainings": len(record.trials),
        "seconds": record.seconds,
        "best_validation_accuracy": best[0].metrics.get("validation_accuracy") if best else None,
        "test_accuracy": (record.outcome or {}).get("test_accuracy"),
        "process": record.sessions[-1].process if state.status == "running" and record.sessions else None,
    }


def _leaders(state: State) -> list[dict[str, Any]]:
    return [
        {"id": trial.id, "epochs": trial.job.epochs, "origin": trial.job.candidate.origin, **trial.metrics}
        for trial in _best(state)[:SHOWN]
    ]


def _summary(state: State) -> str:
    """When, what, how far, how good: one line."""
    plain = _plain(state)
    when = datetime.fromtimestamp(plain["begun"]).astimezone() if plain["begun"] else None
    total = state.record.about.get("config", {}).get("trials")
    failed = f", {plain['failed']} failed" if plain["failed"] else ""
    words = [
        f"{when:%Y-%m-%d %H:%M}" if when else "",
        f"{plain['strategy']} on {plain['dataset']}",
        f"{plain['trials']}{f'/{total}' if total else ''} trials{failed}",
        _percent("best", plain["best_validation_accuracy"]),
        _percent("test", plain["test_accuracy"]),
    ]
    return " · ".join(word for word in words if word)


def _percent(what: str, fraction: float | None) -> str:
    return "" if fraction is None else f"{what} {100 * fraction:.2f} %"


def _show_details(state: State) -> None:
    """The best networks of the search, and how it ended if it did."""
    from nas.cli import console

    console.show_leaders(_best(state)[:SHOWN])
    outcome = state.record.result()
    if outcome is not None:
        console.show_result(outcome)
