"""What the workers of tests do instead of training: go wrong in every way, depending on the seed of the job."""

from __future__ import annotations

import os
import signal
import sys
import time

import torch
from conftest import finished

from nas.data.dataset import Dataset
from nas.evaluation.worker import Task
from nas.trial import Job, Trial

FAULTS = {1: "killed", 2: "raises", 3: "hangs", 4: "memory", 5: "exits", 6: "prints", 7: "nan"}


def misbehave(job: Job, dataset: Dataset, task: Task) -> Trial:
    """Every seed that is not in FAULTS is well behaved."""
    match FAULTS.get(job.seed):
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "raises":
            raise ValueError("the candidate's own fault")
        case "hangs":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(600)
        case "memory":
            torch.empty(2**60, dtype=torch.uint8)
        case "exits":
            os._exit(3)
        case "prints":
            print("x" * 3_000_000)
            print("y" * 3_000_000, file=sys.stderr)
        case "nan":
            return finished(job, float("nan"))
    return finished(job)


def slow(job: Job, dataset: Dataset, task: Task) -> Trial:
    """Takes as many seconds as the job has epochs."""
    time.sleep(job.epochs)
    return finished(job)
