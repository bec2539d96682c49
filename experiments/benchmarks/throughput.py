"""Candidate-epochs per minute, on the CPU or a GPU: ours beside what people would write, and the machine's floors.

    python experiments/benchmarks/throughput.py --also float32     both tables on this machine
    python experiments/benchmarks/throughput.py --only lecture --loader-batches 64 512     on a GPU
    python experiments/benchmarks/throughput.py --images 2000 --networks 4 --repeats 1     to try it, in a minute

Two kinds of work, on mnist's 54,000 training images, with the accuracy on the 6,000 validation images after each
epoch: the lecture's network with the lecture's recipe, and random networks of the `cnn` space with the default
one. MNIST is looked for in --data-dir or NAS_DATA_DIR. Needs torch and torchvision, and Keras for the lecture's
code (the dependency group `benchmarks`). Where nas is not installed, set PYTHONPATH to the folder that holds it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

from nas.architecture.architecture import Architecture, Limits
from nas.architecture.known import LECTURE
from nas.architecture.layers import Flatten
from nas.data.dataset import Dataset, Split
from nas.data.idx import SEED
from nas.data.mnist import Mnist
from nas.data.plugin import stratified
from nas.evaluation.local.local import LocalEvaluator
from nas.evaluation.local.machine import cores
from nas.spaces.cnn import Cnn
from nas.spaces.space import Candidate
from nas.training.network import Network
from nas.training.recipe import RECIPES, Recipe
from nas.trial import Job, job_seed

SHAPE = (1, 28, 28)
SIZES = Mnist.sizes
SHARE = SIZES[0] // SIZES[1]  # training images for each validation image
JOBS = {"cpu": 2, "cuda": 128}  # of the lecture's network for each worker: 50 s on a core, seconds on a GPU
LONG = 5.0  # epochs of a training that is worth its result
VALIDATION_BATCH = 1_000  # of the foreign loops; ours takes what it takes in a search
MATMUL = {"cpu": 2_048, "cuda": 8_192}  # 0.2 s in one thread, 20 ms on a GPU: large enough for its peak
COPIED = {"cpu": 2**26, "cuda": 2**28}  # floats: 256 MiB and 1 GiB, more than any cache holds


@dataclass(frozen=True)
class Work:
    """What is trained: by all sides the same."""

    title: str
    architectures: tuple[Architecture, ...]
    epochs: float
    recipe: Recipe

    def jobs(self, count: int, seed: int) -> list[Job]:
        """So many, each with a seed of its own: no two are the same training."""
        chosen = [self.architectures[number % len(self.architectures)] for number in range(count)]
        seeds = [job_seed(seed, one.id, number) for number, one in enumerate(chosen)]
        return [Job(Candidate(one), self.epochs, number) for one, number in zip(chosen, seeds, strict=True)]


def lecture(given: argparse.Namespace) -> Work:
    batch = given.batch or (512 if given.device == "cuda" else 128)
    recipe = replace(RECIPES["lecture"], batch_size=batch)
    return Work(f"the lecture's network, whole epochs, batch {batch}", (LECTURE,), 1.0, recipe)


def cnn(given: argparse.Namespace) -> Work:
    recipe = RECIPES["default"]
    batch = given.batch or (512 if given.device == "cuda" else recipe.batch_size)
    networks = drawn(given.networks)
    title = f"{len(networks)} networks of the cnn space, {given.epochs:g} epochs each, batch {batch}"
    return Work(title, networks, given.epochs, replace(recipe, batch_size=batch))


def drawn(count: int) -> tuple[Architecture, ...]:
    """The same different networks in every process."""
    space, rng = Cnn().within(Limits(SHAPE, len(Mnist.classes))), Random(0)
    found: dict[str, Architecture] = {}
    while len(found) < count:
        one = space.sample(rng).architecture
        found[one.id] = one
    return tuple(found.values())


def dataset(given: argparse.Namespace) -> Dataset:
    whole = Mnist([Path(given.data_dir)]).load()
    if given.images >= len(whole.train):
        return whole
    train, validation = (
        Split(split.images[:count], split.labels[:count])
        for split, count in ((whole.train, given.images), (whole.validation, validated(given)))
    )
    return Dataset.of("mnist", train, validation, whole.classes)


def validated(given: argparse.Namespace) -> int:
    """How many validation images go with the training images."""
    return max(100, min(int(given.images) // SHARE, SIZES[1]))


# Ours.


def ours(work: Work, data: Dataset, given: argparse.Namespace, count: int, workers: int, group: Any) -> float:
    """Seconds from the call to the last of ``count`` trials.

    A first training of the work's first network is not counted: processes start, torch is imported, a GPU wakes
    up, its lanes are measured, and have captured that network.
    """
    options: dict[str, Any] = {"workers": workers, "device": given.device, "group": group}
    with LocalEvaluator(data, work.recipe, warn=partial(print, file=sys.stderr), **options) as evaluator:
        run_all(evaluator, [replace(job, epochs=1e-6) for job in work.jobs(2 * workers, seed=1)])
        jobs = work.jobs(count, seed=0)
        start = time.perf_counter()
        run_all(evaluator, jobs)
        return time.perf_counter() - start


def run_all(evaluator: LocalEvaluator, jobs: Sequence[Job]) -> None:
    for trial in evaluator.evaluate(jobs):
        if trial.failure:
            raise SystemExit(f"{trial.id} failed: {trial.failure.message}")


# What people would write instead. Each runs in a process of its own, so that no allocator and no pool of threads
# of one is there for the other, and prints its seconds.


def keras_seconds(given: argparse.Namespace) -> float:
    """An epoch of the lecture's code, validation included, with what Keras does by itself."""
    os.environ["KERAS_BACKEND"] = "torch"
    import keras
    from keras import layers

    data = dataset(given)
    (x, y), (x_validation, y_validation) = (
        (
            split.images.permute(0, 2, 3, 1).numpy().astype("float32") / 255,
            keras.utils.to_categorical(split.labels, 10),
        )
        for split in (data.train, data.validation)
    )
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(32, (3, 3), activation="relu"),
            layers.MaxPooling2D((2, 2)),
            layers.Conv2D(64, (3, 3), activation="relu"),
            layers.MaxPooling2D((2, 2)),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(loss="categorical_crossentropy", optimizer="adam", metrics=["accuracy"])
    few = 2 * given.batch
    model.fit(x[:few], y[:few], batch_size=given.batch, validation_data=(x[:few], y[:few]), verbose=0)
    start = time.perf_counter()
    model.fit(x, y, batch_size=given.batch, epochs=1, validation_data=(x_validation, y_validation), verbose=0)
    return time.perf_counter() - start


