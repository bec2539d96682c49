"""How fast networks train on this machine: before a search, and before its final selection."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from nas.data.dataset import Split
from nas.run.resolve import Resolved
from nas.run.selection import Now
from nas.spaces.space import Candidate
from nas.statistics import mean
from nas.training.tally import points_of
from nas.trial import Job, Trial, job_seed

# The calibration trains two networks, each for so many operations of forward passes, a second on one core.
CALIBRATED_FLOPS, CALIBRATED_IMAGES, CALIBRATED_VALIDATION = 4e10, 4_096, 256
CALIBRATION_SHARE = 0.15  # of the time that is left, at most
# A calibration says by chance that a training alone is much faster: 1.0 to 1.18 times was seen in whole searches,
# of trainings with one core.
FASTEST = 1.3
# The two networks are too similar for a line through both: by chance it said once that no network of more than 5
# million operations could be trained in time. What does not depend on operations is at most so much of the time.
MOST_FIXED = 0.2
# The share of the time for the final selection that a short training takes, the one alone, and that all may take:
# of a network of 191 million operations, 2 s alone said 153 to 207 images a second, 6 s or more 139 to 144, and
# the whole training had 147. The steps before them, because the first ones of a network in a process are slow; the
# fewest steps; the most images.
PROBED, PROBED_ALONE, MOST_SHARE, WARMING, LEAST_PROBED, MOST_PROBED = 0.01, 0.03, 0.15, 2, 8, 8_192
LIKELY = (0.7, 2.0)  # a pause of another program is not taken for the whole of the final selection
# Of the time for a training image, for which a step costs three forward passes. Where a CPU trains in bfloat16,
# the last validation is slower, in float32.
VALIDATION, IN_FLOAT32 = 0.25, 0.6


@dataclass(frozen=True)
class Pace:
    """The seconds of a training for each image, while as many networks train as there are workers."""

    fixed: float
    per_flop: float  # operation of one forward pass
    alone: float = 1.0  # how many times as fast a training is if it has the machine alone
    start: float = 0.0  # seconds that the first steps of a network in a process take more than later ones
    measuring: float = 0.0  # the seconds of this measurement

    def seconds(self, flops: float) -> float:
        """The seconds for one image of a network."""
        return self.fixed + self.per_flop * flops


def flops_of(resolved: Resolved, candidates: Sequence[Candidate]) -> list[int]:
    """The operations of each candidate for an image."""
    shape, classes = resolved.limits.input_shape, resolved.limits.classes
    return [candidate.architecture.flops(shape, classes) for candidate in candidates]


def by_flops(resolved: Resolved, drawn: Sequence[Candidate]) -> list[tuple[int, Candidate]]:
    """Candidates with their operations, the cheapest first."""
    return sorted(zip(flops_of(resolved, drawn), drawn, strict=True), key=lambda pair: pair[0])


def work(resolved: Resolved, epochs: float) -> float:
    """The images of a training, those of the validations by what they cost."""
    last = IN_FLOAT32 if resolved.device == "cpu" and resolved.recipe.precision == "bfloat16" else VALIDATION
    data = resolved.data
    validated = last + VALIDATION * (points_of(epochs, data.kind) - 1)
    return data.trainings * (epochs * len(data.train) + validated * len(data.validation))


def on_top(resolved: Resolved) -> float:
    """How many times as long a training of the final selection takes as one of the search, of as many epochs.

    Where few inputs have folds, it also trains on all of them, for the weights.
    """
    data = resolved.data
    return 1 + data.validated / (data.trainings * len(data.train)) if data.folds else 1.0


def calibrated(resolved: Resolved, drawn: Sequence[Candidate], over: float | None) -> Pace | None:
    """The pace of networks here, from a cheap and a dear one, while every worker trains.

    None if none can be trained in its share of the time until ``over`` (``time.monotonic``; None: no limit).
    """
    begun = time.monotonic()
    until = None if over is None else begun + CALIBRATION_SHARE * (over - begun)
    small = _small(resolved, CALIBRATED_IMAGES)
    by_cost, jobs = by_flops(resolved, drawn), []
    for flops, candidate in (by_cost[len(by_cost) // 5], by_cost[4 * len(by_cost) // 5]):
        images = min(CALIBRATED_IMAGES, max(256, CALIBRATED_FLOPS / max(1, flops)))
        seeds = (job_seed(number, candidate.id) for number in range(resolved.side_by_side))
        jobs += [Job(candidate, images / len(small.data.train), seed) for seed in seeds]
    made: Any = small.make_evaluator(None, until, lambda line: None)
    with made if hasattr(made, "__exit__") else nullcontext(made) as evaluator:
        # The first steps of a network in a process are slow: without a second training of each, one that follows
        # alone seemed 1.4 times as fast as side by side, and was 1.18 times as fast.
        first = _measured(small, evaluator, jobs)
        together = _measured(small, evaluator, jobs) or first
        by_itself = _measured(small, evaluator, jobs[-1:]) if resolved.side_by_side > 1 and over else []
    if not together:
        return None
    start = float(np.mean([one.seconds for one in first]) - np.mean([one.seconds for one in together]))
    costs, seconds = np.array([(measured.flops, measured.of_image) for measured in together]).T
    fixed = np.polyfit(costs, seconds, 1)[1] if costs.min() < costs.max() else 0.0
    fixed = min(max(0.0, fixed), MOST_FIXED * seconds.min())
    slope = float(np.mean((seconds - fixed) / np.maximum(1.0, costs)))
    alone = [
        np.mean(seconds[costs == one.flops]) * one.images / one.waited for one in by_itself if one.flops in costs
    ]
    factor = min(max([1.0, *map(float, alone)]), FASTEST * resolved.cores_alone)
    return Pace(float(fixed), float(slope), factor, max(0.0, start), time.monotonic() - begun)


def pace_now(resolved: Resolved, best: Sequence[Trial], seconds: float) -> Now | None:
    """How fast the best networks train at this moment, beside one another and the best one alone.

    A search takes minutes, in which other programs come and go: a network of 41 million operations for an image
    took 83 s an epoch there, and 62 s alone afterwards.

    Args:
        resolved: the configuration, of a search on CPUs.
        best: the best trials of the search.
        seconds: the time left for the final selection, of which this takes some hundredths.

    Returns:
        The pace; None if nothing could be measured in `MOST_SHARE` of the time.
    """
    workers, small = resolved.side_by_side, _small(resolved, MOST_PROBED)
    then = {trial.id: trial.metrics.get("train_seconds", 0.0) / work(resolved, trial.epochs) for trial in best}
    if min(then.values()) <= 0:  # made-up results take no time
        return None
    batch, images = resolved.recipe.batch_size, len(small.data.train)

    def jobs(wanted: float | None, number: int, count: int = workers) -> list[Job]:
        """So many trainings of so many seconds; None: of few steps."""
        made = []
        for at in range(count):
            trial = best[at % len(best)]
            enough = WARMING * batch if wanted is None else max(LEAST_PROBED * batch, wanted / then[trial.id])
            # Whole batches, and several epochs of few images: of 244, one epoch is two steps more than the short
            # training, and the pace from so few was too fast by far.
            epochs = min(enough, MOST_PROBED) // batch * batch / images
            made.append(Job(trial.job.candidate, epochs, job_seed(number + at, trial.id)))
        return made

    made: Any = small.make_evaluator(None, time.monotonic() + MOST_SHARE * seconds, lambda line: None)
    with made if hasattr(made, "__exit__") else nullcontext(made) as evaluator:
        _measured(small, evaluator, jobs(None, 0))
        together = _measured(small, evaluator, jobs((PROBED if workers > 1 else PROBED_ALONE) * seconds, workers))
        # The beginning of a training, a twentieth of so short a one, is in both and not in their difference.
        number = 2 * workers
        wanted = PROBED_ALONE * seconds * resolved.cores_alone  # of one core
        both = (jobs(None, number, 1), jobs(wanted, number + 1, 1)) if workers > 1 else ()
        alone = [one for some in both for one in _measured(small, evaluator, some)]
    beside: dict[str, list[float]] = {}
    for one in together:
        beside.setdefault(one.id, []).append(one.of_image)
    if not beside:
        return None
    low, high = LIKELY
    slower = min(max(low, *(mean(times) / then[name] for name, times in beside.items())), high)
    factors = []
    if len(alone) == 2 and alone[1].images > alone[0].images and alone[1].waited > alone[0].waited:
        short, long = alone
        factors = [slower * then[long.id] * (long.images - short.images) / (long.waited - short.waited)]
    cores = resolved.cores_alone
    return Now(slower, min(max([1.0, *factors]), slower / low * cores), cores)


def _small(resolved: Resolved, images: int) -> Resolved:
    """The configuration with so many training images, and few to validate."""
    data = resolved.data
    train, validation = _some(data.train, images), _some(data.validation, CALIBRATED_VALIDATION)
    return replace(resolved, data=replace(data, folder=None, folds=(), train=train, validation=validation))


def _some(split: Split, count: int) -> Split:
    """So many inputs of a split, at equal distances, and one of each class."""
    rows = np.linspace(0, len(split) - 1, min(count, len(split)), dtype=np.int64)
    rows = np.union1d(rows, np.unique(split.labels.numpy(), return_index=True)[1])
    return Split.of(split.inputs.numpy()[rows], split.labels.numpy()[rows])


class Measured(NamedTuple):
    """A training of the calibration."""

    id: str  # of the candidate
    flops: float
    seconds: float  # of one core
    waited: float  # seconds until the training was over; fewer, if idle cores helped
    images: float  # as `work` counts them

    @property
    def of_image(self) -> float:
        """The seconds of one core for an image."""
        return self.seconds / self.images


def _measured(resolved: Resolved, evaluator: Any, jobs: Sequence[Job]) -> list[Measured]:
    """What each network took that could be trained."""
    trials = [trial for trial in evaluator.evaluate(jobs) if trial.failure is None]
    return [
        Measured(
            one.id,
            one.metrics["flops"],
            one.metrics["train_seconds"],
            one.seconds,
            work(resolved, one.job.epochs),
        )
        for one in trials
    ]
