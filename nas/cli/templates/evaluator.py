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
    """Trains in worker processes, and repeats jobs that crashed (`nas plugins list` shows this line)."""

    # Leave out any of the first eight that you do not need. All others are options: `--set evaluator.retries=2`.
    def __init__(
        self,
        dataset: Dataset,  # the data to learn from
        recipe: Recipe,  # how to train
        *,
        workers: int,
        device: str,
        weights: Path | None,  # a folder for <job.key>.safetensors, or None for no files
        group: int | str,  # the number of jobs that a worker trains at a time, or "auto"
        until: float | None,  # the time (time.monotonic) at which to stop, or None
        warn: Callable[[str], None],  # shows a line to the user
        retries: int = 1,
    ) -> None:
        self.inner = LocalEvaluator(
            dataset, recipe, workers=workers, device=device, weights=weights, group=group, until=until, warn=warn
        )
        self.retries = retries

    # The search uses it in a `with` block. An evaluator without anything to close needs neither method.
    def __enter__(self) -> Self:
        """Start the workers."""
        self.inner.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        """Stop the workers."""
        self.inner.__exit__(*error)

    def evaluate(self, jobs: Sequence[Job], /) -> Iterator[Trial]:
        """One trial for each job, in any order; a job that cannot be trained has a trial with a failure."""
        # Jobs and trials are plain data (to_dict, from_dict), which can be sent to another machine.
        for attempt in range(self.retries + 1):
            crashed = []
            for trial in self.inner.evaluate(jobs):
                if trial.failure and trial.failure.kind == "crash" and attempt < self.retries:
                    crashed.append(trial.job)
                else:
                    yield trial
            jobs = crashed
