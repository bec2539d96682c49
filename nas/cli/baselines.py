"""``nas baselines``: what simple models make of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nas.cli.options import data_dir_option, json_option, plugins_option, print_json, set_option

if TYPE_CHECKING:
    from rich.table import Table

    from nas.baselines.baselines import Baseline


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

    These are: always the most frequent class, logistic regression, k nearest neighbours, a decision tree, a random
    forest and gradient boosting. Each is tuned on the validation images in a few steps; the test images are opened
    once, at the end. Images of more than 1,024 numbers become smaller first.
    """
    from nas import plugins
    from nas.data import open_source
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
    plugins.guarded(lambda: source.check_test(data), f"the test images of {source.name} cannot be loaded")
    for line in source.note.splitlines():
        say(line)
    about = f"{source.name}, {len(data.train):,} images to train, {len(data.validation):,} to validate"
    say(about)

    from nas.baselines.baselines import NAMES, fitted, tuned
    from nas.statistics import interval

    workers, found = cores(), []
    for baseline in NAMES:
        found.append(tuned(baseline, data, seed, workers))
        say(_line(found[-1]))
    models = [fitted(baseline, data, seed, workers) for baseline in found]
    say("opening the test images, once for all of them")
    opened = open_answers(source, data, models)
    accuracies, count = opened.accuracies, len(opened.labels)
    intervals = [interval(accuracy, count) for accuracy in accuracies]
    if as_json:
        rows = [
            {**baseline.to_dict(), "test_accuracy": accuracy, "test_interval": list(ends)}
            for baseline, accuracy, ends in zip(found, accuracies, intervals, strict=True)
        ]
        dataset = {
            "name": source.address or source.name, "fingerprint": data.fingerprint,
            "train": len(data.train), "validation": len(data.validation), "test": count,
        }  # fmt: skip
        print_json({"dataset": dataset, "seed": seed, "baselines": rows})
        return
    from nas.cli.console import QuietConsole

    table = _table(found, accuracies, intervals)
    table.title = plain(f"Baselines on {about}")
    table.caption = f"of {count:,} test images, opened once; their 95 % interval (Wilson)"
    QuietConsole(highlight=False).print(table)


def _line(baseline: Baseline) -> str:
    """A baseline in one line."""
    times = f"{baseline.seconds:.1f} s and {baseline.tuning:.1f} s of tuning"
    return f"{baseline.name} ({baseline.setting}): {100 * baseline.validation_accuracy:.2f} %, {times}"


def _table(
    found: Sequence[Baseline], accuracies: Sequence[float], intervals: Sequence[tuple[float, float]]
) -> Table:
    """One row for each baseline, in 80 columns."""
    from rich.table import Table

    table = Table(title_justify="left", caption_justify="left")
    table.add_column("baseline")
    table.add_column("setting")
    table.add_column("valida-\ntion", justify="right")
    table.add_column("test", justify="right")
    table.add_column("seconds", justify="right")
    table.add_column("size")
    for baseline, accuracy, (low, high) in zip(found, accuracies, intervals, strict=True):
        table.add_row(
            baseline.name,
            baseline.setting,
            f"{100 * baseline.validation_accuracy:.2f} %",
            f"{100 * accuracy:.2f} %\n{100 * low:.1f}–{100 * high:.1f}",
            f"{baseline.seconds:.1f}",
            baseline.size,
        )
    return table
