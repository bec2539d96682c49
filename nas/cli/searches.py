"""``nas list``, ``show``, ``sync``, ``repair`` and ``rm``: the searches that were made, and their records."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nas.cli.compare import facts_of, show_comparison
from nas.cli.options import FILE, json_option, plugins_option, print_json, print_out
from nas.errors import NasError, UsageError, masked, plain
from nas.files import shown, write_whole
from nas.report.words import several

if TYPE_CHECKING:
    from nas.records.searches import State
    from nas.trial import Trial

SHOWN = 10  # rows of the table of the best networks


@click.command("list")
@json_option
@plugins_option()
def list_(as_json: bool) -> None:
    """List the searches under runs/ with their states, the disk space of their folders, and their scores.

    The states are running, interrupted, finished, failed, damaged and unreadable (a plugin is missing). A
    comparison is listed as one. The newest ones stand first, trainings of one network (`nas train`) at the end.
    """
    from nas.records import comparisons, searches

    states = [searches.State.of(folder) for folder in searches.every()]
    states.sort(key=lambda state: state.record.sessions[0].at if state.record.sessions else 0.0, reverse=True)
    write_down(states)
    facts = [_plain(state) for state in states]
    compared = [facts_of(folder) for folder in comparisons.every()]
    if as_json:
        print_json({"searches": facts, "comparisons": compared})
        return
    if not states and not compared:
        _say(f"there are no searches in {Path('runs').absolute()}: `nas search` makes one")
    both = list(zip(states, facts, strict=True))
    is_training = {state.folder: "network" in state.record.about.get("config", {}) for state in states}
    for state, known in both:
        if not is_training[state.folder]:
            _list(state, known)
    for one in compared:
        _say(f"{Path(one['comparison']).name:38} {one['state']:12} {_megabytes(one['bytes']):>12}")
        _say(f"    {one['words'] or _progress(one)}")
    if any(is_training.values()):
        _say("\ntrainings of one network:")
    for state, known in both:
        if is_training[state.folder]:
            _list(state, known)


def _progress(facts: Mapping[str, Any]) -> str:
    """The date of a comparison, and how many of its searches have decided."""
    decided = f"{facts['decided']} of {facts['searches']} searches have decided"
    return f"{_date(facts['begun'])} · {decided}" if facts["begun"] else decided


def _date(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds).astimezone():%Y-%m-%d %H:%M}"


def _list(state: State, known: Mapping[str, Any]) -> None:
    """The lines of a search or of a training in the list."""
    _say(f"{state.folder.name:38} {state.status:12} {_megabytes(known['bytes']):>12}")
    for line in (state.detail, _summary(state, known) if "config" in state.record.about else ""):
        if line:
            _say(f"    {line}")


@click.command()
@click.argument("search", required=False)
@click.option(
    "--report",
    metavar="FILE.html",
    type=FILE,
    help="Write a web page with the result and all figures, instead of printing.",
)
@json_option
@plugins_option()
def show(search: str | None, report: Path | None, as_json: bool) -> None:
    """Show the state, the winner and the best networks of a search, or the tables of a comparison.

    SEARCH is the folder of a search or a comparison, or its name under runs/. Default: the latest one that is no
    training of a single network, if there is one.
    """
    from nas.records import comparisons, searches
    from nas.trial import trial_numbers

    if (folder := comparisons.named(search)) is not None:
        show_comparison(folder, report, as_json=as_json)
        return
    state = searches.State.of(searches.latest() if search is None else searches.named(search))
    config = state.record.about.get("config", {})
    if report is not None:
        from nas.report.page import report as page

        if state.status in ("damaged", "unreadable"):
            raise NasError(state.detail)
        if not report.parent.is_dir():
            raise NasError(f"{report} cannot be written: there is no folder {report.parent}")
        write_whole(report, page(state.record))
        click.echo(f"{report} has the report of {state.folder.name}", err=True)
        if not as_json:
            return
    numbers = trial_numbers(told.trial for told in state.record.told)
    if as_json:
        best = [
            {
                "id": trial.id,
                "trial": numbers.get(trial.id),
                "recipe": trial.job.candidate.recipe,
                "epochs": trial.job.epochs,
                "origin": trial.job.candidate.origin,
                **trial.metrics,
            }
            for trial in _best(state)[:SHOWN]
        ]
        print_json({**_plain(state), "config": config, "best": best})
        return
    _say(f"{state.folder.name}: {state.status}{f' ({state.detail})' if state.detail else ''}")
    if not state.record.about:
        return
    _say(_summary(state, _plain(state)))
    if state.status not in ("finished", "running") and "strategy" in config:
        _say(searches.go_on(state.folder, config))
    from nas.cli import console

    if (outcome := state.record.result()) is not None:
        console.show_result(outcome)
    if "strategy" in config:
        console.show_leaders(_best(state)[:SHOWN], numbers, state.record.header.inputs.many)


@click.command()
@click.argument("search", required=False)
@click.option("--store", metavar="URI", help="Address of the MLflow store. Default: the store of the search.")
@plugins_option()
def sync(search: str | None, store: str | None) -> None:
    """Write everything of a search to MLflow that is missing there, or of a comparison with its searches.

    SEARCH is the folder of a search or of a comparison, or its name under runs/. Default: the latest one.
    """
    from nas.records import comparisons, searches

    if (folder := comparisons.named(search)) is None:
        _sync(searches.State.of(searches.named(search)), store)
        return
    if store:
        raise UsageError(f"{folder.name} is a comparison, which has one store: leave out --store")
    for member in comparisons.members(folder):
        _sync(searches.State.of(member), None)
    from nas.comparison.in_mlflow import sync as write

    _say(f"{masked(write(folder))} has the comparison {folder.name} now")


def _sync(state: State, store: str | None) -> None:
    """Write everything of a search to MLflow that is missing there; ``store``: None for its own."""
    if state.status == "running":
        raise NasError(f"{state.folder.name} is running ({state.detail}) and writes its record itself")
    if state.status in ("damaged", "unreadable"):
        raise NasError(state.detail)
    from nas.dashboard.registry import log_model_of
    from nas.dashboard.store import network_warning, store_of
    from nas.dashboard.thread import sync as write
    from nas.records import journal

    chosen = state.record.about.get("config", {}).get("mlflow", "auto")
    uri = store or store_of(state.folder, "auto" if chosen == "off" else chosen)
    if caution := network_warning(uri):
        click.echo(f"nas: warning: {caution}", err=True)
    with journal.locked(state.record.path):  # two processes would write everything twice
        written = write(state.record, uri, log_model_of(state.record.header))
    new = f"{written} of {len(state.record.told)} {state.record.header.noun}s were new"
    _say(f"{masked(uri)} has all of {state.folder.name} now: {new}")


@click.command()
@click.argument("search", required=False)
@plugins_option()
def repair(search: str | None) -> None:
    """Repair the damaged journal of a search.

    SEARCH is the folder of a search or its name under runs/. Default: the latest search.

    Undamaged lines are kept, and the old journal stays beside the new one. `nas resume` repeats lost trainings.
    """
    from nas.records import journal, searches

    folder = searches.named(search)
    kept, lost = journal.repair(folder)
    if not lost:
        _say(f"{folder.name}: all {kept} lines are whole, nothing was changed")
        return
    _say(f"{folder.name}: {kept} lines are kept and {lost} are not; the old journal is beside it")
    config = searches.State.of(folder).record.about.get("config", {})
    _say(searches.go_on(folder, config))


@click.command()
@click.argument("names", metavar="SEARCH...", nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Remove without a question.")
@click.option("--keep-mlflow", is_flag=True, help="Remove only the folders, and nothing from MLflow.")
@plugins_option()
def rm(names: tuple[str, ...], yes: bool, keep_mlflow: bool) -> None:
    """Remove searches: their folders, their runs in MLflow, and their versions of registered models.

    Each SEARCH is the folder of a search or a comparison, or its name under runs/.

    A running search is not removed, nor a folder that holds other files than those of a search.
    """
    from nas.records import comparisons, searches

    found = {name: comparisons.named(name) for name in names}
    compared = dict.fromkeys(folder for folder in found.values() if folder is not None)
    alone = [name for name, folder in found.items() if folder is None]
    for folder in compared:
        comparisons.removable(folder).release()
        _say(f"{shown(folder)}: a comparison, {_megabytes(searches.size(folder))}")
    states = [searches.State.of(folder) for folder in dict.fromkeys(map(searches.named, alone))]
    for state in states:
        searches.removable(state.folder).release()
        unknown = state.status in ("damaged", "unreadable") and not keep_mlflow
        stays = f"; what MLflow has of it stays, because {state.detail}" if unknown else ""
        _say(f"{shown(state.folder)}: {state.status}, {_megabytes(searches.size(state.folder))}{stays}")
    if not yes:
        also = "" if keep_mlflow else " and what MLflow has of it"
        one = len(states) + len(compared) == 1
        click.echo(f"Remove {'this' if one else 'all of this'}{also}? [y/N]", err=True)
        if (sys.stdin.readline() if sys.stdin else "").strip().lower() not in ("y", "yes"):
            raise NasError("nothing was removed; --yes removes without a question")
    for folder in compared:
        lock = comparisons.removable(folder)  # so that nobody resumes it meanwhile
        try:
            if not keep_mlflow:
                from nas.dashboard.comparisons import remove as remove_from_mlflow

                remove_from_mlflow(folder)
            for member in comparisons.members(folder):
                _remove(searches.State.of(member), keep_mlflow=keep_mlflow)
            comparisons.remove(folder, lock)
        finally:
            lock.release()
        _say(f"{folder.name} is removed")
    for state in states:
        _remove(state, keep_mlflow=keep_mlflow)


def _remove(state: State, *, keep_mlflow: bool) -> None:
    """Remove a search."""
    from nas.records import searches

    lock = searches.removable(state.folder)  # so that nobody resumes it meanwhile
    try:
        also = "" if keep_mlflow else _remove_from_mlflow(state)
        searches.remove(state.folder, lock)
    finally:
        lock.release()
    _say(f"{state.folder.name} is removed{also}")


def _remove_from_mlflow(state: State) -> str:
    """Remove a search from MLflow; what became of it there, as the end of a sentence."""
    chosen = state.record.about.get("config", {}).get("mlflow", "auto")
    if not state.record.id:
        return ""
    from nas.records import searches

    if copy := searches.copy_of(state.folder):
        return f"; {copy.name} is the same search, so what MLflow has of it stays"
    from nas.dashboard.removal import remove
    from nas.dashboard.store import sqlite_file, store_of

    uri = store_of(state.folder, "auto" if chosen == "off" else chosen)  # as `nas sync` does
    if chosen == "off" and not sqlite_file(uri):  # a server that it has probably never seen
        return ""
    runs, kept = remove(state.record.id, uri)
    if not runs and not kept and state.record.told and chosen != "off":
        return f"; nothing of it is in MLflow at {masked(uri)}"
    stay = f"; what you registered in MLflow stays, with its run: {', '.join(kept)}" if kept else ""
    return (f", with {runs:,} runs in MLflow" if runs else "") + stay


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def write_down(states: Iterable[State]) -> None:
    """Write down, once for each search, that its process was killed: MLflow would show it as running for ever."""
    for state in states:
        if state.is_killed:
            from nas.run.resumed import write_down as write

            try:
                write(state)
            except NasError as error:
                click.echo(
                    plain(f"nas: {state.folder.name} was killed, and MLflow may show it as running: {error}"),
                    err=True,
                )
                return  # the others belong to the same store, as a rule


def _say(text: str) -> None:
    """Print a text from a journal, which may be a stranger's, without control characters."""
    print_out(plain(text.encode(errors="replace").decode()))


