"""``nas predict``."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nas.cli.options import json_option, network_option, plugins_option, print_json, print_out
from nas.errors import ImageError, NasError, UsageError, plain, quoted, unknown

if TYPE_CHECKING:
    from nas.winner.best import Description
    from nas.winner.predict import Classifier, Prediction
    from nas.winner.predict_files import FileClassifier, FilePrediction

SURE = 0.9  # below this probability the second class is shown, too
WIDTH = 80  # columns of a line
IMAGE_WIDTH = 14  # characters of an image's name, at least
CLASS_WIDTH = 16  # characters of a class's name, at most
MOST_TEXT = 2**20  # bytes of a text to continue


@click.command()
@click.argument("arguments", metavar="[SEARCH] [FILE]...", nargs=-1)
@click.option("--search", "chosen", metavar="SEARCH", help="Search to use. Then all arguments are files.")
@click.option("--text", metavar="TEXT", help="Text to continue, for a network that has learned from a text.")
@click.option(
    "--length",
    metavar="N",
    type=click.IntRange(1, 100_000),
    help="Number of characters that follow the text. Default: 200.",
)
@click.option(
    "--temperature",
    metavar="T",
    type=click.FloatRange(0.0, 10.0),
    help="How much chance decides the characters: 0 takes the most probable one, 1 draws them by their "
    "probabilities. Default: 0.8.",
)
@click.option(
    "--seed",
    metavar="N",
    type=click.IntRange(0, 2**63 - 1),
    help="Seed of what is drawn by chance. Default: 0.",
)
@network_option
@json_option
@plugins_option()
@click.pass_context
def predict(
    context: click.Context,
    /,
    arguments: tuple[str, ...],
    chosen: str | None,
    network: str | None,
    as_json: bool,
    **of_text: Any,
) -> None:
    """Classify your own images, series or recordings with the winner of a search, or continue a text.

    FILE is of the kind from which the network has learned. An image is a JPEG, PNG, WebP, BMP, TIFF or GIF file of
    any size (HEIC, too, with the package pillow-heif), or - for standard input. Series are in a .ts, .tsv, .csv or
    .npz file and need no labels; each is prepared as those of the search. A recording is a WAV file. A folder
    stands for all such files in it (and in folders of it). If the folders in a folder have the names of classes,
    or if series have labels, the last line says how many are classified correctly. If something cannot be
    classified, a line on standard error gives the reason, and the exit code is 1.

    A text to continue is given by --text, or is a .txt file, or - for standard input.

    SEARCH is the folder of a search or its name under runs/. Default: the latest search with a winner. If a name
    could be a search or a file, write --search SEARCH or ./FILE.
    """
    search, files = _split(arguments, chosen)
    options = {name: value for name, value in of_text.items() if value is not None}
    if not files and "text" not in options:
        raise UsageError(
            "no file was given: `nas predict [SEARCH] FILE…` takes files, folders, and -; for texts, --text TEXT"
        )
    from nas.records.searches import with_winner

    folder = with_winner(search)
    from nas.data.kinds import kind_of
    from nas.winner.best import description_of, folder_of

    best = folder_of(folder, network)
    description = description_of(best)
    kind = kind_of(description.input_shape)
    who = best.name if network else "the winner"
    if kind != "tokens" and options:
        name = next(iter(options))
        raise UsageError(f"--{name} is for a network that has learned from a text: {who} takes {kind}")
    about: dict[str, Any] = {
        "search": _text(str(folder)),
        "classes": list(description.classes),
        "input_shape": description.input_shape,
        **({"id": best.name} if network else {}),
    }
    click.echo(plain(f"nas predict: {who} of {folder.name}"), err=True)
    if kind == "tokens":
        _continue(best, about, files, options, as_json=as_json)
    elif not _classify(_classifier(best, description), about, files, as_json=as_json):
        context.exit(1)


def _classifier(best: Path, description: Description) -> Classifier | FileClassifier:
    """What classifies files with a network."""
    from nas.data.sequences.sound import SoundFormat

    if len(description.input_shape) == 3 and not isinstance(description.reading, SoundFormat):
        from nas.winner.predict import Classifier

        return Classifier(best)
    from nas.winner.predict_files import FileClassifier

    return FileClassifier(best)


def _classify(
    classifier: Classifier | FileClassifier, about: Mapping[str, Any], names: Sequence[str], *, as_json: bool
) -> bool:
    """Classify files and print the answers; whether all of them were classified."""
    from nas.winner.predict import Classifier, Refusal

    if isinstance(classifier, Classifier):
        noun = "images"
    else:
        noun = "recordings" if classifier.takes_sounds else "series"
    refused: list[dict[str, str]] = []
    labels = dict(_files(names, refused, classifier, noun))
    predictions = []
    verdicts: list[bool | None] = []  # of each prediction, None without a label
    layout = _Layout(classifier, labels, noun)
    for answer in classifier.predict(labels):
        if isinstance(answer, Refusal):
            _refuse(refused, answer.image, answer.reason, noun)
            continue
        if answer.note:
            click.echo(f"nas predict: {_shown(answer.place)}: {answer.note}", err=True)
        label = answer.label if answer.label is not None else labels[answer.file]
        verdicts.append(None if label is None else label == classifier.classes[answer.ranked()[0]])
        if as_json:
            predictions.append({**_entry(answer, classifier.classes), "label": label})
        else:
            print_out(layout.line(answer, label))
    if as_json:
        counts = {"labelled": len(verdicts) - verdicts.count(None), "right": verdicts.count(True)}
        print_json({"network": about, noun: predictions, "refused": refused, **counts})
    elif labelled := len(verdicts) - verdicts.count(None):
        right, others = verdicts.count(True), verdicts.count(None)
        share = f"{right:,} of {labelled:,} {noun} ({100 * right / labelled:.2f} %)"
        more = f"; {others:,} other{'s' * (others > 1)}" if others else ""
        names_it = "file" if noun == "series" else "folder"
        print_out(f"{share} have the class that their {names_it} names{more}")
    return not refused


def _continue(
    best: Path, about: Mapping[str, Any], files: Sequence[str], options: Mapping[str, Any], *, as_json: bool
) -> None:
    """Continue a text, and print it with what follows."""
    from nas.winner.text import Writer

    chosen = dict(options)
    given = chosen.pop("text", None)
    if (given is None) == (not files) or len(files) > 1:
        raise UsageError("give one text to continue: --text TEXT, or a .txt file, or - for standard input")
    text = given if given is not None else _read_text(files[0])
    following = Writer(best).continued(text, **chosen)
    if as_json:
        print_json({"network": about, "text": _text(text), "continuation": following})
    else:
        print_out(plain(_text(text)) + plain(following))


def _read_text(file: str) -> str:
    """The text of a file, or of standard input, without the end of its last line."""
    try:
        content = sys.stdin.buffer.read(MOST_TEXT + 1) if file == "-" else _beginning(Path(file))
        if len(content) > MOST_TEXT:
            raise UsageError(f"{quoted(file)} has more than {MOST_TEXT // 2**20} MiB: give its last part only")
        return content.decode("utf-8-sig").removesuffix("\n").removesuffix("\r")
    except OSError as error:
        raise UsageError(f"{quoted(file)} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{quoted(file)} is no text in UTF-8: name a text file, or write --text TEXT") from None


def _beginning(path: Path) -> bytes:
    if not path.is_file():
        raise UsageError(f"there is no file {quoted(str(path))}: name a text file, or write --text TEXT")
    with path.open("rb") as file:
        return file.read(MOST_TEXT + 1)


def _split(arguments: Sequence[str], chosen: str | None) -> tuple[str | None, Sequence[str]]:
    """The search, or None for the latest one, and the files."""
    from nas.records import journal, searches

    if chosen is not None or not arguments:
        return chosen, arguments
    first = arguments[0]
    exists = os.path.lexists(first)
    try:
        searches.named(first)
    except NasError:
        looks_like_file = first == "-" or "/" in first or first.lower().endswith(_endings())
        if exists or looks_like_file:
            return None, arguments
        known = [folder.name for folder in searches.every()]
        raise UsageError(f"{unknown('search', first, known)}, nor is there a file of that name") from None
    if exists and not (Path(first) / journal.FILE).is_file():
        raise UsageError(
            f"{quoted(first)} is a search under runs/, and a file here: write --search {first} for the search, or "
            f"./{first} for the file"
        )
    return first, arguments[1:]


def _files(
    names: Sequence[str], refused: list[dict[str, str]], classifier: Classifier | FileClassifier, noun: str
) -> Iterator[tuple[str, str | None]]:
    """All files, including those in folders, each with the class that its folder names, if it names one."""
    from nas.winner.predict import class_of, listed

    for name in names:
        try:
            files, others = listed(name, classifier.endings, noun)
        except ImageError as error:
            _refuse(refused, name, str(error), noun)
            continue
        if others:
            one = noun if noun == "series" else noun.removesuffix("s")
            count = "1 other file is" if others == 1 else f"{others:,} other files are"
            click.echo(f"nas predict: {_shown(name)}: {count} left out: hidden, or no {one} by the name", err=True)
        is_folder = Path(name).is_dir()
        yield from ((file, class_of(file, name, classifier.classes) if is_folder else None) for file in files)


def _endings() -> tuple[str, ...]:
    """Of the names of all files that some network takes."""
    from nas.data.decoder import ENDINGS as IMAGES
    from nas.data.sequences.reading import ENDINGS as SERIES
    from nas.data.sequences.wav import ENDINGS as SOUNDS

    return (*IMAGES, *SERIES, *SOUNDS)


def _refuse(refused: list[dict[str, str]], name: str, reason: str, noun: str) -> None:
    refused.append({"image" if noun == "images" else "file": _text(name), "reason": reason})
    click.echo(f"nas: {_shown(name)}: {reason}", err=True)


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

    def __init__(self, classifier: Classifier | FileClassifier, files: Collection[str], noun: str) -> None:
        self.classes = [_shown(name) for name in classifier.classes]
        self.size = classifier.shape[-1], classifier.shape[-2]
        self.class_width = min(CLASS_WIDTH, max(map(len, self.classes)))
        is_centred = getattr(classifier, "framing", "") == "centred"
        last = len("dark on light: inverted") if is_centred else len("resized")
        rest = 2 * (self.class_width + len(" 100.00 %")) + len("or ") + 3 * len("  ") + last
        longest = max((len(_shown(file)) for file in files), default=0)
        if noun == "series":  # the place in the file follows its name
            longest = max((len(_shown(Path(file).name)) for file in files), default=0) + len(", line 1000")
        self.image_width = min(max(IMAGE_WIDTH, WIDTH - rest), longest)

    def line(self, prediction: Prediction | FilePrediction, label: str | None) -> str:
        """The file, the most probable class, the second one in case of doubt, and a remark.

        The remark is whether the class is the label; without a label, how an image was prepared.
        """
        probabilities, picture = prediction.probabilities, getattr(prediction, "picture", None)
        best, *others = prediction.ranked()
        texts = [
            f"{_fitted(self.classes[i], self.class_width)} {100 * probabilities[i]:6.2f} %"
            for i in (best, *others[:1])
        ]
        second = f"or {texts[-1]}" if others else ""
        if probabilities[best] >= SURE:
            second = " " * len(second)
        remark = "" if picture is None or picture.size == self.size else "resized"
        if picture is not None and picture.polarity:
            remark = f"{picture.polarity}{': inverted' if picture.inverted else ''}"
        if label is not None:
            remark = "right" if _shown(label) == self.classes[best] else "wrong"
        return f"{_fitted(_shown(prediction.place), self.image_width)}  {texts[0]}  {second}  {remark}".rstrip()


def _entry(prediction: Prediction | FilePrediction, classes: Sequence[str]) -> dict[str, Any]:
    from nas.winner.predict import Prediction

    best = prediction.ranked()[0]
    answer = {
        "class": classes[best],
        "probability": float(prediction.probabilities[best]),
        "probabilities": dict(zip(classes, map(float, prediction.probabilities), strict=True)),
    }
    if not isinstance(prediction, Prediction):
        names = {"file": _text(prediction.file), "place": _text(prediction.place)}
        return {**names, **answer, "steps": prediction.steps}
    picture = prediction.picture
    return {
        "image": _text(prediction.image),
        **answer,
        "polarity": picture.polarity or None,
        "inverted": picture.inverted,
        "note": picture.note or None,
        "size": list(picture.size),
    }
