"""One step of a training, on any device."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from nas.training import noise, series_augmentation
from nas.training.augmentation import SHARE, augmented
from nas.training.batches import Batch, Epoch, Resident
from nas.training.cores import Cores
from nas.training.muon import Muon
from nas.training.network import Network, measured
from nas.training.recipe import Recipe
from nas.training.uncompiled import Adam, AdamW

LEAST = 8  # images in a part of a batch, whose mean normalises it
MEASURED = (500, 2_000)  # validation images at a time: 500 fit a CPU's caches, 2,000 need fewer calls of a GPU


class Stepper:
    """Trains and measures a network, step by step.

    Args:
        network: the network to train, on the device of the data.
        data: training and validation images.
        recipe: how to train. On a CPU, networks with depthwise convolutions are always trained in float32.
        cores: those of the CPU that compute parts of a batch at the same time, if the recipe has parts.
        capturable: whether the steps are recorded as a CUDA graph, so that none may depend on the CPU.
    """

    is_reused = False  # whether another job is trained in the same network afterwards

    def __init__(
        self,
        network: Network,
        data: Resident,
        recipe: Recipe,
        cores: Cores | None = None,
        *,
        capturable: bool = False,
    ) -> None:
        self.network, self.data, self.recipe = network, data, recipe
        self.loss = network.mean.new_zeros(())  # summed over the steps of an epoch
        self.validation_loss = torch.zeros_like(self.loss)  # summed over the validation images
        # Of each class: the number of validation images that are classified right, and how often it is answered.
        self.counts = self.loss.new_zeros(2, len(data.dataset.classes))
        self._epoch: Epoch | None = None
        self._images: Iterator[Tensor] = iter(())  # of the steps of the epoch
        # On a CPU depthwise convolutions are slower in bfloat16 (0.86 × with kernels of 5×5, mobilenets 0.4 ×).
        is_slower = data.device == "cpu" and network.has_depthwise
        self._is_mixed = recipe.precision == "bfloat16" and not is_slower
        self.optimisers = optimisers(network, recipe, capturable=capturable)
        network.train()
        self.cores = cores or Cores()
        # A layer of a plugin may draw random numbers of PyTorch, which are the same in one order only.
        has_parts = data.device == "cpu" and network.is_built_in
        self._networks = [network, *(_twin(network) for _ in range(1, recipe.parts if has_parts else 1))]

    def begin(self, epoch: Epoch) -> int:
        """Start an epoch, which was drawn on the CPU; returns the number of its steps."""
        self._epoch = epoch.to(self.data.device)
        self._images = self.data.batches(self._epoch.picked)
        self.loss.zero_()
        return len(epoch)

    def step(self, number: int) -> None:
        """Learn from one batch of the epoch."""
        assert self._epoch is not None  # noqa: S101
        self.learn(self._epoch[number], next(self._images))

    def learn(self, batch: Batch, images: Tensor) -> None:
        """Learn from a batch and its images (B, C, H, W): forward, backward, and a step of the optimiser."""
        for one in self.optimisers:
            set_rate(one, batch.rate)
            one.zero_grad(set_to_none=True)
        if len(self._networks) == 1:
            self.loss += self._gradients(self.network, batch, images)
        else:
            parts = _parts(batch, images, self._networks)
            for loss in self.cores.each(lambda part: self._gradients(*part), parts):
                self.loss += loss
            _gather(self._networks)
        for one in self.optimisers:
            one.step()

    def _gradients(self, network: Network, batch: Batch, images: Tensor, share: float = 1.0) -> Tensor:
        """Give a network the gradients of the mean loss of images, times ``share``, and return that."""
        chances = batch.chances
        images = changed(images, batch.offsets, chances, self.recipe, network.mean, network.std)
        labels = self.data.labels[batch.picked]
        network.use_keys(batch.keys)
        with torch.autocast(torch.device(self.data.device).type, dtype=torch.bfloat16, enabled=self._is_mixed):
            if network.answers_every_step:
                logits, labels = network.every_step(images), _following(images, labels)
            else:
                logits = network(images)
        logits = logits.to(self.loss.dtype)  # in bfloat16 the loss would have two digits
        losses = self._losses(logits, labels)
        # The loss of a mixture is the mixture of both losses (Zhang et al., mixup, 2018); tokens cannot be mixed.
        if self.recipe.mixup and images.ndim > 2:
            own = chances[:, SHARE]
            losses = own * losses + (1 - own) * self._losses(logits, labels.roll(1))
        loss = losses.mean() if share == 1.0 else share * losses.mean()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of each image, (N,)."""
        smoothing = self.recipe.label_smoothing
        losses = functional.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="none")
        return losses * self.data.class_weights[labels] if self.recipe.class_weights == "balanced" else losses

    def validate(self, *, is_last: bool = True) -> None:
        """Measure on the validation images, in float32 (on a GPU that trains in bfloat16, in TF32).

        On a CPU that trains in bfloat16 only the last measurement of a training, the one that counts, is in
        float32: networks for CIFAR-10 classify 950 images a second so, otherwise 4,000, and spent a tenth of their
        time on it.
        """
        images, labels = self.data.validation
        is_rough = self._is_mixed and self.data.device == "cpu" and not is_last
        _average(self._networks)

        def each(work: Callable[[Any], Any], parts: Sequence[Any]) -> list[Any]:
            def roughly(part: Any) -> Any:
                with torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_rough):
                    return work(part)

            return self.cores.each(roughly, parts, len(self._networks))

        answers, loss = measured(self.network, images, labels, MEASURED[self.data.device != "cpu"], each)
        right = (answers == labels).to(self.counts.dtype)
        self.counts.zero_()  # whole numbers, so that the order in which a GPU adds them does not matter
        self.counts[0].scatter_add_(0, labels, right)
        self.counts[1].scatter_add_(0, answers, torch.ones_like(right))
        self.validation_loss.copy_(loss)

    def results(self) -> Tensor:
        """The results that `read` returns, (2 + 2 · classes,), on the device."""
        return torch.cat([self.loss[None], self.validation_loss[None], self.counts.flatten()])

    def is_done(self) -> bool:
        """Whether `read` returns without waiting. This class does not know, so that `read` may wait."""
        return True

    def read(self) -> list[float]:
        """The summed training loss, the summed validation loss, and ``counts``, row by row.

        This is the only time in an epoch when the CPU waits for the device.
        """
        results: list[float] = self.results().tolist()
        return results


