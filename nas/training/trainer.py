"""The training loop: one network, or several copies of one, on one device.

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

from nas.training.backbone import adopt, imagenet
from nas.training.batches import Epoch, Epochs, Resident
from nas.training.network import Network, State, joined, separated
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
        recipe: how.
        device: where, as PyTorch names it.

    Returns:
        The trial (without scores) and the trained network, in evaluation mode. A loss that is not finite
        ends the training with a failed trial.

    Raises:
        ArchitectureError: the architecture does not fit the images.
    """
    [trained] = train_copies([job], Resident(dataset, device), recipe)
    return trained


def train_copies(jobs: Sequence[Job], data: Resident, recipe: Recipe) -> list[Trained]:
    """Train jobs of one architecture and length side by side, as one network (see `train`).

    Each becomes what it would be alone, to rounding: it has its own weights, order of images, shifts and dropout
    masks. One whose loss is not finite does not touch the others.
    """
    devices = [data.device] if data.device.startswith("cuda") else []
    with torch.random.fork_rng(devices=devices):
        training = Training(jobs, Stepper(network_of(jobs, data.dataset).to(data.device), data, recipe))
        for _ in training.run():
            pass
        return training.results()


class Steps(Protocol):
    """What does the steps of a training: `Stepper`, or a GPU that replays them."""

    network: Network
    data: Resident
    recipe: Recipe
    is_reused: bool  # whether the network is trained in again, for other jobs
    latency: float | None  # ms of one image and network, where it is known

    def begin(self, epoch: Epoch) -> int:
        """Take over the batches of an epoch; the number of its steps."""

    def step(self, number: int) -> None:
        """Learn from one batch of the epoch."""

    def validate(self) -> None:
        """Measure the network on the validation images."""

    def is_done(self) -> bool:
        """Whether `read` has nothing to wait for."""

    def read(self) -> list[list[float]]:
        """What came of the epoch, for each copy (see `Stepper.read`)."""


