"""A comparison and its store: the run in MLflow, in which its searches are nested, and what is written to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nas.comparison.figures import figures
from nas.comparison.page import description, page
from nas.comparison.result import Compared, State
from nas.comparison.settings import Comparison
from nas.comparison.tables import scores, tables
from nas.comparison.watcher import Watcher
from nas.dashboard.comparisons import begin, end, nest, stop
from nas.dashboard.store import reason_of, store_of
from nas.errors import NasError, masked
from nas.records import searches
from nas.records.comparisons import TOML, locked, members
from nas.records.record import place


def begin_run(folder: Path, state: State, uri: str, comparison: Comparison, watcher: Watcher) -> None:
    """Make the comparison's run in MLflow, in which the searches are nested."""
    try:
        state.run = begin(uri, folder.name, state.id, _settings(comparison))
    except Exception as error:  # noqa: BLE001  # any exception of MLflow: new searches are not nested then
        watcher.warned(f"MLflow cannot be written ({reason_of(error)}); the comparison goes on")
    state.write(folder)


def _settings(comparison: Comparison) -> dict[str, Any]:
    """What MLflow shows as the parameters of a comparison."""
    return {**comparison.shared, "strategies": ", ".join(comparison.entries), "seeds": comparison.seeds}


def _end_run(compared: Compared, uri: str) -> None:
    """Give MLflow the tables, the figures and the page of a finished comparison.

    Raises:
        Exception: any exception of MLflow.
    """
    run, drawn = compared.state.run, dict(figures(compared))
    end(uri, run, description(compared), tables(compared), drawn, page(compared), scores(compared))


def write_tables(compared: Compared, watcher: Watcher) -> None:
    """Give MLflow what it has to show of a finished comparison, or say how to do it later."""
    state = compared.state
    try:
        _end_run(compared, store_of(compared.folder, compared.comparison.first.mlflow))
    except Exception as error:  # noqa: BLE001  # any exception of MLflow
        again = f"nas sync {place(compared.folder)}"
        watcher.warned(f"MLflow does not have the tables ({reason_of(error)}); write them later with: {again}")
    else:
        state.written = True
        state.write(compared.folder)


def sync(folder: Path) -> str:
    """Write a comparison to MLflow, whose searches are there: its run, in which they are nested, and its tables.

    Returns:
        The address of the store.

    Raises:
        NasError: it is running, or the store cannot be written.
    """
    comparison = Comparison.read(folder / TOML, trusting=True)
    chosen = comparison.first.mlflow
    uri = store_of(folder, "auto" if chosen == "off" else chosen)
    with locked(folder):
        state = State.read(folder)
        try:
            state.run = begin(uri, folder.name, state.id, _settings(comparison))
            nest(uri, state.run, [searches.State.of(member).record.id for member in members(folder)])
            if state.result:
                _end_run(Compared(folder, comparison, state, state.result), uri)
            else:
                stop(uri, state.run, killed=True)
        except Exception as error:  # noqa: BLE001  # any exception of MLflow
            raise NasError(f"MLflow cannot be written at {masked(uri)}: {reason_of(error)}") from None
        state.written = bool(state.result)
        state.write(folder)
    return uri
