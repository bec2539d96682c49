"""The training loop: one network on one device.

The images are uint8 on the device (see `Resident`), where batches are shifted and normalised; the CPU reads
nothing back inside an epoch. On a CPU with one thread the same job gives the same bits.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from nas.statistics import balanced_accuracy, macro_f1
from nas.training.backbone import adopt, imagenet
from nas.training.batches import Resident, draw_epochs
from nas.training.cores import Cores
from nas.training.network import Network
from nas.training.recipe import Recipe
from nas.training.stepper import Stepper
from nas.trial import Job, Trial

if TYPE_CHECKING:
    from nas.data.dataset import Dataset

Trained = tuple[Trial, Network]
LATENCY_SECONDS = 0.5  # for the measurement of one network; a small one takes 0.01 s


def train(job: Job, dataset: Dataset, recipe: Recipe, device: str = "cpu") -> Trained:
    """Train the job's network from scratch.

    Args:
        job: architecture, epochs (0.25 means a quarter of the images, once) and seed.
        dataset: training images to learn from, validation images to measure on.
        recipe: how to train.
        device: the device that trains, as PyTorch names it.

    Returns:
        The trial (without scores) and the trained network, in evaluation mode. A loss that is not finite
        ends the training with a failed trial. The latency is right only if nothing else is computed meanwhile.

    Raises:
        ArchitectureError: the architecture does not fit the images.
    """
    data = Resident(dataset, device)
    trial, network = train_resident(job, data, recipe)
    if trial.failure is None:
        trial = replace(trial, metrics={**trial.metrics, "latency_ms": latency_ms(network, data)})
    return trial, network


def train_resident(job: Job, data: Resident, recipe: Recipe, cores: Cores | None = None) -> Trained:
    """Train on images that are on the device already (see `train`); the latency is not measured."""
    devices = [data.device] if data.device.startswith("cuda") else []
    with torch.random.fork_rng(devices=devices):
        network = initial_network(job, data.dataset).to(data.device)
        training = Training(job, Stepper(network, data, recipe, cores))
        for _ in training.run():
            pass
        return training.result()


class Training:
    """A job in training, with the stepper of its network."""

    def __init__(self, job: Job, stepper: Stepper) -> None:
        self.job, self.stepper = job, stepper
        self._curve: list[dict[str, float]] = []
        self._balanced: dict[str, float] = {}
        self._images_of_class: list[int] = stepper.data.dataset.validation.labels.bincount().tolist()
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
        epoch = next(epochs, None)
        while epoch is not None:
            count = stepper.begin(epoch)
            for step in range(count):
                stepper.step(step)
                yield True
            self._images += epoch.picked.numel()
            epoch = next(epochs, None)  # this takes 2 ms, while a GPU still does its steps
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
            end = min(len(self._curve) + 1.0, length)
            if not math.isfinite(loss):
                self._failure = f"the training loss is {loss} after {end:g} epochs"
                return
            images = sum(self._images_of_class)
            self._balanced = {
                "balanced_accuracy": balanced_accuracy(right, self._images_of_class),
                "macro_f1": macro_f1(right, answers, self._images_of_class),
            }
            point = {
                "epoch": end,
                "train_loss": loss / count,
                "validation_loss": validation_loss / images,
                "validation_accuracy": sum(right) / images,
                "seconds": self._seconds,
            }
            self._curve.append(point)
            if end >= max(1.0, length / 2) and self._only_guesses(point):
                return

    def _only_guesses(self, point: dict[str, float]) -> bool:
        """Whether the network was no better than guessing, during a whole epoch and at its end."""
        images = sum(self._images_of_class)
        share = max(self._images_of_class) / images
        by_chance = share + 2 * math.sqrt(share * (1 - share) / images)
        loss = min(point["train_loss"], point["validation_loss"])
        return loss > math.log(len(self._images_of_class)) and point["validation_accuracy"] < by_chance

    def result(self) -> Trained:
        """The trial and the trained network."""
        network, data = self.stepper.network, self.stepper.data
        if self.stepper.is_reused:
            state = network.state_dict()
            network = build(self.job, data.dataset).to(data.device)
            network.load_state_dict(state)
        network.use_keys(None)
        network.eval()
        curve = tuple(self._curve)
        if self._failure:
            return replace(Trial.failed(self.job, "not_finite", self._failure), curve=curve), network
        return Trial(self.job, self._metrics(), curve), network

    def _metrics(self) -> dict[str, float]:
        dataset = self.stepper.data.dataset
        rows = self.job.candidate.architecture.table(dataset.input_shape, len(dataset.classes))
        last = self._curve[-1]
        return {
            "validation_accuracy": last["validation_accuracy"],
            **self._balanced,
            "validation_loss": last["validation_loss"],
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
    return Network(job.candidate.architecture, shape, classes, mean=dataset.mean, std=dataset.std)


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
