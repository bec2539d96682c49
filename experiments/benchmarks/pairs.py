"""Pairs of searches at the same time: in two threads with two stores, in two processes with one new store.

python experiments/benchmarks/pairs.py threads | processes [PAIRS]

Each store must have exactly its own searches: closed, with every candidate once, a model and a registered version.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

SMALL: dict[str, Any] = {
    "dataset": "mnist-5k", "trials": 4, "batch": 4, "epochs": 0.02, "rungs": 1, "workers": 1,
    "max_parameters": 5_000, "max_flops": 500_000, "precision": "float32",
}  # fmt: skip


def search(uri: str, out: Path, failures: list[str]) -> None:
    """One search; what goes wrong is added to the failures."""
    import nas
    from nas.records.observer import Observer

    class Warned(Observer):
        def warned(self, message: str) -> None:
            failures.append(message)

    try:
        nas.search(**SMALL, mlflow=uri, out=out, observers=[Warned()])
    except Exception as error:  # noqa: BLE001  # counted
        failures.append(repr(error))


def missing(uri: str, folders: list[Path]) -> list[str]:
    """What a store lacks of these searches, or has besides them."""
    from mlflow import MlflowClient

    from nas.records.record import read

    client, found = MlflowClient(uri, uri), []
    records = {folder: read(folder / "journal.jsonl")[0] for folder in folders}
    versions = [version.tags["search"] for version in client.search_model_versions()]
    if sorted(versions) != sorted(folder.name for folder in folders):
        found.append(f"registered: {versions}")
    [experiment] = [one.experiment_id for one in client.search_experiments() if one.name == "nas"]
    runs = client.search_runs([experiment], max_results=1000)
    wanted = sorted((record.id, str(n + 1)) for record in records.values() for n in range(-1, len(record.told)))
    has = sorted((run.data.tags["nas.id"], run.data.tags.get("nas.trial", "0")) for run in runs)
    if has != wanted or {run.info.status for run in runs} != {"FINISHED"}:
        found.append(f"{len(runs)} runs instead of {len(wanted)}, {[run.info.status for run in runs]}")
    if len(client.search_logged_models([experiment])) != len(folders):
        found.append("models are missing")
    return found


def in_threads(place: Path) -> list[str]:
    """A pair in two threads of this process, each with its own store."""
    before, failures = dict(os.environ), list[str]()
    folders = [place / name / "search" for name in ("left", "right")]
    uris = [f"sqlite:///{folder.parent}/mlflow.db" for folder in folders]
    threads = [
        threading.Thread(target=search, args=(uri, folder, failures))
        for uri, folder in zip(uris, folders, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for uri, folder in zip(uris, folders, strict=True):
        failures += missing(uri, [folder])
    changed = {name for name in {*before, *os.environ} if before.get(name) != os.environ.get(name)}
    # MLflow removes the name of an earlier session when it is imported.
    own = ("TORCH", "_MLFLOW_TELEMETRY")
    return failures + [f"{name} has changed" for name in changed if not name.startswith(own)]


def in_processes(place: Path, others: list[subprocess.Popen[str]]) -> list[str]:
    """A pair in two processes, with one store that does not exist before."""
    uri, folders = f"sqlite:///{place}/mlflow.db", [place / "left", place / "right"]
    for other, folder in zip(others, folders, strict=True):
        assert other.stdin is not None
        other.stdin.write(f"{uri} {folder}\n")
        other.stdin.flush()
    answers = [other.stdout.readline().strip() for other in others if other.stdout is not None]
    return [answer for answer in answers if answer != "[]"] + missing(uri, folders)


def main() -> None:
    """Run the pairs, and print what was not complete."""
    kind, count = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 50
    if kind == "one":
        for line in sys.stdin:
            uri, folder = line.split()
            failures: list[str] = []
            search(uri, Path(folder), failures)
            print(failures, flush=True)
        return
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    others = [
        subprocess.Popen([sys.executable, __file__, "one"], **pipes)  # type: ignore[call-overload]
        for _ in range(2 if kind == "processes" else 0)
    ]
    begun, complete = time.monotonic(), 0
    for number in range(1, count + 1):
        with tempfile.TemporaryDirectory() as folder:
            failures = in_processes(Path(folder), others) if others else in_threads(Path(folder))
        complete += not failures
        if failures:
            print(f"pair {number}: {failures}", flush=True)
    for other in others:
        other.communicate()
    print(f"{complete} of {count} pairs in two {kind} are complete, {time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    main()
