"""Many jobs on one device: each becomes what it would be alone, and a fault of a job costs that job only."""

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
from nas.spaces.space import Candidate
from nas.training.batches import Resident
from nas.training.gpu.lanes import Lane, Lanes
from nas.training.group import Group
from nas.training.recipe import Recipe
from nas.training.stepper import Stepper
from nas.training.trainer import initial_network, train
from nas.trial import Job, Trial

CHANGES = {"flip": 0.5, "rotation": 10.0, "scale": 0.1, "brightness": 0.2, "erasing": 0.2, "mixup": 0.2}
RECIPE = Recipe(batch_size=16, shift=1, **CHANGES)  # type: ignore[arg-type]
NET = Architecture((Conv2d(4, 3, activation="relu"), MaxPool(2), BatchNorm(), Flatten(), Dropout(0.2)))
OTHERS = [Architecture((Conv2d(n, 3, activation="relu", batch_norm=True), GlobalAveragePool())) for n in (2, 3)]
JOBS = [*(job(NET, 1.5, seed) for seed in range(5)), *(job(net, 1.5, 7) for net in OTHERS), job(NET, 2, 9)]
RATED = Candidate(NET, {"recipe/learning_rate": 0.3, "recipe/batch_size": 8, "recipe/augmentation": "none"})
JOBS.append(Job(RATED, 1.5, 1))
UNCAPTURED = JOBS[5]  # its architecture cannot be trained on a lane


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
    return losses([train(each, blobs, RECIPE.changed(each.candidate.recipe))[0] for each in JOBS])


@pytest.mark.parametrize("group", [1, 3])
def test_a_worker_on_a_cpu_trains_one_job_after_the_other(
    blobs: Dataset, tmp_path: Path, alone: dict[str, float], group: int
) -> None:
    with LocalEvaluator(blobs, RECIPE, workers=2, group=group, weights=tmp_path) as evaluator:
        trials = list(evaluator.evaluate(JOBS))
    assert losses(trials) == alone  # bit for bit
    assert {path.stem for path in tmp_path.glob("*.safetensors")} == set(alone)


@pytest.mark.faults
def test_what_ends_a_worker_costs_its_own_job_only(blobs: Dataset, tmp_path: Path) -> None:
    """The jobs of a group that have no trial yet are tried again, each alone."""
    dense = Architecture((Flatten(),))
    jobs = [job(dense, 1, seed) for seed in (20, 2, 21, 5, 22, 3, 23, 8, 24, 10, 25)]
    with Misbehaving(blobs, RECIPE, workers=2, device="cuda", group=11, weights=tmp_path) as evaluator:
        trials = {trial.job.seed: trial for trial in evaluator.evaluate(jobs)}
    failures = {seed: trial.failure.kind for seed, trial in trials.items() if trial.failure}
    assert failures == {2: "crash", 5: "crash", 3: "timeout", 8: "crash", 10: "crash"}
    assert sorted(trials) == sorted(each.seed for each in jobs)


class PlainLane(Lane):
    """A lane of a CPU: no stream and no graph.

    Args:
        data: on the CPU.
        beside: all lanes; this one is added.
        most: with more lanes than this that train at the same time, the memory is not enough.
    """

    def __init__(self, data: Resident, beside: list[PlainLane], most: int = 99) -> None:
        super().__init__(data, RECIPE)
        self.beside, self.most = beside, most
        self.begun = self.cleared = 0
        beside.append(self)

    def clear(self) -> None:
        self.cleared += 1
        super().clear()

    def stream(self) -> AbstractContextManager[object]:
        return nullcontext()

    def stepper(self, job: Job) -> Stepper:
        if job.candidate.architecture == UNCAPTURED.candidate.architecture:
            raise RuntimeError("cannot be captured")
        self.begun += 1
        if sum(lane.job is not None for lane in self.beside) >= self.most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        recipe = self.recipe.changed(job.candidate.recipe)
        return Stepper(initial_network(job, self.data.dataset), self.data, recipe)


class PlainLanes(Lanes):
    """Lanes of a CPU. All that were made are in ``made``, the warnings in ``warnings``."""

    def __init__(self, dataset: Dataset, size: int | str, most: int = 99, recipe: Recipe = RECIPE) -> None:
        data = Resident(dataset, "cpu")
        self.made: list[PlainLane] = []
        self.warnings: list[str] = []

        def make() -> PlainLane:
            lane = PlainLane(data, self.made, most)
            lane.recipe = recipe
            return lane

        super().__init__(make, size, self.warnings.append)

    def results(self, jobs: Sequence[Job]) -> tuple[list[Trial], list[Job]]:
        """The trials of jobs, and the jobs that are left for the plain loop."""
        waiting = deque(jobs)
        trials = [trial for trial, _ in self.train(waiting)]
        return trials, list(waiting)


