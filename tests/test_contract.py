"""The contract: every part and every example keeps it, and of a plugin that does not it says what is broken."""

from __future__ import annotations

import math
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch

from nas import plugins
from nas.architecture.architecture import Architecture
from nas.architecture.layers import Conv2d, Dense, Flatten, GlobalAveragePool
from nas.data import open_named
from nas.data.dataset import Array, Dataset, Split
from nas.data.plugin import DatasetPlugin
from nas.errors import UsageError
from nas.objectives import Objective
from nas.spaces.space import Candidate, Choose, SearchSpace
from nas.strategies.evolve import Evolve
from nas.strategies.strategy import Strategy
from nas.testing import Finding, StrategyContract, check
from nas.testing.strategies import Sketch
from nas.trial import Job, Trial

EXAMPLES = Path(__file__).parent.parent / "plugins"
SETTINGS: dict[str, dict[str, Any]] = {  # of layers without defaults
    "cell": {
        "operations": ("nor_conv_3x3", "skip_connect", "none", "avg_pool_3x3", "nor_conv_1x1", "skip_connect")
    },
    "conv1d": {"filters": 4},
    "conv2d": {"filters": 4},
    "dense": {"units": 4},
    "embedding": {"size": 4},
    "gru": {"units": 4},
    "lstm": {"units": 4},
    "pretrained": {"model": "mobilenet_v3_small", "weights": False},
    "residual-block": {"filters": 4},
    "residual-block1d": {"filters": 4},
    "separable-conv1d": {"filters": 4},
    "separable-conv2d": {"filters": 4},
}
EVERY = [(kind, name) for kind in plugins.KINDS for name in sorted(plugins.names(kind, [EXAMPLES]))]
EVERY.remove(("evaluator", "ray"))  # needs a cluster: test_cluster.py


def broken(findings: Iterator[Finding]) -> dict[str, str]:
    return {finding.requirement: finding.broken for finding in findings if finding.broken}


# Two take 8 to 13 s each.
MARKS = {
    "mnist": [pytest.mark.mnist], "mnist-rows": [pytest.mark.mnist], "fashion-mnist": [pytest.mark.faults],
    "pretrained": [pytest.mark.faults],
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "name"),
    [pytest.param(kind, name, marks=MARKS.get(name, [])) for kind, name in EVERY],
)
def test_every_part_and_every_example_keeps_its_contract(kind: str, name: str) -> None:
    if name in ("cifar10", "fashion-mnist") and open_named(name).locate() is None:
        pytest.skip(f"{name} is not on this machine")
    findings = list(check(kind, plugins.find(kind, name, [EXAMPLES]), SETTINGS.get(name)))
    assert len(findings) >= 7
    assert broken(iter(findings)) == {}
    assert not [finding for finding in findings if finding.skipped]


def test_a_refusal_of_two_objectives_is_reported() -> None:
    findings = list(check("strategy", TakesOneObjective))
    skipped = [finding.skipped for finding in findings if finding.skipped]
    assert skipped == ["it refuses two objectives: one objective, please"]
    assert broken(iter(findings)) == {}


class TestOldestDie(StrategyContract):
    """As the author of a plugin writes it: pytest runs every requirement, with these options."""

    plugin = Evolve
    options = {"population": 4, "initial": 2, "tournament": 2}  # noqa: RUF012


def test_a_wrong_option_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="did you mean 'population'"):
        list(check("strategy", Evolve, {"populaton": 3}))


# --- broken strategies


class Sampling(Strategy):
    def ask(self, count: int) -> list[Candidate]:
        return [self.space.sample(self.rng) for _ in range(count)]


class TooMany(Sampling):
    def ask(self, count: int) -> list[Candidate]:
        return super().ask(count + 1)


class NoCandidates(Sampling):
    def ask(self, count: int) -> list[Any]:
        return [candidate.architecture for candidate in super().ask(count)]


