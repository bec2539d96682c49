"""How worker processes are made, and how many."""

from __future__ import annotations

import multiprocessing
import os
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def context() -> Any:
    """Where processes come from: forked from a server that has imported torch once (40 ms a worker, else 4 s).

    A server, because forking this process, which may have threads or a GPU, is not safe.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    made = multiprocessing.get_context("forkserver")
    # torch imports torch._dynamo with the first step of an optimiser: 888 modules, 4 to 6 s in every worker.
    made.set_forkserver_preload(["nas.evaluation.worker", "torch._dynamo"])
    return made


def warm_up() -> None:
    """Start the server now: it imports torch (3.5 s) while this process does something else."""
    if context().get_start_method() == "forkserver":
        from multiprocessing.forkserver import ensure_running

        ensure_running()


@contextmanager
def no_main_module() -> Iterator[None]:
    """Hide the main script: a worker would run it, and a script that searches would search in each worker."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
