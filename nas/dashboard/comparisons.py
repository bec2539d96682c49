"""A comparison in MLflow: one run, in which the runs of its searches are nested."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.dashboard.removal import remove_run
from nas.dashboard.runs import flat, key
from nas.dashboard.store import (
    client_of,
    experiment_of,
    import_mlflow,
    probe,
    quiet,
    reason_of,
    sqlite_file,
    store_of,
    terminate,
)
from nas.errors import NasError, masked
from nas.files import read_small
from nas.records.comparisons import FILE, TOML
from nas.report.figures import DPI
from nas.toml import read_table

if TYPE_CHECKING:
    from mlflow import MlflowClient


def begin(uri: str, name: str, identity: str, settings: dict[str, Any]) -> str:
    """Make the run of a comparison, or find it; returns its id.

    Args:
        uri: the address of the store.
        name: of the comparison.
        identity: `State.id`.
        settings: of the comparison, which become parameters; their experiment is the run's.

    Raises:
        Exception: any exception of MLflow.
    """
    with _client(uri) as client:
        experiment = experiment_of(client, uri, settings)
        for run in client.search_runs([experiment], f"tags.`nas.comparison` = '{identity}'", max_results=1):
            client.update_run(run.info.run_id, "RUNNING")
            return str(run.info.run_id)
        tags = {"nas.comparison": identity, "mlflow.source.name": "nas", "strategy": "comparison"}
        run = client.create_run(experiment, int(time.time() * 1000), tags, name)
        from mlflow.entities import Param

        shown = {k: v for k, v in settings.items() if not k.startswith("mlflow")}
        params = [Param(key(k), str(v)[:6_000]) for k, v in list(flat(shown))[:100]]
        client.log_batch(run.info.run_id, params=params)
        return str(run.info.run_id)


def nest(uri: str, run_id: str, searches: Iterable[str]) -> None:
    """Put the runs of searches into that of their comparison; ``searches``: their ids.

    Raises:
        Exception: any exception of MLflow.
    """
    with _client(uri) as client:
        experiment = client.get_run(run_id).info.experiment_id
        for name in searches:
            of_it, first = f"tags.`nas.id` = '{name}'", ["attributes.start_time ASC"]  # its candidates come later
            for run in client.search_runs([experiment], of_it, max_results=1, order_by=first):
                if "nas.trial" not in run.data.tags and "mlflow.parentRunId" not in run.data.tags:
                    client.set_tag(run.info.run_id, "mlflow.parentRunId", run_id)


def stop(uri: str, run_id: str, *, killed: bool) -> None:
    """Close the run of a comparison that is not finished.

    Raises:
        Exception: any exception of MLflow.
    """
    with _client(uri) as client:
        terminate(client, run_id, "KILLED" if killed else "FAILED", time.time())


def end(
    uri: str,
    run_id: str,
    description: str,
    tables: Mapping[str, tuple[str, Sequence[str], Sequence[Sequence[str]]]],
    figures: Mapping[str, Any],
    page: str,
    scores: Iterable[tuple[str, float, int]],
) -> None:
    """Write the tables, the figures, the page and the description of a comparison; close its run.

    Args:
        uri: the address of the store.
        run_id: of the comparison.
        description: in Markdown.
        tables: title, columns and rows by the names of their files.
        figures: of matplotlib, by the names of their files.
        page: the report as HTML.
        scores: names, values and steps of metrics.

    Raises:
        Exception: any exception of MLflow.
    """
    with _client(uri) as client:
        client.set_tag(run_id, "mlflow.note.content", description)
        for name, (_, columns, rows) in tables.items():
            if rows:
                client.log_dict(run_id, {"columns": columns, "data": rows}, f"{name}.json")
        with tempfile.TemporaryDirectory() as folder:
            for name, figure in figures.items():
                figure.savefig(Path(folder, f"{name}.png"), dpi=DPI)
            client.log_artifacts(run_id, folder, "figures")
        client.log_text(run_id, page, "report.html")
        for name, value, step in scores:
            client.log_metric(run_id, key(name), value, step=step)
        terminate(client, run_id, "FINISHED", time.time())


def remove(folder: Path) -> None:
    """Remove the run of a comparison from its store, with its files, if it has one.

    Args:
        folder: of the comparison.

    Raises:
        NasError: the store does not answer.
    """
    run = json.loads((folder / FILE).read_bytes()).get("run")
    chosen = read_table(folder / TOML, read_small(folder / TOML)).get("mlflow", "auto")
    uri = store_of(folder, "auto" if chosen == "off" else chosen)  # as `nas sync` does
    file = sqlite_file(uri)
    if not run or (file and not file.exists()):
        return
    try:
        with _client(uri) as client:
            remove_run(client, client.get_run(run), uri)
    except Exception as error:
        advice = "--keep-mlflow removes the folder alone"
        raise NasError(f"MLflow cannot be changed at {masked(uri)} ({reason_of(error)}); {advice}") from error


@contextmanager
def _client(uri: str) -> Iterator[MlflowClient]:
    """A client of a store that answers, whose messages stay off the screen."""
    probe(uri)
    import_mlflow()
    with quiet():
        yield client_of(uri)
