"""The final selection is honest, and what is handed over is what was tested."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import LOSS, Instant, finished, job
from safetensors.torch import save_file

from nas.architecture.architecture import Architecture, Limits
from nas.architecture.known import LECTURE
from nas.architecture.layers import Dense, Flatten
from nas.data.dataset import Dataset
from nas.errors import NasError
from nas.evaluation.cached import CachedEvaluator
from nas.objectives import Objective, best_seed, scored
from nas.records.journal import Journal
from nas.records.record import read
from nas.report.summary import Summary, verdict
from nas.run.selection import Now, Plan, best_trials, plan, retrain
from nas.statistics import difference_by_chance, interval
from nas.training.network import Network
from nas.trial import Job, Trial
from nas.winner.best import load_network, write_best
from nas.winner.sealed import Result

NETS = [Architecture((Flatten(), Dense(n))) for n in range(1, 9)]


def trial(net: Architecture, epochs: float, loss: float, seconds: float = 1.0) -> Trial:
    made = finished(job(net, epochs), loss)
    return scored(replace(made, metrics={**made.metrics, "train_seconds": seconds}), LOSS)


def test_the_best_are_those_of_the_longest_trainings_by_score_each_once() -> None:
    trials = [
        trial(NETS[0], 0.25, 0.01),
        trial(NETS[1], 1, 0.3),
        trial(NETS[2], 1, 0.2),
        trial(NETS[2], 0.25, 0.5),
    ]
    trials.append(Trial.failed(job(NETS[3]), "crash", "died"))
    assert [one.id for one in best_trials(trials, 3)] == [NETS[2].id, NETS[1].id, NETS[0].id]
    assert [one.job.epochs for one in best_trials(trials, 3)] == [1, 1, 0.25]


def test_equals_are_told_apart_by_what_they_are_not_by_who_came_first() -> None:
    trials = [trial(net, 1, 0.1) for net in NETS]
    assert best_trials(trials, 3) == best_trials(trials[::-1], 3)


def test_a_search_of_failures_says_why_there_is_no_winner() -> None:
    with pytest.raises(NasError, match=r"no winner \(for example: died of it\)"):
        best_trials([Trial.failed(job(NETS[0]), "crash", "died of it")], 3)


def test_the_plan_fits_the_time_that_is_left() -> None:
    best = [trial(net, 1, 0.1, seconds=20.0) for net in NETS[:3]]
    rich, poor, poorest = (plan(best, Limits(), 1.0, 2, seconds) for seconds in (350.0, 100.0, 5.0))
    assert rich == Plan(3, 2, 5.25)
    assert (poor.finalists, poor.seeds) == (2, 1)
    assert (poorest.finalists, poorest.seeds) == (1, 1)
    for chosen, seconds in ((rich, 350.0), (poor, 100.0), (poorest, 5.0)):
        rounds = -(-chosen.trainings // 2)
        assert rounds * chosen.epochs * 20.0 <= seconds
        assert 1.35 * chosen.epochs * 20.0 <= seconds  # one is through, even if another program begins


def test_the_plan_follows_the_pace_of_the_moment() -> None:
    best = [trial(net, 1, 0.1, seconds=20.0) for net in NETS[:3]]

    def epochs(count: int, now: Now | None = None) -> float:
        return plan(best[:count], Limits(), 1.0, 2, 400.0, enough=10.0, now=now).epochs

    assert plan(best, Limits(), 1.0, 2, 400.0, enough=10.0).trainings == 2
    assert epochs(2) == 18.5  # in 93 % of the time
    assert epochs(2, Now(slower=1.5)) == 12.25
    alone = plan(best, Limits(), 1.0, 2, 400.0, enough=20.0, now=Now(alone=1.5))
    assert (alone.trainings, alone.epochs) == (1, 24.0)
    assert plan(best, Limits(), 1.0, 2, 400.0, enough=20.0).epochs == 18.5


def test_few_trainings_share_the_cores() -> None:
    best = [trial(NETS[0], 1, 0.1, seconds=20.0)]
    one, helped = (
        plan(best, Limits(), 1.0, 2, 60.0, enough=2.0, now=now) for now in (None, Now(alone=1.6, cores=2))
    )
    assert (one.trainings, helped.trainings) == (1, 1)
    assert helped.epochs == pytest.approx(1.6 * one.epochs, abs=0.25)
    assert [Now(alone=2.2, cores=4).faster(count) for count in (1, 2, 4, 8)] == pytest.approx([1.0, 1.4, 2.2, 2.2])


def test_cores_that_one_training_does_not_use_train_a_second_finalist() -> None:
    best = [trial(net, 1, 0.1, seconds=20.0) for net in NETS[:2]]
    now = Now(alone=1.5, cores=2)
    two, four = (plan(best, Limits(), 1.0, workers, 400.0, enough=1e3, now=now) for workers in (2, 4))
    assert (two.trainings, four.trainings) == (1, 2)
    assert two.epochs == four.epochs


@pytest.mark.parametrize(
    ("trials", "expected"),
    [
        (1, Plan(1, 2, 8.0)),
        (4, Plan(2, 2, 4.0)),
        (24, Plan(2, 2, 4.0)),
        (40, Plan(3, 2, 4.0)),
        (120, Plan(3, 2, 12.0)),
        (180, Plan(3, 3, 12.0)),
        (500, Plan(5, 5, 12.0)),
        (1000, Plan(5, 5, 12.0)),
    ],
)
def test_more_trials_are_selected_from_for_longer_then_with_more_seeds(trials: int, expected: Plan) -> None:
    history = [trial(NETS[i % 8], 1, 0.1 + i / 1000) for i in range(trials)]
    assert plan(history, Limits(), 1.0, 2, None) == expected


def test_the_lecture_is_trained_beside_the_finalists_where_that_is_affordable() -> None:
    def costing(flops: float, count: int = 40) -> list[Trial]:
        made = [trial(NETS[i % 8], 1, 0.1 + i / 1000) for i in range(count)]
        return [replace(one, metrics={**one.metrics, "flops": flops}) for one in made]

    assert plan(costing(3e6), Limits(), 1.0, 2, None).lecture
    assert plan(costing(3e6), Limits(), 1.0, 2, None).trainings == 8  # 3 · 2, the favourite's third, the lecture's
    assert Plan(1, 1).repeats == [1]
    assert Plan(3, 2).repeats == [2, 2, 2]
    assert Plan(3, 3).repeats == [4, 3, 3]
    assert not plan(costing(3e6), Limits(), 1.0, 2, 5.0).lecture  # one training, and as long a one beside it
    assert not plan(costing(3e6), Limits((3, 224, 224), 10), 1.0, 2, None).lecture  # 100 times the operations
    assert not plan(costing(3e6), Limits((1, 8, 8), 10), 1.0, 2, None).lecture  # it does not fit
    with_it, without = (plan(costing(flops), Limits(), 1.0, 1, 90.0) for flops in (3e6, 1e3))
    assert with_it.lecture
    assert not without.lecture
    assert with_it.epochs < without.epochs  # it takes time, and the plan knows


def test_the_lecture_cannot_win() -> None:
    class LectureIsBest(Instant):
        def evaluate(self, jobs: Sequence[Job], /) -> Iterator[Trial]:
            for one in jobs:
                loss = 0.01 if one.candidate.architecture == LECTURE else 0.5
                yield scored(finished(one, loss), LOSS)

    best = [trial(net, 1, 0.1) for net in NETS[:2]]
    groups, lecture = retrain(LectureIsBest(), best, Plan(2, 2, 4.0, lecture=True), 0)
    assert {group[0].id: len(group) for group in groups} == {NETS[0].id: 3, NETS[1].id: 2}  # not an odd number
    assert LECTURE.id not in {group[0].id for group in groups}
    assert lecture is not None
    assert (lecture.id, lecture.job.epochs) == (LECTURE.id, 4.0)
    # As a finalist it can; its training is not done twice.
    groups, lecture = retrain(LectureIsBest(), [trial(LECTURE, 1, 0.1), *best], Plan(2, 2, 4.0, lecture=True), 0)
    assert groups[0][0].id == LECTURE.id
    assert lecture in groups[0]


def test_the_interval_of_an_accuracy_is_wilsons() -> None:
    low, high = interval(0.99, 1000)  # published: (990 + 1.92 ± 1.96 · √(9.9 + 0.96)) / 1003.84
    assert (low, high) == pytest.approx((0.98170, 0.99455), abs=1e-4)
    assert interval(1.0, 100)[1] == 1.0
    assert 0.96 < interval(1.0, 100)[0] < 0.97  # where the usual ± says that there is no doubt at all


def test_a_difference_by_chance_is_mcnemars() -> None:
    assert difference_by_chance(0, 0) == 1.0
    assert difference_by_chance(10, 10) == 1.0
    assert difference_by_chance(8, 1) == pytest.approx(2 * (1 + 9) / 2**9)  # exact: both tails of nine coins
    assert difference_by_chance(1, 8) == difference_by_chance(8, 1)
    assert difference_by_chance(40, 10) < 0.001


def test_networks_are_compared_image_by_image() -> None:
    labels, some = torch.tensor([0, 0, 0, 1]), torch.full((4, 2), 0.5)
    first, second = (
        Result(labels, torch.tensor([0, 0, 0, 0]), 0.1, some),
        Result(labels, torch.tensor([0, 1, 1, 1]), 0.2, some),
    )
    one = first.compared_with(second, "second", trial(NETS[0], 1, 0.1))
    assert first.balanced() == pytest.approx((1 / 2, 3 / 7))
    assert second.balanced() == pytest.approx(((1 / 3 + 1) / 2, (2 / 4 + 2 / 4) / 2))
    assert first.share_of(0) == 0.75
    assert (one.accuracy, one.only_winner, one.only_other) == (0.5, 2, 1)
    assert "may be chance" in verdict(one)
    assert "the winner is worse" in verdict(replace(one, only_winner=1, only_other=20))
    assert "the winner is better, by more than chance" in verdict(replace(one, only_winner=20, only_other=1))


def test_a_winner_that_is_not_better_than_the_most_frequent_class_is_called_so() -> None:
    outcome = read(Path(__file__).parent / "fixtures" / "journal-2.jsonl")[0].result()
    assert outcome is not None
    assert outcome.test_largest is None  # an older version wrote it
    before = Summary.of(outcome)
    counts = {"rose": [90, 9], "daisy": [10, 1]}
    header = replace(outcome.header, dataset={**outcome.header.dataset, "counts": counts})

    def last(accuracy: float, balanced: float, f1: float = 0.5) -> str:
        scores: dict[str, Any] = {
            "test_accuracy": accuracy,
            "test_balanced_accuracy": balanced,
            "test_macro_f1": f1,
        }
        made = Summary.of(replace(outcome, header=header, test_images=100, test_largest=0.9, **scores))
        assert ("balanced accuracy, test", f"{100 * balanced:.2f} %") in {row[:2] for row in made.rows}
        return " ".join(made.comparisons[len(before.comparisons) :])

    always = "always answering 'rose', the most frequent class, which is right for 90.00 % of"
    assert last(0.99, 0.98) == ""
    assert (
        last(0.92, 0.7) == f"On the test images it is better than {always} them, but the difference may be chance."
    )
    assert last(0.9, 0.5) == f"It is not better than {always} the test images: it has learned nothing of use."
    assert "its balanced accuracy is 85.00 %, and that of such an answer 50.00 %" in last(0.85, 0.85)
    assert "balanced" not in " ".join(row.label for row in before.rows)


def test_the_winner_has_the_best_mean_not_the_best_seed() -> None:
    losses = {NETS[0].id: [0.1, 0.9], NETS[1].id: [0.3, 0.4], NETS[2].id: [0.5, 0.5]}

    class Known(Instant):
        def evaluate(self, jobs: Sequence[Job], /) -> Iterator[Trial]:
            for one in reversed(jobs):
                self.jobs.append(one)
                yield scored(finished(one, losses[one.candidate.architecture.id].pop()), LOSS)

    evaluator = Known()
    best = [trial(net, 1, 0.1) for net in NETS[:3]]
    groups, _ = retrain(evaluator, best, Plan(3, 2, 5.0), seed=0)
    assert [group[0].id for group in groups] == [NETS[1].id, NETS[0].id, NETS[2].id]
    assert len({one.seed for one in evaluator.jobs}) == 6
    assert best[0].job.seed not in {one.seed for one in evaluator.jobs}
    assert {one.epochs for one in evaluator.jobs} == {5.0}


def test_the_smallest_loss_is_handed_over_whatever_the_objectives_are(tmp_path: Path) -> None:
    """Equal networks have one latency: the noise of its measurement chose the worst seed."""
    objectives = (Objective("latency_ms", -1), Objective("validation_accuracy"))
    seeds = {1: (0.9, 0.161), 2: (0.3, 0.160), 3: (0.8, 0.157), 4: (0.7, math.nan), 5: (0.6, 0.155)}

    class Measured(Instant):
        def evaluate(self, jobs: Sequence[Job], /) -> Iterator[Trial]:
            for one in jobs:
                done, (loss, latency) = finished(one), seeds[one.seed]
                yield replace(done, metrics={**done.metrics, "validation_loss": loss, "latency_ms": latency})

    trials: list[Trial] = []
    for some in ((1, 2, 3, 4), (5,)):  # as in a resumed search
        with Journal(tmp_path / "journal.jsonl") as journal:
            evaluator = CachedEvaluator(Measured(), journal, objectives)
            trials += evaluator.evaluate([job(NETS[0], 1, seed) for seed in some])
    good = [trial for trial in trials if trial.failure is None]
    assert [trial.job.seed for trial in good] == [1, 2, 3, 5]
    assert {trial.scores[0] for trial in good} == {-0.161}
    assert best_seed(good).job.seed == 2


def test_a_finalist_that_fails_is_left_out() -> None:
    class Breaks(Instant):
        def evaluate(self, jobs: Sequence[Job], /) -> Iterator[Trial]:
            for one in jobs:
                first = one.candidate.architecture == NETS[0]
                yield Trial.failed(one, "oom", "too large") if first else scored(finished(one), LOSS)

    best = [trial(net, 1, 0.1) for net in NETS[:2]]
    assert [group[0].id for group in retrain(Breaks(), best, Plan(2, 2, 1.0), 0)[0]] == [NETS[1].id]
    with pytest.raises(NasError, match="none of the finalists could be trained again: too large"):
        retrain(Breaks(), best[:1], Plan(1, 2, 1.0), 0)


def test_what_is_handed_over_comes_back_as_it_was(tmp_path: Path, blobs: Dataset) -> None:
    net = NETS[3]
    original = Network(net, (1, 8, 8), 3, mean=blobs.mean, std=blobs.std).eval()
    save_file(original.state_dict(), tmp_path / "trained.safetensors")
    loaded = write_best(tmp_path / "best", net, tmp_path / "trained.safetensors", blobs)
    images = blobs.validation.images
    with torch.no_grad():
        assert torch.equal(loaded(images), original(images))
    assert Architecture.from_json((tmp_path / "best/architecture.json").read_text()) == net


@pytest.mark.parametrize("damage", ["other architecture", "truncated", "no weights"])
def test_a_damaged_hand_over_is_refused(tmp_path: Path, blobs: Dataset, damage: str) -> None:
    original = Network(NETS[3], (1, 8, 8), 3)
    save_file(original.state_dict(), tmp_path / "w")
    write_best(tmp_path / "best", NETS[3], tmp_path / "w", blobs)
    weights, architecture = tmp_path / "best/weights.safetensors", tmp_path / "best/architecture.json"
    if damage == "other architecture":
        about = json.loads(architecture.read_text())
        architecture.write_text(json.dumps({**about, **LECTURE.to_dict(), "input_shape": [1, 28, 28]}))
    elif damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:-10])
    else:
        weights.unlink()
    with pytest.raises(NasError, match="does not hold a trained network"):
        load_network(tmp_path / "best")
