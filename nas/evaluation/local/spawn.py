"""Starting, watching and ending worker processes; the cores and the memory of this machine."""

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
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from nas.errors import NasError

GIB = 2**30
DESCRIPTORS = 10  # that the start of a worker needs for a moment: a connection, two pipes, and some to spare
UNKNOWN = 255  # the exit code that multiprocessing gives if the server, which knew the code, was killed
# Pauses before trying again: a killed server refuses connections some milliseconds before it is replaced.
DYING_SERVER_SECONDS = (0.01, 0.1, 1.0)
# Settings of glibc: take all memory from the heap, in large pages, and give nothing back (docs/decisions/0009).
ALLOCATOR = ("hugetlb=1", "mmap_max=0", "trim_threshold=17179869184", "top_pad=67108864")
MEMORY_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # of a container


def context() -> Any:
    """Multiprocessing that forks workers from a server which has imported torch (40 ms a worker, otherwise 4 s).

    Forking this process itself would not be safe, because it may have threads or a GPU.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    forkserver = multiprocessing.get_context("forkserver")
    forkserver.set_forkserver_preload(["nas.evaluation.local.server"])
    return forkserver


def warm_up() -> None:
    """Start the server now, so that it imports torch (3.5 s) while this process does something else."""
    if context().get_start_method() == "forkserver":
        from multiprocessing.forkserver import ensure_running

        with suppress(OSError), _allocator():  # `start` will report the error
            ensure_running()


def start(main: Callable[..., None], *args: Any) -> tuple[Any, socket.socket]:
    """A new process in which ``main(socket, *args)`` runs, and the other end of its socket.

    Raises:
        NasError: the system has not enough resources for one more process.
    """
    try:
        for pause in DYING_SERVER_SECONDS:
            with suppress(ConnectionError, EOFError):
                return _launch(main, *args)
            time.sleep(pause)
        return _launch(main, *args)
    except (OSError, EOFError) as error:
        reason = getattr(error, "strerror", None) or "the server that starts them died"
        advice = "take fewer --workers, or end other programs"
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            advice = "allow more with `ulimit -n 4096`, or take fewer --workers"
        elif "AF_UNIX" in str(error):  # the address of a socket may have 107 bytes, of which ours takes 31 or 32
            reason = f"the path of the folder for temporary files is too long: {tempfile.gettempdir()}"
            advice = "name a shorter one in TMPDIR"
        raise NasError(f"a worker process cannot be started ({reason}): {advice}") from None


def kill(process: Any) -> None:
    """Kill a process and its group, that is, the processes that it has started, even if it has ended itself."""
    if os.name != "posix":
        process.kill()
        return
    is_reaped = process.exitcode not in (None, UNKNOWN)
    if is_reaped and _exists(process.pid):
        return  # another process: a number is not used again while a group has it, so the group is empty
    for send in (os.killpg,) if is_reaped else (os.killpg, os.kill):  # it may not have made its group yet
        with suppress(OSError):
            send(process.pid, signal.SIGKILL)


def cores() -> int:
    """The number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory() -> float:
    """The bytes of memory for all processes together; infinity if they are unknown."""
    sizes = [math.inf]
    with suppress(AttributeError, ValueError, OSError):
        sizes.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for path in MEMORY_LIMITS:
        with suppress(OSError, ValueError):  # the file may contain "max"
            sizes.append(int(Path(path).read_text()))
    return min(sizes)


def memory_of(pid: int) -> int:
    """The bytes of memory that a process has for itself, without mapped images; 0 if they are unknown.

    This takes 30 µs. A new worker has 0.4 GiB, most of which it shares with its server.
    """
    with suppress(OSError, ValueError, IndexError):
        pages = Path(f"/proc/{pid}/statm").read_text().split()
        return (int(pages[1]) - int(pages[2])) * os.sysconf("SC_PAGE_SIZE")
    return 0


def _launch(main: Callable[..., None], *args: Any) -> tuple[Any, socket.socket]:
    ours, theirs = socket.socketpair()
    try:
        with ExitStack() as reserve:  # a client that fails after it has connected ends the server with a traceback
            for _ in range(DESCRIPTORS):
                reserve.enter_context(Path(os.devnull).open())
        process = context().Process(target=main, args=(theirs, *args), daemon=True)
        # A worker would run the main script, and a script that searches would search in each worker: it is hidden.
        with _with_entry(sys.modules, "__main__", types.ModuleType("__main__")), _allocator():
            process.start()
    except BaseException:
        ours.close()  # if the process starts after all, it finds its socket closed and ends
        raise
    finally:
        theirs.close()
    return process, ours


@contextmanager
def _with_entry(mapping: MutableMapping[str, Any], name: str, value: Any) -> Iterator[None]:
    """Give a mapping an entry within a ``with`` block."""
    before = mapping.get(name)
    mapping[name] = value
    try:
        yield
    finally:
        if before is None:
            mapping.pop(name, None)
        else:
            mapping[name] = before


def _allocator() -> AbstractContextManager[None]:
    """Let a server that starts now, and its workers, keep the memory that a step frees for the next step.

    By default glibc gives large blocks back to the system, which must clear every page before it is used again.
    """
    tunables = ":".join(f"glibc.malloc.{option}" for option in ALLOCATOR)
    name = "GLIBC_TUNABLES"
    return _with_entry(os.environ, name, os.environ.get(name, tunables))  # the user's settings come first


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError as error:
        return not isinstance(error, ProcessLookupError)
    return True
