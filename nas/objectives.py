"""Metrics, objectives, the ranking of trials, Pareto fronts and their hypervolume (moocore)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import ge

from nas import checks
from nas.architecture.architecture import Limits
from nas.errors import UsageError, unknown
from nas.trial import Failure, Trial, checked

# The measurements of every trial. Lower is better, except for MORE_IS_BETTER. Times depend on the machine and its
# load: a search with such an objective cannot be repeated exactly.
METRICS = {
    "validation_accuracy": "fraction of the validation images that are classified correctly",
    "balanced_accuracy": "mean over the classes of the fraction of their validation images classified correctly",
    "macro_f1": "mean over the classes of F1, the harmonic mean of precision and recall, on the validation images",
    "validation_loss": "mean cross-entropy on the validation images, in nats",
    "parameters": "number of values that the network learns",
    "flops": "floating-point operations of one forward pass over one image",
    "train_seconds": "seconds of training, validation included; on a CPU, of one core",
    "images_per_second": "training images per second, validation left out",
    "latency_ms": "milliseconds for one image in one thread, median, while nothing trains (but with --ahead)",
}
TIMES = frozenset({"latency_ms", "train_seconds", "images_per_second"})  # other trainings beside it change them
BALANCED = frozenset({"balanced_accuracy", "macro_f1"})  # in these each class counts as much as any other
FRACTIONS = BALANCED | {"validation_accuracy"}  # of 1
MORE_IS_BETTER = FRACTIONS | {"images_per_second"}
SHOWN = ("validation_accuracy", "validation_loss", "parameters")  # the metrics that every trial must have
SPREAD = 16  # trials of a front that are chosen by hypervolume; the others follow by the first objective


@dataclass(frozen=True)
class Objective:
    """A metric and the direction in which it is better."""

    metric: str
    sign: int = 1  # -1: lower is better

    @classmethod
    def parse(cls, text: str) -> Objective:
        """``validation_accuracy`` (higher is better) or ``-parameters`` (lower is better).

        Raises:
            UsageError: there is no such metric, or the sign is wrong for it.
        """
        metric = text.removeprefix("-").replace("-", "_")
        if metric not in METRICS:
            raise UsageError(unknown("metric", metric, METRICS))
        sign = 1 if metric in MORE_IS_BETTER else -1
        if text.startswith("-") != (sign < 0):
            right = f"{'-' if sign < 0 else ''}{metric}"
            raise UsageError(f"objective {text} would search for the worst; write {right}")
        return cls(metric, sign)

    def score(self, trial: Trial) -> float:
        """The trial's score: higher is better. Training seconds are divided by the epochs."""
        value = trial.metrics[self.metric]
        return self.sign * (value / trial.epochs if self.metric == "train_seconds" else value)

    def __str__(self) -> str:
        """As `parse` reads it."""
        return ("-" if self.sign < 0 else "") + self.metric


def rank(trial: Trial) -> tuple[float, tuple[float, ...], str]:
    """The sort key of trials without a failure, largest for the best: the longest training, then the scores.

    The id decides between equals, so that the order does not depend on which trial ended first.
    """
    return trial.job.epochs, trial.scores, trial.id


def best_seed(trainings: Iterable[Trial]) -> Trial:
    """The training of one network whose weights are handed over: the one with the smallest validation loss.

    Other objectives, such as the latency, are the same for all of them, except for the noise of a measurement.
    """
    return min(trainings, key=lambda trial: trial.metrics["validation_loss"])


def scored(trial: Trial, objectives: Sequence[Objective]) -> Trial:
    """The trial with its scores; a trial without finite numbers has failed (see `nas.trial.checked`).

    So a strategy never gets a NaN, which would win any tournament because no number is greater.
    """
    kept = checked(trial, (*SHOWN, *(objective.metric for objective in objectives)))
    if kept.failure is not None:
        return kept
    try:
        scores = [checks.number(objective.score(kept), f"the score of {objective}") for objective in objectives]
    except ValueError as error:
        return checked(replace(kept, failure=Failure("not_finite", str(error))))
    return replace(kept, scores=tuple(scores))


def best_first(trials: Iterable[Trial], count: int | None = None) -> list[Trial]:
    """The best ``count`` trials that did not fail: the longest trainings first, among them front after front.

    Within a front, the best by the first objective is followed by those that add most to the hypervolume, so that
    its first trials represent the front. With one objective this is the order of `rank`.
    """
    good = sorted((trial for trial in trials if trial.failure is None), key=rank, reverse=True)
    ordered: list[Trial] = []
    for _, group in groupby(good, key=lambda trial: trial.job.epochs):
        equals = list(group)
        if len(equals[0].scores) < 2:
            ordered += equals
            continue
        ranks = _ranks(equals)
        for level in sorted(set(ranks)):
            if count is None or len(ordered) < count:
                ordered += _spread([trial for trial, own in zip(equals, ranks, strict=True) if own == level])
    return ordered[:count]


def front(trials: Iterable[Trial]) -> list[Trial]:
    """The Pareto front of the longest trainings, one trial a candidate, the best by the first objective first.

    Scores of shorter trainings are not compared with theirs.
    """
    good = sorted((trial for trial in trials if trial.failure is None), key=rank, reverse=True)
    best = {trial.id: trial for trial in reversed(good)}  # of each candidate
    longest = [trial for trial in good if trial is best[trial.id] and trial.job.epochs == good[0].job.epochs]
    if not longest:
        return []
    return [trial for trial, level in zip(longest, _ranks(longest), strict=True) if level == 0]


