"""What remembering costs: the journal, going on with a long search, an MLflow that is dead.

python experiments/benchmarks/reliability.py journal     milliseconds a trial
python experiments/benchmarks/reliability.py resume      seconds until a search of 1,000 trials trains its next one
python experiments/benchmarks/reliability.py mlflow      seconds of a search with MLflow off, dead, hanging
"""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random

from nas.architecture.architecture import Limits
from nas.records.journal import FILE, Journal
from nas.records.record import read
from nas.spaces.cnn import Cnn
from nas.trial import Job, Trial

TRIALS, BATCH = 1_000, 8
REPEATS = 5
NAS = str(Path(sys.executable).with_name("nas"))

# Trains nothing: the loss is made up from the network's id. When it is first asked for a training, it says so.
MADE_UP = '''
"""Makes results up."""
import os, time
from pathlib import Path
from nas.evaluation.evaluator import Evaluator
from nas.trial import Trial

class MadeUp(Evaluator):
    """Returns at once."""

    def evaluate(self, jobs):
        Path("first").exists() or Path("first").write_text(repr(time.time()))
        if "STOP" in os.environ:
            os._exit(0)
        for job in jobs:
            loss = int(job.candidate.architecture.id[:6], 16) / 0xFFFFFF + 0.1 / job.epochs
            metrics = dict(validation_accuracy=1 - loss / 3, validation_loss=loss, parameters=100.0, flops=1000.0,
                           train_seconds=0.5, images_per_second=1000.0, latency_ms=0.1)
            yield Trial(job, metrics)
'''


def made_up(job: Job) -> Trial:
    loss = int(job.candidate.architecture.id[:6], 16) / 0xFFFFFF
    curve = ({"epoch": job.epochs, "train_loss": loss, "validation_loss": loss, "validation_accuracy": loss},)
    metrics = {"validation_accuracy": 1 - loss / 3, "validation_loss": loss, "parameters": 100.0, "flops": 1000.0}
    return Trial(job, metrics, curve)


def journal_ms() -> float:
    """Milliseconds a candidate: its training is kept and on the disk, and it is told."""
    space, rng = Cnn().within(Limits(max_parameters=34_826)), Random(0)
    trials = [made_up(Job(space.sample(rng), 1.0, seed)) for seed in range(TRIALS)]
    with tempfile.TemporaryDirectory() as folder, Journal(Path(folder, FILE)) as journal:
        journal.begin({"config": {}})
        start = time.perf_counter()
        for number, trial in enumerate(trials):
            if number % BATCH == 0:
                journal.asked(BATCH, [one.job.candidate for one in trials[number : number + BATCH]])
            journal.append(trial)
            journal.told(trial)
        return 1000 * (time.perf_counter() - start) / TRIALS


def resume_seconds(strategy: str) -> tuple[float, float]:
    """Until a search of 1,000 trials trains the next: from the command, and from its reading of the journal."""
    with tempfile.TemporaryDirectory() as place:
        Path(place, "plugins").mkdir()
        Path(place, "plugins", "made_up.py").write_text(MADE_UP)
        words = ["search", "--strategy", strategy, "--evaluator", "made-up", "--dataset", "mnist-5k"]
        words += ["--trials", str(TRIALS + 8), "--mlflow", "off", "--out", "one"]
        with subprocess.Popen([NAS, *words], cwd=place, stdout=-3, stderr=-3) as process:
            journal = Path(place, "one", FILE)
            while not journal.exists() or len(read(journal)[0].told) < TRIALS:
                assert process.poll() is None
                time.sleep(0.2)
            process.kill()
        Path(place, "first").unlink()
        start = time.time()
        subprocess.run([NAS, "resume", "./one"], cwd=place, env={**os.environ, "STOP": "1"}, check=True)
        record = read(journal)[0]
        assert len(record.told) >= TRIALS
        first = float(Path(place, "first").read_text())
        return first - start, first - record.sessions[-1].at


@contextmanager
def hanging() -> Iterator[str]:
    """A server that takes every connection and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        kept: list[socket.socket] = []

        def accept() -> None:
            while True:
                kept.append(server.accept()[0])

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def search_seconds(mlflow: str, seed: int) -> tuple[float, float]:
    """Of the whole command; and of that, how long it took to end when the winner was in the journal."""
    words = ["search", "--dataset", "mnist-5k", "--mlflow", mlflow, "--seed", str(seed), "--out", "one"]
    with tempfile.TemporaryDirectory() as place:
        start = time.time()
        subprocess.run([NAS, *words], cwd=place, check=True, capture_output=True)
        end = time.time()
        return end - start, end - read(Path(place, "one", FILE))[0].at


def table(head: str, rows: Sequence[tuple[str, Sequence[float]]]) -> None:
    print(f"| {head} | median | lowest | highest |\n|---|---|---|---|")
    for what, values in rows:
        print(f"| {what} | {statistics.median(values):.2f} | {min(values):.2f} | {max(values):.2f} |")


def journal() -> None:
    table(f"journal, {TRIALS:,} trials", [("ms a trial", [journal_ms() for _ in range(REPEATS)])])


def resume() -> None:
    rows = []
    for strategy in ("evolve", "trial-and-error"):
        both = [resume_seconds(strategy) for _ in range(3)]
        rows.append((f"{strategy}, from the command", [one for one, _ in both]))
        rows.append((f"{strategy}, of that for the replay", [two for _, two in both]))
    table(f"seconds until a search of {TRIALS:,} trials trains the next", rows)


def mlflow() -> None:
    """Side by side: seed after seed, each kind once, so that a slow minute slows all of them."""
    found: dict[str, list[tuple[float, float]]] = {"off": [], "dead": [], "hanging": []}
    with hanging() as uri:
        for seed in range(3):
            for kind, address in (("off", "off"), ("dead", "http://127.0.0.1:9"), ("hanging", uri)):
                found[kind].append(search_seconds(address, seed))
                print(kind, seed, found[kind][-1], file=sys.stderr, flush=True)
    rows = [(kind, [whole for whole, _ in both]) for kind, both in found.items()]
    rows += [(f"{kind}, of that after the winner", [tail for _, tail in both]) for kind, both in found.items()]
    table("seconds of the default search, MLflow", rows)


KINDS: dict[str, Callable[[], None]] = {"journal": journal, "resume": resume, "mlflow": mlflow}

if __name__ == "__main__":
    KINDS[sys.argv[1]]()