def _best(state: State) -> list[Trial]:
    """The best trial of each network, the best one first."""
    from nas.objectives import scored
    from nas.report.leaders import leaders

    try:
        objectives = state.record.header.objectives
    except Exception:  # noqa: BLE001  # a header without objectives: no trial is the best
        return []
    trials = [scored(told.trial, objectives) for told in state.record.told]
    return leaders(trial for trial in trials if trial.failure is None)


def _plain(state: State) -> dict[str, Any]:
    from nas.records import searches
    from nas.records.outcome import GIVEN

    record = state.record
    config = record.about.get("config", {})
    best = _best(state)
    return {
        "search": str(state.folder),
        "state": state.status,
        "words": state.detail,
        "begun": record.sessions[0].at if record.sessions else None,
        "strategy": str(config.get("strategy", "train")).removeprefix(GIVEN),
        "dataset": record.about.get("dataset", {}).get("name"),
        "trials": len(record.told),
        "failed": sum(told.trial.failure is not None for told in record.told),
        "trainings": len(record.trials),
        "seconds": record.seconds,
        "bytes": searches.size(state.folder),
        "best_validation_accuracy": best[0].metrics.get("validation_accuracy") if best else None,
        **_winner(state, best),
        "test_accuracy": (record.outcome or {}).get("test_accuracy"),
        "process": record.sessions[-1].process if state.status == "running" and record.sessions else None,
    }


