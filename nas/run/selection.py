"""The final selection: the best networks are trained again from scratch, longer and with several seeds.

The best score of a search is partly luck: it is the largest of many noisy numbers. New trainings with new
seeds were not chosen for their luck, so the winner is the finalist with the best mean of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from nas.architecture.architecture import Limits
from nas.architecture.known import LECTURE, lecture_parameters
from nas.errors import NasError
from nas.evaluation.evaluator import Evaluator
from nas.objectives import best_seed, corners, front, rank
from nas.spaces.space import Candidate
from nas.statistics import mean
from nas.trial import Job, Trial, job_seed

# Multiples of the epochs of a full training in the search; small networks gain from them (docs/benchmarks.md).
LONGER = 4.0
LONGEST = 12.0
# Finalists, seeds of each, and the multiple of epochs that they need. The first choice that the budget can pay for
# is taken: a larger budget is spent on longer trainings first, then on more seeds and finalists.
CHOICES = ((5, 5, LONGEST), (4, 4, LONGEST), (3, 3, LONGEST), (3, 2, LONGER), (2, 2, LONGER), (2, 1, LONGER))
# Without a time limit, the budget is 0.6 full trainings of the search for each of its candidates, and at least 16.
# The lecture's network and the favourite's additional seed come on top.
TRAININGS, LEAST = 0.6, 16
# The shares of the time left that are planned: for all trainings, and for the first one if that is less than LONG
# seconds. A training may take some percent longer than before, and for a while a third, if another program begins;
# with none there would be no winner.
SAFETY, FIRST, LONG = 0.93, 0.7, 120.0
# The lecture's network is trained beside the finalists if it costs at most four times the most expensive of them.
DEAREST = 4.0


@dataclass(frozen=True)
class Plan:
    """How many finalists are trained again, with how many seeds each, for how many epochs."""

    finalists: int = 3
    seeds: int = 2
    epochs: float = 1.0
    lecture: bool = False  # whether the lecture's network is trained, too, for comparison; it cannot win

    @property
    def repeats(self) -> list[int]:
        """The number of seeds of each finalist, the favourite first.

        The favourite gets one more if the number of trainings would be odd, because the last would run alone.
        """
        count = self.finalists * self.seeds + self.lecture
        one_more = 1 if count > 1 and count % 2 else 0
        return [self.seeds + one_more, *[self.seeds] * (self.finalists - 1)]

    @property
    def trainings(self) -> int:
        """The number of all trainings."""
        return sum(self.repeats) + self.lecture


def best_trials(trials: Sequence[Trial], count: int) -> list[Trial]:
    """The best ``count`` trials of different candidates: the longest trainings first, then the best scores.

    With several objectives only those of the Pareto front, first what represents it (`nas.objectives.corners`).
    """
    good = [trial for trial in trials if trial.failure is None]
    if not good:
        reasons = {trial.failure.message for trial in trials if trial.failure}
        why = f" (for example: {sorted(reasons)[0]})" if reasons else "; give it more time"
        raise NasError(f"no network was trained to the end, so there is no winner{why}")
    best: dict[str, Trial] = {}
    is_front = len(good[0].scores) > 1
    for trial in [*corners(good), *front(good)] if is_front else sorted(good, key=rank, reverse=True):
        best.setdefault(trial.id, trial)
    return list(best.values())[:count]


def plan(
    history: Sequence[Trial],
    limits: Limits,
    epochs: float,
    workers: int,
    seconds: float | None,
    *,
    enough: float = 0.0,
    now: Now | None = None,
    work: Callable[[float], float] = float,
    least: int = 1,
) -> Plan:
    """The largest final selection that the budget can pay for.

    Args:
        history: the trials of the search.
        limits: the limits of its networks.
        epochs: of a full training during the search.
        workers: the number of networks that train at the same time.
        seconds: the time that it may take; None for a budget in proportion to the number of trials.
        enough: the epochs that a training should have before there is a second one.
        now: the pace of trainings, if it is not that of the search.
        work: in proportion to the time of a training of so many epochs, of which the last one may be slower.
        least: the number of finalists, at least; with several objectives they are what represents the front.
    """
    least = max(least, len(corners(history)))
    best = best_trials(history, max(least, CHOICES[0][0]))
    lecture, most, now = _lecture(history, best, limits, work), math.inf, now or Now()
    for finalists, seeds, times in (*CHOICES, (1, 1, 0.0)):
        finalists = min(max(finalists, least), len(best))
        beside = lecture is not None and seeds > 1 and LECTURE.id not in {trial.id for trial in best[:finalists]}
        chosen = Plan(finalists, seeds, lecture=beside)
        if seconds is None:
            affordable = max(LEAST, TRAININGS * len(history)) * epochs / (chosen.finalists * seeds)
        else:
            pairs = zip(best, chosen.repeats, strict=False)
            costs = [_cost(trial, work) for trial, count in pairs for _ in range(count)]
            costs += [lecture] if lecture and chosen.lecture else []
            loads, first = _schedule(costs, workers)
            pace = now.faster(workers // chosen.trainings) / now.slower
            affordable = pace * SAFETY * seconds / max(1e-6, *loads)  # made-up results take no time
            share = FIRST if seconds < LONG else SAFETY
            most = pace * share * seconds / max(1e-6, first)
        # Cores that one training does not use have room for others, which cost it nothing.
        has_room = now.cores > 1 and chosen.trainings <= workers // now.cores
        if affordable >= times * epochs and (has_room or min(affordable, most) >= enough):
            break
    # Where a plan has said what is enough, more time means longer trainings, too.
    affordable = min((2 if enough else 1) * LONGEST * epochs, affordable, most)
    # Whole quarters of an epoch, if that is at least one quarter.
    return replace(chosen, epochs=int(4 * affordable) / 4 or max(0.05, round(affordable, 2)))


class Now(NamedTuple):
    """How fast networks train, compared with the search."""

    slower: float = 1.0  # how many times as long a training takes, beside others
    alone: float = 1.0  # how many times as fast the best network trains if it has the machine alone
    cores: int = 1  # that it uses then

    def faster(self, cores: int) -> float:
        """How many times as fast trainings are that have so many cores each."""
        if cores >= self.cores:
            return max(1.0, self.alone) if cores > 1 else 1.0
        return 1.0 + max(0.0, self.alone - 1.0) * max(0, cores - 1) / max(1, self.cores - 1)


class Cost(NamedTuple):
    """The cost of one training."""

    flops: float  # of one forward pass over one image: the order in which trainings begin
    seconds: float  # per epoch


def _cost(trial: Trial, work: Callable[[float], float]) -> Cost:
    seconds = trial.metrics.get("train_seconds", 0.0) / work(trial.epochs) * (work(2.0) - work(1.0))
    return Cost(trial.metrics.get("flops", 0.0), seconds)


def _lecture(
    history: Sequence[Trial], best: Sequence[Trial], limits: Limits, work: Callable[[float], float]
) -> Cost | None:
    """The cost of the lecture's network, as measured or estimated from the best pace seen; None if it is too much.

    On large images it has many times the operations of the networks in the search.
    """
    for trial in history:
        if trial.id == LECTURE.id and trial.failure is None:
            return _cost(trial, work)
    costs = [cost for trial in best if (cost := _cost(trial, work)).flops > 0]
    flops = LECTURE.flops(limits.input_shape, limits.classes) if lecture_parameters(limits) else 0
    if not flops or not costs or flops > DEAREST * max(cost.flops for cost in costs):
        return None
    return Cost(float(flops), flops * min(cost.seconds / cost.flops for cost in costs))


def _schedule(costs: Sequence[Cost], workers: int) -> tuple[list[float], float]:
    """The seconds of one epoch of all trainings, begun as `LocalEvaluator` does: most operations first.

    Returns:
        How long each worker is busy, and when the first training is finished.
    """
    loads, ends = [0.0] * workers, []
    for _, seconds in sorted(costs, reverse=True):
        worker = loads.index(min(loads))
        loads[worker] += seconds
        ends.append(loads[worker])
    return loads, min(ends)


def retrain(
    evaluator: Evaluator, best: Sequence[Trial], chosen: Plan, seed: int
) -> tuple[list[tuple[Trial, ...]], Trial | None]:
    """Train the finalists again.

    Returns:
        The trials of each finalist that succeeded, one per seed, the best mean first; and a training of the
        lecture's network, which is its best one if it is a finalist.

    Raises:
        NasError: no finalist could be trained.
    """
    jobs = [
        Job(trial.job.candidate, chosen.epochs, job_seed(seed, trial.id, repeat))
        for trial, count in zip(best, chosen.repeats, strict=False)
        for repeat in range(1, count + 1)
    ]
    compared = Job(Candidate(LECTURE, origin="lecture"), chosen.epochs, job_seed(seed, LECTURE.id, 1))
    done = {trial.job.key: trial for trial in evaluator.evaluate([*jobs, *[compared] * chosen.lecture])}
    by_candidate: dict[str, list[Trial]] = {}
    for job in jobs:
        trial = done.get(job.key)  # None if the time was over
        if trial is not None and trial.failure is None:
            by_candidate.setdefault(trial.id, []).append(trial)
    groups = [tuple(trials) for trials in by_candidate.values()]
    if not groups:
        reasons = [trial.failure.message for trial in done.values() if trial.failure]
        raise NasError(f"none of the finalists could be trained again: {(reasons or ['no time left'])[0]}")
    lecture = done.get(compared.key) if chosen.lecture else None
    if LECTURE.id in by_candidate:
        lecture = best_seed(by_candidate[LECTURE.id])
    groups.sort(key=lambda group: mean([trial.scores[0] for trial in group]), reverse=True)
    return groups, lecture if lecture is not None and lecture.failure is None else None
