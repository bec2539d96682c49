"""The networks of torchvision: their table, their weights from a local file, and what happens without one."""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from conftest import job
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import get_model, get_model_weights, list_models

from nas.architecture.architecture import Architecture, Limits
from nas.architecture.backbones import BACKBONES, FAMILIES, TORCHVISION
from nas.architecture.layers import Pretrained, Shape
from nas.architecture.modules import Backbone
from nas.data import open_source
from nas.data.dataset import Dataset
from nas.errors import DataError
from nas.evaluation.local.worker import Task, safely, train_jobs
from nas.spaces.cnn import Cnn
from nas.strategies.reference import Reference
from nas.training import backbone as module
from nas.training.backbone import adopt, imagenet
from nas.training.network import Network
from nas.training.recipe import Recipe
from nas.training.stepper import optimisers
from nas.training.trainer import train
from nas.trial import Trial
from nas.winner.best import write_best

SMALL = "shufflenet_v2_x0_5"  # 0.34 million weights
FILE = "shufflenetv2_x0.5-f707e7126e.pth"
GREY: Shape = (1, 8, 8)
RECIPE = Recipe(batch_size=32, shift=0)


def network_of(layer: Pretrained, shape: Shape = GREY) -> Network:
    return Network(Architecture((layer,)), shape, 3)


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    """What stands in for the weights from ImageNet: random ones, of the whole model with its 1,000 classes."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        weights: dict[str, torch.Tensor] = get_model(SMALL).state_dict()
    return weights


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """As in a worker."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of torchvision's, on a machine without a network."""

    def nobody(*_: object) -> Iterator[bytes]:
        raise URLError("no network")

    monkeypatch.setattr(module, "stream", nobody)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def cached(cache: Path, state: dict[str, torch.Tensor]) -> Path:
    torch.save(state, cache / FILE)
    return cache


def body_of(network: Network) -> dict[str, torch.Tensor]:
    [backbone] = network.backbones
    return backbone.body.state_dict()


def worked(layer: Pretrained, dataset: Dataset, weights: str = "") -> Trial:
    """The trial that a worker answers with."""
    [trial] = safely(train_jobs, [job(Architecture((layer,)))], dataset, Task("", RECIPE, "cpu", weights))
    return trial


def test_every_classification_model_is_known_and_its_file_can_be_verified() -> None:
    models = set(list_models(module=torchvision.models))
    assert set(BACKBONES) <= models
    assert set(BACKBONES) == models or not torchvision.__version__.startswith(TORCHVISION)
    for model, facts in BACKBONES.items():
        assert re.search(r"-[0-9a-f]{8,}\.pth$", get_model_weights(model).DEFAULT.url)
        assert facts.size >= 28
    assert set(FAMILIES.values()) <= set(BACKBONES)


@pytest.mark.parametrize(
    ("model", "channels"),
    [
        ("alexnet", 1),
        ("convnext_tiny", 1),
        ("densenet121", 1),
        ("efficientnet_b0", 4),
        ("googlenet", 1),
        ("inception_v3", 2),
        ("mnasnet0_5", 1),
        ("mobilenet_v3_small", 1),
        ("resnet18", 3),
        ("squeezenet1_1", 1),
        ("swin_t", 1),
        ("vgg11", 1),
        ("vit_b_32", 1),
    ],
)
def test_parameters_and_operations_are_those_of_torchvision(model: str, channels: int) -> None:
    layer, shape = Pretrained(model), (channels, 28, 28)
    with torch.device("meta"):
        network = network_of(layer, shape).eval()
        images = torch.empty(2, *shape)
    with FlopCounterMode(display=False) as counter:
        assert network(images).shape == (2, 3)
    rows = Architecture((layer,)).table(shape, 3)
    assert sum(p.numel() for p in network.parameters()) == sum(row.parameters for row in rows)
    assert counter.get_total_flops() == 2 * sum(row.flops for row in rows)


