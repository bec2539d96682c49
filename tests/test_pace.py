"""The final selection of a search with a time limit knows how fast networks train when it begins."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import finished, job
from test_planning import arrays

from nas.architecture.architecture import Architecture
from nas.architecture.layers import Dense, Flatten
from nas.experiment import Experiment
from nas.run.pace import LIKELY, pace_now, work
from nas.run.resolve import Resolved, resolve
from nas.run.selection import Now
from nas.trial import Job, Trial

CHEAP, DEAR = (Architecture((Flatten(), Dense(n))) for n in (2, 40))
COSTS = {CHEAP.id: 1e-3, DEAR.id: 3e-3}  # seconds for an image, in the search


class Paced:
    """Trains in no time, and says what it would have taken: ``slower`` than in the search, one alone faster."""

    def __init__(self, resolved: Resolved, slower: float, alone: float) -> None:
        self.resolved, self.slower, self.alone = resolved, slower, alone
        self.calls: list[list[Job]] = []

    def evaluate(self, jobs: Sequence[Job], /) -> Iterator[Trial]:
        """Backwards, because nobody may rely on the order."""
        self.calls.append(list(jobs))
        for one in reversed(jobs):
            seconds = self.slower * COSTS[one.candidate.architecture.id] * work(self.resolved, one.epochs)
            made = finished(one, 0.1)
            seconds /= self.alone if len(jobs) == 1 else 1.0
            yield replace(made, metrics={**made.metrics, "train_seconds": seconds})


@pytest.fixture
def resolved(tmp_path: Path) -> Resolved:
    path = arrays(tmp_path, images=3_000, side=8)
    return resolve(Experiment.of(dataset=str(path), workers=2, device="cpu", mlflow="off"))


def measured(resolved: Resolved, slower: float, alone: float, workers: int = 2) -> tuple[Now | None, Paced]:
    best = []
    for network in (CHEAP, DEAR):
        trial = finished(job(network), 0.1)
        seconds = COSTS[network.id] * work(resolved, 1.0)
        best.append(replace(trial, metrics={**trial.metrics, "train_seconds": seconds}))
    made: list[Paced] = []

    class Of(Resolved):
        def make_evaluator(
            self, weights: Path | None, until: float | None, warn: Callable[[str], None], begun: Any = None
        ) -> Any:
            made.append(Paced(self, slower, alone))
            return made[-1]

    with_pace = Of(**{**vars(resolved), "workers": workers})
    return pace_now(with_pace, best, 300.0), made[0]


def test_the_pace_is_that_of_the_moment(resolved: Resolved) -> None:
    now, paced = measured(resolved, 1.5, 1.2)
    assert now is not None
    assert now.slower == pytest.approx(1.5)
    assert now.alone == pytest.approx(1.2)
    _, together, short, alone = paced.calls
    assert [one.candidate.architecture for one in together] == [CHEAP, DEAR]
    assert together[0].epochs > together[1].epochs  # both take about as long, so that neither is alone at its end
    assert [one.candidate.architecture for one in alone] == [CHEAP]  # the best, which would be the only finalist
    assert short[0].epochs < alone[0].epochs
    assert len({one.seed for call in paced.calls for one in call}) == 6


def test_the_pace_of_few_images_is_measured_over_several_epochs(tmp_path: Path) -> None:
    path = arrays(tmp_path, images=200, side=8)
    few = resolve(Experiment.of(dataset=str(path), workers=2, device="cpu", mlflow="off"))
    now, paced = measured(few, 1.5, 1.2)
    assert now is not None
    assert now.alone == pytest.approx(1.2)
    *_, short, alone = paced.calls
    steps = (alone[0].epochs - short[0].epochs) * len(few.data.train) / few.recipe.batch_size
    assert steps >= 6  # or the time of a single step decides


def test_a_moment_that_cannot_last_is_not_believed(resolved: Resolved) -> None:
    (low, high), cores = LIKELY, resolved.cores_alone
    for slower, alone, expected in (
        (9.0, 9.0, Now(high, 2.0, cores)),  # alone as fast as in the search
        (1.0, 9.0, Now(1.0, cores / low, cores)),
        (0.1, 0.1, Now(low, 1.0, cores)),
    ):
        now, _ = measured(resolved, slower, alone)
        assert now is not None
        assert tuple(now) == pytest.approx(tuple(expected))


def test_one_worker_is_always_alone(resolved: Resolved) -> None:
    now, paced = measured(resolved, 1.5, 1.2, workers=1)
    assert len(paced.calls) == 2
    assert now is not None
    assert now.alone == 1.0


def test_results_without_times_say_nothing(resolved: Resolved) -> None:
    assert pace_now(resolved, [Trial(job(CHEAP), {"validation_loss": 1.0})], 300.0) is None
