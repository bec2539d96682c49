"""How well a short training tells which network is better after a long one (Kendall's tau, 1938).

Sixty random networks of the ``cnn`` space are trained for every length in FIDELITIES, each from scratch on a
schedule of its own, as successive halving trains them; then each short training's ranking is compared with that of
the long one. The long training is done with a second seed, too: two such rankings differ by chance alone, so no
rung can be expected to do better than that. A third time it is done in bfloat16.

    python experiments/benchmarks/fidelity.py train mnist-5k FILE     # 15 minutes on two cores; appends to FILE
    python experiments/benchmarks/fidelity.py train mnist FILE        # 20 minutes
    python experiments/benchmarks/fidelity.py train mnist FILE --device cuda --group 8    # each way into a file
    python experiments/benchmarks/fidelity.py paths                   # on a GPU: its ways to train, two minutes
    python experiments/benchmarks/fidelity.py table FILE
    python experiments/benchmarks/fidelity.py rungs FILE              # what follows for successive halving
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from scipy.stats import kendalltau

from nas.architecture.architecture import Limits
from nas.data import open_source
from nas.data.mnist import Mnist
from nas.evaluation.local import machine
from nas.evaluation.local.local import LocalEvaluator
from nas.spaces.cnn import Cnn
from nas.spaces.space import Candidate
from nas.training.group import Group
from nas.training.recipe import RECIPES, Precision
from nas.trial import Job, job_seed

# Epochs; the last one is the long training, which for mnist is that of a search.
FIDELITIES = {"mnist-5k": (0.25, 0.5, 1.0, 2.0, 4.0, 12.0), "mnist": (0.0625, 0.125, 0.25, 0.5, 1.0)}
KEPT = 4  # successive halving goes on with one in four
BEST = 6  # of sixty
SIMULATED = 1_000  # searches


def candidates(count: int, limits: Limits) -> list[Candidate]:
    """Different random networks of the space, that fit."""
    space, rng = Cnn().within(limits), random.Random(0)
    found: dict[str, Candidate] = {}
    while len(found) < count:
        one = space.sample(rng)
        if limits.allow(one.architecture):
            found.setdefault(one.architecture.id, one)
    return list(found.values())


def train(name: str, path: Path, networks: int, device: str, group: int) -> None:
    """Append a line for each training to the file; what it has already is not done again."""
    source = open_source(name, None, {}, [])
    data = source.load()
    limits = Limits(data.input_shape, len(data.classes), max_flops=Cnn.max_flops)
    done = {line["key"] for line in lines(path)}
    *_, longest = FIDELITIES[name]
    sets = [("float32", 0, epochs) for epochs in FIDELITIES[name]]
    sets += [("float32", 1, longest)] + [("bfloat16", 0, longest)] * (name == "mnist-5k" or device != "cpu")
    sets += [("tf32", 0, longest)] * device.startswith("cuda")
    workers = machine.cores() if device == "cpu" else 1
    for precision, repeat, epochs in sets:
        recipe = replace(RECIPES["default"], precision=precision)  # type: ignore[arg-type]
        jobs = [Job(one, epochs, job_seed(0, one.architecture.id, repeat)) for one in candidates(networks, limits)]
        jobs = [job for job in jobs if f"{name} {precision} {job.key}" not in done]
        with (
            LocalEvaluator(data, recipe, workers=workers, device=device, group=group) as evaluator,
            path.open("a") as file,
        ):
            for trial in evaluator.evaluate(jobs):
                about = {"dataset": name, "precision": precision, "repeat": repeat, "epochs": epochs}
                about |= {"key": f"{name} {precision} {trial.job.key}", "id": trial.id}
                failed = trial.failure.kind if trial.failure else None
                print(json.dumps(about | {"failure": failed, **trial.metrics}), file=file, flush=True)
        print(f"{name}, {precision}, seed {repeat}, {epochs:g} epochs", file=sys.stderr)


def paths(networks: int, epochs: float, batch_size: int) -> None:
    """How the ways to train on a GPU agree with the plain loop in float32, on mnist."""
    data = Mnist([Path(os.environ["NAS_DATA_DIR"])]).load()  # also where nas is not installed
    limits = Limits(data.input_shape, len(data.classes), max_flops=Cnn.max_flops)
    ways: list[tuple[Precision, int | str, int]]  # how many at a time, and which seed
    ways = [("float32", 1, 0), ("bfloat16", "auto", 0), ("float32", "auto", 0), ("float32", "auto", 1)]
    ways += [("tf32", "auto", 0), ("bfloat16", 1, 0)]
    found: dict[tuple[str, str | int, int], dict[str, Mapping[str, float]]] = {}
    for precision, size, repeat in ways:
        recipe = replace(RECIPES["default"], precision=precision, batch_size=batch_size)
        group = Group(data, recipe, "cuda", size, lambda line: print(line, file=sys.stderr))
        jobs = [Job(one, epochs, job_seed(0, one.architecture.id, repeat)) for one in candidates(networks, limits)]
        start = time.perf_counter()
        trials = [trial for trial, _ in group.train(jobs)]
        seconds = time.perf_counter() - start
        found[precision, size, repeat] = {trial.id: trial.metrics for trial in trials if not trial.failure}
        plain = found["float32", 1, 0]
        both = [name for name in plain if name in found[precision, size, repeat]]
        pairs = [
            [[one[name][metric] for name in both] for one in (plain, found[precision, size, repeat])]
            for metric in ("validation_accuracy", "validation_loss")
        ]
        taus = " | ".join(f"{kendalltau(*pair).statistic:.3f}" for pair in pairs)
        seed = ", another seed" * repeat
        print(f"| group {size}, {precision}{seed} | {taus} | {len(both)} | {seconds:.1f} |", flush=True)


def lines(path: Path) -> list[dict[str, Any]]:
    """What was measured so far."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def table(path: Path) -> None:
    """A row for each length of training."""
    print("| data set | training | tau of accuracies | tau of losses | of the best 6, kept | seconds, median |")
    print("|---|---|---|---|---|---|")
    for name in FIDELITIES:
        sets: dict[tuple[str, int, float], dict[str, dict[str, Any]]] = {}
        for line in lines(path):
            if line["dataset"] == name and not line["failure"]:
                where = (line["precision"], line["repeat"], line["epochs"])
                sets.setdefault(where, {})[line["id"]] = line
        full = sets.get(("float32", 0, FIDELITIES[name][-1]), {})
        for where, short in sorted(sets.items(), key=lambda one: (one[0][0] != "float32", one[0][1], one[0][2])):
            print("|", " | ".join([name, *row(where, short, full)]), "|")


