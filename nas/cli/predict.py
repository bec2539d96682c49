"""``nas predict``."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nas.cli.options import json_option, network_option, plugins_option, print_json, print_out
from nas.errors import ImageError, NasError, UsageError, plain, quoted, unknown

if TYPE_CHECKING:
    from nas.winner.predict import Classifier, Prediction

SURE = 0.9  # below this probability the second class is shown, too
WIDTH = 80  # columns of a line
IMAGE_WIDTH = 14  # characters of an image's name, at least
CLASS_WIDTH = 16  # characters of a class's name, at most


@click.command()
@click.argument("arguments", metavar="[SEARCH] IMAGE...", nargs=-1)
@click.option("--search", "chosen", metavar="SEARCH", help="Search to use. Then all arguments are images.")
@network_option
@json_option
@plugins_option()
@click.pass_context
def predict(
    context: click.Context, arguments: tuple[str, ...], chosen: str | None, network: str | None, as_json: bool
) -> None:
    """Classify your own images with the winner of a search.

    IMAGE is a JPEG, PNG, WebP, BMP, TIFF or GIF file of any size (HEIC, too, with the package pillow-heif), a
    folder with such files (or with folders of them), or - for standard input. If the folders in a folder have the
    names of classes, the last line says how many of their images are classified correctly. For an image that
    cannot be classified, a line on standard error gives the reason, and the exit code is 1.

    SEARCH is the folder of a search or its name under runs/. Default: the latest search with a winner. If a name
    could be a search or an image, write --search SEARCH or ./IMAGE.
    """
    search, images = _split(arguments, chosen)
    if not images:
        raise UsageError("no image was given: `nas predict [SEARCH] IMAGE…` takes files, folders, and -")
    from nas.records.searches import with_winner

    folder = with_winner(search)
    from nas.winner.best import folder_of
    from nas.winner.predict import Classifier, Prediction

    best = folder_of(folder, network)
    classifier, who = Classifier(best), best.name if network else "the winner"
    click.echo(plain(f"nas predict: {who} of {folder.name}"), err=True)
    refused: list[dict[str, str]] = []
    labels = dict(_files(images, refused, classifier.classes))
    predictions = []
    verdicts: list[bool | None] = []  # of each prediction, None without a label
    layout = _Layout(classifier, labels)
    for answer in classifier.predict(labels):
        if not isinstance(answer, Prediction):
            _refuse(refused, answer.image, answer.reason)
            continue
        if answer.picture.note:
            click.echo(f"nas predict: {_shown(answer.image)}: {answer.picture.note}", err=True)
        label = labels[answer.image]
        verdicts.append(None if label is None else label == classifier.classes[answer.ranked()[0]])
        if as_json:
            predictions.append({**_entry(answer, classifier.classes), "label": label})
        else:
            print_out(layout.line(answer, label))
    if as_json:
        about = {
            "search": _text(str(folder)),
            "classes": list(classifier.classes),
            "input_shape": classifier.shape,
            **({"id": best.name} if network else {}),
        }
        counts = {"labelled": len(verdicts) - verdicts.count(None), "right": verdicts.count(True)}
        print_json({"network": about, "images": predictions, "refused": refused, **counts})
    elif labelled := len(verdicts) - verdicts.count(None):
        right, others = verdicts.count(True), verdicts.count(None)
        share = f"{right:,} of {labelled:,} images ({100 * right / labelled:.2f} %)"
        more = f"; {others:,} other{'s' * (others > 1)}" if others else ""
        print_out(f"{share} have the class that their folder names{more}")
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
        from nas.data.decoder import ENDINGS

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


def _files(
    images: Sequence[str], refused: list[dict[str, str]], classes: Sequence[str]
) -> Iterator[tuple[str, str | None]]:
    """All images, including those in folders, each with the class that its folder names, if it names one."""
    from nas.winner.predict import class_of, listed

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
        yield from ((file, class_of(file, image, classes) if Path(image).is_dir() else None) for file in files)


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


class _Layout:
    """The columns of the lines: as wide as their longest text, in `WIDTH` columns if possible."""

    def __init__(self, classifier: Classifier, images: Collection[str]) -> None:
        self.classes = [_shown(name) for name in classifier.classes]
        self.size = classifier.shape[2], classifier.shape[1]
        self.class_width = min(CLASS_WIDTH, max(map(len, self.classes)))
        last = len("dark on light: inverted") if classifier.framing == "centred" else len("resized")
        rest = 2 * (self.class_width + len(" 100.00 %")) + len("or ") + 3 * len("  ") + last
        longest = max((len(_shown(image)) for image in images), default=0)
        self.image_width = min(max(IMAGE_WIDTH, WIDTH - rest), longest)

    def line(self, prediction: Prediction, label: str | None) -> str:
        """The image, the most probable class, the second one in case of doubt, and a remark.

        The remark is whether the class is the label; without a label, how the image was prepared.
        """
        probabilities, picture = prediction.probabilities, prediction.picture
        best, *others = prediction.ranked()
        texts = [
            f"{_fitted(self.classes[i], self.class_width)} {100 * probabilities[i]:6.2f} %"
            for i in (best, *others[:1])
        ]
        second = f"or {texts[-1]}" if others else ""
        if probabilities[best] >= SURE:
            second = " " * len(second)
        remark = "" if picture.size == self.size else "resized"
        if picture.polarity:
            remark = f"{picture.polarity}{': inverted' if picture.inverted else ''}"
        if label is not None:
            remark = "right" if _shown(label) == self.classes[best] else "wrong"
        return f"{_fitted(_shown(prediction.image), self.image_width)}  {texts[0]}  {second}  {remark}".rstrip()


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
