"""``nas predict``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nas.cli.options import plugins_option, print_json, print_out
from nas.errors import ImageError, NasError, UsageError, plain, quoted, unknown

if TYPE_CHECKING:
    from nas.winner.predict import Classifier, Prediction

SURE = 0.9  # below this probability the second class is shown, too
NAME = 27  # characters of an image's name: the rest of 80 columns where classes are digits
CLASS = 16  # characters of a class's name


@click.command()
@click.argument("arguments", metavar="[SEARCH] IMAGE...", nargs=-1)
@click.option("--search", "chosen", metavar="SEARCH", help="The search; then all arguments are images.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
@plugins_option()
@click.pass_context
def predict(context: click.Context, arguments: tuple[str, ...], chosen: str | None, as_json: bool) -> None:
    """Classify images with the winner of a search.

    IMAGE is a PNG or JPEG file of any size, a folder (its images, by name), or - for standard input. An image that
    cannot be classified is named in one line on standard error, and the exit code is 1.

    SEARCH is the folder of a search, or its name under runs/. If the first argument is no search, the latest
    search with a winner is used. Where a name could be both, --search SEARCH or ./IMAGE decides.
    """
    search, images = _split(arguments, chosen)
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
    for answer in classifier.predict(files):
        if isinstance(answer, Prediction):
            out.add(answer)
        else:
            _refuse(refused, answer.image, answer.reason)
    out.end(refused)
    if refused:
        context.exit(1)


def _split(arguments: Sequence[str], chosen: str | None) -> tuple[str | None, Sequence[str]]:
    """The search, or None for the latest one, and the images."""
    from nas.records import searches

    if chosen is not None or not arguments:
        return chosen, arguments
    first = arguments[0]
    try:
        searches.named(first)
    except NasError:
        is_search = False
    else:
        is_search = True
    there = os.path.lexists(first)
    if is_search and there and not _is_search_folder(first):
        raise UsageError(
            f"{quoted(first)} is a search under runs/, and a file here: write --search {first} for the search, or "
            f"./{first} for the image"
        )
    if is_search:
        return first, arguments[1:]
    looks_like_image = first == "-" or "/" in first or first.lower().endswith((".png", ".jpg", ".jpeg"))
    if not there and not looks_like_image:
        known = [folder.name for folder in searches.every()]
        raise UsageError(f"{unknown('search', first, known)}, nor is there an image of that name")
    return None, arguments


def _is_search_folder(name: str) -> bool:
    from nas.records.journal import FILE

    return (Path(name) / FILE).is_file()


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
    """A file name as text: a disk may hold names that are no valid text."""
    return name.encode(errors="surrogateescape").decode(errors="replace")


def _shown(name: str) -> str:
    """A name in one line, without control characters."""
    return plain(_text(name)).replace("\n", "\ufffd").replace("\t", "\ufffd")


def _fitted(text: str, width: int) -> str:
    """A text of a fixed width; of a longer text the end is kept, because paths differ there."""
    return f"{text if len(text) <= width else '…' + text[1 - width :]:{width}}"


class _Lines:
    """One line for each image, as soon as it is classified."""

    def __init__(self, classifier: Classifier, files: Sequence[str]) -> None:
        self.classes = [_shown(name) for name in classifier.classes]
        self.name = min(NAME, max((len(_shown(file)) for file in files), default=0))
        self.width = min(CLASS, max(map(len, self.classes)))
        self.shape = classifier.shape

    def add(self, prediction: Prediction) -> None:
        order = prediction.ranked()
        first = self._class(prediction, order[0])
        second = f"or {self._class(prediction, order[1])}" if len(order) > 1 else ""
        doubt = second if prediction.probabilities[order[0]] < SURE else " " * len(second)
        line = f"{_fitted(_shown(prediction.image), self.name)}  {first}  {doubt}  {self._preparation(prediction)}"
        print_out(line.rstrip())

    def end(self, refused: Sequence[dict[str, str]]) -> None:
        """Write nothing more."""

    def _class(self, prediction: Prediction, index: int) -> str:
        return f"{_fitted(self.classes[index], self.width)} {100 * prediction.probabilities[index]:6.2f} %"

    def _preparation(self, prediction: Prediction) -> str:
        picture = prediction.picture
        if picture.polarity:
            return f"{picture.polarity}{': inverted' if picture.inverted else ''}"
        return "" if picture.size == (self.shape[2], self.shape[1]) else "resized"


class _Json:
    """One JSON object at the end."""

    def __init__(self, classifier: Classifier, folder: Path) -> None:
        self.classes = list(classifier.classes)
        self.network = {"search": _text(str(folder)), "classes": self.classes, "input_shape": classifier.shape}
        self.images: list[dict[str, Any]] = []

    def add(self, prediction: Prediction) -> None:
        picture, best = prediction.picture, prediction.ranked()[0]
        entry = {
            "image": _text(prediction.image),
            "class": self.classes[best],
            "probability": float(prediction.probabilities[best]),
            "probabilities": dict(zip(self.classes, map(float, prediction.probabilities), strict=True)),
            "polarity": picture.polarity or None,
            "inverted": picture.inverted,
            "size": list(picture.size),
        }
        self.images.append(entry)

    def end(self, refused: Sequence[dict[str, str]]) -> None:
        print_json({"network": self.network, "images": self.images, "refused": list(refused)})
