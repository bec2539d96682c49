"""Real worker processes: what one candidate does costs that candidate only."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import psutil
import pytest
from command import survivors
from conftest import LOSS, job, with_epochs
from work import FewImports, FullDisk, Grouped, KilledOnce, Misbehaving, Noted, Slow, say_yes

from nas import plugins
from nas.architecture.architecture import Architecture
from nas.architecture.layers import Conv2d, Dense, Flatten, GlobalAveragePool
from nas.data.dataset import Dataset
from nas.errors import NasError, StorageError, UsageError
from nas.evaluation.cached import CachedEvaluator
from nas.evaluation.local import machine
from nas.evaluation.local import spawn as processes
from nas.evaluation.local.local import LocalEvaluator
from nas.records.journal import Journal
from nas.run.resolve import GIVES
from nas.training.recipe import Recipe
from nas.trial import Job, Trial

DENSE = Architecture((Flatten(), Dense(4)))
RECIPE = Recipe(batch_size=16, shift=0)


def evaluate(
    data: Dataset, jobs: list[Job], kind: type[LocalEvaluator] = LocalEvaluator, **options: object
) -> dict[int, Trial]:
    with kind(data, RECIPE, **{"workers": 2, **options}) as evaluator:  # type: ignore[arg-type]
        trials = list(evaluator.evaluate(jobs))
    assert len({trial.job.seed for trial in trials}) == len(trials)
    return {trial.job.seed: trial for trial in trials}


def test_the_number_of_workers_does_not_change_a_bit(blobs: Dataset) -> None:
    networks = [
        Architecture((Conv2d(n, 3, activation="relu", batch_norm=True), GlobalAveragePool())) for n in (2, 3, 4)
    ]
    jobs = [job(network, 2.5, seed) for seed, network in enumerate(networks * 2)]
    results = []
    for workers in (1, 3):
        trials = evaluate(blobs, jobs, workers=workers)
        results.append(
            [(trials[j.seed].curve[-1]["train_loss"], trials[j.seed].metrics["validation_loss"]) for j in jobs]
        )
    assert results[0] == results[1]
    assert len(set(results[0])) == len(jobs)


def test_a_network_is_measured_once_and_while_nothing_trains(blobs: Dataset, tmp_path: Path) -> None:
    networks = [Architecture((Conv2d(n, 3), GlobalAveragePool())) for n in (1, 2, 3)]
    jobs = [job(network, 1, seed) for seed, network in enumerate(networks * 3)]
    trials = evaluate(blobs, jobs, Noted, weights=tmp_path)
    notes = {path.name: path.read_text().splitlines() for path in tmp_path.iterdir()}
    assert sorted(name for name in notes if "measurement" in name) == sorted(
        f"{network.id}.measurement" for network in networks
    )
    assert all(len(lines) == 1 for lines in notes.values())
    spans = {name: tuple(map(float, lines[0].split())) for name, lines in notes.items()}
    for name, (start, end) in spans.items():
        beside = [
            other for other, (begun, over) in spans.items() if other != name and begun < end and over > start
        ]
        assert "measurement" not in name or not beside
    latencies = {(trial.id, trial.metrics["latency_ms"]) for trial in trials.values()}
    assert len(latencies) == len(networks)


@pytest.mark.faults
def test_every_fault_costs_its_own_job_only(
    blobs: Dataset, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    jobs = [job(DENSE, 1, seed) for seed in range(20)]
    trials = evaluate(blobs, jobs, Misbehaving, workers=4, weights=tmp_path, memory=1.0)
    failures = {seed: trial.failure for seed, trial in trials.items() if trial.failure}
    crashes = dict.fromkeys((1, 2, 5, 8, 9, 10, 11, 13), "crash")
    timeouts = dict.fromkeys((3, 15, 16), "timeout")
    assert {seed: failure.kind for seed, failure in failures.items()} == {
        **crashes,
        **timeouts,
        4: "oom",
        7: "not_finite",
        14: "oom",
    }
    assert failures[2].message == "ValueError: the candidate's own fault"
    for seed, words in {
        1: "SIGKILL", 5: "exit code 3", 8: "SIGSEGV", 9: "closed", 10: "something else", 11: "SIGTERM",
        13: "exit code 4", 14: "more than the 1.0 GiB",
    }.items():  # fmt: skip
        assert words in failures[seed].message
    assert sorted(trials) == list(range(20))
    printed = capfd.readouterr()
    assert "xxx" not in printed.out + printed.err

    tries = {seed: (tmp_path / f"{seed}.tries").stat().st_size for seed in trials}
    assert {seed for seed, count in tries.items() if count > 1} == {1, 4, 11}  # the cause may have been elsewhere
    assert max(tries.values()) == 2
    assert all(("tried twice" in failure.message) == (tries[seed] == 2) for seed, failure in failures.items())

    children = [int(path.read_text()) for path in tmp_path.glob("*.child")]
    assert len(children) == 2
    assert not survivors([process for process in psutil.process_iter() if process.pid in children])
    assert not _workers_of(os.getpid())


def test_a_worker_that_is_killed_costs_time_only(blobs: Dataset, tmp_path: Path) -> None:
    jobs = [job(Architecture((Conv2d(n, 3), GlobalAveragePool())), 1, seed=n) for n in (1, 2, 3, 4)]
    undisturbed = evaluate(blobs, jobs)
    killed = evaluate(blobs, jobs, KilledOnce, weights=tmp_path)
    assert all(trial.failure is None for trial in killed.values())
    assert _losses(killed) == _losses(undisturbed)


@pytest.mark.faults
def test_workers_are_replaced_with_the_server_that_they_come_from(blobs: Dataset) -> None:
    jobs = [job(DENSE, 1.5, seed) for seed in (1, 2)]
    with Slow(blobs, RECIPE, workers=3) as evaluator:
        list(evaluator.evaluate([job(DENSE, 0.1, seed) for seed in (5, 6, 7)]))
        idle = _workers_of(os.getpid())
        for one in idle:
            one.kill()
        # Not `left`: before their server has said that they are gone, they seem to be alive.
        assert psutil.wait_procs(idle, timeout=10)[1] == []
        trials = []
        for trial in evaluator.evaluate([job(DENSE, 0.1, 0), *jobs]):
            trials.append(trial)
            if trial.job.seed == 0:
                workers = _workers_of(os.getpid())
                for server in {worker.parent() for worker in workers} - {None}:
                    server.kill()
    assert {trial.job.seed: trial.failure for trial in trials} == {0: None, 1: None, 2: None}
    assert survivors(workers) == []


@pytest.mark.parametrize(
    "recipe", [Recipe("adam"), Recipe("adamw"), Recipe("muon")], ids=["adam", "adamw", "muon"]
)
def test_the_server_that_workers_come_from_has_imported_what_they_need(blobs: Dataset, recipe: Recipe) -> None:
    """A worker starts in 40 ms; torch._dynamo alone would take 2 to 6 s more."""
    with FewImports(blobs, recipe, workers=1) as evaluator:
        [trial] = evaluator.evaluate([job(Architecture((Conv2d(4, 3), Conv2d(4, 3), Flatten())), 1, 0)])
    assert trial.failure is None


@pytest.mark.parametrize(("device", "groups"), [("cpu", 8), ("cuda", 2)])
def test_a_worker_gets_many_jobs_at_a_time_only_on_a_gpu(
    blobs: Dataset, tmp_path: Path, device: str, groups: int
) -> None:
    """On a CPU the jobs of one worker would wait for each other, while another worker has none."""
    networks = [Architecture((Conv2d(n, 3), GlobalAveragePool())) for n in (1, 2, 3, 4)]
    jobs = [job(network, 1, seed) for seed in (1, 2) for network in networks]
    with Grouped(blobs, RECIPE, workers=2, device=device, group=4, weights=tmp_path) as evaluator:
        assert len(list(evaluator.evaluate(jobs))) == len(jobs)
    together = [path.read_text().split() for path in tmp_path.iterdir()]
    assert [len(group) for group in together] == [len(jobs) // groups] * groups


def test_a_loss_that_is_not_finite_is_a_failure(blobs: Dataset, tmp_path: Path) -> None:
    with (
        Journal(tmp_path / "journal.jsonl") as journal,
        Misbehaving(blobs, RECIPE, workers=1, weights=tmp_path) as evaluator,
    ):
        [trial] = CachedEvaluator(evaluator, journal, LOSS).evaluate([job(DENSE, 1, 7)])
    assert trial.failure is not None
    assert trial.failure.kind == "not_finite"


def test_a_training_that_diverges_is_a_failure(blobs: Dataset) -> None:
    with LocalEvaluator(blobs, Recipe(batch_size=16, learning_rate=1e30), workers=1) as evaluator:
        [trial] = evaluator.evaluate([job(Architecture((Flatten(), Dense(8), Dense(8))), 3)])
    assert trial.failure is not None
    assert trial.failure.kind == "not_finite"


def test_an_architecture_that_does_not_fit_is_invalid(blobs: Dataset) -> None:
    trials = evaluate(blobs, [job(Architecture((Conv2d(2, 9), Flatten())))])
    assert [trial.failure.kind for trial in trials.values() if trial.failure] == ["invalid"]


def test_when_time_is_up_the_rest_is_given_up(blobs: Dataset) -> None:
    jobs = [with_epochs(job(DENSE, 1, seed), seconds) for seed, seconds in ((1, 0.1), (2, 300.0), (3, 300.0))]
    evaluate(blobs, jobs[:1], Slow)  # the server that workers come from has started
    assert list(evaluate(blobs, jobs, Slow, workers=3, until=time.monotonic() + 5)) == [1]


def test_when_time_is_up_already_no_process_is_started(blobs: Dataset) -> None:
    with Slow(blobs, RECIPE, workers=2, until=time.monotonic()) as evaluator:
        assert list(evaluator.evaluate([job(DENSE, 1, 1)])) == []
        assert not _workers_of(os.getpid())


@pytest.mark.faults  # slow
def test_children_of_workers_end_where_there_are_no_process_groups(
    blobs: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "killpg")  # as on Windows
    trials = evaluate(blobs, [job(DENSE, 1, 15)], Misbehaving, workers=1, weights=tmp_path)
    assert trials[15].failure
    child = int((tmp_path / "15.child").read_text())
    assert not survivors([process for process in psutil.process_iter() if process.pid == child])


def test_leaving_early_ends_the_workers(blobs: Dataset) -> None:
    with Slow(blobs, RECIPE, workers=2) as evaluator:
        running = evaluator.evaluate([job(DENSE, seconds, seed) for seed, seconds in ((1, 0.1), (2, 300.0))])
        assert next(running).job.seed == 1
        running.close()  # type: ignore[attr-defined]
        again = list(evaluator.evaluate([job(DENSE, 0.1, 5)]))
        assert [trial.job.seed for trial in again] == [5]


def test_an_interruption_ends_the_workers(blobs: Dataset) -> None:
    def interrupt(_: int, frame: FrameType | None) -> None:
        while frame is not None and frame.f_code is not LocalEvaluator._wait.__code__:
            frame = frame.f_back
        if frame is None:  # it is not at its workers yet
            signal.setitimer(signal.ITIMER_REAL, 0.1)
        else:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with Slow(blobs, RECIPE, workers=3) as evaluator:
            running = evaluator.evaluate([job(DENSE, s, seed) for seed, s in ((1, 0.1), (2, 300.0), (3, 300.0))])
            next(running)
            signal.setitimer(signal.ITIMER_REAL, 0.5)
            with pytest.raises(KeyboardInterrupt):
                next(running)
            assert len(_workers_of(os.getpid())) == 1  # the idle one
        assert not _workers_of(os.getpid())
    finally:
        signal.signal(signal.SIGALRM, before)


def test_weights_that_cannot_be_written_end_the_search(blobs: Dataset, tmp_path: Path) -> None:
    """The candidate has not failed: its trial would stand in the journal for ever."""
    with (
        FullDisk(blobs, RECIPE, workers=1, weights=tmp_path) as evaluator,
        pytest.raises(StorageError, match=r"safetensors cannot be written \(File too large\): free some space"),
    ):
        list(evaluator.evaluate([job(DENSE)]))
    assert list(tmp_path.iterdir()) == []
    assert not _workers_of(os.getpid())


def test_in_this_process_too(blobs: Dataset, tmp_path: Path) -> None:
    inline = plugins.find("evaluator", "inline", [Path(__file__).parents[1] / "plugins"])
    with pytest.raises(StorageError, match="nowhere"):
        list(inline(blobs, RECIPE, weights=tmp_path / "nowhere").evaluate([job(DENSE)]))


def test_a_full_folder_of_temporary_files_is_one_line(
    blobs: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with _limit(resource.RLIMIT_FSIZE, 2000), pytest.raises(StorageError, match="TMPDIR") as raised:
        LocalEvaluator(blobs, RECIPE, workers=1)
    assert str(tmp_path) in str(raised.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.faults
def test_too_few_file_descriptors_are_one_line(blobs: Dataset) -> None:
    with Slow(blobs, RECIPE, workers=8) as evaluator:
        list(evaluator.evaluate([job(DENSE, 0.1, 99)]))
        with Path(os.devnull).open() as first_free:
            limit = first_free.fileno() + 12
        with _limit(resource.RLIMIT_NOFILE, limit), pytest.raises(NasError, match="ulimit -n"):
            list(evaluator.evaluate([job(DENSE, 60.0, seed) for seed in range(8)]))
        assert [trial.job.seed for trial in evaluator.evaluate([job(DENSE, 0.1, 5)])] == [5]
    assert not _workers_of(os.getpid())


def test_a_folder_for_temporary_files_with_a_long_path_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server listens there, and a socket's address has 107 bytes at most. (Newer Pythons look elsewhere.)"""
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))

    def launch(*_: object) -> None:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(long / "listener"))

    monkeypatch.setattr(processes, "_launch", launch)
    with pytest.raises(NasError) as caught:
        processes.start(say_yes)
    assert str(caught.value).endswith(f"temporary files is too long: {long}): name a shorter one in TMPDIR")


