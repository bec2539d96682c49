"""Finds a small convolutional network for a set of images.

from nas import Experiment

outcome = Experiment(strategy="evolve", dataset="mnist-5k", trials=24).run()
print(outcome.test_accuracy, outcome.architecture.to_json())
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nas.architecture.architecture import Architecture
    from nas.errors import NasError
    from nas.experiment import Experiment
    from nas.records.outcome import Outcome
    from nas.spaces.space import Candidate, SearchSpace
    from nas.strategies.strategy import Strategy
    from nas.trial import Trial

__version__ = "0.1.0"

# Imported when they are first used: `nas --help` must not wait for them.
_PLACES = {
    "Architecture": "nas.architecture.architecture",
    "Candidate": "nas.spaces.space",
    "Experiment": "nas.experiment",
    "NasError": "nas.errors",
    "Outcome": "nas.records.outcome",
    "SearchSpace": "nas.spaces.space",
    "Strategy": "nas.strategies.strategy",
    "Trial": "nas.trial",
}

__all__ = ["Architecture", "Candidate", "Experiment", "NasError", "Outcome", "SearchSpace", "Strategy", "Trial"]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'nas' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_PLACES[name]), name)
