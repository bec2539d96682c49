"""What is told about a comparison while it runs."""

from __future__ import annotations

import warnings

from nas.baselines.baseline import Baseline
from nas.records.observer import Observer
from nas.run.conclude import Selected


class Watcher:
    """Is told what a comparison does; does nothing by itself."""

    noun = "images"  # what the networks classify; `compare` sets it

    def searching(self, name: str, number: int, count: int) -> Observer:
        """A search begins or goes on, the ``number``-th of ``count``; what is told to its observer.

        Several searches may run at the same time, each in a thread, in which its observer is called, too.
        """
        return Observer()

    def searched(self, name: str, decided: Selected) -> None:
        """A search has decided."""

    def failed(self, name: str, message: str) -> None:
        """A search has no winner."""

    def fitting(self, name: str) -> None:
        """A baseline is fitted."""

    def fitted(self, baseline: Baseline) -> None:
        """It is."""

    def opening(self, models: int) -> None:
        """Everything is decided: the test inputs are opened for so many models."""

    def explaining(self, what: str) -> None:
        """An experiment begins."""

    def warned(self, message: str) -> None:
        """Something happened that the user should know."""


class PythonWatcher(Watcher):
    """Turns warnings into those of Python, where nobody else is told."""

    def warned(self, message: str) -> None:
        """Warn."""
        warnings.warn(message, stacklevel=2)


class Warnings(Observer):
    """Passes the warnings of a search on."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher

    def warned(self, message: str) -> None:
        """Pass it on."""
        self._watcher.warned(message)
