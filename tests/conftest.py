"""What many tests share: small data, small networks, and evaluators that need no training."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch
from filelock import FileLock

from nas import plugins
from nas.architecture.architecture import Architecture
from nas.architecture.layers import Conv2d, GlobalAveragePool
from nas.data.dataset import Dataset, Split
from nas.evaluation.batches import Batches
from nas.evaluation.evaluator import Evaluator
from nas.objectives import Objective, scored
from nas.spaces.space import Candidate, Choose, SearchSpace
from nas.trial import Job, Trial

if os.environ.get("NAS_DATA_DIR"):  # tests change the folder that a relative path would start from
    os.environ["NAS_DATA_DIR"] = str(Path(os.environ["NAS_DATA_DIR"]).resolve())

# The same examples every time, and no clock: a test that fails fails again.
hypothesis.settings.register_profile("nas", deadline=None, derandomize=True)
hypothesis.settings.load_profile("nas")

LOSS = (Objective("validation_loss", -1),)


# With pytest-xdist these files begin first, the longest at the front, or one process would be alone at the end.
LONGEST = ("main_path", "export", "dashboard", "docs", "layer_plugins", "resume", "predict", "mlflow", "contract")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the files, and skip visibly what needs the full MNIST, or a GPU, where there is none."""
    order = {f"test_{name}.py": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))
    folder = os.environ.get("NAS_DATA_DIR")
    reasons = {}
    if not folder or not Path(folder, "MNIST", "raw").is_dir():
        reasons["mnist"] = "the full MNIST is not here: set NAS_DATA_DIR"
    if not torch.cuda.is_available():
        reasons["gpu"] = "there is no CUDA device here"
    for item in items:
        for mark, reason in reasons.items():
            if item.get_closest_marker(mark):
                item.add_marker(pytest.mark.skip(reason=reason))


class Tiny(SearchSpace):
    """At most 3 + 9 + 27 networks: small enough to be searched to its end."""

    def build(self, choose: Choose) -> Architecture:
        """One to three convolutions, then pooling."""
        layers = [
            Conv2d(choose.suggest_categorical(f"conv{i}/filters", [1, 2, 3]), 3)
            for i in range(choose.suggest_int("depth", 1, 3))
        ]
        return Architecture((*layers, GlobalAveragePool()))


class Instant:
    """An evaluator that returns at once: its loss is a function of the architecture, its speed is infinite."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []

    def evaluate(self, jobs: Sequence[Job], /) -> Iterator[Trial]:
        """Backwards, because nobody may rely on the order."""
        for job in reversed(jobs):
            self.jobs.append(job)
            yield scored(finished(job), LOSS)


def finished(job: Job, loss: float | None = None) -> Trial:
    """A trial that succeeded; the loss follows from the architecture and falls with the epochs."""
    if loss is None:
        loss = int(job.candidate.architecture.id[:6], 16) / 0xFFFFFF + 0.1 / job.epochs
    point = {"epoch": job.epochs, "train_loss": loss, "validation_loss": loss, "validation_accuracy": 1 - loss / 3}
    metrics = {
        "validation_accuracy": 1 - loss / 3,
        "validation_loss": loss,
        "parameters": 100.0,
        "flops": 1000.0,
        "train_seconds": 0.5 * job.epochs,
        "images_per_second": 1000.0,
        "latency_ms": 0.1,
    }
    return Trial(job, metrics, (point,))


def halved(evaluator: Evaluator, jobs: Sequence[Job], rungs: int = 2, reduction: int = 4) -> list[Trial]:
    """The trials of one batch."""
    batches = Batches(evaluator, rungs=rungs, reduction=reduction)
    batches.submit(jobs)
    return list(batches.oldest())


def job(architecture: Architecture, epochs: float = 1.0, seed: int = 1) -> Job:
    """A job for an architecture."""
    return Job(Candidate(architecture, origin="test"), epochs, seed)


def with_epochs(one: Job, epochs: float) -> Job:
    """The same job, shorter or longer."""
    return replace(one, epochs=epochs)


@pytest.fixture(autouse=True)
def the_same_numbers() -> None:
    """Every test draws what it drew before; by chance, what differs by rounding may differ by more."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def nothing_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The folders that one test names with --plugins are not there in the next."""
    monkeypatch.setattr(plugins, "_offered", [])


@pytest.fixture(scope="session")
def blobs() -> Dataset:
    """Three easy classes of 8×8 images: a bright quarter of the image tells the class."""
    rng = np.random.default_rng(0)

    def split(count: int) -> Split:
        labels = np.arange(count) % 3
        images = rng.integers(0, 60, (count, 1, 8, 8)).astype(np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[0, 4 * (label // 2) : 4 * (label // 2) + 4, 4 * (label % 2) : 4 * (label % 2) + 4] += 150
        return Split.of(images, labels)

    return Dataset.of("blobs", split(192), split(60), ("top left", "top right", "bottom left"))


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of MLflow's without a search, to be copied: to make its tables takes some seconds."""
    from nas.dashboard.store import client_of

    folder = tmp_path_factory.mktemp("store")
    client_of(f"sqlite:///{folder}/mlflow.db")
    return folder / "mlflow.db"


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with spaces in its name, in which a real search with two workers has been run."""
    from command import QUICK, nas  # here, so that the tests for a GPU do without what it imports

    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "a folder with spaces"
    with FileLock(f"{folder}.lock"):  # the processes of pytest-xdist share it
        if not folder.exists():
            folder.mkdir()
            words = ["search", "--strategy", "evolve", "--trials", "10", "--workers", "2", *QUICK, "--json"]
            done = nas(*words, cwd=folder)
            (folder / "printed.json").write_text(done.stdout.splitlines()[-1])
            (folder / "progress.txt").write_text(done.stderr)
    return folder
