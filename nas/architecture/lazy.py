"""``torch.nn`` and this package's modules, imported at their first use: importing torch takes 3.5 s."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn as nn

    from nas.architecture import modules as modules
    from nas.architecture import sequence_modules as sequence_modules
else:

    class _LazyModule:
        def __init__(self, name):
            self._name = name

        def __getattr__(self, attribute):
            return getattr(importlib.import_module(self._name), attribute)

    nn, modules = _LazyModule("torch.nn"), _LazyModule("nas.architecture.modules")
    sequence_modules = _LazyModule("nas.architecture.sequence_modules")
