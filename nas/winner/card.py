"""The model card, README.md in best/: the network, its search, its scores."""

from __future__ import annotations

from nas.architecture.layers import show
from nas.files import write_whole
from nas.records.outcome import Outcome
from nas.records.predictions import predictions_of
from nas.report.classes import TABULATED, confusions, scores
from nas.report.summary import Summary, layer_rows
from nas.report.words import duration, markdown_table, percent, unmarked

USE = """\
The network takes raw images, 0 to 255; normalisation is its first step:

```python
from pathlib import Path
from nas.winner.best import load_network

network = load_network(Path("best"))
logits = network(images)  # (N, C, H, W), uint8 or float
```"""


def write_card(outcome: Outcome) -> None:
    """Write the model card beside the weights."""
    header, limits, summary = outcome.header, outcome.header.limits, Summary.of(outcome)
    layers = [row[:3] for row in layer_rows(outcome.architecture, limits)]
    parts = [
        f"# {outcome.winner.id}",
        f"A network for images of {show(limits.input_shape)} and {limits.classes} classes, from the run "
        f"{header.name} ({summary.effort}).\n{summary.sentence}",
        header.note,
        summary.markdown(),
        _classes(outcome),
        markdown_table(("layer", "output", "parameters"), layers),
        f"Trained for {duration(outcome.retrained[0].job.epochs)} with the recipe `{header.recipe}`"
        f"{_changes(outcome)}; data fingerprint {header.dataset['fingerprint']}.",
        USE,
    ]
    write_whole(outcome.weights.parent / "README.md", "\n\n".join(part for part in parts if part) + "\n")


def _classes(outcome: Outcome) -> str:
    """The recall and the precision of each class on the test images, of those with the lowest recall if many."""
    predictions = predictions_of(outcome)
    if predictions is None:
        return ""
    test = confusions(predictions)[0]
    columns = ("class", "test images", "recall", "precision")
    rows = []
    for name, images, recall, precision, *_ in scores(predictions, test.shown(TABULATED)):
        shares = ("–" if share is None else percent(share) for share in (recall, precision))
        rows.append((unmarked(name), f"{images:,}", *shares))
    return markdown_table(columns, rows)


def _changes(outcome: Outcome) -> str:
    changes = ", ".join(f"{name} {value}" for name, value in outcome.winner.job.candidate.recipe.items())
    return f", changed by a search: `{changes}`" if changes else ""
