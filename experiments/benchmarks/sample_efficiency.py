"""How many evaluations a strategy needs, and what it costs itself.

python experiments/benchmarks/sample_efficiency.py table   all of NAS-Bench-201 as a table, 60 seeds
python experiments/benchmarks/sample_efficiency.py cnn     real trainings: the default space on mnist-5k, 5 seeds
python experiments/benchmarks/sample_efficiency.py cost    milliseconds an asked candidate at 1,000 told trials

The table is looked for in NAS_DATA_DIR (nasbench201-mini/accuracies.csv.gz). More words are strategies, with
options after a colon: "evolve", "trial-and-error:sampler=random". What was measured is kept in
sample_efficiency.jsonl in the current folder, and is not measured again.
"""

from __future__ import annotations

import csv
import functools
import gzip
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from random import Random
from typing import Any

from nas import plugins
from nas.architecture.architecture import Limits
from nas.evaluation.cached import CachedEvaluator
from nas.objectives import Objective, scored
from nas.records.journal import Journal
from nas.search import Budget, Search
from nas.spaces.cnn import Cnn
from nas.spaces.space import SearchSpace
from nas.strategies.strategy import Strategy
from nas.trial import Job, Trial, job_seed

EXAMPLES = Path(__file__).parents[2] / "plugins"
KEPT = Path("sample_efficiency.jsonl")
TABLE_STRATEGIES = ("random-search", "evolve", "trial-and-error", "local-search")
CNN_STRATEGIES = ("random-search", "evolve", "trial-and-error")
SAMPLERS = tuple(f"trial-and-error:sampler={name}" for name in ("random", "grid", "cmaes", "nsga2", "gp"))
BATCH = 8
LONGEST = 1_500


def make(words: str, space: SearchSpace, objective: str, seed: int) -> Strategy:
    name, _, options = words.partition(":")
    pairs = dict(pair.split("=") for pair in options.split(",") if pair)
    kind = plugins.find("strategy", name, [EXAMPLES])
    made: Strategy = plugins.create(kind, pairs, space=space, objectives=(Objective.parse(objective),), seed=seed)
    return made


@functools.cache
def table() -> dict[str, float]:
    """Validation accuracy in percent (CIFAR-10, the short training) by the name of the cell."""
    path = Path(os.environ.get("NAS_DATA_DIR", "."), "nasbench201-mini", "accuracies.csv.gz")
    with gzip.open(path, "rt", newline="") as file:
        return {row["architecture"]: float(row["cifar10_valid"]) for row in csv.DictReader(file)}


class Table:
    """An evaluator that looks the accuracy up, and remembers whether it was asked for the best cell."""

    def __init__(self, space: Any) -> None:
        self.space = space
        self.best = max(table().values())
        self.found = False

    def evaluate(self, jobs: Sequence[Job], /) -> Iterator[Trial]:
        """One trial a job, at once."""
        for job in jobs:
            accuracy = table()[self.space.cell_string(job.candidate.choices)]
            self.found |= accuracy >= self.best
            yield Trial(job, {"validation_accuracy": accuracy / 100}, scores=(accuracy,))


def on_table(words: str, seed: int) -> dict[str, Any]:
    """How many evaluations until one of the best 0.1 %, and until the very best; None: not in 1,500."""
    space = plugins.find("space", "nasbench201", [EXAMPLES])().within(Limits())
    cells = Table(space)

    class Until(Budget):
        """Ends when the best cell was found."""

        def next(self, done: int) -> int:
            """As always, until then."""
            return 0 if cells.found else super().next(done)

    strategy = make(words, space, "validation_accuracy", seed)
    history = Search(strategy, cells, Until(LONGEST, batch=BATCH), epochs=1.0, seed=seed).run()
    values = sorted(table().values(), reverse=True)
    reached = {"good": values[round(len(values) / 1000) - 1], "best": values[0]}
    return {
        name: next((i for i, trial in enumerate(history, 1) if trial.scores[0] >= value), None)
        for name, value in reached.items()
    }


def on_cnn(words: str, seed: int) -> dict[str, Any]:
    """The best validation loss after 36 and after 72 trials of the `cnn` space on mnist-5k, as a search trains."""
    from nas.data import open_named
    from nas.evaluation.local.local import LocalEvaluator
    from nas.training.recipe import Recipe

    data = open_named("mnist-5k").load()
    space = Cnn().within(Limits(data.input_shape, len(data.classes)))
    objectives = (Objective.parse("-validation_loss"),)
    journal = Path(f"sample_efficiency-{words.replace(':', '-').replace('=', '-')}-{seed}.jsonl")
    strategy = make(words, space, "-validation_loss", seed)
    with Journal(journal) as kept, LocalEvaluator(data, Recipe(), workers=2) as local:
        evaluator = CachedEvaluator(local, kept, objectives)
        history = Search(strategy, evaluator, Budget(72, batch=BATCH), epochs=4.0, seed=seed, rungs=2).run()
    found = {}
    for count in (36, 72):
        full = [trial.scores[0] for trial in history[:count] if trial.scores and trial.job.epochs == 4]
        found[str(count)] = -max(full)
    return found


