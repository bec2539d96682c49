"""Batches in training at the same time. Each goes through its own rungs; they end in the order of asking."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from nas.evaluation.evaluator import Evaluator, ahead_of
from nas.evaluation.halving import SuccessiveHalving
from nas.spaces.space import Candidate
from nas.trial import REDUCTION, Job, Trial


class Batches:
    """Trains batches with successive halving; the jobs of the oldest batch begin first.

    What a batch returns follows from its jobs: neither the other batches nor the order of the trials matter.

    Args:
        evaluator: trains.
        reduction: see `SuccessiveHalving`.
        rungs: see `SuccessiveHalving`.
    """

    def __init__(self, evaluator: Evaluator, *, reduction: int = REDUCTION, rungs: int = 1) -> None:
        self._evaluator = ahead_of(evaluator)
        self._reduction, self._rungs = reduction, rungs
        self._flying: deque[SuccessiveHalving] = deque()  # the oldest first
        self._waiting: dict[str, list[SuccessiveHalving]] = {}  # by the key of a job that is in training
        self._turn = 0

    def __len__(self) -> int:
        return len(self._flying)

    @property
    def jobs(self) -> Sequence[Job]:
        """The jobs of the oldest batch."""
        return self._flying[0].jobs

    @property
    def candidates(self) -> list[Candidate]:
        """The candidates of all batches, the oldest first."""
        return [job.candidate for batch in self._flying for job in batch.jobs]

    def submit(self, jobs: Sequence[Job], failed: Sequence[Trial] = ()) -> None:
        """Begin to train a batch; ``failed``: trials of those of its jobs that cannot be trained."""
        self._turn += 1
        self._flying.append(self._begun(jobs, self._turn, failed))

    def oldest(self) -> Iterator[Trial]:
        """The trials of the oldest batch, one for each job, as they leave the rungs; fewer if the time is up.

        In that case all other batches are over, too, with the trials that they have.
        """
        yield from self._over(self._flying.popleft())

    def first(self, job: Job) -> Trial | None:
        """The trial of one job, before those of all batches; None if the time is up."""
        trials = list(self._over(self._begun([job], 0)))
        return trials[0] if trials else None

    def cancel(self) -> None:
        """Give up what is in training."""
        self._evaluator.cancel()

    def _begun(self, jobs: Sequence[Job], turn: int, failed: Sequence[Trial] = ()) -> SuccessiveHalving:
        batch = SuccessiveHalving(jobs, failed, turn=turn, reduction=self._reduction, rungs=self._rungs)
        self._train(batch, batch.next())
        return batch

    def _train(self, batch: SuccessiveHalving, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self._waiting.setdefault(job.key, []).append(batch)
        if jobs:
            self._evaluator.submit(jobs, batch.turn)

    def _over(self, batch: SuccessiveHalving) -> Iterator[Trial]:
        """The trials of a batch; meanwhile the others go on."""
        yield from batch.left()
        while not batch.is_over:
            trials = self._evaluator.finished()
            for trial in trials:
                other, *others = self._waiting.pop(trial.job.key)
                if others:  # batches with the same job, for each of which there is a trial
                    self._waiting[trial.job.key] = others
                self._train(other, other.take(trial))
            if not trials:
                for other in (batch, *self._flying):
                    other.close()
                self._waiting.clear()
            yield from batch.left()
