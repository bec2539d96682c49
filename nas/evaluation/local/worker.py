"""The program of a worker process: it trains jobs until the connection closes."""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import connection, parent_process
from pathlib import Path
from typing import Any, cast

import torch

from nas import plugins
from nas.data.dataset import Dataset
from nas.errors import NasError, StorageError
from nas.files import write_whole
from nas.training.group import Group
from nas.training.recipe import Recipe
from nas.trial import Job, Trial

Work = Callable[[Sequence[Job], Dataset, "Task"], Iterable[Trial]]  # yields a trial for each job, as they finish

_warnings: list[str] = []  # lines to show to the user; they are sent with the next trial


@dataclass(frozen=True)
class Task:
    """The settings that all jobs of a worker share; plain data."""

    data: str  # a folder that `Dataset.save` wrote: all workers map the same pages
    recipe: Recipe
    device: str
    weights: str = ""  # the folder for trained weights; empty: they are not wanted
    work: str = "nas.evaluation.local.worker:train_jobs"  # the function that does the jobs, see `Work`
    group: int | str = 1  # how many jobs are trained at a time on a GPU
    plugins: tuple[str, ...] = ()  # folders whose plugin files may be imported: layers are among them


def train_jobs(jobs: Sequence[Job], dataset: Dataset, task: Task) -> Iterator[Trial]:
    """Train the jobs' networks, and write the weights of each if they are wanted.

    Raises:
        StorageError: the weights cannot be written.
    """
    for trial, network in _group(dataset, task).train(jobs):
        if task.weights and network is not None and trial.failure is None:
            from safetensors.torch import save

            state = {name: tensor.contiguous().cpu() for name, tensor in network.state_dict().items()}
            write_whole(Path(task.weights, f"{trial.job.key}.safetensors"), save(state))
        yield trial


@lru_cache(maxsize=1)
def _group(dataset: Dataset, task: Task) -> Group:
    """The trainer of this process: the data lie on its device, and captured steps are kept for the next jobs."""
    return Group(dataset, task.recipe, task.device, task.group, _warnings.append)


def main(jobs: socket.socket, task: Task) -> None:
    """Receive lists of jobs and send trials, each as a line of JSON, until the connection closes."""
    _end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    _silence()
    with suppress(OSError):  # where memory runs out, a worker goes before the search does
        Path("/proc/self/oom_score_adj").write_text("1000")
    torch.set_num_threads(1)
    with jobs.makefile("rw", encoding="utf-8") as lines:
        for answer in _answers(lines, task):
            print(json.dumps(answer), file=lines, flush=True)


def _answers(lines: Iterable[str], task: Task) -> Iterator[dict[str, Any]]:
    """A trial for each job, or an error that no candidate can help: it ends the search."""
    try:
        plugins.offer(map(Path, task.plugins))
        dataset = Dataset.load(Path(task.data))
        module, _, function = task.work.partition(":")
        work = cast("Work", getattr(importlib.import_module(module), function))
        for line in lines:
            for trial in safely(work, [Job.from_dict(job) for job in json.loads(line)], dataset, task):
                yield {"trial": trial.to_dict(), "warnings": _warnings.copy()}
                _warnings.clear()
    except NasError as error:
        yield {"error": str(error)}


def safely(work: Work, jobs: Sequence[Job], dataset: Dataset, task: Task) -> Iterator[Trial]:
    """The trials of jobs. An exception is the failure of all jobs that have no trial yet.

    Raises:
        StorageError: the disk is full; no job can help that.
    """
    waiting = list(jobs)
    reason: Exception = RuntimeError("there is no trial of it")
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


def _silence() -> None:
    """Discard what a candidate prints: it would appear between the lines of the search, or in its JSON."""
    discard = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # standard output and standard error
        os.dup2(discard, stream)
    os.close(discard)


def _end_with_parent() -> None:
    """Lead a group of processes, so that a job's own processes end with it, and end with the parent.

    A killed parent cannot end its workers. On Linux the kernel does it when the parent's end of a pipe closes:
    within a millisecond, also while C code never lets another thread of Python run. Elsewhere a thread watches.
    """
    parent = parent_process()
    if parent is None:
        return
    if hasattr(os, "setsid"):
        with suppress(OSError):
            os.setsid()
    if sys.platform == "linux":
        import fcntl

        with suppress(OSError):
            fcntl.fcntl(parent.sentinel, fcntl.F_SETOWN, -os.getpid())
            fcntl.fcntl(parent.sentinel, fcntl.F_SETSIG, signal.SIGKILL)
            flags = fcntl.fcntl(parent.sentinel, fcntl.F_GETFL)
            fcntl.fcntl(parent.sentinel, fcntl.F_SETFL, flags | os.O_ASYNC)
    threading.Thread(target=_wait_for_parent, args=(parent.sentinel,), daemon=True).start()


def _wait_for_parent(sentinel: int) -> None:
    connection.wait([sentinel])  # returns at once if it was closed before the kernel was asked
    if hasattr(os, "killpg"):
        with suppress(OSError):
            os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)
