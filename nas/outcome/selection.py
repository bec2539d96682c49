"""The final selection: the best few are trained again from scratch, longer and with several seeds.

The best score of a search is partly luck: it is the largest of many noisy numbers. New trainings with new
seeds are not chosen for their luck, so the winner is chosen among them, by its mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from nas.errors import JournalError, NasError
from nas.evaluation.evaluator import Evaluator
from nas.records.observer import mean
from nas.trial import Job, Trial, job_seed, rank

# Of the training during the search: what small networks still gain from (docs/benchmarks.md).
LONGER = 4.0
LONGEST = 12.0
# Of the time that is left, what may be planned: trainings take some percent longer or shorter than before.
SAFETY = 0.92


@dataclass(frozen=True)
class Plan:
    """How many finalists are trained again, with how many seeds each, for how many epochs."""

    finalists: int = 3
    seeds: int = 2
    epochs: float = 1.0

    @classmethod
    def of(cls, said: Mapping[str, Any] | None) -> Plan:
        """The plan that a journal keeps.

        Raises:
            JournalError: this is none.
        """
        try:
            said = dict(said or {})
            return cls(int(said["finalists"]), int(said["seeds"]), float(said["epochs"]))
        except (KeyError, TypeError, ValueError) as error:
            raise JournalError(f"the journal's plan of the final selection is none ({error!r:.80})") from None


def best_trials(trials: Sequence[Trial], count: int) -> list[Trial]:
    """The best ``count`` trials of different networks: those of the longest trainings first, then by score.

    Raises:
        NasError: every trial failed.
    """
    good = [trial for trial in trials if trial.failure is None]
    if not good:
        reasons = {trial.failure.message for trial in trials if trial.failure}
        why = f" (for example: {sorted(reasons)[0]})" if reasons else "; give it more time"
        raise NasError(f"no network was trained to the end, so there is no winner{why}")
    good.sort(key=rank, reverse=True)
    first: dict[str, Trial] = {}
    for trial in good:
        first.setdefault(trial.id, trial)
    return list(first.values())[:count]


def plan(best: Sequence[Trial], epochs: float, workers: int, seconds: float | None) -> Plan:
    """What the final selection can afford.

    Args:
        best: the trials that may be finalists, best first.
        epochs: of a full training during the search.
        workers: how many train side by side.
        seconds: how long it may take; None for as long as four times the search's epochs need.
    """
    if seconds is None:
        return Plan(min(3, len(best)), 2, LONGER * epochs)
    affordable = Plan(1, 1, 0.0)
    for finalists, seeds in ((3, 2), (2, 2), (2, 1), (1, 1)):
        costs = [
            (t.metrics.get("flops", 0.0), t.metrics.get("train_seconds", 0.0) / t.job.epochs)
            for t in best[:finalists]
            for _ in range(seeds)
        ]
        # An evaluator that makes its results up takes no time.
        affordable_epochs = SAFETY * seconds / max(1e-6, _makespan(costs, workers))
        affordable = Plan(min(finalists, len(best)), seeds, min(LONGEST * epochs, affordable_epochs))
        if affordable.epochs >= LONGER * epochs:
            break
    # Quarters of an epoch, where there is at least one.
    return replace(affordable, epochs=int(4 * affordable.epochs) / 4 or max(0.05, round(affordable.epochs, 2)))


def _makespan(costs: Sequence[tuple[float, float]], workers: int) -> float:
    """How long jobs of (operations, seconds) take, as `LocalEvaluator` begins them: most operations first."""
    loads = [0.0] * workers
    for _, seconds in sorted(costs, reverse=True):
        loads[loads.index(min(loads))] += seconds
    return max(loads)


def retrain(evaluator: Evaluator, best: Sequence[Trial], chosen: Plan, seed: int) -> list[tuple[Trial, ...]]:
    """Train the finalists again; those that succeeded, best mean first, each with its trials by seed.

    Raises:
        NasError: none of them could be trained.
    """
    finalists = best[: chosen.finalists]
    jobs = [
        Job(trial.job.candidate, chosen.epochs, job_seed(seed, trial.id, repeat))
        for trial in finalists
        for repeat in range(1, chosen.seeds + 1)
    ]
    done = {trial.job.key: trial for trial in evaluator.evaluate(jobs)}
    by_network: dict[str, list[Trial]] = {}
    for job in jobs:
        trial = done.get(job.key)  # absent if time was up
        if trial is not None and trial.failure is None:
            by_network.setdefault(trial.id, []).append(trial)
    groups = [tuple(trials) for trials in by_network.values()]
    if not groups:
        reasons = [trial.failure.message for trial in done.values() if trial.failure]
        raise NasError(
            f"none of the finalists could be trained again: {reasons[0] if reasons else 'no time left'}"
        )
    return sorted(groups, key=lambda group: mean([trial.scores[0] for trial in group]), reverse=True)
