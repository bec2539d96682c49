"""Copies of a network side by side are what each would be alone: every layer, and the whole recipe."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from conftest import job

from nas.architecture.architecture import Architecture
from nas.architecture.layers import (
    ACTIVATIONS,
    LAYERS,
    Activation,
    AveragePool,
    BatchNorm,
    Cell,
    Conv2d,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePool,
    Layer,
    MaxPool,
    Pretrained,
    ResidualBlock,
    SeparableConv2d,
)
from nas.data.dataset import Dataset
from nas.training import noise
from nas.training.batches import Epochs, Resident
from nas.training.network import Network, joined, measured, separated
from nas.training.recipe import RECIPES, Recipe
from nas.training.stepper import Stepper
from nas.training.trainer import network_of, train_copies

SHAPE = (2, 12, 12)
CELL = Cell(("nor_conv_3x3", "avg_pool_3x3", "nor_conv_1x1", "skip_connect", "none", "nor_conv_3x3"))
CASES: list[tuple[Layer, ...]] = [
    *((Conv2d(4, 3, activation=name), Dense(6, name)) for name in ACTIVATIONS),
    *((Activation(name),) for name in ACTIVATIONS if name not in ("linear", "maxout")),
    (Conv2d(4, 3, 2, "same", "relu", batch_norm=True), MaxPool(2)),
    (SeparableConv2d(4, 3, 1, "valid", "silu"),),
    (SeparableConv2d(3, 5, 1, "same", "maxout", batch_norm=True),),
    (ResidualBlock(2, 3, activation="elu"), ResidualBlock(4, 3, 2)),
    (CELL, MaxPool(3)),
    (AveragePool(2), BatchNorm(), GlobalAveragePool(), Dense(6, "relu"), BatchNorm()),
    (Conv2d(4, 3), Dropout(0.3), Flatten(), Dropout(0.5), Dense(6, "tanh"), Dropout(0.25)),
    (Pretrained("shufflenet_v2_x0_5", weights=False),),
]


@pytest.fixture(autouse=True)
def precise() -> Iterator[None]:
    """Everything in float64, so that what differs is a mistake and no rounding."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def architecture(layers: tuple[Layer, ...]) -> Architecture:
    """The layers, with what makes a map a vector before the first that needs one."""
    is_vector = False
    whole: list[Layer] = []
    for layer in layers:
        if isinstance(layer, Dense) and not is_vector:
            whole.append(Flatten())
        is_vector = is_vector or isinstance(layer, Dense | Flatten | GlobalAveragePool | Pretrained)
        whole.append(layer)
    return Architecture((*whole, *[Flatten()] * (not is_vector)))


def test_every_layer_of_the_vocabulary_is_here() -> None:
    assert {type(layer) for layers in CASES for layer in layers} == set(LAYERS.values())


@pytest.mark.parametrize("copies", [1, 2, 5])
@pytest.mark.parametrize("layers", CASES, ids=lambda layers: " ".join(str(layer) for layer in layers))
def test_copies_give_what_each_gives_alone(layers: tuple[Layer, ...], copies: int) -> None:
    """In values, gradients, running statistics and in evaluation."""
    torch.manual_seed(0)
    net = architecture(layers)
    alone = [Network(net, SHAPE, 3, mean=[30.0, 90.0], std=[60.0, 70.0]) for _ in range(copies)]
    whole = Network(net, SHAPE, 3, mean=[30.0, 90.0], std=[60.0, 70.0], copies=copies)
    whole.load_state_dict(joined([one.state_dict() for one in alone]))
    images = torch.randint(0, 256, (6, copies, *SHAPE), dtype=torch.uint8)
    keys = torch.randint(-(2**62), 2**62, (len(whole.dropouts), copies))
    weights = torch.randn(6, 3)

    whole.use_keys(keys)
    together = whole(images.flatten(1, 2))
    (together.view(6, copies, 3) * weights[:, None]).sum().backward()
    for copy, one in enumerate(alone):
        one.use_keys(keys[:, copy : copy + 1])
        logits = one(images[:, copy])
        (logits * weights).sum().backward()
        assert _close(together.view(6, copies, 3)[:, copy], logits)
    gradients = separated({name: _grad(p) for name, p in whole.named_parameters()}, copies)
    for one, gradient, state in zip(alone, gradients, separated(whole.state_dict(), copies), strict=True):
        assert gradient.keys() == dict(one.named_parameters()).keys()
        assert all(_close(gradient[name], _grad(p)) for name, p in one.named_parameters())
        assert all(_close(state[name], tensor) for name, tensor in one.state_dict().items())
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    right, losses = measured(whole, images[:, 0], labels, batch=4)
    for copy, one in enumerate(alone):
        right_alone, loss_alone = measured(one, images[:, 0], labels, batch=4)
        assert torch.equal(right[:, copy], right_alone[:, 0])
        assert _close(losses[copy], loss_alone[0])


