"""What runs inside a worker process: one job after another, until the connection closes."""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import connection, parent_process
from pathlib import Path
from typing import Any, cast

import torch

from nas.data.dataset import Dataset
from nas.errors import DataError, NasError, StorageError
from nas.files import write_whole
from nas.training.recipe import Recipe
from nas.training.trainer import train
from nas.trial import Job, Kind, Trial

OUT_OF_MEMORY = ("DefaultCPUAllocator", "out of memory", "Cannot allocate memory")


@dataclass(frozen=True)
class Task:
    """Everything a worker has to know before its first job; plain data."""

    data: str  # a folder that `Dataset.save` wrote: all workers map the same pages
    recipe: dict[str, Any]
    device: str
    weights: str = ""  # the folder where trained weights go, if they are wanted
    work: str = "nas.evaluation.worker:train_job"  # what does a job


def train_job(job: Job, dataset: Dataset, task: Task) -> Trial:
    """Train the job's network, and write its weights if they are wanted.

    Raises:
        StorageError: the weights cannot be written.
    """
    trial, network = train(job, dataset, Recipe(**task.recipe), task.device)
    if task.weights and trial.failure is None:
        from safetensors.torch import save

        state = {name: tensor.contiguous().cpu() for name, tensor in network.state_dict().items()}
        write_whole(Path(task.weights, f"{job.key}.safetensors"), save(state))
    return trial


def main(jobs: socket.socket, task: Task) -> None:
    """Receive jobs and send what came of them, both one line of JSON each, until there are no more."""
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
        work = cast("Callable[[Job, Dataset, Task], Trial]", getattr(importlib.import_module(module), function))
        for line in lines:
            yield {"trial": safely(work, Job.from_dict(json.loads(line)), dataset, task).to_dict()}
    except (StorageError, DataError) as error:
        yield {"error": str(error)}


def safely(work: Callable[[Job, Dataset, Task], Trial], job: Job, dataset: Dataset, task: Task) -> Trial:
    """The trial of a job; whatever goes wrong is a failure of this job alone.

    Raises:
        StorageError: the disk is full; no job can help that.
    """
    try:
        return work(job, dataset, task)
    except StorageError:
        raise
    except NasError as error:  # its message is written for people
        return Trial.failed(job, "invalid", str(error))
    except MemoryError:
        return Trial.failed(job, "oom", "out of memory")
    except Exception as error:  # noqa: BLE001  # a candidate must not cost more than itself
        kind: Kind = "oom" if any(words in str(error) for words in OUT_OF_MEMORY) else "crash"
        return Trial.failed(job, kind, f"{type(error).__name__}: {error}")


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
