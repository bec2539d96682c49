"""The end of a run: the winner is handed over, and the test images are opened once, for the winner."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nas.errors import NasError, StorageError
from nas.objectives import best_seed, front
from nas.records.cost import Cost, smaller
from nas.records.outcome import COMPARED_WITH, FRONT, Importance, Outcome
from nas.records.predictions import Answers, Predictions
from nas.report.classes import PICTURED, Confusion
from nas.report.forest import importances_of
from nas.run.recording import Run
from nas.trial import Job, Trial, trial_numbers
from nas.winner.best import BEST, DESCRIPTION, write_best
from nas.winner.card import write_card
from nas.winner.sealed import Opened, open_test
from nas.winner.weights import restored

if TYPE_CHECKING:
    from nas.training.network import Network


@dataclass(frozen=True)
class Selected:
    """What a run has decided from training and validation images, before the test images are opened."""

    winner: Trial  # its trial in the search
    finalists: tuple[tuple[Trial, ...], ...]  # the trainings of each finalist, one per seed, the winner's first
    history: tuple[Trial, ...]
    lecture: Trial | None = None  # a training of the lecture's network to compare with


class Contestant(NamedTuple):
    """A network that classifies the test images."""

    what: str  # a key of `COMPARED_WITH`; empty for the winner
    trial: Trial  # its training
    network: Network


def contestants(run: Run, selected: Selected) -> list[Contestant]:
    """The winner, which is handed over in best/, and the networks that it is compared with.

    With several objectives these are all finalists. They represent the Pareto front, and each of them is handed
    over, too, in front/ID/, as the winner is.
    """
    folder, lecture, limits = run.header.folder, selected.lecture, run.resolved.limits
    chosen, *others = (best_seed(group) for group in selected.finalists)
    found = [Contestant("", chosen, _handed_over(run, chosen, folder / BEST))]
    kind, rivals = "second", others[:1]
    if is_front := len(run.header.objectives) > 1:
        kind, rivals = FRONT, others
        _clear(folder / FRONT)
        _handed_over(run, chosen, folder / FRONT / chosen.id)
    beside = [("lecture" if lecture is not None and one.id == lecture.id else kind, one) for one in rivals]
    if lecture is not None and lecture.id not in {one.id for one in (chosen, *rivals)}:
        beside.append(("lecture", lecture))
    for what, trial in beside:
        own = folder / FRONT / trial.id
        try:
            if is_front and trial in rivals:
                network = _handed_over(run, trial, own)
            else:
                weights = run.retrained / f"{trial.job.key}.safetensors"
                architecture = trial.job.candidate.architecture
                shape, padded = limits.input_shape, run.resolved.data.is_padded
                network = restored(architecture, shape, limits.classes, weights, is_padded=padded)
        except StorageError:
            raise
        except (ValueError, NasError) as error:  # its weights are damaged
            shutil.rmtree(own, ignore_errors=True)
            run.observer.warned(f"the winner is not compared with {trial.id}, {COMPARED_WITH[what]}: {error}")
        else:
            found.append(Contestant(what, trial, network))
    return found


def _clear(folder: Path) -> None:
    """Remove the networks of an earlier front: the search was given more budget. Other files stay."""
    for old in folder.glob("*"):
        if (old / DESCRIPTION).is_file() and not old.is_symlink():
            shutil.rmtree(old, ignore_errors=True)


def _handed_over(run: Run, trial: Trial, folder: Path) -> Network:
    """Write a trained network where `nas predict` and `nas export` find it."""
    weights, resolved = run.retrained / f"{trial.job.key}.safetensors", run.resolved
    if not weights.is_file():
        raise NasError(f"{weights} is missing")
    architecture = trial.job.candidate.architecture
    return write_best(
        folder, architecture, weights, resolved.data, resolved.source.framing, resolved.source.reading
    )


def _mattered(history: Sequence[Trial], images: int) -> tuple[Importance, ...]:
    """How much each choice mattered; what cannot be computed must not cost a winner."""
    with suppress(Exception):
        return tuple(importances_of(history, images))
    return ()


def _sample(run: Run, network: Network) -> str:
    """What a network writes that has learned from a text; empty for another one, or if it cannot."""
    from nas.data.sequences.reading import TextReading, reading_of
    from nas.winner.text import continuation

    data, source = run.resolved.data, run.resolved.source
    with suppress(NasError, ValueError):
        reading = reading_of(source.reading, data.input_shape, data.classes)
        if isinstance(reading, TextReading):
            seed = run.resolved.experiment.seed
            return continuation(network, reading, data.input_shape[0], "", seed=seed)
    return ""


def conclude(run: Run, selected: Selected, opened: Opened | None = None) -> Outcome:
    """Hand the winner over, open the test images, and tell the observers.

    ``opened`` is what the contestants have answered, where the test images were opened for several runs together.
    """
    winner, finalists, history = selected.winner, selected.finalists, selected.history
    (_, chosen, network), *others = everyone = contestants(run, selected)
    if opened is None:
        run.observer.preparing(f"testing the {'network' if run.resolved.training else 'winner'}")
        networks = [one.network for one in everyone]
        opened = open_test(run.resolved.source, run.resolved.data, networks)
    tested, *rest = opened.results
    _predictions(run, chosen.job, network, opened).write(run.header.folder)
    balanced, f1 = tested.balanced()
    outcome = Outcome(
        header=run.header,
        trials=len(history),
        failed=sum(trial.failure is not None for trial in history),
        seconds=time.monotonic() - run.journal.begun,
        winner=winner,
        retrained=finalists[0],
        finalists=finalists,
        test_accuracy=tested.accuracy,
        test_loss=tested.loss,
        test_images=len(tested.labels),
        test_balanced_accuracy=balanced,
        test_macro_f1=f1,
        test_largest=tested.share_of(int(run.resolved.data.train.labels.bincount().argmax())),
        front=tuple(front(history)),
        failures=Counter(trial.failure.kind for trial in history if trial.failure),
        mattered=_mattered(history, run.resolved.data.validated),
        opened=run.record.outcomes + 1,
        compared=tuple(
            tested.compared_with(result, one.what, one.trial) for one, result in zip(others, rest, strict=True)
        ),
        cost=Cost.of(
            run.record.trials.values(),
            [*chain(*finalists), *(one.trial for one in others)],
            run.record.finished,
            run.header.device,
        ),
        smaller=smaller(winner, history, finalists, run.resolved.data.validated, run.header.objectives[0].metric),
        sample=_sample(run, network),
        numbers=trial_numbers(history),
        weights=run.header.folder / BEST / "weights.safetensors",
    )
    write_card(outcome)
    run.observer.finished(outcome)
    return outcome


def _predictions(run: Run, job: Job, network: Network, opened: Opened) -> Predictions:
    """What the winner answers, and pictures of the classes: of all, or of those with the lowest recall."""
    from nas.training.network import answers_and_loss
    from nas.winner.pictures import examples

    data, tested = run.resolved.data, opened.results[0]
    of_test = tested.labels, tested.answers, tested.chances
    if data.folds:  # the network has learned from the validation inputs, too
        of_validation = tuple(tensor[:0] for tensor in of_test)
    else:
        answers, _, both = answers_and_loss(network, data.validation.inputs, data.validation.labels)
        of_validation = data.validation.labels, answers, both
    validation, test = (Answers(*(tensor.numpy() for tensor in tensors)) for tensors in (of_validation, of_test))
    recipe = run.resolved.recipe.changed(job.candidate.recipe)
    shown = Confusion(test.labels, test.answers, len(data.classes)).shown(PICTURED)
    return Predictions(
        job.key, data.classes, validation, test, np.array(shown),
        examples(data, recipe, shown, job.seed), opened.worst.numpy(), opened.pictures,
    )  # fmt: skip
