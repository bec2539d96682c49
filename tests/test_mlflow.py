"""MLflow as a view: what is written is read back from a real store; a dead store costs one line."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from click.testing import CliRunner
from command import survivors

from nas.architecture.architecture import Architecture
from nas.architecture.known import LECTURE, LENET5
from nas.architecture.layers import Conv2d
from nas.cli.ui import ui
from nas.dashboard import SETTINGS, behind
from nas.dashboard import thread as thread_module
from nas.dashboard.store import LogModel, probe, sqlite_file, store_of, store_uri
from nas.dashboard.thread import MlflowThread, sync
from nas.errors import NasError, UsageError
from nas.objectives import Objective, scored
from nas.records.journal import FILE, Journal
from nas.records.outcome import Header, Outcome
from nas.records.record import read
from nas.spaces.space import Candidate
from nas.trial import Job, Trial

ACCURACY = (Objective("validation_accuracy"),)
CONFIG = {"strategy": "evolve", "space": "cnn", "options": {"population": 8, "sizes": [3, 5]}, "seed": 0}
ODD_NAMES: dict[str, Any] = {"depth": 2, "conv[0]/filters": 32, "..": None}
TOO_SMALL = Architecture((Conv2d(8, 99),))  # fits no image


@pytest.fixture(autouse=True)
def _no_other_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


class Shown:
    """A search without any training: whatever happens is kept in its journal and shown by its view."""

    def __init__(
        self,
        folder: Path,
        name: str = "one",
        objectives: tuple[Objective, ...] = ACCURACY,
        *,
        warn: Callable[[str], None] = pytest.fail,
        uri: str | None = None,
        log_model: LogModel | None = None,
        **settings: Any,
    ) -> None:
        path = folder / "runs" / name
        path.mkdir(parents=True, exist_ok=True)
        self.path = path / FILE
        self.journal = Journal(self.path)
        config = {**CONFIG, "objectives": [str(one) for one in objectives], **settings}
        dataset = {"name": "mnist-5k", "fingerprint": "0123456789abcdef", "train": 3500, "validation": 1500}
        limits = {"input_shape": [1, 28, 28], "classes": 10}
        note = "a sample of 5,000 images"
        self.journal.begin({"config": config, "dataset": dataset, "limits": limits, "note": note})
        self.header = self.journal.record.header
        self.view = MlflowThread(self.journal.record, warn, uri or store_uri(folder), log_model)

    def told(self, *trials: Trial) -> None:
        for trial in trials:
            self.keep(trial)
            self.view.told(trial)

    def keep(self, trial: Trial) -> None:
        if trial.failure is None:
            self.journal.append(trial)
        self.journal.told(trial)

    def finished(self, outcome: Outcome) -> None:
        for trial in outcome.retrained:
            self.journal.append(trial)
        self.journal.finished(outcome)
        self.view.finished(outcome)

    def close(self) -> None:
        self.view.close()
        self.journal.__exit__()


def make_trial(
    architecture: Architecture, accuracy: float, epochs: float = 3.0, seed: int = 7, **choices: Any
) -> Trial:
    whole = [*range(1, int(epochs) + 1)] or [epochs]
    curve = tuple(
        {"epoch": float(e), "train_loss": 1 / e, "validation_loss": 0.5 / e, "validation_accuracy": accuracy / 2}
        for e in whole
    )
    metrics = {
        "validation_accuracy": accuracy,
        "validation_loss": 1 - accuracy,
        "parameters": float(architecture.parameters((1, 28, 28), 10)),
        "train_seconds": 2.0,
    }
    job = Job(Candidate(architecture, choices, ("aaa", "bbb"), "crossover"), epochs, seed)
    return scored(Trial(job, metrics, curve), ACCURACY)


def make_outcome(header: Header, winner: Trial) -> Outcome:
    best = header.folder / "best"
    best.mkdir(exist_ok=True)
    weights = best / "weights.safetensors"
    weights.write_bytes(b"weights")
    (best / "README.md").write_text("card", encoding="utf-8")
    (header.folder / "search.toml").write_text("seed = 0\n", encoding="utf-8")
    again = (make_trial(LENET5, 0.97, seed=8), make_trial(LENET5, 0.98, seed=9))
    return Outcome(header, 5, 2, 61.0, winner, again, (again,), (winner,), 0.96, 0.1, 10_000, weights)


class Record:
    """What a store holds of the search ``one``."""

    def __init__(self, folder: Path, run_id: str | None) -> None:
        from mlflow import MlflowClient

        self.client = MlflowClient(store_uri(folder))
        assert run_id is not None
        self.search = self.client.get_run(run_id)
        ours = f"tags.mlflow.parentRunId = '{run_id}'"
        found = self.client.search_runs([self.search.info.experiment_id], ours)
        self.nested = sorted(found, key=lambda run: int(run.data.tags["nas.trial"]))

    def history(self, run: Any, metric: str) -> list[tuple[int, float]]:
        return sorted((m.step, m.value) for m in self.client.get_metric_history(run.info.run_id, metric))

    def text(self, run: Any, path: str) -> str:
        return Path(self.client.download_artifacts(run.info.run_id, path)).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    folder = tmp_path_factory.mktemp("a store")
    shutil.copyfile(empty_store, folder / "mlflow.db")
    return folder


@pytest.fixture(scope="module")
def record(store: Path) -> Record:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        shown = Shown(store)
        shown.told(
            make_trial(LECTURE, 0.90, 0.25, **ODD_NAMES),
            make_trial(LENET5, 0.99),
            Trial.failed(make_trial(LECTURE, 0, seed=6).job, "timeout", "it took longer than 60 s"),
            make_trial(LECTURE, 0.95),
            Trial.failed(Job(Candidate(TOO_SMALL), 1.0, 7), "invalid", "the window is too large"),
        )
        shown.finished(make_outcome(shown.header, make_trial(LENET5, 0.99)))
        shown.close()
        return Record(store, shown.view.run_id)


def test_search_is_a_run_with_its_configuration(record: Record, store: Path) -> None:
    run = record.search
    assert re.fullmatch(r"97\.50 % · 61\.7k · evolve · \d\d:\d\d", run.info.run_name)
    assert run.info.status == "FINISHED"
    assert run.data.params == {
        "strategy": "evolve", "space": "cnn", "options.population": "8", "options.sizes": "3, 5", "seed": "0",
        "objectives": "validation_accuracy",
    }  # fmt: skip
    tags = run.data.tags
    assert tags["nas.search"] == "one"
    assert (tags["strategy"], tags["space"], tags["dataset"]) == ("evolve", "cnn", "mnist-5k")
    assert tags["dataset_fingerprint"] == "0123456789abcdef"
    assert tags["nas.note"] == "a sample of 5,000 images"
    assert record.client.get_experiment(run.info.experiment_id).name == "nas"
    assert run.info.artifact_uri.startswith((store / "mlartifacts").as_uri())
    assert not list(store.glob(".*"))


def test_search_shows_its_data(record: Record) -> None:
    assert record.search.inputs is not None
    (data,) = (entry.dataset for entry in record.search.inputs.dataset_inputs)
    assert (data.name, data.digest) == ("mnist-5k", "0123456789abcdef")
    assert data.source_type == "local"
    assert json.loads(str(data.profile))["train"] == 3500
    features = json.loads(json.loads(str(data.schema))["mlflow_tensorspec"]["features"])
    assert features[0]["tensor-spec"] == {"dtype": "uint8", "shape": [-1, 1, 28, 28]}


def test_search_has_curves_over_its_trials(record: Record) -> None:
    run = record.search
    accuracies = [(1, 0.90), (2, 0.99), (3, 0.99), (4, 0.99), (5, 0.99)]
    assert record.history(run, "search/best_validation_accuracy") == accuracies
    assert record.history(run, "search/best_validation_loss")[-1] == pytest.approx((5, 0.01))
    assert record.history(run, "search/failed_trials") == [(1, 0), (2, 0), (3, 1), (4, 1), (5, 2)]


def test_search_tells_how_it_ended(record: Record) -> None:
    metrics, tags = record.search.data.metrics, record.search.data.tags
    assert metrics["winner/validation_accuracy_search"] == 0.99
    assert metrics["winner/validation_accuracy"] == pytest.approx(0.975)
    assert metrics["winner/validation_accuracy_sd"] == pytest.approx(0.00707, abs=1e-5)
    assert (metrics["winner/test_accuracy"], metrics["winner/test_loss"]) == (0.96, 0.1)
    assert metrics["winner/selection_bias"] == pytest.approx(0.03)
    assert (tags["parameters"], tags["epochs"]) == ("61706", "3")
    assert tags["winner"] == LENET5.id
    for score in ("99.00 %", "97.50 ± 0.71 %", "96.00 %", "+3.00 points", "61,706"):
        assert score in tags["mlflow.note.content"]


def test_search_keeps_the_winner(record: Record) -> None:
    run = record.search
    best = {file.path for file in record.client.list_artifacts(run.info.run_id, "best")}
    assert best == {"best/README.md", "best/architecture.json", "best/weights.safetensors"}
    assert Architecture.from_json(record.text(run, "best/architecture.json")) == LENET5
    assert record.text(run, "search.toml") == "seed = 0\n"


def test_leaderboard_has_each_network_once(record: Record) -> None:
    table = json.loads(record.text(record.search, "leaderboard.json"))
    assert table["columns"][:5] == ["rank", "id", "trial", "parameters", "validation_accuracy"]
    assert [row[:5] for row in table["data"]] == [
        [1, LENET5.id, 2, 61_706, 0.99],
        [2, LECTURE.id, 4, 34_826, 0.95],
    ]


def test_each_candidate_is_a_nested_run(record: Record) -> None:
    assert [(run.info.run_name, run.info.status) for run in record.nested] == [
        ("1 · 90.00 % · 34.8k · 0.25 epochs", "FINISHED"),
        ("2 · 99.00 % · 61.7k · 3 epochs", "FINISHED"),
        ("3 · failed: timeout", "FAILED"),
        ("4 · 95.00 % · 34.8k · 3 epochs", "FINISHED"),
        ("5 · failed: invalid", "FAILED"),
    ]
    tags = record.nested[0].data.tags
    assert (tags["nas.search"], tags["strategy"]) == ("one", "evolve")
    assert (tags["origin"], tags["parents"]) == ("crossover", "aaa,bbb")
    assert (tags["architecture_id"], tags["epochs"]) == (LECTURE.id, "0.25")
    assert "failure" not in tags
    choices = {"depth": "2", "conv_0_/filters": "32", "_": "None"}
    assert record.nested[0].data.params == {**choices, "parameters": "34826"}
    assert record.nested[0].info.end_time - record.nested[0].info.start_time == pytest.approx(2000, abs=2)


def test_failed_candidate_says_why(record: Record) -> None:
    tags = record.nested[2].data.tags
    assert (tags["failure"], tags["failure_message"]) == ("timeout", "it took longer than 60 s")
    assert "larger than the map" in record.text(record.nested[4], "layers.txt")


def test_candidate_has_its_curve_and_ends_with_its_metrics(record: Record) -> None:
    run = record.nested[1]
    assert record.history(run, "train_loss") == [(1, 1), (2, 0.5), (3, pytest.approx(1 / 3))]
    assert record.history(run, "validation_accuracy") == [(1, 0.495), (2, 0.495), (3, 0.99)]
    assert run.data.tags["parameters"] == "61706"
    assert "parameters" not in run.data.metrics  # it would be a chart with one dot
    assert record.history(record.nested[0], "validation_accuracy") == [(1, 0.90)]  # a quarter of an epoch


def test_candidate_keeps_its_architecture_and_its_layers(record: Record) -> None:
    run = record.nested[0]
    assert Architecture.from_json(record.text(run, "architecture.json")) == LECTURE
    lines = [line.split() for line in record.text(run, "layers.txt").splitlines()]
    assert lines[2] == ["1", "Conv2d", "32", "3×3", "relu", "26×26×32", "320"]
    assert lines[-1] == ["total", "34,826"]


@pytest.mark.usefixtures("record")
def test_search_that_failed(store: Path) -> None:
    shown = Shown(store, "two", (Objective("parameters", -1),))
    shown.told(make_trial(LECTURE, 0.9))
    shown.journal.stopped("failed", "every trial failed")
    shown.close()
    run = Record(store, shown.view.run_id).search
    assert (run.info.status, run.data.tags["failure"]) == ("FAILED", "every trial failed")
    assert run.data.metrics["search/best_parameters"] == 34_826


@pytest.mark.usefixtures("record")
@pytest.mark.parametrize("more", [("-parameters",), ("-parameters", "-validation_loss")])
def test_several_objectives_have_a_front_and_a_hypervolume(
    store: Path, tmp_path: Path, more: tuple[str, ...]
) -> None:
    objectives = (*ACCURACY, *(Objective.parse(text) for text in more))
    shown = Shown(store, f"objectives {len(objectives)}", objectives)
    trials = [make_trial(LECTURE, 0.95), make_trial(LENET5, 0.99), make_trial(LECTURE, 0.3, 0.25)]
    shown.told(*trials)
    shown.finished(replace(make_outcome(shown.header, trials[1]), front=(trials[1], trials[0])))
    shown.close()
    record = Record(store, shown.view.run_id)
    volumes = [value for _, value in record.history(record.search, "search/hypervolume")]
    assert 0 < volumes[0] < volumes[1] == volumes[2]  # the third is worse than the first
    folder = Path(record.client.download_artifacts(record.search.info.run_id, "", str(tmp_path)))
    table = json.loads((folder / "pareto_front.json").read_text())
    assert [row[0] for row in table["data"]] == [LENET5.id, LECTURE.id]
    assert (folder / "figures" / "pareto_front.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("record")
def test_search_that_was_interrupted(store: Path) -> None:
    shown = Shown(store, "three")
    shown.told(make_trial(LECTURE, 0.9))
    shown.close()
    shown.close()
    assert Record(store, shown.view.run_id).search.info.status == "KILLED"


@pytest.mark.usefixtures("record")
@pytest.mark.parametrize("works", [True, False])
def test_model_of_the_winner_is_logged_and_may_fail(store: Path, works: bool) -> None:
    given: list[Any] = []
    warnings: list[str] = []

    def log_model(*values: Any) -> None:
        given.extend(values)
        if not works:
            raise ValueError("this network cannot be exported\nand more")

    shown = Shown(store, f"four {works}", warn=warnings.append, log_model=log_model)
    shown.told(make_trial(LENET5, 0.99))
    outcome = make_outcome(shown.header, make_trial(LENET5, 0.99))
    shown.finished(outcome)
    shown.close()
    assert given[0].test_accuracy == outcome.test_accuracy
    assert given[1:] == [shown.view.tracking_uri, shown.view.run_id]
    assert Record(store, shown.view.run_id).search.info.status == "FINISHED"
    assert [("cannot be exported" in line, "\n" in line) for line in warnings] == [(True, False)] * (not works)


def test_close_without_a_search(tmp_path: Path) -> None:
    shown = Shown(tmp_path)
    shown.close()
    assert shown.view.run_id is None
    assert not (tmp_path / "mlflow.db").exists()


def test_a_store_of_somebody_else_is_waited_for_and_stays_as_it_is(tmp_path: Path) -> None:
    """In WAL mode its owner may be unable to use it, for example over a network."""
    file = tmp_path / "mlflow.db"
    with closing(sqlite3.connect(file, check_same_thread=False)) as other:
        other.execute("CREATE TABLE one (two)")
        other.execute("BEGIN IMMEDIATE")
        threading.Timer(0.3, other.rollback).start()
        probe(f"sqlite:///{file}", seconds=30)
    with closing(sqlite3.connect(file)) as new:
        assert new.execute("PRAGMA journal_mode").fetchone() == ("delete",)


@pytest.mark.parametrize("store_kind", ["damaged", "a folder", "nobody listens"])
def test_dead_store_costs_one_line(tmp_path: Path, store_kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    if store_kind == "damaged":
        (tmp_path / "mlflow.db").write_bytes(b"this is no database" * 1000)
    if store_kind == "a folder":
        (tmp_path / "mlflow.db").mkdir()
    warnings: list[str] = []
    uri = "http://127.0.0.1:9" if store_kind == "nobody listens" else None
    shown = Shown(tmp_path, warn=warnings.append, uri=uri)
    shown.told(*[make_trial(LENET5, 0.9)] * 20)
    shown.finished(make_outcome(shown.header, make_trial(LENET5, 0.99)))
    shown.close()
    assert len(warnings) == 1
    assert warnings[0].startswith("MLflow cannot be written (")
    assert warnings[0].endswith(f"{tmp_path}/runs/one` writes the missing entries")
    assert "\n" not in warnings[0]
    assert shown.view.run_id is None
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("record")
def test_what_a_locked_store_lacks_is_written_once_when_it_is_free(store: Path) -> None:
    warnings: list[str] = []
    shown = Shown(store, "five", warn=warnings.append)
    with closing(sqlite3.connect(store / "mlflow.db")) as other:
        other.execute("BEGIN IMMEDIATE")  # nobody else can write
        shown.told(*[make_trial(LENET5, 0.9)] * 20)
        shown.close()
    assert ["locked" in line for line in warnings] == [True]
    for new in (20, 0):
        assert sync(read(shown.path)[0], store_uri(store)) == new
    record = Record(store, newest(store, "five"))
    assert len(record.nested) == 20
    assert len(record.history(record.search, "search/best_validation_accuracy")) == 20
    assert record.search.info.status == "KILLED"


def newest(store: Path, name: str) -> str:
    """The id of the run of a search."""
    from mlflow import MlflowClient

    client = MlflowClient(store_uri(store))
    [experiment] = [one.experiment_id for one in client.search_experiments() if one.name == "nas"]
    where = f"tags.`nas.search` = '{name}' and tags.`space` = 'cnn'"  # which its candidates have not
    [run] = client.search_runs([experiment], where)
    return str(run.info.run_id)


@pytest.mark.usefixtures("record")
def test_whoever_goes_on_writes_what_is_missing_and_nothing_twice(store: Path) -> None:
    """A process is killed while it writes a candidate: the next one finishes that run, and closes the search's."""
    from mlflow import MlflowClient

    shown = Shown(store, "six")
    shown.told(make_trial(LENET5, 0.9), make_trial(LECTURE, 0.8))
    shown.close()
    client = MlflowClient(store_uri(store))
    first = Record(store, newest(store, "six"))
    for run_id in (first.search.info.run_id, first.nested[1].info.run_id):
        client.update_run(run_id, status="RUNNING")
    journal = Journal(shown.path)
    journal.begin({})
    view = MlflowThread(journal.record, pytest.fail, store_uri(store))
    for trial in (make_trial(LENET5, 0.9), make_trial(LECTURE, 0.8), make_trial(LENET5, 0.95, seed=3)):
        journal.told(trial)
        view.told(trial)
    outcome = make_outcome(shown.header, make_trial(LENET5, 0.9))
    for trial in outcome.retrained:
        journal.append(trial)
    journal.finished(outcome)
    view.close()
    again = Record(store, newest(store, "six"))
    assert [run.info.status for run in again.nested] == ["FINISHED"] * 3
    assert [run.info.run_id for run in again.nested[:2]] == [run.info.run_id for run in first.nested]
    assert again.search.info.run_id == first.search.info.run_id
    assert again.history(again.search, "search/best_validation_accuracy") == [(1, 0.9), (2, 0.9), (3, 0.95)]
    assert again.history(again.nested[1], "train_loss") == first.history(first.nested[1], "train_loss")
    volumes = [volume for _, volume in again.history(again.search, "search/hypervolume")]
    assert volumes == sorted(volumes)  # what was found before is not forgotten
    journal.__exit__()


