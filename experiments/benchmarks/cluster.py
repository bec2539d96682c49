"""What a Ray cluster costs, and what it survives, on one machine: nodes are processes of their own.

    python experiments/benchmarks/cluster.py equal     the result, bit for bit: 2 strategies, 3 places
    python experiments/benchmarks/cluster.py instant   200 jobs that take no time
    python experiments/benchmarks/cluster.py start     the first trial: local, running cluster, no cluster
    python experiments/benchmarks/cluster.py whole     a whole search: local, running cluster
    python experiments/benchmarks/cluster.py lost      a killed, a stopped and a new node; Ctrl-C
    python experiments/benchmarks/cluster.py thousand  memory and files of a search with 1,000 made-up trials

Needs mnist-5k (NAS_DATA_DIR) and ``pip install 'ray>=2.60'``. Nothing else should run beside it.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from nas.architecture.architecture import Architecture
from nas.architecture.layers import Conv2d, GlobalAveragePool
from nas.evaluation.cluster.connection import leave
from nas.evaluation.cluster.evaluator import RayEvaluator
from nas.evaluation.local.local import LocalEvaluator
from nas.spaces.space import Candidate
from nas.testing.evaluators import _quarters
from nas.training.recipe import Recipe
from nas.trial import Job, Trial

if TYPE_CHECKING:
    from nas.data.dataset import Dataset
    from nas.evaluation.local.worker import Task

NAS = [str(Path(sys.executable).with_name("nas"))]
SMALL = ["--trials", "24", "--max-parameters", "20000", "--max-flops", "1500000", "--dataset", "mnist-5k"]
TIMES = {"train_seconds", "images_per_second", "latency_ms", "seconds"}
REPEATS = 5


def instant(jobs: Sequence[Job], dataset: Dataset, task: Task) -> Iterator[Trial]:
    """Made-up results."""
    for job in jobs:
        loss = int(job.candidate.id[:6], 16) / 0xFFFFFF
        metrics = {"validation_loss": loss, "validation_accuracy": 1 - loss, "parameters": 1.0, "latency_ms": 1.0}
        yield Trial(job, metrics)


measured = instant


class Instant(LocalEvaluator):
    """Jobs that take no time, in worker processes."""

    work, measure = "cluster:instant", "cluster:measured"


class RayInstant(RayEvaluator):
    """The same on a cluster."""

    trainer = Instant


def say(*cells: object) -> None:
    """A row of a table."""
    print(
        "|", " | ".join(f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in cells), "|", flush=True
    )


@contextmanager
def cluster(*cpus: int) -> Iterator[Any]:
    """A running cluster: a head without CPUs, and nodes with so many."""
    from ray.cluster_utils import Cluster

    nodes: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes.own = [nodes.add_node(num_cpus=count) for count in cpus]
    nodes.wait_for_nodes()
    os.environ["RAY_ADDRESS"] = nodes.address
    try:
        yield nodes
    finally:
        leave()
        nodes.shutdown()
        os.environ.pop("RAY_ADDRESS")


def of_node(node: Any) -> list[psutil.Process]:
    """The processes of a node."""
    own = [psutil.Process(one.process.pid) for several in node.all_processes.values() for one in several]
    return [one for process in own for one in (process, *process.children(recursive=True))]


def search(folder: Path, *words: str) -> float:
    """The seconds of a search."""
    begun = time.monotonic()
    command = [*NAS, "search", "--mlflow", "off", *words, "--out", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    return time.monotonic() - begun


def first(words: Sequence[str], folder: Path) -> float:
    """The seconds until a search has its first trial."""
    begun = time.monotonic()
    with following(words, folder) as lines:
        until(lines, "searching: ")
        return time.monotonic() - begun


def until(lines: Iterator[str], words: str) -> None:
    """Read the lines of a search until one has these words."""
    last = ""
    for last in lines:
        if words in last:
            return
    raise RuntimeError(f"the search has ended without {words!r}, with: {last}")


@contextmanager
def following(words: Sequence[str], folder: Path, found: list[Any] | None = None) -> Iterator[Iterator[str]]:
    """The lines of a search, which is ended afterwards."""
    command = [*NAS, "search", "--mlflow", "off", *words, "--out", str(folder)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        if found is not None:
            found.append(process)
        assert process.stderr is not None
        try:
            yield iter(process.stderr)
        finally:
            process.terminate()


def content(folder: Path) -> dict[str, Any]:
    """What a search has found, without times and the order of trainings."""
    found: dict[str, Any] = {"trials": {}, "asked": [], "test": None}
    for line in (folder / "journal.jsonl").read_text().splitlines():
        entry = json.loads(line)
        if "trial" in entry:
            trial = entry["trial"]
            curve = [_timeless(point) for point in trial["curve"]]
            key = json.dumps(trial["job"], sort_keys=True)
            found["trials"][key] = [_timeless(trial["metrics"]), curve, trial["failure"]]
        elif "asked" in entry:
            found["asked"].append(entry["asked"])
        elif "outcome" in entry:
            found["test"] = {name: entry["outcome"][name] for name in ("test_accuracy", "test_loss")}
    found["weights"] = (folder / "best" / "weights.safetensors").read_bytes()
    return found


def _timeless(values: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if name not in TIMES}


def equal(place: Path) -> None:
    """Whether three places find the same, bit for bit."""
    strategies = ("evolve", "trial-and-error")
    for name in strategies:
        search(place / f"{name} local", *SMALL, "--strategy", name, "--workers", "2")
    for cpus in ((2,), (1, 1)):
        with cluster(*cpus):
            for name in strategies:
                folder = place / f"{name} {cpus}"
                search(folder, *SMALL, "--strategy", name, "--evaluator", "ray")
                here, there = content(place / f"{name} local"), content(folder)
                same = {what: here[what] == there[what] for what in here}
                say(name, f"nodes of {cpus} CPUs", f"{len(here['trials'])} trainings", same)


def instantly(place: Path) -> None:
    """What a trial costs that takes no time."""
    data, recipe = _quarters(), Recipe()
    jobs = [Job(Candidate(Architecture((Conv2d(1 + n % 50, 3), GlobalAveragePool()))), 1.0, n) for n in range(200)]
    with cluster(2):
        for name, kind in (("local", Instant), ("ray", RayInstant)):
            made: Any = kind
            with made(data, recipe, workers=2) as evaluator:
                list(evaluator.evaluate(jobs))  # the processes start
                spent = []
                for _ in range(REPEATS):
                    begun = time.perf_counter()
                    assert len(list(evaluator.evaluate(jobs))) == len(jobs)
                    spent.append(1000 * (time.perf_counter() - begun) / len(jobs))
            say(name, "ms a job", statistics.median(spent), min(spent), max(spent))


def start(place: Path) -> None:
    """The first trial."""
    words = ["--dataset", "mnist-5k"]
    for number in range(3):
        say("local", first(words, place / f"local {number}"))
    words += ["--evaluator", "ray"]
    with cluster(2):
        for number in range(3):
            say("running cluster", first(words, place / f"running {number}"))
            time.sleep(3)
    for number in range(3):
        say("no cluster", first(words, place / f"cold {number}"))
        time.sleep(5)


def whole(place: Path) -> None:
    """A search with 24 small candidates, from the command to its end."""
    words = [*SMALL, "--epochs", "2"]
    for number in range(2):
        here = search(place / f"local {number}", *words)
        with cluster(2):
            there = search(place / f"ray {number}", *words, "--evaluator", "ray")
        say("seconds: local, ray", here, there, f"{100 * (there / here - 1):+.1f} %")


def lost(place: Path) -> None:
    """Nodes that are killed, stopped and new, and Ctrl-C."""
    words = [*SMALL, "--evaluator", "ray", "--epochs", "1"]
    for name, number in (("killed", signal.SIGKILL), ("stopped", signal.SIGSTOP)):
        with cluster(1, 1) as nodes, following(words, place / name) as lines:
            until(lines, " 8/24 done")
            victims = of_node(nodes.own[0])
            for one in victims:
                one.send_signal(number)
            begun = time.monotonic()
            until(lines, "was lost")
            noticed = time.monotonic() - begun
            until(lines, "searching: ")
            say(f"{name}: noticed", noticed, "the next trial", time.monotonic() - begun)
            for one in victims if number == signal.SIGSTOP else ():
                one.kill()
    processes: list[Any] = []
    with cluster(1) as nodes, following(words, place / "new", processes) as lines:
        until(lines, " 8/24 done")
        for one in of_node(nodes.own[0]):
            one.kill()
        until(lines, "no node is left")
        nodes.add_node(num_cpus=1)
        begun = time.monotonic()
        while not _agents():
            time.sleep(0.01)
        began = time.monotonic() - begun
        while len(_agents()[0].children(recursive=True)) < 3:  # two servers, and the worker that one of them forks
            time.sleep(0.01)
        working = time.monotonic() - begun
        until(lines, "searching: ")
        say("new node: its agent", began, "trains", working, "the next trial", time.monotonic() - begun)
        ours = [one for agent in _agents() for one in (agent, *agent.children(recursive=True))]
        begun = time.monotonic()
        processes[0].send_signal(signal.SIGINT)
        gone, alive = psutil.wait_procs(ours, timeout=10)
        say("Ctrl-C: gone", len(gone), "alive", len(alive), "after", time.monotonic() - begun)
        say("exit code", processes[0].wait(), "after", time.monotonic() - begun)


def _agents() -> list[psutil.Process]:
    known = psutil.process_iter(["cmdline"])
    return [process for process in known if "ray::Agent" in " ".join(process.info["cmdline"] or ())]


def thousand(place: Path) -> None:
    """What 1,000 made-up trials leave behind."""
    with cluster(2) as nodes:
        session = Path(nodes.head_node.get_session_dir_path())
        for kind in ("local", "ray"):
            before = _size(session)
            command = [sys.executable, __file__, "driver", kind, str(place / kind)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            print(done.stdout, end="", flush=True)
            say("MiB more in the folder of Ray's session", (_size(session) - before) / 2**20)


def driver(kind: str, folder: str) -> None:
    """The part of a search before its final selection, with made-up trials; the memory of this process."""
    from nas.experiment import Experiment
    from nas.run.recording import Start, recorded
    from nas.run.resolve import resolve
    from nas.run.runs import _explore

    evaluator: Any = {"local": Instant, "ray": RayInstant}[kind]
    settings: dict[str, Any] = {"dataset": "mnist-5k", "mlflow": "off", "trials": 1000, "rungs": 1}
    resolved = resolve(Experiment.of(evaluator=evaluator, **settings))
    with recorded(resolved, Start(Path(folder)), ()) as run:
        begun = time.monotonic()
        count = len(_explore(run))
        say(kind, "trials", count, "seconds", time.monotonic() - begun)
        say(kind, "MiB of the driver", psutil.Process().memory_info().rss / 2**20)


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


if __name__ == "__main__":
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    sys.modules["cluster"] = sys.modules["__main__"]  # which nodes import by this name
    Instant.__module__ = RayInstant.__module__ = "cluster"
    if sys.argv[1:2] == ["driver"]:
        driver(*sys.argv[2:])
        sys.exit()
    every = {
        "equal": equal,
        "instant": instantly,
        "start": start,
        "whole": whole,
        "lost": lost,
        "thousand": thousand,
    }
    with tempfile.TemporaryDirectory() as folder:
        for word in sys.argv[1:] or list(every):
            every[word](Path(folder))
