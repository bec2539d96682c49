"""An evaluator: where networks are trained. `nas search --evaluator my-plugin` finds it by this file's name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

from nas.evaluation.evaluator import Evaluator
from nas.evaluation.local.local import LocalEvaluator
from nas.trial import Job, Trial

if TYPE_CHECKING:
    from nas.data.dataset import Dataset
    from nas.training.recipe import Recipe


class MyPlugin(Evaluator):
    """Trains in worker processes, and once more what crashed (this line is what `nas plugins list` shows)."""

    # It is given what it names of these eight. Other arguments are options: `--set evaluator.retries=2`.
    def __init__(
        self,
        dataset: Dataset,  # what to learn from
        recipe: Recipe,  # how
        *,
        workers: int,
        device: str,
        weights: Path | None,  # a folder for <job.key>.safetensors, or None where weights are not wanted
        group: int | str,  # how many jobs train at a time; "auto" leaves that to the device
        until: float | None,  # when time is up, as time.monotonic() tells it, or None
        warn: Callable[[str], None],  # shows a line to the person who searches
        retries: int = 1,
    ) -> None:
        self.inner = LocalEvaluator(
            dataset, recipe, workers=workers, device=device, weights=weights, group=group, until=until, warn=warn
        )
        self.retries = retries

    # With these two it is used in a `with` block; an evaluator that has nothing to close needs neither.
    def __enter__(self) -> Self:
        """Begin."""
        self.inner.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        """End."""
        self.inner.__exit__(*error)

    def evaluate(self, jobs: Sequence[Job], /) -> Iterator[Trial]:
        """One trial for each job, in any order; a job that cannot be done has a trial with a failure."""
        # Jobs and trials are plain data (to_dict, from_dict): they can be sent to another machine.
        for attempt in range(self.retries + 1):
            crashed = []
            for trial in self.inner.evaluate(jobs):
                if trial.failure and trial.failure.kind == "crash" and attempt < self.retries:
                    crashed.append(trial.job)
                else:
                    yield trial
            jobs = crashed
