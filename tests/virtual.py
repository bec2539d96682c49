"""Workers without a clock: every job takes a made-up time, so that a thousand of them cost nothing."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from itertools import count
from random import Random

from nas.evaluation.evaluator import AheadEvaluator
from nas.trial import Job, Trial


class Virtual(AheadEvaluator):
    """Takes jobs while others are in work. A job takes its epochs, times a lognormal number with a mean of 1.

    Args:
        trial: the trial of a job.
        workers: the number of jobs in work at a time.
        seed: of the schedule.
        spread: the standard deviation of the logarithm of a job's time.
        lost: the probability that a worker is lost with its job, which begins anew.
    """

    def __init__(
        self, trial: Callable[[Job], Trial], workers: int, seed: int = 0, spread: float = 0.6, lost: float = 0.0
    ) -> None:
        self._trial, self._workers, self._spread, self._lost = trial, workers, spread, lost
        self._rng, self._numbers = Random(seed), count()
        self._waiting: list[tuple[int, float, int, Job]] = []  # turn, the longest first, number
        self._running: list[tuple[float, int, int, Job]] = []  # end, number, turn
        self.now = self.busy = 0.0

    def submit(self, jobs: Sequence[Job], /, turn: int) -> None:
        """Take jobs."""
        for job in jobs:
            heapq.heappush(self._waiting, (turn, -job.epochs, next(self._numbers), job))

    def finished(self) -> list[Trial]:
        """The trial of the job that ends next."""
        while True:
            while self._waiting and len(self._running) < self._workers:
                turn, _, number, job = heapq.heappop(self._waiting)
                seconds = job.epochs * self._rng.lognormvariate(-(self._spread**2) / 2, self._spread)
                self.busy += seconds
                heapq.heappush(self._running, (self.now + seconds, number, turn, job))
            if not self._running:
                return []
            self.now, _, turn, job = heapq.heappop(self._running)
            if self._rng.random() >= self._lost:
                return [self._trial(job)]
            self.submit([job], turn)

    def cancel(self) -> None:
        """Forget all jobs."""
        self._waiting, self._running = [], []
