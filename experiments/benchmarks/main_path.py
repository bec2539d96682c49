"""The real commands on real data, each in a folder of its own: what they reach, how long, and what they use.

python experiments/benchmarks/main_path.py mnist-5k    three default searches, seeds 0 to 2
python experiments/benchmarks/main_path.py mnist       three searches of ten minutes, smaller than the lecture's
python experiments/benchmarks/main_path.py lecture     the lecture's network with its recipe, three seeds

More words are other seeds.
"""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from nas.statistics import deviation

TRAINED = r"loss\s+\S+\s+·"  # in a line about a training, and in no other

COMMANDS = {
    "mnist-5k": "search --strategy evolve --dataset mnist-5k",
    "mnist": "search --strategy evolve --dataset mnist --max-parameters 34826 --time-limit 10m",
    "lecture": "train lecture --dataset mnist --epochs 3 --recipe lecture",
}


def run(words: list[str]) -> dict[str, Any]:
    """One command: what it printed, its seconds, the peak memory of its whole process tree, and how busy it was.

    Busy is what share of all cores it had between the first and the last line that it wrote of a training.
    """
    command = [str(Path(sys.executable).with_name("nas")), *words, "--json"]
    seen: dict[str, Any] = {"peak": 0, "first_line": 0.0, "first_trial": 0.0, "busy": "–"}
    work: dict[int, float] = {}  # seconds of a core, by process
    trained: list[tuple[int, float, float]] = []  # lines, seconds since the start, seconds of cores
    with tempfile.TemporaryDirectory() as folder:
        output, progress = Path(folder, "output"), Path(folder, "progress")
        start = time.perf_counter()
        with output.open("w") as out, progress.open("w") as err:
            process = subprocess.Popen(command, cwd=folder, stdout=out, stderr=err)
            while process.poll() is None:
                elapsed = time.perf_counter() - start
                text = progress.read_text()
                seen["first_line"] = seen["first_line"] or (elapsed if text else 0.0)
                lines = len(re.findall(TRAINED, text))
                seen["first_trial"] = seen["first_trial"] or (elapsed if lines else 0.0)
                note_work(process.pid, work)  # each time: what a process did after the last look ends with it
                if lines and (not trained or lines != trained[-1][0]):
                    trained.append((lines, time.perf_counter() - start, sum(work.values())))
                seen["peak"] = max(seen["peak"], tree_memory(process.pid))
                time.sleep(0.25)
        seconds = time.perf_counter() - start
        if process.returncode:
            raise SystemExit(progress.read_text())
        printed = json.loads(output.read_text().splitlines()[-1])
    if len(trained) > 1:
        (_, begun, before), (_, ended, after) = trained[0], trained[-1]
        seen["busy"] = f"{100 * (after - before) / (ended - begun) / (psutil.cpu_count() or 1):.0f}"
    return {**printed, **printed.get("winner", {}), **seen, "seconds": seconds}


def note_work(pid: int, work: dict[int, float]) -> None:
    """The CPU time of a process and all its descendants so far; of those that have ended, what was last seen."""
    root = psutil.Process(pid)
    for process in [root, *root.children(recursive=True)]:
        with suppress(psutil.Error):
            times = process.cpu_times()
            work[process.pid] = times.user + times.system


def tree_memory(pid: int) -> int:
    """Bytes of a process and all its descendants; memory that they share is counted once (PSS)."""
    total = 0
    try:
        root = psutil.Process(pid)
        for process in [root, *root.children(recursive=True)]:
            try:
                total += process.memory_full_info().pss
            except psutil.Error:
                continue
    except psutil.Error:
        pass
    return total


def main() -> None:
    which = sys.argv[1] if len(sys.argv) > 1 else "mnist-5k"
    words = COMMANDS[which].split()
    print(f"nas {COMMANDS[which]}, {psutil.cpu_count()} cores\n")
    columns = [
        "seed",
        "test %",
        "validation %",
        "parameters",
        "trials",
        "seconds",
        "first line",
        "first trial",
        "busy %",
    ]
    print(f"| {' | '.join([*columns, 'peak GiB'])} |")
    print("|" + 10 * "---|")
    tests = []
    for seed in [int(word) for word in sys.argv[2:]] or range(3):
        got = run([*words, "--seed", str(seed)])
        tests.append(100 * got["test_accuracy"])
        print(
            f"| {seed} | {tests[-1]:.2f} | {100 * got['validation_accuracy']:.2f} | {got['parameters']:,} "
            f"| {got.get('trials', 1)} | {got['seconds']:.0f} "
            f"| {got['first_line']:.1f} | {got['first_trial']:.1f} "
            f"| {got['busy']} | {got['peak'] / 2**30:.2f} |",
            flush=True,
        )
    if len(tests) > 1:
        print(f"\nmean test accuracy {statistics.mean(tests):.2f} %, standard deviation {deviation(tests):.2f}")


if __name__ == "__main__":
    main()