class Training:
    """Jobs of one architecture and length, in training side by side.

    Args:
        jobs: they differ in their seeds.
        steps: has their network.
    """

    def __init__(self, jobs: Sequence[Job], steps: Steps) -> None:
        self.jobs, self.steps = list(jobs), steps
        self._curves: list[list[Point]] = [[] for _ in jobs]
        self._failures: list[str] = [""] * len(jobs)
        self._over = [False] * len(jobs)  # failed, or hopeless
        self._kept: dict[int, State] = {}  # the weights of a hopeless one beside others that go on
        self._images = 0
        self._validating = 0.0
        self._start = time.perf_counter()
        self._seconds = 0.0

    def run(self) -> Iterator[bool]:
        """Train. Yields after every step, so that others take theirs, and False while the device is not done."""
        steps, length = self.steps, self.jobs[0].epochs
        seeds, dropouts = [job.seed for job in self.jobs], len(steps.network.dropouts)
        epochs = Epochs(seeds, length, len(steps.data.labels), dropouts, steps.recipe)
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
            read = steps.read()
            self._seconds = time.perf_counter() - self._start
            if steps.data.device == "cpu":  # elsewhere the training before it is not over when it begins
                self._validating += time.perf_counter() - before
            self._note(min(number + 1.0, length), count, read)
            if all(self._over):
                return

    def _note(self, epoch: float, steps: int, read: Sequence[Sequence[float]]) -> None:
        """What came of an epoch, for each copy (see `Stepper.read`)."""
        images = len(self.steps.data.validation[1])
        for copy, (loss, right, validation_loss) in enumerate(read):
            if self._over[copy]:
                continue
            if not math.isfinite(loss):
                self._failures[copy] = f"the training loss is {loss} after {epoch:g} epochs"
                self._over[copy] = True
                continue
            point = {
                "epoch": epoch,
                "train_loss": loss / steps,
                "validation_loss": validation_loss / images,
                "validation_accuracy": right / images,
                "seconds": self._seconds,
            }
            self._curves[copy].append(point)
            if epoch >= max(1.0, self.jobs[copy].epochs / 2) and self._only_guesses(point):
                self._over[copy] = True
                if len(self.jobs) > 1:  # the others go on, and so does this one, for nothing
                    states = separated(self.steps.network.state_dict(), len(self.jobs))
                    self._kept[copy] = {name: tensor.clone() for name, tensor in states[copy].items()}

    def _only_guesses(self, point: Point) -> bool:
        """Whether a network was over a whole epoch, and is at its end, no better than one that knows nothing."""
        labels = self.steps.data.dataset.validation.labels
        share = labels.bincount().max().item() / len(labels)  # of the largest class
        by_chance = share + 2 * math.sqrt(share * (1 - share) / len(labels))
        losses = point["train_loss"], point["validation_loss"]
        return (
            min(losses) > math.log(len(self.steps.data.dataset.classes))
            and point["validation_accuracy"] < by_chance
        )

    def results(self) -> list[Trained]:
        """The trials and the trained networks, in the order of the jobs."""
        network, data = self.steps.network, self.steps.data
        networks = [network]
        if len(self.jobs) > 1 or self.steps.is_reused:
            states = separated(network.state_dict(), len(self.jobs))
            networks = [bare(job, data.dataset).to(data.device) for job in self.jobs]
            for copy, (one, state) in enumerate(zip(networks, states, strict=True)):
                one.load_state_dict(self._kept.get(copy, state))
        for one in networks:
            one.use_keys(None)
            one.eval()
        latency = self.steps.latency
        if latency is None:  # they are one architecture: one measurement holds for all
            latency = latency_ms(networks[0], data.validation[0][:1])
        about = self._about() | {"latency_ms": latency}
        return [(self._trial(copy, about), one) for copy, one in enumerate(networks)]

    def _about(self) -> dict[str, float]:
        """What all copies have in common."""
        job, dataset = self.jobs[0], self.steps.data.dataset
        rows = job.candidate.architecture.table(dataset.input_shape, len(dataset.classes))
        return {
            "parameters": float(sum(row.parameters for row in rows)),
            "flops": float(sum(row.flops for row in rows)),
            "train_seconds": self._seconds,
            "images_per_second": self._images / max(self._seconds - self._validating, 1e-9),
        }

    def _trial(self, copy: int, about: dict[str, float]) -> Trial:
        job, curve = self.jobs[copy], tuple(self._curves[copy])
        if self._failures[copy]:
            return replace(Trial.failed(job, "not_finite", self._failures[copy]), curve=curve)
        last = {name: curve[-1][name] for name in ("validation_accuracy", "validation_loss")}
        return Trial(job, last | about, curve)


def network_of(jobs: Sequence[Job], dataset: Dataset) -> Network:
    """The network of jobs of one architecture before their training, a copy for each.

    Every copy begins as it would alone. PyTorch's random numbers are left where a training goes on with them.
    """
    copies = []
    for job in jobs:
        torch.manual_seed(job.seed)
        copies.append(_fresh(job, dataset))
    if len(copies) == 1:
        return copies[0]
    network = bare(jobs[0], dataset, len(jobs))
    network.load_state_dict(joined([one.state_dict() for one in copies]))
    return network


def bare(job: Job, dataset: Dataset, copies: int = 1) -> Network:
    """The network of a job, with random weights."""
    shape, classes = dataset.input_shape, len(dataset.classes)
    moments = {"mean": dataset.mean, "std": dataset.std}
    return Network(job.candidate.architecture, shape, classes, copies=copies, **moments)


def _fresh(job: Job, dataset: Dataset) -> Network:
    """The network before its training, with pretrained weights where its architecture says so."""
    architecture = job.candidate.architecture
    weights = [imagenet(layer.model) if layer.weights else None for layer in architecture.backbones]
    network = bare(job, dataset)  # after the weights, because they may be absent
    for backbone, state in zip(network.backbones, weights, strict=True):
        if state is not None:
            adopt(backbone, state)
    return network


def latency_ms(network: Network, image: Tensor, repeats: int = 20) -> float:
    """Milliseconds for one image (1, C, H, W): the median of ``repeats``, after as many to warm up."""
    times = []
    with torch.inference_mode():
        for _ in range(2 * repeats):
            start = time.perf_counter()
            network(image).sum().item()  # reading the result is what waits for a GPU
            times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times[repeats:])
