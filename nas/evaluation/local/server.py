"""The imports of the server process from which workers are forked, and its quick end (see `spawn.context`)."""

from __future__ import annotations

import atexit
import os
import sys
from contextlib import suppress
from multiprocessing import parent_process

import nas.evaluation.local.worker  # noqa: F401

# Python takes a second to unload these modules. Programs that read the output of a search would have to wait,
# because the server has the output open, too; so would a search that has to replace its server.
if parent_process() is None and any("multiprocessing.forkserver" in argument for argument in sys.orig_argv):
    atexit.register(os._exit, 0)

# torch imports torch._dynamo with the first step of an optimiser: 888 modules, 4 to 6 s in every worker.
with suppress(ImportError):
    import torch._dynamo  # noqa: F401
