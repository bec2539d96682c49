"""The classes of a finished search: confusions, recall, pictures; the file may be missing, or a stranger's."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import error_line, inline
from matplotlib import colormaps
from PIL import Image
from test_figures import texts
from test_mlflow import CONFIG, make_outcome, make_trial
from test_report import HOSTILE, Page

from nas.architecture.known import LENET5
from nas.data.dataset import Dataset, Split
from nas.records.journal import FILE as JOURNAL
from nas.records.journal import Journal
from nas.records.predictions import FILE, Answers, Predictions, predictions_of
from nas.records.record import Record, read
from nas.report.classes import Confusion, named, scores, sentences
from nas.report.figures import OF_CLASSES, figures
from nas.report.page import report
from nas.report.summary import Summary
from nas.training.recipe import Recipe
from nas.winner.card import write_card
from nas.winner.pictures import SIDE, examples, pictures

LONG = "Fruit and vegetables/Apples of the north/Golden"


def answers_of(classes: int, images: int, rng: np.random.Generator) -> Answers:
    """Answers of which nine tenths are right; the wrong ones are near the right class."""
    labels = np.arange(images) % classes
    wrong = rng.random(images) < 0.1
    answers = np.where(wrong, (labels + rng.integers(1, 4, images)) % classes, labels)
    likely = rng.uniform(0.5, 1, images)
    return Answers(labels, answers, np.stack([likely, np.where(answers == labels, likely, 1 - likely)], 1))


def made(training: str, names: list[str], side: int = 28, channels: int = 1, images: int = 5_000) -> Predictions:
    """The predictions of a made-up winner."""
    rng = np.random.default_rng(len(names))
    test = answers_of(len(names), images, rng)
    wrong = np.flatnonzero(test.labels != test.answers)[:24]
    shown = Confusion(test.labels, test.answers, len(names)).shown(24)
    shade = np.linspace(0, 255, side).astype(np.uint8)
    picture = np.broadcast_to(shade[:, None, None], (side, side, channels))
    return Predictions(
        training, tuple(names), answers_of(len(names), images // 2, rng), test, np.array(shown),
        np.broadcast_to(picture, (len(shown), 2, 4, *picture.shape)), wrong,
        np.broadcast_to(picture, (len(wrong), *picture.shape)),
    )  # fmt: skip


def searched(folder: Path, *names: str, **pictured: int) -> Record:
    """A finished search whose winner has answered."""
    (folder / "runs/one").mkdir(parents=True)
    with Journal(folder / "runs/one" / JOURNAL) as journal:
        journal.begin(
            {
                "config": {**CONFIG, "objectives": ["-validation_loss"]},
                "dataset": {
                    "name": "photographs",
                    "fingerprint": "0123456789abcdef",
                    "train": 90,
                    "validation": 10,
                },
                "limits": {"input_shape": [1, 28, 28], "classes": 10},
                "note": "",
            }
        )
        outcome = make_outcome(journal.record.header, make_trial(LENET5, 0.99))
        journal.told(outcome.winner)
        for trial in outcome.retrained:
            journal.append(trial)
        made(outcome.handed_over.job.key, list(names), **pictured).write(journal.path.parent)
        journal.finished(outcome)
        return journal.record


def test_the_confusions_are_those_of_the_whole_matrix() -> None:
    labels, answers = np.array([0, 0, 0, 0, 1, 1, 2, 2, 2, 4]), np.array([0, 0, 2, 2, 1, 0, 2, 2, 2, 0])
    found = Confusion(labels, answers, 5)
    assert found.recall == pytest.approx([1 / 2, 1 / 2, 1, np.nan, 0], nan_ok=True)
    assert found.precision == pytest.approx([2 / 4, 1, 3 / 5, np.nan, np.nan], nan_ok=True)
    assert found.pairs(2) == [(0, 2, 2), (1, 0, 1)]
    assert found.pairs(9) == [(0, 2, 2), (1, 0, 1), (4, 0, 1)]
    assert found.weakest(3) == [4, 0, 1]  # of equals, the class with more images is first
    assert found.matrix(range(5))[:, :5].tolist() == [
        [2, 0, 2, 0, 0], [1, 1, 0, 0, 0], [0, 0, 3, 0, 0], [0, 0, 0, 0, 0], [1, 0, 0, 0, 0],
    ]  # fmt: skip
    assert found.matrix([0, 4]).tolist() == [[2, 0, 2], [1, 0, 0]]  # the last column: any other answer


def test_a_winner_without_mistakes_has_no_confusions() -> None:
    found = made("", ["a", "b"])
    right = replace(found.test, answers=found.test.labels)
    assert sentences(replace(found, test=right), "images") == ()
    assert [score.test_recall for score in scores(replace(found, test=right), range(2))] == [1, 1]


@pytest.mark.faults
@pytest.mark.parametrize(
    ("names", "pictured"),
    [
        (["a", "b"], {"side": 8}),
        ([*"0123456789", LONG, HOSTILE], {"side": 28}),
        ([f"{LONG} {number}" for number in range(40)], {"side": 96, "channels": 3}),
        ([f"class $number_{number}^2" for number in range(1_000)], {"side": 96, "channels": 3, "images": 50_000}),
    ],
    ids=len,
)
def test_the_figures_can_be_read_with_few_and_with_many_classes(
    tmp_path: Path, names: list[str], pictured: dict[str, Any]
) -> None:
    record = searched(tmp_path, *names, **pictured)
    found = {name: figure for name, figure in figures(record) if name in OF_CLASSES}
    assert list(found) == list(OF_CLASSES)
    for name, figure in found.items():
        seen = list(texts(figure))
        width, height = figure.canvas.get_width_height()
        for text, box in seen:
            assert max(-box.x0, -box.y0, box.x1 - width, box.y1 - height) < 1, f"{name}: {text!r} is cut"
        for (one, first), (two, second) in combinations(seen, 2):
            across = min(first.x1, second.x1) - max(first.x0, second.x0)
            along = min(first.y1, second.y1) - max(first.y0, second.y0)
            assert across < 2 or along < 2, f"{name}: {one!r} is on {two!r}"
    matrix = [text for text, _ in texts(found["confusion_test"])]
    assert ("lowest recall" in " ".join(matrix)) == (len(names) > 40)
    # Numbers in the cells, larger than those of the colour bar:
    assert any(text.isdigit() and int(text) > 100 for text in matrix) == (len(names) <= 12)
    page = report(record)
    assert len(page) < 8e6
    words = Page(page).words
    assert "→" in words
    assert f"The table has the 40 of {len(names):,} classes" in words or len(names) <= 40


def test_more_is_darker_in_grey_too() -> None:
    shades = colormaps["Blues"](np.linspace(0, 1, 50))[:, :3] @ [0.299, 0.587, 0.114]
    assert (np.diff(shades) < 0).all()


def test_the_names_of_classes_stay_texts_everywhere(tmp_path: Path) -> None:
    record = searched(tmp_path, HOSTILE, "*bold* | `a`", LONG)
    page = Page(report(record))
    assert "script" not in page.tags
    assert "\x1b" not in page.words
    assert "Fruit and ve…orth/Golden" in page.words
    outcome = record.result()
    assert outcome
    text = Summary.of(outcome).markdown()
    assert "<script>" not in text.replace("\\<script\\>", "")
    assert "\\*bold\\* \\| \\`a\\`" in text
    assert named(" \n ") == "(no name)"
    assert len(named("x" * 99)) == 24


def test_the_card_has_the_confusion_matrix_and_the_worst_mistakes(tmp_path: Path) -> None:
    record = searched(tmp_path, HOSTILE, "b")
    outcome = record.result()
    assert outcome
    outcome.weights.parent.mkdir(exist_ok=True)
    write_card(outcome)
    card = (outcome.weights.parent / "README.md").read_text()
    predictions = predictions_of(outcome)
    assert predictions
    both = [((predictions.test.labels == 1) & (predictions.test.answers == answer)).sum() for answer in (0, 1)]
    assert f"| **b** | {both[0]:,} | {both[1]:,} |" in card
    assert "<script>" not in card.replace("\\<script\\>", "")
    assert card.count("said b (") + card.count("true b, said") == 12
    with Image.open(outcome.weights.parent / "most-wrong.png") as picture:
        assert picture.size == (12 * 56 + 11 * 4, 56)  # each of 28 pixels, twice as large


def test_the_terminal_says_it_in_a_few_short_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    searched(tmp_path, *(f"{LONG} {number}" for number in range(30)))
    said = inline("show", "one").stdout
    assert " ".join(said.split()).count("→ Fruit") == 3
    assert "Lowest recall:" in said
    start = said.index("Most frequent confusions")
    lines = said[start : said.index("Cost: ")].splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) < 10


def test_a_search_without_predictions_or_with_those_of_another_winner_is_shown_as_before(tmp_path: Path) -> None:
    record = searched(tmp_path, "a", "b")
    outcome = record.result()
    assert outcome
    assert predictions_of(outcome)
    made("another", ["a", "b"]).write(tmp_path / "runs/one")
    assert predictions_of(outcome) is None
    assert "recall" not in report(record)
    (tmp_path / "runs/one" / FILE).unlink()
    assert predictions_of(outcome) is None
    assert "recall" not in report(record)
    assert not Summary.of(outcome).classes


@pytest.mark.parametrize(
    "change",
    [
        {"test": Answers(np.array([0, 7]), np.array([0, 1]), np.ones((2, 2)))},
        {"test": Answers(np.array([0, 1]), np.array([0]), np.ones((2, 2)))},
        {"test": Answers(np.array([0, 1]), np.array([0, 1]), np.full((2, 2), np.nan))},
        {"wrong": np.full(24, 10**9)},
        {"examples": np.zeros((2, 2, 4, 8, 8, 5), np.uint8)},
        {"classes": ()},
        None,
    ],
)
def test_a_damaged_file_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any] | None
) -> None:
    monkeypatch.chdir(tmp_path)
    searched(tmp_path, "a", "b")
    folder = tmp_path / "runs/one"
    outcome = read(folder / "journal.jsonl")[0].result()
    assert outcome
    good = predictions_of(outcome)
    assert good
    if change is None:
        (folder / FILE).write_bytes((folder / FILE).read_bytes()[:-100])
    else:
        replace(good, **change).write(folder)
    for words in (["show", "one"], ["show", "one", "--report", "page.html"]):
        line = error_line(inline(*words, code=1))
        assert f"{FILE} is damaged" in line
        assert "remove the file" in line


def test_pictures_are_small_and_grey_or_in_colour() -> None:
    for channels, expected in ((1, 1), (2, 1), (3, 3), (4, 1)):
        for side in (8, 256):
            images = torch.full((2, channels, side, side // 2), 200, dtype=torch.uint8)
            found = pictures(images)
            assert found.shape == (2, min(side, SIDE), min(side, SIDE) // 2, expected)
            assert (found == 200).all()
    assert pictures(torch.zeros(5, 6, 100, 1)).size == 0  # recordings
    assert len(pictures(torch.zeros(0, 1, 8, 8))) == 0


def test_examples_are_training_images_as_the_recipe_changes_them() -> None:
    images = torch.arange(6, dtype=torch.uint8).view(6, 1, 1, 1).expand(6, 1, 12, 12) * 40 + 50
    labels = torch.tensor([0, 1, 0, 2, 0, 2])
    split = Split(images.contiguous(), labels)
    data = Dataset.of("shades", split, split, ("a", "b", "c"))
    found = examples(data, Recipe(shift=0), [0, 2], seed=3)
    assert found.shape == (2, 2, 4, 12, 12, 1)
    shades = found[..., 0, 0, 0].tolist()
    assert shades == [[[50, 50, 130, 210]] * 2, [[170, 170, 250, 250]] * 2]  # unchanged, each beside itself
    moved = examples(data, Recipe(shift=3), [0, 2], seed=3)
    assert (moved[:, 0] == found[:, 0]).all()
    assert (moved[:, 1] == 0).any()  # black has moved in
    assert (moved == examples(data, Recipe(shift=3), [0, 2], seed=3)).all()
