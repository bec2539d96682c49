"""`nas rm` removes searches, and nothing else."""

from __future__ import annotations

import json
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Event

import pytest
from command import NAS, error_line, inline
from conftest import finished, job

from nas.architecture.known import LECTURE
from nas.records.journal import FILE, Journal, is_running
from nas.records.searches import size

NAMES = ("first", "second", "third")


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three searches as they stand when their processes were killed."""
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        folder = tmp_path / "runs" / name
        (folder / "best").mkdir(parents=True)
        (folder / "best" / "weights.safetensors").write_bytes(bytes(300_000))
        (folder / "search.toml").write_text("")
        with Journal(folder / FILE) as journal:
            journal.begin({"config": {"strategy": "evolve", "mlflow": "off"}, "dataset": {"name": "blobs"}})
            journal.append(finished(job(LECTURE)))
    return tmp_path / "runs"


def left(runs: Path) -> list[str]:
    return sorted(path.name for path in runs.iterdir())


def test_searches_are_removed_after_a_question(runs: Path) -> None:
    for answer in (b"", b"\n", b"no\n"):
        assert "nothing was removed" in error_line(inline("rm", "first", "second", given=answer, code=1))
        assert left(runs) == [*NAMES]
    done = inline("rm", "first", str(runs / "second"), given=b"y\n")
    assert "first: interrupted, 0.3 MB" in done.output
    assert left(runs) == ["third"]
    inline("rm", "--yes", "third")
    assert left(runs) == []


def test_the_list_says_how_much_each_search_takes(runs: Path) -> None:
    assert inline("list").stdout.count("0.3 MB") == 3
    listed = json.loads(inline("list", "--json").stdout)["searches"]
    files = {name: [path for path in (runs / name).rglob("*") if path.is_file()] for name in NAMES}
    sizes = {name: sum(path.stat().st_size for path in every) for name, every in files.items()}
    assert {Path(search["search"]).name: search["bytes"] for search in listed} == sizes
    begun = [search["begun"] for search in listed]
    assert begun == sorted(begun, reverse=True)  # the newest first


def test_what_is_no_search_is_not_removed(runs: Path) -> None:
    (runs / "first" / "thesis.tex").write_text("years of work")
    (runs / "mine").mkdir()
    (runs / "mine" / FILE).write_text('{"an": "entry of another program"}\n')
    (runs / "link").symlink_to(runs / "second")
    for name, reason in {
        "first": "has files that no search writes: 'thesis.tex'",
        "mine": f"its {FILE} was not written by nas",
        "link": "is a link: remove it yourself, or name",
        "fist": "there is no search 'fist'; did you mean 'first'?",
        ".": "is not the folder of a search",
    }.items():
        before = sorted(runs.rglob("*"))
        assert reason in error_line(inline("rm", "--yes", "second", name, code=2))
        assert sorted(runs.rglob("*")) == before


def test_a_running_search_is_not_removed(runs: Path) -> None:
    with Journal(runs / "second" / FILE):
        assert "second is being searched by process" in error_line(
            inline("rm", "--yes", "first", "second", code=1)
        )
    assert left(runs) == [*NAMES]


def test_a_search_stays_while_its_mlflow_store_does_not_answer(runs: Path) -> None:
    with Journal(runs / "first" / FILE) as journal:
        journal.begin({"config": {"strategy": "evolve", "mlflow": "http://127.0.0.1:9"}})
    line = error_line(inline("rm", "--yes", "first", code=1))
    assert "MLflow cannot be changed at http://127.0.0.1:9" in line
    assert left(runs) == [*NAMES]
    inline("rm", "--yes", "--keep-mlflow", "first")
    assert left(runs) == [*NAMES[1:]]


def test_a_copy_is_removed_without_the_runs_of_the_original(runs: Path) -> None:
    with Journal(runs / "first" / FILE) as journal:
        journal.begin({"config": {"strategy": "evolve", "mlflow": "http://127.0.0.1:9"}})
    shutil.copytree(runs / "first", runs / "a-copy")
    (runs / "link").symlink_to(runs / "first")  # which is no copy
    done = inline("rm", "--yes", "a-copy")
    assert "a-copy is removed; first is the same search, so what MLflow has of it stays" in done.output
    assert left(runs) == ["first", "link", "second", "third"]
    assert "MLflow cannot be changed" in error_line(inline("rm", "--yes", "first", code=1))


def test_a_damaged_search_is_removed_and_its_runs_are_not_forgotten_in_silence(runs: Path) -> None:
    journal = runs / "first" / FILE
    journal.write_bytes(journal.read_bytes().replace(b"evolve", b"revolt"))
    stopped = inline("rm", "first", given=b"n\n", code=1)
    assert "first: damaged, 0.3 MB; what MLflow has of it stays, because" in stopped.output
    assert "nas repair" in stopped.output
    inline("rm", "--yes", "first")
    assert left(runs) == [*NAMES[1:]]


def test_a_search_that_goes_on_while_the_question_is_asked_stays(runs: Path) -> None:
    with Journal(runs / "first" / FILE) as journal:
        journal.begin({"config": {"strategy": "evolve", "mlflow": "http://127.0.0.1:9"}})
    words = [*NAS, "rm", "first"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "Remove this and what MLflow has of it?" in process.stderr.readline()
        with Journal(runs / "first" / FILE):
            _, line = process.communicate("y\n", timeout=60)
    assert "first is being searched by process" in line  # MLflow was not asked
    assert process.returncode == 1
    assert left(runs) == [*NAMES]


def test_a_search_cannot_go_on_while_it_is_removed(runs: Path) -> None:
    class Server(BaseHTTPRequestHandler):
        """The store, in the middle of the removal."""

        def do_GET(self) -> None:
            seen.append(is_running(runs / "first"))
            self.send_error(500)

        def log_message(self, *_: object) -> None:
            pass

    seen: list[bool] = []
    with HTTPServer(("127.0.0.1", 0), Server) as server, ThreadPoolExecutor() as pool:
        pool.submit(server.serve_forever, 0.01)
        with Journal(runs / "first" / FILE) as journal:
            address = f"http://127.0.0.1:{server.server_port}"
            journal.begin({"config": {"strategy": "evolve", "mlflow": address}})
        assert "the server answers 500" in error_line(inline("rm", "--yes", "first", code=1))
        server.shutdown()
    assert seen == [True]
    assert left(runs) == [*NAMES]


def test_files_that_vanish_do_not_end_the_list(runs: Path) -> None:
    """A running search replaces its drafts all the time."""

    def work() -> None:
        while not done.is_set():
            for number in range(20):
                (runs / "first" / f".{number}.part").touch()
            for number in range(20):
                (runs / "first" / f".{number}.part").unlink()

    done = Event()
    with ThreadPoolExecutor() as pool:
        working = pool.submit(work)
        try:
            assert all(size(runs / "first") > 300_000 for _ in range(300))
        finally:
            done.set()
        working.result()


def test_a_removal_that_was_cut_short_can_be_done_again(runs: Path) -> None:
    for path in (runs / "first" / "search.toml", runs / "first" / "best" / "weights.safetensors"):
        path.unlink()
    inline("rm", "--yes", "first")
    assert left(runs) == [*NAMES[1:]]
