"""The program of a worker process: it trains jobs until the connection closes."""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import connection, parent_process
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from nas import plugins
from nas.errors import NasError, StorageError
from nas.evaluation.local.shared import cores_of
from nas.files import write_whole
from nas.trial import Job, Trial

if TYPE_CHECKING:
    from nas.data.dataset import Dataset
    from nas.training.group import Group
    from nas.training.recipe import Recipe

Work = Callable[[Sequence[Job], "Dataset", "Task"], Iterable[Trial]]  # yields a trial for each job, as they finish

_warnings: list[str] = []  # lines for the user, sent with the next trial


@dataclass(frozen=True)
class Task:
    """The settings that all jobs of a worker share; plain data."""

    data: str  # a folder that `Dataset.save` wrote: all workers map the same memory
    recipe: Recipe
    device: str
    weights: str = ""  # the folder for trained weights; they are discarded if it is empty
    group: int | str = 1  # the number of jobs that are trained at a time on a GPU
    plugins: tuple[str, ...] = ()  # folders with plugin files, of layers, that may be imported


def train_jobs(jobs: Sequence[Job], dataset: Dataset, task: Task) -> Iterator[Trial]:
    """Train the jobs' networks, and write their weights if the task has a folder for them.

    Raises:
        StorageError: the weights cannot be written.
    """
    for trial, network in _group(dataset, task).train(jobs):
        if task.weights and network is not None and trial.failure is None:
            from safetensors.torch import save

            state = {name: tensor.contiguous().cpu() for name, tensor in network.state_dict().items()}
            write_whole(Path(task.weights, f"{trial.job.key}.safetensors"), save(state))
        yield trial


def measure_jobs(jobs: Sequence[Job], dataset: Dataset, task: Task) -> Iterator[Trial]:
    """Measure the latency of the jobs' networks before their training: the only metric of these trials."""
    for job in jobs:
        yield Trial(job, {"latency_ms": _group(dataset, task).latency(job)})


@lru_cache(maxsize=1)
def _group(dataset: Dataset, task: Task) -> Group:
    """The trainer of this process, which keeps the data on the device, and captured steps for the next jobs."""
    from nas.training.group import Group

    cores = cores_of(Path(task.data)) if task.data else lambda: 1
    return Group(dataset, task.recipe, task.device, task.group, _warnings.append, cores, bool(task.weights))


def main(jobs: socket.socket, task: Task) -> None:
    """Receive jobs and what to do with them, and send trials, each a line of JSON, until the connection closes."""
    _end_with_parent()  # before torch is imported, if no server has done that
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    discard = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # standard output and error: a candidate must not print between the lines of the search
        os.dup2(discard, stream)
    os.close(discard)
    with suppress(OSError):  # if memory runs out, the system kills a worker and not the search
        Path("/proc/self/oom_score_adj").write_text("1000")
    import torch

    torch.set_num_threads(1)
    with jobs.makefile("rw", encoding="utf-8") as lines:
        for answer in _answers(lines, task):
            print(json.dumps(answer), file=lines, flush=True)


def _answers(lines: Iterable[str], task: Task) -> Iterator[dict[str, Any]]:
    """A trial for each job, or an error that is no candidate's fault, which ends the search."""
    try:
        plugins.offer(map(Path, task.plugins))
        from nas.data.dataset import Dataset

        dataset = Dataset.load(Path(task.data))
        for line in lines:
            message = json.loads(line)
            module, _, function = message["work"].partition(":")
            work = cast("Work", getattr(importlib.import_module(module), function))
            for trial in safely(work, [Job.from_dict(job) for job in message["jobs"]], dataset, task):
                yield {"trial": trial.to_dict(), "warnings": _warnings.copy()}
                _warnings.clear()
    except NasError as error:
        yield {"error": str(error)}


def safely(work: Work, jobs: Sequence[Job], dataset: Dataset, task: Task) -> Iterator[Trial]:
    """The trials of jobs. An exception is the failure of all jobs that have no trial yet.

    Raises:
        StorageError: the disk is full, which is no job's fault.
    """
    waiting = list(jobs)
    reason: Exception = RuntimeError("the worker returned no trial for this job")
    try:
        for trial in work(jobs, dataset, task):
            waiting = [job for job in waiting if job.key != trial.job.key]
            yield trial
    except StorageError:
        raise
    except Exception as error:  # noqa: BLE001  # a candidate must not cost more than itself
        reason = error
    for job in waiting:
        yield Trial.from_error(job, reason)


def _end_with_parent() -> None:
    """Lead a group of processes, so that those that jobs start end with this one, and end with the parent.

    A killed parent cannot end its workers. On Linux the kernel does it when the parent's end of a pipe closes,
    within a millisecond, even if C code never lets another thread of Python run. On other systems a thread
    watches the pipe.
    """
    parent = parent_process()
    if parent is None:
        return
    if hasattr(os, "setsid"):
        with suppress(OSError):
            os.setsid()
    sentinel = parent.sentinel
    with suppress(ImportError, AttributeError, OSError):  # not Linux
        import fcntl

        fcntl.fcntl(sentinel, fcntl.F_SETOWN, -os.getpid())
        fcntl.fcntl(sentinel, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(sentinel, fcntl.F_SETFL, fcntl.fcntl(sentinel, fcntl.F_GETFL) | os.O_ASYNC)

    def watch() -> None:
        connection.wait([sentinel])  # returns at once if it was closed before the kernel was asked
        if hasattr(os, "killpg"):
            with suppress(OSError):
                os.killpg(os.getpid(), signal.SIGKILL)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