def test_images_are_brought_to_a_size_that_the_model_takes() -> None:
    with pytest.raises(RuntimeError, match="too small"):
        get_model("densenet121").eval()(torch.zeros(2, 3, 28, 28))
    assert BACKBONES["densenet121"].takes(28, 50) == (29, 50)
    assert BACKBONES["vit_b_16"].takes(300, 28) == (224, 224)
    assert network_of(Pretrained("densenet121"), (1, 28, 28)).eval()(torch.zeros(2, 1, 28, 28)).shape == (2, 3)
    assert network_of(Pretrained(SMALL), (1, 40, 30)).eval()(torch.zeros(2, 1, 40, 30)).shape == (2, 3)


def test_grey_images_give_what_they_give_as_coloured_ones(state: dict[str, torch.Tensor]) -> None:
    grey = torch.rand(4, 1, 28, 28)
    found = []
    for channels in (1, 3, 5):
        one = Backbone(SMALL, channels).eval()
        adopt(one, copy.copy(state))
        found.append(one(grey.expand(-1, channels, -1, -1)))
    assert torch.allclose(found[0], found[1], atol=1e-5)
    assert torch.allclose(found[0], found[2], atol=1e-5)


def test_weights_are_found_in_the_cache_and_used(
    blobs: Dataset, cached: Path, state: dict[str, torch.Tensor]
) -> None:
    still = Recipe(batch_size=32, learning_rate=0.0)
    body = body_of(train(job(Architecture((Pretrained(SMALL),))), blobs, still)[1])
    other = body_of(train(job(Architecture((Pretrained(SMALL, weights=False),))), blobs, still)[1])
    first = state["conv1.0.weight"].sum(1, keepdim=True)
    assert torch.allclose(body["conv1.0.weight"], first, atol=1e-6)
    assert torch.equal(body["stage3.1.branch2.0.weight"], state["stage3.1.branch2.0.weight"])
    assert not torch.equal(other["stage3.1.branch2.0.weight"], state["stage3.1.branch2.0.weight"])
    assert sorted(path.name for path in cached.iterdir()) == [FILE]


def test_a_frozen_one_stays_as_it_is_and_what_follows_it_learns(blobs: Dataset, cached: Path) -> None:
    architecture = Architecture((Pretrained(SMALL, frozen=True),))
    untouched = network_of(Pretrained(SMALL, frozen=True))
    [backbone] = untouched.backbones
    adopt(backbone, imagenet(SMALL))
    trial, network = train(job(architecture, 3), blobs, RECIPE)
    for name, tensor in body_of(network).items():
        assert torch.equal(tensor, body_of(untouched)[name]), name
    assert trial.curve[-1]["train_loss"] < trial.curve[0]["train_loss"]
    assert trial.metrics["parameters"] == sum(p.numel() for p in network.parameters())


def test_pretrained_weights_learn_slower() -> None:
    def rates(layer: Pretrained) -> set[tuple[float, bool]]:
        network = network_of(layer)
        body = {id(p) for part in network.backbones for p in part.parameters()}
        [adamw] = optimisers(network, Recipe(fine_tuning=0.25))
        groups = adamw.param_groups
        return {(group["scale"], id(p) in body) for group in groups for p in group["params"]}

    assert rates(Pretrained(SMALL)) == {(1.0, False), (0.25, True)}
    assert rates(Pretrained(SMALL, weights=False)) == {(1.0, False), (1.0, True)}
    assert rates(Pretrained(SMALL, frozen=True)) == {(1.0, False)}