class GlobalNumbers(Strategy):
    def ask(self, count: int) -> list[Candidate]:
        return [self.space.sample(Random(random.random())) for _ in range(count)]


class SeedsNumpy(Sampling):
    def ask(self, count: int) -> list[Candidate]:
        np.random.seed(0)
        return super().ask(count)


class NoSeed(Strategy):
    def ask(self, count: int) -> list[Candidate]:
        rng = Random()
        return [self.space.sample(rng) for _ in range(count)]


class CountsItsAsks(Strategy):
    asks = 0

    def ask(self, count: int) -> list[Candidate]:
        self.asks += 1
        rng = Random(f"{self.seed}/{self.asks}")
        return [self.space.sample(rng) for _ in range(count)]


class LikesSuccess(Sampling):
    def tell(self, trials: Sequence[Trial]) -> None:
        super().tell(trials)
        self.best = max(trial.scores[0] for trial in self.history or trials) if trials else 0.0


class Divides(Sampling):
    def ask(self, count: int) -> list[Candidate]:
        self.mean = sum(trial.scores[0] for trial in self.history if trial.scores) / len(self.history)
        return super().ask(count)


class OtherChoices(Sampling):
    def ask(self, count: int) -> list[Candidate]:
        found = super().ask(count)
        return [
            replace(own, choices=other.choices) for own, other in zip(found, found[1:] + found[:1], strict=True)
        ]


class NothingAtAll(Strategy):
    def ask(self, count: int) -> list[Candidate]:
        return []


class AlwaysTheSame(Strategy):
    def ask(self, count: int) -> list[Candidate]:
        rng = Random(self.seed)
        return [self.space.sample(rng) for _ in range(count)]


class CountsItsTells(Sampling):
    tells = 0

    def tell(self, trials: Sequence[Trial]) -> None:
        self.tells += 1

    def ask(self, count: int) -> list[Candidate]:
        rng = Random(f"{self.seed}/{self.tells}")
        return [self.space.sample(rng) for _ in range(count)]


class OneScore(Sampling):
    def ask(self, count: int) -> list[Candidate]:
        assert all(len(trial.scores) == 1 for trial in self.history if trial.failure is None)
        return super().ask(count)


class TooLarge(Sampling):
    def ask(self, count: int) -> list[Candidate]:
        largest = {
            f"conv{i}/{what}": 3 if what == "kernel" else 32 for i in range(3) for what in ("kernel", "filters")
        }
        answers = {"convolutions": 1, **largest, "pool": False, "dropout": 0.25, "units": 100}
        unlimited = self.space.within(replace(self.space.limits, max_parameters=None))
        return [unlimited.replay(answers, self.rng)]


class OnlyNew(Strategy):
    def ask(self, count: int) -> list[Candidate]:
        seen = {trial.id for trial in self.history}
        found: dict[str, Candidate] = {}
        while len(found) < count:
            candidate = self.space.sample(self.rng)
            if candidate.architecture.id not in seen:
                found[candidate.architecture.id] = candidate
        return list(found.values())


class TakesOneObjective(Sampling):  # not broken
    def __init__(self, space: SearchSpace, *, objectives: Sequence[Objective] = (), seed: int = 0) -> None:
        super().__init__(space, objectives=objectives, seed=seed)
        if len(objectives) > 1:
            raise UsageError("one objective, please")


# --- broken spaces


class GlobalSpace(SearchSpace):
    def build(self, choose: Choose) -> Architecture:
        units = choose.suggest_int("units", 1, 9)
        return Architecture((Flatten(), Dense(units + random.randrange(9))))


class NothingFits(SearchSpace):
    def build(self, choose: Choose) -> Architecture:
        return Architecture((Conv2d(choose.suggest_int("filters", 1, 9), 99), GlobalAveragePool()))


class TwoQuestions(SearchSpace):
    def build(self, choose: Choose) -> Architecture:
        wide = choose.suggest_categorical("wide", [True, False])
        return Architecture((Flatten(), Dense(choose.suggest_categorical("units", [8, 16] if wide else [4, 8]))))


