"""Strategies side by side: settings, trainings that are lent, one opening of the test images, kills."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import NAS, error_line, inline, nas

from nas.comparison.comparison import compare, known
from nas.comparison.page import page
from nas.comparison.result import Compared, State
from nas.comparison.settings import Comparison
from nas.comparison.threads import side_by_side
from nas.dashboard.store import client_of
from nas.errors import NasError, UsageError
from nas.records.comparisons import members
from nas.records.journal import FILE
from nas.records.record import read
from nas.records.searches import State as SearchState


def images(folder: Path) -> Path:
    """A file of grey images of two classes that are easy to tell."""
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 2
    pixels = rng.integers(0, 90, (120, 12, 12))
    pixels[labels == 1, 3:8, 3:8] += 100
    path = folder / "images.npz"
    np.savez(path, images=pixels.astype(np.uint8), labels=np.array(["no", "yes"])[labels])
    return path


PLUGINS = Path(__file__).parent.parent / "plugins"
SMALL: dict[str, Any] = {
    "trials": 3, "epochs": 1.0, "batch": 3, "max_parameters": 3_000, "mlflow": "off", "workers": 2,
}  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "name the strategies"),
        ({"strategies": ""}, "0 strategies"),
        ({"strategies": "evolve,evolve"}, "named twice"),
        ({"strategies": "evolve:population"}, "NAME=VALUE"),
        ({"strategies": {"evolve": 3}}, "a table of settings"),
        ({"strategies": "evolve", "seeds": 0}, "seeds = 0"),
        ({"strategies": "evolve", "seed": 3}, "leave it out"),
        ({"strategies": "evolve", "baselines": "yes"}, "true or false"),
        ({"strategies": "evolve", "trials": -1}, "trials = -1"),
        ({"strategies": {"evolve": {"options": 3}}}, "options = 3"),
        ({"strategies": {"mine": {"strategy": Path}}}, "make it a plugin"),
        (
            {"strategies": {"evolve": {"objectives": ["validation_accuracy"]}, "b": {"strategy": "evolve"}}},
            "one obj",
        ),
        ({"strategies": {"a b": {"strategy": "evolve"}, "a-b": {"strategy": "evolve"}}}, "similar names"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        Comparison.of(**settings)
    assert "\n" not in str(caught.value)


def test_a_strategy_may_appear_twice_and_a_file_says_it_all(tmp_path: Path) -> None:
    text = "evolve,evolve:population=20:crossover=0,trial-and-error"
    comparison = Comparison.of(strategies=text, seeds=2, trials=7, options={"space.filters": 4})
    searches = comparison.searches()
    assert len(searches) == 6
    assert [name for name in searches if name.endswith("-1")][1] == "evolve-population-20-crossover-0-1"
    label, experiment = searches["evolve-population-20-crossover-0-1"]
    assert label == "evolve:population=20:crossover=0"
    assert (experiment.strategy, experiment.seed, experiment.trials) == ("evolve", 1, 7)
    assert experiment.options == {"space.filters": 4, "population": "20", "crossover": "0"}
    path = tmp_path / "comparison.toml"
    path.write_text(comparison.to_toml())
    assert Comparison.read(path).searches() == searches
    changed = Comparison.read(path, seeds=1, trials=9).searches()
    assert [one.trials for _, one in changed.values()] == [9, 9, 9]
    path.write_text(
        'seeds = 1\ntrials = 5\n[strategies.deep]\nstrategy = "evolve"\nrungs = 3\n[strategies.evolve]\n'
    )
    deep, plain = (one for _, one in Comparison.read(path).searches().values())
    assert (deep.rungs, plain.rungs, plain.strategy) == (3, 2, "evolve")
    path.write_text('strategies = "evolve"\nplugins = ["somewhere"]\n')
    with pytest.raises(UsageError, match="add --plugins"):
        Comparison.read(path)


def test_a_file_has_no_password_and_no_strategy_brings_code_of_its_own(tmp_path: Path) -> None:
    comparison = Comparison.of(strategies="evolve", mlflow="https://user:secret@host")
    assert "secret" not in comparison.to_toml()
    path = tmp_path / "comparison.toml"
    path.write_text('[strategies.evolve]\nplugins = ["evil"]\n')
    with pytest.raises(UsageError, match="plugins cannot be of one strategy alone"):
        Comparison.read(path)
    path.write_text('options = 3\nstrategies = "evolve"\n')
    with pytest.raises(UsageError, match="options = 3"):
        Comparison.read(path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Compared:
    """A comparison of two strategies that begin with the same candidates, with two seeds; two run at a time."""
    folder = tmp_path_factory.mktemp("compare")
    return compare(
        strategies="evolve,evolve:population=20", seeds=2, dataset=str(images(folder)), out=folder / "c",
        **{**SMALL, "workers": 4},
    )  # fmt: skip


@pytest.mark.faults
def test_the_test_images_are_opened_once_when_all_is_decided(finished: Compared) -> None:
    result = finished.result
    assert (result.opened, finished.state.opened) == (1, 1)
    assert [(one.strategy, one.seed) for one in result.searched] == [
        ("evolve", 0), ("evolve:population=20", 0), ("evolve", 1), ("evolve:population=20", 1),
    ]  # fmt: skip
    opened = []
    for own in members(finished.folder):
        record = read(own / FILE)[0]
        outcome = record.result()
        assert outcome is not None
        assert SearchState.of(own).status == "finished"
        opened.append(float((record.outcome or {})["at"]))
        [row] = [one for one in result.searched if one.folder == own.name]
        assert (row.winner, row.test_accuracy) == (outcome.winner.id, outcome.test_accuracy)
        lines = [json.loads(line) for line in (own / FILE).read_bytes().splitlines()]
        assert max(line["at"] for line in lines if "trial" in line) < min(opened)
    assert known(finished.folder) == finished  # what is read from the disk
    assert len(result.tested) == 7  # the lecture's network among them
    for sentence in result.sentences:
        assert "is the best" not in sentence


@pytest.mark.faults
def test_equal_trainings_are_done_once_for_all(finished: Compared) -> None:
    first, second = (
        read(finished.folder / name / FILE)[0].trials for name in ("evolve-0", "evolve-population-20-0")
    )
    shared = first.keys() & second.keys()
    assert len(shared) >= 3
    for key in shared:  # measured once: two trainings would not take the same time to the microsecond
        assert first[key].metrics == second[key].metrics
    searched = finished.result.searched
    assert searched[0].seconds > 0
    assert searched[1].seconds > 0.5 * searched[0].seconds  # what is lent is charged


@pytest.mark.faults
def test_a_finished_comparison_is_shown_listed_and_resumed_at_once(
    finished: Compared, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = inline("show", str(finished.folder)).stdout
    assert "evolve:population=20" in text
    assert "random forest" in text
    assert all(len(line) <= 80 for line in text.splitlines()[:-1])
    facts = json.loads(inline("show", str(finished.folder), "--json").stdout)
    assert len(facts["searched"]) == 4
    again = json.loads(inline("resume", str(finished.folder), "--json").stdout)
    assert again == facts
    assert State.read(finished.folder).opened == 1
    page = tmp_path / "page.html"
    inline("show", str(finished.folder), "--report", str(page))
    html = page.read_text()
    assert html.count("<img") == 2
    assert "What may be concluded" in html
    assert "with which it goes on: nas resume" in error_line(
        inline("resume", str(finished.folder / "evolve-0"), "--trials", "9", code=2)
    )
    assert "is a comparison" in error_line(inline("resume", str(finished.folder), "--trials", "9", code=2))


@pytest.mark.faults
def test_a_killed_comparison_goes_on_to_the_same_tables(tmp_path: Path, finished: Compared) -> None:
    words = ["--strategies", "evolve,evolve:population=20", "--seeds", "2", "--dataset", str(images(tmp_path))]
    for name, value in SMALL.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    for number, seconds in enumerate((4, 12, 6, 7, 8)):
        command = [*NAS, *(["compare", *words, "--out", "c"] if number == 0 else ["resume", "c"])]
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 90
        while not (tmp_path / "c/comparison.json").exists():
            assert time.monotonic() < until
            time.sleep(0.1)
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        process.kill()
        process.wait()
    facts = json.loads(nas("resume", "c", "--json", cwd=tmp_path).stdout)
    rows = [{k: v for k, v in row.items() if "seconds" not in k} for row in facts["searched"]]
    same = json.loads(inline("show", str(finished.folder), "--json").stdout)
    assert rows == [{k: v for k, v in row.items() if "seconds" not in k} for row in same["searched"]]
    assert [one["accuracy"] for one in facts["tested"]] == [one["accuracy"] for one in same["tested"]]
    assert facts["sentences"] == same["sentences"]


@pytest.mark.faults
def test_ctrl_c_ends_all_searches_that_run_and_they_go_on_later(tmp_path: Path) -> None:
    words = ["--strategies", "evolve,random-search", "--seeds", "1", "--dataset", str(images(tmp_path))]
    words += ["--trials", "400", "--epochs", "1", "--max-parameters", "3000", "--mlflow", "off", "--workers", "4"]
    process = subprocess.Popen(
        [*NAS, "compare", *words, "--no-baselines", "--plugins", str(PLUGINS), "--out", "c"],
        cwd=tmp_path, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    journals = [tmp_path / "c" / name / FILE for name in ("evolve-0", "random-search-0")]
    until = time.monotonic() + 60
    while not all(path.exists() and b'"trial"' in path.read_bytes() for path in journals):
        assert time.monotonic() < until
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, shown = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "nas resume" in shown.splitlines()[-1]
    assert "Traceback" not in shown
    assert [SearchState.of(path.parent).status for path in journals] == ["interrupted", "interrupted"]


def test_if_one_task_fails_the_others_are_interrupted_and_waited_for() -> None:
    ended = list[str]()

    def work(task: str) -> str:
        if task == "bad":
            raise NasError("it is bad")
        try:
            while True:
                time.sleep(0.01)
        except KeyboardInterrupt:
            ended.append(task)
            raise

    with pytest.raises(NasError, match="it is bad"):
        list(side_by_side(work, ["one", "two", "bad", "never"], 3))
    assert sorted(ended) == ["one", "two"]
    assert sorted(side_by_side(str, [3, 1, 2], 2)) == ["1", "2", "3"]


@pytest.mark.faults
def test_mlflow_has_the_searches_within_the_comparison_and_loses_all_of_it_with_rm(tmp_path: Path) -> None:
    from mlflow.entities import ViewType

    words = ["--strategies", "evolve,random-search", "--seeds", "1", "--dataset", str(images(tmp_path))]
    words += ["--trials", "2", "--epochs", "1", "--max-parameters", "3000", "--no-baselines", "--workers", "4"]
    nas("compare", *words, "--plugins", str(PLUGINS), cwd=tmp_path)
    [folder] = (tmp_path / "runs").iterdir()
    state = State.read(folder)
    assert state.written
    client = client_of(f"sqlite:///{tmp_path / 'mlflow.db'}")
    [experiment] = [one.experiment_id for one in client.search_experiments() if one.name == "nas"]
    runs = {run.info.run_id: run for run in client.search_runs([experiment])}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    nested = [run for run in runs.values() if run.data.tags.get("mlflow.parentRunId") == state.run]
    names = [run.info.run_name.split(" · ") for run in nested]
    assert sorted(name[-1] for name in names) == ["evolve-0", "random-search-0"]
    assert all(name[0].endswith(" %") for name in names)
    parent = runs[state.run]
    assert "| evolve |" in parent.data.tags["mlflow.note.content"]
    assert "test_accuracy.evolve" in parent.data.metrics
    files = Path(parent.info.artifact_uri.removeprefix("file://"))
    assert (files / "strategies.json").is_file()
    assert f"has the comparison {folder.name} now" in nas("sync", folder.name, cwd=tmp_path).stdout  # again
    assert len(client.search_runs([experiment])) == len(runs)
    nas("rm", folder.name, "--yes", "--plugins", str(PLUGINS), cwd=tmp_path)
    assert not folder.exists()
    assert not files.exists()
    assert not client.search_runs([experiment], run_view_type=ViewType.ALL)


@pytest.mark.faults
def test_a_comparison_without_mlflow_is_written_to_it_later(tmp_path: Path, finished: Compared) -> None:
    shutil.copytree(finished.folder, tmp_path / "runs" / "later")
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    said = nas("sync", "later", cwd=tmp_path, MLFLOW_TRACKING_URI=store).stdout
    assert "has the comparison later now" in said
    client = client_of(store)
    [experiment] = [one.experiment_id for one in client.search_experiments() if one.name == "nas"]
    runs = client.search_runs([experiment])
    [parent] = [run for run in runs if "nas.comparison" in run.data.tags]
    assert parent.info.status == "FINISHED"
    nested = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert {run.data.tags["nas.search"] for run in nested} == {path.name for path in members(finished.folder)}


@pytest.mark.faults
def test_experiments_explain_with_measured_numbers(tmp_path: Path) -> None:
    found = compare(
        strategies="evolve", seeds=1, dataset=str(images(tmp_path)), explain=True, out=tmp_path / "c", **SMALL
    )
    by_name = {one["name"]: one for one in found.result.experiments}
    assert list(by_name) == ["permutation", "shift", "images"]
    assert set(by_name["shift"]["accuracies"]) == {
        "decision tree", "random forest", "the lecture's network", "the best network found",
    }  # fmt: skip
    assert by_name["shift"]["points"] == ["0", "1", "2", "3", "4"]
    forest = by_name["permutation"]["accuracies"]["random forest"]
    assert forest[0] == forest[1] == 1.0  # a forest does not know which pixels are neighbours
    for one in by_name.values():
        assert len(one["sentences"]) == 2
        assert all(len(values) == len(one["points"]) for values in one["accuracies"].values())
    assert found.result.opened == 1
    assert known(found.folder) == found  # what is read from the disk
    html = page(found)
    assert html.count("<img") == 5
    assert "the random forest has" in html


def test_moved_images_move_by_so_many_pixels_and_black_moves_in() -> None:
    from nas.comparison.explain import moved

    white = np.full((4, 1, 6, 6), 255, np.uint8)
    for number, image in enumerate(moved(white, 2)):
        black = image[0] == 0
        assert black.sum() == 12
        assert black[:, :2].all() or black[:, -2:].all() or black[:2].all() or black[-2:].all(), number
    assert (moved(white, 0) == white).all()


@pytest.mark.faults
def test_a_strategy_without_a_winner_costs_only_itself(tmp_path: Path) -> None:
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "broken.py").write_text(
        "from nas.strategies.strategy import Strategy\n\n\nclass Broken(Strategy):\n    '''It fails.'''\n\n"
        "    def ask(self, count):\n        raise RuntimeError('it is broken')\n"
    )
    found = compare(
        strategies="broken,evolve", seeds=1, dataset=str(images(tmp_path)), baselines=False, out=tmp_path / "c",
        plugins=(folder,), **SMALL,
    )  # fmt: skip
    assert [one.strategy for one in found.result.searched] == ["evolve"]
    assert "it is broken" in found.state.failed["broken-0"]
    shown = inline("show", str(found.folder)).stdout
    assert "no winner" in shown
    assert "it is broken" in " ".join(shown.split())
