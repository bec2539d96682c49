"""The MLflow store: its address, its settings, a client, the experiment of all searches, their data sets."""

from __future__ import annotations

import json
import logging
import os
import secrets
import shutil
import sqlite3
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING
from urllib.parse import unquote

from nas.errors import NasError
from nas.records.outcome import Header, Outcome
from nas.records.record import RUNS

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput

EXPERIMENT = "nas"
LogModel = Callable[[Outcome, str, str], None]  # outcome, tracking URI, run id
OPENING = Lock()  # Alembic, which makes and checks the tables, serves one thread of a process at a time
PROBE = 1.0  # seconds in which a store has to answer
LAST_PROBE = 0.3  # the same at the end for a store that has already failed: the user is waiting

# Environment variables that MLflow reads at import. With its defaults a dead server delays every call by 246 s.
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # standard output is for --json
    "MLFLOW_DISABLE_AGENT_HINT": "true",
}


def store_uri(folder: Path) -> str:
    """The store of the searches in ``folder``: MLFLOW_TRACKING_URI if it is set, otherwise its ``mlflow.db``."""
    path = (folder.absolute() / "mlflow.db").as_posix().replace("%", "%25").replace("?", "%3F")
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{path}"


def store_of(folder: Path, chosen: str = "auto") -> str:
    """The address of the MLflow store of a search.

    Args:
        folder: of the search.
        chosen: an address, or ``auto`` for the store beside the folder ``runs`` of the search; for a search that
            lies elsewhere, the store of the current folder.
    """
    if chosen != "auto":
        return chosen
    return store_uri(folder.parent.parent if folder.parent.name == RUNS.name else Path())


def sqlite_file(uri: str) -> Path | None:
    """The file of an SQLite store; None for any other store."""
    path = unquote(uri.removeprefix("sqlite:///").partition("?")[0])
    return Path(path) if uri.startswith("sqlite:///") and path else None


def artifacts_of(uri: str) -> Path:
    """The folder for the artifacts of a store that does not choose one itself."""
    file = sqlite_file(uri)
    return (file.absolute().parent if file else Path.cwd()) / "mlartifacts"


def probe(uri: str, seconds: float = PROBE) -> None:
    """Return at once if a store answers and can be written.

    MLflow itself would try again and again: for 20 s and more with a server, for 102 s with a file.

    Raises:
        Exception: the store does not answer, or cannot be written.
    """
    if file := sqlite_file(uri):
        if file.exists():
            with closing(sqlite3.connect(file, timeout=seconds)) as connection:
                _make_wal(connection, time.monotonic() + seconds)
                connection.execute("BEGIN IMMEDIATE")
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
    elif uri.startswith(("http:", "https:")):
        try:
            urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=seconds).close()  # noqa: S310
        except urllib.error.HTTPError as error:  # a server answers
            error.close()


def _make_wal(connection: sqlite3.Connection, until: float) -> None:
    """Let readers of the database not wait for writers (WAL); SQLite itself does not wait for this change."""
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= until:
                raise
            time.sleep(0.01)
        else:
            return


def client_of(tracking_uri: str) -> MlflowClient:
    """A client; makes the store if it is a file that does not exist."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # it logs every retry
    with OPENING:
        if (file := sqlite_file(tracking_uri)) and not file.exists():
            _make_database(file, artifacts_of(tracking_uri))
            probe(tracking_uri)
        from mlflow import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.CRITICAL)  # it logs a traceback of every exception
        return MlflowClient(tracking_uri)


def _make_database(file: Path, artifacts: Path) -> None:
    """Make an empty store, completely or not at all.

    MLflow makes a store in some sixty steps without a lock: two searches that begin together (measured: three of
    three failed) or a kill in between would leave a file that MLflow cannot open again.
    """
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    logging.getLogger("mlflow").setLevel(logging.CRITICAL)
    draft = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            # Without a folder for artifacts it takes the current one, and a ' in its name ends up in the SQL.
            SqlAlchemyStore(f"sqlite:///{folder}/mlflow.db", artifacts.as_uri())  # type: ignore[no-untyped-call]
            shutil.copyfile(Path(folder, "mlflow.db"), draft)
        with suppress(FileExistsError):  # another search was faster
            os.link(draft, file)
    finally:
        draft.unlink(missing_ok=True)


def experiment_of(client: MlflowClient, tracking_uri: str) -> str:
    """The id of the experiment; makes it if it does not exist."""
    from mlflow.exceptions import MlflowException

    known = client.get_experiment_by_name(EXPERIMENT)
    if known is None:
        # A server knows its folder for artifacts.
        is_served = tracking_uri.startswith(("http:", "https:", "databricks"))
        try:
            # The kind decides which pages the dashboard offers; the default pages are those for language models.
            tags = {"mlflow.experimentKind": "custom_model_development"}
            place = None if is_served else artifacts_of(tracking_uri).as_uri()
            return str(client.create_experiment(EXPERIMENT, place, tags))
        except MlflowException:
            known = client.get_experiment_by_name(EXPERIMENT)  # another process was faster
            if known is None:
                raise
    if known.lifecycle_stage != "active":
        command = f"mlflow experiments restore --experiment-id {known.experiment_id}"
        raise NasError(f"its experiment {EXPERIMENT!r} was deleted: restore it with `{command}`")
    return str(known.experiment_id)


def dataset_of(header: Header) -> DatasetInput:
    """The data set of a search for MLflow, with its shapes, its sizes and its fingerprint."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    def tensor(kind: str, *shape: int) -> str:
        return json.dumps([{"type": "tensor", "tensor-spec": {"dtype": kind, "shape": [-1, *shape]}}])

    name = str(header.dataset["name"])
    digest = str(header.dataset["fingerprint"])[:36]  # MLflow takes at most 36 characters
    tensors = {"features": tensor("uint8", *header.limits.input_shape), "targets": tensor("int64")}
    schema = json.dumps({"mlflow_tensorspec": tensors})
    profile = json.dumps({**header.dataset, "classes": header.limits.classes}, default=str)
    data = Dataset(name, digest, "local", json.dumps({"uri": name}), schema, profile)
    return DatasetInput(data, [InputTag("mlflow.data.context", "training")])