def row(
    where: tuple[str, int, float], short: dict[str, dict[str, Any]], full: dict[str, dict[str, Any]]
) -> Iterator[str]:
    """How a set of trainings agrees with the long ones."""
    precision, repeat, epochs = where
    both = [name for name in full if name in short]
    yield f"{epochs:g} epochs" + ", another seed" * repeat + f", {precision}" * (precision != "float32")
    for metric in ("validation_accuracy", "validation_loss"):
        tau = kendalltau([short[name][metric] for name in both], [full[name][metric] for name in both])
        yield f"{tau.statistic:.2f} (n = {len(both)})"
    kept = sorted(both, key=lambda name: short[name]["validation_loss"])[: len(both) // KEPT]
    best = sorted(both, key=lambda name: full[name]["validation_loss"])[:BEST]
    yield f"{len(set(kept) & set(best))}"
    yield f"{statistics.median(line['train_seconds'] for line in short.values()):.1f}"


def rungs(path: Path) -> None:
    """What successive halving finds on mnist-5k with one rung or another, if it spends the same.

    A random search among the sixty networks, whose trainings are read from the table: batches of 8, the best of
    the rung trained for 4 epochs, the best three of those for 12 with another seed. The rank of the network that
    wins, by the mean of its two long trainings.
    """
    sets: dict[tuple[int, float], dict[str, float]] = {}
    for line in lines(path):
        if line["dataset"] == "mnist-5k" and line["precision"] == "float32" and not line["failure"]:
            sets.setdefault((line["repeat"], line["epochs"]), {})[line["id"]] = line["validation_loss"]
    means = {name: loss + sets[1, 12.0][name] for name, loss in sets[0, 12.0].items()}
    ranks = {name: place for place, name in enumerate(sorted(means, key=means.__getitem__), 1)}
    budgets = (32, 64, 96)
    print("| rung | goes on | " + " | ".join(f"{budget} epochs" for budget in budgets) + " |")
    print("|---|---|" + "---|" * len(budgets))
    for epochs, kept in ((0.5, 2), (0.5, 4), (1.0, 2), (1.0, 4), (2.0, 2), (2.0, 4), (0.0, 8)):
        places = []
        for budget in budgets:
            rng = random.Random(0)
            found = [winner(sets, epochs, kept, budget, rng) for _ in range(SIMULATED)]
            places.append(f"{statistics.mean(ranks[name] for name in found):.1f}")
        rung = f"{epochs:g} epochs" if epochs else "none"
        print(f"| {rung} | {kept} of 8 | {' | '.join(places)} |")


def winner(
    sets: dict[tuple[int, float], dict[str, float]], epochs: float, kept: int, budget: float, rng: random.Random
) -> str:
    """The network that wins one simulated search, which spends so many epochs."""
    waiting = rng.sample(sorted(sets[0, 12.0]), len(sets[0, 12.0]))
    done: dict[str, float] = {}
    spent = 0.0
    while spent < budget and len(waiting) >= 8:
        batch = [waiting.pop() for _ in range(8)]
        best = sorted(batch, key=sets[0, epochs].__getitem__)[:kept] if epochs else batch
        done |= {name: sets[0, 4.0][name] for name in best}
        spent += 8 * epochs + 4 * len(best)
    finalists = sorted(done, key=done.__getitem__)[:3]
    return min(finalists, key=sets[1, 12.0].__getitem__)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=["train", "table", "rungs", "paths"])
    parser.add_argument("words", nargs="*", help="[DATASET] FILE")
    parser.add_argument("--networks", type=int, default=60)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--group", type=int, default=1, help="how many a GPU trains at a time")
    parser.add_argument("--epochs", type=float, default=1.0, help="of `paths`")
    parser.add_argument("--batch", type=int, default=512, help="of `paths`")
    given = parser.parse_args()
    if given.what == "paths":
        paths(given.networks, given.epochs, given.batch)
    elif given.what == "train":
        train(given.words[0], Path(given.words[1]), given.networks, given.device, given.group)
    else:
        {"table": table, "rungs": rungs}[given.what](Path(given.words[0]))


if __name__ == "__main__":
    main()
