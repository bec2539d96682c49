"""What is best where there is more than one objective."""

from __future__ import annotations

from dataclasses import replace

import pytest
from conftest import finished, halved, job

from nas.architecture.architecture import Architecture, Limits
from nas.architecture.layers import Conv2d, GlobalAveragePool
from nas.objectives import Objective, best_first, corners, front, hypervolume, scored
from nas.run.selection import best_trials, plan
from nas.trial import Job, Trial

LOSS, SIZE = Objective("validation_loss", -1), Objective("parameters", -1)


def trial(filters: int, loss: float, size: float, epochs: float = 1.0) -> Trial:
    one = finished(job(Architecture((Conv2d(filters, 3), GlobalAveragePool())), epochs), loss)
    return scored(replace(one, metrics={**one.metrics, "parameters": size}), (LOSS, SIZE))


GOOD = trial(1, 0.1, 1000)
SMALL = trial(2, 0.5, 10)
BETWEEN = trial(3, 0.3, 100)
WORSE = trial(4, 0.4, 500)  # than BETWEEN, in both
SHORT = trial(5, 0.01, 1, epochs=0.25)
FAILED = Trial.failed(GOOD.job, "crash", "")


def test_the_front_is_what_nobody_beats_of_the_longest_trainings() -> None:
    assert front([WORSE, SMALL, FAILED, SHORT, GOOD, BETWEEN]) == [GOOD, BETWEEN, SMALL]
    assert front([FAILED]) == []


def test_the_best_stand_for_the_front_and_the_dominated_come_last() -> None:
    assert best_first([WORSE, SHORT, SMALL, BETWEEN, FAILED, GOOD]) == [GOOD, BETWEEN, SMALL, WORSE, SHORT]


def test_a_front_is_represented_by_its_knee_and_its_ends() -> None:
    others = [trial(6, 0.15, 700), trial(7, 0.45, 60)]  # of the front, too
    every = [WORSE, SHORT, SMALL, *others, BETWEEN, FAILED, GOOD]
    assert corners(every) == [GOOD, BETWEEN, SMALL]
    assert corners([FAILED]) == []
    assert corners([GOOD, WORSE]) == [GOOD, WORSE]
    assert best_trials(every, 9) == [GOOD, BETWEEN, SMALL, *others]  # and none that is not on the front


def test_the_knee_and_the_ends_are_trained_again_however_short_the_time_is() -> None:
    every = [replace(one, metrics={**one.metrics, "train_seconds": 10.0}) for one in (GOOD, BETWEEN, SMALL, WORSE)]
    assert plan(every, Limits(), 1.0, 1, seconds=8.0).finalists == 3
    assert plan(every, Limits(), 1.0, 1, seconds=None).finalists == 3
    one = [scored(trial, (LOSS,)) for trial in every]
    assert plan(one, Limits(), 1.0, 1, seconds=8.0).finalists == 1


def test_the_hypervolume_grows_with_what_is_not_dominated() -> None:
    def volume(*trials: Trial) -> float:
        return hypervolume(trials, (LOSS, SIZE), Limits())

    assert volume() == volume(FAILED) == 0
    assert 0 < volume(WORSE) < volume(WORSE, BETWEEN) == volume(BETWEEN) < volume(BETWEEN, GOOD, SMALL)
    # ln(10) and a million are the worst: one order of magnitude better in both is a square of side one.
    assert volume(trial(9, 0.23025850929940458, 1e5)) == pytest.approx(1.0)


def test_successive_halving_promotes_what_stands_for_the_front() -> None:
    short = [GOOD, SMALL, BETWEEN, WORSE]
    by_id = {one.id: one for one in short}

    class Known:
        def evaluate(self, jobs: list[Job], /) -> list[Trial]:
            return [replace(by_id[one.candidate.architecture.id], job=one) for one in jobs]

    done = halved(Known(), [one.job for one in short], reduction=2)  # type: ignore[arg-type]
    assert {one.id for one in done if one.job.epochs == 1.0} == {GOOD.id, BETWEEN.id}
