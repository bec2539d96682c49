"""One step of a training, on whatever device: everything that it touches, and what it does."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor
from torch.nn import functional

from nas.training.batches import Batch, Epoch, Resident, shifted
from nas.training.network import Network, measured
from nas.training.recipe import Recipe

MEASURED = (500, 2_000)  # validation images at a time on a CPU, for its caches, and on a GPU, for fewer calls


class Stepper:
    """Trains and measures one network, which may be several copies side by side.

    Args:
        network: on the device of the data.
        data: what it learns from.
        recipe: how. On a CPU networks with depthwise convolutions stay in float32, where most are faster.
        capturable: whether nothing in a step may depend on the CPU, as a CUDA graph needs it.
    """

    is_reused = False
    latency: float | None = None

    def __init__(self, network: Network, data: Resident, recipe: Recipe, *, capturable: bool = False) -> None:
        self.network, self.data, self.recipe = network, data, recipe
        self.optimiser = optimiser(network, recipe, capturable=capturable)
        self.losses = network.mean.new_zeros(network.copies)  # summed over the steps of an epoch
        self.right = torch.zeros_like(self.losses)  # how many validation images, and their summed loss
        self.validation_losses = torch.zeros_like(self.losses)
        self._epoch: Epoch | None = None
        # On a CPU depthwise convolutions are slower in bfloat16 (0.86 × with kernels of 5×5, mobilenets 0.4 ×).
        is_slower = data.device == "cpu" and network.has_depthwise
        self._is_mixed = recipe.precision == "bfloat16" and not is_slower
        network.train()

    def begin(self, epoch: Epoch) -> int:
        """Take over the batches of an epoch, drawn on the CPU; the number of its steps."""
        self._epoch = epoch.to(self.data.device)
        self.losses.zero_()
        return len(epoch)

    def step(self, number: int) -> None:
        """Learn from one batch of the epoch."""
        assert self._epoch is not None  # noqa: S101
        self.learn(self._epoch[number])

    def learn(self, batch: Batch) -> None:
        """Learn from a batch. The copies do not touch one another: each has its own summand of the loss."""
        copies = self.network.copies
        images = shifted(self.data.images[batch.picked.flatten()], batch.offsets.flatten(0, 1), self.recipe.shift)
        images = images.view(len(batch.picked), -1, *images.shape[2:])  # (B, copies · C, H, W)
        labels = self.data.labels[batch.picked].flatten()
        self.network.use_keys(batch.keys)
        with self._precision():
            logits = torch.unflatten(self.network(images), 1, (copies, -1)).flatten(0, 1)  # (B · copies, classes)
        smoothing = self.recipe.label_smoothing
        logits = logits.to(self.losses.dtype)  # a loss in bfloat16 has two digits
        losses = functional.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="none")
        each = losses.view(-1, copies).mean(0)
        set_rate(self.optimiser, batch.rate)
        self.optimiser.zero_grad(set_to_none=True)
        each.sum().backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        self.losses += each.detach()

    def validate(self) -> None:
        """Measure on the validation images, in float32, as the network is handed over; nothing is read back.

        On a GPU that trains in bfloat16 the products are in TF32.
        """
        right, losses = measured(self.network, *self.data.validation, MEASURED[self.data.device != "cpu"])
        self.right.copy_(right.sum(0))
        self.validation_losses.copy_(losses)

    def is_done(self) -> bool:
        """Whether what was enqueued has been computed; where nobody can ask, `read` waits."""
        return True

    def read(self) -> list[list[float]]:
        """For each copy: the epoch's summed loss, validation images classified right, their summed loss.

        The one time in an epoch when the device is waited for.
        """
        read: list[list[float]] = torch.stack([self.losses, self.right, self.validation_losses], 1).tolist()
        return read

    def _precision(self) -> contextlib.AbstractContextManager[object]:
        if self._is_mixed:
            return torch.autocast(torch.device(self.data.device).type, dtype=torch.bfloat16)
        return contextlib.nullcontext()


def optimiser(network: Network, recipe: Recipe, *, capturable: bool = False) -> torch.optim.Optimizer:
    """Weights decay, biases and normalisation do not; what is pretrained learns slower, or not at all."""
    tuned = {id(p) for backbone in network.fine_tuned for p in backbone.parameters()}
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
    groups = [group for group in groups if group["params"]]
    for group in groups if capturable else ():  # a number would be captured as it is
        group["lr"] = torch.zeros((), device=network.mean.device)
    kind = torch.optim.AdamW if recipe.optimiser == "adamw" else torch.optim.Adam
    return kind(groups, lr=recipe.learning_rate, fused=True, capturable=capturable)


def set_rate(of: torch.optim.Optimizer, rate: Tensor) -> None:
    """Set the learning rate (1,) of every group of parameters."""
    for group in of.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].copy_(rate[0] * group["scale"])
        else:
            group["lr"] = rate.item() * group["scale"]
