"""What the dashboard costs, and how quick a large search is to look at.

    python experiments/benchmarks/dashboard.py write --trials 500    # a made-up search, by what its trials carry
    python experiments/benchmarks/dashboard.py look  --trials 500    # its pages in a real browser
    python experiments/benchmarks/dashboard.py share --seeds 0 1 2   # real searches with MLflow and without
    python experiments/benchmarks/dashboard.py fast  --trials 12000  # hundreds of made-up trials a second

`look` needs Chromium and the development packages.
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from nas.architecture.architecture import Limits
from nas.dashboard.store import store_uri
from nas.dashboard.thread import MlflowThread, sync
from nas.evaluation.cached import CachedEvaluator
from nas.objectives import Objective
from nas.records.journal import FILE, Journal
from nas.records.observer import Observer, Observers
from nas.records.record import Record
from nas.search import Budget, Search
from nas.spaces.cnn import Cnn
from nas.strategies.evolve import Evolve
from nas.trial import Job, Trial, job_seed

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))  # browser.py


def made_up(folder: Path, trials: int) -> Record:
    """A search of random networks whose results are made up: no training."""
    rng = random.Random(0)
    space = Cnn().within(Limits())
    config = {"strategy": "evolve", "space": "cnn", "objectives": ["-validation_loss"], "epochs": 4, "rungs": 2}
    path = folder / "runs" / "large"
    path.mkdir(parents=True)
    with Journal(path / FILE) as journal:
        data = {"name": "mnist-5k", "fingerprint": "0123456789abcdef", "train": 3500, "validation": 500}
        limits = {"input_shape": [1, 28, 28], "classes": 10}
        journal.begin({"config": config, "dataset": data, "limits": limits, "note": ""})
        for number in range(trials):
            candidate = space.sample(rng)
            loss = rng.uniform(0.05, 0.5) + 0.5 / (1 + number)
            rows = candidate.architecture.table((1, 28, 28), 10)
            metrics = {
                "validation_loss": loss, "validation_accuracy": 1 - loss / 5, "train_seconds": 1.0,
                "parameters": float(sum(row.parameters for row in rows)), "images_per_second": 3000.0,
                "flops": float(sum(row.flops for row in rows)), "latency_ms": 0.3,
            }  # fmt: skip
            curve = tuple(
                {"epoch": e, "train_loss": loss + 1 / e, "validation_loss": loss + 0.5 / e, "seconds": e,
                 "validation_accuracy": 1 - loss / 5 - 0.1 / e} for e in (1.0, 2.0, 3.0, 4.0)
            )  # fmt: skip
            journal.told(Trial(Job(candidate, 4.0, job_seed(0, candidate.architecture.id)), metrics, curve))
        return journal.record


def write(trials: int) -> None:
    """Seconds a trial and bytes, for what the runs of trials carry."""
    from mlflow import MlflowClient

    module: Any = import_module("nas.dashboard.runs")
    client: Any = MlflowClient

    def no_files(self: Any, run_id: str, folder: str, path: str | None = None) -> None:
        if path == "figures":
            original(self, run_id, folder, path)

    original = client.log_artifacts
    drawing = module.network_svg
    for name, files, svg in (
        ("everything", original, drawing),
        ("no drawing", original, lambda *_: ""),
        ("no files", no_files, drawing),
    ):
        with tempfile.TemporaryDirectory() as place:
            record = made_up(Path(place), trials)
            client.log_artifacts = files
            module.network_svg = svg
            uri = store_uri(Path(place))
            import_module("nas.dashboard.writer").Writer(record, uri)  # the database is made, MLflow imported
            began = time.perf_counter()
            sync(record, uri)
            seconds = time.perf_counter() - began
            size = sum(path.stat().st_size for path in Path(place).rglob("*") if path.is_file())
            print(f"{name:12} {1000 * seconds / trials:6.1f} ms a trial, store of {size / 1e6:.1f} MB", flush=True)
    client.log_artifacts = original
    module.network_svg = drawing


def look(trials: int) -> None:
    """Seconds until a person sees what a page is for."""
    from browser import browser, dashboard, unfold

    with tempfile.TemporaryDirectory() as place:
        record = made_up(Path(place), trials)
        sync(record, store_uri(Path(place)))
        with dashboard(Path(place)) as address:
            steps: dict[str, list[float]] = {}
            for _ in range(4):  # the first one warms the server up
                with browser() as page:

                    def timed(name: str, what: Callable[[], Any]) -> None:
                        began = time.perf_counter()
                        what()
                        steps.setdefault(name, []).append(time.perf_counter() - began)

                    def list_of_searches() -> None:
                        page.goto(address)
                        page.get_by_role("link", name="large").first.wait_for()

                    def its_trials() -> None:
                        unfold(page)
                        page.get_by_text("evolve 0").first.wait_for()

                    def the_search() -> None:
                        page.get_by_role("link", name="large").first.click()
                        page.get_by_role("link", name="evolve 0").first.wait_for()

                    def its_curves() -> None:
                        page.get_by_role("tab", name="Model metrics").click()
                        page.locator(".js-plotly-plot .scatterlayer path").first.wait_for(state="attached")

                    def a_figure() -> None:
                        page.get_by_role("tab", name="Artifacts").click()
                        page.get_by_text("figures", exact=True).click()
                        page.get_by_text("choices.png", exact=True).click()
                        page.locator("img[alt$='choices.png']").wait_for()

                    for step in (list_of_searches, its_trials, the_search, its_curves, a_figure):
                        timed(step.__name__.replace("_", " "), step)
            for name, seconds in steps.items():
                print(f"{name:18} {statistics.median(seconds[1:]):.1f} s (first {seconds[0]:.1f} s)")


def share(seeds: list[int]) -> None:
    """Seconds of whole commands: a default search on mnist-5k with MLflow and without, in turns."""
    nas = [
        sys.executable,
        "-m",
        "nas",
        "search",
        "--dataset",
        "mnist-5k",
        "--json",
        "--seed",
    ]
    pairs = []
    for seed in seeds:
        found = {}
        for mlflow in (["auto", "off"], ["off", "auto"])[seed % 2]:
            with tempfile.TemporaryDirectory() as place:
                began = time.perf_counter()
                command = [*nas, str(seed), "--mlflow", mlflow]
                subprocess.run(command, cwd=place, check=True, capture_output=True)
                found[mlflow] = time.perf_counter() - began
        pairs.append(found["auto"] / found["off"] - 1)
        print(
            f"seed {seed}: {found['auto']:.1f} s with, {found['off']:.1f} s without: {100 * pairs[-1]:+.1f} %",
            flush=True,
        )
    print(f"median {100 * statistics.median(pairs):+.1f} %")


class Instant:
    """Makes up metrics from the id of the architecture."""

    def evaluate(self, jobs: Sequence[Job], /) -> Iterator[Trial]:
        """One trial a job, at once."""
        for job in jobs:
            loss = (1 + int(job.candidate.architecture.id[:6], 16) / 0xFFFFFF) / (1 + job.epochs)
            metrics = {"validation_loss": loss, "validation_accuracy": 1 - loss / 5, "train_seconds": 0.001}
            yield Trial(job, {**metrics, "parameters": 1e4, "flops": 1e6, "latency_ms": 1.0})


def fast(trials: int) -> None:
    """Seconds of a search whose trainings take no time, with MLflow or not, and until the store is complete."""
    from mlflow import MlflowClient

    space, objectives = Cnn().within(Limits(max_parameters=34_826)), (Objective("validation_loss", -1),)
    seconds = {}
    for name in ("without MLflow", "with MLflow"):
        with tempfile.TemporaryDirectory() as place:
            path = Path(place, "runs", "large")
            path.mkdir(parents=True)
            with Journal(path / FILE) as journal:
                config = {"strategy": "evolve", "space": "cnn", "objectives": ["-validation_loss"]}
                config |= {"epochs": 4.0, "rungs": 2}  # type: ignore[dict-item]
                data = {
                    "name": "mnist-5k",
                    "fingerprint": "0123456789abcdef",
                    "train": 3500,
                    "validation": 500,
                }
                limits = {"input_shape": [1, 28, 28], "classes": 10}
                journal.begin({"config": config, "dataset": data, "limits": limits, "note": ""})
                observers: list[Observer] = [journal]
                if name == "with MLflow":
                    observers.append(MlflowThread(journal.record, print, store_uri(Path(place))))
                evaluator = CachedEvaluator(Instant(), journal, objectives)
                strategy = Evolve(space, objectives=objectives)
                told = Observers(observers)
                began = time.perf_counter()
                Search(strategy, evaluator, Budget(trials), epochs=4.0, observer=told, rungs=2, space=space).run()
                seconds[name] = time.perf_counter() - began
                journal.stopped("failed", "")
                began = time.perf_counter()
                told.close()
                closing = time.perf_counter() - began
                print(
                    f"{name}: {trials} trials in {seconds[name]:.1f} s, closed after {closing:.1f} s",
                    flush=True,
                )
            if name == "with MLflow":
                client = MlflowClient(store_uri(Path(place)))
                runs = client.search_runs(
                    [one.experiment_id for one in client.search_experiments()], max_results=50_000
                )
                [search] = [run for run in runs if "nas.trial" not in run.data.tags]
                curve = client.get_metric_history(search.info.run_id, "search/best_validation_loss")
                print(f"{len(runs) - 1} runs of candidates, {len(curve)} points in the curve", flush=True)
    print(f"slower by {100 * (seconds['with MLflow'] / seconds['without MLflow'] - 1):+.1f} %", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["write", "look", "share", "fast"])
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    given = parser.parse_args()
    if given.what == "share":
        share(given.seeds)
    else:
        {"write": write, "look": look, "fast": fast}[given.what](given.trials)
