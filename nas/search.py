"""The search loop: a strategy proposes candidates, an evaluator trains them, the strategy gets the trials."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain

from nas import plugins
from nas.architecture.architecture import Limits
from nas.architecture.layer import Layer
from nas.errors import ArchitectureError, NasError, PluginError, SpaceError, UnknownLayerError, plain, quoted
from nas.evaluation.evaluator import Evaluator
from nas.evaluation.halving import in_order
from nas.records.observer import Observer
from nas.spaces.space import Candidate, SearchSpace
from nas.strategies.strategy import Strategy
from nas.trial import Job, Trial, job_seed

MAX_STALE = 5  # batches without a new network within the limits, after which the search ends


@dataclass
class Budget:
    """How many candidates may be tried, and until when.

    The size of a batch does not depend on the number of workers, which must not change the result.
    """

    trials: int | None = None  # the number of candidates; None for no limit
    until: float | None = None  # the time (`time.monotonic`) at which the search ends; None for no limit
    batch: int = 8  # candidates
    known: Mapping[int, int] = field(default_factory=dict)  # of a resumed search: the sizes of earlier batches
    _batches: int = field(default=0, init=False)
    _asked: float = field(default=0.0, init=False)
    _longest: float = field(default=0.0, init=False)

    def next(self, done: int) -> int:
        """The size of the next batch after ``done`` candidates; zero when the search is over."""
        number, self._batches = self._batches, self._batches + 1
        if number <= max(
            self.known, default=-1
        ):  # this was decided by a clock, which would now decide differently
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
        seed: decides, together with a candidate's architecture, the seed of its training.
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
    _questions: dict[str, str] = field(default_factory=dict, init=False)  # of the space, so far

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
            ids = {new.architecture.id for new in candidates if self.limits.allow(new.architecture)}
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
        """The name of the strategy in messages."""
        return str(getattr(self.strategy, "label", type(self.strategy).__name__))

    def _check_space(self, candidates: Sequence[Candidate] = ()) -> None:
        """Refuse a space with two questions of one name, and candidates of another space."""
        if (space := self.space) is None:
            return
        name = f"the space {type(space).__name__}"
        if not self._questions:
            self._questions = plugins.guarded(space.check_questions, f"{name} failed in build")
        for candidate in candidates:
            try:
                plugins.guarded(
                    partial(space.check_candidate, candidate, self._questions), f"{name} failed in build"
                )
            except SpaceError as error:
                proposed = f"the strategy {self.name} proposes the candidate {candidate.architecture.id}"
                raise PluginError(f"{proposed}, but {error}") from None

    def _ask(self, count: int) -> list[Candidate]:
        self._check_space()
        proposed = plugins.guarded(partial(self.strategy.ask, count), f"the strategy {self.name} failed in ask")
        if not isinstance(proposed, list) or not all(isinstance(item, Candidate) for item in proposed):
            raise PluginError(
                f"the strategy {self.name} must return a list of Candidates from ask, not {proposed!r:.80}"
            )
        for candidate in proposed[:count]:  # the journal must be able to write each and read it back
            problem: object = f"{quoted(dict(candidate.choices))} or its network is read back as another"
            try:
                text = json.dumps(candidate.to_dict(), allow_nan=False)
                if Candidate.from_dict(json.loads(text)) == candidate:
                    continue
            except UnknownLayerError as error:
                kinds = {type(layer) for layer in candidate.architecture.layers}
                kind = next((kind for kind in kinds if f"layer {kind.__name__!r}" in str(error)), Layer)
                place = "a notebook or script" if kind.__module__ == "__main__" else kind.__module__
                message = f"the layer {kind.__name__} is defined in {place}, where workers cannot find it"
                raise PluginError(f"{message}: save the class in a file of plugins/") from None
            except (TypeError, ValueError, AttributeError, RecursionError, NasError) as error:
                problem = error
            reason = plain(str(problem))[:200]
            raise PluginError(f"the strategy {self.name} must propose candidates of plain data (JSON): {reason}")
        self._check_space(proposed[:count])
        return proposed[:count]

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
