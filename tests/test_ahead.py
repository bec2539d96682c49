"""Batches that are asked for ahead: whatever ends first, the same is asked, told and found."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest
from conftest import LOSS, Instant, finished, job
from virtual import Virtual

import nas
from nas.architecture.architecture import Architecture, Limits
from nas.architecture.layers import Dense, Flatten
from nas.errors import JournalError, UsageError
from nas.evaluation.batches import Batches
from nas.evaluation.cached import CachedEvaluator
from nas.objectives import scored
from nas.records.journal import FILE, Journal
from nas.records.observer import Observer
from nas.records.record import line_of
from nas.search import Budget, Search
from nas.spaces.cnn import Cnn
from nas.spaces.space import Candidate
from nas.strategies.evolve import Evolve
from nas.strategies.reference import Reference
from nas.strategies.strategy import Strategy
from nas.strategies.trial_and_error import TrialAndError
from nas.trial import Job, Trial

SPACE = Cnn().within(Limits(max_parameters=34_826))


def made_up(one: Job) -> Trial:
    """The loss follows from the job; one network in ten crashes."""
    if int(one.candidate.id[:4], 16) % 10 == 0:
        return Trial.failed(one, "crash", "made up")
    return scored(finished(one), LOSS)


class Heard(Observer):
    """What a search says, in the order in which it says it."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def asked(self, count: int, candidates: Sequence[Candidate]) -> None:
        self.events += ["asked", *(candidate.id for candidate in candidates)]

    def told(self, trial: Trial) -> None:
        self.events += ["told", trial.job.key]

    def ended(self, reason: str) -> None:
        self.events += ["ended", reason]


def searched(
    strategy: Strategy, evaluator: Any, ahead: int, trials: int = 64, batch: int = 2, **budget: Any
) -> tuple[list[Trial], list[str]]:
    heard = Heard()
    limits = Budget(trials, batch=batch, ahead=ahead, **budget)
    history = Search(strategy, evaluator, limits, epochs=1.0, seed=1, observer=heard, rungs=2).run()
    return history, heard.events


@pytest.mark.parametrize("ahead", [1, 4, 32])
def test_no_schedule_changes_what_is_asked_told_and_found(ahead: int) -> None:
    """Thirty-four schedules of each: 1, 3 and 64 workers, random durations, workers that are lost."""
    rng = Random(ahead)
    expected = searched(Evolve(SPACE, objectives=LOSS), Virtual(made_up, 1), ahead)
    assert len(expected[0]) == len({trial.id for trial in expected[0]}) == 64
    for seed in range(34):
        evaluator = Virtual(made_up, rng.choice([1, 3, 64]), seed, rng.uniform(0.1, 2.0), rng.choice([0.0, 0.3]))
        assert searched(Evolve(SPACE, objectives=LOSS), evaluator, ahead) == expected


def test_no_schedule_changes_trial_and_error() -> None:
    expected = searched(TrialAndError(SPACE, objectives=LOSS), Virtual(made_up, 1), 4, 40, 4)
    assert len(expected[0]) == len({trial.id for trial in expected[0]}) == 40
    for seed in range(4):
        assert searched(TrialAndError(SPACE, objectives=LOSS), Virtual(made_up, 3, seed), 4, 40, 4) == expected


def test_a_batch_is_asked_for_when_those_up_to_ahead_before_it_are_told() -> None:
    history, events = searched(Evolve(SPACE, objectives=LOSS), Virtual(made_up, 64), 3, 16, 2)
    words = [event for event in events if event in ("asked", "told")]
    first = ["asked"] * 3
    assert words == [*first, *["told", "told", "asked"] * 5, *["told"] * 6]
    told = [key for word, key in pairwise(events) if word == "told"]
    assert sorted(told[:2]) == sorted(trial.job.key for trial in history[:2])


def test_ahead_is_part_of_the_result() -> None:
    one, four = (searched(Evolve(SPACE, objectives=LOSS), Virtual(made_up, 1), ahead)[0] for ahead in (1, 4))
    assert [trial.id for trial in one[:2]] == [trial.id for trial in four[:2]]
    assert [trial.id for trial in one] != [trial.id for trial in four]


