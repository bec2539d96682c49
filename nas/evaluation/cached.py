"""Answers from the journal what the journal knows, and keeps what it does not."""

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
from nas.trial import Job, Trial


class CachedEvaluator:
    """Every training passes through here: it is scored, kept on the disk, and only then handed on.

    Because of that a search is resumed by running it again, and a repeated candidate costs nothing.

    Args:
        inner: trains what the journal does not know.
        journal: what is known.
        objectives: what the scores of a trial are.
        on_trial: is shown each trial that was not known, when it is on the disk.
        until: the moment (``time.monotonic``) after which nothing more is trained; None for never.
        weights: the folder where ``inner`` leaves weights: a training whose weights are not there is done again.
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
        self._inner = inner
        self._journal = journal
        self._objectives = tuple(objectives)
        self._on_trial = on_trial
        self._until = until
        self._weights = weights

    def evaluate(self, jobs: Sequence[Job], /) -> Iterator[Trial]:
        """The known trials at once, then the others as they finish; each has its scores."""
        unknown: dict[str, list[Job]] = {}
        for job in jobs:
            known = self._known(job)
            if known is not None:
                yield scored(known, self._objectives)
            else:
                unknown.setdefault(job.key, []).append(job)
        if not unknown or (self._until is not None and time.monotonic() >= self._until):
            return
        for trial in self._trained([same[0] for same in unknown.values()]):
            kept = scored(trial, self._objectives)
            self._journal.append(kept)
            self._on_trial(kept)
            for job in unknown[trial.job.key]:
                yield replace(kept, job=job)

    def _known(self, job: Job) -> Trial | None:
        known = self._journal.find(job)
        if known is None or known.failure is not None or self._weights is None:
            return known
        return known if (self._weights / f"{job.key}.safetensors").is_file() else None

    def _trained(self, jobs: Sequence[Job]) -> Iterator[Trial]:
        """What the inner evaluator makes of the jobs; if it is a stranger's and raises, that is one line."""
        waiting = {job.key for job in jobs}
        name = f"the evaluator {type(self._inner).__name__}"
        trials = plugins.guarded(lambda: iter(self._inner.evaluate(jobs)), f"{name} failed")
        while (trial := plugins.guarded(lambda: next(trials, None), f"{name} failed")) is not None:
            if not isinstance(trial, Trial) or trial.job.key not in waiting:
                raise PluginError(f"{name} returned what is no trial of a job that it was given: {trial!r:.80}")
            waiting.remove(trial.job.key)
            yield trial
        if waiting and self._until is None:
            raise PluginError(f"{name} returned no trial for {len(waiting)} of {len(jobs)} jobs")