def _following(tokens: Tensor, labels: Tensor) -> Tensor:
    """The tokens that follow those of windows (N, T), (N · T,) int64: the last one is the label (N,)."""
    return torch.cat([tokens[:, 1:].long(), labels[:, None]], 1).flatten()


def changed(inputs: Tensor, offsets: Tensor, chances: Tensor, recipe: Recipe, mean: Tensor, std: Tensor) -> Tensor:
    """Training inputs, changed at random as the recipe says for their kind; tokens stay as they are."""
    if inputs.ndim == 4:
        return augmented(inputs, offsets, chances, recipe, mean)
    if inputs.ndim == 3:
        return series_augmentation.augmented(inputs, offsets, chances, recipe, mean, std)
    return inputs


def _twin(network: Network) -> Network:
    """A copy of a network that shares its weights, but not their gradients."""
    twin = copy.deepcopy(network)
    for own, shared in zip(twin.parameters(), network.parameters(), strict=True):
        own.data = shared.data
    return twin


def _parts(
    batch: Batch, images: Tensor, networks: Sequence[Network]
) -> list[tuple[Network, Batch, Tensor, float]]:
    """A part of a batch for each network, its images, and its share of all images; of few images, fewer parts."""
    count = max(1, min(len(networks), len(images) // LEAST))
    whole = (batch.picked, batch.offsets, batch.chances, images)
    pieces = zip(*(one.tensor_split(count) for one in whole), strict=True)
    found = []
    for number, (network, (picked, offsets, chances, some)) in enumerate(zip(networks, pieces, strict=False)):
        keys = noise.mixed(-batch.keys - number) if number else batch.keys
        part = replace(batch, picked=picked, offsets=offsets, chances=chances, keys=keys)
        found.append((network, part, some, len(some) / len(images)))
    return found


def _gather(networks: Sequence[Network]) -> None:
    """Add the gradients of the other networks to those of the first one, and remove them."""
    for first, *others in zip(*(network.parameters() for network in networks), strict=True):
        for other in others:
            if other.grad is not None:
                first.grad = other.grad if first.grad is None else first.grad.add_(other.grad)
                other.grad = None


def _average(networks: Sequence[Network]) -> None:
    """Give all networks the mean of what their batch normalisations have seen."""
    for every in zip(*(network.named_buffers() for network in networks), strict=True):
        buffers = [buffer for _, buffer in every]
        if len(networks) > 1 and every[0][0].rpartition(".")[2] in ("running_mean", "running_var"):
            mean = torch.stack(buffers).mean(0)
            for buffer in buffers:
                buffer.copy_(mean)


def optimisers(network: Network, recipe: Recipe, *, capturable: bool = False) -> list[torch.optim.Optimizer]:
    """The recipe's optimiser, or two: with Muon, what is no matrix of a hidden layer learns by AdamW.

    Only weights decay, not biases and normalisation; pretrained parts learn slower.
    """
    tuned = {id(p) for backbone in network.fine_tuned for p in backbone.parameters()}
    parameters = [p for p in network.parameters() if p.requires_grad]
    hidden = {id(p) for p in network.hidden} if recipe.optimiser == "muon" else set()

    def groups(chosen: Sequence[Tensor]) -> list[dict[str, Any]]:
        every = [
            {
                "params": [p for p in chosen if (id(p) in tuned, p.ndim > 1) == (pretrained, decays)],
                "weight_decay": recipe.weight_decay if decays else 0.0,
                "scale": recipe.fine_tuning if pretrained else 1.0,
            }
            for pretrained, decays in itertools.product((False, True), (True, False))
        ]
        found = [group for group in every if group["params"]]
        for group in found if capturable else ():  # a graph would keep a plain number for ever
            group["lr"] = torch.zeros((), device=network.mean.device)
        return found

    kind = Adam if recipe.optimiser == "adam" else AdamW
    others = groups([p for p in parameters if id(p) not in hidden])
    every: list[torch.optim.Optimizer] = [kind(others, lr=recipe.learning_rate, fused=True, capturable=capturable)]
    if matrices := [p for p in parameters if id(p) in hidden]:
        every.append(Muon(groups(matrices), lr=recipe.learning_rate))
    return every


def set_rate(optimiser: torch.optim.Optimizer, rate: Tensor) -> None:
    """Set the learning rate (1,) of every group of parameters."""
    for group in optimiser.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].copy_(rate[0] * group["scale"])
        else:
            group["lr"] = rate.item() * group["scale"]