def loader_seconds(given: argparse.Namespace) -> float:
    """The trainings of a plain loop with a DataLoader, as in PyTorch's MNIST example, one after the other."""
    options: dict[str, Any] = {"num_workers": 1, "pin_memory": True} if given.device == "cuda" else {}
    train, validation = torchvision_splits(given)
    training = DataLoader(train, batch_size=given.batch, shuffle=True, **options)
    validating = DataLoader(validation, batch_size=VALIDATION_BATCH, **options)
    plain_loop(plain_lecture(), training, validating, 1, given.device)  # wakes a GPU up
    architectures = drawn(given.networks) if given.only == "cnn" else ()
    epochs = given.epochs if given.only == "cnn" else 1.0
    steps = max(1, math.ceil(epochs * len(train) / given.batch))
    start = time.perf_counter()
    # `Network` normalises: not a second time what Normalize has done.
    for one in architectures:
        plain_loop(Network(one, SHAPE, 10, std=(1.0,)), training, validating, steps, given.device)
    if not architectures:
        plain_loop(plain_lecture(), training, validating, steps, given.device)
    return time.perf_counter() - start


def plain_lecture() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 32, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(1600, 10),
    )


def torchvision_splits(given: argparse.Namespace) -> tuple[Any, Any]:
    """The training and the validation images that ours has, as torchvision gives them out."""
    from torchvision import datasets, transforms

    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])
    parts = []
    for part, count in zip((0, 1), (given.images, validated(given)), strict=True):
        one = datasets.MNIST(given.data_dir, train=True, transform=transform)
        chosen = torch.from_numpy(stratified(one.targets.numpy(), SIZES, SEED)[part][:count])
        one.data, one.targets = one.data[chosen], one.targets[chosen]  # a Subset would cost it a call an image
        parts.append(one)
    return parts[0], parts[1]


