"""The figures of a search can be read: titles, units, legends, no text on another or cut, in grey, too."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from matplotlib.axis import Tick
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from test_mlflow import ACCURACY, Shown, make_outcome, make_trial

from nas.architecture.architecture import Architecture
from nas.architecture.known import LECTURE, LENET5
from nas.architecture.layers import Conv2d, Dense, Flatten
from nas.objectives import Objective, front, scored
from nas.records.outcome import Importance
from nas.records.record import Record
from nas.report.figures import CAPTIONS, OF_CLASSES, draw, figures, parallel, pointable, scene, style, svg_of
from nas.trial import Job, Trial

TWO = (*ACCURACY, Objective("parameters", -1))
ODD: dict[str, Any] = {
    "sto$p": True,
    "x$_{2}$": "a\nb\x1b[31m",
    "a rather long name/of a choice": "and a long answer",
}


def network(number: int) -> Architecture:
    """One of any number of different networks."""
    return Architecture((Conv2d(1 + number % 40, 3), Flatten(), Dense(1 + number // 40)))


def searched(
    folder: Path, count: int, objectives: tuple[Objective, ...] = ACCURACY, *, ended: bool = True
) -> Record:
    """A search in which networks come from those before them and grow better; every ninth one fails."""
    shown = Shown(folder, f"{count} {len(objectives)}", objectives)
    rng = random.Random(count)
    best: Trial | None = None
    for number in range(count):
        accuracy = 1 - 0.5 * rng.uniform(0.3, 1) / (1 + number) ** 0.7
        kind = rng.choice(["plain", "residual", "separable"])
        choices = {"depth": number % 5, "rate": rng.random(), "kind": kind, **ODD}
        trial = make_trial(network(number), accuracy, 4.0 if number % 4 == 0 else 1.0, **choices)
        earlier = [network(rng.randrange(max(0, number - 9), number)).id for _ in range(1 + number % 2) if number]
        origin = ("mutation", "crossover")[number % 2] if number else "sample"
        candidate = replace(trial.job.candidate, parents=tuple(earlier), origin=origin)
        trial = replace(trial, job=replace(trial.job, candidate=candidate))
        if number % 9 == 7:
            trial = Trial.failed(Job(candidate, 1.0, 7), "crash", "died of it")
        elif best is None or (trial.job.epochs, trial.scores) >= (best.job.epochs, best.scores):
            best = trial
        shown.journal.told(trial)
    if ended:
        assert best is not None
        outcome = make_outcome(shown.header, best)
        shown.journal.told(make_trial(LECTURE, 0.9))
        for trial in outcome.retrained:
            shown.journal.append(trial)
        shown.journal.finished(outcome)
    shown.journal.__exit__()
    return shown.journal.record


def texts(figure: Figure) -> Iterator[tuple[str, Any]]:
    """Every text that is seen, and the box it takes."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    renderer = canvas.get_renderer()  # type: ignore[no-untyped-call]
    unseen = {
        id(label)
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]
        for label in _unseen(axis, tick)
    }
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        if text.get_text().strip() and text.get_visible() and id(text) not in unseen:
            yield text.get_text(), text.get_window_extent(renderer)


def _unseen(axis: Any, tick: Tick) -> list[Text]:
    """Labels of ticks that are not drawn: beyond the ends, or switched off where panels share an axis."""
    low, high = sorted(axis.get_view_interval())
    inside = low - 1e-9 <= tick.get_loc() <= high + 1e-9
    shown = [(tick.label1, tick.label1.get_visible()), (tick.label2, tick.label2.get_visible())]
    return [label for label, visible in shown if not (inside and visible and axis.get_visible())]


@pytest.mark.parametrize(
    ("count", "objectives", "ended"),
    [(1, ACCURACY, False), (8, ACCURACY, True), (40, TWO, True), (150, ACCURACY, True)],
)
def test_every_figure_can_be_read(
    tmp_path: Path, count: int, objectives: tuple[Objective, ...], ended: bool
) -> None:
    record = searched(tmp_path, count, objectives, ended=ended)
    found = dict(figures(record))
    expected = {"best_over_trials", "best_over_seconds", "accuracy_and_parameters", "choices", "learning_curves"}
    assert expected <= found.keys() <= CAPTIONS.keys()
    assert ("pareto_front" in found) == (len(objectives) > 1)
    assert ("family_tree" in found) == (count > 1)
    for name, figure in found.items():
        suptitle = figure.get_suptitle()
        assert suptitle.startswith("evolve on mnist-5k"), name
        if name != "family_tree":
            words = [figure.get_supylabel(), *(axes.get_ylabel() for axes in figure.axes)]
            assert any("(" in label for label in words), f"{name} has no unit"
            assert all(axes.get_xlabel() for axes in figure.axes if axes.lines and axes.xaxis.get_visible()), name
        assert figure.legends or any(axes.get_legend() for axes in figure.axes), name
        seen = list(texts(figure))
        assert len(seen) > (2 if name == "family_tree" else 8), name
        width, height = figure.canvas.get_width_height()
        for text, box in seen:
            outside = max(-box.x0, -box.y0, box.x1 - width, box.y1 - height)
            assert outside < 1, f"{name}: {text!r} is cut"
        for (one, first), (two, second) in combinations(seen, 2):
            across = min(first.x1, second.x1) - max(first.x0, second.x0)
            along = min(first.y1, second.y1) - max(first.y0, second.y0)
            assert across < 2 or along < 2, f"{name}: {one!r} is on {two!r}"


