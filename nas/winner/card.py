"""The model card, README.md in best/: the network, its search, its scores, and its worst mistakes."""

from __future__ import annotations

from nas.data.kinds import Kind, kind_of
from nas.files import write_whole
from nas.records.outcome import Outcome
from nas.records.predictions import Predictions, predictions_of
from nas.report.classes import TABULATED, confusions, named, scores
from nas.report.summary import Summary, layer_rows
from nas.report.words import duration, inputs_of, markdown_table, percent, unmarked

MISTAKES = "most-wrong.png"
PICTURED = 12  # images in it
CROSSED = 12  # classes up to which there is a confusion matrix: more columns do not fit a page
USE = """\
{takes}:

```python
from pathlib import Path
from nas.winner.best import load_network

network = load_network(Path("best"))
logits = network({noun})  # {shape}
```"""
TAKES: dict[Kind, tuple[str, str]] = {  # what a network takes, and the shape and the type of the inputs
    "images": (
        "The network takes raw images, 0 to 255; normalisation is its first step", "(N, C, H, W), uint8 or float"
    ),
    "series": (
        "The network takes raw series; normalisation is its first step. If it was trained on series of unequal "
        "lengths, NaN follows the shorter ones", "(N, C, time), float32"
    ),
    "tokens": (
        "The network takes characters by their numbers, the positions of the classes, and answers the next one",
        "(N, time), uint8 or int32"
    ),
}  # fmt: skip


def write_card(outcome: Outcome) -> None:
    """Write the model card beside the weights."""
    header, limits, summary = outcome.header, outcome.header.limits, Summary.of(outcome)
    layers = [row[:3] for row in layer_rows(outcome.architecture, limits)]
    predictions = predictions_of(outcome)
    noun = header.inputs.many
    takes, shape = TAKES[kind_of(limits.input_shape)]
    parts = [
        f"# {outcome.winner.id}",
        f"A network for {inputs_of(limits.input_shape)}, and {limits.classes} classes, from the run "
        f"{header.name} ({summary.effort}).\n{summary.sentence}",
        header.note,
        summary.markdown(),
        *(
            [_classes(predictions, noun), _matrix(predictions, noun), _mistakes(outcome, predictions)]
            if predictions
            else ()
        ),
        markdown_table(("layer", "output", "parameters"), layers),
        f"Trained for {duration(outcome.retrained[0].job.epochs)} with the recipe `{header.recipe}`"
        f"{_changes(outcome)}; data fingerprint {header.dataset['fingerprint']}.",
        USE.format(takes=takes, noun=noun, shape=shape),
    ]
    write_whole(outcome.weights.parent / "README.md", "\n\n".join(part for part in parts if part) + "\n")


def _classes(predictions: Predictions, noun: str) -> str:
    """The recall and the precision of each class on the test data, of those with the lowest recall if many."""
    test = confusions(predictions)[0]
    columns = ("class", f"test {noun}", "recall", "precision")
    rows = []
    for name, images, recall, precision, *_ in scores(predictions, test.shown(TABULATED)):
        shares = ("–" if share is None else percent(share) for share in (recall, precision))
        rows.append((unmarked(name), f"{images:,}", *shares))
    return markdown_table(columns, rows)


def _matrix(predictions: Predictions, noun: str) -> str:
    """The confusion matrix of the test; empty if there are too many classes."""
    if len(predictions.classes) > CROSSED:
        return ""
    names = [unmarked(named(name)) for name in predictions.classes]
    matrix = confusions(predictions)[0].matrix(range(len(names)))[:, :-1]
    rows = [(f"**{name}**", *(f"{number:,}" for number in row)) for name, row in zip(names, matrix, strict=True)]
    return f"Test {noun} by their class (rows) and the answer (columns):\n\n" + markdown_table(("", *names), rows)


def _mistakes(outcome: Outcome, predictions: Predictions) -> str:
    """The test inputs that the network got most wrong, as a picture beside the card, and what it said of each."""
    pictures, places = predictions.wrong_pictures[:PICTURED], predictions.wrong[:PICTURED]
    picture = outcome.weights.parent / MISTAKES
    if not pictures.size:
        picture.unlink(missing_ok=True)  # of an earlier winner
        return ""
    from nas.winner.pictures import strip  # imports PyTorch

    write_whole(picture, strip(pictures))
    test, said, noun = predictions.test, list[str](), outcome.header.inputs.many
    for place in places:
        true, answer = (unmarked(named(predictions.classes[part[place]])) for part in (test.labels, test.answers))
        said.append(f"true {true}, said {answer} ({100 * test.chances[place, 0]:.0f} %)")
    return (
        f"The test {noun} that it got most wrong, the worst first:\n\n"
        f"![the most wrong test {noun}]({MISTAKES})\n\n{'; '.join(said)}."
    )


def _changes(outcome: Outcome) -> str:
    changes = ", ".join(f"{name} {value}" for name, value in outcome.winner.job.candidate.recipe.items())
    return f", changed by a search: `{changes}`" if changes else ""
