"""What the workers of tests do instead of training: go wrong in every way, depending on the seed of the job."""

from __future__ import annotations

import collections
import ctypes
import gc
import itertools
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import parent_process
from pathlib import Path

import torch
from conftest import finished

from nas.data.dataset import Dataset
from nas.evaluation.local.local import LocalEvaluator
from nas.evaluation.local.worker import Task, Work, measure_jobs, train_jobs
from nas.trial import Job, Trial

FAULTS = {
    1: "is killed", 2: "raises", 3: "hangs", 4: "asks for too much memory", 5: "exits", 6: "prints", 7: "nan",
    8: "segfaults", 9: "hangs up", 10: "sends garbage", 11: "is terminated",
    13: "leaves a child", 14: "eats memory", 15: "has a child and hangs", 16: "holds the lock of Python",
}  # fmt: skip


class Misbehaving(LocalEvaluator):
    """Every seed that is not in FAULTS is well behaved. Tries and children are written down in ``weights``."""

    work, measure = "work:misbehave", "work:pretend"

    def seconds_allowed(self, job: Job) -> float:
        """Little for those that hang."""
        return 6.0 if job.seed in (3, 15, 16) else 60.0  # a new worker needs one of them to begin, or two


class Slow(LocalEvaluator):
    """A job takes as many seconds as it has epochs."""

    work = "work:slow"


class Grouped(LocalEvaluator):
    """Trains nothing; what was trained together is written down in ``weights``, a file for each group."""

    work, measure = "work:write_down", "work:pretend"  # there may be no GPU


class Noted(LocalEvaluator):
    """Writes down in ``weights`` from when to when each network was measured and each job was done."""

    work, measure = "work:note_training", "work:note_measurement"


class KilledOnce(LocalEvaluator):
    """Trains when a job is tried the second time, and is killed the first time."""

    work = "work:train_when_tried_again"


class Deadly(LocalEvaluator):
    """Job 3 ends the process of its evaluator."""

    work, measure = "work:end_the_evaluator", "work:pretend"


class FewImports(LocalEvaluator):
    """With trials that fail if a worker imports something slow."""

    work = "work:train_with_few_imports"


class FullDisk(LocalEvaluator):
    """Trains, and finds that no file may be longer than a hundred bytes."""

    work = "work:train_on_a_full_disk"


def each(work: Callable[[Job, Dataset, Task], Trial]) -> Work:
    """What does a job after the other."""
    return lambda jobs, dataset, task: (work(job, dataset, task) for job in jobs)


@each
def misbehave(job: Job, dataset: Dataset, task: Task) -> Trial:
    _tries(job, task)
    match FAULTS.get(job.seed):
        case "is killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "raises":
            raise ValueError("the candidate's own fault")
        case "hangs":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(600)
        case "asks for too much memory":
            torch.empty(2**60, dtype=torch.uint8)
        case "exits":
            os._exit(3)
        case "prints":
            for _ in range(50):
                print("x" * 1_000_000)
                print("y" * 1_000_000, file=sys.stderr)
        case "nan":
            return finished(job, float("nan"))
        case "segfaults":
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            ctypes.string_at(0)
        case "hangs up":
            os.close(_connection().fileno())
            time.sleep(600)
        case "sends garbage":
            _connection().sendall(b"\x00\xff garbage")
            _connection().sendall(b"[" * 100_000 + b"\n")
        case "is terminated":
            os.kill(os.getpid(), signal.SIGTERM)
        case "leaves a child":
            _start_child(job, task)
            os._exit(4)
        case "eats memory":
            pieces = [torch.ones(2**24)]
            while True:
                pieces.append(torch.ones(2**24))
        case "has a child and hangs":
            _start_child(job, task)
            time.sleep(600)
        case "holds the lock of Python":
            collections.deque(itertools.repeat(None), maxlen=0)
    return finished(job)


@each
def end_the_evaluator(job: Job, dataset: Dataset, task: Task) -> Trial:
    parent = parent_process()
    if job.seed == 3 and parent is not None and parent.pid is not None:
        os.kill(parent.pid, signal.SIGKILL)
        time.sleep(600)
    return finished(job)


@each
def slow(job: Job, dataset: Dataset, task: Task) -> Trial:
    time.sleep(job.epochs)
    return finished(job)


@each
def train_when_tried_again(job: Job, dataset: Dataset, task: Task) -> Trial:
    if _tries(job, task) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    [trial] = train_jobs([job], dataset, task)
    return trial


@each
def train_on_a_full_disk(job: Job, dataset: Dataset, task: Task) -> Trial:
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
    [trial] = train_jobs([job], dataset, task)
    return trial


def write_down(jobs: Sequence[Job], dataset: Dataset, task: Task) -> Iterator[Trial]:
    Path(task.weights, jobs[0].key).write_text(" ".join(job.candidate.architecture.id for job in jobs))
    yield from map(finished, jobs)


def note_training(jobs: Sequence[Job], dataset: Dataset, task: Task) -> Iterator[Trial]:
    for job in jobs:
        with _noted(task, f"{job.key}.training"):
            time.sleep(0.05)
        yield finished(job)


def note_measurement(jobs: Sequence[Job], dataset: Dataset, task: Task) -> Iterator[Trial]:
    with _noted(task, f"{jobs[0].candidate.architecture.id}.measurement"):
        yield from measure_jobs(jobs, dataset, task)


@contextmanager
def _noted(task: Task, name: str) -> Iterator[None]:
    start = time.monotonic()
    yield
    with Path(task.weights, name).open("a") as file:
        file.write(f"{start} {time.monotonic()}\n")


def pretend(jobs: Sequence[Job], dataset: Dataset, task: Task) -> Iterator[Trial]:
    yield from map(finished, jobs)


def train_with_few_imports(jobs: Sequence[Job], dataset: Dataset, task: Task) -> Iterator[Trial]:
    """Fails if a worker imports much of PyTorch that its server has not."""
    known = set(sys.modules)
    trials = list(train_jobs(jobs, dataset, task))
    more = [name for name in sys.modules if name.startswith("torch.") and name not in known]
    assert len(more) < 10, more
    assert "torch._dynamo" not in sys.modules
    yield from trials


def say_yes(asked: socket.socket) -> None:
    asked.sendall(b"yes")


def _tries(job: Job, task: Task) -> int:
    """How often the job has been tried, this time included."""
    path = Path(task.weights, f"{job.seed}.tries")
    with path.open("a") as file:
        file.write(".")
    return path.stat().st_size


def _start_child(job: Job, task: Task) -> None:
    child = subprocess.Popen(["sleep", "600"])
    Path(task.weights, f"{job.seed}.child").write_text(str(child.pid))


def _connection() -> socket.socket:
    """The worker's own, as a candidate could find it."""
    return next(one for one in gc.get_objects() if isinstance(one, socket.socket) and one.fileno() >= 0)