def test_the_winner_and_the_lecture_are_marked(tmp_path: Path) -> None:
    figure = dict(figures(searched(tmp_path, 40)))["accuracy_and_parameters"]
    words = " ".join(text for text, _ in texts(figure))
    assert "winner" in words
    assert "lecture" in words


def test_the_progress_is_that_of_the_first_objective_and_of_the_front(tmp_path: Path) -> None:
    record = searched(tmp_path, 40, TWO)
    shown = front(scored(told.trial, record.header.objectives) for told in record.told if not told.trial.failure)
    figure = dict(figures(record))["best_over_trials"]
    title = figure.get_suptitle().replace("\n", " ")
    assert "the best validation accuracy over" in title
    assert f"Pareto front ({len(shown)})" in [text for text, _ in texts(figure)]


def test_every_mark_says_which_trial_it_is(tmp_path: Path) -> None:
    record = searched(tmp_path, 40, TWO)
    outcomes = [told.trial.failure for told in record.told]
    good = [f"<title>trial {number}: " for number, failure in enumerate(outcomes, 1) if failure is None]
    bad = [f"<title>trial {number} failed (" for number, failure in enumerate(outcomes, 1) if failure]
    assert good
    assert bad
    expected = {
        "best_over_trials": [*good, *bad],
        "best_over_seconds": [*good, *bad],
        "accuracy_and_parameters": good,
        "pareto_front": good,
    }
    for name, figure in figures(record):
        said = pointable(svg_of(figure))
        if name in expected:
            assert all(words in said for words in expected[name]), name
        elif name not in OF_CLASSES and name != "importance":
            assert "<title>" in said, name


def test_colours_can_be_seen_in_grey(tmp_path: Path) -> None:
    """The two colours that there is most of can be seen on white paper."""
    folder = tmp_path / "figures"
    folder.mkdir()
    draw(searched(tmp_path, 40), folder)
    image = Image.open(folder / "best_over_trials.png").convert("RGB")
    counts: dict[Any, int] = {colour: count for count, colour in image.getcolors(2**20) or []}
    strong = sorted((colour for colour in counts if max(colour) - min(colour) > 60), key=counts.__getitem__)[-2:]
    greys = [0.299 * red + 0.587 * green + 0.114 * blue for red, green, blue in strong]
    assert all(grey < 200 for grey in greys)  # seen on white


def test_a_search_without_a_trial_has_no_figure_and_one_of_failures_says_so(tmp_path: Path) -> None:
    shown = Shown(tmp_path)
    assert not list(figures(shown.journal.record))
    for seed in range(3):
        shown.journal.told(Trial.failed(make_trial(LENET5, 0, seed=seed).job, "oom", "too large"))
    for name, figure in figures(shown.journal.record):
        assert "fail" in " ".join(text for text, _ in texts(figure)).lower(), name
    shown.journal.__exit__()


def test_many_trials_are_drawn_without_what_would_take_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(style, "MOST_POINTED", 20)
    monkeypatch.setattr(parallel, "LINES", 4)
    mattered = [Importance("depth", 0.5, 0.1), Importance("kind", 0.3, 0.1)]  # in truth nothing did
    monkeypatch.setattr(scene, "importances_of", lambda *_: mattered)
    record = searched(tmp_path, 40)
    drawings = dict(figures(record))
    said = pointable(svg_of(drawings["accuracy_and_parameters"]))
    assert said.count("<title>") < 20  # the winner and the like
    assert "3 of the other 8 that were trained as long" in [
        text for text, _ in texts(drawings["parallel_coordinates"])
    ]
    folder = tmp_path / "figures"
    folder.mkdir()
    assert all(picture.image for picture in draw(record, folder))  # no SVG
