"""Trains in this process, where a debugger can stop: ``nas search --evaluator inline``."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nas.evaluation.evaluator import Evaluator
from nas.trial import Job, Trial

if TYPE_CHECKING:
    from nas.data.dataset import Dataset
    from nas.training.recipe import Recipe


class Inline(Evaluator):
    """Trains one job after the other in this process, with the same results as a worker process.

    Args:
        dataset: the data that the networks learn from.
        recipe: how they are trained.
        device: the device that trains them.
        weights: a folder for the trained weights, or None.
        until: the time (``time.monotonic``) after which no training begins; None for no limit.
    """

    def __init__(
        self,
        dataset: Dataset,
        recipe: Recipe,
        *,
        device: str = "cpu",
        weights: Path | None = None,
        until: float | None = None,
    ) -> None:
        from nas.evaluation.local.worker import Task

        self._dataset = dataset
        self._task = Task(data="", recipe=recipe, device=device, weights=str(weights or ""))
        self._until = until

    def evaluate(self, jobs: Sequence[Job], /) -> Iterator[Trial]:
        """One trial for each job, in their order."""
        for job in jobs:
            if self._until is not None and time.monotonic() >= self._until:
                return
            yield self._train(job)

    def _train(self, job: Job) -> Trial:
        """The trial of a job; an exception is a failure of this job only."""
        import torch

        from nas.evaluation.local.worker import measure_jobs, safely, train_jobs

        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # as in a worker: with two threads, the results differ by rounding
        try:
            [measured] = safely(measure_jobs, [job], self._dataset, self._task)
            [trial] = safely(train_jobs, [job], self._dataset, self._task)
            return replace(trial, metrics={**measured.metrics, **trial.metrics})
        finally:
            torch.set_num_threads(threads)
