"""The final selection: the best few are trained again from scratch, longer and with several seeds.

The best score of a search is partly luck: it is the largest of many noisy numbers. New trainings with new
seeds are not chosen for their luck, so the winner is chosen among them, by its mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from nas.architecture.architecture import Limits
from nas.architecture.known import LECTURE, lecture_parameters
from nas.errors import NasError
from nas.evaluation.evaluator import Evaluator
from nas.objectives import best_seed, rank
from nas.spaces.space import Candidate
from nas.statistics import mean
from nas.trial import Job, Trial, job_seed

# Of the training during the search: what small networks still gain from (docs/benchmarks.md).
LONGER = 4.0
LONGEST = 12.0
# What a budget is spent on, first come first served: finalists, seeds of each, and for how many times the search's
# epochs they have to be trained. Longer trainings come first, then more seeds and finalists.
CHOICES = ((5, 5, LONGEST), (4, 4, LONGEST), (3, 3, LONGEST), (3, 2, LONGER), (2, 2, LONGER), (2, 1, LONGER))
# Without a time limit: trainings of the search's length for each candidate that it tried, and how many at least;
# the lecture's network, and the favourite's last seed, come on top of them.
TRAININGS, LEAST = 0.6, 16
# Of the time that is left, what may be planned: trainings take some percent longer or shorter than before.
SAFETY = 0.92
# The lecture's network is trained beside the finalists, unless it costs more than so many times the dearest one.
DEAREST = 4.0


@dataclass(frozen=True)
class Plan:
    """How many finalists are trained again, with how many seeds each, for how many epochs."""

    finalists: int = 3
    seeds: int = 2
    epochs: float = 1.0
    lecture: bool = False  # whether the lecture's network is trained, too, to compare with; it cannot win

    @property
    def repeats(self) -> list[int]:
        """How many seeds each finalist gets, the favourite first.

        It gets one more where the trainings would be an odd number, of which the last would run alone.
        """
        count = self.finalists * self.seeds + self.lecture
        one_more = 1 if count > 1 and count % 2 else 0
        return [self.seeds + one_more, *[self.seeds] * (self.finalists - 1)]

    @property
    def trainings(self) -> int:
        """How many there are in all."""
        return sum(self.repeats) + self.lecture

    @classmethod
    def of(cls, kept: Mapping[str, Any]) -> Plan:
        """The plan that a journal keeps; `Record.take` has checked it."""
        return cls(int(kept["finalists"]), int(kept["seeds"]), float(kept["epochs"]), bool(kept["lecture"]))


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


def plan(history: Sequence[Trial], limits: Limits, epochs: float, workers: int, seconds: float | None) -> Plan:
    """What the final selection can afford.

    Args:
        history: the trials of the search.
        limits: what its networks have to fit.
        epochs: of a full training during the search.
        workers: how many train side by side.
        seconds: how long it may take; None for what is in proportion to the number of trials.

    Raises:
        NasError: every trial failed.
    """
    best = best_trials(history, CHOICES[0][0])
    lecture = _lecture(history, best, limits)
    for finalists, seeds, times in (*CHOICES, (1, 1, 0.0)):
        beside = lecture is not None and seeds > 1 and LECTURE.id not in {one.id for one in best[:finalists]}
        chosen = Plan(min(finalists, len(best)), seeds, lecture=beside)
        if seconds is None:
            affordable = max(LEAST, TRAININGS * len(history)) * epochs / (chosen.finalists * seeds)
        else:
            costs = [
                _cost(trial) for trial, count in zip(best, chosen.repeats, strict=False) for _ in range(count)
            ]
            costs += [lecture] if lecture and chosen.lecture else []
            affordable = SAFETY * seconds / max(1e-6, _makespan(costs, workers))  # made-up results take no time
        if affordable >= times * epochs:
            break
    affordable = min(LONGEST * epochs, affordable)
    # Quarters of an epoch, where there is at least one.
    return replace(chosen, epochs=int(4 * affordable) / 4 or max(0.05, round(affordable, 2)))


class Cost(NamedTuple):
    """What one training costs."""

    flops: float  # of one forward pass over one image: the order in which trainings begin
    seconds: float  # per epoch


def _cost(trial: Trial) -> Cost:
    return Cost(trial.metrics.get("flops", 0.0), trial.metrics.get("train_seconds", 0.0) / trial.epochs)


def _lecture(history: Sequence[Trial], best: Sequence[Trial], limits: Limits) -> Cost | None:
    """What the lecture's network costs: as measured, or at the best pace seen; None where it is too much.

    On large images it has many times the operations of any network that is searched for.
    """
    known = [trial for trial in history if trial.id == LECTURE.id and trial.failure is None]
    if known:
        return _cost(known[0])
    costs = [cost for trial in best if (cost := _cost(trial)).flops > 0]
    flops = LECTURE.flops(limits.input_shape, limits.classes) if lecture_parameters(limits) else 0
    if not flops or not costs or flops > DEAREST * max(cost.flops for cost in costs):
        return None
    return Cost(float(flops), flops * min(cost.seconds / cost.flops for cost in costs))


def _makespan(costs: Sequence[Cost], workers: int) -> float:
    """How long an epoch of all of them takes, as `LocalEvaluator` begins them: most operations first."""
    loads = [0.0] * workers
    for _, seconds in sorted(costs, reverse=True):
        loads[loads.index(min(loads))] += seconds
    return max(loads)


def retrain(
    evaluator: Evaluator, best: Sequence[Trial], chosen: Plan, seed: int
) -> tuple[list[tuple[Trial, ...]], Trial | None]:
    """Train the finalists again.

    Returns:
        Those that succeeded, best mean first, each with its trials by seed; and a training of the lecture's
        network: one beside them, or its best one if it is a finalist.

    Raises:
        NasError: none of them could be trained.
    """
    jobs = [
        Job(trial.job.candidate, chosen.epochs, job_seed(seed, trial.id, repeat))
        for trial, count in zip(best, chosen.repeats, strict=False)
        for repeat in range(1, count + 1)
    ]
    compared = Job(Candidate(LECTURE, origin="lecture"), chosen.epochs, job_seed(seed, LECTURE.id, 1))
    done = {trial.job.key: trial for trial in evaluator.evaluate([*jobs, *[compared] * chosen.lecture])}
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
    lecture = done.get(compared.key) if chosen.lecture else None
    if LECTURE.id in by_network:
        lecture = best_seed(by_network[LECTURE.id])
    groups.sort(key=lambda group: mean([trial.scores[0] for trial in group]), reverse=True)
    return groups, lecture if lecture is not None and lecture.failure is None else None
