"""``nas baselines``: what simple models make of a data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nas.cli.options import data_dir_option, json_option, plugins_option, print_json, set_option

if TYPE_CHECKING:
    from rich.table import Table

    from nas.baselines.baseline import Baseline
    from nas.winner.sealed import Answers


@click.command()
@click.option(
    "--dataset",
    "name",
    metavar="NAME|PATH",
    default="auto",
    help="Data set to learn from: a name, or the path of your own images, as for `nas search`. Default: auto, "
    "which is mnist if it is on this machine or can be downloaded, otherwise mnist-5k.",
)
@click.option(
    "--seed",
    metavar="N",
    type=click.IntRange(0, 2**32 - 1),
    default=0,
    help="Seed of every random choice: the same seed gives the same accuracies. Default: 0.",
)
@data_dir_option
@set_option("Option of the data set, such as dataset.size=64.")
@plugins_option()
@json_option
def baselines(name: str, seed: int, data_dir: Path | None, options: dict[str, str], as_json: bool) -> None:
    """Fit simple models to a data set: what a network has to be better than.

    Of images, these are: always the most frequent class, logistic regression, k nearest neighbours, a decision
    tree, a random forest and gradient boosting. Images of more than 1,024 numbers become smaller first.

    Of series: the most frequent class, the nearest neighbour by dynamic time warping, MiniRocket, and a random
    forest on summaries. The second and the third need aeon: pip install "nas[timeseries]".

    Of texts: the most frequent character, and n-grams, with their bits per character.

    Each is tuned on the validation data in a few steps; the test data are opened once, at the end.
    """
    from nas import plugins
    from nas.data import open_source
    from nas.data.kinds import NOUNS
    from nas.errors import plain
    from nas.evaluation.local.machine import cores
    from nas.run.resolve import available_device
    from nas.winner.sealed import open_answers

    def say(line: str) -> None:
        click.echo(plain(f"nas baselines: {line}"), err=True)

    chosen = {key.removeprefix("dataset."): value for key, value in options.items()}
    # Your own images become as large as for `nas search`, which then finds them in the cache.
    source = open_source(name, data_dir, chosen, device=available_device("auto"))
    data = plugins.guarded(source.load, f"the data set {source.name} cannot be loaded")
    noun = NOUNS[data.kind].many
    plugins.guarded(lambda: source.check_test(data), f"the test {noun} of {source.name} cannot be loaded")
    for line in source.note.splitlines():
        say(line)
    about = f"{source.name}, {len(data.train):,} {noun} to train, {len(data.validation):,} to validate"
    say(about)

    from nas.baselines.baselines import fitted, missing, names, tuned
    from nas.statistics import interval

    workers, found, left_out = cores(), [], {}
    for baseline in names(data.kind):
        if reason := missing(baseline):
            left_out[baseline] = reason
            say(f"{baseline} is left out: {reason}")
        else:
            found.append(tuned(baseline, data, seed, workers))
            say(_line(found[-1]))
    models = [fitted(baseline, data, seed, workers) for baseline in found]
    say(f"opening the test {noun}, once for all of them")
    opened = open_answers(source, data, models)
    accuracies, count = opened.accuracies, len(opened.labels)
    intervals = [interval(accuracy, count) for accuracy in accuracies]
    if as_json:
        rows = [
            {
                **baseline.to_dict(),
                "test_accuracy": accuracy,
                "test_interval": list(ends),
                **({} if bits is None else {"test_bits": bits}),
            }
            for baseline, accuracy, ends, bits in zip(found, accuracies, intervals, opened.bits, strict=True)
        ]
        rows += [{"name": name, "left_out": reason} for name, reason in left_out.items()]
        dataset = {
            "name": source.address or source.name, "fingerprint": data.fingerprint,
            "train": len(data.train), "validation": len(data.validation), "test": count,
        }  # fmt: skip
        print_json({"dataset": dataset, "seed": seed, "baselines": rows})
        return
    from nas.cli.console import QuietConsole

    table = _table(found, opened, left_out)
    table.title = plain(f"Baselines on {about}")
    bits = "; bits per character" * any(one is not None for one in opened.bits)
    table.caption = f"of {count:,} test {noun}, opened once; their 95 % interval (Wilson){bits}"
    QuietConsole(highlight=False).print(table)


def _line(baseline: Baseline) -> str:
    """A baseline in one line."""
    times = f"{baseline.seconds:.1f} s and {baseline.tuning:.1f} s of tuning"
    bits = "" if baseline.bits is None else f", {baseline.bits:.3f} bits per character"
    return f"{baseline.name} ({baseline.setting}): {100 * baseline.validation_accuracy:.2f} %{bits}, {times}"


def _table(found: Sequence[Baseline], opened: Answers, left_out: Mapping[str, str]) -> Table:
    """One row for each baseline, in 80 columns; below, those that are left out, with the reason."""
    from rich.table import Table

    from nas.statistics import interval

    table = Table(title_justify="left", caption_justify="left")
    table.add_column("baseline")
    table.add_column("setting")
    table.add_column("valida-\ntion", justify="right")
    table.add_column("test", justify="right")
    table.add_column("seconds", justify="right")
    table.add_column("size")
    for baseline, accuracy, bits in zip(found, opened.accuracies, opened.bits, strict=True):
        low, high = interval(accuracy, len(opened.labels))
        table.add_row(
            baseline.name,
            baseline.setting,
            f"{100 * baseline.validation_accuracy:.2f} %" + _bits(baseline.bits),
            f"{100 * accuracy:.2f} %\n{100 * low:.1f}–{100 * high:.1f}" + _bits(bits),
            f"{baseline.seconds:.1f}",
            baseline.size,
        )
    for name, reason in left_out.items():
        table.add_row(name, reason, "", "", "", "")
    return table


def _bits(bits: float | None) -> str:
    return "" if bits is None else f"\n{bits:.3f} bits"
