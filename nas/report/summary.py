"""The texts about a search that terminal, model card, page and MLflow share: scores, best networks, layers."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from nas.architecture.architecture import Architecture, Limits
from nas.architecture.known import lecture_parameters
from nas.architecture.layers import show
from nas.data.kinds import Kind, kind_of
from nas.errors import plain
from nas.objectives import BALANCED, FRACTIONS
from nas.records.outcome import COMPARED_WITH, GIVEN, Comparison, Outcome
from nas.records.predictions import predictions_of
from nas.records.record import place
from nas.report.classes import sentences
from nas.report.forest import FEWEST
from nas.report.words import (
    duration,
    effort,
    markdown_table,
    mean_and_deviation,
    name_of,
    percent,
    several,
    short,
    unmarked,
)
from nas.statistics import CONFIDENCE, deviation, interval, mean
from nas.trial import Trial

NAMED, LEAST_SHARE = 3, 0.03  # choices that are said to have mattered, and what is the least that does
WHOLE = ("parameters", "flops")  # metrics that are the same for every seed


FILES: dict[Kind, str] = {"images": "IMAGE.png", "series": "FILE", "tokens": '--text "…"'}  # for `nas predict`


SAMPLE = "What the network writes (temperature 0.8)"


class Row(NamedTuple):
    """One score of the winner."""

    label: str
    value: str  # with its unit
    note: str = ""  # how the value was measured
    is_main: bool = False  # whether it is one of the few that are shown in bold


@dataclass(frozen=True)
class Summary:
    """The result of a search as texts."""

    sentence: str  # the result in one sentence
    rows: tuple[Row, ...]
    comparisons: tuple[str, ...]  # a sentence for each network that the winner was compared with
    effort: str  # the number of trials and the time
    classes: tuple[str, ...] = ()  # sentences: which classes are confused, and which have the lowest recall
    reasons: tuple[str, ...] = ()  # sentences: why this network, would a smaller one do, what mattered
    cost: tuple[str, ...] = ()  # sentences: what the search has cost, and what the network costs
    commands: tuple[str, ...] = ()  # what to do with the network
    sample: str = ""  # what the network writes, if it has learned from a text
    smaller: str = ""  # the command for a smaller network that is nearly as good; the last reason names it

    @classmethod
    def of(cls, outcome: Outcome) -> Summary:
        """The summary of a search or, where nothing was searched, of a training.

        Raises:
            NasError: the predictions of the winner are damaged.
        """
        header = outcome.header
        if header.kind == "train":
            epochs = outcome.winner.job.epochs
            sentence = f"{header.config['network']} on {header.dataset['name']}, trained for {duration(epochs)},"
        else:
            found = numbered(outcome, outcome.winner, outcome.winner.id)
            sentence = f"{header.kind} on {header.dataset['name']} found the network {found} with "
            sentence += f"{outcome.parameters:,} parameters. It"
        right = f"{percent(outcome.test_accuracy)} of the {outcome.test_images:,} test {header.inputs.many}"
        compared = [other for other in outcome.compared if other not in outcome.of_front]  # these are in a table
        comparisons = (
            *(_compared(other, header.inputs.many) for other in compared),
            *_beside_the_largest(outcome),
        )
        predictions = predictions_of(outcome)
        classes = sentences(predictions, header.inputs.many) if predictions else ()
        return cls(
            f"{sentence} classifies {right} correctly.", tuple(_rows(outcome)), comparisons, effort_of(outcome),
            classes, tuple(reasons(outcome)), tuple(costs(outcome)), tuple(commands(outcome)),
            plain(outcome.sample), command_for(outcome),
        )  # fmt: skip

    def markdown(self) -> str:
        """Why this network, the rows as a table, then the comparisons, the classes and the cost."""
        rows = [(row.label, f"**{row.value}**" if row.is_main else row.value, row.note) for row in self.rows]
        reasons, classes = (list(map(unmarked, some)) for some in (self.reasons, self.classes))
        reasons += [f"`{self.smaller}`"] * bool(self.smaller)
        table = markdown_table(("score", "value", "note"), rows)
        sample = f"{SAMPLE}:\n\n```text\n{self.sample.replace('```', '` ` `')}\n```" if self.sample else ""
        parts = [*reasons, table, *self.comparisons, *classes, sample, *self.cost]
        return "\n\n".join(part for part in parts if part)


def numbered(outcome: Outcome, trial: Trial, name: str = "") -> str:
    """A network by its name or id and, as in MLflow and in the figures, by the number of its trial."""
    number, shown = outcome.numbers.get(trial.id), name or name_of(trial)
    return f"{shown} (trial {number})" if number and outcome.header.kind != "train" else shown


def effort_of(outcome: Outcome, seconds: float | None = None) -> str:
    """The number of candidates and the time of a search; of a training, the number of seeds."""
    taken = outcome.seconds if seconds is None else seconds
    return effort(outcome.trials, outcome.failed, taken, outcome.failures, outcome.header.noun)


def in_words(outcome: Outcome, network: str | None = None) -> str:
    """How good a network is and how it was trained, for somebody who has nothing but the network.

    ``network``: the id of another one of the Pareto front; None for the winner.
    """
    accuracy, trained = outcome.test_accuracy, outcome.handed_over
    for other in outcome.of_front:
        if other.trial.id == network:
            accuracy, trained = other.accuracy, other.trial
    low, high = interval(accuracy, outcome.test_images)
    noun = outcome.header.inputs.many
    return (
        f"{percent(accuracy)} of {outcome.test_images:,} test {noun} are classified right (95 % "
        f"confidence interval {100 * low:.2f} to {100 * high:.2f} %). Trained from scratch for "
        f"{duration(trained.epochs)} with the recipe {outcome.header.recipe}."
    )


def _rows(outcome: Outcome) -> Iterable[Row]:
    seeds = len(outcome.retrained)
    accuracies = [trial.metrics["validation_accuracy"] for trial in outcome.retrained]
    trained = f"mean ± standard deviation of {seeds} seeds" if seeds > 1 else "one seed"
    if is_search := outcome.header.kind != "train":
        trained = f"from scratch for {duration(outcome.retrained[0].job.epochs)}; {trained}"
    low, high = outcome.test_interval
    opened = "opened once" if outcome.opened == 1 else f"opened {outcome.opened} times"
    if is_search:
        searched = percent(outcome.winner.metrics["validation_accuracy"])
        note = f"after {duration(outcome.winner.job.epochs)}; the best of many, so partly luck"
        yield Row("validation accuracy, search", searched, note)
    validation = mean_and_deviation(accuracies, percentage=True)
    yield Row(f"validation accuracy{', retrained' * is_search}", validation, trained, is_main=True)
    tested = f"{outcome.test_images:,} {outcome.header.inputs.many}, {opened}"
    yield Row("test accuracy", percent(outcome.test_accuracy), tested, True)
    yield Row("its 95 % confidence interval", f"{100 * low:.2f} to {100 * high:.2f} %", "Wilson")
    yield Row("test loss", f"{outcome.test_loss:.4f} nats")
    if outcome.test_balanced_accuracy is not None and outcome.test_macro_f1 is not None and _is_unequal(outcome):
        yield Row("balanced accuracy, test", percent(outcome.test_balanced_accuracy), "the mean of all classes")
        yield Row("macro F1, test", percent(outcome.test_macro_f1), "the mean of all classes")
    if is_search:
        yield Row(
            "search score minus test score",
            f"{100 * outcome.selection_bias:+.2f} points",
            "above 0: partly the luck of choosing"
            if outcome.winner.job.epochs >= outcome.retrained[0].job.epochs
            else "after trainings of unequal length",
        )
    lecture = lecture_parameters(outcome.header.limits)
    note = f"the lecture's network: {lecture:,}" if lecture else ""
    yield Row("parameters", f"{outcome.parameters:,}", note, is_main=True)
    for name, value in outcome.winner.job.candidate.recipe.items():
        answer = f"{value:.3g}" if isinstance(value, float) else str(value)
        yield Row(name.replace("_", " "), answer, "recipe, found by a search")


def number_of(trial: Trial, numbers: Mapping[str, int]) -> str:
    """The number of a network's trial in the cell of a table."""
    return str(numbers.get(trial.id, "–"))


