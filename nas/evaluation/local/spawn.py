"""Starting, watching and ending worker processes."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import threading
import time
import types
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing import resource_tracker
from pathlib import Path
from threading import Lock
from typing import Any

import psutil

from nas.errors import NasError

LAUNCHING = Lock()  # a search in another thread would keep the hidden script, or these settings, as the old ones
DESCRIPTORS = 10  # that the start of a worker needs for a moment: a connection, two pipes, and some to spare
UNKNOWN = 255  # the exit code that multiprocessing gives if the server, which knew the code, was killed
# Pauses before trying again: a killed server refuses connections some milliseconds before it is replaced.
DYING_SERVER_SECONDS = (0.01, 0.1, 1.0)
# Settings of glibc: take all memory from the heap, in large pages, and give nothing back (docs/decisions/0009).
ALLOCATOR = ("hugetlb=1", "mmap_max=0", "trim_threshold=17179869184", "top_pad=67108864")

_lock = threading.RLock()  # for what processes inherit: searches in other threads start workers, too
_server_of = 0  # the id of the process that has used the server


def context() -> Any:
    """Multiprocessing that forks workers from a server which has imported torch (40 ms a worker, otherwise 4 s).

    Forking this process itself would not be safe, because it may have threads or a GPU. Windows cannot fork, and
    libraries of macOS do not work after a fork.
    """
    if sys.platform != "linux" or os.environ.get("NAS_START_METHOD") == "spawn":
        return multiprocessing.get_context("spawn")
    forkserver = multiprocessing.get_context("forkserver")
    forkserver.set_forkserver_preload(["nas.evaluation.local.server"])
    return forkserver


def warm_up() -> None:
    """Start the server now, so that it imports torch (3.5 s) while this process does something else."""
    if context().get_start_method() == "forkserver":
        from multiprocessing.forkserver import ensure_running

        with suppress(OSError), LAUNCHING, _inheritance():  # `start` will report the error
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
    if not hasattr(os, "killpg"):  # Windows has no groups: only of a living process are the children known
        with suppress(psutil.Error):
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
        process.kill()
        return
    is_reaped = process.exitcode not in (None, UNKNOWN)
    if is_reaped and psutil.pid_exists(process.pid):
        return  # another process: a number is not used again while a group has it, so the group is empty
    for send in (os.killpg,) if is_reaped else (os.killpg, os.kill):  # it may not have made its group yet
        with suppress(OSError):
            send(process.pid, signal.SIGKILL)


def memory_of(pid: int) -> int:
    """The bytes of memory that a process has for itself, without mapped images; 0 if they are unknown.

    A new worker has 0.4 GiB, most of which it shares with its server.
    """
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        used = process.memory_info()  # 0.1 ms, while `uss` looks at each page
        return int(used.rss - used.shared if hasattr(used, "shared") else process.memory_full_info().uss)
    return 0


def _launch(main: Callable[..., None], *args: Any) -> tuple[Any, socket.socket]:
    ours, theirs = socket.socketpair()
    try:
        with ExitStack() as reserve:  # a client that fails after it has connected ends the server with a traceback
            for _ in range(DESCRIPTORS):
                reserve.enter_context(Path(os.devnull).open())
        process = context().Process(target=main, args=(theirs, *args), daemon=True)
        # A worker would run the main script, and a script that searches would search in each worker: it is hidden.
        # A process of a multiprocessing.Pool may not have children, because they could outlive it: ours do not.
        hidden = _with_entry(sys.modules, "__main__", types.ModuleType("__main__"))
        config: dict[str, Any] = multiprocessing.current_process()._config  # type: ignore[attr-defined]
        with LAUNCHING, _inheritance(), hidden, _with_entry(config, "daemon", False):
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


def _forget_parent() -> None:
    """Go on without what has stayed with the parent: this process was forked from one that has searched."""
    from multiprocessing.forkserver import _forkserver as server

    import torch

    vars(server).update(_forkserver_pid=None, _forkserver_alive_fd=None, _forkserver_address=None)
    torch.set_num_threads(1)  # torch would wait for its other threads without end


@contextmanager
def _inheritance() -> Iterator[None]:
    """Decide what processes that start now inherit.

    They keep the memory that a step frees for the next step; by default glibc gives large blocks back to the
    system, which must clear every page before it is used again. And Ctrl-C, which reaches every process in a
    terminal, is for this one: without that, a process that imports torch would end with a traceback.
    """
    global _server_of
    tunables = ":".join(f"glibc.malloc.{option}" for option in ALLOCATOR)
    name = "GLIBC_TUNABLES"
    with _lock, _with_entry(os.environ, name, os.environ.get(name, tunables)):  # the user's settings come first
        if _server_of not in (0, os.getpid()):
            _forget_parent()
        _server_of = os.getpid()
        if os.name != "posix":
            yield
            return
        resource_tracker.ensure_running()  # while it starts, it allows Ctrl-C again
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
