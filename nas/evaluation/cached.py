"""Returns the trials of known jobs from the journal, and writes new trials to it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from nas import plugins
from nas.errors import PluginError
from nas.evaluation.evaluator import AheadEvaluator, Evaluator, ahead_of
from nas.objectives import Objective, scored
from nas.records.journal import Journal
from nas.trial import Job, Trial, checked

Result = TypeVar("Result")


class CachedEvaluator(AheadEvaluator):
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
        own = getattr(inner, "inner", inner)  # and not the one that borrows
        self._name = f"the evaluator {type(own).__name__}"
        self._inner = ahead_of(inner, until)
        self._journal, self._objectives = journal, tuple(objectives)
        self._on_trial, self._until, self._weights = on_trial, until, weights
        self._ready: list[Trial] = []  # of known jobs
        self._training: dict[str, list[Job]] = {}  # the same job several times, by its key
        self._trained = set[str]()  # the keys of jobs that have their trial
        self._latency: dict[str, float] = {}  # by the id of the network
        for trial in journal:
            self._know(trial)

    def submit(self, jobs: Sequence[Job], /, turn: int) -> None:
        """Take jobs, of which those are trained that are not known."""
        unknown = []
        is_late = self._until is not None and time.monotonic() >= self._until
        for job in jobs:
            known = self._journal.find(job)
            if known is not None and (known.failure is not None or self._has_weights(job)):
                self._ready.append(scored(known, self._objectives))
            elif job.key in self._training:
                self._training[job.key].append(job)
            elif not is_late:
                self._training[job.key] = [job]
                unknown.append(job)
        if unknown:
            self._call(lambda: self._inner.submit(unknown, turn))

    def finished(self) -> list[Trial]:
        """The trials of known jobs at once, otherwise those of trainings that have ended."""
        trials, self._ready = self._ready, []
        if trials:
            return trials
        new: list[Trial] = []
        try:
            for trial in self._call(lambda: list(self._inner.finished())):
                jobs = self._jobs_of(trial)
                new.append(scored(self._know(checked(trial)), self._objectives))
                trials += [replace(new[-1], job=job) for job in jobs]
        finally:  # at once: the disk takes 0.6 ms for one trial, and for many
            self._journal.append(*new)
            for kept in new:
                self._on_trial(kept)
        if not trials and self._training:
            if self._until is None:
                missing = len(self._training)
                raise PluginError(f"{self._name} returned fewer trials than it was given jobs: {missing} missing")
            self._training.clear()
        return trials

    def cancel(self) -> None:
        """Give up all jobs that have no trial yet."""
        self._ready, self._training = [], {}
        with suppress(Exception):  # of a plugin that is ended; why it is ended is more important
            self._inner.cancel()

    def _call(self, action: Callable[[], Result]) -> Result:
        """What the inner evaluator, which may be a plugin, does; its exceptions become one-line errors."""
        return plugins.guarded(action, f"{self._name} failed")

    def _jobs_of(self, trial: object) -> list[Job]:
        """The jobs of a trial that the inner evaluator has returned."""
        if isinstance(trial, Trial) and trial.job.key in self._training:
            self._trained.add(trial.job.key)
            return self._training.pop(trial.job.key)
        if isinstance(trial, Trial) and trial.job.key in self._trained:
            raise PluginError(
                f"{self._name} returned two trials of one job, {trial.job.key}: it must return one each"
            )
        raise PluginError(f"{self._name} returned {trial!r:.80}, which is not a trial of a job that it was given")

    def _know(self, trial: Trial) -> Trial:
        """The trial with the latency of its network."""
        if trial.failure is not None or "latency_ms" not in trial.metrics:
            return trial
        name = trial.job.candidate.architecture.id
        latency = self._latency.setdefault(name, trial.metrics["latency_ms"])
        return replace(trial, metrics={**trial.metrics, "latency_ms": latency})

    def _has_weights(self, job: Job) -> bool:
        return self._weights is None or (self._weights / f"{job.key}.safetensors").is_file()
