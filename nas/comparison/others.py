"""What a comparison has beside its searches: the baselines, and the lecture's network, by the lecture's recipe."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from nas.architecture.known import LECTURE, lecture_parameters
from nas.baselines import baselines as models
from nas.baselines.baseline import Baseline
from nas.comparison.explain import Answerer, answers_of
from nas.comparison.result import State
from nas.comparison.watcher import Watcher
from nas.errors import NasError
from nas.evaluation.evaluator import BUILT_IN
from nas.run.resolve import Resolved
from nas.spaces.space import Candidate
from nas.training.recipe import RECIPES
from nas.trial import Job, job_seed
from nas.winner.weights import restored

LECTURE_NAME = "the lecture's network"
# Of mnist, with batches of 128 and Adam's usual rate; of fewer images up to four times as many.
LECTURE_EPOCHS, LECTURE_IMAGES, LECTURE_SHAPE = 12.0, 54_000, (1, 28, 28)


def fit(folder: Path, state: State, resolved: Resolved, watcher: Watcher) -> None:
    """Fit what is no search, unless it is known from before."""
    data = resolved.data
    state.left_out = {}
    for name in models.names(data.kind):
        if name in state.baselines:
            continue
        if reason := models.missing(name):
            state.left_out[name] = reason
            watcher.warned(f"{name} is left out: {reason}")
        else:
            watcher.fitting(name)
            state.baselines[name] = models.tuned(name, data, resolved.experiment.seed, resolved.workers)
            state.write(folder)
            watcher.fitted(state.baselines[name])
    state.write(folder)
    # Another evaluator may train only the networks that it knows.
    is_local = resolved.experiment.evaluator in BUILT_IN and data.kind == "images"
    if LECTURE_NAME not in state.baselines and is_local and lecture_parameters(resolved.limits):
        watcher.fitting(LECTURE_NAME)
        try:
            state.baselines[LECTURE_NAME] = _lecture(folder, resolved)
        except NasError as error:
            watcher.warned(f"{LECTURE_NAME} is left out: {error}")
            return
        state.write(folder)
        watcher.fitted(state.baselines[LECTURE_NAME])


def _lecture_job(resolved: Resolved) -> Job:
    images, limits = len(resolved.data.train), resolved.limits
    # For fewer images more epochs, for large ones fewer, so that it takes no longer than on all of mnist.
    epochs = LECTURE_EPOCHS * min(4.0, max(1.0, (LECTURE_IMAGES / images) ** 0.5))
    cost, usual = (LECTURE.flops(shape, limits.classes) for shape in (limits.input_shape, LECTURE_SHAPE))
    epochs = max(1.0, min(epochs, LECTURE_EPOCHS * LECTURE_IMAGES * usual / images / cost))
    return Job(Candidate(LECTURE, origin="lecture"), round(epochs), job_seed(resolved.experiment.seed, LECTURE.id))


def _lecture(folder: Path, resolved: Resolved) -> Baseline:
    """The lecture's network, trained with the lecture's recipe."""
    job, weights = _lecture_job(resolved), folder / "lecture"
    weights.mkdir(exist_ok=True)
    own = replace(resolved, recipe=replace(RECIPES["lecture"], precision=resolved.recipe.precision))
    with own.make_evaluator(weights, None, lambda line: None) as evaluator:
        (trial,) = evaluator.evaluate([job])
    if trial.failure is not None:
        raise NasError(f"{LECTURE_NAME} cannot be trained: {trial.failure.message}")
    metrics = trial.metrics
    size = f"{metrics['parameters']:,.0f} parameters"
    return Baseline(
        LECTURE_NAME, f"{job.epochs:g} epochs", metrics["validation_accuracy"], metrics["train_seconds"], 0.0, size
    )


def answerers(folder: Path, state: State, resolved: Resolved, watcher: Watcher) -> dict[str, Answerer]:
    """What answers for each baseline, by its name."""
    found: dict[str, Answerer] = {}
    for name, baseline in state.baselines.items():
        if name != LECTURE_NAME:
            watcher.fitting(name)
            found[name] = models.fitted(baseline, resolved.data, resolved.experiment.seed, resolved.workers)
            continue
        weights = folder / "lecture" / f"{_lecture_job(resolved).key}.safetensors"
        limits = resolved.limits
        found[name] = answers_of(restored(LECTURE, limits.input_shape, limits.classes, weights))
    return found
