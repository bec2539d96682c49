"""The search loop: a strategy proposes candidates, an evaluator trains them, the strategy gets the trials.

With ``ahead`` = 1 a batch of candidates is asked for when the one before it has been told. With more, batch k is
asked for when those up to k - ahead have been told, in their order, whichever training ends first: the result
depends on ahead and never on the number of workers.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from nas.architecture.architecture import Limits
from nas.errors import ArchitectureError
from nas.evaluation.batches import Batches
from nas.evaluation.evaluator import Evaluator
from nas.evaluation.halving import in_order
from nas.objectives import since_better
from nas.records.observer import Observer
from nas.spaces.space import Candidate, SearchSpace
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
    ahead: int = 1  # batches in training at a time
    known: Mapping[int, int] = field(default_factory=dict)  # of a resumed search: the sizes of earlier batches
    told: int = 0  # of a resumed search: the candidates that its strategy was told before
    _asked: list[float] = field(default_factory=list, init=False)  # when each batch was asked for
    _longest: float = field(default=0.0, init=False)  # seconds of a batch

    @property
    def deadline(self) -> float | None:
        """The time until which the strategy may think about the present batch; None if the batch is known."""
        return None if self._is_known else self.until

    def is_replaying(self, told: int) -> bool:
        """Whether an earlier process has gone on after so many candidates."""
        return len(self._asked) <= max(self.known, default=-1) or told < self.told

    @property
    def _is_known(self) -> bool:
        return len(self._asked) <= max(self.known, default=-1) + 1

    def next(self, asked: int) -> int:
        """The size of the next batch after ``asked`` candidates; zero when no more are asked for."""
        number, now = len(self._asked), time.monotonic()
        self._asked.append(now)
        if self._is_known:  # this was decided by a clock, which would now decide differently
            return self.known.get(number, self.batch)
        if number - self.ahead > max(self.known, default=-1):  # that batch is over, and not from the journal
            self._longest = max(self._longest, now - self._asked[number - self.ahead])
        # An unfinished batch is lost; its time is worth more in the final selection.
        if self.until is not None and now + 0.8 * self._longest >= self.until:
            return 0
        return self.batch if self.trials is None else max(0, min(self.batch, self.trials - asked))


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
        observer: receives each batch of candidates, and each trial (see `Observers` for several).
        space: the space of the candidates, which is checked, and each candidate with it; None for no check.
        rungs: of successive halving; with one rung, every candidate is trained in full.
    """

    strategy: Strategy
    evaluator: Evaluator
    budget: Budget
    epochs: float
    seed: int = 0
    limits: Limits = field(default_factory=Limits)
    observer: Observer = field(default_factory=Observer)
    space: SearchSpace | None = None
    rungs: int = 1

    def run(self) -> list[Trial]:
        """Search until the budget is spent or nothing is left to propose; every candidate's trial, in order."""
        batches = Batches(self.evaluator, rungs=self.rungs)
        try:
            return self._run(batches)
        finally:
            batches.cancel()

    def _run(self, batches: Batches) -> list[Trial]:
        strategy = CheckedStrategy(self.strategy, self.space, self.observer.warned)
        history: list[Trial] = []
        seen: set[str] = set()
        stale = 0  # batches in a row without a new candidate that fits
        is_asking = True
        while True:
            while is_asking and len(batches) < self.budget.ahead:
                candidates = self._ask(strategy, len(history), batches.candidates)
                if not candidates:  # with more trials, it may have another idea
                    is_asking = candidates is not None and len(batches) > 0
                    break
                ids = {new.id for new in candidates if self.limits.allow(new.architecture)}
                stale = 0 if ids - seen else stale + 1
                seen |= ids
                is_asking = stale < MAX_STALE
                self._train(batches, candidates)
            if not batches:
                return history
            trials, is_complete = self._oldest(batches)
            history += trials
            if not is_complete:  # time is up, for the other batches, too
                while batches:
                    history += self._oldest(batches)[0]
                return history
            if is_asking:
                strategy.tell(trials, batches.candidates, self.budget.deadline)
            elif stale >= MAX_STALE and not batches:
                self.observer.warned(
                    f"the strategy {strategy.name} has proposed nothing new that fits in {MAX_STALE} batches: "
                    f"the search ends after {len(history)} candidates"
                )
                return history
            if self.budget.is_replaying(len(history)):
                continue
            if reason := self._is_enough(batches, history, trials):
                self.observer.ended(f"{reason}: the search ends after {len(history)} candidates")
                return history

    def _ask(
        self, strategy: CheckedStrategy, told: int, in_training: Sequence[Candidate]
    ) -> list[Candidate] | None:
        """The next batch; None if the budget is spent, or the strategy is late."""
        count = self.budget.next(told + len(in_training))
        candidates = strategy.ask(count, in_training, self.budget.deadline) if count else None
        if candidates is not None:  # the journal has no late answer: with more time, the strategy is asked again
            self.observer.asked(count, candidates)
        return candidates

    def _train(self, batches: Batches, candidates: Sequence[Candidate]) -> None:
        """Begin to train a batch, of which only the candidates within the limits are trained."""
        jobs = [Job(new, self.epochs, job_seed(self.seed, new.id)) for new in candidates]
        failed = []
        for job in jobs:
            try:
                self.limits.check(job.candidate.architecture)
            except ArchitectureError as error:
                failed.append(Trial.failed(job, "invalid", str(error)))
        batches.submit(jobs, failed)

    def _oldest(self, batches: Batches) -> tuple[list[Trial], bool]:
        """Wait for the oldest batch: its trials, in the order of the candidates, and whether there are all."""
        jobs, trials = batches.jobs, []
        for trial in batches.oldest():
            trials.append(trial)
            self.observer.told(trial)
        return in_order(jobs, trials), len(trials) == len(jobs)

    def _is_enough(self, batches: Batches, history: Sequence[Trial], batch: Sequence[Trial]) -> str:
        """Why the search should end after a batch; empty if it should not. It follows from the trials alone."""
        target, patience = self.budget.target, self.budget.patience
        full = [trial for trial in batch if trial.failure is None and trial.job.epochs == self.epochs]
        best = max(full, key=_accuracy, default=None)
        if target is not None and best is not None and _accuracy(best) >= target:  # which may be luck
            again = batches.first(replace(best.job, seed=job_seed(self.seed, best.id, AGAIN)))
            if again is not None and again.failure is None and _accuracy(again) >= target:
                return f"{best.id} has the target of {target:g}, also with another seed"
        if patience is not None and since_better(history) >= patience:
            return f"{patience} candidates in a row have brought nothing better"
        return ""


def _accuracy(trial: Trial) -> float:
    return trial.metrics["validation_accuracy"]
