"""What the server imports that workers are forked from, and how it ends (see `processes.context`)."""

from __future__ import annotations

import atexit
import os
import sys
from contextlib import suppress
from multiprocessing import parent_process

import nas.evaluation.local.worker  # noqa: F401

# Python takes a second to take all of that down again, for which nobody should wait: not who reads what a search
# prints (the server has its standard output, too), nor a search whose server has died, before it starts another.
if parent_process() is None and any("multiprocessing.forkserver" in word for word in sys.orig_argv):
    atexit.register(os._exit, 0)

# torch imports torch._dynamo with the first step of an optimiser: 888 modules, 4 to 6 s in every worker.
with suppress(ImportError):
    import torch._dynamo  # noqa: F401
