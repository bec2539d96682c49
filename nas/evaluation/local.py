"""Worker processes on this machine: as many as cores, one thread each.

Two threads in one process train these networks slower than one does (1,300–2,200 images a second against
2,000–3,000); two processes train twice as many.
"""

from __future__ import annotations

import json
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from multiprocessing import connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from nas.architecture.layers import Pretrained
from nas.data.download import WEIGHTS_SECONDS
from nas.errors import ArchitectureError
from nas.evaluation import processes, worker
from nas.trial import Job, Trial

if TYPE_CHECKING:
    from nas.data.dataset import Dataset
    from nas.training.recipe import Recipe

# The slowest network measured does 5 · 10⁹ operations a second in one thread; a training may take five times
# as long as that, and a minute more, before it is taken for hanging.
SLOWEST_FLOPS = 1e9
GRACE_SECONDS = 60.0


class LocalEvaluator:
    """Trains jobs in worker processes. A crash, a hang or too much memory costs one job only.

    Use it in a ``with`` block; afterwards no worker is left.

    Args:
        dataset: what the networks learn from.
        recipe: how.
        workers: how many processes.
        device: where each of them trains.
        weights: a folder for the trained weights, ``<job key>.safetensors``, if they are wanted.
        until: the moment (``time.monotonic``) at which unfinished jobs are given up; None for never.
        work: what does a job inside a worker, as ``module:function``.
        seconds_allowed: after how long a job is taken for hanging.
    """

    def __init__(
        self,
        dataset: Dataset,
        recipe: Recipe,
        *,
        workers: int,
        device: str = "cpu",
        weights: Path | None = None,
        until: float | None = None,
        work: str = "nas.evaluation.worker:train_job",
        seconds_allowed: Callable[[Job], float] | None = None,
    ) -> None:
        self._dataset = dataset
        self._until = until
        self._allowed = seconds_allowed or self._seconds_allowed
        self._folder = tempfile.TemporaryDirectory(prefix="nas-data-", ignore_cleanup_errors=True)
        dataset.save(Path(self._folder.name))
        self._task = worker.Task(
            self._folder.name, asdict(recipe), device, str(weights.resolve()) if weights else "", work
        )
        self._workers = [Worker(self._task) for _ in range(workers)]

    def __enter__(self) -> Self:
        """The evaluator."""
        return self

    def __exit__(self, *_: object) -> None:
        """End all workers."""
        for one in self._workers:
            one.end()
        self._folder.cleanup()

    def evaluate(self, jobs: Sequence[Job], /) -> Iterator[Trial]:
        """One trial for each job, as they finish; the longest jobs begin first."""
        waiting = sorted(jobs, key=self._work_of)
        running: list[Worker] = []
        try:
            while waiting or running:
                idle = [one for one in self._workers if one.job is None]
                while idle and waiting:
                    job = waiting.pop()
                    idle[-1].start(job, self._allowed(job))
                    running.append(idle.pop())
                for one in self._wait(running):
                    running.remove(one)
                    yield one.finish()
                if self._until is not None and time.monotonic() >= self._until:
                    return
        finally:
            for one in running:
                one.end()

    def _wait(self, running: Sequence[Worker]) -> list[Worker]:
        """Those that have something to say, have died, or have taken too long."""
        moments = [one.deadline for one in running] + ([self._until] if self._until is not None else [])
        left = max(0.0, min(moments) - time.monotonic())
        connection.wait([thing for one in running for thing in one.signs], timeout=left)
        return [one for one in running if one.is_done]

    def _work_of(self, job: Job) -> float:
        """Floating-point operations of a job's whole training; a step costs three forward passes."""
        try:
            rows = job.candidate.architecture.table(self._dataset.input_shape, len(self._dataset.classes))
        except ArchitectureError:
            return 0.0  # the worker will say why
        images = job.epochs * len(self._dataset.train) + len(self._dataset.validation)
        return 3 * images * max(1e6, sum(row.flops for row in rows))

    def _seconds_allowed(self, job: Job) -> float:
        layers = job.candidate.architecture.layers
        downloads = any(isinstance(layer, Pretrained) and layer.weights for layer in layers)
        return GRACE_SECONDS + downloads * WEIGHTS_SECONDS + self._work_of(job) / SLOWEST_FLOPS


class Worker:
    """One process, which is started when it is first needed and again after it was ended."""

    def __init__(self, task: worker.Task) -> None:
        self._task = task
        self._process: Any = None
        self._connection: Any = None
        self.job: Job | None = None
        self.deadline = 0.0
        self._started = 0.0

    def start(self, job: Job, seconds: float) -> None:
        """Give it a job."""
        if self._process is None or not self._process.is_alive():
            self.end()
            self._begin()
        self.job = job
        self._started = time.monotonic()
        self.deadline = self._started + seconds
        with suppress(OSError):  # it died this moment; `finish` will find the connection closed
            self._connection.send_bytes(json.dumps(job.to_dict()).encode())

    @property
    def signs(self) -> list[Any]:
        """What becomes readable when it has something to say or dies."""
        return [self._connection, self._process.sentinel]

    @property
    def is_done(self) -> bool:
        """Whether `finish` has something to return."""
        return bool(connection.wait(self.signs, timeout=0)) or time.monotonic() >= self.deadline

    def finish(self) -> Trial:
        """What came of its job."""
        assert self.job is not None  # noqa: S101
        job = self.job
        try:
            if self._connection.poll():
                trial = Trial.from_dict(json.loads(self._connection.recv_bytes()))
                self.job = None
                return trial
        except (EOFError, OSError):
            pass
        seconds = time.monotonic() - self._started
        late = seconds >= self.deadline - self._started
        self._process.join(0 if late else 5)
        code = self._process.exitcode
        self.end()
        if late:
            return Trial.failed(job, "timeout", f"still training after {seconds:.0f} s, far longer than expected")
        return Trial.failed(job, "crash", f"the worker process died {_cause(code)}")

    def end(self) -> None:
        """End the process and forget its job."""
        self.job = None
        if self._process is None:
            return
        self._connection.close()
        self._process.kill()
        self._process.join()
        self._process = self._connection = None

    def _begin(self) -> None:
        made_by = processes.context()
        ours, theirs = made_by.Pipe()
        self._process = made_by.Process(target=worker.main, args=(theirs, self._task), daemon=True)
        with processes.no_main_module():
            self._process.start()
        theirs.close()
        self._connection = ours


def _cause(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        hint = "; the system may have been out of memory" if name == "SIGKILL" else ""
        return f"of {name}{hint}"
    return f"with exit code {code}"
