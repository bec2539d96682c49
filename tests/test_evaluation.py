"""Real worker processes: what one candidate does costs that candidate only."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from conftest import LOSS, job, with_epochs

from nas.architecture.architecture import Architecture
from nas.architecture.layers import Conv2d, Dense, Flatten, GlobalAveragePool
from nas.data.dataset import Dataset
from nas.evaluation.local import LocalEvaluator
from nas.evaluation.recorded import Recorded
from nas.records.journal import Journal
from nas.training.recipe import Recipe
from nas.trial import Job, Trial

DENSE = Architecture((Flatten(), Dense(4)))
RECIPE = Recipe(batch_size=16, shift=0)


def evaluate(data: Dataset, jobs: list[Job], **options: object) -> dict[int, Trial]:
    with LocalEvaluator(data, RECIPE, **{"workers": 2, **options}) as evaluator:  # type: ignore[arg-type]
        return {trial.job.seed: trial for trial in evaluator.evaluate(jobs)}


def test_the_number_of_workers_does_not_change_a_bit(blobs: Dataset) -> None:
    networks = [
        Architecture((Conv2d(n, 3, activation="relu", batch_norm=True), GlobalAveragePool())) for n in (2, 3, 4)
    ]
    jobs = [job(network, 2.5, seed) for seed, network in enumerate(networks * 2)]
    results = []
    for workers in (1, 3):
        trials = evaluate(blobs, jobs, workers=workers)
        results.append(
            [(trials[j.seed].curve[-1]["train_loss"], trials[j.seed].metrics["validation_loss"]) for j in jobs]
        )
    assert results[0] == results[1]
    assert len(set(results[0])) == len(jobs)


def test_every_fault_costs_its_own_job_only(blobs: Dataset, capfd: pytest.CaptureFixture[str]) -> None:
    jobs = [job(DENSE, 1, seed) for seed in range(12)]
    trials = evaluate(
        blobs, jobs, work="work:misbehave", seconds_allowed=lambda one: 3.0 if one.seed == 3 else 60.0
    )
    kinds = {seed: trial.failure.kind for seed, trial in trials.items() if trial.failure}
    assert kinds == {1: "crash", 2: "crash", 3: "timeout", 4: "oom", 5: "crash", 7: "not_finite"}
    messages = {seed: trial.failure.message for seed, trial in trials.items() if trial.failure}
    assert "SIGKILL" in messages[1]
    assert messages[2] == "ValueError: the candidate's own fault"
    assert "exit code 3" in messages[5]
    assert sorted(trials) == list(range(12))
    printed = capfd.readouterr()
    assert "xxx" not in printed.out + printed.err
    assert not _workers_of(os.getpid())


def test_a_loss_that_is_not_finite_is_a_failure(blobs: Dataset, tmp_path: Path) -> None:
    with (
        Journal(tmp_path / "journal.jsonl") as journal,
        LocalEvaluator(blobs, RECIPE, workers=1, work="work:misbehave") as evaluator,
    ):
        [trial] = Recorded(evaluator, journal, LOSS).evaluate([job(DENSE, 1, 7)])
    assert trial.failure is not None
    assert trial.failure.kind == "not_finite"


def test_a_training_that_diverges_is_a_failure(blobs: Dataset) -> None:
    with LocalEvaluator(blobs, Recipe(batch_size=16, learning_rate=1e30), workers=1) as evaluator:
        [trial] = evaluator.evaluate([job(Architecture((Flatten(), Dense(8), Dense(8))), 3)])
    assert trial.failure is not None
    assert trial.failure.kind == "not_finite"


def test_an_architecture_that_does_not_fit_is_invalid(blobs: Dataset) -> None:
    trials = evaluate(blobs, [job(Architecture((Conv2d(2, 9), Flatten())))])
    assert [trial.failure.kind for trial in trials.values() if trial.failure] == ["invalid"]


def test_when_time_is_up_the_rest_is_given_up(blobs: Dataset) -> None:
    jobs = [with_epochs(job(DENSE, 1, seed), seconds) for seed, seconds in ((1, 0.1), (2, 300.0), (3, 300.0))]
    evaluate(blobs, jobs[:1], work="work:slow")  # the server that workers come from has started
    start = time.monotonic()
    trials = evaluate(blobs, jobs, workers=3, work="work:slow", until=start + 5)
    assert list(trials) == [1]
    assert time.monotonic() - start < 60


def test_leaving_early_ends_the_workers(blobs: Dataset) -> None:
    with LocalEvaluator(blobs, RECIPE, workers=2, work="work:slow") as evaluator:
        running = evaluator.evaluate([job(DENSE, seconds, seed) for seed, seconds in ((1, 0.1), (2, 300.0))])
        assert next(running).job.seed == 1
        running.close()  # type: ignore[attr-defined]
        again = list(evaluator.evaluate([job(DENSE, 0.1, 5)]))
        assert [trial.job.seed for trial in again] == [5]


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from conftest import *
import numpy as np
from nas.data.dataset import Dataset, Split
from nas.evaluation.local import LocalEvaluator
from nas.training.recipe import Recipe
from nas.architecture.layers import Dense, Flatten
print("main", flush=True)
split = Split.of(np.zeros((6, 1, 4, 4), np.uint8), np.arange(6) % 2)
data = Dataset.of("zeros", split, split, ("0", "1"))
with LocalEvaluator(data, Recipe(), workers=3, work="work:slow") as evaluator:
    jobs = [job(Architecture((Flatten(), Dense(1))), seconds, i) for i, seconds in enumerate((0.1, 600.0, 600.0))]
    for trial in evaluator.evaluate(jobs):
        print("trained", flush=True)
"""


def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    """And the parent's script, which has no ``if __name__ == "__main__"``, is not run again by its workers."""
    tests = str(Path(__file__).parent)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(tests=tests))
    environment = {**os.environ, "PYTHONPATH": tests}
    with subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=environment
    ) as parent:
        try:
            assert parent.stdout is not None
            assert [parent.stdout.readline(), parent.stdout.readline()] == ["main\n", "trained\n"]
            workers = _workers_of(parent.pid)
            assert len(workers) >= 2
        finally:
            os.kill(parent.pid, signal.SIGKILL)
    alive = psutil.wait_procs(workers, timeout=2)[1]
    assert [one for one in alive if one.status() != psutil.STATUS_ZOMBIE] == []


def _workers_of(pid: int) -> list[psutil.Process]:
    """The descendants of a process that are neither of the helpers which multiprocessing keeps."""
    children = psutil.Process(pid).children(recursive=True)
    return [one for one in children if one.ppid() != pid and one.status() != psutil.STATUS_ZOMBIE]
