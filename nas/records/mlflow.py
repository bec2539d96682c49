"""MLflow as a view of a search: one run for the search, and in it one nested run for every candidate.

A projection of what the observer is told: the journal is the truth. MLflow is imported and called by one thread
of its own, so that neither its import (5 s) nor its writes (0.05 s a trial) nor its death costs a trial.
"""

from __future__ import annotations

import json
import math
import os
import re
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from nas.architecture.architecture import Architecture, Limits
from nas.architecture.layers import show
from nas.errors import ArchitectureError, NasError
from nas.records.observer import Header, Observer, Outcome, deviation
from nas.trial import Trial

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "nas"
LEADERS = 50  # rows of the leaderboard
PATIENCE = 60.0  # seconds without a call that returns, after which `close` waits no longer

# What MLflow reads while it is imported. Without the limits on requests a dead server holds up each call 246 s.
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
    """The store of the searches in ``folder``: ``MLFLOW_TRACKING_URI`` where it is set, else ``mlflow.db`` in it."""
    path = (folder / "mlflow.db").absolute().as_posix().replace("%", "%25").replace("?", "%3F")
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{path}"


def sqlite_file(uri: str) -> Path | None:
    """The file of an SQLite store; None for any other store."""
    path = uri.removeprefix("sqlite:///").partition("?")[0]
    return Path(unquote(path)) if uri.startswith("sqlite:///") and path else None


class MlflowView(Observer):
    """Shows a search in MLflow. Its methods return at once; `close` waits until all is written.

    Args:
        warn: is given one line, once, when MLflow cannot be written; it is called by another thread.
        tracking_uri: the store; by default that of ``folder``, see `store_uri`.
        folder: where ``mlflow.db`` and ``mlartifacts`` are; by default the current folder.
    """

    def __init__(
        self, warn: Callable[[str], None], tracking_uri: str | None = None, folder: Path | None = None
    ) -> None:
        self._folder = (folder or Path.cwd()).absolute()
        self.tracking_uri = tracking_uri or store_uri(self._folder)
        self.run_id: str | None = None  # of the search's run; certain after `close`, None where it was not written
        self._warn = warn
        self._calls: SimpleQueue[Callable[[_Writer], None] | None] = SimpleQueue()
        self._done = 0
        self._thread = Thread(target=self._write, name="mlflow", daemon=True)

    def started(self, header: Header) -> None:
        """Create the search's run."""
        now = time.time()
        self._thread.start()
        self._put(lambda writer: writer.started(header, now))

    def told(self, trial: Trial) -> None:
        """Create a nested run for the trial."""
        now = time.time()
        self._put(lambda writer: writer.told(trial, now))

    def finished(self, outcome: Outcome) -> None:
        """Show the winner, and end the search's run."""
        self._put(lambda writer: writer.finished(outcome))

    def failed(self, message: str) -> None:
        """End the search's run."""
        self._put(lambda writer: writer.failed(message))

    def close(self) -> None:
        """Wait until all is written; not longer than a minute for a store that does not answer."""
        self._put(lambda writer: writer.close())
        self._put(None)
        while self._thread.is_alive():
            done = self._done
            self._thread.join(PATIENCE)
            if self._thread.is_alive() and self._done == done:
                self._warn(f"MLflow has not answered for {PATIENCE:g} s; what it lacks is in the journal")
                return

    def _put(self, call: Callable[[_Writer], None] | None) -> None:
        if self._thread.is_alive():
            self._calls.put(call)

    def _write(self) -> None:
        try:
            writer = _Writer(self.tracking_uri, self._folder)
            while (call := self._calls.get()) is not None:
                call(writer)
                self.run_id = writer.run_id
                self._done += 1
        except Exception as error:  # noqa: BLE001: whatever MLflow raises, the search goes on
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            self._warn(f"MLflow cannot be written ({reason}); the search goes on, the journal has everything")


class _Writer:
    """Makes the calls, in the view's thread."""

    run_id: str | None = None

    def __init__(self, tracking_uri: str, folder: Path) -> None:
        for name, value in SETTINGS.items():
            os.environ.setdefault(name, value)
        if file := sqlite_file(tracking_uri):
            _open(file)
        import logging

        from mlflow import MlflowClient

        logging.getLogger("urllib3").setLevel(logging.ERROR)  # it tells of every retry
        self._client = MlflowClient(tracking_uri)
        self._experiment = _experiment(self._client, tracking_uri, folder)
        self._count = self._failed = 0
        self._best: dict[str, float] = {}
        self._trials: dict[str, Trial] = {}  # those that did not fail, by the key of their job

    def started(self, header: Header, now: float) -> None:
        self._header = header
        tags = {
            "nas.search": header.name,
            "nas.note": header.note,
            "strategy": header.kind,
            "space": header.config.get("space", ""),
            "dataset": header.dataset["name"],
            "dataset_fingerprint": header.dataset["fingerprint"],
            "mlflow.source.name": "nas",
        }
        self.run_id = self._create(header.name, tags, now)
        self._params(self.run_id, _flat(header.config))
        self._client.log_inputs(self.run_id, [_dataset_input(header)])

    def told(self, trial: Trial, now: float) -> None:
        self._count += 1
        rows = _layers(trial.job.candidate.architecture, self._header.limits)
        start = now - trial.metrics.get("train_seconds", 0.0)
        run_id = self._create(self._run_name(trial), self._tags(trial), start)
        self._params(run_id, trial.job.candidate.choices)
        self._metrics(run_id, _curve(trial), start)
        with tempfile.TemporaryDirectory() as folder:
            architecture = json.dumps(trial.job.candidate.architecture.to_dict(), indent=2)
            Path(folder, "architecture.json").write_text(architecture, encoding="utf-8")
            Path(folder, "layers.txt").write_text(rows, encoding="utf-8")
            self._client.log_artifacts(run_id, folder)
        self._client.set_terminated(run_id, "FAILED" if trial.failure else "FINISHED", int(now * 1000))
        self._progress(trial, now)

    def finished(self, outcome: Outcome) -> None:
        run_id = self._search_run()
        accuracies = [trial.metrics["validation_accuracy"] for trial in outcome.retrained]
        scores = {
            "winner_validation_accuracy_search": outcome.winner.metrics["validation_accuracy"],
            "winner_validation_accuracy_retrained": outcome.validation_accuracy,
            "winner_validation_accuracy_retrained_sd": deviation(accuracies),
            "winner_parameters": outcome.parameters,
            "test_accuracy": outcome.test_accuracy,
            "test_loss": outcome.test_loss,
            "selection_bias": outcome.selection_bias,
        }
        now = time.time()
        self._metrics(run_id, {(name, self._count): (value, now) for name, value in scores.items()})
        self._client.set_tag(run_id, "winner", outcome.winner.id)
        self._client.set_tag(run_id, "mlflow.note.content", _story(outcome))
        self._client.log_table(run_id, _leaderboard(self._trials.values()), "leaderboard.json")
        self._client.log_text(run_id, _pretty(outcome.architecture), "best/architecture.json")
        if outcome.weights.parent.is_dir():
            self._client.log_artifacts(run_id, str(outcome.weights.parent), "best")
        self._end("FINISHED")

    def failed(self, message: str) -> None:
        self._client.set_tag(self._search_run(), "failure", message)
        self._end("FAILED")

    def close(self) -> None:
        if not self._ended:  # neither a winner nor a failure: the search was interrupted
            self._end("KILLED")
