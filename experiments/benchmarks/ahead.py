"""What batches that are asked for ahead bring, and what they cost.

python experiments/benchmarks/ahead.py busy     the share of the time in which workers train, by a virtual clock
python experiments/benchmarks/ahead.py table    all of NAS-Bench-201 as a table, 60 seeds, eight virtual workers
python experiments/benchmarks/ahead.py engine   milliseconds a trial with 1,000 jobs in flight

The table is looked for in NAS_DATA_DIR (nasbench201-mini/accuracies.csv.gz).
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from engine import Instant
from sample_efficiency import BATCH, EXAMPLES, LONGEST, make, spread, table

from nas import plugins
from nas.architecture.architecture import Limits
from nas.evaluation.cached import CachedEvaluator
from nas.objectives import Objective
from nas.records.journal import Journal
from nas.search import Budget, Search
from nas.spaces.cnn import Cnn
from nas.strategies.evolve import Evolve
from nas.trial import Job, Trial

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from virtual import Virtual

LOSS = (Objective("validation_loss", -1),)
STRATEGIES = ("random-search", "evolve", "trial-and-error", "local-search")
AHEAD, SEEDS, WORKERS = (1, 2, 4, 8), 60, 8
REPEATS, IN_FLIGHT = 5, 1_000


def made_up(job: Job) -> Trial:
    (trial,) = Instant().evaluate([job])
    return trial


def busy() -> None:
    print("| workers | ahead | busy % |\n|---|---|---|")
    for workers, ahead in ((2, 1), (2, 4), (8, 1), (8, 4), (64, 1), (64, 64)):
        shares = []
        for seed in range(REPEATS):
            evaluator = Virtual(made_up, workers, seed)
            strategy = Evolve(Cnn().within(Limits()), objectives=LOSS, seed=seed)
            budget = Budget(12 * BATCH * ahead, batch=BATCH, ahead=ahead)
            Search(strategy, evaluator, budget, epochs=1.0, seed=seed, rungs=2).run()
            shares.append(100 * evaluator.busy / evaluator.now / workers)
        print(f"| {workers} | {ahead} | {statistics.median(shares):.0f} ({min(shares):.0f}–{max(shares):.0f}) |")


def on_table(words: str, ahead: int, seed: int) -> tuple[int, float]:
    """Evaluations, and mean trainings' worth of time with eight workers, until one of the best 0.1 %."""
    space: Any = plugins.find("space", "nasbench201", [EXAMPLES])().within(Limits())
    values = sorted(table().values(), reverse=True)
    good = values[round(len(values) / 1000) - 1]
    found: list[float] = []

    def looked_up(job: Job) -> Trial:
        accuracy = table()[space.cell_string(job.candidate.choices)]
        if accuracy >= good:
            found.append(evaluator.now)
        return Trial(job, {"validation_accuracy": accuracy / 100}, scores=(accuracy,))

    class Until(Budget):
        """Ends when a good cell was found."""

        def next(self, asked: int) -> int:
            """As always, until then."""
            return 0 if found else super().next(asked)

    evaluator = Virtual(looked_up, WORKERS, seed)
    strategy = make(words, space, "validation_accuracy", seed)
    history = Search(strategy, evaluator, Until(LONGEST, batch=BATCH, ahead=ahead), epochs=1.0, seed=seed).run()
    count = next((i for i, trial in enumerate(history, 1) if trial.scores[0] >= good), LONGEST + 1)
    return count, min(found, default=evaluator.now)


def tables(strategies: Sequence[str]) -> None:
    print("| strategy | ahead | evaluations | the slowest | time |\n|---|---|---|---|---|")
    with ProcessPoolExecutor() as pool:
        for words in strategies:
            for ahead in AHEAD:
                results = list(
                    pool.map(on_table, *zip(*[(words, ahead, seed) for seed in range(SEEDS)], strict=True))
                )
                counts = [count for count, _ in results]
                times = spread([round(seconds, 1) for _, seconds in results])
                print(f"| {words} | {ahead} | {spread(counts)} | {max(counts)} | {times} |", flush=True)


def engine() -> None:
    space, found = Cnn().within(Limits(max_parameters=34_826)), []
    for seed in range(REPEATS):
        with tempfile.TemporaryDirectory() as folder, Journal(Path(folder, "journal.jsonl")) as journal:
            evaluator = CachedEvaluator(Virtual(made_up, IN_FLIGHT, seed), journal, LOSS)
            strategy = Evolve(space, objectives=LOSS, seed=seed)
            budget = Budget(3 * IN_FLIGHT, batch=BATCH, ahead=IN_FLIGHT // BATCH)
            start = time.perf_counter()
            done = Search(strategy, evaluator, budget, epochs=1.0, observer=journal).run()
            found.append(1000 * (time.perf_counter() - start) / len(done))
    print(f"{statistics.median(found):.2f} ms a trial ({min(found):.2f} to {max(found):.2f})")


def main() -> None:
    mode, *words = sys.argv[1:] or ["busy"]
    if mode == "table":
        tables(words or STRATEGIES)
    else:
        {"busy": busy, "engine": engine}[mode]()


if __name__ == "__main__":
    main()
