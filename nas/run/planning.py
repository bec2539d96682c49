"""The plan of a search, before anything trains: what networks may cost, how long they train, how long all takes.

Without a time limit it follows from the data and the settings alone, so that the result is the same on every
machine; the pace of this one only says how long the search will take. With a time limit it follows from the pace,
and becomes part of the configuration, so that a resumed search keeps it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from random import Random
from typing import TYPE_CHECKING

import numpy as np

from nas.data.kinds import NOUNS
from nas.evaluation.evaluator import BUILT_IN
from nas.report.words import several
from nas.run import changing, selection, time_limit
from nas.run.pace import Pace, by_flops, calibrated, flops_of, on_top, work
from nas.run.resolve import FLOPS_OPTION, Resolved, is_free, usual_flops
from nas.spaces.fit import MNIST_FLOPS
from nas.spaces.space import Candidate
from nas.trial import REDUCTION, Job, Trial

if TYPE_CHECKING:
    from nas.experiment import Experiment
    from nas.records.observer import Observer

# With 45,000 images the winner trains for about six epochs, or more if there is time; with a quarter of them for
# twice as many, which see half as many images. A full training of the search has a tenth of that.
EPOCHS, OF_IMAGES, SHORTER = 6.0, 45_000, 10.0
# What time is left when the dearest networks can train for so long is given to longer trainings, as long as there
# are CANDIDATES in the search, and to more candidates when the winner's training has so many times the epochs.
CANDIDATES, LONG, LONGER = 36, 3.0, 6.0
BESIDE = 8.0  # times the epochs of the search: long enough for two finalists side by side
FASTER = 1.2  # a training that has the machine alone is faster by so much that it pays
DEAR = 0.8  # the share of the candidates that are cheaper than the winner, as is supposed
LEAST_SHARE = 0.28  # of the time for the search, if one training of that length takes nearly all of the time
SLOW = 2e10  # operations a second of a slow core: a search that needs less than WORTH_IT so is not calibrated
WORTH_IT = 20.0  # seconds; mnist-5k with its usual 40 candidates needs 31 of them, and in truth 148
COMPARED_SHARE = 0.05  # of the time or the work for a comparison of ways to change the training images
COMPARED_IMAGES = 5_000  # of each of its trainings, at least
LEAST_LEFT = 30.0  # seconds for all trainings: with less, a calibration would take too much of them
DRAWN = 40  # candidates that are drawn to know what candidates cost
MOST = 10_000  # trials of an imagined search, whose final selection is planned
BUSY = 0.87  # the share of the time in which a worker trains: at the end of a batch it may have to wait for others
LATENCY = 0.1  # seconds, of the measurement of a network before its first training


@dataclass(frozen=True)
class Course:
    """How a search will go, as far as that is known before."""

    seconds: float
    candidates: int
    last: selection.Plan


def planned(resolved: Resolved, experiment: Experiment, begun: float, observer: Observer) -> Resolved:
    """The configuration with its plan in words; with a time limit, with what networks may cost here, too.

    Args:
        resolved: the configuration of a new search.
        experiment: the same as it was given; what is decided there stays as it is.
        begun: the moment (``time.monotonic``) from which its time counts.
        observer: is told that this takes some seconds.
    """
    limit, closing = experiment.time_limit, time_limit.closing(experiment)
    over = None if limit is None else begun + limit - closing
    pace, drawn = None, list[Candidate]()
    if experiment.evaluator in BUILT_IN:  # nobody knows the pace of another one
        drawn = _drawn(resolved)
        seconds = _operations(resolved, drawn) / SLOW / resolved.side_by_side if drawn else 0.0
        if drawn and (seconds >= WORTH_IT if over is None else over - time.monotonic() >= LEAST_LEFT):
            observer.preparing("measuring how fast networks train here")
            pace = calibrated(resolved, drawn, over)
    found = ""
    # Without a time limit it is compared whatever the pace, and so whatever the number of workers.
    if drawn and (over is None or pace is not None):
        resolved, found = _changed(resolved, experiment, pace, drawn, over, observer)
    left, decided = None if over is None else max(1.0, over - time.monotonic()), dict[str, float]()
    if left is not None and resolved.source.max_flops is None:
        if pace is not None:
            resolved, decided = _fitted(resolved, experiment, pace, drawn, left)
            drawn = _drawn(resolved)
        elif is_free(experiment, resolved.parts["space"]):
            resolved = _with_limit(resolved, MNIST_FLOPS)  # in so little time no others are trained to the end
    if pace is None or not drawn:  # if no network fits, the search says why
        found = _joined(found, _unlearned(resolved, resolved.experiment.trials))
        return replace(resolved, plan={"text": found}) if found else resolved
    course = _course(resolved, drawn, pace, left, decided)
    seconds = time.monotonic() - begun + course.seconds + closing
    text = _words(resolved, course, seconds if limit is None else min(limit, seconds))
    text = _joined(text, found, _unlearned(resolved, course.candidates))
    return replace(resolved, plan={"text": text, "calibration": round(pace.measuring, 1), **decided})


def _with_limit(resolved: Resolved, flops: float) -> Resolved:
    """With a limit of these operations, or of as many as the space needs for images of this size."""
    for _ in range(40):
        options = {**resolved.experiment.options, FLOPS_OPTION: _two_digits(flops)}
        resolved = replace(resolved, experiment=resolved.experiment.model_copy(update={"options": options}))
        if _drawn(resolved, 1):
            break
        flops *= 1.25
    return resolved


def _drawn(resolved: Resolved, count: int = DRAWN) -> list[Candidate]:
    """Candidates as the search may have; those of the space where a strategy is a plugin."""
    with suppress(Exception):  # the search itself says what is wrong
        strategy = resolved.make_strategy()
        if type(strategy).__module__.startswith("nas."):
            return [new for new in strategy.ask(count) if resolved.limits.allow(new.architecture)]
        space = resolved.make_space()
        return [space.sample(Random(number)) for number in range(count)]
    return []


def _operations(resolved: Resolved, drawn: Sequence[Candidate]) -> float:
    """The operations of all trainings of a search without a time limit, roughly."""
    trials = resolved.experiment.trials or 0
    trainings = trials * sum(epochs * share for epochs, share in _rungs(resolved, resolved.epochs))
    trainings += max(selection.LEAST, selection.TRAININGS * trials) * resolved.epochs
    return (
        trainings * resolved.data.trainings * len(resolved.data.train) * float(np.mean(flops_of(resolved, drawn)))
    )


def _rungs(resolved: Resolved, epochs: float) -> Iterator[tuple[float, float]]:
    """The epochs of each rung of successive halving, and the share of the candidates that reach it."""
    batch = trained = resolved.experiment.batch
    for rung in reversed(range(resolved.experiment.rungs)):
        yield epochs / REDUCTION**rung, trained / batch
        trained = math.ceil(trained / REDUCTION)


def _searched(resolved: Resolved, epochs: float) -> float:
    """The images that a worker trains until there is one more candidate; ``epochs``: of a full training."""
    batch, workers = resolved.experiment.batch, resolved.side_by_side
    least = 1.0 / resolved.experiment.ahead  # a batch is as long as one training of each rung, at least
    return sum(
        max(least, batch * share / workers) * work(resolved, part) for part, share in _rungs(resolved, epochs)
    ) / batch  # fmt: skip


def _changed(
    resolved: Resolved,
    experiment: Experiment,
    pace: Pace | None,
    drawn: Sequence[Candidate],
    over: float | None,
    observer: Observer,
) -> tuple[Resolved, str]:
    """The configuration with the changes of training images that are best in a short comparison, and its result.

    With a time limit it takes a small share of the time left; otherwise a small share of the work, so that it is
    the same on every machine. Where that is too little to learn anything, there is no comparison.
    """
    flops, candidate = by_flops(resolved, drawn)[len(drawn) // 5]
    if not changing.is_open(resolved, experiment.recipe, candidate):
        return resolved, ""
    trainings = changing.SEEDS * len(resolved.source.augmentations)
    until = None
    if over is None or pace is None:
        images = COMPARED_SHARE * _operations(resolved, drawn) / flops / trainings
    else:
        seconds = COMPARED_SHARE * (over - time.monotonic())
        images = seconds * resolved.side_by_side / trainings / pace.seconds(flops)
        until = time.monotonic() + 2 * seconds
    epochs = min(images / work(resolved, 1.0), _wanted(resolved))
    if images < COMPARED_IMAGES:
        return resolved, ""
    observer.preparing(f"comparing ways to change the training {NOUNS[resolved.data.kind].many}")
    return changing.decided(resolved, candidate, round(epochs, 2), until)


def _least(resolved: Resolved) -> int:
    """The number of finalists, at least: with several objectives, the ends of the front and its knee."""
    objectives = len(resolved.experiment.objectives)
    return 1 if objectives < 2 else objectives + 1


def _wanted(resolved: Resolved) -> float:
    """The epochs of a training that is long enough."""
    return EPOCHS * math.sqrt(OF_IMAGES / len(resolved.data.train))


def _fitted(
    resolved: Resolved, experiment: Experiment, pace: Pace, drawn: Sequence[Candidate], left: float
) -> tuple[Resolved, dict[str, float]]:
    """The dearest networks of which one can train long enough, and what follows for the search.

    Returns:
        The configuration with the limit of operations and the epochs; and for the record ``search_share``, the
        share of the time for the search, ``enough``, the epochs of the winner's training, and ``alone``, how many
        times as fast a training is if it has the machine alone.
    """
    wanted, epochs = _wanted(resolved), resolved.epochs
    again = _least(resolved)  # trainings, of which one has the machine alone
    faster = pace.alone if again == 1 else resolved.side_by_side / again
    most = selection.SAFETY * (1 - LEAST_SHARE) * left * faster / on_top(resolved)
    if is_free(experiment, resolved.parts["space"]):
        affordable = (most / work(resolved, wanted) - pace.fixed) / pace.per_flop
        resolved = _with_limit(
            resolved, min(usual_flops(resolved.limits.input_shape), max(MNIST_FLOPS, affordable))
        )
        drawn = _drawn(resolved)
    # Another limit, such as that of the parameters, may be reached before that of the operations.
    costs = flops_of(resolved, drawn)
    mean, dear = pace.seconds(float(np.mean(costs))), pace.seconds(float(np.quantile(costs, DEAR)))
    epoch = work(resolved, 2.0) - work(resolved, 1.0)
    possible = most / dear / epoch
    if experiment.epochs is None:
        both = math.ceil(2 / resolved.side_by_side) * dear * selection.LONGEST * epoch
        candidates = CANDIDATES / 2 if resolved.data.folds else CANDIDATES  # what few inputs say is mostly chance
        all_of_it = candidates * mean * _searched(resolved, 1.0) + both / selection.SAFETY
        longer = min(left / all_of_it, LONGER * wanted / selection.LONGEST)
        epochs = max(0.05, round(max(min(wanted, possible) / SHORTER, longer), 2))
    # Where a training is faster alone, one finalist gets all of the time until a second one hardly costs it
    # anything: a network for Fashion-MNIST had 92.1 % after 9 epochs, 92.7 % after 18. Otherwise one may be
    # dearer, and still have the time for another one beside it. Of few inputs, where the validation is mostly
    # chance, several finalists are better than a long training.
    longest = LONG * wanted if pace.alone >= FASTER else min(BESIDE * epochs, LONG * wanted)
    enough = max(min(wanted, possible, SHORTER * epochs), 0.0 if resolved.data.folds else longest)
    # For a training of ten times that of the search, if it leaves enough time for the search.
    needed = dear * work(resolved, SHORTER * epochs) / selection.SAFETY
    share = min(time_limit.SEARCH_SHARE, max(LEAST_SHARE, 1 - needed / min(1.0, faster) / left))
    changed = resolved.experiment.model_copy(update={"epochs": epochs})
    decided = {"search_share": round(share, 3), "enough": round(enough, 2), "alone": round(pace.alone, 2)}
    return replace(resolved, experiment=changed, epochs=epochs), decided


def _course(
    resolved: Resolved, drawn: Sequence[Candidate], pace: Pace, left: float | None, decided: Mapping[str, float]
) -> Course:
    """How the search will go; ``left``: the seconds for its trainings, None without a limit."""
    by_cost, workers, trials = by_flops(resolved, drawn), resolved.side_by_side, resolved.experiment.trials or 0
    usual = pace.seconds(float(np.mean([flops for flops, _ in by_cost])))
    trainings = sum(share for _, share in _rungs(resolved, resolved.epochs))
    one = _searched(resolved, resolved.epochs) * usual + LATENCY + trainings * pace.start / workers
    one /= BUSY
    seconds = None
    if left is not None:
        share = decided.get("search_share", time_limit.SEARCH_SHARE)
        possible = max(1, int(share * left / one))
        trials = min(trials or possible, possible)
        seconds = left - min(share * left, trials * one)
    # The finalists are supposed to be dear.
    place, full = round(DEAR * (len(by_cost) - 1)), work(resolved, resolved.epochs)
    finalists = [
        Trial(
            Job(candidate, resolved.epochs, 0),
            {"flops": flops, "train_seconds": full * pace.seconds(flops)},
            scores=(0.0,),
        )
        for flops, candidate in by_cost[max(0, place - 2) : place + 3]
    ]
    history = [finalists[number % len(finalists)] for number in range(min(trials, MOST))]
    enough = decided.get("enough", 0.0)
    now = selection.Now(alone=decided.get("alone", 1.0), cores=resolved.cores_alone)
    last = selection.plan(
        history, resolved.limits, resolved.epochs, workers, seconds and seconds / on_top(resolved),
        enough=enough, now=now, work=partial(work, resolved), least=_least(resolved),
    )  # fmt: skip
    longest = (
        float(np.mean([trial.metrics["train_seconds"] for trial in finalists])) / resolved.epochs * last.epochs
    )
    longest *= on_top(resolved) * max(1 / now.faster(workers // last.trainings), last.trainings / workers / BUSY)
    return Course(trials * one + longest, trials, last)


def _words(resolved: Resolved, course: Course, seconds: float) -> str:
    experiment, last, workers = resolved.experiment, course.last, resolved.workers
    data, noun = resolved.data, NOUNS[resolved.data.kind]
    where = f"{workers} core{'s' * (workers > 1)}" if resolved.device == "cpu" else resolved.device
    candidates = f"{'about ' * (experiment.trials is None)}{several(course.candidates, 'candidate')}"
    if (
        most := resolved.make_space().limits.max_flops
    ) and resolved.kind != "reference":  # it has networks of its own
        candidates += f" of up to {most:,} operations {noun.each}"
    rungs = reversed(range(experiment.rungs))
    epochs = " or ".join(_epochs(resolved.epochs / REDUCTION**rung) for rung in rungs)
    folds = f" in each of {data.trainings} folds" if data.folds else ""
    again = f"{several(last.trainings, 'training')} of about {_epochs(last.epochs)} epochs"
    return (
        f"about {_time(seconds)} on {where}: {candidates}, each trained for {epochs} epochs of "
        f"{len(data.train):,} {noun.many}{folds}; then {again}, of {several(last.finalists, 'finalist')}"
    )


def _joined(*texts: str) -> str:
    return "; ".join(text for text in texts if text)


def _unlearned(resolved: Resolved, candidates: int | None) -> str:
    """What a search is that ends before its strategy has learned from a trial; empty for any other."""
    with suppress(Exception):  # the search itself says what is wrong
        # What is asked for ahead is asked for before the first trial is told.
        after = resolved.make_strategy().learns_after
        after = max(after, resolved.experiment.ahead * resolved.experiment.batch) if after else 0
        if candidates is not None and candidates <= after:
            return f"it ends before {resolved.kind} learns: its first {after} candidates are drawn at random"
    return ""


def _epochs(number: float) -> str:
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}"


def _time(seconds: float) -> str:
    minutes = seconds / 60
    if minutes < 1.5:
        return f"{math.ceil(seconds / 10) * 10} seconds"
    if minutes < 5:
        return f"{round(2 * minutes) / 2:g} minutes"
    return f"{round(minutes)} minutes" if minutes < 90 else f"{minutes / 60:.1f} hours"


def _two_digits(number: float) -> int:
    """Rounded down to two digits, which are easy to read."""
    step: int = 10 ** max(0, len(str(int(number))) - 2)
    return int(number) // step * step
