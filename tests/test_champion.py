"""The registered model: one version a winner, and the champion is the best on the same images."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import finished
from mlflow import MlflowClient
from mlflow.entities import ViewType
from safetensors.torch import save_file

from nas.architecture.architecture import Architecture, Limits
from nas.architecture.layers import Dense, Flatten
from nas.dashboard import registry
from nas.dashboard.registry import log_model
from nas.dashboard.removal import remove
from nas.dashboard.store import client_of, experiment_of
from nas.errors import NasError
from nas.objectives import Objective, scored
from nas.records.outcome import Header, Outcome
from nas.spaces.space import Candidate
from nas.training.network import Network
from nas.trial import Job
from nas.winner.best import write_best

LOSS = (Objective("validation_loss", -1),)
NET = Architecture((Flatten(), Dense(4)))


class Store:
    """A real store, and winners in it."""

    def __init__(self, folder: Path, empty: Path) -> None:
        shutil.copyfile(empty, folder / "mlflow.db")
        self.folder, self.uri = folder, f"sqlite:///{folder}/mlflow.db"
        self.client: MlflowClient = client_of(self.uri)
        self.experiment = experiment_of(self.client, self.uri, {})

    def made(self, name: str, loss: float, fingerprint: str = "0123456789abcdef") -> tuple[Outcome, str]:
        """A search whose winner was trained again with such a loss, and its run."""
        folder = self.folder / "runs" / name
        network = Network(NET, (1, 8, 8), 3)
        weights = folder / "trained.safetensors"
        folder.mkdir(parents=True, exist_ok=True)
        save_file(network.state_dict(), weights)
        data: Any = type("Data", (), {"input_shape": (1, 8, 8), "classes": ("a", "b", "c"), "is_padded": False})
        write_best(folder / "best", NET, weights, data)
        about = {"name": "blobs", "fingerprint": fingerprint, "train": 9, "validation": 9_000}
        header = Header(folder, {"strategy": "evolve"}, about, Limits((1, 8, 8), 3), LOSS)
        searched = scored(finished(Job(Candidate(NET), 1.0, 0), 0.5), LOSS)
        again = scored(finished(Job(Candidate(NET), 4.0, 1), loss), LOSS)
        best = folder / "best" / "weights.safetensors"
        outcome = Outcome(header, 1, 0, 1.0, searched, (again,), ((again,),), (searched,), 0.9, 0.1, 100, best)
        return outcome, self.client.create_run(self.experiment).info.run_id

    def win(self, name: str, loss: float, fingerprint: str = "0123456789abcdef") -> None:
        self.log(*self.made(name, loss, fingerprint))

    def log(self, outcome: Outcome, run: str) -> None:
        log_model(torch.zeros((2, 1, 8, 8), dtype=torch.uint8), outcome, self.uri, run)

    def champion(self, name: str = "nas-blobs") -> str:
        return self.client.get_model_version_by_alias(name, "champion").tags["search"]

    def versions(self, name: str = "nas-blobs") -> list[str]:
        return sorted(one.tags["search"] for one in self.client.search_model_versions(f"name = '{name}'"))


@pytest.fixture
def store(tmp_path: Path, empty_store: Path) -> Store:
    return Store(tmp_path, empty_store)


def test_the_champion_is_replaced_by_a_better_one_only(store: Store) -> None:
    store.win("first", 0.3)
    assert store.champion() == "first"
    store.win("worse", 0.4)
    store.win("equal", 0.3)
    assert store.champion() == "first"
    store.win("better", 0.2)
    assert store.champion() == "better"
    assert store.versions() == ["better", "equal", "first", "worse"]


def test_other_images_of_the_same_name_have_a_champion_of_their_own(store: Store) -> None:
    store.win("first", 0.1)
    store.win("other images", 0.4, fingerprint="fedcba9876543210")
    assert store.champion() == "first"
    assert store.champion("nas-blobs-fedcba98") == "other images"


def test_what_a_kill_has_left_out_is_added_and_nothing_twice(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    search = store.made("first", 0.3)
    with monkeypatch.context() as patch:
        patch.setattr(registry, "_register", killed)  # after the model, before its version
        with pytest.raises(KeyboardInterrupt):
            store.log(*search)
    assert len(store.client.search_logged_models([store.experiment])) == 1
    for _ in range(2):
        store.log(*search)
        assert len(store.client.search_logged_models([store.experiment])) == 1
        assert store.versions() == ["first"]
        assert store.champion() == "first"


def test_a_search_that_was_given_more_has_a_new_version(store: Store) -> None:
    """The same network wins again, trained longer: its model is another one."""
    outcome, run = store.made("search", 0.3)
    store.log(outcome, run)
    assert store.versions() == ["search"]
    longer = replace(outcome.retrained[0], job=replace(outcome.retrained[0].job, epochs=8.0))
    more = scored(finished(longer.job, 0.2), LOSS)
    store.log(replace(outcome, retrained=(more,), finalists=((more,),)), run)
    assert store.versions() == ["search", "search"]
    best = store.client.get_model_version_by_alias("nas-blobs", "champion")
    assert float(best.tags["validation_loss"]) == 0.2
    store.client.delete_model_version("nas-blobs", str(best.version))  # somebody tidies up
    store.win("next", 0.5)
    assert store.champion() == "next"


def test_a_removed_search_leaves_nothing_in_mlflow(store: Store) -> None:
    for name, loss in (("first", 0.3), ("better", 0.2), ("worse", 0.4)):
        outcome, run = store.made(name, loss)
        store.client.set_tag(run, "nas.id", f"id-of-{name}")
        store.client.log_text(run, "text", "report.html")
        store.log(outcome, run)
    assert store.champion() == "better"
    client, before = store.client, _files(store)
    assert remove("id-of-better", store.uri) == (1, [])
    assert store.champion() == "first"
    assert store.versions() == ["first", "worse"]
    found = client.search_runs([store.experiment], run_view_type=ViewType.ALL)
    assert sorted(run.data.tags["nas.id"] for run in found) == ["id-of-first", "id-of-worse"]
    assert len(_files(store)) == len(before) * 2 / 3
    assert remove("id-of-first", store.uri) == remove("id-of-worse", store.uri) == (1, [])
    assert client.search_registered_models() == []
    assert _files(store) == []
    assert remove("id-of-first", store.uri) == (0, [])


def test_what_users_registered_stays_with_its_files_when_a_search_is_removed(store: Store) -> None:
    client = store.client
    for name, loss in (("first", 0.3), ("better", 0.2), ("worse", 0.4)):
        outcome, run = store.made(name, loss)
        client.set_tag(run, "nas.id", f"id-of-{name}")
        store.log(outcome, run)
    client.copy_model_version(f"models:/nas-blobs/{version_of(store, 'better')}", "production")
    client.create_registered_model("mine")
    model = client.get_model_version("nas-blobs", version_of(store, "first"))
    client.create_model_version("mine", str(model.source), model.run_id, model_id=model.model_id)
    files = _files(store)
    assert remove("id-of-first", store.uri) == (0, ["mine version 1"])
    assert store.champion() == "better"
    client.delete_registered_model_alias("nas-blobs", "champion")  # a user wants none
    assert remove("id-of-better", store.uri) == (0, ["production version 1"])
    assert store.versions() == ["worse"]
    assert client.get_registered_model("nas-blobs").aliases == {}
    for name in ("mine", "production"):
        assert client.get_model_version(name, "1").status == "READY"
        assert client.get_registered_model(name).aliases == {}
    assert _files(store) == files


def test_files_of_a_server_are_not_looked_for_in_another_store(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server on the same database keeps the files of its experiments itself."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    experiment = store.client.create_experiment("served", "mlflow-artifacts:/served")
    store.client.create_run(experiment, tags={"nas.id": "id-of-it"})
    with pytest.raises(NasError, match="tracking URI must be a valid http or https URI"):
        remove("id-of-it", store.uri)
    assert len(store.client.search_runs([experiment], run_view_type=ViewType.ALL)) == 1


def version_of(store: Store, search: str) -> str:
    found = store.client.search_model_versions("name = 'nas-blobs'")
    return next(str(one.version) for one in found if one.tags["search"] == search)


def _files(store: Store) -> list[Path]:
    return [path for path in (store.folder / "mlartifacts").rglob("*") if path.is_file()]


def test_a_difference_within_the_noise_is_a_tie(store: Store) -> None:
    store.win("first", 0.3)
    store.win("hardly better", 0.299)  # 0.03 points of 9,000 images
    assert store.champion() == "first"
    [tied] = [one for one in store.client.search_model_versions() if one.tags["search"] == "hardly better"]
    assert "a tie with version 1: 0.03 points apart" in str(tied.description)
    store.win("clearly better", 0.2)
    [better] = [one for one in store.client.search_model_versions() if one.tags["search"] == "clearly better"]
    assert "3.33 points better than version 1" in str(better.description)
