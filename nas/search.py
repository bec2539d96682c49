"""The loop. A strategy proposes candidates, an evaluator trains them, the strategy is told.

Everything else in this package is one of the nouns in these thirty lines.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain

from nas import plugins
from nas.architecture.architecture import Limits
from nas.errors import ArchitectureError, NasError, PluginError
from nas.evaluation.evaluator import Evaluator
from nas.evaluation.halving import in_order
from nas.records.observer import Observer
from nas.spaces.space import Candidate
from nas.strategies.strategy import Strategy
from nas.trial import Job, Trial, job_seed

# A strategy that has proposed nothing new that fits for so many batches has nothing left to propose.
MAX_STALE = 5


@dataclass
class Budget:
    """How many candidates may be tried, and until when.

    The size of a batch does not follow from the number of workers, which must not change the result.
    """

    trials: int | None = None
    until: float | None = None  # a moment of `time.monotonic`
    batch: int = 8
    known: Mapping[int, int] = field(default_factory=dict)  # the sizes of batches, of a search that goes on
    _batches: int = field(default=0, init=False)
    _asked: float = field(default=0.0, init=False)
    _longest: float = field(default=0.0, init=False)

    def next(self, done: int) -> int:
        """How many candidates to ask for now; zero when the search is over."""
        number, self._batches = self._batches, self._batches + 1
        if number <= max(self.known, default=-1):  # what a clock decided is not decided again
            return self.known.get(number, self.batch)
        now = time.monotonic()
        if self._asked:
            self._longest = max(self._longest, now - self._asked)
        self._asked = now
        # A batch that is broken off half way is lost; its time is worth more in the final selection.
        if self.until is not None and now + 0.8 * self._longest >= self.until:
            return 0
        return self.batch if self.trials is None else max(0, min(self.batch, self.trials - done))


@dataclass
class Search:
    """One search: run it once.

    Args:
        strategy: proposes.
        evaluator: trains, and keeps what came of it.
        budget: says when it is over.
        epochs: of a full training; successive halving shortens it for most candidates.
        seed: decides, with each candidate's architecture, the seed of its training.
        limits: what a candidate has to fit; one that does not is not trained.
        observer: is told each batch of candidates, and each trial (several: see `Observers`).
    """

    strategy: Strategy
    evaluator: Evaluator
    budget: Budget
    epochs: float
    seed: int = 0
    limits: Limits = field(default_factory=Limits)
    observer: Observer = field(default_factory=Observer)

    def run(self) -> list[Trial]:
        """Search until the budget is spent or nothing is left to propose; every candidate's trial, in order."""
        history: list[Trial] = []
        seen: set[str] = set()
        stale = 0  # batches in a row without a new network that fits
        while count := self.budget.next(len(history)):
            candidates = self._ask(count)
            self.observer.asked(count, candidates)
            if not candidates:
                break
            ids = {one.architecture.id for one in candidates if self.limits.allow(one.architecture)}
            stale = 0 if ids - seen else stale + 1
            seen |= ids
            jobs = [Job(c, self.epochs, job_seed(self.seed, c.architecture.id)) for c in candidates]
            trials = self._evaluate(jobs)
            history += trials
            if len(trials) < len(jobs):
                break  # time is up
            plugins.guarded(partial(self.strategy.tell, trials), f"the strategy {self.name} failed in tell")
            if stale >= MAX_STALE:
                self.observer.warned(
                    f"the strategy {self.name} has proposed nothing new that fits in {MAX_STALE} batches: "
                    f"the search ends after {len(history)} candidates"
                )
                break
        return history

    @property
    def name(self) -> str:
        """What the strategy is called where it is to blame."""
        return str(getattr(self.strategy, "label", type(self.strategy).__name__))

    def _ask(self, count: int) -> list[Candidate]:
        candidates = plugins.guarded(partial(self.strategy.ask, count), f"the strategy {self.name} failed in ask")
        if not isinstance(candidates, list) or not all(isinstance(one, Candidate) for one in candidates):
            raise PluginError(
                f"the strategy {self.name} must return a list of Candidates from ask, not {candidates!r:.80}"
            )
        for one in candidates[:count]:
            self._check(one)
        return candidates[:count]

    def _check(self, candidate: Candidate) -> None:
        """Whether the journal can keep the candidate, and bring it back as it is."""
        try:
            text = json.dumps(candidate.to_dict(), allow_nan=False)
            same = Candidate.from_dict(json.loads(text)) == candidate
        except (TypeError, ValueError, AttributeError, RecursionError, NasError) as error:
            raise PluginError(f"the strategy {self.name} proposes what is no plain data: {error!r:.200}") from None
        if not same:
            raise PluginError(f"the strategy {self.name} proposes what is no plain data: {candidate!r:.200}")

    def _evaluate(self, jobs: Sequence[Job]) -> list[Trial]:
        """Train what fits, show each candidate that is through; the trials in the order of their jobs."""
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
