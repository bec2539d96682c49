"""Returns the trials of known jobs from the journal, and writes new trials to it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from nas import plugins
from nas.errors import PluginError
from nas.evaluation.evaluator import Evaluator
from nas.objectives import Objective, scored
from nas.records.journal import Journal
from nas.trial import Job, Trial, checked


class CachedEvaluator:
    """Trains only the jobs that are not in the journal; a new trial is scored and written before it is returned.

    Therefore a search is resumed by running it again, and a repeated candidate costs no time. Equal networks have
    one latency, the first that was measured, so that no training is better than another by chance.

    Args:
        inner: the evaluator that trains.
        journal: the finished trials.
        objectives: define the scores of a trial.
        on_trial: called with each new trial after it has been written to the disk.
        until: the time (``time.monotonic``) after which no training begins; None for no limit.
        weights: the folder into which ``inner`` writes weights; a job whose weights are missing is trained again.
    """

    def __init__(
        self,
        inner: Evaluator,
        journal: Journal,
        objectives: Sequence[Objective],
        on_trial: Callable[[Trial], None] = lambda trial: None,
        *,
        until: float | None = None,
        weights: Path | None = None,
    ) -> None:
        self._inner, self._journal, self._objectives = inner, journal, tuple(objectives)
        self._on_trial, self._until, self._weights = on_trial, until, weights
        self._latency: dict[str, float] = {}  # by the id of the network
        for trial in journal:
            self._know(trial)

    def evaluate(self, jobs: Sequence[Job], /) -> Iterator[Trial]:
        """The known trials at once, then the others as they finish; all have scores."""
        unknown: dict[str, list[Job]] = {}
        for job in jobs:
            known = self._journal.find(job)
            if known is not None and (known.failure is not None or self._has_weights(job)):
                yield scored(known, self._objectives)
            else:
                unknown.setdefault(job.key, []).append(job)
        if not unknown or (self._until is not None and time.monotonic() >= self._until):
            return
        for trial in self._trained([same[0] for same in unknown.values()]):
            kept = scored(self._know(checked(trial)), self._objectives)
            self._journal.append(kept)
            self._on_trial(kept)
            for job in unknown[trial.job.key]:
                yield replace(kept, job=job)

    def _know(self, trial: Trial) -> Trial:
        """The trial with the latency of its network."""
        if trial.failure is not None or "latency_ms" not in trial.metrics:
            return trial
        name = trial.job.candidate.architecture.id
        latency = self._latency.setdefault(name, trial.metrics["latency_ms"])
        return replace(trial, metrics={**trial.metrics, "latency_ms": latency})

    def _has_weights(self, job: Job) -> bool:
        return self._weights is None or (self._weights / f"{job.key}.safetensors").is_file()

    def _trained(self, jobs: Sequence[Job]) -> Iterator[Trial]:
        """The trials of the inner evaluator, which may be a plugin: its exceptions become one-line errors."""
        waiting, done = {job.key for job in jobs}, set[str]()
        own = getattr(self._inner, "inner", self._inner)  # and not the one that borrows
        name = f"the evaluator {type(own).__name__}"
        trials = plugins.guarded(lambda: iter(self._inner.evaluate(jobs)), f"{name} failed")
        while (trial := plugins.guarded(lambda: next(trials, None), f"{name} failed")) is not None:
            if isinstance(trial, Trial) and trial.job.key in done:
                raise PluginError(
                    f"{name} returned two trials of one job, {trial.job.key}: it must return one each"
                )
            if not isinstance(trial, Trial) or trial.job.key not in waiting:
                raise PluginError(
                    f"{name} returned {trial!r:.80}, which is not a trial of a job that it was given"
                )
            waiting.remove(trial.job.key)
            done.add(trial.job.key)
            yield trial
        if waiting and self._until is None:
            raise PluginError(f"{name} returned no trial for {len(waiting)} of {len(jobs)} jobs")
