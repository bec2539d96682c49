"""Many jobs on one device: what one of them does costs that one only, and each is what it would be alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest
import torch
from conftest import job
from work import Misbehaving

from nas.architecture.architecture import Architecture
from nas.architecture.layers import BatchNorm, Conv2d, Dropout, Flatten, GlobalAveragePool, MaxPool, Pretrained
from nas.data.dataset import Dataset
from nas.evaluation.local.local import LocalEvaluator
from nas.training.batches import Resident
from nas.training.gpu.lanes import Lane, Lanes
from nas.training.group import Group
from nas.training.network import right_and_loss
from nas.training.recipe import Recipe
from nas.training.stepper import Stepper
from nas.training.trainer import Steps, Trained, Training, network_of, train
from nas.trial import Job, Trial

ROUNDING = 5e-2  # of float32, after steps that amplify it; in float64 it is 1e-9 (test_copies.py)
RECIPE = Recipe(batch_size=16, shift=1)
NET = Architecture((Conv2d(4, 3, activation="relu"), MaxPool(2), BatchNorm(), Flatten(), Dropout(0.2)))
OTHERS = [Architecture((Conv2d(n, 3, activation="relu", batch_norm=True), GlobalAveragePool())) for n in (2, 3)]
JOBS = [*(job(NET, 1.5, seed) for seed in range(5)), *(job(one, 1.5, 7) for one in OTHERS), job(NET, 2, 9)]


def losses(trials: Sequence[Trial]) -> dict[str, float]:
    return {trial.job.key: trial.metrics["validation_loss"] for trial in trials}


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """As in a worker: two give other bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def alone(blobs: Dataset, one_thread: None) -> dict[str, float]:
    return losses([train(one, blobs, RECIPE)[0] for one in JOBS])


@pytest.mark.parametrize("group", [1, 3])
def test_a_worker_trains_groups(blobs: Dataset, tmp_path: Path, alone: dict[str, float], group: int) -> None:
    with LocalEvaluator(blobs, RECIPE, workers=2, group=group, weights=tmp_path) as evaluator:
        trials = list(evaluator.evaluate(JOBS))
    assert losses(trials) == (alone if group == 1 else pytest.approx(alone, rel=ROUNDING))
    assert {path.stem for path in tmp_path.glob("*.safetensors")} == set(alone)


def test_what_ends_a_worker_costs_its_own_job_only(blobs: Dataset, tmp_path: Path) -> None:
    """Of a group, those that have no trial yet are tried again, each alone."""
    dense = Architecture((Flatten(),))
    jobs = [job(dense, 1, seed) for seed in (20, 2, 21, 5, 22, 3, 23, 8, 24, 10, 25)]
    with Misbehaving(blobs, RECIPE, workers=2, group=11, weights=tmp_path) as evaluator:
        trials = {trial.job.seed: trial for trial in evaluator.evaluate(jobs)}
    failures = {seed: trial.failure.kind for seed, trial in trials.items() if trial.failure}
    assert failures == {2: "crash", 5: "crash", 3: "timeout", 8: "crash", 10: "crash"}
    assert sorted(trials) == sorted(one.seed for one in jobs)


class PlainLane(Lane):
    """A lane of a CPU: no stream, no graph, and it may be out of memory."""

    def __init__(self, data: Resident, most: int = 99, log: list[int] | None = None) -> None:
        super().__init__(data, RECIPE)
        self.most, self.log = most, [] if log is None else log
        self.was_cleared = 0

    def clear(self) -> None:
        self.was_cleared += 1
        super().clear()

    def stream(self) -> AbstractContextManager[object]:
        return nullcontext()

    def steps(self, jobs: Sequence[Job]) -> Steps:
        if any(one.candidate.architecture == OTHERS[0] for one in jobs):
            raise RuntimeError("cannot be captured")
        self.log.append(len(jobs))
        if len(jobs) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return Stepper(network_of(jobs, self.data.dataset), self.data, self.recipe)


def on_lanes(
    data: Dataset, jobs: Sequence[list[Job]], size: int, most: int = 99
) -> tuple[list[Trained], list[int]]:
    log: list[int] = []
    said: list[str] = []
    resident = Resident(data, "cpu")
    lanes = Lanes(lambda: PlainLane(resident, most, log), size, said.append)
    sets = deque(jobs)
    trained = [one for results in lanes.train(sets) for one in results]
    assert list(sets) == [one for one in jobs if one[0].candidate.architecture == OTHERS[0]]
    what = "a network cannot be trained as a CUDA graph (RuntimeError: cannot be captured)"
    assert said == [f"{what}: it is trained step by step"] * bool(sets)
    return trained, log


@pytest.mark.parametrize("size", [1, 4, 99])
def test_lanes_take_turns_and_touch_nobody(blobs: Dataset, alone: dict[str, float], size: int) -> None:
    """What a lane cannot do is left for the plain loop, and said once."""
    last = [one for one in JOBS if one.candidate.architecture == OTHERS[0]]
    trained, _ = on_lanes(blobs, [[one] for one in JOBS if one not in last] + [last], size)
    expected = {key: loss for key, loss in alone.items() if not key.startswith(OTHERS[0].id)}
    assert losses([trial for trial, _ in trained]) == expected  # bit for bit


