"""Addresses of stores and their credentials, odd file systems, and searches that were killed."""

from __future__ import annotations

import os
import socket
import sqlite3
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from command import inline
from mlflow import MlflowClient
from test_beside import copied
from test_mlflow import Shown, call_ui, make_trial, wait_for

from nas import files
from nas.architecture.known import LENET5
from nas.dashboard.store import client_of, network_warning, probe, store_of
from nas.errors import NasError, masked
from nas.experiment import Experiment
from nas.records.journal import FILE
from nas.records.record import read

SERVER = "http://user:s3cret@127.0.0.1:9/mlflow"


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        (SERVER, "http://***@127.0.0.1:9/mlflow"),
        ("https://t0ken@host", "https://***@host"),
        ("http://user:12345@host", "http://***@host"),
        ("postgresql://nas:p/w@rd@db:5432/x?sslmode=a@b", "postgresql://nas:***@db:5432/x?sslmode=a@b"),
        ("mysql+pymysql://db/x?user=nas&password=s3cret&a=b", "mysql+pymysql://db/x?user=nas&password=***&a=b"),
        ("API request to http://u:p@h/api failed, see a@b", "API request to http://***@h/api failed, see a@b"),
        *((same, same) for same in ("http://host:5000/a@b", "sqlite:////a/b@c/x:y@z.db", "postgresql://nas@db/x")),
    ],
)
def test_credentials_are_masked_and_nothing_else(address: str, shown: str) -> None:
    assert masked(address) == shown
    assert masked(shown) == shown


def test_a_configuration_keeps_credentials_for_its_own_process_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = Experiment.of(mlflow=SERVER)
    written = experiment.to_toml()
    assert "s3cret" not in written + repr(experiment) + repr(experiment.model_dump())
    with pytest.raises(NasError) as caught:
        Experiment.of(mlflow=SERVER + "x" * 2_000)
    assert "s3cret" not in str(caught.value)
    (tmp_path / "search.toml").write_text(written)
    again = Experiment.read(tmp_path / "search.toml").mlflow
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert store_of(tmp_path, again) == "http://127.0.0.1:9/mlflow"  # MLflow has variables for the rest
    assert store_of(tmp_path, "mysql://nas:***@db/x?password=***&a=b") == "mysql://nas@db/x?a=b"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", SERVER)
    assert store_of(tmp_path, again) == SERVER


def test_no_password_is_in_the_line_about_a_dead_server(tmp_path: Path) -> None:
    warnings: list[str] = []
    shown = Shown(tmp_path, uri=SERVER, warn=warnings.append)
    shown.told(make_trial(LENET5, 0.9))
    shown.close()
    assert ["(Connection refused)" in line for line in warnings] == [True]
    with pytest.raises(NasError, match="Connection refused"):
        probe(SERVER)
    result = inline("sync", str(tmp_path / "runs" / "one"), "--store", SERVER, code=1)
    assert "http://***@127.0.0.1:9/mlflow: Connection refused" in result.stderr
    assert "s3cret" not in result.output + warnings[0] + (tmp_path / "runs" / "one" / FILE).read_text()


def test_a_store_is_made_where_files_have_no_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on exFAT."""

    def link(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    client_of(f"sqlite:///{tmp_path}/mlflow.db").create_experiment("one")
    assert [path.name for path in tmp_path.iterdir() if not path.name.endswith(("-wal", "-shm"))] == ["mlflow.db"]
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as made:
        assert made.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_sqlite_on_a_network_file_system_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = tmp_path / "a place" / "deep"
    there.mkdir(parents=True)
    mounts = tmp_path / "mounts"
    place = str(there).replace(" ", "\\040")
    mounts.write_text(
        f"/dev/sda1 / ext4 rw 0 0\nserver:/export {place} nfs4 rw,vers=4.2 0 0\nproc /proc proc rw 0 0\n"
    )
    monkeypatch.setattr(files, "MOUNTS", mounts)
    warning = network_warning(f"sqlite:///{there}/mlflow.db")
    assert f"{there}/mlflow.db" in warning
    assert "nfs4" in warning
    assert "--mlflow sqlite:////" in warning
    for local in (f"sqlite:///{tmp_path}/mlflow.db", f"sqlite:///{there}er/mlflow.db", SERVER):
        assert network_warning(local) == ""
    client_of(f"sqlite:///{there}/mlflow.db")
    with closing(sqlite3.connect(there / "mlflow.db")) as made:  # all processes of WAL must be on one machine
        assert made.execute("PRAGMA journal_mode").fetchone() == ("delete",)


@pytest.mark.parametrize("command", ["list", "ui"])
def test_a_killed_search_is_written_down_as_interrupted(
    tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    uri = copied(empty_store, tmp_path)
    client = MlflowClient(uri, uri)
    killed, running = (Shown(tmp_path, name, mlflow="auto", uri=uri) for name in ("killed", "running"))
    for shown in (killed, running):
        shown.told(make_trial(LENET5, 0.9))
        wait_for(lambda shown=shown: shown.view._steps > 2)  # type: ignore[misc]
    killed.journal.__exit__()  # as a kill does: nothing is said, and the lock is free

    def states() -> dict[str, str]:
        nas = client.get_experiment_by_name("nas")
        assert nas is not None
        runs = client.search_runs([nas.experiment_id])
        return {run.data.tags["nas.search"]: run.info.status for run in runs if "nas.trial" not in run.data.tags}

    inline("list")  # the process, which is this one, lives: a drive in a network may not show its lock
    assert states() == {"killed": "RUNNING", "running": "RUNNING"}
    later = psutil.Process.create_time(psutil.Process()) + 1e6
    monkeypatch.setattr(psutil.Process, "create_time", lambda process: later)  # the number is another's now
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for _ in range(2):
            if command == "list":
                said = inline("list").output
                assert "was killed" in said
            else:
                call_ui("--port", str(taken.getsockname()[1]))
    assert states() == {"killed": "KILLED", "running": "RUNNING"}
    path = tmp_path / "runs" / "killed" / FILE
    assert sum("ended" in line for line in path.read_text().splitlines()) == 1
    assert "was killed" in (read(path)[0].ended or {})["message"]
    running.close()
