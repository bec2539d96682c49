"""What runs inside a worker process: one job after another, until the connection closes."""

from __future__ import annotations

import importlib
import json
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import connection, parent_process
from pathlib import Path
from typing import Any, cast

import torch

from nas.data.dataset import Dataset
from nas.errors import NasError
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
    """Train the job's network, and write its weights if they are wanted."""
    trial, network = train(job, dataset, Recipe(**task.recipe), task.device)
    if task.weights and trial.failure is None:
        from safetensors.torch import save_file

        state = {name: tensor.contiguous().cpu() for name, tensor in network.state_dict().items()}
        path = Path(task.weights, f"{job.key}.safetensors")
        save_file(state, path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)
    return trial


def main(jobs: connection.Connection, task: Task) -> None:
    """Receive jobs as JSON and send trials as JSON, until there are no more."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    _silence()
    with suppress(OSError):  # where memory runs out, a worker goes before the search does
        Path("/proc/self/oom_score_adj").write_text("1000")
    torch.set_num_threads(1)
    dataset = Dataset.load(Path(task.data))
    module, _, function = task.work.partition(":")
    work = cast("Callable[[Job, Dataset, Task], Trial]", getattr(importlib.import_module(module), function))
    while True:
        try:
            job = Job.from_dict(json.loads(jobs.recv_bytes()))
        except EOFError:
            return
        jobs.send_bytes(json.dumps(safely(work, job, dataset, task).to_dict()).encode())


def safely(work: Callable[[Job, Dataset, Task], Trial], job: Job, dataset: Dataset, task: Task) -> Trial:
    """The trial of a job; whatever goes wrong is a failure of this job alone."""
    try:
        return work(job, dataset, task)
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
    """A killed parent cannot end its workers; so they watch it."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
