"""A space may ask for the recipe, too: a candidate is a network and the answers that train it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from command import QUICK, inline, results
from conftest import Tiny, job
from test_front_door import INLINE, OURS, Blobs, Stop

import nas
from nas.architecture.architecture import Architecture, Limits
from nas.architecture.layers import Conv2d, GlobalAveragePool
from nas.cli.console import show_result
from nas.data.dataset import Dataset
from nas.errors import Interrupted, PluginError, SpaceError
from nas.evaluation.local.local import LocalEvaluator
from nas.records.journal import FILE
from nas.records.predictions import predictions_of
from nas.records.record import read
from nas.report.page import report
from nas.spaces.cnn import Cnn
from nas.spaces.lecture import Lecture
from nas.spaces.recipe import IMAGES, SERIES
from nas.spaces.space import Candidate, Choose, Scalar, SearchSpace
from nas.strategies.evolve import Evolve
from nas.strategies.strategy import Strategy
from nas.strategies.trial_and_error import TrialAndError
from nas.testing import StrategyContract, check
from nas.training.recipe import AUGMENTATIONS, RECIPES, Recipe, check_questions
from nas.training.trainer import train
from nas.trial import Job

NET = Architecture((Conv2d(3, 3, activation="relu"), GlobalAveragePool()))
RATES = [1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1]


class Rates(SearchSpace):
    """One network, with one of six learning rates."""

    def build(self, choose: Choose) -> Architecture:
        choose.suggest_categorical("recipe/learning_rate", RATES)
        return NET


class Asks(SearchSpace):
    """A small space with one question about the recipe."""

    def __init__(self, name: str, *choices: Scalar) -> None:
        self.name, self.options = name, choices

    def build(self, choose: Choose) -> Architecture:
        if len(self.options) == 2 and all(type(option) is float for option in self.options):
            choose.suggest_float(self.name, *self.options)  # type: ignore[arg-type]
        else:
            choose.suggest_categorical(self.name, self.options)
        return Tiny().build(choose)


def with_recipe(**answers: Scalar) -> Job:
    choices = {f"recipe/{name}": value for name, value in answers.items()}
    return Job(Candidate(NET, choices), 1.0, 1)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """As in a worker: two give other bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_a_candidate_is_its_network_and_its_recipe() -> None:
    plain, slow, fast = job(NET), with_recipe(learning_rate=1e-3), with_recipe(learning_rate=1e-2)
    both = with_recipe(learning_rate=1e-3, shift=1)
    keys = {each.key for each in (plain, slow, fast, both)}
    assert len(keys) == 4
    assert with_recipe(shift=1, learning_rate=1e-3).key == both.key
    # Without a recipe, ids and keys are those of earlier journals, whatever the other choices are.
    assert replace(plain.candidate, choices={"depth": 1}).id == NET.id
    assert plain.key == f"{NET.id}-1-1"
    assert slow.candidate.id.startswith(f"{NET.id}-")
    assert Candidate.from_dict(json.loads(json.dumps(both.candidate.to_dict()))).id == both.candidate.id


def test_the_answers_change_the_recipe_of_the_search() -> None:
    lecture = RECIPES["lecture"]
    assert lecture.changed({}) is lecture or lecture.changed({}) == lecture
    assert lecture.changed({"learning_rate": 0.5, "batch_size": 32}) == replace(
        lecture, learning_rate=0.5, batch_size=32
    )
    photographs = replace(RECIPES["photographs"], erasing=0.5)
    assert photographs.changed({"augmentation": "none"}) == replace(photographs, shift=0, flip=0.0, erasing=0.0)
    # A bundle is the same whatever the recipe of the search is; single fields change it.
    changed = photographs.changed({"flip": 0.25, "augmentation": "strong"})
    assert changed == Recipe().changed({"augmentation": "strong", "flip": 0.25})
    assert (changed.flip, changed.shift) == (0.25, AUGMENTATIONS["strong"]["shift"])
    balanced = Recipe(class_weights="balanced")
    assert balanced.changed({"class_weights": "auto"}) == balanced


def test_a_job_is_trained_with_the_recipe_of_its_candidate(blobs: Dataset) -> None:
    recipe = Recipe(batch_size=16, shift=1)
    jobs = [job(NET), with_recipe(learning_rate=0.3), with_recipe(augmentation="strong", batch_size=8)]
    alone = {each.key: train(each, blobs, recipe.changed(each.candidate.recipe))[0] for each in jobs}
    losses = {key: trial.metrics["validation_loss"] for key, trial in alone.items()}
    assert len(set(losses.values())) == 3
    with LocalEvaluator(blobs, recipe, workers=2) as evaluator:
        trials = {trial.job.key: trial for trial in evaluator.evaluate(jobs)}
    assert {key: trial.metrics["validation_loss"] for key, trial in trials.items()} == losses  # bit for bit
    assert len({trial.metrics["latency_ms"] for trial in trials.values()}) == 1  # which is the network's