def plain_loop(network: nn.Module, training: Any, validating: Any, steps: int, device: str) -> float:
    """Train for so many steps, and measure the accuracy after each epoch."""
    network.to(device)
    optimiser = torch.optim.Adam(network.parameters())
    done, accuracy = 0, 0.0
    while done < steps:
        network.train()
        for images, labels in training:
            optimiser.zero_grad()
            loss = functional.cross_entropy(network(images.to(device)), labels.to(device))
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            done += 1
            if done == steps:
                break
        network.eval()
        right = 0.0
        with torch.no_grad():
            for images, labels in validating:
                right += (network(images.to(device)).argmax(1) == labels.to(device)).sum().item()
        accuracy = right / len(validating.dataset)
    return accuracy


def foreign(side: str, batch: int, only: str, given: argparse.Namespace) -> dict[str, Any]:
    """What a side printed that runs in a process of its own."""
    words = [f"--side={side}", f"--batch={batch}", f"--only={only}", f"--device={given.device}"]
    words += [f"--images={given.images}", f"--epochs={given.epochs}", f"--networks={given.networks}"]
    words += [f"--data-dir={given.data_dir}", f"--workers={given.workers}"]
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if given.device == "cpu" else {}  # Keras takes a GPU unasked
    command = [sys.executable, str(Path(__file__).resolve()), *words]
    done = subprocess.run(command, env={**os.environ, **hidden}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{side} failed:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


# The floors: what this machine cannot do faster, whoever writes the code.


def peaks(given: argparse.Namespace) -> dict[str, Any]:
    """Operations a second of a large float32 product (one thread's, or a GPU's), and bytes a second of a copy."""
    device = torch.device(given.device)
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("highest")  # no TF32
    size = MATMUL[given.device]
    left, right, product = (torch.rand(size, size, device=device) for _ in range(3))
    flops = 2 * size**3 / quickest(lambda: torch.matmul(left, right, out=product), device)
    torch.set_num_threads(given.workers)  # the workers share the memory: their copies together are one of all
    source, target = (torch.ones(COPIED[given.device], device=device) for _ in range(2))
    moved = 2 * 4 * len(source) / quickest(lambda: target.copy_(source), device)
    name = torch.cuda.get_device_name() if given.device == "cuda" else ""
    return {"flops": flops, "bytes": moved, "gpu": name}


def quickest(what: Callable[[], object], device: torch.device) -> float:
    """Seconds, of five after two to warm up."""
    times = []
    for _ in range(7):
        start = time.perf_counter()
        what()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times[2:])


def least(work: Work, train: int, validation: int) -> tuple[float, float]:
    """Operations and bytes of a candidate-epoch that nobody can do without, the mean of the networks.

    A step costs three forward passes (forward, gradients of the weights, gradients of the inputs), without the
    gradient of the images, which nobody needs. Each layer's output is written and read once forward, its gradient
    once backward; Flatten moves nothing. Weights are left out: 2 % of the bytes at a batch of 128.
    """
    flops = moved = 0.0
    seen, checked = work.epochs * train, math.ceil(work.epochs) * validation
    for one in work.architectures:
        rows = one.table(SHAPE, len(Mnist.classes))
        forward = sum(row.flops for row in rows)
        first = next(row.flops for row in rows if row.flops)
        values = sum(math.prod(row.shape) for row in rows if not isinstance(row.layer, Flatten))
        flops += seen * (3 * forward - first) + checked * forward
        moved += 4 * values * (4 * seen + 2 * checked)
    candidate_epochs = work.epochs * len(work.architectures)
    return flops / candidate_epochs, moved / candidate_epochs


