"""``nas predict``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nas.cli.options import json_option, plugins_option, print_json, print_out
from nas.errors import ImageError, NasError, UsageError, plain, quoted, unknown

if TYPE_CHECKING:
    from nas.winner.predict import Classifier, Prediction

SURE = 0.9  # below this probability the second class is shown, too
IMAGE_WIDTH = 27  # characters of an image's name: what the rest leaves of 80 columns if classes are digits
CLASS_WIDTH = 16  # characters of a class's name


@click.command()
@click.argument("arguments", metavar="[SEARCH] IMAGE...", nargs=-1)
@click.option("--search", "chosen", metavar="SEARCH", help="Search to use. Then all arguments are images.")
@json_option
@plugins_option()
@click.pass_context
def predict(context: click.Context, arguments: tuple[str, ...], chosen: str | None, as_json: bool) -> None:
    """Classify your own images with the winner of a search.

    IMAGE is a PNG, JPEG, WebP, BMP, TIFF or GIF file of any size, a folder with such files (or with folders of
    them), or - for standard input. For an image that cannot be classified, a line on standard error gives the
    reason, and the exit code is 1.

    SEARCH is the folder of a search or its name under runs/. Default: the latest search with a winner. If a name
    could be a search or an image, write --search SEARCH or ./IMAGE.
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
    predictions = []
    image_width = min(IMAGE_WIDTH, max((len(_shown(file)) for file in files), default=0))
    for answer in classifier.predict(files):
        if not isinstance(answer, Prediction):
            _refuse(refused, answer.image, answer.reason)
            continue
        if answer.picture.note:
            click.echo(f"nas predict: {_shown(answer.image)}: {answer.picture.note}", err=True)
        if as_json:
            predictions.append(_entry(answer, classifier.classes))
        else:
            print_out(_line(answer, classifier, image_width))
    if as_json:
        network = {
            "search": _text(str(folder)),
            "classes": list(classifier.classes),
            "input_shape": classifier.shape,
        }
        print_json({"network": network, "images": predictions, "refused": refused})
    if refused:
        context.exit(1)


def _split(arguments: Sequence[str], chosen: str | None) -> tuple[str | None, Sequence[str]]:
    """The search, or None for the latest one, and the images."""
    from nas.records import journal, searches

    if chosen is not None or not arguments:
        return chosen, arguments
    first = arguments[0]
    exists = os.path.lexists(first)
    try:
        searches.named(first)
    except NasError:
        from nas.winner.images import ENDINGS

        looks_like_image = first == "-" or "/" in first or first.lower().endswith(ENDINGS)
        if exists or looks_like_image:
            return None, arguments
        known = [folder.name for folder in searches.every()]
        raise UsageError(f"{unknown('search', first, known)}, nor is there an image of that name") from None
    if exists and not (Path(first) / journal.FILE).is_file():
        raise UsageError(
            f"{quoted(first)} is a search under runs/, and a file here: write --search {first} for the search, or "
            f"./{first} for the image"
        )
    return first, arguments[1:]


def _files(images: Sequence[str], refused: list[dict[str, str]]) -> Iterator[str]:
    """All images, including those in folders."""
    from nas.winner.predict import listed

    for image in images:
        try:
            files, others = listed(image)
        except ImageError as error:
            _refuse(refused, image, str(error))
            continue
        if others:
            count = "1 other file is" if others == 1 else f"{others:,} other files are"
            click.echo(
                f"nas predict: {_shown(image)}: {count} left out: hidden, or no image by the name", err=True
            )
        yield from files


def _refuse(refused: list[dict[str, str]], image: str, reason: str) -> None:
    refused.append({"image": _text(image), "reason": reason})
    click.echo(f"nas: {_shown(image)}: {reason}", err=True)


def _text(name: str) -> str:
    """A file name as valid text, which file names need not be."""
    return name.encode(errors="surrogateescape").decode(errors="replace")


def _shown(name: str) -> str:
    """A name in one line, without control characters."""
    return plain(_text(name)).replace("\n", "\ufffd").replace("\t", "\ufffd")


def _fitted(text: str, width: int) -> str:
    """A text of a fixed width; a longer text keeps its end, because paths differ there."""
    return f"{text if len(text) <= width else '…' + text[1 - width :]:{width}}"


def _line(prediction: Prediction, classifier: Classifier, image_width: int) -> str:
    """The image, the most probable class, the second one in case of doubt, and how the image was prepared."""
    class_width = min(CLASS_WIDTH, max(len(_shown(name)) for name in classifier.classes))
    classes = [
        f"{_fitted(_shown(classifier.classes[i]), class_width)} {100 * prediction.probabilities[i]:6.2f} %"
        for i in prediction.ranked()[:2]
    ]
    second = f"or {classes[-1]}" if len(classes) > 1 else ""
    if max(prediction.probabilities) >= SURE:
        second = " " * len(second)
    picture = prediction.picture
    preparation = "" if picture.size == (classifier.shape[2], classifier.shape[1]) else "resized"
    if picture.polarity:
        preparation = f"{picture.polarity}{': inverted' if picture.inverted else ''}"
    return f"{_fitted(_shown(prediction.image), image_width)}  {classes[0]}  {second}  {preparation}".rstrip()


def _entry(prediction: Prediction, classes: Sequence[str]) -> dict[str, Any]:
    picture, best = prediction.picture, prediction.ranked()[0]
    return {
        "image": _text(prediction.image),
        "class": classes[best],
        "probability": float(prediction.probabilities[best]),
        "probabilities": dict(zip(classes, map(float, prediction.probabilities), strict=True)),
        "polarity": picture.polarity or None,
        "inverted": picture.inverted,
        "note": picture.note or None,
        "size": list(picture.size),
    }
