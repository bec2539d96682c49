"""The training loop: one network on one device.

The inputs are on the device (see `Resident`), where batches are changed and normalised; the CPU reads nothing back
inside an epoch. On a CPU with one thread the same job gives the same bits.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from nas.training.backbone import adopt, imagenet
from nas.training.batches import Resident, draw_epochs
from nas.training.cores import Cores
from nas.training.network import Network
from nas.training.recipe import Recipe
from nas.training.stepper import Stepper
from nas.training.tally import Tally, points_of
from nas.trial import Job, Trial

if TYPE_CHECKING:
    from nas.data.dataset import Dataset

Trained = tuple[Trial, Network]
LATENCY_SECONDS = 0.5  # for the measurement of one network; a small one takes 0.01 s


def train(job: Job, dataset: Dataset, recipe: Recipe, device: str = "cpu") -> Trained:
    """Train the job's network from scratch.

    Args:
        job: architecture, epochs (0.25 means a quarter of the images, once) and seed.
        dataset: training inputs to learn from, validation inputs to measure on.
        recipe: how to train.
        device: the device that trains, as PyTorch names it.

    Returns:
        The trial (without scores) and the trained network, in evaluation mode. A loss that is not finite
        ends the training with a failed trial. The latency is right only if nothing else is computed meanwhile.

    Raises:
        ArchitectureError: the architecture does not fit the images.
    """
    data = Resident(dataset, device)
    trial, network = (train_folds if data.folds else train_resident)(job, data, recipe)
    assert network is not None  # noqa: S101
    if trial.failure is None:
        trial = replace(trial, metrics={**trial.metrics, "latency_ms": latency_ms(network, data)})
    return trial, network


def train_resident(job: Job, data: Resident, recipe: Recipe, cores: Cores | None = None) -> Trained:
    """Train on inputs that are on the device already (see `train`); the latency is not measured."""
    with _random(data):
        return _trained(job, data, recipe, cores).result()


def train_folds(
    job: Job, data: Resident, recipe: Recipe, cores: Callable[[], Cores] = Cores, *, whole: bool = True
) -> tuple[Trial, Network | None]:
    """Train on few inputs: once for each fold, which gives the trial, and then on all inputs.

    So every input is validated by a network that has not seen it (cross-validation: Stone, 1974).

    Args:
        job: see `train`.
        data: the inputs, on the device.
        recipe: how to train.
        cores: makes those of one training, see `Stepper`.
        whole: whether to train on all inputs, too, for the network; without that, it is None.
    """
    with _random(data):
        trials, tallies = list[Trial](), list[Tally]()
        for fold in data.folds:
            training = _trained(job, fold, recipe, cores())
            trial, network = training.result()
            if trial.failure is not None:
                return trial, network
            trials.append(trial)
            tallies.append(training.tally)
        trial = _merged(trials, tallies)
        if not whole:
            return trial, None
        last, network = _trained(job, data.whole, recipe, cores(), points=1).result()
        return (last if last.failure else _longer(trial, last)), network


def _random(data: Resident) -> AbstractContextManager[object]:
    """The random numbers of this process stay as they are."""
    return torch.random.fork_rng(devices=[data.device] if data.device.startswith("cuda") else [])


def _trained(job: Job, data: Resident, recipe: Recipe, cores: Cores | None, points: int | None = None) -> Training:
    network = initial_network(job, data.dataset).to(data.device)
    training = Training(job, Stepper(network, data, recipe, cores), points)
    for _ in training.run():
        pass
    return training


def _merged(trials: Sequence[Trial], tallies: Sequence[Tally]) -> Trial:
    """The trial of those for all folds: accuracies and losses of all inputs together, and all seconds."""
    sizes = [tally.count for tally in tallies]

    def mean(points: Sequence[Mapping[str, float]], name: str) -> float:
        return sum(size * point[name] for size, point in zip(sizes, points, strict=True)) / sum(sizes)

    curve = [
        {name: mean(points, name) for name in points[0]} | {"seconds": sum(point["seconds"] for point in points)}
        for points in zip(*(trial.curve for trial in trials))  # noqa: B905  # one that only guesses stops sooner
    ]
    seconds = {"train_seconds": sum(trial.metrics["train_seconds"] for trial in trials)}
    metrics = {**trials[0].metrics, **Tally.sum(tallies).metrics, **seconds}
    return replace(trials[0], metrics=metrics, curve=tuple(curve))


def _longer(trial: Trial, last: Trial) -> Trial:
    """A trial whose seconds are also those of another training."""
    key = "train_seconds"
    *curve, end = trial.curve
    return replace(
        trial,
        metrics={**trial.metrics, key: trial.metrics[key] + last.metrics[key]},
        curve=(*curve, {**end, "seconds": end["seconds"] + last.curve[-1]["seconds"]}),
    )


class Training:
    """A job in training, with the stepper of its network."""

    def __init__(self, job: Job, stepper: Stepper, points: int | None = None) -> None:
        self.job, self.stepper = job, stepper
        self.curve: list[dict[str, float]] = []
        dataset = stepper.data.dataset
        inputs = dataset.validation.labels.bincount(minlength=len(dataset.classes)).tolist()
        self.tally = Tally(0.0, inputs, inputs, inputs)  # of the last validation
        points = points or points_of(job.epochs, dataset.kind)
        self._every = max(1, math.ceil(job.epochs / points))  # epochs, of which the last one is validated
        self._failure = ""
        self._images = 0
        self._validating = 0.0
        self._start = time.perf_counter()
        self._seconds = self._of_one_core = 0.0

    def run(self) -> Iterator[bool]:
        """Train. Yields True after every step, so that another training can do one, and False while it waits."""
        stepper, length = self.stepper, self.job.epochs
        data, dropouts = stepper.data, len(stepper.network.dropouts)
        epochs = draw_epochs(self.job.seed, length, len(data.labels), dropouts, stepper.recipe)
        epoch, number = next(epochs, None), 0
        while epoch is not None:
            count = stepper.begin(epoch)
            for step in range(count):
                stepper.step(step)
                yield True
            self._images, number = self._images + epoch.picked.numel(), number + 1
            epoch = next(epochs, None)  # this takes 2 ms, while a GPU still does its steps
            if epoch is not None and number % self._every:
                continue
            before = time.perf_counter() + stepper.cores.saved
            stepper.validate(is_last=epoch is None)
            while not stepper.is_done():
                yield False
            loss, validation_loss, *counts = stepper.read()
            right, answers = counts[: len(counts) // 2], counts[len(counts) // 2 :]
            self._seconds = time.perf_counter() - self._start
            self._of_one_core = self._seconds + stepper.cores.saved
            if data.device == "cpu":  # on a GPU the steps before it are not finished when it begins
                self._validating += time.perf_counter() + stepper.cores.saved - before
            end = min(float(number), length)
            if not math.isfinite(loss):
                self._failure = f"the training loss is {loss} after {end:g} epochs"
                return
            self.tally = Tally(validation_loss, right, answers, self.tally.inputs)
            validated = self.tally.metrics
            point = {
                "epoch": end,
                "train_loss": loss / count,
                "validation_loss": validated["validation_loss"],
                "validation_accuracy": validated["validation_accuracy"],
                "seconds": self._seconds,
            }
            self.curve.append(point)
            if end >= max(1.0, length / 2) and self._only_guesses(point):
                return

    def _only_guesses(self, point: dict[str, float]) -> bool:
        """Whether the network was no better than guessing, during a whole epoch and at its end."""
        share = max(self.tally.inputs) / self.tally.count
        by_chance = share + 2 * math.sqrt(share * (1 - share) / self.tally.count)
        loss = min(point["train_loss"], point["validation_loss"])
        return loss > math.log(len(self.tally.inputs)) and point["validation_accuracy"] < by_chance

    def result(self) -> Trained:
        """The trial and the trained network."""
        network, data = self.stepper.network, self.stepper.data
        if self.stepper.is_reused:
            state = network.state_dict()
            network = build(self.job, data.dataset).to(data.device)
            network.load_state_dict(state)
        network.use_keys(None)
        network.eval()
        curve = tuple(self.curve)
        if self._failure:
            return replace(Trial.failed(self.job, "not_finite", self._failure), curve=curve), network
        return Trial(self.job, self._metrics(), curve), network

    def _metrics(self) -> dict[str, float]:
        dataset = self.stepper.data.dataset
        rows = self.job.candidate.architecture.table(dataset.input_shape, len(dataset.classes))
        return {
            **self.tally.metrics,
            "parameters": float(sum(row.parameters for row in rows)),
            "flops": float(sum(row.flops for row in rows)),
            "train_seconds": self._of_one_core,
            "images_per_second": self._images / max(self._of_one_core - self._validating, 1e-9),
        }


def initial_network(job: Job, dataset: Dataset) -> Network:
    """The network of a job before its training, with the pretrained weights that its architecture asks for.

    Seeds PyTorch's random numbers, which the training goes on to use.
    """
    torch.manual_seed(job.seed)
    backbones = job.candidate.architecture.backbones
    weights = [imagenet(layer.model) if layer.weights else None for layer in backbones]
    network = build(job, dataset)  # after the weights, which may be missing
    for backbone, state in zip(network.backbones, weights, strict=True):
        if state is not None:
            adopt(backbone, state)
    return network


def build(job: Job, dataset: Dataset) -> Network:
    """The network of a job, with random weights."""
    shape, classes = dataset.input_shape, len(dataset.classes)
    moments = {"mean": dataset.mean, "std": dataset.std}
    return Network(job.candidate.architecture, shape, classes, **moments, is_padded=dataset.is_padded)


def latency_ms(network: Network, data: Resident) -> float:
    """Milliseconds for one image, the median of the second half of 40 runs; of a slow network, of fewer."""
    image, times = data.validation[0][:1].to(data.device), list[float]()
    network.eval()
    with torch.inference_mode():
        while len(times) < 6 or (len(times) < 40 and sum(times) < LATENCY_SECONDS):
            start = time.perf_counter()
            network(image).sum().item()  # reading the result waits for a GPU
            times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times[len(times) // 2 :])