# The tables.


def sides(only: str, work: Work, data: Dataset, given: argparse.Namespace) -> dict[str, Callable[[], float]]:
    """What is measured: a function that measures candidate-epochs per minute, by the name of the side."""
    whole = len(work.architectures) if only == "cnn" else 0  # all networks, or jobs for each worker

    def our(workers: int, group: Any, precision: Any = given.precision) -> Callable[[], float]:
        few = given.device == "cuda" and group == 1  # a tenth of the speed, and the rate does not depend on it
        count = whole or workers * (given.jobs // (8 if few else 1) or 1)
        precise = replace(work, recipe=replace(work.recipe, precision=precision))
        return lambda: 60 * count * work.epochs / ours(precise, data, given, count, workers, group)

    def theirs(side: str, batch: int) -> Callable[[], float]:
        done = (whole or 1) * work.epochs
        return lambda: 60 * done / float(foreign(side, batch, only, given)["seconds"])

    workers = f"{given.workers} workers" if given.workers > 1 else "1 worker"
    group = "" if given.device == "cpu" else f", group {given.group}"
    found = {f"ours, {workers}{group}, {given.precision}": our(given.workers, given.group)}
    if given.workers > 1 or group:
        found[f"ours, one at a time, {given.precision}"] = our(1, 1)
    for precision in given.also:
        found[f"ours, {workers}{group}, {precision}"] = our(given.workers, given.group, precision)
    if only == "lecture":
        if importlib.util.find_spec("keras"):
            found["the lecture's code, Keras on torch, batch 128"] = theirs("keras", 128)
        else:
            print("without Keras: `uv pip install --group benchmarks` installs it", file=sys.stderr)
    for batch in given.loader_batches if only == "lecture" else given.loader_batches[:1]:
        found[f"PyTorch with a DataLoader, batch {batch}"] = theirs("loader", batch)
    return found


def measured(what: dict[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """In turn, so that a slow minute of the machine touches all of them."""
    rates: dict[str, list[float]] = {name: [] for name in what}
    for _ in range(repeats):
        for name, measure in what.items():
            rates[name].append(measure())
            print(f"{name}: {rates[name][-1]:.3g} a minute", file=sys.stderr, flush=True)
    return rates


def table(title: str, rates: dict[str, list[float]]) -> float:
    """Print it; returns the rate of ours, which is the first."""
    print(f"\n| {title} | candidate-epochs/min, median | lowest–highest | ours is × as fast |\n|---|---|---|---|")
    best = statistics.median(next(iter(rates.values())))
    for name, values in rates.items():
        middle = statistics.median(values)
        spread = f"{min(values):.3g}–{max(values):.3g}"
        print(f"| {name} | {middle:.3g} | {spread} | {best / middle:.2f} |")
    return best


def floors(work: Work, rate: float, peak: dict[str, Any], data: Dataset, given: argparse.Namespace) -> None:
    """Print how far ours is from them."""
    flops, moved = least(work, len(data.train), len(data.validation))
    together = given.workers if given.device == "cpu" else 1
    taken = 60 / rate
    for name, seconds, words in (
        ("arithmetic", flops / (together * peak["flops"]), f"{flops / 1e9:,.0f} GFLOP"),
        ("memory", moved / peak["bytes"], f"{moved / 1e9:,.1f} GB"),
    ):
        print(
            f"- floor of {name}: {words} a candidate-epoch, {seconds:.3g} s; ours takes {taken:.3g} s, "
            f"{100 * seconds / taken:.1f} % of what the machine can do"
        )


def whole_trainings(work: Work, data: Dataset, given: argparse.Namespace) -> None:
    """Print how many trainings a minute make, of which each is worth its result."""
    count = given.workers * given.jobs
    long = replace(work, epochs=LONG, recipe=replace(work.recipe, precision=given.precision))
    took = [ours(long, data, given, count, given.workers, given.group) for _ in range(given.repeats)]
    rates = sorted(60 * count / seconds for seconds in took)
    spread = f"median {statistics.median(rates):.3g} a minute, {rates[0]:.3g}–{rates[-1]:.3g}"
    print(f"- trainings of {LONG:g} epochs: {spread}")


def machine(peak: dict[str, Any], given: argparse.Namespace) -> str:
    model = platform.processor() or platform.machine()
    if (about := Path("/proc/cpuinfo")).exists():
        lines = about.read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    parts = [model, f"{cores()} cores", f"torch {torch.__version__}", *([peak["gpu"]] if peak["gpu"] else [])]
    how = "without TF32" if peak["gpu"] else "in one thread"
    parts += [f"float32 product {peak['flops'] / 1e9:,.0f} GFLOP/s {how}", f"copy {peak['bytes'] / 1e9:,.0f} GB/s"]
    return ", ".join(parts)


def main(given: argparse.Namespace) -> None:
    data = dataset(given)
    peak = foreign("peaks", 1, "lecture", given)
    for only, make in (("lecture", lecture), ("cnn", cnn)):
        if given.only not in (only, None):
            continue
        work = make(given)
        rate = table(work.title, measured(sides(only, work, data, given), given.repeats))
        print()
        floors(work, rate, peak, data, given)
        if only == "lecture" and given.device == "cuda":
            whole_trainings(work, data, given)
    images = f"{len(data.train):,} training and {len(data.validation):,} validation images"
    print(f"\n{machine(peak, given)}; {images}.")


def count_or_auto(text: str) -> int | str:
    return text if text == "auto" else int(text)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["lecture", "cnn"], help="one of the two tables")
    parser.add_argument("--images", type=int, default=SIZES[0], help="training images, to try it with fewer")
    parser.add_argument("--networks", type=int, default=32, help="of the cnn space")
    parser.add_argument("--epochs", type=float, default=0.25, help="of each network of the cnn space")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--workers", type=int, help="of ours; one a core, or one for a GPU")
    parser.add_argument("--group", type=count_or_auto, default="auto", help="of ours, on a GPU")
    precisions = ["float32", "tf32", "bfloat16"]
    parser.add_argument("--precision", default="bfloat16", choices=precisions, help="of ours")
    parser.add_argument(
        "--also", nargs="*", default=[], choices=precisions, help="rows of ours in other precisions"
    )
    parser.add_argument("--loader-batches", nargs="*", type=int, default=[64, 128], help="of the DataLoader loop")
    parser.add_argument("--batch", type=int, help="of ours; 128 and the recipe's 64 on a CPU, 512 on a GPU")
    parser.add_argument("--jobs", type=int, help="of the lecture's network for each worker; 2, on a GPU 128")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--data-dir", default=os.environ.get("NAS_DATA_DIR", "."), help="holds MNIST/raw")
    parser.add_argument("--side", choices=["keras", "loader", "peaks"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.device == "auto":
        given.device = "cuda" if torch.cuda.is_available() else "cpu"
    given.workers = given.workers or (cores() if given.device == "cpu" else 1)
    given.jobs = given.jobs or JOBS[given.device]
    given.images = min(given.images, SIZES[0])
    return given


if __name__ == "__main__":
    chosen = options()
    if chosen.side == "peaks":
        print(json.dumps(peaks(chosen)))
    elif chosen.side:
        print(json.dumps({"seconds": {"keras": keras_seconds, "loader": loader_seconds}[chosen.side](chosen)}))
    else:
        main(chosen)