@pytest.mark.parametrize(("workers", "ahead", "least"), [(8, 4, 0.70), (64, 64, 0.80)])
def test_ahead_keeps_workers_busy(workers: int, ahead: int, least: float) -> None:
    """Without it, 8 workers are busy for a quarter of the time, 64 for 3 % of it."""
    evaluator = Virtual(made_up, workers)
    searched(Evolve(SPACE, objectives=LOSS), evaluator, ahead, 25 * 8 * ahead, 8)
    assert evaluator.busy / evaluator.now / workers >= least


def test_known_networks_are_proposed_once() -> None:
    history, _ = searched(Reference(Cnn().within(Limits())), Virtual(made_up, 3), 4)
    assert len(history) == len({trial.id for trial in history}) > 4


def test_an_evaluator_that_trains_one_group_after_the_other_finds_the_same() -> None:
    expected = searched(Evolve(SPACE, objectives=LOSS), Virtual(lambda one: scored(finished(one), LOSS), 3), 4)
    assert searched(Evolve(SPACE, objectives=LOSS), Instant(), 4) == expected


def test_a_candidate_in_two_batches_is_trained_once(tmp_path: Path) -> None:
    class Parrot(Strategy):
        def ask(self, count: int) -> list[Candidate]:
            return [Candidate(Architecture((Flatten(), Dense(n)))) for n in (3, 4)]

    trained: list[str] = []

    def counted(one: Job) -> Trial:
        trained.append(one.key)
        return finished(one)

    with Journal(tmp_path / FILE) as journal:
        evaluator = CachedEvaluator(Virtual(counted, 3), journal, LOSS)
        history, _ = searched(Parrot(SPACE), evaluator, 3, 8)
    assert len(history) == 8
    assert len(trained) == len(set(trained)) == 3  # two short trainings and a full one


@pytest.mark.parametrize("ahead", [1, 4])
def test_patience_ends_a_search_with_the_batches_that_it_was_told(ahead: int) -> None:
    results = [
        searched(Evolve(SPACE, objectives=LOSS), Virtual(made_up, workers), ahead, 400, patience=12)
        for workers in (1, 64)
    ]
    assert results[0] == results[1]
    history, events = results[0]
    assert events.count("told") == len(history) < 400
    assert events[-2] == "ended"


def test_a_target_is_tried_again_before_all_else() -> None:
    """While others are in training, too."""
    begun: list[Job] = []

    def noted(one: Job) -> Trial:
        begun.append(one)
        return made_up(one)

    results = [
        searched(Evolve(SPACE, objectives=LOSS), Virtual(noted, workers), 4, 400, target=0.93)
        for workers in (64, 1)
    ]
    assert results[0] == results[1]
    history, events = results[0]
    assert "also with another seed" in events[-1]
    first, full = begun[-2:]  # of the one worker: nothing was trained between the two rungs of the second seed
    assert first.candidate == full.candidate
    assert full.seed == first.seed != next(one.job.seed for one in history if one.id == full.candidate.id)


def test_when_time_is_up_every_batch_keeps_what_it_has() -> None:
    class Short(Virtual):
        """Time is up after so many trainings."""

        left = 21

        def finished(self) -> list[Trial]:
            self.left -= 1
            return super().finished() if self.left >= 0 else []

    history, events = searched(Evolve(SPACE, objectives=LOSS), Short(made_up, 64), 4, 64, 8)
    assert 16 <= len(history) < 32
    assert events.count("told") == len(history)
    assert len({trial.id for trial in history}) == len(history)


def test_a_strategy_that_waits_for_its_trials_is_asked_again() -> None:
    class Careful(Strategy):
        """Proposes a pair of networks, and waits for it."""

        def ask(self, count: int) -> list[Candidate]:
            return [] if self.in_training else [self.space.sample(self.rng) for _ in range(count)]

    history, _ = searched(Careful(SPACE), Virtual(made_up, 3), 4, 8)
    assert len(history) == 8


