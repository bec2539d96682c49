"""The plan of a search, before anything trains: what networks may cost, how long they train, how long all takes.

Without a time limit it follows from the data and the settings alone, so that the result is the same on every
machine; the pace of this one only says how long the search will take. With a time limit it follows from the pace,
and becomes part of the configuration, so that a resumed search keeps it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.run import selection, time_limit
from nas.run.resolve import FLOPS_OPTION, Resolved, is_free, usual_flops
from nas.spaces.fit import MNIST_FLOPS
from nas.spaces.space import Candidate
from nas.trial import REDUCTION, Job, Trial, job_seed

if TYPE_CHECKING:
    from nas.experiment import Experiment

# With 45,000 images the winner trains for about seven epochs; with a quarter of them for twice as many, which see
# half as many images. A full training of the search has a tenth of that.
EPOCHS, OF_IMAGES, SHORTER = 7.0, 45_000, 10.0
LEAST_SHARE = 0.28  # of the time for the search, if one training of that length takes nearly all of the time
# The calibration trains two networks, each for so many operations of forward passes, a second on one core.
CALIBRATED_FLOPS, CALIBRATED_IMAGES = 4e10, 4_096
SLOW = 2e10  # operations a second of a slow core: a search that needs less than WORTH_IT so is not calibrated
WORTH_IT = 60.0  # seconds
VALIDATION = 0.6  # of the time for a training image: a step costs three forward passes, in bfloat16 faster ones
DRAWN = 40  # candidates that are drawn to know what candidates cost
LATENCY = 0.1  # seconds, of the measurement of a network before its first training


@dataclass(frozen=True)
class Pace:
    """The seconds of a training for each image, while as many networks train as there are workers."""

    fixed: float
    per_flop: float  # operation of one forward pass
    alone: float = 1.0  # how many times as fast a training is if it has the machine alone

    def seconds(self, flops: float) -> float:
        """The seconds for one image of a network."""
        return self.fixed + self.per_flop * flops


@dataclass(frozen=True)
class Course:
    """How a search will go, as far as that is known before."""

    seconds: float
    candidates: int
    last: selection.Plan


def planned(resolved: Resolved, experiment: Experiment, begun: float) -> Resolved:
    """The configuration with its plan in words; with a time limit, with what networks may cost here, too.

    Args:
        resolved: the configuration of a new search.
        experiment: the same as it was given; what is decided there stays as it is.
        begun: the moment (``time.monotonic``) from which its time counts.
    """
    limit = experiment.time_limit
    drawn = _drawn(resolved)
    if experiment.evaluator != "local" or not drawn:  # nobody knows the pace of another evaluator
        return resolved
    if (limit or _work(resolved, drawn) / SLOW / resolved.side_by_side) < WORTH_IT:
        return resolved
    pace = _calibrated(resolved, drawn)
    if pace is None:
        return resolved
    closing, left, decided = time_limit.closing(experiment), None, dict[str, float]()
    if limit is not None:
        left = max(1.0, begun + limit - closing - time.monotonic())
        if resolved.source.max_flops is None:
            resolved, decided = _fitted(resolved, experiment, pace, left)
            drawn = _drawn(resolved)
    course = _course(resolved, drawn, pace, left, decided)
    seconds = limit or time.monotonic() - begun + course.seconds + closing
    return replace(resolved, plan={"text": _words(resolved, course, seconds), **decided})


def _drawn(resolved: Resolved) -> list[Candidate]:
    """Candidates as the search may have; those of the space where a strategy is a plugin."""
    with suppress(Exception):  # the search itself says what is wrong
        strategy = resolved.make_strategy()
        if type(strategy).__module__.startswith("nas."):
            return [new for new in strategy.ask(DRAWN) if resolved.limits.allow(new.architecture)]
        space = resolved.make_space()
        return [space.sample(Random(number)) for number in range(DRAWN)]
    return []


def _flops(resolved: Resolved, candidates: Sequence[Candidate]) -> list[int]:
    shape, classes = resolved.limits.input_shape, resolved.limits.classes
    return [candidate.architecture.flops(shape, classes) for candidate in candidates]


def _work(resolved: Resolved, drawn: Sequence[Candidate]) -> float:
    """The operations of all trainings of a search without a time limit, roughly."""
    trials = resolved.experiment.trials or 0
    trainings = trials * sum(epochs * share for epochs, share in _rungs(resolved))
    trainings += max(selection.LEAST, selection.TRAININGS * trials) * resolved.epochs
    return trainings * len(resolved.data.train) * float(np.mean(_flops(resolved, drawn)))


def _rungs(resolved: Resolved) -> Iterator[tuple[float, float]]:
    """The epochs of each rung of successive halving, and the share of the candidates that reach it."""
    batch = trained = resolved.experiment.batch
    for rung in reversed(range(resolved.experiment.rungs)):
        yield resolved.epochs / REDUCTION**rung, trained / batch
        trained = math.ceil(trained / REDUCTION)


def _images(resolved: Resolved, epochs: float) -> float:
    """The images of a training, those of the validations by what they cost."""
    data = resolved.data
    return epochs * len(data.train) + max(1.0, epochs) * VALIDATION * len(data.validation)


def _calibrated(resolved: Resolved, drawn: Sequence[Candidate]) -> Pace | None:
    """The pace of networks here, from a cheap and a dear one, while every worker trains; None if both fail."""
    by_cost = sorted(zip(_flops(resolved, drawn), drawn, strict=True), key=lambda pair: pair[0])
    jobs = []
    for flops, candidate in (by_cost[len(by_cost) // 5], by_cost[4 * len(by_cost) // 5]):
        images = min(CALIBRATED_IMAGES, max(256, CALIBRATED_FLOPS / max(1, flops)))
        epochs = min(1.0, images / len(resolved.data.train))
        seeds = (job_seed(number, candidate.id) for number in range(resolved.side_by_side))
        jobs += [Job(candidate, epochs, seed) for seed in seeds]
    together, by_itself = list(_measured(resolved, jobs)), list(_measured(resolved, jobs[-1:]))
    if not together or not by_itself:
        return None
    costs, seconds = np.array(together).T
    alone = float(np.mean(seconds[costs == by_itself[0][0]]) / by_itself[0][1])
    slope, fixed = np.polyfit(costs, seconds, 1) if costs.min() < costs.max() else (0.0, 0.0)
    if slope <= 0 or fixed < 0:  # a line through the origin is nearer to the truth
        slope, fixed = np.mean(seconds) / max(1.0, np.mean(costs)), 0.0
    return Pace(float(fixed), float(slope), max(1.0, alone))


def _measured(resolved: Resolved, jobs: Sequence[Job]) -> Iterator[tuple[float, float]]:
    """The operations of each network that could be trained, and its seconds for an image."""
    made: Any = resolved.make_evaluator(None, None, lambda line: None)
    with made if hasattr(made, "__exit__") else nullcontext(made) as evaluator:
        for trial in evaluator.evaluate(jobs):
            if trial.failure is None:
                seconds = trial.metrics["train_seconds"] / _images(resolved, trial.job.epochs)
                yield trial.metrics["flops"], seconds


def _fitted(
    resolved: Resolved, experiment: Experiment, pace: Pace, left: float
) -> tuple[Resolved, dict[str, float]]:
    """The dearest networks of which one can train long enough, and what follows for the search.

    Returns:
        The configuration with the limit of operations and the epochs; and for the record ``search_share``, the
        share of the time for the search, ``enough``, the epochs of the winner's training, and ``alone``, how many
        times as fast a training is if it has the machine alone.
    """
    wanted = EPOCHS * math.sqrt(OF_IMAGES / len(resolved.data.train))
    decided: dict[str, Any] = {"epochs": resolved.epochs, "options": dict(resolved.experiment.options)}
    most = selection.FIRST_OF_LONG * (1 - LEAST_SHARE) * left * pace.alone
    if is_free(experiment, resolved.parts["space"], resolved.source):
        affordable = (most / _images(resolved, wanted) - pace.fixed) / pace.per_flop
        usual = usual_flops(resolved.limits.input_shape)
        decided["options"][FLOPS_OPTION] = _two_digits(min(usual, max(MNIST_FLOPS, affordable)))
    resolved = replace(resolved, experiment=resolved.experiment.model_copy(update=decided))
    dearest = pace.seconds(resolved.make_space().limits.max_flops or MNIST_FLOPS)
    if experiment.epochs is None:
        possible = most / dearest / _images(resolved, 1.0)
        decided["epochs"] = max(0.05, round(min(wanted, possible) / SHORTER, 2))
    enough = SHORTER * decided["epochs"]
    # For two trainings of that length, if they leave enough time for the search.
    needed = dearest * _images(resolved, enough) / selection.FIRST_OF_LONG
    share = min(time_limit.SEARCH_SHARE, max(LEAST_SHARE, 1 - needed / left))
    resolved = replace(
        resolved, experiment=resolved.experiment.model_copy(update=decided), epochs=decided["epochs"]
    )
    return resolved, {"search_share": round(share, 3), "enough": enough, "alone": round(pace.alone, 2)}


def _course(
    resolved: Resolved, drawn: Sequence[Candidate], pace: Pace, left: float | None, decided: Mapping[str, float]
) -> Course:
    """How the search will go; ``left``: the seconds for its trainings, None without a limit."""
    costs, workers, trials = _flops(resolved, drawn), resolved.side_by_side, resolved.experiment.trials or 0
    trained = [pace.seconds(flops) * _images(resolved, resolved.epochs) for flops in costs]
    batch = resolved.experiment.batch
    images = [max(1.0, batch * share / workers) * _images(resolved, epochs) for epochs, share in _rungs(resolved)]
    one = sum(images) / batch * float(np.mean([pace.seconds(flops) for flops in costs])) + LATENCY
    seconds = None
    if left is not None:
        share = decided.get("search_share", time_limit.SEARCH_SHARE)
        possible = max(1, int(share * left / one))
        trials = min(trials or possible, possible)
        seconds = left - min(share * left, trials * one)
    # The dearer half, because the best ones are mostly dear.
    order = sorted(range(len(drawn)), key=costs.__getitem__)[len(drawn) // 2 :]
    history = [
        Trial(Job(drawn[n], resolved.epochs, 0), {"flops": costs[n], "train_seconds": trained[n]}, scores=(rank,))
        for rank, n in enumerate(order)
    ]
    history = [history[number % len(history)] for number in range(trials)]
    known = {name: decided[name] for name in ("enough", "alone") if name in decided}
    last = selection.plan(history, resolved.limits, resolved.epochs, workers, seconds, **known)
    longest = float(np.mean([trained[n] for n in order])) / resolved.epochs * last.epochs
    longest *= max(1.0, last.trainings / workers) if last.trainings > 1 else 1 / pace.alone
    return Course(trials * one + longest, trials, last)


def _words(resolved: Resolved, course: Course, seconds: float) -> str:
    experiment, last, workers = resolved.experiment, course.last, resolved.workers
    where = f"{workers} core{'s' * (workers > 1)}" if resolved.device == "cpu" else resolved.device
    candidates = f"{'about ' * (experiment.trials is None)}{course.candidates:,} candidates"
    if most := resolved.make_space().limits.max_flops:
        candidates += f" of up to {most:,} operations an image"
    rungs = reversed(range(experiment.rungs))
    epochs = " or ".join(f"{resolved.epochs / REDUCTION**rung:.2g}" for rung in rungs)
    again = f"{last.trainings} training{'s' * (last.trainings > 1)} of about {last.epochs:.2g} epochs"
    return (
        f"about {_time(seconds)} on {where}: {candidates}, each trained for {epochs} epochs of "
        f"{len(resolved.data.train):,} images; then {again}, of {last.finalists} "
        f"finalist{'s' * (last.finalists > 1)}"
    )


def _time(seconds: float) -> str:
    minutes = seconds / 60
    if minutes < 1.5:
        return f"{math.ceil(seconds / 10) * 10} seconds"
    return f"{round(minutes)} minutes" if minutes < 90 else f"{minutes / 60:.1f} hours"


def _two_digits(number: float) -> int:
    """Rounded down to two digits, which are easy to read."""
    step: int = 10 ** max(0, len(str(int(number))) - 2)
    return int(number) // step * step
