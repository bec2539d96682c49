"""What the engine costs per trial, with an evaluator that returns at once, and how long ``nas --help`` takes.

python experiments/benchmarks/engine.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from nas.architecture.architecture import Limits
from nas.evaluation.cached import CachedEvaluator
from nas.objectives import Objective
from nas.records.journal import Journal
from nas.search import Budget, Search
from nas.spaces.cnn import Cnn
from nas.strategies.evolve import Evolve
from nas.trial import Job, Trial

TRIALS = 500
REPEATS = 5


class Instant:
    """Makes up metrics from the id of the architecture."""

    def evaluate(self, jobs: Sequence[Job], /) -> Iterator[Trial]:
        """One trial a job, at once."""
        for job in jobs:
            loss = int(job.candidate.architecture.id[:6], 16) / 0xFFFFFF
            yield Trial(job, {"validation_loss": loss, "validation_accuracy": 1 - loss, "parameters": 1.0})


def engine_ms() -> float:
    space = Cnn().within(Limits(max_parameters=34_826))
    objectives = (Objective("validation_loss", -1),)
    with tempfile.TemporaryDirectory() as folder, Journal(Path(folder, "journal.jsonl")) as journal:
        evaluator = CachedEvaluator(Instant(), journal, objectives)
        strategy = Evolve(space, objectives=objectives)
        start = time.perf_counter()
        done = Search(strategy, evaluator, Budget(TRIALS), epochs=1.0).run()
        return 1000 * (time.perf_counter() - start) / len(done)


def help_seconds() -> float:
    command = [str(Path(sys.executable).with_name("nas")), "--help"]
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    help_seconds()  # the first one reads the files from the disk
    rows = [
        (f"engine and journal, {TRIALS} trials, ms per trial", [engine_ms() for _ in range(REPEATS)]),
        ("nas --help, seconds", [help_seconds() for _ in range(REPEATS)]),
    ]
    print("| what | median | lowest | highest |\n|---|---|---|---|")
    for what, values in rows:
        print(f"| {what} | {statistics.median(values):.3f} | {min(values):.3f} | {max(values):.3f} |")


if __name__ == "__main__":
    main()
