"""What a night can bring, with the real command: signals, full disks, second processes, clocks, broken plugins.

Each search goes on afterwards and finds what the undisturbed one has found.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from command import NAS, QUICK, error_line, nas, pace, results, survivors
from test_kills import compare_with_mlflow

from nas.dashboard.store import store_uri
from nas.records.journal import FILE
from nas.records.record import read

pytestmark = pytest.mark.faults

OFF = ["--mlflow", "off"]
SEARCH = ["search", *QUICK, "--trials", "10"]
PHASES = {"start": "starting", "training": "searching: ", "selecting": "selecting: "}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every kind of letter in its name, in which the undisturbed search lies."""
    folder = tmp_path_factory.mktemp('it\'s "odd" 漢字 é %41?#')
    nas(*SEARCH, *OFF, "--out", "undisturbed", cwd=folder)
    return folder


@pytest.fixture(scope="module")
def undisturbed(place: Path) -> dict[str, object]:
    return results(place / "undisturbed")


@contextmanager
def search(place: Path, out: str, phase: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A search that has come to this phase."""
    command = [*NAS, *SEARCH, *(words or OFF), "--out", out]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=place, text=True, **pipes) as process:  # type: ignore[call-overload]
        try:
            assert process.stderr is not None
            while PHASES[phase] not in (line := process.stderr.readline()):
                assert line, "the search ended by itself"
            yield process
        finally:
            process.kill()


def goes_on(place: Path, out: str, undisturbed: dict[str, object], *words: str) -> None:
    """The search is resumed, and finds what it would have found."""
    nas("resume", f"./{out}", *(words or OFF), cwd=place)
    assert results(place / out) == undisturbed


# --- signals


@pytest.mark.parametrize(
    ("phase", "number"),
    [("start", signal.SIGINT), ("training", signal.SIGTERM), ("selecting", signal.SIGINT)],
    ids=lambda value: getattr(value, "name", value),
)
def test_one_signal_ends_a_search_that_can_go_on(
    place: Path, undisturbed: dict[str, object], phase: str, number: signal.Signals
) -> None:
    out = f"{phase} {number.name}"
    with search(place, out, phase) as process:
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        _, rest = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in rest
    assert survivors(children) == []
    if phase == "start":  # it may have been ended before it had begun
        assert "nas: interrupted" in rest
        return
    command = re.search(r"nas: interrupted; go on with: nas resume (.+)", rest)
    assert command
    if phase == "training":
        done = subprocess.run(
            ["bash", "-c", f"'{sys.executable}' -m nas resume {command[1]}"],
            cwd=place, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert results(place / out) == undisturbed


@pytest.mark.parametrize(
    ("phase", "number"),
    [("training", signal.SIGINT), ("selecting", signal.SIGTERM)],
    ids=lambda value: getattr(value, "name", value),
)
def test_two_signals_leave_no_process_and_no_traceback(place: Path, phase: str, number: signal.Signals) -> None:
    with search(place, f"{phase} {number.name} twice", phase) as process:
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        time.sleep(0.05)
        process.send_signal(number)
        _, rest = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in rest
    assert survivors(children) == []


@pytest.mark.parametrize("phase", ["training", "selecting"])
def test_a_killed_search_leaves_no_process(place: Path, undisturbed: dict[str, object], phase: str) -> None:
    with search(place, f"{phase} killed", phase) as process:
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) >= 3
        process.kill()
        assert survivors(children) == []
    listed = nas("show", f"./{phase} killed", cwd=place).stdout
    assert f"interrupted (process {process.pid} on " in listed
    goes_on(place, f"{phase} killed", undisturbed)


@pytest.mark.parametrize("moment", [0.15, 0.5, 1.0, 2.0, 4.0, 8.0])
def test_ctrl_c_is_one_line_at_any_moment(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, moment: float
) -> None:
    """It reaches every process in the terminal, also those that are importing torch."""
    temporary = tmp_path_factory.mktemp("t")  # with a short name: the path of a socket has 107 characters at most
    with subprocess.Popen(
        [*NAS, *SEARCH, "--trials", "400", *OFF], cwd=tmp_path, stderr=subprocess.PIPE, text=True,
        start_new_session=True, env={**os.environ, "TMPDIR": str(temporary)},
    ) as process:  # fmt: skip
        time.sleep(moment)
        children = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGINT)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert [line for line in error.splitlines() if "interrupted" in line] == [error.splitlines()[-1]]
    assert "Traceback" not in error
    assert survivors(children, 5.0) == []
    assert [path.name for path in temporary.iterdir() if "torchinductor" not in path.name] == []


def test_spawned_workers_find_the_same(place: Path, undisturbed: dict[str, object]) -> None:
    """As on Windows and macOS, where workers are not forked from a server."""
    nas(*SEARCH, *OFF, "--out", "spawned", cwd=place, NAS_START_METHOD="spawn")
    assert results(place / "spawned") == undisturbed


POOL = """
import multiprocessing

def trials(number):
    import nas
    return nas.search(dataset="mnist-5k", trials=2, epochs=0.05, workers=1, mlflow="off").trials

if __name__ == "__main__":
    fork = multiprocessing.get_context("fork")
    for searched in (False, True):
        with fork.Pool(1) as pool:
            print(pool.apply(trials, (1,)))
        if not searched:
            print(trials(0))
"""


def test_a_search_runs_in_a_pool_of_processes(tmp_path: Path) -> None:
    """In a process that was forked before its parent has searched, and in one that was forked after it."""
    (tmp_path / "pool.py").write_text(POOL)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "pool.py"], cwd=tmp_path, capture_output=True, text=True, check=False,
        timeout=300,
    )  # fmt: skip
    assert done.stdout == "2\n2\n2\n", done.stderr


KILL_AT = """
import os, signal
import {module} as module
before = module.{place}
calls = 0
def killed(*given, **named):
    global calls
    calls += 1
    if calls == {call}:
        os.kill(os.getpid(), signal.SIGKILL)
    return before(*given, **named)
module.{place} = killed
from nas.cli.start import main
main()
"""


def killed_at(place: Path, words: list[str], module: str, step: str, call: int) -> None:
    """A command that kills itself when it comes to this call of a function."""
    script = KILL_AT.format(module=module, place=step, call=call)
    done = subprocess.run([sys.executable, "-c", script, *words], cwd=place, check=False)
    assert done.returncode == -signal.SIGKILL, step


def test_kills_between_two_steps(place: Path, undisturbed: dict[str, object]) -> None:
    words = [*SEARCH, *OFF, "--out", "steps"]
    for module, step, call in (
        ("nas.strategies.evolve", "Evolve.tell", 1),
        ("nas.records.journal", "Journal.told", 9),
        ("nas.records.journal", "Journal.searched", 1),
        ("nas.winner.sealed", "open_test", 1),
        ("nas.records.journal", "Journal.finished", 1),
    ):
        killed_at(place, words, module, step, call)
        words = ["resume", "./steps", *OFF]
    goes_on(place, "steps", undisturbed)


def test_kills_between_the_journal_and_mlflow(place: Path, undisturbed: dict[str, object], tmp_path: Path) -> None:
    store = ["--mlflow", f"sqlite:///{tmp_path}/mlflow.db"]
    words = [*SEARCH, *store, "--out", "mlflow"]
    for step, call in (("_write_told", 4), ("_plot", 6), ("_write_outcome", 1), ("_close", 1)):
        killed_at(place, words, "nas.dashboard.writer", f"Writer.{step}", call)
        words = ["resume", "./mlflow", *store]
    goes_on(place, "mlflow", undisturbed, *store)
    compare_with_mlflow(store_uri(tmp_path), place / "mlflow")


# --- more than one process


def test_a_second_process_is_refused_and_the_first_goes_on(place: Path, undisturbed: dict[str, object]) -> None:
    with search(place, "runs/twice", "training") as process:
        process.send_signal(signal.SIGSTOP)  # so that it is not through before the others have come
        line = error_line(nas("resume", "twice", *OFF, cwd=place, code=1))
        assert f"is being searched by process {process.pid} on " in line
        assert "writes its record itself" in error_line(nas("sync", "twice", cwd=place, code=1))
        assert re.search(rf"twice +running +[\d.]+ MB\n +process {process.pid} on ", nas("list", cwd=place).stdout)
        process.send_signal(signal.SIGCONT)
        process.communicate(timeout=120)
        assert process.returncode == 0
    assert results(place / "runs" / "twice") == undisturbed
    listed = nas("list", cwd=place).stdout
    assert re.search(r"twice +finished +[\d.]+ MB\n .*evolve on mnist-5k · 10 candidates · validation ", listed)


def test_two_searches_fill_one_store_from_nothing(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/mlflow.db"
    words = [*NAS, *SEARCH, "--mlflow", store, "--workers", "1"]
    both = [subprocess.Popen([*words, "--out", name], cwd=tmp_path, stderr=subprocess.PIPE) for name in ("a", "b")]
    for process in both:
        _, error = process.communicate(timeout=240)
        assert process.returncode == 0, error
        assert b"warning" not in error
    assert results(tmp_path / "a") == results(tmp_path / "b")
    for name in ("a", "b"):
        compare_with_mlflow(store_uri(tmp_path), tmp_path / name)


# --- disks


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("a small file system cannot be mounted here: that takes the rights of root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path, free: int) -> Path:
    """Leave so many bytes free."""
    filler = folder / "filler"
    there = shutil.disk_usage(folder).free
    filler.write_bytes(b"x" * max(0, there - free))
    return filler


@pytest.mark.parametrize("free", [12_288, 40_960], ids=["journal", "weights"])
def test_a_full_disk_ends_a_search_that_goes_on_when_there_is_space(
    small: Path, undisturbed: dict[str, object], free: int
) -> None:
    filler = fill(small, free)
    line = error_line(nas(*SEARCH, *OFF, "--out", "one", cwd=small, code=1))
    assert "No space left on device): free some space, then go on with `nas resume`" in line
    assert (FILE if free < 20_000 else ".safetensors") in line
    assert "failed (" in nas("show", "./one", cwd=small).stdout or free < 20_000
    filler.unlink()
    goes_on(small, "one", undisturbed)


def test_a_disk_that_is_full_when_the_winner_is_written(
    place: Path, small: Path, undisturbed: dict[str, object]
) -> None:
    shutil.copytree(place / "undisturbed", small / "one")
    shutil.rmtree(small / "one" / "best")
    journal = small / "one" / FILE
    *before, outcome = journal.read_bytes().splitlines(keepends=True)
    assert b'"outcome":' in outcome
    journal.write_bytes(b"".join(before))  # as a kill leaves it, just before the test
    filler = fill(small, 16_384)
    line = error_line(nas("resume", "./one", *OFF, cwd=small, code=1))
    assert "best" in line
    assert "No space left on device): free some space" in line
    filler.unlink()
    goes_on(small, "one", undisturbed)


def test_a_full_disk_under_mlflow_costs_one_line(place: Path, small: Path, undisturbed: dict[str, object]) -> None:
    store = f"sqlite:///{small}/mlflow.db"
    done = nas(*SEARCH, "--mlflow", store, "--out", "mlflow full", cwd=place)
    assert done.stderr.count("warning: MLflow cannot be written") == 1
    assert results(place / "mlflow full") == undisturbed


def test_a_folder_that_may_only_be_read(place: Path, small: Path) -> None:
    journal = small / "runs" / "one" / FILE
    shutil.copytree(place / "undisturbed", journal.parent, ignore=shutil.ignore_patterns("*.safetensors"))
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:-3]))
    subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
    assert "cannot be written" in error_line(nas(*SEARCH, *OFF, cwd=small, code=1))
    assert "cannot be written (Read-only file system): make it writable" in error_line(
        nas("resume", "one", *OFF, cwd=small, code=1)
    )
    assert "one" in nas("list", cwd=small).stdout
    assert re.search(r"10(/10)? candidates", nas("show", "one", cwd=small).stdout)


def test_too_few_open_files_are_one_line(tmp_path: Path) -> None:
    for limit in (16, 40):
        done = subprocess.run(
            [*NAS, *SEARCH, *OFF, "--out", f"files {limit}", "--workers", "8"], cwd=tmp_path, capture_output=True,
            text=True, check=False, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit)),  # noqa: B023
        )  # fmt: skip
        assert done.returncode in (0, 1), done.stderr
        assert "Traceback" not in done.stderr, limit
        if done.returncode:
            assert done.stderr.splitlines()[-1].startswith("nas: ")


# --- MLflow


@contextmanager
def hanging() -> Iterator[str]:
    """A server that takes every connection and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        kept: list[socket.socket] = []

        def accept() -> None:
            while True:
                try:
                    kept.append(server.accept()[0])
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        for one in kept:
            one.close()


def test_a_server_that_hangs_is_not_waited_for(place: Path, undisturbed: dict[str, object]) -> None:
    with hanging() as uri:
        done = nas(*SEARCH, "--mlflow", uri, "--out", "hanging", cwd=place)
    assert done.stderr.count("warning: ") == 1
    assert re.search(r"nas sync .*hanging", done.stderr)
    assert results(place / "hanging") == undisturbed


def test_sync_writes_what_was_missed(place: Path, tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/mlflow.db"
    sync = [*NAS, "sync", "./undisturbed", "--store", store]
    both = [subprocess.Popen(sync, cwd=place, stderr=subprocess.DEVNULL) for _ in range(2)]
    assert 0 in [process.wait(120) for process in both]  # the other one was refused, or found nothing to do
    assert "0 of 10 candidates were new" in nas("sync", "./undisturbed", "--store", store, cwd=place).stdout
    compare_with_mlflow(store_uri(tmp_path), place / "undisturbed")
    assert "cannot be written at http://127.0.0.1:9" in error_line(
        nas("sync", "./undisturbed", "--store", "http://127.0.0.1:9", cwd=place, code=1)
    )


# --- clocks


CLOCK = """
import time
real, calls = time.time, 0
def jumping():
    global calls
    calls += 1
    return real() - (3600 if calls > 30 else 0)
time.time = jumping
from nas.cli.start import main
main()
"""


def test_a_clock_that_jumps_back_an_hour_changes_nothing(
    place: Path, undisturbed: dict[str, object], tmp_path: Path
) -> None:
    words = [*SEARCH, "--mlflow", f"sqlite:///{tmp_path}/mlflow.db", "--out", "clock", "--time-limit", "10m"]
    done = subprocess.run(
        [sys.executable, "-c", CLOCK, *words], cwd=place, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    record = read(place / "clock" / FILE)[0]
    assert max(told.at for told in record.told) - record.told[-1].at > 3000 or record.at < record.told[0].at
    assert 0 < record.seconds < 300
    assert results(place / "clock")["told"] == undisturbed["told"]
    compare_with_mlflow(store_uri(tmp_path), place / "clock")


# --- time limits, more budget, and what has changed


@pytest.mark.parametrize("phase", ["training", "selecting"])
def test_a_time_limit_counts_what_was_spent_before(place: Path, phase: str) -> None:
    out = f"limit {phase}"
    limit = 5 * pace(place / "undisturbed")
    limited = ["search", *QUICK, "--time-limit", f"{limit:.0f}s", *OFF, "--out", out]
    with subprocess.Popen([*NAS, *limited], cwd=place, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while PHASES[phase] not in (line := process.stderr.readline()):
            assert line
        process.kill()
    before = read(place / out / FILE)[0]
    nas("resume", f"./{out}", *OFF, cwd=place)
    after = read(place / out / FILE)[0]
    assert before.seconds < after.seconds < 1.5 * limit
    assert after.outcome is not None
    if before.plan is not None:
        assert (after.plan, len(after.told)) == (before.plan, len(before.told))
    assert "has taken" in error_line(nas("resume", f"./{out}", "--time-limit", "5s", *OFF, cwd=place, code=2))


def test_more_time_is_searched_with(place: Path) -> None:
    first = 4 * pace(place / "undisturbed")
    nas("search", *QUICK, "--time-limit", f"{first:.0f}s", *OFF, "--out", "more time", cwd=place)
    before = read(place / "more time" / FILE)[0]
    nas("resume", "./more time", "--time-limit", f"{2 * first:.0f}s", *OFF, cwd=place)
    after = read(place / "more time" / FILE)[0]
    assert len(after.told) > len(before.told)
    assert [told.trial.id for told in after.told[:8]] == [told.trial.id for told in before.told[:8]]


def test_a_log_that_cannot_be_written_ends_nothing(place: Path, undisturbed: dict[str, object]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*NAS, *SEARCH, *OFF, "--out", "no log"], cwd=place, stderr=full, check=False)
    assert done.returncode == 0
    assert results(place / "no log") == undisturbed


def test_a_finished_search_says_so_and_may_be_given_more(place: Path, undisturbed: dict[str, object]) -> None:
    shutil.copytree(place / "undisturbed", place / "more")
    done = nas("resume", "./more", *OFF, cwd=place)
    assert "is finished; more --trials or --time-limit goes on with it" in done.stderr
    assert results(place / "more") == undisturbed
    assert "all of its 10 trials" in error_line(nas("resume", "./more", "--time-limit", "9m", cwd=place, code=2))
    assert "10 trials already" in error_line(nas("resume", "./more", "--trials", "9", cwd=place, code=2))
    done = nas("resume", "./more", "--trials", "18", *OFF, cwd=place)
    assert "opened 2 times" in done.stdout
    words = ["search", *QUICK, "--trials", "18", *OFF, "--out", "eighteen", "--workers", "1"]
    nas(*words, cwd=place)
    more, whole = results(place / "more"), results(place / "eighteen")
    # The last batch of ten was one of two, which a search for eighteen would not have asked for.
    assert len(more["told"]) == len(whole["told"]) == 18
    assert more["told"][:8] == whole["told"][:8]


PLUGIN = """
from nas.strategies.strategy import Strategy

class Fragile(Strategy):
    '''Fails in its second batch.'''

    def ask(self, count):
        if self.history:
            raise RuntimeError('no more ideas')
        return [self.space.sample(self.rng) for _ in range(count)]
"""


def test_a_search_that_is_not_what_it_was_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    plugin = tmp_path / "mine" / "fragile.py"
    plugin.write_text(PLUGIN)
    words = [*SEARCH, "--strategy", "fragile", "--plugins", "mine", *OFF, "--out", "one"]
    done = nas(*words, cwd=tmp_path, code=1)
    assert error_line(done) == "nas: the strategy Fragile failed in ask: RuntimeError: no more ideas"
    assert "all finished trainings are kept" in done.stderr
    kept = read(tmp_path / "one" / FILE)[0]
    assert len(kept.told) == 8
    resume = ["resume", "./one", "--plugins", "mine", *OFF]
    assert "no more ideas" in error_line(nas(*resume, cwd=tmp_path, code=1))
    plugin.write_text(PLUGIN.replace("if self.history", "if False"))
    assert "the source of the strategy has changed. --force goes on" in error_line(
        nas(*resume, cwd=tmp_path, code=1)
    )
    settings = tmp_path / "one" / "search.toml"
    text = settings.read_text()
    settings.write_text(text.replace("epochs = 0.25", "epochs = 0.5"))
    assert "epochs was 0.25, and is 0.5; the source of" in error_line(nas(*resume, cwd=tmp_path, code=1))
    settings.write_text(text)
    done = nas(*resume, "--force", cwd=tmp_path)
    assert "going on, but the source of the strategy has changed" in done.stderr
    after = read(tmp_path / "one" / FILE)[0]
    assert [told.trial for told in after.told[:8]] == [told.trial for told in kept.told]
    assert len(after.told) == 10


def test_a_damaged_journal_is_repaired_and_goes_on(place: Path, undisturbed: dict[str, object]) -> None:
    shutil.copytree(place / "undisturbed", place / "damaged")
    journal = place / "damaged" / FILE
    lines = journal.read_bytes().splitlines(keepends=True)
    lines[5] = lines[5].replace(b'"validation_loss":', b'"validation_lose":', 1)
    journal.write_bytes(b"".join(lines) + lines[-1][:50])
    assert "line 6: damaged" in error_line(nas("resume", "./damaged", *OFF, cwd=place, code=1))
    assert re.search(r"\d+ lines are kept and \d+ are not", nas("repair", "./damaged", cwd=place).stdout)
    goes_on(place, "damaged", undisturbed)