class Lists(SearchSpace):
    def build(self, choose: Choose) -> Architecture:
        return Architecture(
            (Flatten(), *(Dense(n) for n in choose.suggest_categorical("units", [(4, 8), (8, 4)])))
        )


class LonelyNetworks(Sketch):
    def neighbours(self, candidate: Candidate, rng: Random) -> Iterator[Candidate]:
        return iter(())


# --- broken data sets


class Noise(DatasetPlugin):
    classes = ("one", "other")

    def images(self, count: int, seed: int) -> tuple[Array, Array]:
        return np.random.default_rng(seed).integers(0, 256, (count, 1, 4, 4)).astype(np.uint8), np.arange(
            count
        ) % 2

    def load(self) -> Dataset:
        return Dataset.of("noise", Split.of(*self.images(40, 0)), Split.of(*self.images(10, 1)), self.classes)

    def load_test(self) -> Split:
        return Split.of(*self.images(10, 2))


class SharesImages(Noise):
    def images(self, count: int, seed: int) -> tuple[Array, Array]:
        return super().images(count, min(seed, 1))


class WrongLabels(Noise):
    def images(self, count: int, seed: int) -> tuple[Array, Array]:
        images, labels = super().images(count, seed)
        return images, labels + 1


class Floats(Noise):
    def load(self) -> Dataset:
        data = super().load()
        return replace(data, train=Split(data.train.images.to(torch.float32), data.train.labels))


class NewEveryTime(Noise):
    def images(self, count: int, seed: int) -> tuple[Array, Array]:
        return super().images(count, random.randrange(10**6))


class Oval(Noise):
    framing = "oval"


# --- broken evaluators

INLINE: Any = plugins.find("evaluator", "inline", [EXAMPLES])


class LosesAJob(INLINE):  # type: ignore[misc]
    def evaluate(self, jobs: Sequence[Job], /) -> Iterator[Trial]:
        yield from super().evaluate(jobs[:2])


class Raises(INLINE):  # type: ignore[misc]
    def evaluate(self, jobs: Sequence[Job], /) -> Iterator[Trial]:
        for trial in super().evaluate(jobs):
            if trial.failure:
                raise RuntimeError(trial.failure.message)
            yield trial


class AlwaysFails(INLINE):  # type: ignore[misc]
    def evaluate(self, jobs: Sequence[Job], /) -> Iterator[Trial]:
        return (Trial.failed(job, "crash", "no luck") for job in jobs)


class NoTrials(INLINE):  # type: ignore[misc]
    def evaluate(self, jobs: Sequence[Job], /) -> Iterator[Trial]:
        return iter(())


class NotANumber(INLINE):  # type: ignore[misc]
    def evaluate(self, jobs: Sequence[Job], /) -> Iterator[Trial]:
        for trial in super().evaluate(jobs):
            yield replace(trial, metrics={**trial.metrics, "latency_ms": math.nan})


class ForgetsWeights(INLINE):  # type: ignore[misc]
    def __init__(self, dataset: Dataset, recipe: Any) -> None:
        super().__init__(dataset, recipe)


