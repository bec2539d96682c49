"""Networks, trainings and searches of series and of texts: lengths, folds, changes of series, every step."""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from command import nas, results
from conftest import job

from nas import plugins
from nas.architecture.architecture import Architecture, Limits
from nas.architecture.known import NETWORKS, SERIES, TEXTS, fitting
from nas.architecture.layers import (
    GRU,
    BatchNorm,
    Conv1d,
    Embedding,
    Flatten,
    GlobalAveragePool,
    MaxPool,
    TakeLast,
)
from nas.data.dataset import Dataset, Split
from nas.run.resolve import SPACES
from nas.spaces.sequence import Sequence
from nas.spaces.space import SearchSpace
from nas.spaces.transformer import Transformer
from nas.training.batches import Resident
from nas.training.network import Network, answers_and_loss
from nas.training.recipe import Recipe, recipe_of
from nas.training.stepper import changed
from nas.training.trainer import train, train_folds

STEPS = 29


def waves(count: int, seed: int = 0, *, shortest: int = STEPS) -> Split:
    """Series of three classes, which differ in their frequency; channels 2, steps from ``shortest`` to 29."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    time = np.arange(STEPS) / STEPS
    phase = random.uniform(0, 6, (count, 1))
    wave = np.sin(2 * np.pi * (1 + 2 * labels[:, None]) * time + phase)
    series = np.stack([5 + wave, random.normal(0, 1, (count, STEPS))], 1).astype(np.float32)
    for one, length in zip(series, random.integers(shortest, STEPS + 1, count), strict=True):
        one[:, length:] = np.nan
    return Split.of(series, labels)


def few(*, shortest: int = STEPS) -> Dataset:
    """Thirty series for the training and six for the validation, in four folds."""
    train, validation = waves(27, 1, shortest=shortest), waves(9, 2, shortest=shortest)
    folds = [1 + (number // 3) % 3 for number in range(27)] + [0] * 9
    return Dataset.of(
        "waves", train, validation, ("slow", "middle", "fast"), is_padded=shortest < STEPS, folds=folds
    )


@pytest.fixture(params=["sequence", "transformer"])
def space(request: pytest.FixtureRequest) -> SearchSpace:
    made = Sequence() if request.param == "sequence" else Transformer()
    return made.within(Limits((2, STEPS), 3))


def test_what_follows_a_series_changes_nothing(space: SearchSpace) -> None:
    long = torch.randn(1, 2, STEPS)
    for seed in range(25):
        architecture = space.sample(Random(seed)).architecture
        network = Network(architecture, (2, STEPS), 3, mean=[0.5, 1.0], std=[2.0, 1.0], is_padded=True).eval()
        short = torch.randn(1, 2, 7 + seed % 15)
        padded = torch.full((1, 2, STEPS), torch.nan)
        padded[:, :, : short.shape[2]] = short
        with torch.no_grad():
            alone = network(short)
            among = network(torch.cat([long, padded, long]))[1:2]
        assert torch.allclose(alone, among, atol=1e-5), architecture
        assert alone.isfinite().all()


def test_whole_series_are_answered_as_by_a_network_without_lengths(space: SearchSpace) -> None:
    series = torch.randn(4, 2, STEPS)
    for seed in range(10):
        architecture = space.sample(Random(seed)).architecture
        plain = Network(architecture, (2, STEPS), 3, mean=[0.0, 0.0], std=[1.0, 1.0]).eval()
        masked = Network(architecture, (2, STEPS), 3, mean=[0.0, 0.0], std=[1.0, 1.0], is_padded=True).eval()
        masked.load_state_dict(plain.state_dict())
        with torch.no_grad():
            assert torch.allclose(plain(series), masked(series), atol=1e-5)


def test_the_statistics_of_a_training_are_those_of_the_steps_that_there_are() -> None:
    architecture = Architecture((BatchNorm(), GlobalAveragePool()))
    networks = [Network(architecture, (1, steps), 2, mean=[0.0], std=[1.0], is_padded=True) for steps in (4, 40)]
    series = torch.randn(8, 1, 4)
    networks[0](series)
    networks[1](torch.nn.functional.pad(series, (0, 36), value=torch.nan))
    first, second = (dict(network.named_buffers()) for network in networks)
    for name in (name for name in first if "running" in name):
        assert torch.allclose(first[name], second[name], atol=1e-6), name


def test_series_of_another_scale_are_learned_as_well() -> None:
    tiny = replace(few(), train=Split(few().train.inputs * 1e-5, few().train.labels))
    data = Dataset.of(
        "tiny", tiny.train, Split(few().validation.inputs * 1e-5, few().validation.labels), ("a", "b", "c")
    )
    net = Architecture((Conv1d(8, 9, batch_norm=True, activation="relu"), GlobalAveragePool()))
    trial, _ = train(job(net, 40.0), data, recipe_of({"base": "default", "shift": 0}))
    assert trial.metrics["validation_accuracy"] > 0.8


def test_each_fold_is_validated_by_a_network_that_has_not_seen_it() -> None:
    data = few()
    folds = [data.fold(number) for number in range(data.trainings)]
    assert [len(fold.validation) for fold in folds] == [9, 9, 9, 9]
    every = torch.cat([fold.validation.inputs for fold in folds])
    assert sorted(series.sum().item() for series in every) == sorted(s.sum().item() for s in data.whole.inputs)
    for fold in folds:
        seen = {series.numpy().tobytes() for series in fold.train.inputs}
        assert not seen & {series.numpy().tobytes() for series in fold.validation.inputs}
    # Labels at random can be learned by heart, but not for series that were not seen.
    shuffled = torch.randperm(27, generator=torch.Generator().manual_seed(3))
    chance = replace(data, train=Split(data.train.inputs, data.train.labels[shuffled]))
    net = Architecture((Conv1d(16, 9, batch_norm=True, activation="relu"), Flatten()))
    trial, network = train_folds(job(net, 60.0), Resident(chance, "cpu"), Recipe(shift=0))
    assert network is not None
    answers, _, _ = answers_and_loss(network, chance.whole.inputs, chance.whole.labels)
    assert (answers == chance.whole.labels).float().mean() > 0.95  # the network that is handed over has seen all
    assert trial.metrics["validation_accuracy"] < 0.75


def test_a_trial_of_folds_is_the_mean_of_its_trainings() -> None:
    data, recipe = few(), Recipe(shift=0, batch_size=9)
    net = Architecture((Conv1d(8, 9, batch_norm=True, activation="relu"), GlobalAveragePool()))
    trial, network = train_folds(job(net, 4.0), Resident(data, "cpu"), recipe, whole=False)
    assert network is None
    each = [train(job(net, 4.0), data.fold(number), recipe)[0] for number in range(4)]
    for name in ("validation_accuracy", "validation_loss"):
        assert trial.metrics[name] == pytest.approx(np.mean([one.metrics[name] for one in each]))
        assert trial.curve[-1][name] == pytest.approx(trial.metrics[name])
    assert len(trial.curve) == 4
    assert trial.metrics["train_seconds"] > max(one.metrics["train_seconds"] for one in each) / 4


def test_a_curve_has_at_most_a_hundred_points_of_a_long_training() -> None:
    net = Architecture((Conv1d(2, 9), GlobalAveragePool()))
    trial, _ = train(job(net, 250.0), replace(few(), folds=()), Recipe(shift=0))
    assert [point["epoch"] for point in trial.curve][:2] == [3.0, 6.0]
    assert trial.curve[-1]["epoch"] == 250.0
    assert len(trial.curve) <= 100


def test_changed_series_keep_their_lengths_and_their_likeness() -> None:
    split = waves(60, shortest=10)
    series = split.inputs
    recipe = Recipe(shift=2, window=0.2, warp=0.3, magnitude=0.1, jitter=0.05, erasing=0.1)
    chances, offsets = torch.rand(60, 8), torch.randint(0, 5, (60, 2))
    mean, std = torch.tensor([[5.0], [0.0]]), torch.tensor([[0.7], [1.0]])
    after = changed(series, offsets, chances, recipe, mean, std)
    assert torch.equal(after.isnan(), series.isnan())
    assert not torch.equal(after.nan_to_num(), series.nan_to_num())
    again = changed(series, offsets, chances, recipe, mean, std)
    assert torch.equal(after.nan_to_num(), again.nan_to_num())  # they follow from the numbers that were drawn
    still = changed(
        series, offsets * 0 + 2, chances * 0 + 0.5, Recipe(shift=2, warp=0.3, magnitude=0.1), mean, std
    )
    assert torch.allclose(
        still.nan_to_num(), series.nan_to_num(), atol=1e-4
    )  # chances in the middle change nothing
    noise = changed(torch.zeros(60, 2, STEPS), offsets, torch.rand(60, 8), Recipe(shift=0, jitter=1.0), mean, std)
    assert noise.mean((0, 2)).abs().max() < 0.1
    assert torch.allclose(noise.std((0, 2)), std[:, 0], rtol=0.1)
    window = changed(
        torch.arange(100.0).expand(1, 1, 100), offsets[:1] * 0, torch.ones(1, 8), Recipe(shift=0, window=0.5),
        torch.zeros(1, 1), torch.ones(1, 1),
    )  # fmt: skip
    assert window[0, 0, 0] == pytest.approx(49.5)  # the second half, at twice the resolution
    assert window[0, 0, -1] == pytest.approx(99.0)


def test_a_network_for_a_text_answers_at_every_step_as_at_the_last() -> None:
    space = Transformer().within(Limits((16,), 12))
    tokens = torch.randint(0, 12, (5, 16))
    seen = set()
    for seed in range(25):
        candidate = space.sample(Random(seed))
        network = Network(candidate.architecture, (16,), 12, mean=(), std=()).eval()
        assert network.answers_every_step, candidate.architecture
        with torch.no_grad():
            every = network.every_step(tokens).view(5, 16, 12)
            assert torch.allclose(every[:, -1], network(tokens), atol=1e-5)
            other = tokens.clone()
            other[:, 9:] = (tokens[:, 9:] + 1) % 12
            assert torch.allclose(network.every_step(other).view(5, 16, 12)[:, :9], every[:, :9], atol=1e-5)
        seen.add(candidate.choices["body"])
    assert len(seen) == 3
    looks_ahead = Architecture((Embedding(8, 12), GRU(8, directions=2), TakeLast()))
    assert not Network(looks_ahead, (16,), 12, mean=(), std=()).answers_every_step
    both = Architecture((Embedding(8, 12), MaxPool(2), TakeLast()))
    assert not Network(both, (16,), 12, mean=(), std=()).answers_every_step


def test_known_networks_fit_their_kind_and_are_as_large_as_in_their_papers() -> None:
    assert fitting(Limits((3, 60), 4)) == list(SERIES)
    assert fitting(Limits((60,), 40)) == list(TEXTS)
    for name in SERIES:
        network = Network(NETWORKS[name], (3, 60), 4, mean=[0.0] * 3, std=[1.0] * 3, is_padded=True).eval()
        assert network(torch.randn(2, 3, 60)).shape == (2, 4)
    for name in TEXTS:
        assert Network(NETWORKS[name], (60,), 40, mean=(), std=())(
            torch.zeros(2, 60, dtype=torch.uint8)
        ).shape == (2, 40)
    # One channel and two classes, kernels of 8 steps for 7: dl-4-tsc's FCN has 265,986 parameters.
    assert NETWORKS["fcn"].parameters((1, 100), 2) == 264_322


def test_the_spaces_that_follow_from_the_data_have_the_same_options() -> None:
    """They are checked before the data are read."""
    known = [plugins.find("space", name) for name in SPACES.values()]
    assert len({str(inspect.signature(space.__init__)) for space in known}) == 1


@pytest.mark.parametrize("shape", [(1, 24), (1, 1460), (24, 51), (6, 4096)])
def test_the_space_has_networks_for_series_of_every_length(shape: tuple[int, int]) -> None:
    space = Sequence().within(Limits(shape, 5, max_flops=30_000_000))
    space.check_questions()
    bodies = {space.sample(Random(seed)).choices["body"] for seed in range(30)}
    assert bodies == {"inception", "residual", "convolution", "mixed"}


def write(folder: Path, count: int, name: str) -> None:
    split = waves(count, len(name), shortest=12)
    lines = ["@problemName waves", "@univariate false", "@classLabel true slow middle fast", "@data"]
    names = ("slow", "middle", "fast")
    for series, label in zip(split.inputs.numpy(), split.labels.tolist(), strict=True):
        channels = [",".join(f"{value:.6g}" for value in channel if not np.isnan(value)) for channel in series]
        lines.append(":".join([*channels, names[label]]))
    (folder / f"waves_{name}.ts").write_text("\n".join(lines))


SEARCH = ("search", "--trials", "4", "--epochs", "4", "--mlflow", "off", "--set", "dataset.length=32")


def test_a_search_of_series_finds_the_same_with_one_worker_and_with_two(tmp_path: Path) -> None:
    (tmp_path / "waves").mkdir()
    write(tmp_path / "waves", 45, "TRAIN")
    write(tmp_path / "waves", 30, "TEST")
    words = (*SEARCH, "--dataset", str(tmp_path / "waves"))
    done = nas(*words, "--workers", "2", "--out", "two", cwd=tmp_path)
    assert "45 series" in done.stderr
    nas(*words, "--workers", "1", "--out", "one", cwd=tmp_path)
    two, one = results(tmp_path / "two"), results(tmp_path / "one")
    assert one == two
    assert any(trial["metrics"]["validation_accuracy"] > 0.5 for trial in two["trials"].values())
    best = nas("show", "two", "--json", cwd=tmp_path)
    assert "sequence" in best.stdout
    nas("show", "two", "--report", "page.html", cwd=tmp_path)
    page = (tmp_path / "page.html").read_text()
    assert "The test series by their class" in page
    assert "The validation series by their class" not in page  # the winner has learned from all of them
