"""Muon takes the same steps as PyTorch's, for kernels too, and only hidden layers learn by it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import job

from nas.architecture.architecture import Architecture
from nas.architecture.layers import (
    Add,
    Conv2d,
    Dense,
    Flatten,
    MaxPool,
    Pretrained,
    ResidualBlock,
    SeparableConv2d,
)
from nas.data.dataset import Dataset
from nas.training.muon import Muon, orthogonal
from nas.training.network import Network
from nas.training.recipe import Recipe
from nas.training.stepper import optimisers, set_rate
from nas.training.trainer import train
from nas.training.uncompiled import Adam, AdamW

HIDDEN = Architecture(
    (
        Conv2d(8, 3, padding="same", batch_norm=True),
        ResidualBlock(8),
        SeparableConv2d(12, 3),
        MaxPool(2),
        Flatten(),
        Dense(16),
    )
)


def stepped(optimiser: torch.optim.Optimizer, weights: torch.Tensor, steps: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        weights.grad = torch.randn(weights.shape, generator=generator)
        optimiser.step()
    return weights.detach()


@pytest.mark.parametrize("shape", [(24, 40), (40, 24)])
def test_its_steps_are_those_of_pytorch_s(shape: tuple[int, int]) -> None:
    weights = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    ours, theirs = weights.clone().requires_grad_(), weights.clone().requires_grad_()
    settings: dict[str, Any] = {"lr": 0.02, "momentum": 0.9, "weight_decay": 0.1}
    found = stepped(Muon([ours], **settings), ours)
    expected = stepped(torch.optim.Muon([theirs], **settings, adjust_lr_fn="match_rms_adamw"), theirs)
    moved = (expected - weights).norm()
    assert (found - expected).norm() < 0.05 * moved  # theirs are in bfloat16


def test_a_kernel_is_a_matrix_with_a_row_for_each_filter() -> None:
    matrix = torch.randn(12, 45, generator=torch.Generator().manual_seed(0))
    kernel = matrix.clone().view(12, 5, 3, 3).to(memory_format=torch.channels_last).requires_grad_()
    matrix.requires_grad_()
    one, other = (stepped(Muon([weights]), weights) for weights in (matrix, kernel))
    assert torch.allclose(one, other.flatten(1), atol=1e-5)


@pytest.mark.parametrize("shape", [(10, 10), (10, 90), (90, 10), (1, 7)])
def test_no_direction_is_left_behind(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonal(matrix))
    assert values.min() > 0.5
    assert values.max() < 1.3
    assert not orthogonal(torch.zeros(shape)).any()


def test_hidden_matrices_learn_by_it_and_all_else_by_adamw() -> None:
    network = Network(HIDDEN, (3, 12, 12), 3)
    adamw, muon = optimisers(network, Recipe("muon"))
    names = {id(p): name for name, p in network.named_parameters()}
    by = [[names[id(p)] for group in one.param_groups for p in group["params"]] for one in (adamw, muon)]
    assert sorted(by[0] + by[1]) == sorted(names.values())
    shapes = [tuple(p.shape) for group in muon.param_groups for p in group["params"]]
    assert shapes == [(8, 8, 3, 3), (8, 8, 3, 3), (12, 8, 1, 1), (16, 300)]
    assert all(group["weight_decay"] == 0.01 for group in muon.param_groups)
    set_rate(muon, torch.tensor([0.25], dtype=torch.float64))
    assert [group["lr"] for group in muon.param_groups] == [0.25]


def test_pretrained_weights_and_a_single_layer_never_learn_by_it() -> None:
    for architecture in (Architecture((Flatten(),)), Architecture((Pretrained("resnet18"),))):
        [only] = optimisers(Network(architecture, (3, 32, 32), 3), Recipe("muon"))
        assert isinstance(only, torch.optim.AdamW)


def test_whatever_sees_the_image_is_no_hidden_layer() -> None:
    graph = Architecture(
        (
            MaxPool(2),
            Conv2d(4, 3, padding="same"),
            Conv2d(4, 5, padding="same", inputs=(1,)),  # a second branch from the image
            Add(inputs=(2, 3)),
            Conv2d(6, 3),
            Flatten(),
        )
    )
    for architecture, shapes in (
        (graph, [(6, 4, 3, 3)]),
        (Architecture((ResidualBlock(8), Conv2d(4, 3), Flatten())), [(4, 8, 3, 3)]),
        (Architecture((Flatten(), Dense(9), Dense(8))), [(8, 9)]),
        (Architecture((Pretrained("resnet18", weights=False), Dense(8))), [(8, 512)]),
    ):
        assert [tuple(p.shape) for p in Network(architecture, (3, 32, 32), 3).hidden] == shapes


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_network_learns_by_it(blobs: Dataset, precision: Any) -> None:
    recipe = Recipe("muon", batch_size=16, shift=1, precision=precision)
    architecture = Architecture((Conv2d(4, 3, activation="relu"), MaxPool(2), Conv2d(8, 3), Flatten(), Dense(8)))
    trials = [train(job(architecture, 4), blobs, recipe)[0] for _ in range(2)]
    assert trials[0].metrics["validation_accuracy"] > 0.9
    assert trials[0].metrics["validation_loss"] == trials[1].metrics["validation_loss"]


@pytest.mark.parametrize(("ours", "theirs"), [(Adam, torch.optim.Adam), (AdamW, torch.optim.AdamW)])
def test_the_others_compute_as_those_of_pytorch(ours: Any, theirs: Any) -> None:
    weights = [[torch.nn.Parameter(torch.linspace(-1, 1, 12).view(3, 4))] for _ in range(2)]
    both = [
        kind(own, lr=0.1, weight_decay=0.3, fused=True) for kind, own in zip((ours, theirs), weights, strict=True)
    ]
    for number in range(1, 4):
        for one, [own] in zip(both, weights, strict=True):
            one.zero_grad(set_to_none=True)
            (own.sin() * number).sum().backward()  # type: ignore[no-untyped-call]
            one.step()
    assert torch.equal(*(own for [own] in weights))
    assert not torch.equal(weights[0][0], torch.linspace(-1, 1, 12).view(3, 4))
