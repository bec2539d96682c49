"""`nas rm` removes searches, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import error_line, inline
from conftest import finished, job

from nas.architecture.known import LECTURE
from nas.records.journal import FILE, Journal

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
    sizes = [sum(path.stat().st_size for path in (runs / name).rglob("*") if path.is_file()) for name in NAMES]
    assert [search["bytes"] for search in listed] == sizes


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


def test_a_removal_that_was_cut_short_can_be_done_again(runs: Path) -> None:
    for path in (runs / "first" / "search.toml", runs / "first" / "best" / "weights.safetensors"):
        path.unlink()
    inline("rm", "--yes", "first")
    assert left(runs) == [*NAMES[1:]]