def test_lanes_without_memory_are_split(blobs: Dataset, alone: dict[str, float]) -> None:
    trained, log = on_lanes(blobs, [JOBS[:5], JOBS[6:7]], 99, most=2)
    # Five are too many: two and three. Three are too many beside two, so they wait until they are alone, and are
    # too many then: one and two.
    assert log == [5, 2, 3, 1, 3, 1, 2]
    expected = {one.key: alone[one.key] for one in (*JOBS[:5], JOBS[6])}
    assert losses([trial for trial, _ in trained]) == pytest.approx(expected, rel=ROUNDING)


def test_memory_of_idle_lanes_is_given_back(blobs: Dataset) -> None:
    data = Resident(blobs, "cpu")
    made: list[PlainLane] = []

    def make() -> PlainLane:
        made.append(PlainLane(data, most=2))
        return made[-1]

    lanes = Lanes(make, 99, lambda line: None)
    assert len(list(lanes.train(deque([JOBS[:1], JOBS[1:2]])))) == 2
    assert [lane.was_cleared for lane in made] == [0, 0]
    list(lanes.train(deque([JOBS[:3]])))
    assert all(lane.was_cleared for lane in made)


@pytest.mark.parametrize("recipe", [RECIPE, Recipe(batch_size=16, learning_rate=1e30)])
def test_how_many_lanes_are_worth_it_is_measured(blobs: Dataset, recipe: Recipe) -> None:
    """Also with a network that ends before the measurement does."""
    data = Resident(blobs, "cpu")

    def make() -> PlainLane:
        lane = PlainLane(data)
        lane.recipe = recipe
        return lane

    lanes = Lanes(make, "auto", lambda line: None)
    for jobs in (JOBS[:2], JOBS[2:5]):
        results = [trial for trained in lanes.train(deque([one] for one in jobs)) for trial, _ in trained]
        assert {trial.job.key for trial in results} == {one.key for one in jobs}
        assert all(len(trial.curve) == (2 if recipe is RECIPE else 0) for trial in results)


def test_for_one_job_no_lanes_are_measured(blobs: Dataset) -> None:
    made: list[PlainLane] = []

    def make() -> PlainLane:
        made.append(PlainLane(Resident(blobs, "cpu")))
        return made[-1]

    lanes = Lanes(make, "auto", lambda line: None)
    assert len(list(lanes.train(deque([JOBS[:1]])))) == 1
    assert len(made) == 1


def test_what_cannot_be_measured_leaves_the_next_to_be_measured(blobs: Dataset) -> None:
    """The first network has no room for itself; that says nothing about the others."""
    log: list[int] = []
    data = Resident(blobs, "cpu")
    lanes = Lanes(lambda: PlainLane(data, 2, log), "auto", lambda line: None)
    assert len(list(lanes.train(deque([JOBS[:3], JOBS[6:7]])))) == 3
    assert log[0] == 3  # tried, and no rate
    list(lanes.train(deque([JOBS[:1], JOBS[1:2]])))
    assert lanes._worth


def test_after_one_graph_has_failed_no_other_is_tried(blobs: Dataset) -> None:
    data, said = Resident(blobs, "cpu"), list[str]()
    lanes = Lanes(lambda: PlainLane(data), 1, said.append)
    sets = deque([[one] for one in (JOBS[5], JOBS[6], JOBS[0])])
    assert list(lanes.train(sets)) == []
    assert len(sets) == 3
    assert len(said) == 1


def test_a_copy_that_only_guesses_keeps_what_it_had(blobs: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside one that learns, and goes on."""
    [first, second] = (job(NET, 4, seed) for seed in (1, 2))
    data = Resident(blobs, "cpu")
    training = Training([first, second], Stepper(network_of([first, second], blobs), data, RECIPE))
    answers = iter([True])  # of the first copy after two epochs; then the second is asked, which learns
    monkeypatch.setattr(training, "_only_guesses", lambda point: next(answers, False))
    for _ in training.run():
        pass
    results = training.results()
    for (trial, network), epochs in zip(results, (2, 4), strict=True):
        assert [point["epoch"] for point in trial.curve] == [1, 2, 3, 4][:epochs]
        assert trial.epochs == epochs
        _, loss = right_and_loss(network, blobs.validation.images, blobs.validation.labels)
        assert loss == pytest.approx(trial.metrics["validation_loss"], rel=1e-5)
    _, (other, _) = results
    assert len({point["validation_loss"] for point in other.curve}) == 4  # the weights have changed after that


def test_models_of_torchvision_are_trained_one_by_one(blobs: Dataset, one_thread: None) -> None:
    """They draw random numbers of their own, which copies would share. (This one does, for dropout.)"""
    net = Architecture((Pretrained("squeezenet1_1", weights=False),))
    jobs = [job(net, 0.25, seed) for seed in (1, 2, 3)]
    together = [trial for trial, _ in Group(blobs, RECIPE, size=3).train(jobs)]
    assert losses(together) == losses([train(one, blobs, RECIPE)[0] for one in jobs])


def test_one_that_cannot_be_built_fails_alone(blobs: Dataset) -> None:
    bad = job(Architecture((Conv2d(2, 99), Flatten())), 1, 1)
    results = list(Group(blobs, RECIPE, size=4).train([bad, job(NET, 1, 1), job(NET, 1, 2)]))
    failed = [(trial.job, network) for trial, network in results if trial.failure]
    assert failed == [(bad, None)]
    assert len(results) == 3