@pytest.mark.usefixtures("record")
def test_what_was_told_anew_replaces_what_it_was(store: Path) -> None:
    shown = Shown(store, "seven")
    shown.told(make_trial(LENET5, 0.9), make_trial(LENET5, 0.8, seed=2), make_trial(LENET5, 0.7, seed=3))
    shown.close()
    with Journal(shown.path) as journal:
        journal.begin({}, forced=True)
        view = MlflowThread(journal.record, pytest.fail, store_uri(store))
        for trial in (make_trial(LENET5, 0.9), make_trial(LECTURE, 0.85, seed=5)):
            journal.told(trial)
            view.told(trial)
        view.close()
    record = Record(store, newest(store, "seven"))
    assert [run.data.tags["architecture_id"] for run in record.nested] == [LENET5.id, LECTURE.id]


@pytest.mark.parametrize("is_killed", [False, True])
def test_candidates_that_come_too_fast_are_written_by_another_process(
    store: Path, monkeypatch: pytest.MonkeyPatch, is_killed: bool
) -> None:
    started: list[Path] = []
    shares: set[int] = set()

    class Watched(behind.Behind):
        def __iter__(self) -> Iterator[behind.State]:
            started.append(shown.path)
            for state in super().__iter__():
                shares.update([state.last] if state.last else [])
                if is_killed and state.last:
                    self._process.kill()
                yield state

    monkeypatch.setattr(behind, "Behind", Watched)
    monkeypatch.setattr(thread_module, "BEHIND", 3)
    warnings: list[str] = []
    shown = Shown(store, f"fast {is_killed}", warn=warnings.append)
    trials = [make_trial(LENET5, number / 100, seed=number) for number in range(1, 71)]
    shown.told(*trials)
    until = time.monotonic() + 30
    while not started and time.monotonic() < until:
        time.sleep(0.02)
    shown.close()  # while the other process still imports MLflow
    record = Record(store, shown.view.run_id)
    assert started == [shown.path]
    assert shares == {60}  # half of what is left after fifty
    assert len(warnings) == is_killed
    assert [run.data.tags["nas.job"] for run in record.nested] == [trial.job.key for trial in trials]
    assert {run.info.status for run in record.nested} == {"FINISHED"}
    history = record.history(record.search, "search/best_validation_accuracy")
    assert [step for step, _ in history] == list(range(1, 71))
    assert history[-1][1] == 0.7
    assert not [one for one in psutil.Process().children() if "nas.dashboard.behind" in one.cmdline()]


