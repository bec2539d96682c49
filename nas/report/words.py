"""Words for numbers and names, which every text about a search shares."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from nas.architecture.layers import Shape, show
from nas.data.kinds import noun_of
from nas.errors import plain
from nas.records.outcome import Header
from nas.statistics import deviation, mean
from nas.trial import Trial


def percent(fraction: float) -> str:
    """A fraction as a percentage: ``99.31 %``."""
    return f"{100 * fraction:.2f} %"


def compact(number: float) -> str:
    """A number in few characters: ``24.1k``, ``0.05``."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if size <= abs(number) < 1e3 * size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.3g}"


def short(number: float) -> str:
    """A difference with two digits: ``0.25``, ``0.0013``, ``1,200``."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.2g}"


def several(number: int, noun: str) -> str:
    """A number of things: ``1 training``, ``2 trainings``."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def sizes(header: Header) -> str:
    """How many inputs there are: ``53 series to train, 14 to validate``."""
    train, validation = header.dataset["train"], header.dataset["validation"]
    if header.folds:
        return f"{train + validation:,} {header.inputs.many} to train, validated on {header.folds} folds"
    return f"{train:,} {header.inputs.many} to train, {validation:,} to validate"


def inputs_of(shape: Shape) -> str:
    """What a network classifies: ``images of 28×28×1``, ``series of 24 steps and 1 channel``."""
    noun = noun_of(shape).many
    match shape:
        case (steps,):
            return f"{noun} of {steps:,} characters"
        case (channels, steps):
            return f"{noun} of {several(steps, 'step')} and {several(channels, 'channel')}"
    return f"{noun} of {show(shape)}"


def duration(epochs: float) -> str:
    """The length of a training: ``1 epoch``, ``0.25 epochs``."""
    number = f"{epochs:,.0f}" if epochs >= 1_000 else f"{epochs:.4g}"
    return f"{number} epoch{'s' * (epochs != 1)}"


def mean_and_deviation(values: Sequence[float], *, percentage: bool = False) -> str:
    """The mean ± the standard deviation of fractions as percentages, or of numbers; a single value has no ±."""
    factor, digits, unit = (100, 2, " %") if percentage else (1, 4, "")
    deviates = f" ± {factor * deviation(values):.{digits}f}" if len(values) > 1 else ""
    return f"{factor * mean(values):.{digits}f}{deviates}{unit}"


def effort(
    trials: int, failed: int, seconds: float, failures: Mapping[str, int] | None = None, noun: str = "candidate"
) -> str:
    """The number of trials and the time of a search, finished or not; ``failures``: how many, by their kinds."""
    kinds = ", ".join(f"{count:,} {kind.replace('_', ' ')}" for kind, count in sorted((failures or {}).items()))
    why = f" ({kinds})" if kinds else ""
    return f"{several(trials, noun)}, {failed:,} failed{why}, {several(round(seconds), 'second')}"


def name_of(trial: Trial) -> str:
    """The network's name if it has one, otherwise its id."""
    candidate = trial.job.candidate
    return plain(candidate.origin) if candidate.origin and not candidate.choices else trial.id


def unmarked(text: str) -> str:
    """A stranger's text, such as the name of a class or of a network, that is no markup in Markdown."""
    return re.sub(r"([\\`*_\[\]<>|~])", r"\\\1", text)


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown; bars within cells are escaped."""
    cells = ([re.sub(r"(?<!\\)\|", r"\|", text) for text in row] for row in (head, *rows))
    first, *others = cells
    lines = [first, ["---"] * len(head), *others]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
