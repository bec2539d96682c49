"""The classes: their images, the confusion matrices, and the test images that the winner got most wrong."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from nas.data.kinds import NOUNS
from nas.records.predictions import Answers, Array, Predictions
from nas.report.classes import Confusion, named
from nas.report.figures import style
from nas.report.figures.scene import Scene
from nas.report.words import compact

NUMBERED = 12  # classes up to which a matrix has numbers in its cells
MATRIX = 40  # classes in a matrix: their names have 9 points
COLUMNS = 6  # wrong images in a row
GAP = 0.12  # of an image's width, between the images and the same images augmented


def confusion_test(scene: Scene) -> Figure | None:
    """The test images by their class and the winner's answer."""
    found = scene.predictions
    return _matrix(scene, "test", found, found.test) if found else None


def confusion_validation(scene: Scene) -> Figure | None:
    """The validation images by class and answer; none with folds, where the winner has learned from them."""
    found = scene.predictions
    return (
        _matrix(scene, "validation", found, found.validation) if found and len(found.validation.labels) else None
    )


def _matrix(scene: Scene, split: str, predictions: Predictions, answers: Answers) -> Figure:
    count = len(predictions.classes)
    confusion = Confusion(answers.labels, answers.answers, count)
    shown = confusion.shown(MATRIX)
    names = [_name(predictions.classes[label]) for label in shown]
    matrix = confusion.matrix(shown)
    subject = f"the {split} {scene.noun.many} by class and answer"
    if len(shown) < count:
        subject += f" (the {len(shown)} of {count:,} classes with the lowest recall)"
        names.append("any other class")
    else:
        matrix = matrix[:, :-1]
    side = min(8.0, max(5.0, 0.55 * len(names) + 2.4))
    figure = style.canvas(scene, subject, side + 1.0, side)
    axes = figure.subplots()
    shares = matrix / np.maximum(1, matrix.sum(axis=1, keepdims=True))
    # Where all but a few answers are right, these few would be white without the square root.
    image = axes.imshow(100 * shares, cmap="Blues", norm=PowerNorm(0.5, 0, 100), aspect="auto")
    axes.set_xticks(range(len(names)), names, rotation="vertical")
    axes.set_yticks(range(len(shown)), names[: len(shown)])
    axes.tick_params(labelsize=style.SMALL if len(shown) <= NUMBERED else 7.0, colors=style.INK, length=0)
    axes.set(xlabel="answer", ylabel="class")
    bar = figure.colorbar(image, ax=axes, ticks=[0, 1, 5, 10, 25, 50, 100], pad=0.02)
    bar.set_label(f"share of the {scene.noun.many} of a class (%)", fontsize=style.SMALL)
    bar.ax.tick_params(labelsize=style.SMALL)
    if len(shown) <= NUMBERED:
        _numbers(axes, matrix, shares)
    return figure


def _numbers(axes: Axes, matrix: Array, shares: Array) -> None:
    for (row, column), number in np.ndenumerate(matrix):
        if number:
            colour = "white" if shares[row, column] > 0.35 else style.INK
            text = f"{number}" if number < 10**5 else compact(number)
            axes.text(column, row, text, ha="center", va="center", fontsize=style.SMALL, color=colour)


def most_wrong(scene: Scene) -> Figure | None:
    """The test images for whose class the winner's probability is smallest."""
    found = scene.predictions
    if found is None or not found.wrong_pictures.size:
        return None
    pictures, test = found.wrong_pictures, found.test
    columns = min(COLUMNS, len(pictures))
    rows = math.ceil(len(pictures) / columns)
    height = 1.25 * min(2.0, pictures.shape[1] / pictures.shape[2]) + 0.6
    subject = f"the most wrong test {scene.noun.many}: the class, what was said instead, and its probability"
    figure = style.canvas(scene, subject, 8.0, 0.8 + height * rows)
    panels = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for axes, picture, position in zip(panels, pictures, found.wrong, strict=False):
        _show(axes, picture)
        label, answer = (found.classes[part[position]] for part in (test.labels, test.answers))
        chance = 100 * test.chances[position, 0]
        names = [f"true {_name(label, 11)}", f"said {_name(answer, 11)}"]
        pair = (", " if sum(map(len, names)) < 15 else "\n").join(names)  # 16 letters are as wide as an image
        title = f"{pair}\n{chance:.0f} %"
        axes.set_title(title, fontsize=7.5, color=style.INK)
    for axes in panels[len(pictures) :]:
        axes.remove()
    return figure


def examples(scene: Scene) -> Figure | None:
    """Training images of every class, and the same images augmented."""
    found = scene.predictions
    if found is None or not found.examples.size:
        return None
    how = ", in their size" * (scene.noun is NOUNS["images"])
    is_changed = not np.array_equal(found.examples[:, 0], found.examples[:, 1])
    subject = f"training {scene.noun.many} as the network sees them{how}"
    subject += " and, on the right, augmented" * is_changed
    if len(found.examples) < len(found.classes):
        subject += f" ({len(found.examples)} of {len(found.classes):,} classes: those with the lowest recall)"
    columns = min(2, len(found.examples))
    rows = math.ceil(len(found.examples) / columns)
    mosaics = [_mosaic(each if is_changed else each[:1]) for each in found.examples]
    wide = 7.6 / columns
    height = wide * mosaics[0].shape[0] / mosaics[0].shape[1] + 0.3
    figure = style.canvas(scene, subject, 8.0, 0.8 + height * rows)
    panels = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for axes, mosaic, label in zip(panels, mosaics, found.examples_of, strict=False):
        _show(axes, mosaic)
        axes.set_title(_name(found.classes[label]), fontsize=style.SMALL, color=style.INK, loc="left", pad=2)
    for axes in panels[len(mosaics) :]:
        axes.remove()
    return figure


def _mosaic(pictures: Array) -> Array:
    """The pictures (1 or 2, E, h, w, channels) of a class in one row; between two halves stands a white gap."""
    plain, *changed = (np.concatenate(list(half), axis=1) for half in pictures)
    height, width, channels = pictures.shape[2:]
    gap = np.full((height, max(1, round(GAP * width)), channels), 255, np.uint8)
    return np.concatenate([plain, gap, *changed], axis=1) if changed else plain


def _show(axes: Axes, picture: Array) -> None:
    axes.imshow(picture[..., 0] if picture.shape[-1] == 1 else picture, cmap="gray", vmin=0, vmax=255)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def _name(text: str, most: int = 24) -> str:
    return style.short(named(text, most), most)
