"""The only training loop: one job on one device.

The images stay on the device as uint8; batches are gathered, shifted and normalised there; nothing is read
back inside an epoch. On a CPU with one thread the same job gives the same bits.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from nas.architecture.layers import Pretrained
from nas.training.backbone import Backbone, imagenet
from nas.training.network import Network, accuracy_and_loss
from nas.training.recipe import Recipe
from nas.trial import Job, Trial

if TYPE_CHECKING:
    from nas.data.dataset import Dataset, Split

Point = dict[str, float]  # one entry of a curve


def train(
    job: Job,
    dataset: Dataset,
    recipe: Recipe,
    device: str = "cpu",
) -> tuple[Trial, Network]:
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
    with torch.random.fork_rng(devices=[device] if device.startswith("cuda") else []):
        torch.manual_seed(job.seed)
        network = _network(job, dataset).to(device)
        curve: list[Point] = []
        start = time.perf_counter()
        validation = dataset.validation.images.to(device), dataset.validation.labels.to(device)
        validating = 0.0
        images = 0
        for epoch, seen, loss in _epochs(network, job, dataset.train, recipe, device):
            images += seen
            before = time.perf_counter()
            accuracy, validation_loss = accuracy_and_loss(network, *validation)
            now = time.perf_counter()
            validating += now - before
            point = {
                "epoch": epoch,
                "train_loss": loss,
                "validation_loss": validation_loss,
                "validation_accuracy": accuracy,
                "seconds": now - start,
            }
            curve.append(point)
            if not math.isfinite(loss):
                message = f"the training loss is {loss} after {epoch:g} epochs"
                return replace(Trial.failed(job, "not_finite", message), curve=tuple(curve[:-1])), network
    network.eval()
    seconds = time.perf_counter() - start
    rows = job.candidate.architecture.table(dataset.input_shape, len(dataset.classes))
    metrics = {
        "validation_accuracy": curve[-1]["validation_accuracy"],
        "validation_loss": curve[-1]["validation_loss"],
        "parameters": float(sum(row.parameters for row in rows)),
        "flops": float(sum(row.flops for row in rows)),
        "train_seconds": seconds,
        "images_per_second": images / max(seconds - validating, 1e-9),
        "latency_ms": latency_ms(network, dataset.validation.images[:1].to(device)),
    }
    return Trial(job, metrics, tuple(curve)), network


def _network(job: Job, dataset: Dataset) -> Network:
    """The network before its training, with pretrained weights where its architecture says so."""
    architecture = job.candidate.architecture
    pretrained = [layer for layer in architecture.layers if isinstance(layer, Pretrained) and layer.weights]
    weights = [imagenet(layer.model) for layer in pretrained]  # first, because they may be absent
    network = Network(
        architecture,
        dataset.input_shape,
        len(dataset.classes),
        mean=dataset.mean,
        std=dataset.std,
    )
    for backbone, state in zip(_pretrained(network), weights, strict=True):
        backbone.adopt(state)
    return network


def _pretrained(network: Network) -> list[Backbone]:
    return [part for part in network.modules() if isinstance(part, Backbone) and part.pretrained]


def _epochs(
    network: Network, job: Job, split: Split, recipe: Recipe, device: str
) -> Iterator[tuple[float, int, float]]:
    """Train, and stop after every epoch to tell (epochs done, images seen in this one, mean training loss)."""
    images, labels = split.images.to(device), split.labels.to(device)
    batch_size = min(recipe.batch_size, len(labels))
    plan = _plan(job.epochs, len(labels), batch_size)
    total, done = sum(plan), 0
    optimiser = _optimiser(network, recipe)
    order = torch.Generator().manual_seed(job.seed)
    network.train()
    for epoch, steps in enumerate(plan, 1):
        shuffled = torch.randperm(len(labels), generator=order).to(device)
        losses = torch.zeros((), device=device)
        for picked in torch.split(shuffled[: steps * batch_size], batch_size):
            for group in optimiser.param_groups:
                group["lr"] = group["scale"] * recipe.rate(done / total)
            batch = shifted(images[picked], recipe.shift)
            loss = functional.cross_entropy(network(batch), labels[picked], label_smoothing=recipe.label_smoothing)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            losses += loss.detach()
            done += 1
        yield min(float(epoch), job.epochs), steps * batch_size, losses.item() / steps


def _plan(epochs: float, images: int, batch_size: int) -> list[int]:
    """How many batches each epoch has; the last one is cut short where ``epochs`` is not whole.

    A remainder of images that fills no batch is left out of its epoch; each epoch leaves out others.
    """
    whole, rest = divmod(epochs, 1)
    plan = [images // batch_size] * int(whole)
    if rest > 1e-9 or not plan:
        plan.append(min(max(1, round(rest * images / batch_size)), images // batch_size))
    return plan


def _optimiser(network: Network, recipe: Recipe) -> torch.optim.Optimizer:
    """Weights decay, biases and normalisation do not; what is pretrained learns slower, or not at all."""
    tuned = {id(p) for backbone in _pretrained(network) for p in backbone.parameters()}
    groups = [
        {
            "params": [
                p
                for p in network.parameters()
                if p.requires_grad and (id(p) in tuned) == pretrained and (p.ndim > 1) == decays
            ],
            "weight_decay": recipe.weight_decay if decays else 0.0,
            "scale": recipe.fine_tuning if pretrained else 1.0,
        }
        for pretrained in (False, True)
        for decays in (True, False)
    ]
    kind = torch.optim.AdamW if recipe.optimiser == "adamw" else torch.optim.Adam
    return kind([group for group in groups if group["params"]], lr=recipe.learning_rate, fused=True)


def shifted(images: Tensor, pixels: int) -> Tensor:
    """Each image (N, C, H, W) moved by up to ``pixels`` up or down and left or right; black moves in."""
    if pixels == 0:
        return images
    height, width = images.shape[2:]
    padded = functional.pad(images, (pixels,) * 4)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # (N, C, 2·pixels + 1, 2·pixels + 1, H, W), a view
    down, right = torch.randint(0, 2 * pixels + 1, (2, len(images)), device=images.device)
    return windows[torch.arange(len(images), device=images.device), :, down, right]


def latency_ms(network: Network, image: Tensor, repeats: int = 20) -> float:
    """Milliseconds for one image (1, C, H, W): the median of ``repeats``, after as many to warm up."""
    times = []
    with torch.inference_mode():
        for _ in range(2 * repeats):
            start = time.perf_counter()
            network(image).sum().item()  # reading the result is what waits for a GPU
            times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times[repeats:])
