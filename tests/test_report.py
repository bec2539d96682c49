"""The report of a search needs nothing but itself, and says what the record says."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from command import error_line, inline
from conftest import finished
from test_mlflow import Shown, make_outcome, make_trial

from nas.architecture.architecture import Architecture, Limits
from nas.architecture.known import KNOWN, LECTURE, LENET5
from nas.architecture.layers import Cell, Conv2d, Dense, Dropout, Flatten
from nas.cli.console import show_result
from nas.dashboard.runs import search_description
from nas.records.outcome import Comparison
from nas.records.record import entry_of, line_of, read
from nas.report.drawing import network_svg
from nas.report.page import report
from nas.report.summary import Summary
from nas.spaces.space import Candidate
from nas.trial import Job, Trial
from nas.winner.card import write_card

HOSTILE = "<script>alert(1)</script>&\x1b[31m"
VOID = {"meta", "link", "img", "br"}


class Page(HTMLParser):
    """Its words, its pictures, and whether every tag is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words, self.tags, self.links = "", set[str](), list[str]()
        self.feed(text)
        self.words = " ".join(self.words.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.words += " " * (tag in ("th", "td"))
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag == "img":
            assert dict(attrs)["alt"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.words += data


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    shown = Shown(tmp_path_factory.mktemp("report"))
    bad = Job(Candidate(LECTURE, {HOSTILE: HOSTILE}, origin=HOSTILE), 1.0, 3)
    outcome = make_outcome(shown.header, make_trial(LENET5, 0.99))
    beside = Comparison("lecture", make_trial(LECTURE, 0.9, seed=4), 0.91, 60, 10)
    for trial in (
        make_trial(LECTURE, 0.95, depth=2),
        make_trial(LENET5, 0.99, depth=3),
        Trial.failed(bad, "crash", HOSTILE),
        finished(bad, 0.5),
    ):
        shown.journal.told(trial)
    for trial in (*outcome.retrained, beside.trial):
        shown.journal.append(trial)
    shown.journal.finished(outcome.__class__(**{**vars(outcome), "compared": (beside,)}))
    found = Page(report(read(shown.path)[0]))
    shown.close()
    return found


def test_the_report_needs_nothing_but_itself(page: Page) -> None:
    assert not page.open
    assert "script" not in page.tags
    assert "svg" in page.tags  # the figures, whose marks can be pointed at
    assert len(page.links) > 3
    assert all(link.startswith(("data:image/", "#")) for link in page.links)  # within the page, or all of an image


def test_the_report_says_how_good_the_winner_is_and_how_sure_that_is(page: Page) -> None:
    for words in (
        "96.00 %",  # of 10,000 test images
        "95 % confidence interval 95.60 to 96.37 %",
        "97.50 ± 0.71 %",
        "99.00 %",
        "+3.00 points",
        "10,000 images, opened once",
        "for the same number of epochs, has an accuracy of 91.00 %: the winner is better, by more than chance",
        "Only the winner classifies 60 images correctly, only the other network 10",
        "61,706",
        "seed = 0",
        f"nas train {LENET5.id}",
    ):
        assert words in page.words, words


def test_the_terminal_the_card_the_page_and_mlflow_show_the_same_scores(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    shown = Shown(tmp_path)
    winner = make_trial(LENET5, 0.99)
    beside = Comparison("lecture", make_trial(LECTURE, 0.9, seed=4), 0.91, 60, 10)
    outcome = replace(make_outcome(shown.header, winner), compared=(beside,))
    shown.journal.told(winner)
    for trial in (*outcome.retrained, beside.trial):
        shown.journal.append(trial)
    shown.journal.finished(outcome)
    show_result(outcome)
    write_card(outcome)
    surfaces = {
        "terminal": capsys.readouterr().out,
        "card": (outcome.weights.parent / "README.md").read_text(),
        "page": Page(report(read(shown.path)[0])).words,
        "mlflow": search_description(outcome, "#/run", None),
    }
    shown.close()
    summary = Summary.of(outcome)
    assert [row.value for row in summary.rows] == [
        "99.00 %", "97.50 ± 0.71 %", "96.00 %", "95.60 to 96.37 %", "0.1000 nats", "+3.00 points", "61,706",
    ]  # fmt: skip
    for name, text in surfaces.items():
        row_texts = " ".join(text.replace("|", " ").replace("*", "").split())
        for row in summary.rows:
            assert " ".join([row.label, row.value, row.note]).strip() in row_texts, (name, row)
        for sentence in summary.comparisons:
            assert sentence in row_texts, name
        if name != "page":  # which counts the trials in the journal
            assert summary.effort in row_texts, name


def test_a_strangers_text_stays_text(page: Page) -> None:
    assert "<script>alert(1)</script>&\ufffd[31m" in page.words  # shown, not run
    assert "\x1b" not in page.words


def test_the_report_of_a_search_that_goes_on_says_so(tmp_path: Path) -> None:
    shown = Shown(tmp_path)
    empty = Page(report(shown.journal.record))
    assert "It has no winner yet" in empty.words
    assert not empty.links
    shown.journal.told(make_trial(LECTURE, 0.95))
    some = Page(report(shown.journal.record))
    assert "It has no winner yet" in some.words
    assert LECTURE.id in some.words
    assert "test accuracy" not in some.words
    shown.close()


def test_show_writes_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shown = Shown(tmp_path)
    shown.journal.told(make_trial(LECTURE, 0.95))
    shown.close()
    done = inline("show", "one", "--report", "page.html")
    assert "page.html has the report of one" in done.stderr
    assert LECTURE.id in Page((tmp_path / "page.html").read_text()).words
    assert "there is no folder nowhere" in inline("show", "--report", "nowhere/p.html", code=1).stderr
    printed = json.loads(inline("show", "--report", "page.html", "--json").stdout)
    assert printed["trials"] == 1


@pytest.mark.parametrize(
    "change",
    [
        {"test_accuracy": 1.5},
        {"test_images": 0},
        {"compared": [{"what": HOSTILE, "trial": "", "accuracy": 0.5, "only_winner": 1, "only_other": 2}]},
    ],
)
def test_an_outcome_that_cannot_be_is_one_line(
    tmp_path: Path, change: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = Shown(tmp_path)
    outcome = make_outcome(shown.header, make_trial(LENET5, 0.99))
    for trial in (outcome.winner, *outcome.retrained):
        shown.journal.append(trial)
    shown.journal.told(outcome.winner)
    shown.journal.finished(outcome)
    shown.close()
    *lines, last = shown.path.read_bytes().splitlines(keepends=True)
    entry = entry_of(last) or {}
    entry["outcome"] |= change
    shown.path.write_bytes(b"".join(lines) + line_of(entry))
    done = inline("show", "one", "--report", "page.html", code=1)
    assert "one" in error_line(done)
    assert "\x1b" not in done.stderr


CELL = Cell(("skip_connect", "nor_conv_1x1", "nor_conv_3x3", "none", "avg_pool_3x3", "skip_connect"))
LONG = Architecture((*(Conv2d(8, 3, padding="same", activation="leaky_relu", batch_norm=True),) * 40, Flatten()))


@pytest.mark.parametrize("net", [*KNOWN.values(), LONG, Architecture((CELL, Flatten(), Dropout(0.5), Dense(3)))])
def test_a_drawing_has_every_layer_and_nothing_outside(net: Architecture) -> None:
    root = ET.fromstring(network_svg(net, Limits()))
    left, top, width, height = map(float, root.attrib["viewBox"].split())
    space = "{http://www.w3.org/2000/svg}"
    texts = root.findall(f".//{space}text")
    said = " ".join(text.text or "" for text in texts)
    for row in net.table((1, 28, 28), 10):
        assert str(row.layer).split()[0] in said
        assert f"{row.parameters:,}" in said or not row.parameters
    boxes = [{key: float(one.attrib[key]) for key in ("x", "y", "width", "height")} for one in
             root.findall(f"{space}rect")[1:]]  # fmt: skip
    assert len(boxes) == len(net.layers) + 2
    for box in boxes:
        assert left <= box["x"] < box["x"] + box["width"] <= left + width
        assert top <= box["y"] < box["y"] + box["height"] <= top + height
    for text in texts:  # 7 pixels a letter are more than any of them has
        half = 3.5 * len(text.text or "") if "text-anchor" in text.attrib else 0
        assert left - 8 <= float(text.attrib["x"]) - half
        assert float(text.attrib["y"]) <= height


def test_a_network_that_cannot_be_is_drawn_as_a_sentence() -> None:
    assert "larger than the map" in network_svg(Architecture((Conv2d(8, 99),)), Limits())
