"""The imports of the server process from which workers are forked, and its quick end (see `spawn.context`)."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from multiprocessing import parent_process

WATCH_SECONDS = 0.05


def _end_with_parent(parent: int, are_done: threading.Event) -> None:
    """End if the parent ends: the server itself looks after that only when its imports are done, in 3 to 30 s."""
    while not are_done.wait(WATCH_SECONDS):
        if os.getppid() != parent:
            os._exit(0)


_are_done = threading.Event()
_watch = threading.Thread(target=_end_with_parent, args=(os.getppid(), _are_done))
_watch.start()

import nas.evaluation.local.worker  # noqa: E402
import nas.training.group  # noqa: E402, F401

# Python takes a second to unload these modules. Programs that read the output of a search would have to wait,
# because the server has the output open, too; so would a search that has to replace its server.
if parent_process() is None and any("multiprocessing.forkserver" in argument for argument in sys.orig_argv):
    atexit.register(os._exit, 0)

_are_done.set()
_watch.join()  # workers are forked from a process that has one thread