def test_a_recipe_that_cannot_be_is_a_failed_trial(blobs: Dataset) -> None:
    """As in a journal that was changed by hand: a search refuses it before."""
    with LocalEvaluator(blobs, Recipe(), workers=1) as evaluator:
        [trial] = evaluator.evaluate([with_recipe(learning_rate=-1.0)])
    assert trial.failure is not None
    assert trial.failure.kind == "invalid"
    assert "the question 'recipe/learning_rate'" in trial.failure.message


WRONG: list[tuple[str, tuple[Scalar, ...], str]] = [
    ("recipe/nonsense", (1, 2), "there is no field of a recipe 'nonsense' (known: augmentation, batch_size, "),
    ("recipe/learning_rat", (1, 2), "did you mean 'learning_rate'?"),
    ("recipe/learning_rate", (-1.0, 0.1), "recipe.learning_rate = -1.0: should be above 0 and 100 or less"),
    ("recipe/learning_rate", (0.1, 0.2, -1.0), "recipe.learning_rate = -1.0: should be above 0"),
    ("recipe/batch_size", (8.0, 64.0), "recipe.batch_size = 8.0: should be a whole number"),
    ("recipe/optimiser", ("adam", "sgd"), "recipe.optimiser = 'sgd': should be one of adamw, adam, muon"),
    ("recipe/augmentation", ("none", "storng"), "there is no augmentation 'storng'; did you mean 'strong'?"),
    ("recipe/precision", ("float32", "tf32"), "there is no field of a recipe 'precision'"),
]


@pytest.mark.parametrize(("name", "choices", "words"), WRONG)
def test_a_wrong_question_is_named_before_the_first_training(
    tmp_path: Path, name: str, choices: tuple[Scalar, ...], words: str
) -> None:
    space = Asks(name, *choices)
    with pytest.raises(SpaceError) as caught:
        nas.search(**{**OURS, "space": space}, out=tmp_path / "run")
    text = str(caught.value)
    assert text.startswith(f"the question '{name}' of the space")
    assert words in text
    assert "\n" not in text
    assert read(tmp_path / "run" / FILE)[0].trials == {}


def test_the_contract_names_a_wrong_question() -> None:
    class Nonsense(Tiny):
        def build(self, choose: Choose) -> Architecture:
            choose.suggest_float("recipe/nonsense", 0.0, 1.0)
            return super().build(choose)

    broken = [finding.broken for finding in check("space", Nonsense) if finding.broken]
    assert len(broken) == 1
    assert "'recipe/nonsense'" in broken[0]


class Elsewhere(Strategy):
    """Proposes a network of the space with a recipe that the space does not have."""

    def ask(self, count: int) -> list[Candidate]:
        return [Candidate(NET, {"recipe/learning_rate": 0.5})]


def test_a_recipe_that_the_space_does_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=r"Elsewhere proposes .*, but the space Rates has not the recipe"):
        nas.search(**{**OURS, "strategy": Elsewhere, "space": Rates()}, out=tmp_path / "run")


@pytest.mark.parametrize("space", [Cnn, Lecture])
def test_the_built_in_spaces_ask_if_they_are_told_to(space: type[Cnn | Lecture]) -> None:
    """And without it, they draw what they drew before: see the golden file."""
    assert [finding.broken for finding in check("space", space, {"recipe": "true"}) if finding.broken] == []
    asked = space(recipe=True).check_questions()
    check_questions(asked)
    names = [name for name in asked if name.startswith("recipe/")]
    assert names == [f"recipe/{n}" for n in ("learning_rate", "weight_decay", "label_smoothing", "augmentation")]
    assert asked["recipe/augmentation"].options == IMAGES
    assert {*IMAGES, *SERIES} == set(AUGMENTATIONS)
    for name in ("learning_rate", "weight_decay"):
        low, high = asked[f"recipe/{name}"].ends
        assert isinstance(low, float) and isinstance(high, float)  # noqa: PT018
        assert low < getattr(Recipe(), name) < high
    assert not [name for name in space().check_questions() if name.startswith("recipe/")]


class TestEvolve(StrategyContract):
    plugin = Evolve
    space = Lecture(recipe=True).within(Limits(max_parameters=40_000))


class TestTrialAndError(StrategyContract):
    plugin = TrialAndError
    space = Lecture(recipe=True).within(Limits(max_parameters=40_000))


