"""The MLflow store: a client for it, the experiment that holds all searches, a data set as MLflow describes it."""

from __future__ import annotations

import json
import logging
import os
import secrets
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from nas.errors import NasError
from nas.records.observer import Header
from nas.records.view import SETTINGS, probe, sqlite_file

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput

EXPERIMENT = "nas"
OPENING = Lock()  # Alembic, which makes and checks the tables, serves one thread of a process at a time


def client_of(tracking_uri: str, artifacts: Path) -> MlflowClient:
    """A client; makes the store if it is a file that is not there."""
    with OPENING:
        return _client(tracking_uri, artifacts)


def _client(tracking_uri: str, artifacts: Path) -> MlflowClient:
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # it tells of every retry
    if (file := sqlite_file(tracking_uri)) and not file.exists():
        _make_database(file, artifacts)
        probe(tracking_uri)
    from mlflow import MlflowClient

    logging.getLogger("mlflow").setLevel(logging.CRITICAL)  # it shows a traceback of what it raises
    return MlflowClient(tracking_uri)


def _make_database(file: Path, artifacts: Path) -> None:
    """Make an empty store, whole or not at all.

    MLflow makes one in some sixty steps without a lock: two searches that began together (measured: three of three
    failed) or a kill in between would leave a file that no MLflow can open again.
    """
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    logging.getLogger("mlflow").setLevel(logging.CRITICAL)
    draft = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            # Without a folder for artifacts it takes the current one, of which a ' ends up in its SQL.
            SqlAlchemyStore(f"sqlite:///{folder}/mlflow.db", artifacts.as_uri())  # type: ignore[no-untyped-call]
            shutil.copyfile(Path(folder, "mlflow.db"), draft)
        with suppress(FileExistsError):  # another search was faster
            os.link(draft, file)
    finally:
        draft.unlink(missing_ok=True)


def experiment_of(client: MlflowClient, tracking_uri: str, artifacts: Path) -> str:
    """The id of the experiment; makes it if it is not there."""
    from mlflow.exceptions import MlflowException

    known = client.get_experiment_by_name(EXPERIMENT)
    if known is None:
        served = tracking_uri.startswith(("http:", "https:", "databricks"))  # the server says where artifacts go
        try:
            # Of what kind it is decides which pages the dashboard offers; its guess are those for language models.
            tags = {"mlflow.experimentKind": "custom_model_development"}
            return str(client.create_experiment(EXPERIMENT, None if served else artifacts.as_uri(), tags))
        except MlflowException:
            known = client.get_experiment_by_name(EXPERIMENT)  # another process was faster
            if known is None:
                raise
    if known.lifecycle_stage != "active":
        command = f"mlflow experiments restore --experiment-id {known.experiment_id}"
        raise NasError(f"its experiment {EXPERIMENT!r} was deleted: bring it back with `{command}`")
    return str(known.experiment_id)


def dataset_of(header: Header) -> DatasetInput:
    """The data set of a search, with its shapes, its sizes and its fingerprint."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    name = str(header.dataset["name"])

    def tensor(kind: str, *shape: int) -> str:
        return json.dumps([{"type": "tensor", "tensor-spec": {"dtype": kind, "shape": [-1, *shape]}}])

    schema = {"features": tensor("uint8", *header.limits.input_shape), "targets": tensor("int64")}
    data = Dataset(
        name=name,
        digest=str(header.dataset["fingerprint"])[:36],  # MLflow takes no more
        source_type="local",
        source=json.dumps({"uri": name}),
        schema=json.dumps({"mlflow_tensorspec": schema}),
        profile=json.dumps({**header.dataset, "classes": header.limits.classes}, default=str),
    )
    return DatasetInput(data, [InputTag("mlflow.data.context", "training")])