def cost(words: str, seed: int) -> dict[str, Any]:
    """Milliseconds an asked candidate, when 1,000 trials of the `cnn` space were told; the telling included."""
    space = Cnn().within(Limits())
    objectives = (Objective.parse("-validation_loss"),)
    strategy = make(words, space, "-validation_loss", seed)
    rng = Random(seed)

    def told(candidates: Sequence[Any]) -> list[Trial]:
        jobs = [Job(one, 1.0, job_seed(seed, one.architecture.id)) for one in candidates]
        losses = [int(job.candidate.architecture.id[:6], 16) / 0xFFFFFF for job in jobs]
        trials = [Trial(job, {"validation_loss": loss}) for job, loss in zip(jobs, losses, strict=True)]
        return [scored(trial, objectives) for trial in trials]

    for _ in range(1_000 // BATCH):
        strategy.tell(told([space.sample(rng) for _ in range(BATCH)]))
    strategy.ask(BATCH)  # the first one imports what is needed
    asked = 0
    start = time.perf_counter()
    for _ in range(1 if "gp" in words else 10):
        candidates = strategy.ask(BATCH)
        asked += len(candidates)
        strategy.tell(told(candidates))
    return {"ms": 1000 * (time.perf_counter() - start) / asked}


MODES = {
    "table": (on_table, TABLE_STRATEGIES, 60),
    "cnn": (on_cnn, CNN_STRATEGIES, 5),
    "cost": (cost, (*TABLE_STRATEGIES, *SAMPLERS), 5),
}


def measure(mode: str, words: str, seed: int) -> dict[str, Any]:
    return {"mode": mode, "strategy": words, "seed": seed, **MODES[mode][0](words, seed)}


def kept() -> dict[tuple[str, str, int], dict[str, Any]]:
    lines = KEPT.read_text().splitlines() if KEPT.exists() else []
    rows = [json.loads(line) for line in lines]
    return {(row["mode"], row["strategy"], row["seed"]): row for row in rows}


def keep(row: dict[str, Any]) -> None:
    with KEPT.open("a") as file:
        file.write(json.dumps(row) + "\n")


def spread(values: Sequence[float]) -> str:
    """Median, and the quarter below and above it."""
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:g} ({low:g}–{high:g})"


def report(mode: str, strategies: Sequence[str], seeds: int) -> None:
    rows = kept()
    heads = {
        "table": "| strategy | to one of the best 0.1 % | seeds | the slowest | to the very best | seeds |",
        "cnn": "| strategy | best validation loss after 36 trials | after 72 trials | seeds |",
        "cost": "| strategy | ms a candidate |",
    }
    print(heads[mode])
    print("|---" * (heads[mode].count("|") - 1) + "|")
    for words in strategies:
        own = [rows[mode, words, seed] for seed in range(seeds)]
        if mode == "table":
            cells = []
            for name in ("good", "best"):
                found = [row[name] for row in own if row[name]]
                reached = [row[name] or LONGEST + 1 for row in own]
                cells += [spread(reached), f"{len(found)} of {len(own)}"]
                cells += [str(max(reached))] if name == "good" else []
        elif mode == "cnn":
            cells = []
            for count in ("36", "72"):
                losses = [row[count] for row in own]
                cells.append(f"{statistics.mean(losses):.4f} ± {statistics.stdev(losses):.4f}")
            cells.append(str(len(own)))
        else:
            cells = [spread([round(row["ms"], 2) for row in own])]
        print(f"| {words} | {' | '.join(cells)} |")


def main() -> None:
    mode, *strategies = sys.argv[1:] or ["table"]
    _, default, seeds = MODES[mode]
    strategies = strategies or list(default)
    todo = [(mode, words, seed) for words in strategies for seed in range(seeds)]
    todo = [one for one in todo if one not in kept()]
    if mode == "table":  # one core a search; the others use both, or are timed
        with ProcessPoolExecutor() as pool:
            for future in as_completed([pool.submit(measure, *one) for one in todo]):
                keep(future.result())
    else:
        for one in todo:
            keep(measure(*one))
            print(one, file=sys.stderr)
    report(mode, strategies, seeds)


if __name__ == "__main__":
    main()
