"""Worker processes on this machine, by default one for each core, with one thread each.

Two threads in one process train 1.3 to 1.8 times as many images a second as one thread, two processes 1.9 to 2
times as many (docs/decisions/0009). Only where there are fewer trainings than workers, those that are idle lend
their cores (`nas.training.cores`).
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from multiprocessing import connection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, Field

from nas import plugins
from nas.data.download import WEIGHTS_SECONDS
from nas.errors import UsageError
from nas.evaluation.evaluator import AheadEvaluator
from nas.evaluation.local import machine
from nas.evaluation.local.machine import GIB
from nas.evaluation.local.shared import SharedDataset
from nas.evaluation.local.worker import Task
from nas.evaluation.local.worker_process import Ending, Worker
from nas.evaluation.work import operations
from nas.training.gpu import MOST
from nas.trial import Job, Trial

if TYPE_CHECKING:
    from nas.data.dataset import Dataset
    from nas.training.recipe import Recipe

# The slowest network measured does 5 · 10⁹ operations a second in one thread; a training may take five times as
# long as that, and a minute more, before it counts as hanging.
SLOWEST_FLOPS = 1e9
GRACE_SECONDS = 60.0
LOOK_SECONDS = 0.25  # between two checks of the workers' memory; in this time one core fills 0.5 GiB
LEAST_MEMORY = 2 * GIB


def enough(memory: float) -> float:
    """Refuse a limit with which every candidate would fail."""
    if not memory >= machine.SMALLEST:
        needs = f"a worker needs {machine.SMALLEST:g} GiB even for a small network"
        raise UsageError(f"evaluator.memory={memory:g} is too little: {needs}; 2 or more are recommended")
    return memory


@dataclass(order=True)
class _Group:
    """Jobs that a worker trains together; the lowest begins first."""

    turn: int
    number: int
    jobs: list[Job] = field(compare=False)
    is_second: bool = field(default=False, compare=False)  # a job that is tried once more


class LocalEvaluator(AheadEvaluator):
    """Trains jobs in worker processes. A crash, a hang or too much memory costs one job only.

    A job whose worker was killed or ran out of memory is tried once more, because the cause may be outside of it.
    If a worker that trains several jobs together ends, those without a trial are tried again, each alone. Use it
    in a ``with`` block, which ends all workers.

    Args:
        dataset: training and validation images.
        recipe: how to train.
        workers: the number of processes.
        device: the device on which each of them trains, as PyTorch names it.
        weights: a folder for the trained weights, ``<job key>.safetensors``; None to discard them.
        until: the time (``time.monotonic``) at which unfinished jobs are given up; None for no limit.
        memory: the GiB that a worker may use; by default its share of four fifths of the machine's memory.
        group: the number of jobs that a worker trains at a time on a CUDA device; ``auto`` decides it by a
            measurement. On other devices a worker gets one job at a time.
        warn: called with a line for the user when a faster way to train fails.
        begun: called with the jobs that a worker begins to train.
        cores: the CPU cores that the trainings share; by default as many as there are workers.

    Raises:
        StorageError: there is not enough space for the data set in the folder for temporary files.
        UsageError: ``memory`` is too little for any training.
    """

    # The functions of a worker. They are no options, because options may come from a stranger's file.
    work: ClassVar[str] = "nas.evaluation.local.worker:train_jobs"
    measure: ClassVar[str] = "nas.evaluation.local.worker:measure_jobs"

    def __init__(
        self,
        dataset: Dataset,
        recipe: Recipe,
        *,
        workers: int,
        device: str = "cpu",
        weights: Path | None = None,
        until: float | None = None,
        memory: Annotated[float, AfterValidator(enough)] | None = None,
        group: int | str = 1,
        warn: Callable[[str], None] = lambda line: None,
        begun: Callable[[Sequence[Job]], None] = lambda jobs: None,
        cores: Annotated[int, Field(ge=1)] | None = None,
    ) -> None:
        share = max(LEAST_MEMORY, machine.MEMORY_SHARE * machine.memory() / workers)
        limit = share if memory is None else enough(memory) * GIB
        self._dataset, self._until, self._warn, self._begun = dataset, until, warn, begun
        self._shared = SharedDataset(dataset)
        folder = str(weights.resolve()) if weights else ""
        plugin_folders = tuple(map(str, plugins.folders()))
        task = Task(str(self._shared.folder), recipe, device, folder, group, plugin_folders)
        most = group if isinstance(group, int) else MOST
        self.group = most if device.startswith("cuda") else 1  # jobs that a worker gets at a time
        self._workers = [Worker(task, limit) for _ in range(workers)]
        self._cores = cores or workers
        self._numbers = count()
        self._waiting: list[_Group] = []  # a heap
        self._again: list[_Group] = []  # of jobs that are tried once more
        self._doing: dict[Worker, tuple[str, _Group]] = {}  # what busy workers do
        self._dropped: list[Trial] = []  # of jobs that are not trained
        self._measured: dict[str, Trial] = {}  # by the id of the network: its latency, or its failure
        self._remeasured = set[str]()  # networks whose measurement ended from outside
        self._is_alone = False  # whether a network is measured while nothing is trained

    def __enter__(self) -> Self:
        """The evaluator."""
        return self

    def __exit__(self, *_: object) -> None:
        """End all workers."""
        _end(self._workers)
        self._shared.remove()

    def submit(self, jobs: Sequence[Job], /, turn: int) -> None:
        """Take jobs; those with the lowest turn begin first, and of these the longest."""
        longest = sorted(jobs, key=lambda job: (operations(job, self._dataset), job.candidate.id), reverse=True)
        size = min(self.group, -(-len(jobs) // len(self._workers)) or 1)
        for at in range(0, len(jobs), size):
            heapq.heappush(self._waiting, _Group(turn, next(self._numbers), longest[at : at + size]))
        self._drop()
        if self._until is None or time.monotonic() < self._until:
            self._start()  # the strategy may take its time until it is waited for

    def finished(self) -> list[Trial]:
        """Wait until a job has ended; the trials since the last call.

        The latency of a network is measured before its first training. Where nothing is in training at that time,
        as in a search that is not ahead, all networks of a turn are measured first, each alone, so that their
        latencies do not depend on the number of workers. A network that fails there is not trained.

        Raises:
            StorageError: the weights cannot be written.
            NasError: no worker process can be started.
        """
        while self._until is None or time.monotonic() < self._until:
            trials = self.look()
            if trials or not (self._doing or self._waiting or self._again):
                return trials
        dropped, self._dropped = self._dropped, []
        return dropped

    def look(self, also: Sequence[Any] = ()) -> list[Trial]:
        """Wait for a short time until something happens: the trials of jobs that have ended meanwhile, maybe none.

        Args:
            also: sockets which end the waiting, too, when they become readable.

        Raises:
            NasError: see `finished`.
        """
        trials, self._dropped = self._dropped, []
        self._start()
        if trials or not (self._doing or also):
            return trials
        self._wait(list(self._doing), also)
        for worker, (work, group) in list(self._doing.items()):
            for ending in worker.endings():
                for line in ending.warnings:
                    self._warn(line)
                if work == self.work:
                    trials += self._trained(group, ending)
                else:
                    self._note(group, ending)
            if not worker.jobs:
                del self._doing[worker]
        dropped, self._dropped = self._dropped, []
        return trials + dropped

    def cancel(self) -> None:
        """End the workers that have jobs, and forget all jobs."""
        _end(list(self._doing))
        self._waiting, self._again, self._doing, self._dropped = [], [], {}, []

    def _start(self) -> None:
        """Let idle workers begin what comes next."""
        busy = len(self._waiting) + len(self._again) + len(self._doing)
        self._shared.share(max(1, self._cores // max(1, min(busy, len(self._workers)))))  # idle ones are lent
        if not self._doing:
            first = sorted(group for group in self._waiting if group.turn == self._waiting[0].turn)
            group = next(filter(self._unmeasured, first), None)
            self._is_alone = group is not None
            if group is not None:
                self._waiting.remove(group)
                heapq.heapify(self._waiting)
                self._give(self._workers[0], group)
        if self._is_alone:
            return
        for worker in self._workers:
            if worker not in self._doing and (group := self._next()) is not None:
                self._give(worker, group)

    def _next(self) -> _Group | None:
        """What begins next; a job is tried again when all others of its turn and of older ones are through."""
        others = [group.turn for _, group in self._doing.values() if not group.is_second]
        others += [group.turn for group in self._waiting[:1]]
        for group in self._again:
            if all(group.turn < turn for turn in others):
                self._again.remove(group)
                return group
        return heapq.heappop(self._waiting) if self._waiting else None

    def _give(self, worker: Worker, group: _Group) -> None:
        """Let a worker measure the first network of a group that is not measured yet, or train the group."""
        job = self._unmeasured(group)
        self._doing[worker] = (self.work if job is None else self.measure), group
        if job is not None:
            worker.start(self.measure, [job], self.seconds_allowed(job))
            return
        # The first is the longest.
        more = sum(operations(job, self._dataset) for job in group.jobs[1:]) / SLOWEST_FLOPS
        worker.start(self.work, group.jobs, max(map(self.seconds_allowed, group.jobs)) + more)
        self._begun(group.jobs)

    def _unmeasured(self, group: _Group) -> Job | None:
        """The first of a group's jobs whose network has no latency yet."""
        return next((job for job in group.jobs if job.candidate.architecture.id not in self._measured), None)

    def _note(self, group: _Group, ending: Ending) -> None:
        """Keep a measurement, which is tried twice; then its group goes on."""
        name = ending.trial.job.candidate.architecture.id
        heapq.heappush(self._waiting, group)
        if ending.retry and name not in self._remeasured:
            self._remeasured.add(name)
            return
        self._measured.setdefault(name, ending.trial)  # another worker may have measured it meanwhile
        self._drop()

    def _drop(self) -> None:
        """Jobs whose network has failed while it was measured are not trained."""
        failed = {name: trial for name, trial in self._measured.items() if trial.failure}
        if not failed:
            return
        for group in self._waiting:
            for job in [job for job in group.jobs if job.candidate.architecture.id in failed]:
                group.jobs.remove(job)
                self._dropped.append(replace(failed[job.candidate.architecture.id], job=job))
        self._waiting = [group for group in self._waiting if group.jobs]
        heapq.heapify(self._waiting)

    def _trained(self, group: _Group, ending: Ending) -> list[Trial]:
        """The trial of a job, unless it is tried once more."""
        trial, failure = ending.trial, ending.trial.failure
        if ending.retry and not group.is_second:
            self._again.append(_Group(group.turn, next(self._numbers), [trial.job], is_second=True))
            return []
        if failure is None:
            latency = self._measured[trial.job.candidate.architecture.id].metrics
            return [replace(trial, metrics={**trial.metrics, **latency})]
        return (
            [Trial.failed(trial.job, failure.kind, f"{failure.message} (tried twice)")]
            if group.is_second
            else [trial]
        )

    def seconds_allowed(self, job: Job) -> float:
        """The seconds after which a job counts as hanging."""
        downloads = any(layer.weights for layer in job.candidate.architecture.backbones)
        return GRACE_SECONDS + downloads * WEIGHTS_SECONDS + operations(job, self._dataset) / SLOWEST_FLOPS

    def _wait(self, running: Sequence[Worker], also: Sequence[Any]) -> None:
        """Wait until a job may have ended, or until it is time to check the memory."""
        now = time.monotonic()
        limits = [now + LOOK_SECONDS, *(worker.deadline for worker in running)]
        if self._until is not None:
            limits.append(self._until)
        readable = [stream for worker in running for stream in worker.readable]
        connection.wait([*readable, *also], timeout=max(0.0, min(limits) - now))


def _end(workers: Sequence[Worker]) -> None:
    for worker in workers:  # all at once, because the end of each process takes a few hundredths of a second
        worker.kill()
    for worker in workers:
        worker.end()
