"""The real command on real data, and what it leaves behind."""

from __future__ import annotations

import json
import math
import re
import signal
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from command import NAS, QUICK, error_line, inline, nas, pace, results, survivors

from nas.architecture.architecture import Architecture
from nas.data import open_source
from nas.data.dataset import Split
from nas.data.mnist import Mnist
from nas.data.mnist5k import Mnist5k
from nas.experiment import Experiment
from nas.records.journal import FILE
from nas.records.predictions import predictions_of
from nas.records.record import read
from nas.training.network import answers_and_loss
from nas.winner.best import load_network


@pytest.fixture(scope="module")
def result(place: Path) -> dict[str, object]:
    return json.loads((place / "printed.json").read_text())  # type: ignore[no-any-return]


def test_the_result_is_one_object(result: dict[str, object]) -> None:
    assert set(result) == {
        "search", "strategy", "dataset", "trials", "failed", "failures", "seconds", "front", "mattered", "winner",
        "compared",
    }  # fmt: skip
    assert (result["strategy"], result["dataset"], result["trials"], result["failed"]) == (
        "evolve",
        "mnist-5k",
        10,
        0,
    )
    winner = result["winner"]
    assert isinstance(winner, dict)
    assert {"id", "parameters", "validation_accuracy", "test_accuracy", "test_loss"} < set(winner)
    assert winner["test_interval"][0] < winner["test_accuracy"] < winner["test_interval"][1]
    outcome = read(Path(str(result["search"])) / "journal.jsonl")[0].result()
    assert outcome is not None
    accuracies = [trial.metrics["validation_accuracy"] for trial in outcome.retrained]
    assert winner["validation_accuracy_sd"] == pytest.approx(statistics.stdev(accuracies))
    assert winner["parameters"] <= 20_000
    assert winner["test_accuracy"] > 0.5  # after one epoch of 3,500 images


def test_what_is_handed_over_has_the_score_that_was_reported(result: dict[str, object]) -> None:
    best = Path(str(result["search"])) / "best"
    network = load_network(best)
    test = open_source("mnist-5k").load_test()
    answers, loss, _ = answers_and_loss(network, test.images, test.labels)
    right = answers == test.labels
    winner = result["winner"]
    assert isinstance(winner, dict)
    assert right.double().mean().item() == pytest.approx(winner["test_accuracy"])
    assert loss == pytest.approx(winner["test_loss"], rel=1e-5)
    assert Architecture.from_json((best / "architecture.json").read_text()).id == winner["id"]
    card = (best / "README.md").read_text()
    assert f"{100 * winner['test_accuracy']:.2f} %" in card
    assert f"| parameters | **{winner['parameters']:,}** | the lecture's network: 34,826 |" in card


def test_progress_goes_to_standard_error_in_plain_lines(place: Path) -> None:
    text = (place / "progress.txt").read_text()
    assert re.search(r"searching: [0-9a-f]{12} · [\d,]+ parameters · \d+\.\d\d % · loss", text)
    assert "training the best again: 6 trainings" in text
    assert "\x1b" not in text


@pytest.mark.faults  # slow
def test_one_worker_in_python_finds_the_same_bit_for_bit(place: Path, result: dict[str, object]) -> None:
    search = Path(str(result["search"]))
    experiment = Experiment.read(search / "search.toml", workers=1, mlflow="off")
    assert experiment.precision in ("float32", "bfloat16")  # the machine has decided it, once
    outcome = experiment.run(place / "one worker")
    winner = result["winner"]
    assert isinstance(winner, dict)
    assert (outcome.architecture.id, outcome.test_accuracy) == (winner["id"], winner["test_accuracy"])
    assert outcome.validation_accuracy == winner["validation_accuracy"]
    assert results(place / "one worker") == results(search)
    assert not (place / "one worker" / "mlflow.db").exists()


