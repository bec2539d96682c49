"""Why is one model better than another? Three experiments on the same images, with measured answers.

1. One permutation of the pixels, the same for all images: a forest, for which a pixel is a number among others,
   does not mind; a convolutional network, which looks at neighbours, loses what made it good.
2. Test images that are moved by a few pixels.
3. Fewer training images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nas.architecture.architecture import Architecture
from nas.baselines import baselines as models
from nas.baselines.baseline import Baseline
from nas.data.dataset import Array, Dataset, Split
from nas.data.plugin import stratified
from nas.errors import NasError
from nas.report.words import percent
from nas.run.resolve import Resolved
from nas.spaces.space import Candidate
from nas.training.recipe import PLAIN, Recipe, table_of
from nas.trial import Job, job_seed
from nas.winner.weights import restored

if TYPE_CHECKING:
    from nas.training.network import Network

SHIFTS = (0, 1, 2, 3, 4)  # pixels
SIZES = (100, 300, 1_000, 3_000, 10_000, 30_000)  # training images, and all
EPOCHS, OF_IMAGES = 12.0, 54_000  # of each training; with a quarter of the images, twice as many
DIRECTIONS = ((0, 1), (1, 0), (0, -1), (-1, 0))
Answerer = Callable[[Array], Array]  # images (N, C, H, W) uint8 → labels (N,)


class Experiment(NamedTuple):
    """What was measured: the accuracy of each model at each point."""

    name: str  # permutation, shift, images
    points: list[str]
    accuracies: dict[str, list[float]]  # by model
    sentences: list[str]


class Case(NamedTuple):
    """A model at one point of an experiment; it is tested together with everything else."""

    experiment: str
    model: str
    point: str
    answers: Answerer


def cases(
    folder: Path,
    resolved: Resolved,
    networks: Mapping[str, Architecture],
    baselines: Sequence[Baseline],
    begins: Callable[[str], None],
) -> Iterator[Case]:
    """Train everything that the experiments need.

    Args:
        folder: for the weights of the networks; what is there is not trained again.
        resolved: the configuration, with the images.
        networks: to explain, by their names.
        baselines: to explain.
        begins: is told what begins.
    """
    data, own = resolved.data, _Models(folder, resolved, networks, baselines)
    scrambled = _permutation(data.input_shape, resolved.experiment.seed)
    begins("explaining: a permutation of the pixels")
    plain = replace(resolved.recipe, **PLAIN)
    permuted = _permuted(data, scrambled)
    for model in own.names:
        yield Case("permutation", model, "as they are", own.fitted(model, data, plain))
        answers = own.fitted(model, permuted, plain)
        yield Case("permutation", model, "permuted", lambda images, answers=answers: answers(scrambled(images)))  # type: ignore[misc]
    begins("explaining: moved test images")
    for model in own.names:
        answers = own.fitted(model, data, resolved.recipe)
        for pixels in SHIFTS:
            yield Case("shift", model, f"{pixels}", lambda images, a=answers, p=pixels: a(moved(images, p)))  # type: ignore[misc]
    for size in [*(size for size in SIZES if size < len(data.train)), len(data.train)]:
        begins(f"explaining: {size:,} training images")
        part = _part(data, size, resolved.experiment.seed)
        for model in own.names:
            yield Case("images", model, f"{size:,}", own.fitted(model, part, resolved.recipe))


def experiments(found: Sequence[tuple[Case, float]]) -> list[Experiment]:
    """What the cases have shown; each with its accuracy on the test images."""
    results = []
    for name, words in (("permutation", _permutation_words), ("shift", _shift_words), ("images", _images_words)):
        points = list(dict.fromkeys(case.point for case, _ in found if case.experiment == name))
        accuracies: dict[str, list[float]] = {}
        for case, accuracy in found:
            if case.experiment == name:
                accuracies.setdefault(case.model, []).append(accuracy)
        results.append(Experiment(name, points, accuracies, list(words(points, accuracies))))
    return results


class _Models:
    """Fits forests and trains networks on variants of the images."""

    def __init__(
        self, folder: Path, resolved: Resolved, networks: Mapping[str, Architecture], baselines: Sequence[Baseline]
    ) -> None:
        self._folder, self._resolved, self._networks = folder, resolved, networks
        self._baselines = {baseline.name: baseline for baseline in baselines}
        self.names = [*self._baselines, *networks]

    def fitted(self, name: str, data: Dataset, recipe: Recipe) -> Answerer:
        """What a model answers that has learned from ``data``."""
        resolved = self._resolved
        if name in self._baselines:
            return models.fitted(self._baselines[name], data, resolved.experiment.seed, resolved.workers)
        weights = self._trained(data, recipe)[name]
        return answers_of(restored(self._networks[name], data.input_shape, len(data.classes), weights))

    def _trained(self, data: Dataset, recipe: Recipe) -> dict[str, Path]:
        """The weights of every network after a training on ``data``; those that lack it train side by side."""
        resolved = self._resolved
        epochs = round(EPOCHS * max(1.0, math.sqrt(OF_IMAGES / len(data.train))))
        changes = table_of(replace(recipe, precision="float32"))  # the same on every machine
        jobs = {}
        for name, architecture in self._networks.items():
            seed = job_seed(resolved.experiment.seed, f"{architecture.id}/{data.fingerprint}/{changes}")
            jobs[name] = Job(Candidate(architecture, origin=name), epochs, seed)
        weights = {name: self._folder / f"{job.key}.safetensors" for name, job in jobs.items()}
        if missing := [job for name, job in jobs.items() if not weights[name].is_file()]:
            self._folder.mkdir(parents=True, exist_ok=True)
            own = replace(resolved, data=data, recipe=recipe)
            with own.make_evaluator(self._folder, None, lambda line: None) as evaluator:
                for trial in evaluator.evaluate(missing):
                    if trial.failure is not None:
                        origin = trial.job.candidate.origin
                        raise NasError(f"{origin} cannot be trained: {trial.failure.message}")
        return weights


def answers_of(network: Network) -> Answerer:
    """What a network answers to images, as the baselines do."""

    def answers(images: Array) -> Array:
        import torch

        from nas.training.network import answers_and_loss

        labels = torch.zeros(len(images), dtype=torch.int64)
        found: Array = answers_and_loss(network, torch.from_numpy(images), labels)[0].numpy()
        return found

    return answers


def moved(images: Array, pixels: int) -> Array:
    """Images (N, C, H, W), a quarter of them moved by so many pixels in each direction; black moves in."""
    if not pixels:
        return images
    shifted = np.zeros_like(images)
    for number, (down, right) in enumerate(DIRECTIONS):
        part = slice(number, None, len(DIRECTIONS))
        rows, columns = (_slices(pixels * step) for step in (down, right))
        shifted[part, :, rows[1], columns[1]] = images[part, :, rows[0], columns[0]]
    return shifted


def _slices(step: int) -> tuple[slice, slice]:
    """The rows that stay, before and after a move."""
    if step >= 0:
        return slice(None, -step or None), slice(step, None)
    return slice(-step, None), slice(None, step)


def _permutation(shape: tuple[int, ...], seed: int) -> Answerer:
    """The same new order of the pixels for every image (N, C, H, W); the channels of a pixel stay together."""
    order = np.random.default_rng(seed).permutation(math.prod(shape[1:]))

    def permuted(images: Array) -> Array:
        flat = images.reshape(len(images), shape[0], -1)
        return np.ascontiguousarray(flat[:, :, order].reshape(images.shape))

    return permuted


def _permuted(data: Dataset, scrambled: Answerer) -> Dataset:
    train, validation = (
        Split.of(scrambled(split.inputs.numpy()), split.labels.numpy()) for split in (data.train, data.validation)
    )
    return Dataset.of(f"{data.name}, permuted", train, validation, data.classes)


def _part(data: Dataset, size: int, seed: int) -> Dataset:
    """With fewer training images, each class in its share, and at least one of each."""
    labels = data.train.labels.numpy()
    if size >= len(labels):
        return data
    [part] = stratified(labels, [size], seed)
    rows = np.union1d(part, np.unique(labels, return_index=True)[1])
    train = Split.of(data.train.inputs.numpy()[rows], labels[rows])
    return Dataset.of(f"{data.name}, {size}", train, data.validation, data.classes)


def _sentences(
    start: str, accuracies: Mapping[str, Sequence[float]], words: Callable[[Sequence[float]], str]
) -> Iterator[str]:
    """Two sentences with the numbers: one about trees and forests, one about networks."""
    known = models.names("images")
    baselines = [name for name in accuracies if name in known]
    for names in (baselines, [name for name in accuracies if name not in known]):
        parts = [
            f"the {name.removeprefix('the ')} has {words(found)}"
            for name, found in accuracies.items()
            if name in names
        ]
        if parts:
            yield f"{start}, {' and '.join(parts)}."


def _permutation_words(points: Sequence[str], accuracies: Mapping[str, Sequence[float]]) -> Iterator[str]:
    start = "With the pixels of all images in another order"
    return _sentences(start, accuracies, lambda found: f"{percent(found[-1])} instead of {percent(found[0])}")


def _shift_words(points: Sequence[str], accuracies: Mapping[str, Sequence[float]]) -> Iterator[str]:
    start = f"On test images that are moved by {points[-1]} pixels"
    return _sentences(start, accuracies, lambda found: f"{percent(found[-1])} instead of {percent(found[0])}")


def _images_words(points: Sequence[str], accuracies: Mapping[str, Sequence[float]]) -> Iterator[str]:
    start = f"With {points[0]} training images instead of {points[-1]}"
    return _sentences(start, accuracies, lambda found: f"{percent(found[0])} instead of {percent(found[-1])}")