def test_absent_weights_are_a_failed_trial_with_one_clear_line(blobs: Dataset, cache: Path) -> None:
    failure = worked(Pretrained(SMALL), blobs).failure
    assert failure is not None
    assert failure.kind == "invalid"
    assert failure.message == (
        f"the ImageNet weights of {SMALL} are not in {cache} and cannot be downloaded "
        f"(<urlopen error no network>): put {FILE} there, or use random weights (pretrained=false)"
    )
    assert worked(Pretrained(SMALL, weights=False), blobs).failure is None
    assert not list(cache.iterdir())


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("cut", ""),
        ("list", "it holds a list"),
        ("absent", "stage4.0.branch1.2.weight is missing"),
        ("first", r"conv1.0.weight has the shape \(24, 1, 3, 3\)"),
        ("shape", "size mismatch for conv5.0.weight"),
    ],
)
def test_a_damaged_file_is_a_failed_trial_with_one_clear_line(
    blobs: Dataset, cache: Path, state: dict[str, torch.Tensor], damage: str, words: str
) -> None:
    path, weights = cache / FILE, copy.copy(state)
    match damage:
        case "absent":
            del weights["stage4.0.branch1.2.weight"]
        case "first":
            weights["conv1.0.weight"] = weights["conv1.0.weight"][:, :1]
        case "shape":
            weights["conv5.0.weight"] = torch.zeros(1000, 192, 1, 1)
    torch.save([1, 2] if damage == "list" else weights, path)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:50_000])
    failure = worked(Pretrained(SMALL), blobs).failure
    assert failure is not None
    assert failure.kind == "invalid"
    assert failure.message.startswith(f"{path} does not hold the ImageNet weights of {SMALL} (")
    assert failure.message.endswith("or use random weights (pretrained=false)")
    assert re.search(words, failure.message)


def test_a_trained_network_is_loaded_without_imagenet(blobs: Dataset, cached: Path, tmp_path: Path) -> None:
    layer = Pretrained(SMALL)
    trial = worked(layer, blobs, str(tmp_path))
    (cached / FILE).unlink()
    network = write_best(
        tmp_path / "best", Architecture((layer,)), tmp_path / f"{trial.job.key}.safetensors", blobs
    )
    with torch.inference_mode():
        right = (network(blobs.validation.images).argmax(1) == blobs.validation.labels).float().mean().item()
    assert right == pytest.approx(trial.metrics["validation_accuracy"])


def test_a_download_is_there_whole_or_not_at_all(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"a": torch.ones(3)}, cache / "content")
    content = (cache / "content").read_bytes()
    (cache / "content").unlink()
    digest = hashlib.sha256(content).hexdigest()
    monkeypatch.setattr(module, "stream", lambda *_: iter((content[:100], content[100:])))
    monkeypatch.setattr(module, "_place", lambda model: ("", cache / f"{model}-{digest[:8]}.pth"))
    assert torch.equal(imagenet("any")["a"], torch.ones(3))
    assert [path.name for path in cache.iterdir()] == [f"any-{digest[:8]}.pth"]
    monkeypatch.setattr(module, "_place", lambda model: ("", cache / f"{model}-00000000.pth"))
    with pytest.raises(DataError, match=f"the downloaded file has the SHA-256 {digest[:16]}"):
        imagenet("other")
    assert [path.name for path in cache.iterdir()] == [f"any-{digest[:8]}.pth"]


def test_photographs_of_224_pixels_start_from_a_file_in_the_cache(
    cached: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platformdirs.user_cache_path", lambda name: tmp_path / "cache" / name)
    random = np.random.default_rng(0)
    for number in range(40):
        place = tmp_path / "photos" / ("dark" if number % 2 else "light")
        place.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 100, (60, 80, 3), np.uint8) + np.uint8(0 if number % 2 else 150)
        Image.fromarray(pixels).save(place / f"{number}.jpg")
    data = open_source(str(tmp_path / "photos"), options={"size": 224}).load()
    assert data.input_shape == (3, 224, 224)
    space = Cnn().within(Limits(data.input_shape, 2))
    [candidate] = Reference(space, networks="none", torchvision=SMALL).ask(9)
    [backbone] = candidate.architecture.backbones
    trial = worked(backbone, data)
    assert trial.failure is None
    (cached / FILE).unlink()
    failure = worked(backbone, data).failure
    assert failure is not None
    assert f"put {FILE} there" in failure.message
