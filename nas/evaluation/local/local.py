"""Worker processes on this machine, by default one for each core, with one thread each.

Two threads in one process train 1.3 to 1.8 times as many images a second as one thread, two processes 1.9 to 2
times as many (docs/decisions/0009). Only where there are fewer trainings than workers, those that are idle lend
their cores (`nas.training.cores`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from multiprocessing import connection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Self

from pydantic import AfterValidator, Field

from nas import plugins
from nas.data.download import WEIGHTS_SECONDS
from nas.errors import ArchitectureError, UsageError
from nas.evaluation.local import machine
from nas.evaluation.local.machine import GIB
from nas.evaluation.local.shared import SharedDataset
from nas.evaluation.local.worker import Task
from nas.evaluation.local.worker_process import Ending, Worker
from nas.training.gpu.lanes import MOST
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


def _enough(memory: float) -> float:
    """Refuse a limit with which every candidate would fail."""
    if not memory >= machine.SMALLEST:
        needs = f"a worker needs {machine.SMALLEST:g} GiB even for a small network"
        raise UsageError(f"evaluator.memory={memory:g} is too little: {needs}; 2 or more are recommended")
    return memory


class LocalEvaluator:
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
        memory: Annotated[float, AfterValidator(_enough)] | None = None,
        group: int | str = 1,
        warn: Callable[[str], None] = lambda line: None,
        begun: Callable[[Sequence[Job]], None] = lambda jobs: None,
        cores: Annotated[int, Field(ge=1)] | None = None,
    ) -> None:
        share = max(LEAST_MEMORY, machine.MEMORY_SHARE * machine.memory() / workers)
        limit = share if memory is None else _enough(memory) * GIB
        self._dataset, self._until, self._warn, self._begun = dataset, until, warn, begun
        self._shared = SharedDataset(dataset)
        folder = str(weights.resolve()) if weights else ""
        plugin_folders = tuple(map(str, plugins.folders()))
        task = Task(str(self._shared.folder), recipe, device, folder, group, plugin_folders)
        most = group if isinstance(group, int) else MOST
        self._group = most if device.startswith("cuda") else 1  # jobs that a worker gets at a time
        self._workers = [Worker(task, limit) for _ in range(workers)]
        self._cores = cores or workers
        self._measured: dict[str, Trial] = {}  # by the id of the network: its latency, or its failure

    def __enter__(self) -> Self:
        """The evaluator."""
        return self

    def __exit__(self, *_: object) -> None:
        """End all workers."""
        _end(self._workers)
        self._shared.remove()

    def evaluate(self, jobs: Sequence[Job], /) -> Iterator[Trial]:
        """One trial for each job, as they finish; the longest job begins first.

        Before that, the latency of each network is measured while nothing is trained, so that it does not depend
        on the number of workers. A network that fails there is not trained.

        Raises:
            StorageError: the weights cannot be written.
            NasError: no worker process can be started.
        """
        try:
            measured = [(job, trial) for job in jobs if (trial := self._latency(job))]
            yield from (replace(trial, job=job) for job, trial in measured if trial.failure)
            for trial in self._train([job for job, trial in measured if not trial.failure]):
                latency = self._measured[trial.job.candidate.architecture.id].metrics
                yield trial if trial.failure else replace(trial, metrics={**trial.metrics, **latency})
        finally:
            _end([worker for worker in self._workers if worker.jobs])

    def _latency(self, job: Job) -> Trial | None:
        """The trial of a measurement, which is done once for each network; None if the time is over."""
        name = job.candidate.architecture.id
        if name not in self._measured:
            endings = list(self._run(self.measure, [[job]]))
            if endings and endings[0].retry:
                endings = list(self._run(self.measure, [[job]]))
            self._measured.update((name, ending.trial) for ending in endings)
        return self._measured.get(name)

    def _train(self, jobs: Sequence[Job]) -> Iterator[Trial]:
        retries: list[Job] = []
        longest = sorted(jobs, key=lambda job: (self._work_of(job), job.candidate.id), reverse=True)
        size = min(self._group, -(-len(jobs) // len(self._workers)) or 1)
        groups = [longest[at : at + size] for at in range(0, len(jobs), size)]
        for ending in self._run(self.work, groups):
            if ending.retry:
                retries.append(ending.trial.job)
            else:
                yield ending.trial
        for ending in self._run(self.work, [[job] for job in retries]):  # at the end, when most memory is free
            trial, failure = ending.trial, ending.trial.failure
            again = failure and Trial.failed(trial.job, failure.kind, f"{failure.message} (tried twice)")
            yield again or trial

    def seconds_allowed(self, job: Job) -> float:
        """The seconds after which a job counts as hanging."""
        downloads = any(layer.weights for layer in job.candidate.architecture.backbones)
        return GRACE_SECONDS + downloads * WEIGHTS_SECONDS + self._work_of(job) / SLOWEST_FLOPS

    def _run(self, work: str, groups: Sequence[list[Job]]) -> Iterator[Ending]:
        """Do ``work`` for groups of jobs, which begin in this order; yields the end of each job."""
        waiting = list(reversed(groups))
        while self._until is None or time.monotonic() < self._until:
            busy = len(waiting) + sum(bool(worker.jobs) for worker in self._workers)
            self._shared.share(max(1, self._cores // max(1, min(busy, len(self._workers)))))  # idle ones are lent
            for worker in self._workers:
                if waiting and not worker.jobs:
                    group = waiting.pop()
                    more = sum(map(self._work_of, group[1:])) / SLOWEST_FLOPS  # the first is the longest
                    worker.start(work, group, max(map(self.seconds_allowed, group)) + more)
                    if work == self.work:
                        self._begun(group)
            running = [worker for worker in self._workers if worker.jobs]
            if not running:
                return
            self._wait(running)
            for worker in running:
                for ending in worker.endings():
                    for line in ending.warnings:
                        self._warn(line)
                    yield ending

    def _wait(self, running: Sequence[Worker]) -> None:
        """Wait until a job may have ended, or until it is time to check the memory."""
        now = time.monotonic()
        limits = [now + LOOK_SECONDS, *(worker.deadline for worker in running)]
        if self._until is not None:
            limits.append(self._until)
        readable = [stream for worker in running for stream in worker.readable]
        connection.wait(readable, timeout=max(0.0, min(limits) - now))

    def _work_of(self, job: Job) -> float:
        """The floating-point operations of a job's training; a step costs three forward passes."""
        try:
            rows = job.candidate.architecture.table(self._dataset.input_shape, len(self._dataset.classes))
        except ArchitectureError:
            return 0.0  # the worker reports the error
        images = job.epochs * len(self._dataset.train) + len(self._dataset.validation)
        return 3 * images * max(1e6, sum(row.flops for row in rows))


def _end(workers: Sequence[Worker]) -> None:
    for worker in workers:  # all at once, because the end of each process takes a few hundredths of a second
        worker.kill()
    for worker in workers:
        worker.end()