def corners(trials: Iterable[Trial]) -> list[Trial]:
    """What represents the Pareto front: its end by the first objective, its knee, and its ends by the others.

    The knee is the trial nearest to a point that has the best of every objective, each of which goes from 0 to 1
    along the front (Zeleny, Compromise programming, 1973); in orders of magnitude, as the hypervolume counts, a
    network that guesses would be near. With one objective there is only one trial.
    """
    import numpy as np

    equals = front(trials)
    if not equals:
        return []
    scores = np.array([trial.scores for trial in equals])
    low, high = scores.min(axis=0), scores.max(axis=0)
    missing = (high - scores) / np.where(high > low, high - low, 1.0)
    # Of those with the same best value of an objective, the one that is better by the others.
    ends = [int(np.lexsort((missing.sum(axis=1), missing[:, k]))[0]) for k in range(scores.shape[1])]
    knee = int(np.linalg.norm(missing, axis=1).argmin())
    return [equals[place] for place in dict.fromkeys([ends[0], knee, *ends[1:]])]


def since_better(trials: Sequence[Trial]) -> int:
    """The number of trials after the last one that joined the Pareto front; an equal one brings nothing better."""
    best = {(trial.job.epochs, trial.scores) for trial in front(trials)}
    firsts = {(trial.job.epochs, trial.scores): place for place, trial in reversed([*enumerate(trials, 1)])}
    return len(trials) - max((firsts[each] for each in best), default=0)


def hypervolume(trials: Iterable[Trial], objectives: Sequence[Objective], limits: Limits) -> float:
    """The volume of the objectives' space that the trials dominate, each objective in orders of magnitude.

    Along an objective, a trial is ``log10(worst / value)`` orders of magnitude better than the worst value; for an
    accuracy or F1, what is missing to 1 counts. The worst value is that of a network that guesses, or that has the
    largest allowed number of parameters or operations (10⁶ and 10⁸ without a limit).
    """
    import moocore
    import numpy as np

    points = [_gains(trial, objectives, limits) for trial in trials if trial.failure is None]
    above = [point for point in points if min(point) > 0]
    if not above:
        return 0.0
    return float(moocore.hypervolume(np.array(above), ref=np.zeros(len(objectives)), maximise=True))


def undominated(trials: Iterable[Trial], objectives: Sequence[Objective]) -> list[Trial]:
    """The trials that decide the hypervolume: no other is as good in every objective. Of equal ones, the first."""
    kept: list[tuple[tuple[float, ...], Trial]] = []
    for trial in trials:
        own = tuple(objective.score(trial) for objective in objectives)
        if not any(all(map(ge, point, own)) for point, _ in kept):
            kept = [(point, other) for point, other in kept if not all(map(ge, own, point))]
            kept.append((own, trial))
    return [trial for _, trial in kept]


def _gains(trial: Trial, objectives: Sequence[Objective], limits: Limits) -> list[float]:
    worst = {
        "validation_loss": math.log(limits.classes),
        "parameters": limits.max_parameters or 1e6,
        "flops": limits.max_flops or 1e8,
        "train_seconds": 1e3,
        "latency_ms": 1e2,
    }
    gains = []
    for objective in objectives:
        value = abs(objective.score(trial))
        if objective.metric in FRACTIONS:
            gains.append(math.log10((1 - 1 / limits.classes) / max(1 - value, 1e-5)))
        elif objective.metric == "images_per_second":
            gains.append(math.log10(max(value, 1.0)))
        else:
            gains.append(math.log10(worst[objective.metric] / max(value, 1e-9)))
    return gains


def _ranks(trials: Sequence[Trial]) -> list[int]:
    """The number of the front of each trial: 0 is the best front."""
    import moocore
    import numpy as np

    scores = np.array([trial.scores for trial in trials])
    if scores.shape[1] == 1:  # moocore needs two objectives or more
        return [int(level) for level in np.unique(-scores[:, 0], return_inverse=True)[1]]
    return [int(level) for level in moocore.pareto_rank(scores, maximise=True)]


def _spread(trials: Sequence[Trial]) -> list[Trial]:
    """The trials of a front in the order of `best_first`."""
    import moocore
    import numpy as np

    left = sorted(trials, key=rank, reverse=True)
    if len(left) < 3:
        return left
    scores = np.array([trial.scores for trial in left])
    low, high = scores.min(axis=0), scores.max(axis=0)
    points = (scores - low) / np.where(high > low, high - low, 1.0)
    chosen = [0]
    while len(chosen) < min(len(left), SPREAD):
        others = [i for i in range(len(left)) if i not in chosen]
        # The ends of the front lie on the borders of its box: a margin gives them some volume.
        volumes = [
            moocore.hypervolume(points[[*chosen, i]], ref=np.full(len(low), -0.1), maximise=True) for i in others
        ]
        chosen.append(others[int(np.argmax(volumes))])
    return [left[i] for i in chosen] + [trial for i, trial in enumerate(left) if i not in chosen]
