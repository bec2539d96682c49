"""How training images should be changed, where the data do not say: a short comparison before the search."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from nas.data.kinds import NOUNS
from nas.run.resolve import Resolved
from nas.spaces.space import RECIPE, Candidate
from nas.statistics import mean, standard_error
from nas.training.recipe import AUGMENTATIONS, AUTO
from nas.trial import Job, job_seed

SEEDS = 2  # trainings with each way of changing images
ANSWER = f"{RECIPE}augmentation"
CLEARLY = 2.0  # standard errors: by less, another way than the usual one is not better


def is_open(resolved: Resolved, given: str | Mapping[str, Any], candidate: Candidate) -> bool:
    """Whether neither the user (``given``: the recipe), nor the data set, nor the space decides it."""
    return given == AUTO and len(resolved.source.augmentations) > 1 and ANSWER not in candidate.choices


def decided(resolved: Resolved, candidate: Candidate, epochs: float, until: float | None) -> tuple[Resolved, str]:
    """The configuration whose recipe changes images in the best way that the data set proposes.

    A network is trained with each, for so many epochs. The first way is usual for such images: another one must be
    better by `CLEARLY` standard errors of the difference.

    Args:
        resolved: the configuration.
        candidate: the network.
        epochs: of each training.
        until: the time (`time.monotonic`) at which the comparison ends; None for no limit.

    Returns:
        The configuration, unchanged if time did not suffice; and what was found, in words, for the plan.
    """
    ways = resolved.source.augmentations
    jobs = [
        Job(
            replace(candidate, choices={**candidate.choices, ANSWER: way}),
            epochs,
            job_seed(resolved.experiment.seed, candidate.id, number),  # the same for each way
        )
        for number in range(SEEDS)
        for way in ways
    ]
    made: Any = resolved.make_evaluator(None, until, lambda line: None)
    with made if hasattr(made, "__exit__") else nullcontext(made) as evaluator:
        trials = [trial for trial in evaluator.evaluate(jobs) if trial.failure is None]
    found: dict[str, list[float]] = {way: [] for way in ways}
    for trial in trials:
        found[str(trial.job.candidate.choices[ANSWER])].append(trial.metrics["validation_accuracy"])
    if len(trials) < len(jobs):
        return resolved, ""
    # Few inputs cannot show that a way is clearly better, and for them no way is the usual one.
    clearly = 0.0 if resolved.data.folds else CLEARLY
    shares_of = [mean(accuracies) for accuracies in found.values()]
    best = _best(ways, shares_of, SEEDS * resolved.data.validated, clearly)
    shares = ", ".join(f"{way} {mean(accuracies):.1%}" for way, accuracies in found.items())
    text = f"training {NOUNS[resolved.data.kind].many} are changed by {best}, after short trainings ({shares})"
    if best == ways[0]:
        return resolved, text
    usual = AUGMENTATIONS[ways[0]]
    changes = {name: value for name, value in AUGMENTATIONS[best].items() if value != usual[name]}
    recipe = resolved.experiment.recipe
    table = {**({"base": recipe} if isinstance(recipe, str) else recipe), **changes}
    experiment = resolved.experiment.model_copy(update={"recipe": table})
    return replace(resolved, experiment=experiment, recipe=replace(resolved.recipe, **changes)), text


def _best(ways: Sequence[str], accuracies: Sequence[float], images: int, clearly: float) -> str:
    """The way with the best accuracy if it is better than the first one by so many errors, otherwise that."""
    best = max(range(len(ways)), key=accuracies.__getitem__)
    error = math.hypot(*(standard_error(accuracy, images) for accuracy in (accuracies[0], accuracies[best])))
    return ways[best] if accuracies[best] - accuracies[0] > clearly * error else ways[0]
