"""Successive halving: all candidates are trained for a short time, only the best of them in full."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from nas.evaluation.evaluator import Evaluator
from nas.objectives import best_first
from nas.trial import REDUCTION, Job, Trial


class SuccessiveHalving:
    """Trains all jobs of a batch for a fraction of their epochs, and only the best for all epochs.

    Jamieson and Talwalkar, 2016. Each rung trains from scratch, with a complete learning rate schedule, so that
    networks are compared at the end of a schedule and a trial is a function of its job.

    Args:
        inner: the evaluator that trains.
        reduction: 1/reduction of the jobs reach the next rung, which trains reduction times as long.
        rungs: the number of rungs; with one rung, all jobs are trained in full.
    """

    def __init__(self, inner: Evaluator, *, reduction: int = REDUCTION, rungs: int = 2) -> None:
        self._inner, self._reduction, self._rungs = inner, reduction, rungs

    def evaluate(self, jobs: Sequence[Job], /) -> Iterator[Trial]:
        """One trial for each job, from the highest rung that it reached. Equal jobs are trained once."""
        running = list({(job.candidate.id, job.seed): job for job in jobs}.values())
        shorter: dict[str, Trial] = {}  # the trials of the promoted jobs in the rung below
        for rung in reversed(range(self._rungs)):
            short = [replace(job, epochs=job.epochs / self._reduction**rung) for job in running]
            trials = in_order(short, self._inner.evaluate(short))
            in_time = len(trials) == len(short)
            keep = math.ceil(len(short) / self._reduction) if rung and in_time else 0
            promoted = {trial.id: trial for trial in best_first(trials, keep)}
            done = [trial for trial in trials if trial.id not in promoted]
            ids = {trial.id for trial in trials}
            done += [trial for name, trial in shorter.items() if name not in ids]  # no time for this rung
            for trial in done:
                yield from in_order([job for job in jobs if job.candidate.id == trial.id], [trial])
            if not in_time:
                return
            shorter = promoted
            running = [job for job in running if job.candidate.id in promoted]


def in_order(jobs: Sequence[Job], trials: Iterable[Trial]) -> list[Trial]:
    """The trials in the order of their jobs, which does not depend on the time at which they finished.

    Jobs that differ only in their epochs count as equal. Jobs without a trial are left out.
    """
    by_candidate = {(trial.id, trial.job.seed): trial for trial in trials}
    pairs = ((job, by_candidate.get((job.candidate.id, job.seed))) for job in jobs)
    return [replace(trial, job=replace(job, epochs=trial.job.epochs)) for job, trial in pairs if trial]