def test_of_many_candidates_only_those_of_the_last_rung_have_runs(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas.dashboard.writer.LARGE", 3)
    shown = Shown(store, "large", epochs=3.0)
    shown.told(*(make_trial(LENET5, n / 20, 3.0 if n % 4 == 0 else 0.75, n) for n in range(1, 13)))
    shown.close()
    record = Record(store, shown.view.run_id)
    assert [run.data.tags["nas.trial"] for run in record.nested] == ["4", "8", "12"]
    assert len(record.history(record.search, "search/best_validation_accuracy")) == 12


def test_two_searches_may_make_the_store_at_once(tmp_path: Path) -> None:
    searches = [Shown(tmp_path, f"at once {number}") for number in range(2)]
    for shown in searches:
        shown.told(make_trial(LECTURE, 0.9))
    for shown in searches:
        shown.close()
    records = [Record(tmp_path, shown.view.run_id) for shown in searches]
    assert [len(record.nested) for record in records] == [1, 1]
    assert len({record.search.info.experiment_id for record in records}) == 1
    assert not list(tmp_path.glob(".*"))


@pytest.mark.usefixtures("record")
def test_deleted_experiment_is_named_with_the_way_back(store: Path, tmp_path: Path) -> None:
    shutil.copy(store / "mlflow.db", tmp_path)
    from mlflow import MlflowClient

    client = MlflowClient(store_uri(tmp_path))
    experiment = client.get_experiment_by_name("nas")
    assert experiment is not None
    client.delete_experiment(experiment.experiment_id)
    warnings: list[str] = []
    shown = Shown(tmp_path, warn=warnings.append)
    shown.told(make_trial(LECTURE, 0.9))
    shown.close()
    assert len(warnings) == 1
    assert "mlflow experiments restore" in warnings[0]


def test_where_the_store_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("plain", "with space", "50%20?"):
        assert sqlite_file(store_uri(tmp_path / name)) == tmp_path / name / "mlflow.db"
    monkeypatch.chdir(tmp_path)
    assert store_of(tmp_path / "there" / "runs" / "one") == store_uri(tmp_path / "there")
    assert store_of(tmp_path / "there" / "one") == store_uri(tmp_path)
    assert store_of(tmp_path, "sqlite:////a/b.db") == "sqlite:////a/b.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert store_of(tmp_path) == "http://127.0.0.1:9"
    assert sqlite_file("http://127.0.0.1:9") is None


def test_mlflow_is_not_imported_before_it_is_needed() -> None:
    code = (
        "import nas.cli.ui, nas.dashboard.writer, sys; sys.exit('mlflow' in sys.modules or 'torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def call_ui(*arguments: str) -> Exception:
    """What ``nas ui`` complains of."""
    result = CliRunner().invoke(ui, arguments)
    assert isinstance(result.exception, NasError), result.output
    assert "\n" not in str(result.exception)
    return result.exception


def test_ui_without_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    message = str(call_ui())
    assert str(tmp_path / "mlflow.db") in message
    assert "nas search" in message
    assert "--store" in message
    assert not list(tmp_path.iterdir())
    assert "nowhere.db" in str(call_ui("--store", f"sqlite:///{tmp_path}/nowhere.db"))
    assert isinstance(call_ui("--store", "mlflow.db"), UsageError)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert "http://127.0.0.1:9 is a server already" in str(call_ui())


def test_ui_is_for_this_machine_only() -> None:
    for host in ("0.0.0.0", "192.168.1.2", "::", "example.org"):
        error = call_ui("--host", host)
        assert isinstance(error, UsageError)
        assert host in str(error)
        assert "--allow-remote" in str(error)


def test_ui_with_a_taken_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mlflow.db").touch()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        message = str(call_ui("--port", str(port)))
    assert str(port) in message
    assert "--port" in message


@pytest.fixture
def server(store: Path, record: Record) -> Iterator[tuple[subprocess.Popen[str], str]]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-c", "from nas.cli.ui import ui; ui()", "--port", str(port)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen(command, cwd=store, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "Ctrl-C" in line:
                break
        yield process, f"http://127.0.0.1:{port}"
        process.kill()


def get(address: str, body: dict[str, Any] | None = None) -> str:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return str(answer.read().decode())


def test_ui_shows_the_store_and_leaves_nothing_behind(
    server: tuple[subprocess.Popen[str], str], record: Record
) -> None:
    process, address = server
    assert "<title>MLflow</title>" in get(address)
    found = json.loads(get(f"{address}/api/2.0/mlflow/experiments/search", {"max_results": 10}))
    assert "nas" in {experiment["name"] for experiment in found["experiments"]}
    run_id = record.search.info.run_id
    files = json.loads(get(f"{address}/ajax-api/2.0/mlflow/artifacts/list?run_id={run_id}"))["files"]
    there = {"best", "figures", "leaderboard.json", "report.html", "search.toml"}
    assert {file["path"] for file in files} == there
    assert LENET5.id in get(f"{address}/get-artifact?run_id={run_id}&path=leaderboard.json")
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) == 2  # MLflow's command and its server
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 0
    assert survivors(family) == []


# --- a server that dies, and comes back


@contextmanager
def serving(folder: Path, port: int) -> Iterator[str]:
    """A real MLflow server, killed at the end."""
    uri = store_uri(folder)
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--port", str(port)]
    command += ["--workers", "1", "--artifacts-destination", (folder / "mlartifacts").as_uri()]
    quiet = {**SETTINGS, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "PYTHONWARNINGS": "ignore"}
    with subprocess.Popen(
        command, env={**os.environ, **quiet}, start_new_session=True, stderr=subprocess.DEVNULL
    ) as process:
        try:
            wait_for(lambda: _answers(f"http://127.0.0.1:{port}"))
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def _answers(address: str) -> bool:
    try:
        return bool(get(f"{address}/health"))
    except OSError:
        return False


def wait_for(happened: Callable[[], bool], seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < until
        time.sleep(0.1)


@pytest.mark.faults
def test_a_server_that_dies_and_comes_back_has_everything_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thread_module, "PAUSES", (0.5,))
    for name, value in SETTINGS.items():  # as the command does; MLflow's own wait for minutes
        monkeypatch.setenv(name, value)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    warnings: list[str] = []
    shown = Shown(tmp_path, uri=f"http://127.0.0.1:{port}", warn=warnings.append)

    def nested() -> int:
        from mlflow import MlflowClient

        return len(MlflowClient(store_uri(tmp_path)).search_runs(["1"], "tags.`nas.trial` != '0'"))

    with serving(tmp_path, port):
        shown.told(*(make_trial(LENET5, 0.9, seed=seed) for seed in range(3)))
        wait_for(lambda: nested() == 3)
    shown.told(*(make_trial(LENET5, 0.9, seed=seed) for seed in range(3, 6)))
    wait_for(lambda: bool(warnings))
    with serving(tmp_path, port):
        wait_for(lambda: nested() == 6)  # by itself, while the search goes on
        shown.told(make_trial(LENET5, 0.95, seed=6))
        shown.close()
    assert len(warnings) == 1
    record = Record(tmp_path, shown.view.run_id)
    assert [run.data.tags["nas.trial"] for run in record.nested] == [str(number) for number in range(1, 8)]
    assert record.history(record.search, "search/best_validation_accuracy") == [
        *((n, 0.9) for n in range(1, 7)),
        (7, 0.95),
    ]
    assert len(list((tmp_path / "mlartifacts").rglob("layers.txt"))) == 7
    assert record.search.info.status == "KILLED"