NET = Architecture(
    (
        Conv2d(3, 3, activation="maxout"), MaxPool(2), BatchNorm(), ResidualBlock(4, 3), Dropout(0.2),
        SeparableConv2d(4, 3, padding="same", activation="silu", batch_norm=True), Flatten(), Dropout(0.5),
        Dense(5),
    )
)  # fmt: skip


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("copies", [1, 2, 5])
def test_the_whole_recipe_gives_what_it_gives_alone(blobs: Dataset, copies: int, recipe: str) -> None:
    """Weights, order of the images, shifts, dropout, schedule, optimiser, validation; two epochs and a part."""
    data, how = Resident(blobs, "cpu"), replace(RECIPES[recipe], batch_size=16)
    jobs = [job(NET, 2.5, seed) for seed in range(copies)]
    together = train_copies(jobs, data, how)
    for one, (trial, network) in zip(jobs, together, strict=True):
        [(alone, network_alone)] = train_copies([one], data, how)
        assert trial.job is one
        assert len(trial.curve) == len(alone.curve) == 3
        for point, point_alone in zip(trial.curve, alone.curve, strict=True):
            assert _without_times(point) == pytest.approx(_without_times(point_alone), rel=1e-9, abs=1e-9)
        states = zip(network.state_dict().values(), network_alone.state_dict().values(), strict=True)
        assert all(_close(tensor, tensor_alone) for tensor, tensor_alone in states)
    losses = {trial.metrics["validation_loss"] for trial, _ in together}
    assert len(losses) == copies  # they are different trainings


def test_a_copy_that_diverges_does_not_touch_its_neighbours(blobs: Dataset) -> None:
    data, recipe = Resident(blobs, "cpu"), Recipe(batch_size=16)
    jobs = [job(NET, 1, seed) for seed in range(3)]
    torch.manual_seed(0)
    network = network_of(jobs, blobs)
    with torch.no_grad():
        next(network.parameters()).chunk(3)[1].fill_(math.nan)
    stepper = Stepper(network, data, recipe)
    epoch = Epochs([0, 1, 2], 1, len(data.labels), len(network.dropouts), recipe).draw(0)
    for step in range(stepper.begin(epoch)):
        stepper.step(step)
    stepper.validate()
    [first, bad, last] = stepper.read()
    [(alone, _)] = train_copies(jobs[2:], data, recipe)
    assert math.isnan(bad[0])
    assert math.isfinite(first[0])
    assert last[0] / len(epoch) == pytest.approx(alone.curve[0]["train_loss"], rel=1e-9)


def test_masks_keep_the_share_that_they_say_and_differ_everywhere() -> None:
    keys = noise.keys(torch.tensor([1, 2, 3]), torch.arange(4)).flatten()
    assert len(set(keys.tolist())) == 12
    for rate in (0.0, 0.1, 0.5, 0.9):
        kept, share = noise.kept(keys, 100_001, rate)
        assert share == pytest.approx(1 - rate, abs=1e-4)
        # Each mean has a standard deviation of at most 0.0016.
        assert kept.double().mean(1).tolist() == pytest.approx([1 - rate] * 12, abs=0.008)
    kept, _ = noise.kept(keys, 100_000, 0.5)
    signs = kept.double() * 2 - 1
    assert (signs @ signs.T / 100_000 - torch.eye(12)).abs().max() < 0.016  # five standard deviations
    for lag in (1, 2, 3, 4, 5, 64):  # within a mask
        assert (signs[:, lag:] * signs[:, :-lag]).mean(1).abs().max() < 0.016
    again, _ = noise.kept(keys[3:4], 1000, 0.5)
    assert torch.equal(again[0], kept[3, :1000])


def test_a_network_that_somebody_trains_elsewhere_has_pytorch_s_dropout(blobs: Dataset) -> None:
    [(_, network)] = train_copies([job(NET, 0.1)], Resident(blobs, "cpu"), Recipe(batch_size=16))
    network.train()
    images = torch.full((4, *blobs.input_shape), 100, dtype=torch.uint8)
    assert not torch.equal(network(images), network(images))


def _grad(parameter: torch.Tensor) -> torch.Tensor:
    assert parameter.grad is not None
    return parameter.grad


def _close(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.allclose(one, other.to(one.dtype), rtol=1e-9, atol=1e-9)


def _without_times(point: object) -> dict[str, float]:
    assert isinstance(point, dict)
    return {name: value for name, value in point.items() if name != "seconds"}