def test_only_batches_that_no_clock_can_have_cut_are_settled(tmp_path: Path) -> None:
    """Time was up with three batches in training; with more time they are trained to their ends."""

    class Short(Virtual):
        left = 3

        def finished(self) -> list[Trial]:
            self.left -= 1
            return super().finished() if self.left >= 0 else []

    class Late(Budget):
        def next(self, asked: int) -> int:
            return super().next(asked) if getattr(evaluator, "left", 1) > 0 else 0

    def run() -> list[Trial]:
        with Journal(tmp_path / FILE) as journal:
            journal.begin({"config": {"ahead": 3}})
            cached = CachedEvaluator(evaluator, journal, LOSS, until=math.inf)
            sizes = {number: one.wanted for number, one in journal.record.asked.items()}
            budget = Late(8, batch=2, ahead=3, known=sizes, told=len(journal.record.told))
            strategy = Evolve(SPACE, objectives=LOSS)
            return Search(strategy, cached, budget, epochs=1.0, observer=journal, rungs=2).run()

    evaluator: Virtual = Short(made_up, 64, 1)
    cut = run()
    assert 0 < len(cut) < 6
    evaluator = Virtual(made_up, 64)
    whole = run()
    assert len(whole) == 8
    assert {trial.id for trial in cut} <= {trial.id for trial in whole}
    assert [trial.id for trial in whole] == [
        trial.id for trial in searched(Evolve(SPACE, objectives=LOSS), Virtual(made_up, 1), 3, 8)[0]
    ]


def test_a_class_that_changes_evaluate_alone_is_asked_by_it() -> None:
    class Changed(Virtual):
        def evaluate(self, jobs: Sequence[Job], /) -> Iterator[Trial]:
            for trial in super().evaluate(jobs):
                yield Trial.failed(trial.job, "crash", "changed")

    history, _ = searched(Evolve(SPACE, objectives=LOSS), Changed(made_up, 1), 2, 8)
    assert {trial.failure.message for trial in history if trial.failure} == {"changed"}
    assert len(history) == 8


def test_no_group_begins_when_time_is_up(tmp_path: Path) -> None:
    """Several batches were submitted in time, to an evaluator that knows no limit."""
    until = time.monotonic() + 0.3

    class Slow(Instant):
        def evaluate(self, jobs: Sequence[Job], /) -> Iterator[Trial]:
            time.sleep(0.4)
            yield from super().evaluate(jobs)

    evaluator = Slow()
    with Journal(tmp_path / FILE) as journal:
        history, _ = searched(
            Evolve(SPACE, objectives=LOSS), CachedEvaluator(evaluator, journal, LOSS, until=until), 4, 64
        )
    assert len(evaluator.jobs) == len(history) == 2


def test_a_time_is_no_objective_beside_other_trainings() -> None:
    with pytest.raises(UsageError, match="an objective of time needs ahead = 1"):
        nas.search(ahead=2, objectives=("-validation_loss", "-latency_ms"), mlflow="off")


def test_the_oldest_batch_begins_first() -> None:
    """Its second rung, too, although younger batches wait for their first."""
    begun: list[str] = []

    def noted(one: Job) -> Trial:
        begun.append(one.key)
        return finished(one)

    batches = Batches(Virtual(noted, 1), rungs=2)
    jobs = [[job(Architecture((Flatten(), Dense(n + 10 * k)))) for n in range(1, 5)] for k in range(3)]
    for batch in jobs:
        batches.submit(batch)
    for batch in jobs:
        ids = {one.candidate.id for one in batch}
        assert {trial.id for trial in batches.oldest()} == ids
        assert {key.partition("-")[0] for key in begun[:5]} == ids
        del begun[:5]


@pytest.mark.parametrize("ahead", [None, "4", -1, 1.5])
def test_a_journal_with_a_wrong_number_is_no_traceback(tmp_path: Path, ahead: object) -> None:
    with Journal(tmp_path / FILE) as journal:
        journal.begin({"config": {}})
    with (tmp_path / FILE).open("ab") as file:
        changes = {"config": {"ahead": ahead}}
        session = {"process": 1, "host": "here", "changes": changes, "more": False, "forced": False}
        file.write(line_of({"session": session}))
    with pytest.raises(JournalError, match="this is no entry of a journal"):
        Journal(tmp_path / FILE)