BROKEN: list[tuple[type[Any], str, str]] = [
    (TooMany, "as many as were asked for or fewer", "asked for 1 candidates, it returned 2"),
    (NoCandidates, "Returns a list of candidates", "ask must return a list of Candidates, and returned [Archit"),
    (GlobalNumbers, "Leaves the global random numbers", "it draws from, or seeds, random: draw from self.rng"),
    (SeedsNumpy, "Leaves the global random numbers", "it draws from, or seeds, numpy.random"),
    (NoSeed, "same seed", "with the same seed it proposes other candidates the second time (as number 1, "),
    (CountsItsAsks, "nothing but the trials", "told the same trials all at once proposes other candidates next"),
    (LikesSuccess, "every trial fails", "tell with 8 trials, of which 8 failed raised IndexError: tuple index"),
    (Divides, "without trials", "ask(8) after 0 trials raised ZeroDivisionError: division by zero"),
    (OtherChoices, "valid candidates", "has the choices {'convolutions': "),
    (TooLarge, "valid candidates", "does not fit: it has "),
    (NothingAtAll, "Returns a list of candidates", "it proposes nothing at all"),
    (NothingAtAll, "every trial fails", "it proposes nothing at all"),
    (AlwaysTheSame, "batches of one", "in 5 batches of one it proposes the same network"),
    (CountsItsTells, "an empty list", "after it was told an empty list, it proposes other candidates"),
    (OneScore, "two objectives", "ask(8) after 8 trials raised AssertionError"),
    (OnlyNew, "Ends if nothing new is left", "it never stops drawing from a space of size 1"),
    (GlobalSpace, "the same network from the same answers", "which build another network"),
    (NothingFits, "enough fit the limits", "none of 1,000 networks drawn from the space NothingFits fits"),
    (LonelyNetworks, "Has neighbours", "has no neighbours"),
    (
        TwoQuestions,
        "the same question",
        "'units' of the space asks once for one of [4, 8] and once for one of [8, 16]",
    ),
    (Lists, "plain values", "the answer to 'units' is (8, 4)"),
    (SharesImages, "no image in two", "10 images are both in the validation and in the test split"),
    (WrongLabels, "right types", "expected labels from 0 to 1, found 2"),
    (Floats, "right types", "expected images of type torch.uint8, found torch.float32"),
    (Oval, "image file is made similar", "its framing is 'oval', and should be one of stretch, crop, pad"),
    (NewEveryTime, "same each time it is loaded", "loaded twice, it has the fingerprints "),
    (LosesAJob, "one trial for each", "3 trials expected, one for each job; 2 returned"),
    (AlwaysFails, "one trial for each", "the training of a small network failed: "),
    (AlwaysFails, "equal results", "the training of a small network failed: "),
    (NoTrials, "every metric", "1 trials expected, one for each job; 0 returned"),
    (Raises, "a job that cannot be trained", "evaluate with 2 jobs raised RuntimeError: layer 1"),
    (NotANumber, "every metric", "the metric latency_ms is nan"),
    (ForgetsWeights, "Writes the weights", ".safetensors, found nothing"),
]


@pytest.mark.parametrize(
    ("plugin", "requirement", "message"), BROKEN, ids=[plugin.__name__ for plugin, _, _ in BROKEN]
)
def test_a_broken_plugin_has_a_finding_that_says_why(plugin: type[Any], requirement: str, message: str) -> None:
    parents: dict[str, type[Any]] = {"strategy": Strategy, "space": SearchSpace, "dataset": DatasetPlugin}
    kind = next((kind for kind, parent in parents.items() if issubclass(plugin, parent)), "evaluator")
    found = broken(check(kind, plugin))
    assert any(requirement in name and message in reason for name, reason in found.items()), found
    assert "\n" not in "".join(found.values())


def test_the_example_of_a_package_is_installed_and_found(tmp_path: Path) -> None:
    shutil.copytree(EXAMPLES / "annealing", tmp_path / "source")
    target = tmp_path / "installed"
    install = ["uv", "pip", "install", "--quiet", "--offline", "--no-deps", "--no-build-isolation"]
    install += ["--python", sys.executable, "--target", str(target), str(tmp_path / "source")]
    subprocess.run([sys.executable, "-m", *install], check=True)
    nas = [sys.executable, "-m", "nas", "plugins"]

    def run(*words: str) -> str:
        done = subprocess.run(
            [*nas, *words],
            env={**os.environ, "PYTHONPATH": str(target)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    assert "nas-annealing 1.0.0, nas_annealing:Annealing" in run("list")
    assert "all 12 requirements hold" in run("check", "annealing")