@pytest.mark.faults  # slow
def test_the_number_of_workers_does_not_change_a_search_that_is_ahead(place: Path) -> None:
    found = []
    for workers in (1, 3):
        folder = place / f"ahead with {workers}"
        settings = {"trials": 12, "batch": 3, "ahead": 3, "epochs": 0.4, "workers": workers}
        Experiment.of(dataset="mnist-5k", mlflow="off", **settings).run(folder)
        found.append(results(folder))
    assert found[0] == found[1]


def test_the_dashboard_has_the_search_its_trials_and_the_model(place: Path, result: dict[str, object]) -> None:
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{place}/mlflow.db")
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("nas")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=100)
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parents[0].info.run_id]
    assert len(parents) == 1
    assert len(children) == result["trials"]
    assert {run.info.status for run in runs} == {"FINISHED"}
    winner = result["winner"]
    assert isinstance(winner, dict)
    assert parents[0].data.metrics["winner/test_accuracy"] == pytest.approx(winner["test_accuracy"])
    assert (
        len(client.get_metric_history(parents[0].info.run_id, "search/best_validation_loss")) == result["trials"]
    )
    assert all(run.data.tags["origin"] in ("sample", "mutation", "crossover") for run in children)
    [model] = client.search_logged_models([experiment.experiment_id])
    loaded = mlflow.pytorch.load_model(model.model_uri)
    test = open_source("mnist-5k").load_test()
    with torch.no_grad():
        right = (loaded(test.images.float()).argmax(1) == test.labels).float().mean().item()
    assert right == pytest.approx(winner["test_accuracy"])