class Finalists(NamedTuple):
    """The networks that the final selection has trained again, as text; the winner in the first row."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]  # network, number of its trial, then mean ± standard deviation of its seeds
    seeds: tuple[str, ...]  # of each network
    commands: tuple[str, ...] = ()  # with several objectives: how to take each of the networks


def finalists(outcome: Outcome) -> Finalists:
    """The table of the final selection; without rows where there was only one network."""
    if len(outcome.finalists) < 2:
        return Finalists((), (), ())
    tested = {other.trial.id: other.accuracy for other in outcome.of_front}
    tested |= {outcome.winner.id: outcome.test_accuracy} if tested else {}
    objectives = [objective.metric for objective in outcome.header.objectives]
    metrics = dict.fromkeys([*objectives, "validation_accuracy", "parameters", "latency_ms"])
    rows = []
    for group in outcome.finalists:
        row = [
            name_of(group[0]),
            number_of(group[0], outcome.numbers),
            *(scores_of(group, metric) for metric in metrics),
        ]
        row += [percent(tested[group[0].id]) if group[0].id in tested else "–"] if tested else []
        rows.append(tuple(row))
    titles = {"latency_ms": f"ms {outcome.header.inputs.each}"}
    names = [titles.get(metric, metric.replace("_", " ")) for metric in metrics]
    search = plain(shlex.quote(place(outcome.header.folder)))
    commands = [f"nas export {search} --network {one[0].id}" for one in outcome.finalists if one[0].id in tested]
    return Finalists(
        ("network", "trial", *names, *["test accuracy"] * bool(tested)),
        tuple(rows),
        tuple(str(len(group)) for group in outcome.finalists),
        tuple(commands),
    )


def finalists_table(outcome: Outcome) -> str:
    """The finalists as a table in Markdown, and how to take each of them; empty if there is only one."""
    found = finalists(outcome)
    if not found.rows:
        return ""
    rows = [(unmarked(row[0]), *row[1:], seeds) for row, seeds in zip(found.rows, found.seeds, strict=True)]
    rows[0] = (f"**{rows[0][0]}**", *rows[0][1:])
    table = markdown_table(("finalist", *found.columns[1:], "seeds"), rows)
    return "\n\n".join([table, *["```\n" + "\n".join(found.commands) + "\n```"] * bool(found.commands)])


def scores_of(trainings: Sequence[Trial], metric: str) -> str:
    """The mean ± the standard deviation of a metric of several trainings of one network."""
    values = [trial.metrics[metric] for trial in trainings if metric in trial.metrics]
    if not values:
        return "–"
    if metric == "latency_ms":  # measured once: the same for every seed
        return f"{values[0]:.3g}"
    if metric in WHOLE:
        return f"{mean(values):,.0f}"
    return mean_and_deviation(values, percentage=metric in FRACTIONS)


def reasons(outcome: Outcome) -> Iterator[str]:
    """Why this network was chosen, whether a smaller one would do, and which choices mattered."""
    if outcome.header.kind == "train":
        return
    metric, groups = outcome.header.objectives[0].metric, outcome.finalists
    if len(groups) == 1:
        tried = several(outcome.trials, "candidate")
        yield f"It is the only one of {tried} that was trained again from scratch to the end."
    else:
        factor, unit = (100.0, " points") if metric in FRACTIONS else (1.0, "")
        won, second = ([factor * trial.metrics[metric] for trial in group] for group in groups[:2])
        apart = abs(mean(won) - mean(second))
        certain = ""
        if min(len(won), len(second)) < 2:
            certain = "; with a single seed, part of that may be luck"
        elif error := (deviation(won) ** 2 / len(won) + deviation(second) ** 2 / len(second)) ** 0.5:
            certain = f"; over the seeds, the standard error of this difference is {short(error)}{unit}"
        which = "represent the Pareto front and " * outcome.is_front
        yield (
            f"Of {len(groups)} networks that {which}were trained again from scratch, it has the best mean "
            f"{metric.replace('_', ' ')}: {scores_of(groups[0], metric)}, {short(apart)}{unit} better than "
            f"{numbered(outcome, groups[1][0])}{certain}."
        )
    yield from _mattered(outcome)
    if (other := outcome.smaller) is not None:
        times = outcome.winner.metrics["parameters"] / max(1.0, other.metrics["parameters"])
        found = [percent(trial.metrics["validation_accuracy"]) for trial in (other, outcome.winner)]
        yield (
            f"Nearly as good with {times:.1f} × fewer parameters: {numbered(outcome, other)}, which is within "
            f"one standard error of the winner's validation accuracy in the search ({found[0]}, the winner "
            f"{found[1]})."
        )


def _mattered(outcome: Outcome) -> Iterator[str]:
    known = [one for one in outcome.mattered if one.share > max(LEAST_SHARE, 2 * one.error)][:NAMED]
    tried = outcome.trials - outcome.failed
    if tried < FEWEST and outcome.winner.job.candidate.choices:
        yield f"{several(tried, 'candidate')}, too few to tell which choices of the space matter."
    elif known:
        first, *others = (f"{plain(one.name)} ({100 * min(1.0, one.share):.0f} %" for one in known)
        shares = ", ".join(
            [f"{first} of the variance of the error is not explained without it)", *(f"{one})" for one in others)]
        )
        yield f"What mattered most in the space: {shares}."


def commands(outcome: Outcome) -> Iterator[str]:
    """What to do with the network, as commands."""
    folder = plain(shlex.quote(place(outcome.header.folder)))
    yield f"nas predict {folder} {FILES[kind_of(outcome.header.limits.input_shape)]}"
    yield f"nas export {folder}"


def command_for(outcome: Outcome) -> str:
    """The command that takes the smaller network, or trains it as long as the finalists; empty without one."""
    if outcome.smaller is None:
        return ""
    if outcome.smaller.id in {other.trial.id for other in outcome.of_front}:
        return f"nas export {plain(shlex.quote(place(outcome.header.folder)))} --network {outcome.smaller.id}"
    if str(outcome.header.config.get("dataset", "")).startswith(GIVEN):  # an object of Python has no name there
        return ""
    return training_of(outcome, outcome.smaller)


def training_of(outcome: Outcome, trial: Trial) -> str:
    """The command that trains a network on the data of a search, as long as its finalists."""
    config = outcome.header.config
    data, network = str(config.get("dataset", "")), config.get("network", trial.id)
    given = f" --dataset {shlex.quote(data)}" * bool(data and not data.startswith(GIVEN))
    return plain(f"nas train {shlex.quote(str(network))}{given} --epochs {outcome.retrained[0].job.epochs:g}")


def costs(outcome: Outcome) -> Iterator[str]:
    """What the search has cost, and what the network costs."""
    cost, metrics, each = outcome.cost, outcome.retrained[0].metrics, outcome.header.inputs.each
    if cost is not None:
        unit = "core-seconds" if outcome.header.device == "cpu" else "GPU-seconds"
        taken = f", {cost.seconds:,.0f} {unit}" * bool(cost.seconds)
        last = ""
        if cost.last:
            seconds = f" and {cost.last_seconds:,.0f} {unit}" * bool(cost.seconds)
            last = f"; of that {several(cost.last, 'training')}{seconds} in the final selection"
        yield f"Cost: {several(cost.trainings, 'training')}, {duration(cost.epochs)}{taken}{last}."
    parts = [f"{metrics['latency_ms']:.3g} ms {each} in one thread"] if "latency_ms" in metrics else []
    parts += [f"{metrics['flops']:,.0f} operations {each}"] if "flops" in metrics else []
    with suppress(OSError):
        size = outcome.weights.stat().st_size
        parts.append(f"a file of {f'{size / 1e6:,.1f} MB' if size >= 1e6 else f'{size / 1e3:,.0f} kB'}")
    if parts:
        yield f"The network needs {', '.join(parts)}."


def _compared(comparison: Comparison, noun: str) -> str:
    return (
        f"On the same test {noun} {COMPARED_WITH[comparison.what]}, trained for the same number of epochs, has an "
        f"accuracy of {percent(comparison.accuracy)}: {verdict(comparison)}. Only the winner classifies "
        f"{comparison.only_winner:,} {noun} correctly, only the other network {comparison.only_other:,}."
    )


def _is_unequal(outcome: Outcome) -> bool:
    """Whether the accuracy says too little, because of the sizes of the classes or of the objectives."""
    return outcome.header.is_unequal or any(each.metric in BALANCED for each in outcome.header.objectives)


def _beside_the_largest(outcome: Outcome) -> Iterator[str]:
    """A sentence, if the winner is not better than always answering the class with the most training inputs."""
    largest, balanced = outcome.test_largest, outcome.test_balanced_accuracy
    counts, low, noun = outcome.header.counts, outcome.test_interval[0], outcome.header.inputs.many
    if largest is None or balanced is None or not counts or low > largest:
        return
    name = plain(max(counts, key=lambda name: counts[name][0]))
    always = f"always answering {name!r}, the most frequent class, which is right for {percent(largest)}"
    if outcome.test_accuracy > largest:
        yield f"On the test {noun} it is better than {always} of them, but the difference may be chance."
    elif balanced > 1 / len(counts):
        yield (
            f"On the test {noun} it is not right more often than {always} of them. But it knows the other "
            f"classes, too: its balanced accuracy is {percent(balanced)}, and that of such an answer "
            f"{percent(1 / len(counts))}."
        )
    else:
        yield f"It is not better than {always} of the test {noun}: it has learned nothing of use."


def verdict(comparison: Comparison) -> str:
    """Whether the two networks differ by more than chance, at the usual level of 5 %."""
    test = f"p = {comparison.chance:.2g}, McNemar"
    if comparison.chance >= 1 - CONFIDENCE:
        return f"the difference may be chance ({test})"
    better = "better" if comparison.only_winner > comparison.only_other else "worse"
    return f"the winner is {better}, by more than chance ({test})"


class LayerRow(NamedTuple):
    """A layer of a network as text; its output shape has the channels last."""

    layer: str
    output: str
    parameters: str
    flops: str  # operations of one forward pass over one input


def layer_rows(architecture: Architecture, limits: Limits) -> list[LayerRow]:
    """The layers of a network, numbered if the network is a graph, and a last row with their sums.

    Raises:
        ArchitectureError: the network does not fit the data.
    """
    rows = architecture.table(limits.input_shape, limits.classes)
    is_graph = any(row.layer.inputs for row in rows)  # its layers name others by their numbers
    lines = [
        LayerRow(f"{i}. " * is_graph + str(row.layer), show(row.shape), f"{row.parameters:,}", f"{row.flops:,}")
        for i, row in enumerate(rows, 1)
    ]
    parameters, flops = sum(row.parameters for row in rows), sum(row.flops for row in rows)
    return [*lines, LayerRow("total", "", f"{parameters:,}", f"{flops:,}")]
