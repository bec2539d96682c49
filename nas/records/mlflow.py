"""MLflow as a view of a search: one run for the search, and in it one nested run for every candidate.

A projection of what an observer is told; the journal is the truth. MLflow is imported and called by one thread of
its own, so that neither its import (5 s) nor its writes (0.05 s a trial) nor its death costs a trial.
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
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from nas.errors import NasError
from nas.front import hypervolume
from nas.records.figures import pareto_front
from nas.records.observer import Header, Observer, Outcome, deviation
from nas.records.texts import layers, leaderboard, pretty, run_name, story
from nas.trial import Trial

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput

EXPERIMENT = "nas"
METRICS, PARAMS = 900, 100  # so many MLflow takes in one call: 1,000 of everything, and 100 parameters
PATIENCE = 120.0  # seconds without a call that returns, after which `close` gives up

LogModel = Callable[[Outcome, str, str], None]  # outcome, tracking URI, run id
Points = dict[tuple[str, int], tuple[float, float]]  # (metric, step) → value, and when, in seconds since 1970

# MLflow reads them when it is imported. With its own defaults a dead server holds up every call for 246 s.
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
    """The store of the searches in ``folder``: MLFLOW_TRACKING_URI if it is set, else ``mlflow.db`` in there."""
    path = (folder.absolute() / "mlflow.db").as_posix().replace("%", "%25").replace("?", "%3F")
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{path}"


def sqlite_file(uri: str) -> Path | None:
    """The file of an SQLite store; None for any other store."""
    path = unquote(uri.removeprefix("sqlite:///").partition("?")[0])
    return Path(path) if uri.startswith("sqlite:///") and path else None


class MlflowView(Observer):
    """Shows a search in MLflow. Its methods return at once; `close` waits until everything is written.

    Args:
        warn: is given one line, once, if MLflow cannot be written; called from another thread.
        tracking_uri: the store; by default that of ``folder`` (see `store_uri`).
        folder: holds ``mlflow.db`` and ``mlartifacts``; by default the current one.
        log_model: logs the winner as a model, given the outcome, the store and the run.
    """

    def __init__(
        self,
        warn: Callable[[str], None],
        tracking_uri: str | None = None,
        folder: Path | None = None,
        log_model: LogModel | None = None,
    ) -> None:
        self._folder = (folder or Path.cwd()).absolute()
        self.tracking_uri = tracking_uri or store_uri(self._folder)
        self.run_id: str | None = None  # the search's run: known after `close`, None if it could not be written
        self._warn = warn
        self._log_model = log_model
        self._calls: SimpleQueue[Callable[[_Writer], None] | None] = SimpleQueue()
        self._done = 0
        self._thread: Thread | None = None

    def started(self, header: Header) -> None:
        """Remember when the search began; its run is created with its first trial."""
        self._thread = Thread(target=self._write, args=(header, time.time()), name="mlflow", daemon=True)

    def told(self, trial: Trial) -> None:
        """Create a nested run."""
        now = time.time()
        self._put(lambda writer: writer.told(trial, now))

    def finished(self, outcome: Outcome) -> None:
        """Show the winner; the search's run has ended well."""
        self._put(lambda writer: writer.finished(outcome, self._log_model))

    def failed(self, message: str) -> None:
        """The search's run has failed."""
        self._put(lambda writer: writer.failed(message))

    def close(self) -> None:
        """Wait until everything is written, for as long as the store takes something now and then."""
        self._put(lambda writer: writer.close())
        self._put(None)
        while self._thread and self._thread.is_alive():
            done = self._done
            self._thread.join(PATIENCE)
            if self._thread.is_alive() and self._done == done:
                self._warn(f"MLflow has not answered for {PATIENCE:g} s; what it lacks is in the journal")
                return

    def _put(self, call: Callable[[_Writer], None] | None) -> None:
        if self._thread is None:
            return
        # The thread begins with the first trial: importing MLflow beside the workers' start delays that by 5 s.
        if self._thread.ident is None:
            self._thread.start()
        if self._thread.is_alive():
            self._calls.put(call)

    def _write(self, header: Header, now: float) -> None:
        try:
            writer = _Writer(self.tracking_uri, self._folder, header, now)
            self.run_id = writer.run_id
            while call := self._calls.get():
                call(writer)
                self._done += 1
        except Exception as error:  # noqa: BLE001  # whatever MLflow raises, the search goes on
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            self._warn(f"MLflow cannot be written ({reason}); the search goes on, the journal has everything")


