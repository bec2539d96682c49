"""The headline: a search that is killed fifty times finds what it would have found, bit for bit, once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from command import QUICK, results

from nas.dashboard.store import store_uri
from nas.records.record import read

KILLS = 50
# From the start of an attempt to its kill at most, of the seconds that the undisturbed search takes: 1.5 s of 18.
# In half as many an attempt gets nowhere; in twice as many the search ends before it was killed so often.
LONGEST = 0.08


def run(place: Path, kills: int, out: str, longest: float = 0.0) -> dict[str, int]:
    words = ["search", *QUICK, "--trials", "40", "--workers", "2", "--mlflow", store_uri(place), "--out", out]
    command = [sys.executable, str(Path(__file__).with_name("kills.py")), str(kills), str(longest), *words]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=True)
    log = (place / "log.txt").read_text()
    result: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    assert "Traceback" not in log
    assert "nas: " not in log, f"{result}: {log[-2000:]}"
    return result


@pytest.mark.faults
def test_fifty_kills_at_random_moments_change_nothing(tmp_path: Path) -> None:
    assert run(tmp_path, 0, "undisturbed") == {"kills": 0, "code": 0}
    longest = LONGEST * read(tmp_path / "undisturbed" / "journal.jsonl")[0].seconds
    assert run(tmp_path, KILLS, "killed", longest) == {"kills": KILLS, "code": 0}
    assert results(tmp_path / "killed") == results(tmp_path / "undisturbed")
    # 34 on an idle machine; 11 where other work let most attempts get nowhere.
    assert len(read(tmp_path / "killed" / "journal.jsonl")[0].sessions) > KILLS / 8
    compare_with_mlflow(store_uri(tmp_path), tmp_path / "killed")


def compare_with_mlflow(uri: str, folder: Path) -> None:
    """MLflow has each candidate once, closed, with the journal's numbers; the search's curves, and one model."""
    from mlflow import MlflowClient

    client, record = MlflowClient(uri, uri), read(folder / "journal.jsonl")[0]
    [experiment] = [one.experiment_id for one in client.search_experiments() if one.name == "nas"]
    runs = client.search_runs([experiment], f"tags.`nas.id` = '{record.id}'", max_results=1000)
    assert {run.info.status for run in runs} == {"FINISHED"}
    [search] = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    nested = {int(run.data.tags["nas.trial"]): run for run in runs if run is not search}
    assert sorted(nested) == list(range(1, len(record.told) + 1))
    assert len(runs) == len(nested) + 1
    for number, told in enumerate(record.told, 1):
        run = nested[number]
        assert run.data.tags["nas.job"] == told.trial.job.key
        measured = {name: told.trial.metrics[name] for name in ("validation_loss", "latency_ms", "train_seconds")}
        assert run.data.metrics.items() >= measured.items()
    losses = client.get_metric_history(search.info.run_id, "search/best_validation_loss")
    assert sorted(point.step for point in losses) == sorted(nested)
    models = client.search_logged_models([experiment], filter_string=f"source_run_id='{search.info.run_id}'")
    assert len(models) == 1
