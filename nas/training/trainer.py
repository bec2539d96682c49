"""The training loop: one network on one device.

The images stay on the device as uint8; batches are gathered, shifted and normalised there; nothing is read
back inside an epoch. On a CPU with one thread the same job gives the same bits.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from nas.training.backbone import Backbone, imagenet
from nas.training.batches import Epoch, Epochs, Resident
from nas.training.network import Network
from nas.training.recipe import Recipe
from nas.training.stepper import Stepper
from nas.trial import Job, Trial

if TYPE_CHECKING:
    from nas.data.dataset import Dataset

Point = dict[str, float]  # one entry of a curve
Trained = tuple[Trial, Network]


def train(job: Job, dataset: Dataset, recipe: Recipe, device: str = "cpu") -> Trained:
    """Train the job's network from scratch.

    Args:
        job: architecture, epochs (0.25 is a quarter of the images, once) and seed.
        dataset: training images to learn from, validation images to measure on.
        recipe: how to train.
        device: where to train, as PyTorch names it.

    Returns:
        The trial (without scores) and the trained network, in evaluation mode. A loss that is not finite
        ends the training with a failed trial.

    Raises:
        ArchitectureError: the architecture does not fit the images.
    """
    return train_resident(job, Resident(dataset, device), recipe)


def train_resident(job: Job, data: Resident, recipe: Recipe) -> Trained:
    """Train on images that are on the device already (see `train`)."""
    devices = [data.device] if data.device.startswith("cuda") else []
    with torch.random.fork_rng(devices=devices):
        training = Training(job, Stepper(initial_network(job, data.dataset).to(data.device), data, recipe))
        for _ in training.run():
            pass
        return training.result()


class Steps(Protocol):
    """Does the steps of a training: a `Stepper`, or a GPU that replays them."""

    network: Network
    data: Resident
    recipe: Recipe
    is_reused: bool  # whether another job is trained in the same network afterwards
    latency: float | None  # ms for one image, where it is known

    def begin(self, epoch: Epoch) -> int:
        """Take over the batches of an epoch; returns the number of its steps."""

    def step(self, number: int) -> None:
        """Learn from one batch of the epoch."""

    def validate(self) -> None:
        """Measure the network on the validation images."""

    def is_done(self) -> bool:
        """Whether `read` returns without waiting."""

    def read(self) -> Sequence[float]:
        """The results of the epoch (see `Stepper.read`)."""


class Training:
    """A job in training.

    Args:
        job: what to train.
        steps: has the job's network, and does the steps.
    """

    def __init__(self, job: Job, steps: Steps) -> None:
        self.job, self.steps = job, steps
        self._curve: list[Point] = []
        self._failure = ""
        self._images = 0
        self._validating = 0.0
        self._start = time.perf_counter()
        self._seconds = 0.0

    def run(self) -> Iterator[bool]:
        """Train. Yields True after every step, so that other trainings can do one, and False to wait."""
        steps, length = self.steps, self.job.epochs
        labels, dropouts = steps.data.labels, len(steps.network.dropouts)
        epochs = Epochs(self.job.seed, length, len(labels), dropouts, steps.recipe)
        epoch = epochs.draw(0)
        for number in range(len(epochs)):
            count = steps.begin(epoch)
            for step in range(count):
                steps.step(step)
                yield True
            self._images += count * epochs.batch_size
            if number + 1 < len(epochs):
                epoch = epochs.draw(number + 1)  # 2 ms in which a GPU still has steps to do
            before = time.perf_counter()
            steps.validate()
            while not steps.is_done():
                yield False
            loss, right, validation_loss = steps.read()
            self._seconds = time.perf_counter() - self._start
            if steps.data.device == "cpu":  # elsewhere the training before it is not over when it begins
                self._validating += time.perf_counter() - before
            end = min(number + 1.0, length)
            if not math.isfinite(loss):
                self._failure = f"the training loss is {loss} after {end:g} epochs"
                return
            images = len(steps.data.validation[1])
            point = {
                "epoch": end,
                "train_loss": loss / count,
                "validation_loss": validation_loss / images,
                "validation_accuracy": right / images,
                "seconds": self._seconds,
            }
            self._curve.append(point)
            if end >= max(1.0, length / 2) and self._only_guesses(point):
                return

    def _only_guesses(self, point: Point) -> bool:
        """Whether the network was no better than guessing, over a whole epoch and at its end."""
        labels = self.steps.data.dataset.validation.labels
        share = labels.bincount().max().item() / len(labels)  # of the largest class
        by_chance = share + 2 * math.sqrt(share * (1 - share) / len(labels))
        losses = point["train_loss"], point["validation_loss"]
        return (
            min(losses) > math.log(len(self.steps.data.dataset.classes))
            and point["validation_accuracy"] < by_chance
        )

    def result(self) -> Trained:
        """The trial and the trained network."""
        network, data = self.steps.network, self.steps.data
        if self.steps.is_reused:
            state = network.state_dict()
            network = build(self.job, data.dataset).to(data.device)
            network.load_state_dict(state)
        network.use_keys(None)
        network.eval()
        curve = tuple(self._curve)
        if self._failure:
            return replace(Trial.failed(self.job, "not_finite", self._failure), curve=curve), network
        return Trial(self.job, self._metrics(network), curve), network

    def _metrics(self, network: Network) -> dict[str, float]:
        latency, data = self.steps.latency, self.steps.data
        if latency is None:
            latency = latency_ms(network, data.validation[0][:1])
        rows = self.job.candidate.architecture.table(data.dataset.input_shape, len(data.dataset.classes))
        last = self._curve[-1]
        return {
            "validation_accuracy": last["validation_accuracy"],
            "validation_loss": last["validation_loss"],
            "parameters": float(sum(row.parameters for row in rows)),
            "flops": float(sum(row.flops for row in rows)),
            "train_seconds": self._seconds,
            "images_per_second": self._images / max(self._seconds - self._validating, 1e-9),
            "latency_ms": latency,
        }


def initial_network(job: Job, dataset: Dataset) -> Network:
    """The network of a job before its training, with pretrained weights where its architecture has them.

    Seeds PyTorch's random numbers; the training goes on with them.
    """
    torch.manual_seed(job.seed)
    weights = [imagenet(layer.model) for layer in job.candidate.architecture.backbones if layer.weights]
    network = build(job, dataset)  # after the weights, because they may be absent
    backbones = (part for part in network.modules() if isinstance(part, Backbone) and part.pretrained)
    for backbone, state in zip(backbones, weights, strict=True):
        backbone.adopt(state)
    return network


def build(job: Job, dataset: Dataset) -> Network:
    """The network of a job, with random weights."""
    shape, classes = dataset.input_shape, len(dataset.classes)
    return Network(job.candidate.architecture, shape, classes, mean=dataset.mean, std=dataset.std)


def latency_ms(network: Network, image: Tensor, repeats: int = 20) -> float:
    """Milliseconds for one image (1, C, H, W): the median of ``repeats``, after as many to warm up."""
    times = []
    with torch.inference_mode():
        for _ in range(2 * repeats):
            start = time.perf_counter()
            network(image).sum().item()  # reading the result is what waits for a GPU
            times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times[repeats:])
