"""How worker processes are made, watched and ended, and how many there are."""

from __future__ import annotations

import errno
import math
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from nas.errors import NasError

GIB = 2**30
UNKNOWN = 255  # the exit code that multiprocessing gives when the server was killed that knew it
# A server that was killed refuses connections some milliseconds before it counts as dead and another is started.
DYING_SERVER_SECONDS = (0.01, 0.1, 1.0)
# Of glibc: all memory from the heap, in large pages, of which nothing is given back (docs/decisions/0009).
ALLOCATOR = ("hugetlb=1", "mmap_max=0", "trim_threshold=17179869184", "top_pad=67108864")
MEMORY_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # of a container


def context() -> Any:
    """Where processes come from: forked from a server that has imported torch once (40 ms a worker, else 4 s).

    A server, because forking this process, which may have threads or a GPU, is not safe.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload(["nas.evaluation.local.server"])
    return made


def warm_up() -> None:
    """Start the server now: it imports torch (3.5 s) while this process does something else."""
    if context().get_start_method() == "forkserver":
        from multiprocessing.forkserver import ensure_running

        with suppress(OSError), _allocator():  # `start` will say it
            ensure_running()


def start(main: Callable[..., None], *args: Any) -> tuple[Any, socket.socket]:
    """A new process in which ``main(socket, *args)`` runs, and the other end of its socket.

    Raises:
        NasError: the system has not enough left of something for one more process.
    """
    try:
        for pause in DYING_SERVER_SECONDS:
            with suppress(ConnectionError, EOFError):
                return _launch(main, *args)
            time.sleep(pause)
        return _launch(main, *args)
    except (OSError, EOFError) as error:
        raise NasError(_cannot_start(error)) from None


def kill(process: Any) -> None:
    """Kill a process and its whole group: what it has started, also where that has outlived it."""
    if os.name != "posix":
        process.kill()
        return
    is_reaped = process.exitcode not in (None, UNKNOWN)
    if is_reaped and _exists(process.pid):
        return  # a stranger: no number is given away while a group has it, so the group is empty
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except OSError:  # no member is left, or it has not come to make its group
        if not is_reaped:
            with suppress(OSError):
                os.kill(process.pid, signal.SIGKILL)


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory() -> float:
    """How many bytes of memory there are, for all processes together; infinity where nobody says it."""
    sizes = [math.inf]
    with suppress(AttributeError, ValueError, OSError):
        sizes.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for path in MEMORY_LIMITS:
        with suppress(OSError, ValueError):  # "max" is no number
            sizes.append(int(Path(path).read_text()))
    return min(sizes)


def memory_of(pid: int) -> int:
    """How many bytes of memory a process has for itself: mapped images are not counted. 0 where nobody says it.

    Looking takes 30 µs. A worker that has just begun has 0.4 GiB, most of it shared with its server.
    """
    with suppress(OSError, ValueError, IndexError):
        pages = Path(f"/proc/{pid}/statm").read_text().split()
        return (int(pages[1]) - int(pages[2])) * os.sysconf("SC_PAGE_SIZE")
    return 0


def _launch(main: Callable[..., None], *args: Any) -> tuple[Any, socket.socket]:
    ours, theirs = socket.socketpair()
    try:
        process = context().Process(target=main, args=(theirs, *args), daemon=True)
        with _no_main_module(), _allocator():
            process.start()
    except BaseException:
        ours.close()  # if the process is made after all, it finds its socket closed and ends
        raise
    finally:
        theirs.close()
    return process, ours


@contextmanager
def _no_main_module() -> Iterator[None]:
    """Hide the main script: a worker would run it, and a script that searches would search in each worker."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextmanager
def _allocator() -> Iterator[None]:
    """Let a server that starts now, and with it the workers, keep the memory that a step frees for the next step.

    glibc gives large blocks back to the system, which clears every page that it hands out again.
    """
    name = "GLIBC_TUNABLES"
    if name in os.environ:  # somebody knows better
        yield
        return
    os.environ[name] = ":".join(f"glibc.malloc.{option}" for option in ALLOCATOR)
    try:
        yield
    finally:
        os.environ.pop(name, None)


def _cannot_start(error: OSError | EOFError) -> str:
    reason = getattr(error, "strerror", None) or "the server that makes them died"
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        what = "allow more with `ulimit -n 4096`, or take fewer --workers"
    elif "AF_UNIX" in str(error):  # of the 107 bytes that a socket's address may have, ours takes 31 or 32
        reason = f"the path of the folder for temporary files is too long: {tempfile.gettempdir()}"
        what = "name a shorter one in TMPDIR"
    else:
        what = "take fewer --workers, or look at what else is running"
    return f"a worker process cannot be started ({reason}): {what}"


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
