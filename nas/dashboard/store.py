"""The MLflow store: its address, a client, the experiment of a search, its data set.

Nothing here uses or changes what belongs to the whole process: MLflow's active run, experiment and stores, its
log, the environment. The program around a search may use MLflow itself.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import secrets
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from filelock import FileLock

from nas.errors import NasError, masked
from nas.files import file_system
from nas.records.outcome import Header, Outcome
from nas.records.record import RUNS
from nas.records.searches import comparison_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, Experiment

EXPERIMENTS = ("nas", "nas-searches")  # the second where somebody else has an experiment of the first name
OURS = "nas.experiment"  # the tag of an experiment that this program made
# What `nas ui` opens: a shared view of MLflow's, with the columns that tell searches and candidates apart.
VIEW = "nas"
COLUMNS = ("metrics.`winner/test_accuracy`", "tags.`dataset`", "tags.`parameters`", "tags.`epochs`")
NAME = "attributes.`Run Name`"
WIDTH = 330  # pixels, for "99.30 % · 34.8k · trial-and-error · 17:18"; MLflow's own 190 show half of it
VIEW_STATE = {"selectedColumns": COLUMNS, "columnOrder": [NAME], "columnWidths": {NAME: WIDTH}}
VIEW_TAG = {f"mlflow.sharedViewState.{VIEW}": json.dumps(VIEW_STATE)}
LogModel = Callable[[Outcome, str, str], None]  # outcome, tracking URI, run id
IMPORTING = Lock()  # threads that import parts of MLflow in different orders get halves of them
OPENING = Lock()  # Alembic, which makes and checks the tables, serves one thread of a process at a time
PROBE = 1.0  # seconds in which a store has to accept a connection; a server gets five times as long to answer
LAST_PROBE = 0.3  # the same at the end for a store that has already failed: the user is waiting
SERVERS = ("http:", "https:")
DATABASES = ("postgresql", "mysql", "mssql")
WITH_TIMEOUT = r"(postgresql(\+psycopg\w*)?|mysql(\+pymysql|\+mysqldb)?)://"  # others have another word for it
NETWORKS = ("nfs", "cifs", "smb", "afs", "ceph", "glusterfs", "lustre", "fuse.sshfs")  # kinds of file systems
LOGIN = "it asks for a user and a password: set MLFLOW_TRACKING_URI to the address with both"


def store_uri(folder: Path) -> str:
    """The store of the searches in ``folder``: MLFLOW_TRACKING_URI if it is set, otherwise its ``mlflow.db``."""
    path = (folder.absolute() / "mlflow.db").as_posix().replace("%", "%25").replace("?", "%3F")
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{path}"


def store_of(folder: Path, chosen: str = "auto") -> str:
    """The address of the MLflow store of a search.

    Args:
        folder: of the search.
        chosen: an address, or ``auto`` for the store beside the folder ``runs`` of the search; for a search that
            lies elsewhere, the store of the current folder. The credentials of an address that comes from a record
            are masked: they are taken from MLFLOW_TRACKING_URI, or left to MLflow and the database, which have
            variables and files for them.
    """
    if chosen == "auto":
        folder = comparison_of(folder) or folder
        return store_uri(folder.parent.parent if folder.parent.name == RUNS.name else Path())
    if chosen == masked(own := os.environ.get("MLFLOW_TRACKING_URI", "")):
        return own
    bare = chosen.replace("://***@", "://").replace(":***@", "@")
    return re.sub(r"(?<=[?&])\w+=\*\*\*(?:&|$)", "", bare)


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

    MLflow itself would try again and again: for 20 s and more with a server, for 102 s with a file or a database.

    Raises:
        Exception: the store does not answer, or cannot be written.
    """
    if file := sqlite_file(uri):
        if file.exists():
            with closing(sqlite3.connect(file, timeout=seconds)) as connection:
                connection.execute("BEGIN IMMEDIATE")
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
    elif uri.startswith(SERVERS):
        _probe_server(uri, seconds)
    elif uri.startswith(DATABASES):
        from sqlalchemy import NullPool, create_engine

        try:
            patience = {"connect_timeout": math.ceil(seconds)} if re.match(WITH_TIMEOUT, uri) else {}
            create_engine(uri, poolclass=NullPool, connect_args=patience).connect().close()
        except Exception as error:
            if "password" in str(error):
                raise NasError(LOGIN) from None
            raise


def _probe_server(uri: str, seconds: float) -> None:
    """Ask a server for an experiment, as MLflow would: with its credentials, its certificates and its proxies."""
    import_mlflow()
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    ask: Callable[..., Any] = http_request
    try:
        with quiet():
            answer = ask(
                get_default_host_creds(uri),  # type: ignore[no-untyped-call]
                "/api/2.0/mlflow/experiments/search",
                "GET",
                max_retries=0,
                timeout=(seconds, 5 * seconds),
                raise_on_status=False,
                params={"max_results": 1},
            )
    except Exception as error:  # noqa: BLE001  # whatever requests, urllib3 and ssl raise
        text = str(error)
        if "CERTIFICATE_VERIFY_FAILED" in text:
            advice = "name the certificate's file in MLFLOW_TRACKING_SERVER_CERT_PATH"
            raise NasError(f"its certificate is not trusted: {advice}") from None
        reason = re.search(r"\[Errno -?[0-9]+\] ([^'\")]+)", text)  # of the system, within what four packages add
        raise NasError(reason[1] if reason else text) from None
    if answer.status_code in (401, 403):
        raise NasError(f"{LOGIN}, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD")
    if answer.status_code >= 500:
        raise NasError(f"the server answers {answer.status_code} {answer.reason}")


