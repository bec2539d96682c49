"""Successive halving: all candidates are trained for a short time, only the best of them in full."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from nas.objectives import best_first
from nas.trial import REDUCTION, Job, Trial


class SuccessiveHalving:
    """A batch of jobs: all are trained for a fraction of their epochs, and only the best for all epochs.

    Jamieson and Talwalkar, 2016. Each rung trains from scratch, with a complete learning rate schedule, so that
    networks are compared at the end of a schedule and a trial is a function of its job.

    Args:
        jobs: of the batch. Equal jobs are trained once.
        failed: the trials of those of the jobs that cannot be trained.
        turn: the number of the batch.
        reduction: 1/reduction of the jobs reach the next rung, which trains reduction times as long.
        rungs: the number of rungs; with one rung, all jobs are trained in full.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        failed: Sequence[Trial] = (),
        *,
        turn: int = 0,
        reduction: int = REDUCTION,
        rungs: int = 1,
    ) -> None:
        self.jobs, self.turn, self._reduction, self._rung = jobs, turn, reduction, rungs
        useless = {trial.job.key for trial in failed}
        able = (job for job in jobs if job.key not in useless)
        self._running = list({(job.candidate.id, job.seed): job for job in able}.values())
        self._short: list[Job] = []  # the jobs of this rung
        self._trials: list[Trial] = []  # of this rung
        self._shorter: dict[str, Trial] = {}  # the trials of the promoted jobs in the rung below
        self._left = list(failed)

    @property
    def is_over(self) -> bool:
        """Whether all jobs have left the rungs."""
        return not self._running

    def left(self) -> list[Trial]:
        """The trials of jobs that have left the rungs since the last call, each from the highest it reached."""
        left, self._left = self._left, []
        return left

    def next(self) -> list[Job]:
        """The jobs of the next rung; none if the last one is over."""
        self._rung -= 1
        fraction = self._reduction**self._rung
        self._short = [replace(job, epochs=job.epochs / fraction) for job in self._running]
        self._trials = []
        return self._short

    def take(self, trial: Trial) -> list[Job]:
        """Take the trial of a job of this rung; when the rung is complete, these are the jobs of the next one."""
        self._trials.append(trial)
        if len(self._trials) < len(self._short):
            return []
        self._leave(math.ceil(len(self._short) / self._reduction) if self._rung else 0)
        return self.next() if self._running else []

    def close(self) -> None:
        """There is no time for the rest of this rung: every job keeps the trial that it has, if it has one."""
        if not self.is_over:
            self._leave(0)

    def _leave(self, keep: int) -> None:
        """The end of a rung, of which so many jobs are promoted."""
        trials = in_order(self._short, self._trials)
        promoted = {trial.id: trial for trial in best_first(trials, keep)}
        ids = {trial.id for trial in trials}
        left = [trial for trial in trials if trial.id not in promoted]
        left += [trial for name, trial in self._shorter.items() if name not in ids]  # no time for this rung
        for trial in left:
            self._left += in_order([job for job in self.jobs if job.candidate.id == trial.id], [trial])
        self._shorter = promoted
        self._running = [job for job in self._running if job.candidate.id in promoted]


def in_order(jobs: Sequence[Job], trials: Iterable[Trial]) -> list[Trial]:
    """The trials in the order of their jobs, which does not depend on the time at which they finished.

    Jobs that differ only in their epochs count as equal. Jobs without a trial are left out.
    """
    by_candidate = {(trial.id, trial.job.seed): trial for trial in trials}
    pairs = ((job, by_candidate.get((job.candidate.id, job.seed))) for job in jobs)
    return [replace(trial, job=replace(job, epochs=trial.job.epochs)) for job, trial in pairs if trial]