def test_only_the_memory_and_the_cores_can_be_set(blobs: Dataset) -> None:
    """What else a worker does would be code that comes with a file of options."""
    assert plugins.check_options(LocalEvaluator, {"memory": "1.5"}, GIVES["evaluator"]) == {"memory": 1.5}
    with pytest.raises(UsageError, match="known: cores, memory"):
        plugins.check_options(LocalEvaluator, {"work": "os:system"}, GIVES["evaluator"])
    with pytest.raises(UsageError, match="memory=-1"):
        LocalEvaluator(blobs, RECIPE, workers=1, memory=-1.0)


SCRIPT = """
import sys
from conftest import *
from work import Misbehaving
import numpy as np
from nas.data.dataset import Dataset, Split
from nas.run.resolve import GIVES
from nas.training.recipe import Recipe
from nas.architecture.layers import Dense, Flatten
print("main", flush=True)
class Patient(Misbehaving):
    def seconds_allowed(self, job):
        return 600.0
split = Split.of(np.zeros((6, 1, 4, 4), np.uint8), np.arange(6) % 2)
data = Dataset.of("zeros", split, split, ("0", "1"))
with Patient(data, Recipe(), workers=4, weights=Path(sys.argv[1])) as evaluator:
    network = Architecture((Flatten(), Dense(1)))
    for trial in evaluator.evaluate([job(network, 1.0, seed) for seed in (3, 15, 16, 0)]):
        print("trained", flush=True)
"""