def import_mlflow() -> None:
    """Import MLflow without its telemetry, which a variable turns off when MLflow is imported."""
    name = "MLFLOW_DISABLE_TELEMETRY"
    with IMPORTING:
        is_free = "mlflow" not in sys.modules and name not in os.environ
        if is_free:
            os.environ[name] = "true"
        try:
            import mlflow  # noqa: F401
        finally:
            if is_free:
                os.environ.pop(name, None)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep MLflow from logging in this thread: it logs a traceback of every exception, and every retry."""
    from mlflow.utils.logging_utils import SuppressLogFilter, suppress_logs_in_thread

    retries, silence = logging.getLogger("urllib3.connectionpool"), SuppressLogFilter()
    retries.addFilter(silence)  # which is silent in this thread only
    try:
        with suppress_logs_in_thread():
            yield
    finally:
        retries.removeFilter(silence)


def client_of(tracking_uri: str) -> MlflowClient:
    """A client; makes the store if it is a file that does not exist."""
    import_mlflow()
    from mlflow import MlflowClient

    with OPENING:
        if file := sqlite_file(tracking_uri):
            _make_database(file, artifacts_of(tracking_uri))
        return MlflowClient(tracking_uri, tracking_uri)


def _make_database(file: Path, artifacts: Path) -> None:
    """Make an empty store unless there is one, completely or not at all.

    MLflow makes a store in some sixty steps without a lock: two searches that begin together (measured: three of
    three failed) or a kill in between would leave a file that MLflow cannot open again. Some file systems have no
    hard links, so a lock keeps a store from being replaced.
    """
    if file.exists():
        return
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    draft, lock = file.with_name(f".{file.name}.{secrets.token_hex(4)}"), file.with_name(f".{file.name}.lock")
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, quiet():
            # Without a folder for artifacts it takes the current one, and a ' in its name ends up in the SQL.
            SqlAlchemyStore(f"sqlite:///{folder}/mlflow.db", artifacts.as_uri())  # type: ignore[no-untyped-call]
            with closing(sqlite3.connect(Path(folder, "mlflow.db"))) as made:
                # Readers do not wait for writers. All processes must be on one machine.
                made.execute(f"PRAGMA journal_mode={'DELETE' if network_warning(f'sqlite:///{file}') else 'WAL'}")
            shutil.copyfile(Path(folder, "mlflow.db"), draft)
        with FileLock(lock):
            if not file.exists():  # otherwise another search was faster
                draft.replace(file)
        with suppress(OSError):  # on Windows, another search may have it open
            lock.unlink()  # nobody needs it any more
    finally:
        draft.unlink(missing_ok=True)


def reason_of(error: Exception) -> str:
    """The first line of an exception of MLflow, without the credentials that are in the address of a request."""
    return masked((str(error).strip() or type(error).__name__).splitlines()[0])[:200]


def network_warning(uri: str) -> str:
    """What is wrong with an SQLite store on a network file system; empty for any other store."""
    file = sqlite_file(uri)
    kind = file_system(file) if file else ""
    if not kind.startswith(NETWORKS):
        return ""
    return (
        f"{file} is on a network file system ({kind}), where SQLite may block or lose data: give --mlflow "
        "sqlite:////FOLDER/mlflow.db with a FOLDER on a local disk"
    )


def terminate(client: MlflowClient, run_id: str, status: str, at: float) -> None:
    """Close a run, as ``client.set_terminated`` does, which prints a link to standard output."""
    from mlflow.entities import RunStatus

    store = client._tracking_client.store
    store.update_run_info(run_id, RunStatus.from_string(status), int(at * 1000), None)


def log_files(client: MlflowClient, run_id: str, place: str, folder: str) -> None:
    """Log a folder of files to a run whose artifacts are at ``place``, for which MLflow would ask the store."""
    if place.startswith("file:"):
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        get_artifact_repository(place).log_artifacts(folder)  # type: ignore[no-untyped-call]
    else:
        client.log_artifacts(run_id, folder)


def experiment_of(client: MlflowClient, tracking_uri: str, config: Mapping[str, Any]) -> str:
    """The id of the experiment that a configuration names, or of ours; makes it if it does not exist."""
    if parent := config.get("mlflow_parent"):
        return str(client.get_run(parent).info.experiment_id)
    chosen = config.get("mlflow_experiment")
    for name in (chosen,) if chosen else EXPERIMENTS:
        found = client.get_experiment_by_name(name) or _make_experiment(client, tracking_uri, name)
        if not chosen and OURS not in found.tags:  # of somebody who has chosen the same name
            continue
        if found.lifecycle_stage != "active":
            command = f"mlflow experiments restore --experiment-id {found.experiment_id}"
            raise NasError(f"its experiment {name!r} was deleted: restore it with `{command}`")
        for tag, view in VIEW_TAG.items() if OURS in found.tags else ():
            if found.tags.get(tag) != view:  # made by another version
                client.set_experiment_tag(found.experiment_id, tag, view)
        return str(found.experiment_id)
    others = " and ".join(EXPERIMENTS)
    raise NasError(f"its experiments {others} are of another program: name one with --mlflow-experiment")


def _make_experiment(client: MlflowClient, tracking_uri: str, name: str) -> Experiment:
    from mlflow.exceptions import MlflowException

    # A server knows its folder for artifacts.
    is_served = tracking_uri.startswith((*SERVERS, "databricks"))
    try:
        # The kind decides which pages the dashboard offers; the default pages are those for language models.
        tags = {"mlflow.experimentKind": "custom_model_development", OURS: "true", **VIEW_TAG}
        place = None if is_served else artifacts_of(tracking_uri).as_uri()
        return client.get_experiment(client.create_experiment(name, place, tags))
    except MlflowException:
        known = client.get_experiment_by_name(name)  # another process was faster
        if known is None:
            raise
        return known


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
