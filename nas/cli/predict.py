"""``nas predict``."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nas.cli.options import print_out
from nas.errors import ImageError, NasError, UsageError, plain, quoted, unknown

if TYPE_CHECKING:
    from nas.winner.predict import Classifier, Prediction

SURE = 0.9  # less probable, and the runner-up is named
NAME = 27  # characters of an image's name: what 80 columns leave where classes are digits
CLASS = 16  # of a class's


@click.command()
@click.argument("words", metavar="[SEARCH] IMAGE...", nargs=-1)
@click.option("--search", "chosen", metavar="SEARCH", help="The search; then all words are images.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, as the last line.")
@click.pass_context
def predict(context: click.Context, words: tuple[str, ...], chosen: str | None, as_json: bool) -> None:
    """Classify images with the winner of a search.

    IMAGE is a PNG or JPEG file of any size, a folder (its images, by name), or - for standard input. What cannot
    be classified costs one line on standard error, and the exit code is 1.

    SEARCH is the folder of a search, or its name under runs/. The first word is taken for it if it is one;
    otherwise the latest search that has a winner is used. --search and ./IMAGE say what is what.
    """
    search, images = _told_apart(words, chosen)
    if not images:
        raise UsageError("no image was given: `nas predict [SEARCH] IMAGE…` takes files, folders, and -")
    from nas.records.searches import with_winner

    folder = with_winner(search)
    from nas.winner.predict import Classifier, Prediction

    classifier = Classifier(folder / "best")
    click.echo(plain(f"nas predict: the winner of {folder.name}"), err=True)
    refused: list[dict[str, str]] = []
    files = list(_files(images, refused))
    out = _Json(classifier, folder) if as_json else _Lines(classifier, files)
    for one in classifier.predict(files):
        if isinstance(one, Prediction):
            out.add(one)
        else:
            _refuse(refused, one.image, one.reason)
    out.end(refused)
    if refused:
        context.exit(1)


def _told_apart(words: Sequence[str], chosen: str | None) -> tuple[str | None, Sequence[str]]:
    """The search, or None for the latest one, and the images."""
    from nas.records import searches

    if chosen is not None or not words:
        return chosen, words
    first = words[0]
    try:
        searches.named(first)
    except NasError:
        is_search = False
    else:
        is_search = True
    there = os.path.lexists(first)
    if is_search and there and not _is_search_folder(first):
        raise UsageError(
            f"{quoted(first)} is a search under runs/, and something else here: say --search {first}, or ./{first}"
        )
    if is_search:
        return first, words[1:]
    looks = first == "-" or "/" in first or first.lower().endswith((".png", ".jpg", ".jpeg"))
    if not there and not looks:
        known = [folder.name for folder in searches.every()]
        raise UsageError(f"{unknown('search', first, known)}, nor is there an image of that name")
    return None, words


def _is_search_folder(word: str) -> bool:
    from nas.records.journal import FILE

    return (Path(word) / FILE).is_file()


def _files(images: Sequence[str], refused: list[dict[str, str]]) -> Iterator[str]:
    """All images, those of folders included."""
    from nas.winner.predict import listed

    for image in images:
        try:
            files, others = listed(image)
        except ImageError as error:
            _refuse(refused, image, str(error))
            continue
        if others:
            what = "1 other file is" if others == 1 else f"{others:,} other files are"
            click.echo(f"nas predict: {_shown(image)}: {what} left out: no .png, .jpg or .jpeg", err=True)
        yield from files


def _refuse(refused: list[dict[str, str]], image: str, reason: str) -> None:
    refused.append({"image": _text(image), "reason": reason})
    click.echo(f"nas: {_shown(image)}: {reason}", err=True)


def _text(name: str) -> str:
    """A name that can be written: on a disk, it need not be a text."""
    return name.encode(errors="surrogateescape").decode(errors="replace")


def _shown(name: str) -> str:
    """A name in one line, of which a terminal obeys nothing."""
    return plain(_text(name)).replace("\n", "\ufffd").replace("\t", "\ufffd")


def _fitted(text: str, width: int) -> str:
    """The end of a text that is too long: there, paths differ."""
    return f"{text if len(text) <= width else '…' + text[1 - width :]:{width}}"


class _Lines:
    """One line an image, as soon as it is known."""

    def __init__(self, classifier: Classifier, files: Sequence[str]) -> None:
        self.classes = [_shown(name) for name in classifier.classes]
        self.name = min(NAME, max((len(_shown(file)) for file in files), default=0))
        self.width = min(CLASS, max(map(len, self.classes)))
        self.shape = classifier.shape

    def add(self, one: Prediction) -> None:
        order = one.ranked()
        first = self._class(one, order[0])
        second = f"or {self._class(one, order[1])}" if len(order) > 1 else ""
        doubt = second if one.probabilities[order[0]] < SURE else " " * len(second)
        line = f"{_fitted(_shown(one.image), self.name)}  {first}  {doubt}  {self._seen(one)}"
        print_out(line.rstrip())

    def end(self, refused: Sequence[dict[str, str]]) -> None:
        """Everything is said."""

    def _class(self, one: Prediction, index: int) -> str:
        return f"{_fitted(self.classes[index], self.width)} {100 * one.probabilities[index]:6.2f} %"

    def _seen(self, one: Prediction) -> str:
        picture = one.picture
        if picture.polarity:
            return f"{picture.polarity}{': inverted' if picture.inverted else ''}"
        return "" if picture.size == (self.shape[2], self.shape[1]) else "resized"


class _Json:
    """One object in one line, written piece by piece: a folder may have any number of images."""

    def __init__(self, classifier: Classifier, folder: Path) -> None:
        self.classes = classifier.classes
        network = {"search": _text(str(folder)), "classes": list(self.classes), "input_shape": classifier.shape}
        self.before = f'{{"network": {self._line(network)}, "images": ['

    def add(self, one: Prediction) -> None:
        picture, best = one.picture, one.ranked()[0]
        about: dict[str, Any] = {
            "image": _text(one.image),
            "class": self.classes[best],
            "probability": float(one.probabilities[best]),
            "probabilities": dict(zip(self.classes, map(float, one.probabilities), strict=True)),
            "polarity": picture.polarity or None,
            "inverted": picture.inverted,
            "size": list(picture.size),
        }
        self._write(f"{self.before}{self._line(about)}")
        self.before = ", "

    def end(self, refused: Sequence[dict[str, str]]) -> None:
        start = "" if self.before == ", " else self.before
        self._write(f'{start}], "refused": {self._line(list(refused))}}}\n')

    @staticmethod
    def _line(data: Any) -> str:
        return json.dumps(data, ensure_ascii=False)

    @staticmethod
    def _write(text: str) -> None:
        sys.stdout.write(text)