def test_the_limits_of_a_container_count(tmp_path: Path) -> None:
    """Of the own group and of those around it, in cgroup v2 and v1, with a namespace and without."""
    real = machine.cores(), machine.memory()

    def limits(place: Path, groups: str, **files: str) -> tuple[int, int]:
        for name, text in {"proc/self/cgroup": groups, **files}.items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_text(f"{text}\n")
        return machine.cores(place), machine.memory(place)

    top = "sys/fs/cgroup"
    own = {f"{top}/a/b/cpu.max": "50000 100000", f"{top}/a/b/memory.max": "max", f"{top}/a/memory.max": "2048"}
    assert limits(tmp_path / "2", "0::/a/b", **own) == (1, 2048)
    outer = {f"{top}/cpu.max": "max 100000", f"{top}/memory.max": "max", f"{top}/memory.high": "4096"}
    assert limits(tmp_path / "namespace", "0::/", **outer) == (real[0], 4096)
    first = {f"{top}/cpu,cpuacct/d/cpu.cfs_quota_us": "20000", f"{top}/cpu,cpuacct/d/cpu.cfs_period_us": "100000"}
    first |= {f"{top}/memory/memory.limit_in_bytes": "8192"}
    assert limits(tmp_path / "1", "4:memory:/docker/d\n2:cpu,cpuacct:/d\n0::/", **first) == (1, 8192)
    none = {f"{top}/cpu/cpu.cfs_quota_us": "-1", f"{top}/cpu/cpu.cfs_period_us": "100000"}
    assert limits(tmp_path / "none", "2:cpu:/\n1:memory:/", **none)[0] == real[0]
    assert (machine.cores(tmp_path), machine.memory(tmp_path)) == real


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder whose path is short: a socket has its address in there."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.mark.faults
@pytest.mark.parametrize("start", ["fork server", "spawn"])
def test_nothing_survives_a_parent_that_is_killed(
    blobs: Dataset, tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch, start: str
) -> None:
    """And the parent's script, which has no ``if __name__ == "__main__"``, is not run again by its workers.

    One worker sleeps, one has a child, one computes in C and never lets another thread run.
    """
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    tests = str(Path(__file__).parent)
    path = os.pathsep.join([tests, *filter(None, [os.environ.get("PYTHONPATH")])])
    with subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path, "TMPDIR": str(temporary), "NAS_START_METHOD": start},
    ) as parent:
        try:
            assert parent.stdout is not None
            assert [parent.stdout.readline(), parent.stdout.readline()] == ["main\n", "trained\n"]
            while not all((tmp_path / f"{name}").exists() for name in ("3.tries", "15.child", "16.tries")):
                assert parent.poll() is None
                time.sleep(0.05)
            time.sleep(0.2)
            helpers = psutil.Process(parent.pid).children()
            workers = _workers_of(parent.pid)
            assert len(workers) == 4 + 1  # with the child
        finally:
            os.kill(parent.pid, signal.SIGKILL)
    assert survivors(workers) == []
    assert survivors(helpers, 30) == []

    def folders() -> set[Path]:
        return set(temporary.glob("nas-*"))

    abandoned = folders()
    assert len(abandoned) == 1
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    with LocalEvaluator(blobs, RECIPE, workers=1):
        first = folders()
        assert len(first) == 1
        assert first != abandoned
        with LocalEvaluator(blobs, RECIPE, workers=1):
            assert len(folders()) == 2  # what is in use stays
    assert folders() == set()


