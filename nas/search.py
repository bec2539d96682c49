"""The search loop: a strategy proposes candidates, an evaluator trains them, the strategy gets the trials."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

from nas.architecture.architecture import Limits
from nas.errors import ArchitectureError
from nas.evaluation.evaluator import Evaluator
from nas.evaluation.halving import in_order
from nas.objectives import since_better
from nas.records.observer import Observer
from nas.spaces.space import SearchSpace
from nas.strategies.checked import CheckedStrategy
from nas.strategies.strategy import Strategy
from nas.trial import Job, Trial, job_seed

MAX_STALE = 5  # batches without a new candidate within the limits, after which the search ends
AGAIN = -1  # of `job_seed`: a candidate that has the target is trained once more


@dataclass
class Budget:
    """How many candidates may be tried, until when, and what is enough.

    The size of a batch does not depend on the number of workers, which must not change the result.
    """

    trials: int | None = None  # the number of candidates; None for no limit
    until: float | None = None  # the time (`time.monotonic`) at which the search ends; None for no limit
    target: float | None = None  # the validation accuracy that is enough; None for no limit
    patience: int | None = None  # candidates in a row that bring nothing better; None for no limit
    batch: int = 8  # candidates
    known: Mapping[int, int] = field(default_factory=dict)  # of a resumed search: the sizes of earlier batches
    _batches: int = field(default=0, init=False)
    _asked: float = field(default=0.0, init=False)
    _longest: float = field(default=0.0, init=False)

    @property
    def deadline(self) -> float | None:
        """The time until which the strategy may think about the present batch; None if the batch is known."""
        return None if self._is_known else self.until

    @property
    def is_replaying(self) -> bool:
        """Whether an earlier process has gone on after the present batch."""
        return self._batches <= max(self.known, default=-1)

    @property
    def _is_known(self) -> bool:
        return self._batches <= max(self.known, default=-1) + 1

    def next(self, done: int) -> int:
        """The size of the next batch after ``done`` candidates; zero when the search is over."""
        number, self._batches = self._batches, self._batches + 1
        if self._is_known:  # this was decided by a clock, which would now decide differently
            return self.known.get(number, self.batch)
        now = time.monotonic()
        if self._asked:
            self._longest = max(self._longest, now - self._asked)
        self._asked = now
        # An unfinished batch is lost; its time is worth more in the final selection.
        if self.until is not None and now + 0.8 * self._longest >= self.until:
            return 0
        return self.batch if self.trials is None else max(0, min(self.batch, self.trials - done))


@dataclass
class Search:
    """One search: run it once.

    Args:
        strategy: proposes candidates.
        evaluator: trains them.
        budget: decides when the search ends.
        epochs: the length of a full training; successive halving shortens it for most candidates.
        seed: decides, together with a candidate's id, the seed of its training.
        limits: a candidate beyond these limits is not trained.
        space: the space of the candidates, which is checked, and each candidate with it; None for no check.
        observer: receives each batch of candidates, and each trial (see `Observers` for several).
    """

    strategy: Strategy
    evaluator: Evaluator
    budget: Budget
    epochs: float
    seed: int = 0
    limits: Limits = field(default_factory=Limits)
    observer: Observer = field(default_factory=Observer)
    space: SearchSpace | None = None

    def run(self) -> list[Trial]:
        """Search until the budget is spent or nothing is left to propose; every candidate's trial, in order."""
        strategy = CheckedStrategy(self.strategy, self.space, self.observer.warned)
        history: list[Trial] = []
        seen: set[str] = set()
        stale = 0  # batches in a row without a new candidate that fits
        while count := self.budget.next(len(history)):
            candidates = strategy.ask(count, self.budget.deadline)
            if candidates is None:  # this is not in the journal: with more time, the strategy is asked again
                break
            self.observer.asked(count, candidates)
            if not candidates:
                break
            ids = {new.id for new in candidates if self.limits.allow(new.architecture)}
            stale = 0 if ids - seen else stale + 1
            seen |= ids
            jobs = [Job(c, self.epochs, job_seed(self.seed, c.id)) for c in candidates]
            trials = self._evaluate(jobs)
            history += trials
            if len(trials) < len(jobs):
                break  # time is up
            strategy.tell(trials, self.budget.deadline)
            if stale >= MAX_STALE:
                self.observer.warned(
                    f"the strategy {strategy.name} has proposed nothing new that fits in {MAX_STALE} batches: "
                    f"the search ends after {len(history)} candidates"
                )
                break
            if not self.budget.is_replaying and (reason := self._is_enough(history, trials)):
                self.observer.ended(f"{reason}: the search ends after {len(history)} candidates")
                break
        return history

    def _is_enough(self, history: Sequence[Trial], batch: Sequence[Trial]) -> str:
        """Why the search should end after a batch; empty if it should not. It follows from the trials alone."""
        target, patience = self.budget.target, self.budget.patience
        full = [trial for trial in batch if trial.failure is None and trial.job.epochs == self.epochs]
        best = max(full, key=_accuracy, default=None)
        if target is not None and best is not None and _accuracy(best) >= target:  # which may be luck
            again = replace(best.job, seed=job_seed(self.seed, best.id, AGAIN))
            for trial in self.evaluator.evaluate([again]):
                if trial.failure is None and _accuracy(trial) >= target:
                    return f"{best.id} has the target of {target:g}, also with another seed"
        if patience is not None and since_better(history) >= patience:
            return f"{patience} candidates in a row have brought nothing better"
        return ""

    def _evaluate(self, jobs: Sequence[Job]) -> list[Trial]:
        """Train the jobs within the limits; returns the trials of all jobs, in their order."""
        invalid, fitting = [], []
        for job in jobs:
            try:
                self.limits.check(job.candidate.architecture)
                fitting.append(job)
            except ArchitectureError as error:
                invalid.append(Trial.failed(job, "invalid", str(error)))
        trials = []
        for trial in chain(invalid, self.evaluator.evaluate(fitting)):
            trials.append(trial)
            self.observer.told(trial)
        return in_order(jobs, trials)


def _accuracy(trial: Trial) -> float:
    return trial.metrics["validation_accuracy"]
