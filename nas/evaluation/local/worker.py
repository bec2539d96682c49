"""What runs inside a worker process: one job after another, or group of jobs, until the connection closes."""

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

from nas.data.dataset import Dataset
from nas.errors import DataError, StorageError
from nas.files import write_whole
from nas.training.group import Group
from nas.training.recipe import Recipe
from nas.trial import Job, Trial

Work = Callable[[Sequence[Job], Dataset, "Task"], Iterable[Trial]]  # a trial for each job, as they finish

_said: list[str] = []  # what the person who searches should know; it goes with the next answer


@dataclass(frozen=True)
class Task:
    """Everything a worker has to know before its first job; plain data."""

    data: str  # a folder that `Dataset.save` wrote: all workers map the same pages
    recipe: Recipe
    device: str
    weights: str = ""  # the folder where trained weights go, if they are wanted
    work: str = "nas.evaluation.local.worker:train_jobs"  # what does the jobs, see `Work`
    group: int | str = 1  # how many are trained at a time


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
    """What trains in this process: it has the data on the device, and keeps what one job leaves for the next."""
    return Group(dataset, task.recipe, task.device, task.group, _said.append)


def main(jobs: socket.socket, task: Task) -> None:
    """Receive jobs, a list in a line of JSON, and send what came of each in a line, until there are no more."""
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
    """A trial for each job, or an error that is nobody's fault in here: it ends the search, not the candidate."""
    try:
        dataset = Dataset.load(Path(task.data))
        module, _, function = task.work.partition(":")
        work = cast("Work", getattr(importlib.import_module(module), function))
        for line in lines:
            for trial in safely(work, [Job.from_dict(one) for one in json.loads(line)], dataset, task):
                yield {"trial": trial.to_dict(), "said": _said.copy()}
                _said.clear()
    except (StorageError, DataError) as error:
        yield {"error": str(error)}


def safely(work: Work, jobs: Sequence[Job], dataset: Dataset, task: Task) -> Iterator[Trial]:
    """The trials of jobs; whatever goes wrong is a failure of those that have none yet.

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
    """Whatever a candidate prints would end up between the lines of the search, or in its JSON."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # standard output and standard error
        os.dup2(nowhere, stream)
    os.close(nowhere)


def _end_with_parent() -> None:
    """Lead a group of processes, so that all that a job starts ends with it, and end with the parent.

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