@contextmanager
def _limit(resource_: int, value: int) -> Iterator[None]:
    before = resource.getrlimit(resource_)
    resource.setrlimit(resource_, (value, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource_, before)


def _losses(trials: dict[int, Trial]) -> dict[int, float]:
    return {seed: trial.metrics["validation_loss"] for seed, trial in trials.items()}


def _workers_of(pid: int) -> list[psutil.Process]:
    """The descendants of a process that are neither of the helpers which multiprocessing keeps."""
    children = psutil.Process(pid).children(recursive=True)
    living = [one for one in children if one.status() != psutil.STATUS_ZOMBIE]
    return [one for one in living if one.ppid() != pid or "spawn_main" in " ".join(one.cmdline())]


# --- jobs that are submitted while others are in work


def through(evaluator: LocalEvaluator, jobs: int) -> list[Trial]:
    trials: list[Trial] = []
    while len(trials) < jobs:
        trials += (some := evaluator.finished())
        assert some
    return trials


def test_jobs_of_the_lowest_turn_begin_first_and_the_longest_of_them(blobs: Dataset) -> None:
    begun: list[int] = []
    with Slow(blobs, RECIPE, workers=1, begun=lambda jobs: begun.extend(one.seed for one in jobs)) as evaluator:
        evaluator.submit([job(DENSE, 0.1, 20), job(DENSE, 0.2, 21)], 2)
        evaluator.submit([job(DENSE, 0.1, 30)], 3)
        trials = through(evaluator, 1)
        evaluator.submit([job(DENSE, 0.1, 10), job(DENSE, 0.2, 11)], 1)
        trials += through(evaluator, 4)
        assert evaluator.finished() == []
    assert begun[0] == 21
    assert begun.index(11) < begun.index(10) < begun.index(20) < begun.index(30)
    assert sorted(trial.job.seed for trial in trials) == [10, 11, 20, 21, 30]
    assert all("latency_ms" in trial.metrics for trial in trials)


def test_a_network_is_measured_beside_trainings_of_other_turns(blobs: Dataset) -> None:
    """A worker that is free need not wait until nothing is trained."""
    other = Architecture((Flatten(), Dense(5)))
    with Slow(blobs, RECIPE, workers=2) as evaluator:
        evaluator.submit([job(DENSE, 300.0, 1)], 1)
        evaluator.submit([job(other, 0.1, 2)], 2)
        [trial] = through(evaluator, 1)
        assert (trial.job.seed, trial.failure) == (2, None)
        evaluator.cancel()
        assert evaluator.finished() == []
        evaluator.submit([job(DENSE, 0.1, 3)], 3)
        assert [one.job.seed for one in through(evaluator, 1)] == [3]


def test_killed_workers_cost_time_only_while_others_are_submitted(blobs: Dataset, tmp_path: Path) -> None:
    jobs = [job(Architecture((Conv2d(n, 3), GlobalAveragePool())), 1, seed=n) for n in (1, 2, 3, 4)]
    undisturbed = evaluate(blobs, jobs)
    with KilledOnce(blobs, RECIPE, workers=2, weights=tmp_path) as evaluator:
        for turn, one in enumerate(jobs):
            evaluator.submit([one], turn)
        killed = {trial.job.seed: trial for trial in through(evaluator, 4)}
    assert all(trial.failure is None for trial in killed.values())
    assert _losses(killed) == _losses(undisturbed)


def test_what_fails_while_it_is_measured_is_trained_in_no_turn(blobs: Dataset) -> None:
    large = Architecture((Conv2d(2, 99), Flatten()))
    with LocalEvaluator(blobs, RECIPE, workers=2) as evaluator:
        for turn in (1, 2, 3):
            evaluator.submit([job(large, 1, turn), job(DENSE, 1, 10 + turn)], turn)
        trials = {trial.job.seed: trial for trial in through(evaluator, 6)}
        evaluator.submit([job(large, 1, 4)], 4)
        trials |= {trial.job.seed: trial for trial in through(evaluator, 1)}
    assert {seed for seed, trial in trials.items() if trial.failure} == {1, 2, 3, 4}
