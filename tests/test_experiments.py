"""Experiments in files, and what decides where a setting goes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from nas import plugins
from nas.cli.main import cli
from nas.errors import UsageError
from nas.experiment import Experiment, Setting
from nas.spaces.space import SearchSpace

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "experiments").glob("*.toml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_experiment_is_whole_and_comes_back_from_its_own_words(path: Path, tmp_path: Path) -> None:
    experiment = Experiment.read(path)
    space: SearchSpace = plugins.create(
        plugins.find("space", "cnn" if experiment.space == "auto" else experiment.space),
        experiment.options_of("space"),
    )
    plugins.create(
        plugins.find("strategy", experiment.strategy), experiment.options_of("strategy"), space=space, seed=0
    )
    again = tmp_path / "again.toml"
    again.write_text(experiment.to_toml())
    assert Experiment.read(again).model_dump() == experiment.model_dump()


def test_there_is_an_experiment_for_every_strategy() -> None:
    assert {"reference", "evolve", "trial-and-error", "quick", "lecture"} <= {path.stem for path in FILES}
    assert any(len(Experiment.read(path).objectives) == 2 for path in FILES)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("trails = 3", "line 3: there is no setting 'trails'; did you mean 'trials'"),
        ("trials = 0", "line 3: trials = 0: input should be greater than or equal to 1"),
        (
            "[options]\npopulaton = 3",
            "line 4: there is no option of Evolve 'populaton'; did you mean 'population'",
        ),
        ("[options]\n'space.width' = 3", "line 4: there is no option of Cnn 'width'"),
        ("[options]\nspace.width = 3", "line 4: there is no option of Cnn 'width'"),
        ("[options.space]\nwidth = 3", "line 4: there is no option of Cnn 'width'"),
        ("options = {populaton = 3}", "line 3: there is no option of Evolve 'populaton'"),
        ("options.populaton = 3", "line 3: there is no option of Evolve 'populaton'"),
        ("seed = 1\n[options]\nseed = 3", "line 5: there is no option of Evolve 'seed'"),
        (
            "[options]\npopulation = [3]",
            r"line 4: option population = \[3\]: should be a number, text, true or false",
        ),
        ("objectives = ['-parameters', '-parameters']", "line 3: objectives = .*each objective is given once"),
        ("trials = ", "is not TOML: .*line 3"),
        ("recipe = 'lectur'", "line 3: there is no recipe 'lectur'; did you mean 'lecture'"),
        ("[recipe]\nbase = 'lectur'", "line 4: there is no recipe 'lectur'; did you mean 'lecture'"),
        (
            "[recipe]\nshift = 1\nlearning_rat = 0.1",
            "line 5: there is no field of a recipe 'learning_rat'; did you mean 'learning_rate'",
        ),
        ("[recipe]\nlearning_rate = 0", r"line 4: recipe.learning_rate = 0: should be above 0 and 100 or less"),
        ("[recipe]\nlabel_smoothing = 1.0", "line 4: recipe.label_smoothing = 1.0: should be 0 or more and below"),
        ("[recipe]\nlabel_smoothing = nan", "line 4: recipe.label_smoothing = nan: should be"),
        ("recipe = {batch_size = 0}", "line 3: recipe.batch_size = 0: should be 1 or more"),
        ("[recipe]\nbatch_size = 6.4", "line 4: recipe.batch_size = 6.4: should be a whole number"),
        ("recipe.shift = true", "line 3: recipe.shift = True: should be a whole number"),
        ("recipe.shift = [1]", r"line 3: recipe.shift = \[1\]: should be a whole number"),
        ("[recipe]\nschedule = 'cosine'", "line 4: recipe.schedule = 'cosine': should be one of one-cycle, con"),
        ("[recipe]\nprecision = 'float32'", "line 4: a recipe has no precision: write precision = 'float32'"),
    ],
)
def test_a_mistake_in_a_file_is_one_line_that_names_the_place(tmp_path: Path, line: str, words: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f"# mine\nstrategy = 'evolve'\n{line}\n")
    result = CliRunner().invoke(
        cli, ["search", str(path), "--dataset", "mnist-5k", "--out", str(tmp_path / "out")]
    )
    assert result.exit_code in (1, 2)
    last = result.output.strip().splitlines()[-1]
    assert last.startswith("nas: ")
    assert f"{path}" in last
    assert re.search(words, last), last


def test_a_mistake_on_the_command_line_does_not_blame_the_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("trials = 4\n")
    with pytest.raises(UsageError) as caught:
        Experiment.read(path, trials=0)
    assert "mine.toml" not in str(caught.value)


def test_options_reach_the_part_that_their_prefix_names() -> None:
    options: dict[str, Setting] = {"population": 9, "space.cells": 2, "evaluator.slow": True, "dataset.size": 3}
    experiment = Experiment(options=options)
    assert experiment.options_of("strategy") == {"population": 9}
    assert experiment.options_of("space") == {"cells": 2}
    assert experiment.options_of("evaluator") == {"slow": True}
    assert experiment.options_of("dataset") == {"size": 3}


def test_two_objectives_give_a_front_and_the_first_one_chooses_the_winner(tmp_path: Path) -> None:
    """The real command on real data, with a space, a data set and an evaluator that are plugins."""
    words = [
        *("search", "--strategy", "trial-and-error", "--space", "nasbench201", "--dataset", "shapes"),
        *("--evaluator", "inline", "--plugins", str(ROOT / "plugins"), "--trials", "6", "--epochs", "0.2"),
        *("--objective", "validation_accuracy", "--objective", "-parameters", "--set", "space.filters=8"),
        *("--set", "dataset.images=400"),
        *(
            "--max-parameters",
            "60000",
            "--rungs",
            "1",
            "--mlflow",
            "off",
            "--json",
            "--out",
            str(tmp_path / "out"),
        ),
    ]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout.splitlines()[-1])
    front = found["front"]
    assert front == sorted(front, key=lambda one: (-one["validation_accuracy"], one["parameters"]))
    sizes = [one["parameters"] for one in front]
    assert sizes == sorted(sizes, reverse=True)  # less accurate networks are there because they are smaller
    assert found["winner"]["parameters"] <= 60000
    assert found["trials"] == 6
    assert found["failed"] == 0
    # The ends of the front are trained again, tested, and handed over.
    again = {other["id"]: other["test_accuracy"] for other in found["compared"] if other["with"] == "front"}
    assert {front[0]["id"], front[-1]["id"]} <= {found["winner"]["id"], *again}
    assert {path.name for path in (tmp_path / "out/front").iterdir()} == {found["winner"]["id"], *again}
    for name in (found["winner"]["id"], *again):
        taken = ["export", str(tmp_path / "out"), "--network", name[:6], "--format", "safetensors", "--json"]
        exported = CliRunner().invoke(cli, [*taken, "--plugins", str(ROOT / "plugins")])
        assert exported.exit_code == 0, exported.output
        assert json.loads(exported.stdout)["network"] == name
    wrong = CliRunner().invoke(cli, ["export", str(tmp_path / "out"), "--network", "zzz"])
    assert "has handed over no network 'zzz', but" in wrong.output
    removed = CliRunner().invoke(cli, ["rm", str(tmp_path / "out"), "--yes", "--keep-mlflow"])
    assert removed.exit_code == 0, removed.output
    assert not (tmp_path / "out").exists()