def test_everything_in_the_store_is_what_the_journal_says(place: Path, result: dict[str, object]) -> None:
    """Read back with MLflow's own client, value by value: the curves, metrics, parameters, tags and artifacts."""
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{place}/mlflow.db")
    folder = Path(str(result["search"]))
    record = read(folder / FILE)[0]
    outcome = record.result()
    assert outcome is not None
    [experiment] = [one.experiment_id for one in client.search_experiments() if one.name == "nas"]
    runs = client.search_runs([experiment], max_results=100)
    [parent] = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = sorted((run for run in runs if run is not parent), key=lambda run: int(run.data.tags["nas.trial"]))

    def history(run: Any, metric: str) -> dict[int, float]:
        return {m.step: m.value for m in client.get_metric_history(run.info.run_id, metric)}

    def files(run: Any) -> dict[str, bytes]:
        top = Path(client.download_artifacts(run.info.run_id, ""))
        return {path.relative_to(top).as_posix(): path.read_bytes() for path in top.rglob("*") if path.is_file()}

    best: dict[str, list[float]] = {"validation_loss": [], "validation_accuracy": []}
    for number, (run, told) in enumerate(zip(children, record.told, strict=True), 1):
        trial, candidate = told.trial, told.trial.job.candidate
        choices = {name: str(value) for name, value in candidate.choices.items()}
        assert run.data.params == {**choices, **{n: f"{trial.metrics[n]:.0f}" for n in ("parameters", "flops")}}
        constant = {"parameters", "flops"}
        assert run.data.metrics.keys() == {*trial.metrics, "train_loss"} - constant
        assert {name: trial.metrics[name] for name in run.data.metrics if name != "train_loss"} == {
            name: value for name, value in run.data.metrics.items() if name != "train_loss"
        }
        assert {name: float(run.data.tags[name]) for name in constant} == {
            name: trial.metrics[name] for name in constant
        }
        for name in ("train_loss", "validation_loss", "validation_accuracy"):
            assert history(run, name) == {math.ceil(p["epoch"]): p[name] for p in trial.curve}
        tags = {
            "nas.trial": str(number), "nas.job": trial.job.key, "architecture_id": trial.id, "status": "finished",
            "origin": candidate.origin, "epochs": f"{trial.job.epochs:g}", "strategy": "evolve",
            "rung": "2 of 2" if trial.job.epochs == 0.25 else "1 of 2", "mlflow.parentRunId": parent.info.run_id,
        }  # fmt: skip
        assert tags.items() <= run.data.tags.items()
        assert run.data.tags.get("parents", "") == ",".join(candidate.parents)
        kept = files(run)
        assert kept.keys() == {"architecture.json", "layers.txt", "network.svg"}
        assert Architecture.from_json(kept["architecture.json"].decode()) == candidate.architecture
        parameters = f"{trial.metrics['parameters']:,.0f}"
        assert kept["layers.txt"].decode().split()[-1] == parameters
        assert f"{trial.id}: {parameters} parameters" in kept["network.svg"].decode()
        for name, values in best.items():
            values.append(trial.metrics[name])
    steps = range(1, len(record.told) + 1)
    assert history(parent, "search/best_validation_loss") == {n: min(best["validation_loss"][:n]) for n in steps}
    assert history(parent, "search/best_validation_accuracy") == {
        n: max(best["validation_accuracy"][:n]) for n in steps
    }
    assert history(parent, "search/failed_trials") == dict.fromkeys(steps, 0.0)
    assert sorted(history(parent, "search/hypervolume").values()) == list(
        history(parent, "search/hypervolume").values()
    )
    scores = {
        "test_accuracy": outcome.test_accuracy, "test_loss": outcome.test_loss,
        "test_accuracy_low": outcome.test_interval[0], "test_accuracy_high": outcome.test_interval[1],
        "selection_bias": outcome.selection_bias,
        "validation_accuracy_search": outcome.winner.metrics["validation_accuracy"],
        "validation_accuracy": outcome.validation_accuracy, "validation_accuracy_sd": outcome.spread,
    }  # fmt: skip
    assert {f"winner/{name}": score for name, score in scores.items()}.items() <= parent.data.metrics.items()
    assert parent.data.tags["parameters"] == str(outcome.parameters)
    options = {
        name: value for name, value in record.header.config.items() if name not in ("options", "objectives")
    }
    said = {name: "" if value == [] else str(value) for name, value in options.items()}
    assert said.items() <= parent.data.params.items()
    kept = files(parent)
    for path in (folder / "best").iterdir():
        assert kept.pop(f"best/{path.name}") == path.read_bytes() or path.name == "architecture.json"
    assert kept.pop("search.toml") == (folder / "search.toml").read_bytes()
    table = json.loads(kept.pop("leaderboard.json"))
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    known = {(one.trial.id, one.trial.job.epochs): one.trial for one in record.told}
    assert {row["id"] for row in rows} == {one.trial.id for one in record.told}
    for row in rows:
        metrics = known[row["id"], row["epochs"]].metrics
        assert all(row[name] == metrics[name] for name in ("parameters", "validation_accuracy", "validation_loss"))
    assert f"{100 * outcome.test_accuracy:.2f} %" in kept.pop("report.html").decode()
    assert {name.split("/")[0] for name in kept} == {"figures", "classes.json", "predictions.safetensors"}
    assert len(kept) >= 5
    [model] = client.search_model_versions("name = 'nas-mnist-5k'")
    assert client.get_model_version_by_alias(model.name, "champion").version == model.version
    assert (model.run_id, model.tags["architecture_id"]) == (parent.info.run_id, outcome.winner.id)


