"""Finds a small neural network for images, series or a text.

import nas

outcome = nas.search(strategy="evolve", dataset="mnist-5k", trials=24)
print(outcome.test_accuracy, outcome.architecture.to_json())
network = nas.load(outcome.header.folder)
"""

from __future__ import annotations

import builtins
import sys
from types import ModuleType

TYPE_CHECKING = False  # without `typing`, which takes 20 ms: the console script must soon answer signals
if TYPE_CHECKING:
    from typing import Any

    from nas.architecture.architecture import Architecture
    from nas.architecture.layer import Layer
    from nas.comparison.comparison import compare
    from nas.data.dataset import Dataset
    from nas.data.plugin import DatasetPlugin
    from nas.errors import NasError
    from nas.experiment import Experiment
    from nas.records.outcome import Outcome
    from nas.run.resumed import resume
    from nas.run.runs import search, train
    from nas.spaces.space import Candidate, SearchSpace
    from nas.strategies.strategy import Strategy
    from nas.trial import Trial
    from nas.winner.best import load

__version__ = "0.1.0"

# Each name is imported when it is first used: `nas --help` must not wait for it.
_MODULES = {
    "Architecture": "nas.architecture.architecture",
    "Candidate": "nas.spaces.space",
    "Dataset": "nas.data.dataset",
    "DatasetPlugin": "nas.data.plugin",
    "Experiment": "nas.experiment",
    "Layer": "nas.architecture.layer",
    "NasError": "nas.errors",
    "Outcome": "nas.records.outcome",
    "SearchSpace": "nas.spaces.space",
    "Strategy": "nas.strategies.strategy",
    "Trial": "nas.trial",
    "compare": "nas.comparison.comparison",
    "load": "nas.winner.best",
    "resume": "nas.run.resumed",
    "search": "nas.run.runs",
    "train": "nas.run.runs",
}

# Those that show their progress in the cell of a notebook.
_IN_NOTEBOOK = ("resume", "search", "train")

__all__ = ["Architecture", "Candidate", "Dataset", "DatasetPlugin", "Experiment", "Layer", "NasError", "Outcome"]
__all__ += ["SearchSpace", "Strategy", "Trial", "compare", "load", "resume", "search", "train"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'nas' has no attribute {name!r}")
    import importlib

    module = _MODULES[name]
    if name in _IN_NOTEBOOK and hasattr(getattr(builtins, "get_ipython", lambda: None)(), "kernel"):
        module = "nas.notebook"
    return getattr(importlib.import_module(module), name)


def __dir__() -> list[str]:
    return [*globals(), *_MODULES]


class _FrontDoor(ModuleType):
    """Keeps ``nas.search`` the function, although there is a module nas/search.py.

    Python makes every imported module an attribute of its package, which would hide the function. The module is
    imported as usual: ``from nas.search import Search``.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (name == "search" and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _FrontDoor
