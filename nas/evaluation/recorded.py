"""Answers from the journal what the journal knows, and keeps what it does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from nas import plugins
from nas.errors import PluginError
from nas.evaluation.evaluator import Evaluator
from nas.records.journal import Journal
from nas.trial import Job, Objective, Trial, scored


class Recorded:
    """Every training passes through here: it is scored, kept on the disk, and only then handed on.

    Because of that a search is resumed by running it again, and a repeated candidate costs nothing.

    Args:
        inner: trains what the journal does not know.
        journal: what is known.
        objectives: what the scores of a trial are.
        on_trial: is shown each trial that was not known, when it is on the disk.
    """

    def __init__(
        self,
        inner: Evaluator,
        journal: Journal,
        objectives: Sequence[Objective],
        on_trial: Callable[[Trial], None] = lambda trial: None,
    ) -> None:
        self._inner = inner
        self._journal = journal
        self._objectives = tuple(objectives)
        self._on_trial = on_trial

    def evaluate(self, jobs: Sequence[Job], /) -> Iterator[Trial]:
        """The known trials at once, then the others as they finish; each has its scores."""
        unknown: dict[str, list[Job]] = {}
        for job in jobs:
            known = self._journal.find(job)
            if known is not None:
                yield scored(known, self._objectives)
            else:
                unknown.setdefault(job.key, []).append(job)
        for trial in self._trained([same[0] for same in unknown.values()]):
            kept = scored(trial, self._objectives)
            self._journal.append(kept)
            self._on_trial(kept)
            for job in unknown[trial.job.key]:
                yield replace(kept, job=job)

    def _trained(self, jobs: Sequence[Job]) -> Iterator[Trial]:
        """What the inner evaluator makes of the jobs; if it is a stranger's and raises, that is one line."""
        keys = {job.key for job in jobs}
        name = f"the evaluator {type(self._inner).__name__}"
        trials = plugins.guarded(lambda: iter(self._inner.evaluate(jobs)), f"{name} failed")
        while (trial := plugins.guarded(lambda: next(trials, None), f"{name} failed")) is not None:
            if trial.job.key not in keys:
                raise PluginError(f"{name} returned a trial of a job that it was not given")
            yield trial