def test_the_model_loads_without_this_package(place: Path) -> None:
    script = f"""
import sys
sys.modules["nas"] = None
import mlflow, torch
mlflow.set_tracking_uri("sqlite:///{place}/mlflow.db")
[experiment] = [e for e in mlflow.MlflowClient().search_experiments() if e.name == "nas"]
[model] = mlflow.MlflowClient().search_logged_models([experiment.experiment_id])
print(tuple(mlflow.pytorch.load_model(model.model_uri)(torch.zeros(7, 1, 28, 28)).shape))
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "(7, 10)"


@pytest.mark.faults
def test_ctrl_c_ends_a_search_and_its_workers(tmp_path: Path) -> None:
    command = [*NAS, "search", "--dataset", "mnist-5k", "--mlflow", "off", "--out", "stopped"]
    with subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        while "loss" not in (line := process.stderr.readline()):
            assert line, "the search ended by itself"
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted" in rest
    assert "Traceback" not in rest
    assert survivors(children) == []
    assert read(tmp_path / "stopped" / "journal.jsonl")[0].trials


@pytest.mark.faults  # it takes the time that it gives: half a minute
def test_a_time_limit_holds_for_everything(tmp_path: Path, result: dict[str, object]) -> None:
    limit = 4 * pace(Path(str(result["search"])))
    done = nas("search", "--time-limit", f"{limit:.0f}s", "--mlflow", "off", *QUICK, "--json", cwd=tmp_path)
    printed = json.loads(done.stdout.splitlines()[-1])
    assert printed["trials"] >= 1
    assert printed["seconds"] < 1.5 * limit + 5


@pytest.mark.faults
def test_a_search_whose_test_images_are_others_finds_the_same(
    place: Path, result: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The seal: nothing but the last score depends on the test images."""
    honest = Mnist5k.load_test

    def poisoned(self: Mnist5k) -> Split:
        split = honest(self)
        return Split(split.images.flip(0), split.labels)

    monkeypatch.chdir(place)
    monkeypatch.setattr(Mnist5k, "load_test", poisoned)
    done = inline("search", "--trials", "10", *QUICK, "--mlflow", "off", "--out", "poisoned", "--json")
    other = json.loads(done.stdout.splitlines()[-1])["winner"]
    winner = result["winner"]
    assert isinstance(winner, dict)
    assert other["id"] == winner["id"]
    assert other["validation_accuracy"] == winner["validation_accuracy"]
    assert other["test_accuracy"] < 0.3


TRAIN = ["--dataset", "mnist-5k", "--epochs", "0.25", "--mlflow", "off"]


def test_train_one_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    printed = json.loads(inline("train", "lenet5", *TRAIN, "--json").stdout.splitlines()[-1])
    assert {"network", "parameters", "epochs", "seeds", "validation_accuracy", "test_accuracy"} < set(printed)
    assert (printed["network"], printed["parameters"], printed["epochs"]) == ("lenet5", 61_706, 0.25)


