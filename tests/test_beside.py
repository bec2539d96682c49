"""A search beside the user's own MLflow: it uses and changes nothing that belongs to the whole process."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from test_mlflow import Shown, make_trial

import nas
from nas.architecture.known import LENET5
from nas.errors import UsageError
from nas.records.outcome import Outcome

SMALL: dict[str, Any] = {
    "dataset": "mnist-5k",
    "trials": 2,
    "batch": 2,
    "epochs": 0.02,
    "rungs": 1,
    "workers": 1,
    "max_parameters": 5_000,
    "max_flops": 500_000,
    "precision": "float32",
}


def copied(empty: Path, folder: Path) -> str:
    """The address of a new store."""
    folder.mkdir(exist_ok=True)
    shutil.copyfile(empty, folder / "mlflow.db")
    return f"sqlite:///{folder}/mlflow.db"


def experiments(uri: str) -> dict[str, list[str]]:
    """The searches in a store, by the experiments that they are in."""
    client = MlflowClient(uri, uri)
    found = {one.name: client.search_runs([one.experiment_id]) for one in client.search_experiments()}
    return {
        name: sorted(run.data.tags["nas.search"] for run in runs if "nas.search" in run.data.tags)
        for name, runs in found.items()
    }


def registered(uri: str) -> list[str]:
    """The searches of the registered models of a store; each model is logged to the run of its search."""
    client = MlflowClient(uri, uri)
    names = []
    for version in client.search_model_versions():
        model = client.get_logged_model(version.tags["nas.model"])
        assert model.status == "READY"
        assert model.source_run_id == version.run_id
        assert Path(str(version.source).removeprefix("file://"), "MLmodel").is_file()
        names.append(version.tags["search"])
    return names


@pytest.fixture
def own(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The store of a program that uses MLflow itself, with an experiment and a run in it."""
    monkeypatch.chdir(tmp_path)
    uri = copied(empty_store, tmp_path / "own")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    mlflow.set_tracking_uri(uri)
    client = MlflowClient(uri, uri)
    client.create_experiment("mine", (tmp_path / "own" / "mlartifacts").as_uri())
    mlflow.set_experiment("mine")
    yield uri
    while mlflow.active_run():
        mlflow.end_run()
    mlflow.set_tracking_uri("")


def state() -> dict[str, Any]:
    """What belongs to the whole process."""
    run = mlflow.active_run()
    return {
        "run": run and run.info.run_id,
        "uri": mlflow.get_tracking_uri(),
        "registry": mlflow.get_registry_uri(),
        # torch.export names a folder of its own.
        "environment": {name: text for name, text in os.environ.items() if not name.startswith("TORCH")},
    }


def test_a_search_within_a_run_of_the_user_is_nested_in_it_and_has_its_model(own: str) -> None:
    with mlflow.start_run() as run:
        before = state()
        outcome = nas.search(**SMALL, mlflow_parent=run.info.run_id)
        assert state() == before
    name = outcome.header.name
    assert experiments(own) == {"Default": [], "mine": [name] * 3}
    assert registered(own) == [name]
    client = MlflowClient(own, own)
    children = client.search_runs([run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run.info.run_id}'")
    assert [child.data.tags["nas.search"] for child in children] == [name]
    assert children[0].info.status == "FINISHED"


@pytest.mark.faults  # slow
def test_two_searches_in_two_threads_have_each_their_own_store(
    own: str, tmp_path: Path, empty_store: Path
) -> None:
    uris = [copied(empty_store, tmp_path / name) for name in ("left", "right")]
    before = state()
    outcomes: dict[str, Outcome] = {}

    def search(uri: str) -> None:
        outcomes[uri] = nas.search(**SMALL, mlflow=uri)

    threads = [threading.Thread(target=search, args=(uri,)) for uri in uris]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert state() == before
    for uri in uris:
        name = outcomes[uri].header.name
        assert experiments(uri) == {"Default": [], "nas": [name] * 3}
        assert registered(uri) == [name]
    left, right = outcomes.values()
    assert left.winner.id == right.winner.id  # two equal searches: neither disturbed the other
    assert left.test_accuracy == right.test_accuracy
    assert experiments(own) == {"Default": [], "mine": []}


@pytest.mark.faults
@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_pairs_of_searches_in_new_processes_are_complete(kind: str, tmp_path: Path) -> None:
    """Their first imports and their new stores come at the same moment, too."""
    script = Path(__file__).parents[1] / "experiments" / "benchmarks" / "pairs.py"
    command = [sys.executable, str(script), kind, "1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.startswith(f"1 of 1 pairs in two {kind} are complete"), done.stdout + done.stderr


def test_an_experiment_of_somebody_else_is_written_into_only_if_it_is_named(
    tmp_path: Path, empty_store: Path
) -> None:
    uri = copied(empty_store, tmp_path)
    client = MlflowClient(uri, uri)
    client.create_experiment("nas")
    named: list[dict[str, Any]] = [{}, {"mlflow_experiment": "mine"}, {"mlflow_experiment": "nas"}]
    for number, settings in enumerate(named):
        shown = Shown(tmp_path, f"search {number}", uri=uri, **settings)
        shown.told(make_trial(LENET5, 0.9))
        shown.close()
    found = {"nas-searches": ["search 0"] * 2, "mine": ["search 1"] * 2, "nas": ["search 2"] * 2}
    assert experiments(uri) == {"Default": [], **found}
    client.create_experiment("other")
    client.rename_experiment(str(client.get_experiment_by_name("nas-searches").experiment_id), "moved")  # type: ignore[union-attr]
    client.create_experiment("nas-searches")
    warnings: list[str] = []
    shown = Shown(tmp_path, "search 3", uri=uri, warn=warnings.append)
    shown.told(make_trial(LENET5, 0.9))
    shown.close()
    assert ["--mlflow-experiment" in line for line in warnings] == [True]


def test_a_program_without_observers_is_warned_by_python(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]  # closed when the search begins: no server answers there
    with pytest.warns(UserWarning, match="MLflow cannot be written"):
        nas.search(**SMALL, mlflow=f"http://127.0.0.1:{port}", out=tmp_path / "search")


def test_an_experiment_beside_a_parent_is_refused() -> None:
    with pytest.raises(UsageError, match="leave out mlflow_experiment"):
        nas.Experiment(mlflow_parent="0" * 32, mlflow_experiment="mine")


def test_an_address_whose_password_has_no_end_is_refused_without_showing_it() -> None:
    with pytest.raises(UsageError, match="a space in an address with a password is written %20") as raised:
        nas.Experiment(mlflow="postgresql://nas:my secret@db/x")
    assert "secret" not in str(raised.value)
