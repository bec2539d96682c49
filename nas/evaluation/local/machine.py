"""The cores and the memory that this process may use: in a container, less than the machine has."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

ROOT = Path("/")
GIB = 2**30
MEMORY_SHARE = 0.8  # of the machine's memory, for all workers together
SMALLEST = 0.5  # GiB; the training of the smallest network takes 0.37, that of the lecture's network 0.46


def cores(root: Path = ROOT) -> int:
    """The number of cores that this process may use; half a core counts as one."""
    counts: list[float] = [
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    ]
    for group in _groups("cpu", root):
        quota = _numbers(group / "cpu.max", group / "cpu.cfs_quota_us", group / "cpu.cfs_period_us")
        if len(quota) == 2 and quota[0] > 0:  # µs of work in so many µs; v1 writes -1 for no limit
            counts.append(quota[0] / quota[1])
    return max(1, math.ceil(min(counts)))


def memory(root: Path = ROOT) -> int:
    """The bytes of memory for all processes together."""
    sizes = [psutil.virtual_memory().total]
    for group in _groups("memory", root):
        sizes += _numbers(group / "memory.max", group / "memory.high", group / "memory.limit_in_bytes")
    return int(min(sizes))


def _groups(controller: str, root: Path) -> Iterator[Path]:
    """The folders of the control group (cgroup v1 or v2) of this process, and of every group around it.

    A container may see its own group as the outermost, whatever its path: folders that do not exist are skipped.
    """
    lines: list[str] = []
    with suppress(OSError):  # not Linux
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            mounts = {controllers, controller}
        else:
            mounts = set() if controllers else {"", "unified"}  # v2, alone or beside v1
        for mount in mounts:
            top = root / "sys/fs/cgroup" / mount
            group = top / path.lstrip("/")
            yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(top))


def _numbers(*files: Path) -> list[int]:
    """The whole numbers in files; "max", which is no limit, makes the number beside it useless, too."""
    found = []
    for file in files:
        with suppress(OSError, ValueError):
            found += [int(word) for word in file.read_text().split()]
    return found