def test_train_an_architecture_file_and_print_a_table(
    tmp_path: Path, result: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = inline("train", f"{result['search']}/best/architecture.json", *TRAIN)
    winner = result["winner"]
    assert isinstance(winner, dict)
    assert f"{winner['parameters']:,}" in done.stdout
    assert "the lecture's network: 34,826" in done.stdout
    assert max(len(line) for line in done.stdout.splitlines() if "│" in line) <= 80


@pytest.mark.faults
def test_a_closed_pipe_does_not_end_a_training(place: Path) -> None:
    train = "train lecture --dataset mnist-5k --epochs 0.2 --mlflow off --out closed"
    line = f'set -o pipefail; "$0" -m nas {train} 2>&1 | head -n 1'
    command = ["bash", "-c", line, sys.executable]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.returncode == 0
    assert (place / "closed/best/weights.safetensors").is_file()


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (["search", "--strategy", "evolv"], 2, "there is no strategy 'evolv'; did you mean 'evolve'?"),
        (["search", "--space", "cn"], 2, "there is no space 'cn'; did you mean 'cnn'?"),
        (["search", "--dataset", "minst"], 2, "there is no dataset 'minst'; did you mean 'mnist'?"),
        (["search", "--recipe", "lectur"], 2, "there is no recipe 'lectur'; did you mean 'lecture'?"),
        (["search", "--objective", "acuracy"], 2, "there is no metric 'acuracy'; did you mean"),
        (["search", "--set", "populaton=3"], 2, "there is no option of Evolve 'populaton'; did you mean"),
        (["search", "--device", "tpu"], 2, "there is no device 'tpu' here"),
        (["search", "--workers", "many"], 2, "workers = 'many'"),
        (["search", "--group", "all"], 2, "group = 'all'"),
        (
            ["train", "lecture", "--device", "cpu", "--precision", "tf32", "--dataset", "mnist-5k"],
            2,
            "tf32 is for CUDA",
        ),
        (["search", "--time-limit", "soon"], 2, "time_limit = 'soon': a time is written like 90s, 10m or 1h30m"),
        (
            ["search", "--out", "taken/file"],
            1,
            "cannot be written: Not a directory; choose another folder with --out",
        ),
        (["search", "--max-parameters", "5", "--dataset", "mnist-5k"], 1, "more than the 5 parameters allowed"),
        (["search", "wrong.toml"], 2, "there is no setting 'trails'; did you mean 'trials'?"),
        (["train", "lectur"], 2, "there is no network 'lectur'; did you mean 'lecture'?"),
        (["train", "wrong.json"], 1, "wrong.json: layer 1: there is no layer 'Conv3d'; did you mean 'Conv2d'"),
        (["train", "lecture", "--dataset", "mnist"], 1, "--dataset mnist-5k"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], code: int, line: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NAS_DATA_DIR", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(Mnist, "mirrors", ("http://127.0.0.1:9/",))  # nothing listens there
    (tmp_path / "taken").write_text("")
    (tmp_path / "wrong.toml").write_text("trails = 3\n")
    (tmp_path / "wrong.json").write_text('{"layers": [{"type": "Conv3d"}]}')
    assert line in error_line(inline(*words, code=code))
    assert not list(tmp_path.glob("runs/*/journal.jsonl")) or "--max-parameters" in words


def test_the_real_command_says_it_in_one_line_too(tmp_path: Path) -> None:
    assert "did you mean 'evolve'?" in error_line(nas("search", "--strategy", "evolv", cwd=tmp_path, code=2))
    assert "no such option '--trails'" in error_line(nas("search", "--trails", "3", cwd=tmp_path, code=2))
    for words, line in (
        (["--trials", "0"], "trials = 0: input should be"),
        (["--set", "x"], "'x' is not of the form KEY=VALUE"),
        (["--workers", "many"], "valid integer or 'auto'"),
    ):
        assert line in error_line(inline("search", *words, code=2))


@pytest.mark.mnist
@pytest.mark.faults  # slow
def test_the_lecture_s_network_on_the_full_mnist(tmp_path: Path) -> None:
    done = nas("train", "lecture", "--dataset", "mnist", "--epochs", "0.2", "--recipe", "lecture",
               "--mlflow", "off", "--json", cwd=tmp_path)  # fmt: skip
    printed = json.loads(done.stdout.splitlines()[-1])
    assert printed["parameters"] == 34_826
    assert printed["test_accuracy"] > 0.9


def test_the_answers_on_the_test_images_are_kept_from_their_one_opening(result: dict[str, object]) -> None:
    outcome = read(Path(str(result["search"])) / FILE)[0].result()
    assert outcome is not None
    found = predictions_of(outcome)
    assert found is not None
    test, validation = found.test, found.validation
    assert (test.labels == open_source("mnist-5k").load_test().labels.numpy()).all()
    right = test.labels == test.answers
    assert right.mean() == pytest.approx(outcome.test_accuracy)
    assert -np.log(test.chances[:, 1].astype(float)).mean() == pytest.approx(outcome.test_loss, rel=1e-4)
    handed_over = outcome.handed_over.metrics["validation_accuracy"]
    assert (validation.labels == validation.answers).mean() == pytest.approx(handed_over, abs=0.005)
    assert not right[found.wrong].any()
    assert test.chances[found.wrong[0], 1] == test.chances[~right, 1].min()
    assert found.examples.shape == (10, 2, 4, 28, 28, 1)