def _winner(state: State, best: Sequence[Trial]) -> dict[str, Any]:
    """Of the winner, or else of the best network so far: its validation accuracy, and its parameters."""
    from nas.errors import NasError

    try:
        outcome = state.record.result()
    except NasError:
        outcome = None
    if outcome is not None:
        return {"validation_accuracy": outcome.validation_accuracy, "parameters": outcome.parameters}
    metrics = best[0].metrics if best else {}
    return {name: metrics.get(name) for name in ("validation_accuracy", "parameters")}


def _summary(state: State, facts: Mapping[str, Any]) -> str:
    """The date, the task, the number of trials and the scores in one line."""
    config = state.record.about.get("config", {})
    is_search = "strategy" in config
    total = None if state.status == "finished" else config.get("trials" if is_search else "seeds")
    failed = f", {facts['failed']} failed" if facts["failed"] else ""
    counted = several(total or facts["trials"], "candidate" if is_search else "seed")
    parts = [
        _date(facts["begun"]) if facts["begun"] else "",
        f"{facts['strategy'] if is_search else config.get('network')} on {facts['dataset']}",
        f"{facts['trials']}/{counted}{failed}" if total else f"{counted}{failed}",
    ]
    scores = ("validation", facts["validation_accuracy"]), ("test", facts["test_accuracy"])
    parts += [f"{label} {100 * fraction:.2f} %" for label, fraction in scores if fraction is not None]
    parts.append("" if facts["parameters"] is None else f"{facts['parameters']:,.0f} parameters")
    return " · ".join(filter(None, parts))