def test_a_mutation_may_change_the_recipe_alone() -> None:
    space, rng = Rates(), Random(0)
    parent = space.sample(rng)
    child = space.mutate(parent, rng)
    assert child.architecture == parent.architecture
    assert child.id != parent.id
    assert child.parents == (parent.id,)
    others = {other.id for other in space.neighbours(parent, rng)}
    assert len(others) == len(RATES) - 1
    assert parent.id not in others


@pytest.mark.parametrize("strategy", ["evolve", "trial-and-error"])
def test_a_space_of_one_network_is_searched_for_its_recipe(tmp_path: Path, strategy: str) -> None:
    """Every recipe is a candidate of its own, in the search, in halving, and in the final selection."""
    outcome = nas.search(**{**OURS, "strategy": strategy, "space": Rates()}, out=tmp_path / "run")
    record = read(tmp_path / "run" / FILE)[0]
    told = [entry.trial for entry in record.told]
    rates = [trial.job.candidate.recipe["learning_rate"] for trial in told]
    assert sorted(rates) == RATES  # type: ignore[type-var]
    assert len({trial.job.seed for trial in told}) == len(RATES)
    assert len({trial.metrics["latency_ms"] for trial in told}) == 1
    finalists = {trial.id for group in outcome.finalists for trial in group}
    assert len(finalists) > 1
    assert {trial.job.candidate.recipe["learning_rate"] for trial in outcome.retrained} == {
        outcome.winner.job.candidate.recipe["learning_rate"]
    }


def test_the_winner_s_recipe_is_named_and_used_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    space = Asks("recipe/augmentation", "none")
    outcome = nas.search(**{**OURS, "space": space}, out=tmp_path / "runs" / "one")
    own = outcome.winner.id
    assert own == outcome.retrained[0].id
    card = (tmp_path / "runs" / "one" / "best" / "README.md").read_text()
    assert "with the recipe `default`, changed by a search: `augmentation none`" in card
    assert "| augmentation | none |" in card
    capsys.readouterr()
    show_result(outcome)
    assert "augmentation" in capsys.readouterr().out
    page = report(read(tmp_path / "runs" / "one" / FILE)[0])
    assert ">augmentation</th>" in page
    assert own in page
    shown = inline("show", "one", "--json", code=0).stdout
    assert json.loads(shown)["best"][0]["recipe"] == {"augmentation": "none"}
    predictions = predictions_of(outcome)
    assert predictions is not None
    before, after = predictions.examples.swapaxes(0, 1)
    assert (before == after).all()  # the recipe of the search would shift them

    kept = ("dataset", "evaluator", "precision", "device", "mlflow")
    again: dict[str, Any] = {name: OURS[name] for name in kept}
    for network in ("one", own, own[:14], f"one/{own}"):
        trained = nas.train(network, epochs=1.0, out=tmp_path / network.replace("/", "-of-"), **again)
        assert trained.winner.id == own
    named = nas.train("one", epochs=1.0, recipe="lecture", out=tmp_path / "named", **again)
    assert named.winner.id == outcome.architecture.id
    plain = nas.train(outcome.architecture, epochs=1.0, out=tmp_path / "plain", **again)
    assert plain.winner.id == outcome.architecture.id


def test_a_search_with_recipes_goes_on_where_it_was_ended(tmp_path: Path) -> None:
    settings = {**OURS, "strategy": "evolve", "space": Lecture(recipe=True), "trials": 9, "max_parameters": 5_000}
    settings |= {"options": {"initial": 3}, "dataset": Blobs, "evaluator": INLINE}
    nas.search(**settings, out=tmp_path / "whole")
    folder = tmp_path / "stopped"
    with pytest.raises(Interrupted):
        nas.search(**settings, out=folder, observers=[Stop(5)])
    nas.resume(folder, space=settings["space"], dataset=Blobs, evaluator=INLINE)
    assert results(folder) == results(tmp_path / "whole")


@pytest.mark.faults  # slow
def test_any_number_of_workers_finds_the_same_recipe(tmp_path: Path) -> None:
    few = ["--trials", "8", "--epochs", "0.1", "--mlflow", "off"]
    inline("search", *QUICK, *few, "--set", "space.recipe=true", "--workers", "1", "--out", str(tmp_path / "one"))
    settings = nas.Experiment.read(tmp_path / "one" / "search.toml", workers=2)
    with pytest.raises(Interrupted):
        nas.search(settings, out=tmp_path / "two", observers=[Stop(4)])
    inline("resume", str(tmp_path / "two"), "--workers", "3")
    assert results(tmp_path / "two") == results(tmp_path / "one")