@pytest.mark.parametrize("size", [1, 4, 99])
def test_lanes_take_turns_and_do_not_touch_each_other(blobs: Dataset, alone: dict[str, float], size: int) -> None:
    """What a lane cannot train is left for the plain loop, with one warning."""
    lanes = PlainLanes(blobs, size)
    trials, left = lanes.results([*(each for each in JOBS if each != UNCAPTURED), UNCAPTURED])
    assert losses(trials) == {key: loss for key, loss in alone.items() if key != UNCAPTURED.key}  # bit for bit
    assert left == [UNCAPTURED]
    what = "a network cannot be trained as a CUDA graph (RuntimeError: cannot be captured)"
    assert lanes.warnings == [f"{what}: it is trained step by step"]


def test_without_memory_fewer_lanes_train_at_a_time(blobs: Dataset, alone: dict[str, float]) -> None:
    lanes = PlainLanes(blobs, 99, most=2)
    trials, left = lanes.results([*JOBS[:5], JOBS[6]])
    assert losses(trials) == {each.key: alone[each.key] for each in (*JOBS[:5], JOBS[6])}
    assert left == []
    assert lanes.warnings == []
    assert sum(lane.begun for lane in lanes.made) == 7  # of six jobs, the third had to wait once


def test_a_network_that_is_too_large_for_a_lane_is_left(blobs: Dataset) -> None:
    lanes = PlainLanes(blobs, 99, most=0)
    trials, left = lanes.results(JOBS[:2])
    assert trials == []
    assert left == JOBS[:2]
    assert len(lanes.warnings) == 1
    assert "out of memory" in lanes.warnings[0]


def test_memory_of_idle_lanes_is_given_back(blobs: Dataset) -> None:
    lanes = PlainLanes(blobs, 99, most=2)
    assert len(lanes.results(JOBS[:2])[0]) == 2
    assert [lane.cleared for lane in lanes.made] == [0, 0]
    for lane in lanes.made:
        lane.most = 0
    lanes.results(JOBS[2:3])
    assert all(lane.cleared for lane in lanes.made)


@pytest.mark.parametrize("recipe", [RECIPE, Recipe(batch_size=16, learning_rate=1e30)])
def test_how_many_lanes_are_worth_it_is_measured(blobs: Dataset, recipe: Recipe) -> None:
    """Also with a network that ends before the measurement does."""
    lanes = PlainLanes(blobs, "auto", recipe=recipe)
    for jobs in (JOBS[:2], JOBS[2:5]):
        trials, _ = lanes.results(jobs)
        assert {trial.job.key for trial in trials} == {each.key for each in jobs}
        assert all(len(trial.curve) == (2 if recipe is RECIPE else 0) for trial in trials)


def test_for_one_job_no_lanes_are_measured(blobs: Dataset) -> None:
    lanes = PlainLanes(blobs, "auto")
    assert len(lanes.results(JOBS[:1])[0]) == 1
    assert len(lanes.made) == 1


def test_a_network_that_cannot_be_measured_leaves_the_measurement_to_the_next(blobs: Dataset) -> None:
    """The first network finds no room; that does not hold for the others."""
    lanes = PlainLanes(blobs, "auto", most=0)
    assert lanes.results(JOBS[:2]) == ([], JOBS[:2])
    for lane in lanes.made:
        lane.most = 99
    assert len(lanes.results(JOBS[:2])[0]) == 2
    assert lanes._worth


def test_after_one_graph_has_failed_no_other_is_tried(blobs: Dataset) -> None:
    lanes = PlainLanes(blobs, 1)
    jobs = [UNCAPTURED, JOBS[6], JOBS[0]]
    assert lanes.results(jobs) == ([], jobs)
    assert len(lanes.warnings) == 1


def test_models_of_torchvision_are_left_for_the_plain_loop(blobs: Dataset) -> None:
    """They may draw random numbers of their own, which the lanes would share."""
    jobs = [job(Architecture((Pretrained("squeezenet1_1", weights=False),)), 0.25, seed) for seed in (1, 2)]
    assert PlainLanes(blobs, 4).results([*jobs, JOBS[0]])[1] == jobs


def test_a_network_that_cannot_be_built_fails_alone(blobs: Dataset) -> None:
    bad = job(Architecture((Conv2d(2, 99), Flatten())), 1, 1)
    results = list(Group(blobs, RECIPE).train([bad, job(NET, 1, 1), job(NET, 1, 2)]))
    failed = [(trial.job, network) for trial, network in results if trial.failure]
    assert failed == [(bad, None)]
    assert len(results) == 3
