"""The final selection: the best few are trained again from scratch, longer and with several seeds.

The best score of a search is partly luck: it is the largest of many noisy numbers. New trainings with new
seeds are not chosen for their luck, so the winner is chosen among them, by its mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from nas.errors import NasError
from nas.evaluation.evaluator import Evaluator
from nas.records.observer import mean
from nas.trial import Job, Trial, job_seed

# Of the training during the search: what small networks still gain from (docs/benchmarks.md).
LONGER = 3.0
LONGEST = 12.0


@dataclass(frozen=True)
class Plan:
    """How many finalists are trained again, with how many seeds each, for how many epochs."""

    finalists: int = 3
    seeds: int = 2
    epochs: float = 1.0


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
    good.sort(key=lambda trial: (trial.job.epochs, trial.scores), reverse=True)
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
        seconds: how long it may take; None for as long as three times the search's epochs need.
    """
    if seconds is None:
        return Plan(min(3, len(best)), 2, LONGER * epochs)
    affordable = Plan(1, 1, 0.0)
    for finalists, seeds in ((3, 2), (2, 2), (2, 1), (1, 1)):
        costs = [t.metrics["train_seconds"] / t.job.epochs for t in best[:finalists] for _ in range(seeds)]
        # No order of the jobs on the workers takes longer than this (Graham, 1966).
        longest = sum(costs) / workers + max(costs) * (1 - 1 / workers)
        affordable = Plan(min(finalists, len(best)), seeds, min(LONGEST * epochs, seconds / longest))
        if affordable.epochs >= LONGER * epochs:
            break
    # A whole number of epochs where there is at least one.
    whole = float(int(affordable.epochs)) or max(0.05, round(affordable.epochs, 2))
    return replace(affordable, epochs=whole)


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
    groups = []
    for finalist in finalists:
        trials = [done[job.key] for job in jobs if job.candidate is finalist.job.candidate and job.key in done]
        good = tuple(trial for trial in trials if trial.failure is None)
        if good:
            groups.append(good)
    if not groups:
        reasons = [trial.failure.message for trial in done.values() if trial.failure]
        raise NasError(
            f"none of the finalists could be trained again: {reasons[0] if reasons else 'no time left'}"
        )
    return sorted(groups, key=lambda group: mean([trial.scores[0] for trial in group]), reverse=True)