class _Writer:
    """Makes the calls, in the view's thread."""

    def __init__(self, tracking_uri: str, folder: Path, header: Header, now: float) -> None:
        self._header = header
        self._uri = tracking_uri
        self._client = _client(tracking_uri)
        self._experiment = _experiment(self._client, tracking_uri, folder)
        self._told = self._failed = 0
        self._best: dict[str, float] = {}
        self._trials: dict[str, Trial] = {}  # those that did not fail, by the key of their job
        self._ended = False
        tags = {
            "nas.note": header.note,
            "space": header.config.get("space", ""),
            "dataset": header.dataset["name"],
            "dataset_fingerprint": header.dataset["fingerprint"],
        }
        self.run_id = self._create(header.name, now, tags)
        self._client.log_inputs(self.run_id, [_dataset(header)])
        self._log(self.run_id, params=dict(_flat(header.config)))

    def told(self, trial: Trial, now: float) -> None:
        self._told += 1
        start = now - trial.metrics.get("train_seconds", 0.0)
        candidate = trial.job.candidate
        tags = {
            "mlflow.parentRunId": self.run_id,
            "architecture_id": trial.id,
            "origin": candidate.origin,
            "parents": ",".join(candidate.parents),
            "epochs": f"{trial.job.epochs:g}",
            "failure": trial.failure.kind if trial.failure else "",
            "failure_message": trial.failure.message if trial.failure else "",
        }
        run_id = self._create(run_name(self._header.kind, self._told, trial), start, tags)
        self._log(run_id, params=candidate.choices, points=_curve(trial, start))
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "architecture.json").write_text(pretty(candidate.architecture), encoding="utf-8")
            table = layers(candidate.architecture, self._header.limits)
            Path(folder, "layers.txt").write_text(table, encoding="utf-8")
            self._client.log_artifacts(run_id, folder)
        self._client.set_terminated(run_id, "FAILED" if trial.failure else "FINISHED", int(now * 1000))
        self._progress(trial, now)

    def finished(self, outcome: Outcome, log_model: LogModel | None) -> None:
        spread = deviation([trial.metrics["validation_accuracy"] for trial in outcome.retrained])
        scores = {
            "winner_validation_accuracy_search": outcome.winner.metrics["validation_accuracy"],
            "winner_validation_accuracy_retrained": outcome.validation_accuracy,
            "winner_validation_accuracy_retrained_sd": spread,
            "winner_parameters": outcome.parameters,
            "test_accuracy": outcome.test_accuracy,
            "test_loss": outcome.test_loss,
            "selection_bias": outcome.selection_bias,
        }
        tags = {"winner": outcome.winner.id, "mlflow.note.content": story(outcome, spread)}
        now = time.time()
        points = {(name, self._told): (value, now) for name, value in scores.items()}
        self._log(self.run_id, points=points, tags=tags)
        self._client.log_table(self.run_id, leaderboard(self._trials.values()), "leaderboard.json")
        self._client.log_text(self.run_id, pretty(outcome.architecture), "best/architecture.json")
        if outcome.weights.parent.is_dir():
            self._client.log_artifacts(self.run_id, str(outcome.weights.parent), "best")
        try:
            if log_model is not None:
                log_model(outcome, self._uri, self.run_id)
            if len(self._header.objectives) > 1:
                self._log_front(outcome.front)
        finally:  # a search without a logged model has not failed
            self._end("FINISHED")

    def failed(self, message: str) -> None:
        self._log(self.run_id, tags={"failure": message})
        self._end("FAILED")

    def close(self) -> None:
        if not self._ended:  # no winner and no failure: it was interrupted
            self._end("KILLED")

    def _log_front(self, front: Sequence[Trial]) -> None:
        """The Pareto front, as a table and as a figure."""
        metrics = [objective.metric for objective in self._header.objectives]
        columns = {metric: [trial.metrics[metric] for trial in front] for metric in metrics}
        table = {"id": [trial.id for trial in front], **columns}
        self._client.log_table(self.run_id, table, "pareto_front.json")
        with tempfile.TemporaryDirectory() as folder:
            picture = Path(folder, "pareto_front.png")
            pareto_front(picture, self._header, self._trials.values(), front)
            self._client.log_artifact(self.run_id, str(picture))

    def _create(self, name: str, start: float, tags: Mapping[str, Any]) -> str:
        common = {"nas.search": self._header.name, "strategy": self._header.kind, "mlflow.source.name": "nas"}
        given = {key: str(value) for key, value in {**common, **tags}.items() if value != ""}
        return str(self._client.create_run(self._experiment, int(start * 1000), given, name).info.run_id)

    def _log(
        self,
        run_id: str,
        *,
        params: Mapping[str, Any] | None = None,
        points: Points | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        from mlflow.entities import Metric, Param, RunTag

        finite = {key: point for key, point in (points or {}).items() if math.isfinite(point[0])}
        values = {_key(name): str(value)[:6000] for name, value in (params or {}).items()}
        metrics = [Metric(_key(name), value, int(at * 1000), step) for (name, step), (value, at) in finite.items()]
        given = [Param(name, value) for name, value in values.items()]
        first, rest = (metrics[:METRICS], given[:PARAMS]), (metrics[METRICS:], given[PARAMS:])
        self._client.log_batch(run_id, *first, [RunTag(name, value) for name, value in (tags or {}).items()])
        for start in range(0, len(rest[0]), METRICS):
            self._client.log_batch(run_id, rest[0][start : start + METRICS])
        for start in range(0, len(rest[1]), PARAMS):
            self._client.log_batch(run_id, params=rest[1][start : start + PARAMS])

    def _progress(self, trial: Trial, now: float) -> None:
        """The search's own curves, over the trials told so far."""
        self._failed += trial.failure is not None
        if trial.failure is None:
            self._trials[trial.job.key] = trial
            first = self._header.objectives[0]
            for metric, sign in {
                "validation_accuracy": 1,
                "validation_loss": -1,
                first.metric: first.sign,
            }.items():
                value = trial.metrics.get(metric, math.nan)
                if math.isfinite(value) and sign * value >= sign * self._best.get(metric, value):
                    self._best[metric] = value
        curves = {"failed_trials": self._failed, **{f"best_{name}": best for name, best in self._best.items()}}
        if len(self._header.objectives) > 1:
            curves["hypervolume"] = hypervolume(
                self._trials.values(), self._header.objectives, self._header.limits
            )
        self._log(self.run_id, points={(name, self._told): (value, now) for name, value in curves.items()})

    def _end(self, status: str) -> None:
        configuration = self._header.folder / "search.toml"
        if configuration.is_file():
            self._client.log_artifact(self.run_id, str(configuration))
        self._client.set_terminated(self.run_id, status)
        self._ended = True


def _client(tracking_uri: str) -> MlflowClient:
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # it tells of every retry
    if file := sqlite_file(tracking_uri):
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            _make_database(file)
        # What is no database or cannot be written fails here at once; MLflow tries again and again for 102 s.
        with closing(sqlite3.connect(file, timeout=20)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")  # persists; whoever reads waits for nobody who writes
            connection.execute("BEGIN IMMEDIATE")
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri)


def _make_database(file: Path) -> None:
    """Make an empty store, whole or not at all.

    MLflow makes one in some sixty steps without a lock: two searches that began together (measured: three of three
    failed) or a kill in between would leave a file that no MLflow can open again.
    """
    from mlflow import MlflowClient

    draft = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            MlflowClient(f"sqlite:///{folder}/mlflow.db")
            shutil.copyfile(Path(folder, "mlflow.db"), draft)
        with suppress(FileExistsError):  # another search was faster
            os.link(draft, file)
    finally:
        draft.unlink(missing_ok=True)


def _experiment(client: MlflowClient, tracking_uri: str, folder: Path) -> str:
    """The id of the experiment; makes it if it is not there."""
    from mlflow.exceptions import MlflowException

    known = client.get_experiment_by_name(EXPERIMENT)
    if known is None:
        served = tracking_uri.startswith(("http:", "https:", "databricks"))  # the server says where artifacts go
        try:
            return str(client.create_experiment(EXPERIMENT, None if served else (folder / "mlartifacts").as_uri()))
        except MlflowException:
            known = client.get_experiment_by_name(EXPERIMENT)  # another process was faster
            if known is None:
                raise
    if known.lifecycle_stage != "active":
        command = f"mlflow experiments restore --experiment-id {known.experiment_id}"
        raise NasError(f"its experiment {EXPERIMENT!r} was deleted: bring it back with `{command}`")
    return str(known.experiment_id)


def _dataset(header: Header) -> DatasetInput:
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


def _curve(trial: Trial, start: float) -> Points:
    """The trial's curve by epoch, and its metrics at the end.

    MLflow's steps are whole: epoch 0.25 is step 1, and of several points in one step the last one is shown.
    """
    points: Points = {}
    for point in trial.curve:
        for name in point.keys() - {"epoch", "seconds"}:
            points[name, math.ceil(point["epoch"])] = point[name], start + point.get("seconds", 0.0)
    end = start + trial.metrics.get("train_seconds", 0.0)
    last = math.ceil(trial.job.epochs)
    return points | {(name, last): (value, end) for name, value in trial.metrics.items()}


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, ", ".join(map(str, value)) if isinstance(value, list | tuple) else value


def _key(name: str) -> str:
    """The name as MLflow takes it: letters, digits and ``_-. :/``, and no path that climbs."""
    parts = (re.sub(r"[^\w\-. :]", "_", part).strip(".") for part in name.split("/"))
    return "/".join(part for part in parts if part)[:250] or "_"
