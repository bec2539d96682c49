"""``nas train``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

import nas
from nas.cli.options import given, plugins_option, print_json, training_options


@click.command()
@click.argument("network")
@click.option("--seeds", default=1, show_default=True, type=click.IntRange(1, 1_000), help="So many trainings.")
@plugins_option(expose=True)
@training_options
def train(network: str, out: Path | None, as_json: bool, seeds: int, **options: Any) -> None:
    """Train one network, without a search, and test it.

    NETWORK is a known network (lecture, lenet5, mlp, all-cnn, small-vgg, small-resnet); a model of torchvision
    (resnet18 …, with its ImageNet weights); the id of a network of any search, as `nas show` and the dashboard
    have it, or its first digits, or SEARCH/ID; a search, for its winner; or the path of an architecture.json.

    Of several seeds the best on the validation images is handed over.
    """
    from nas.cli.console import observer, show_result

    with observer() as view:
        view.hello("train")
        outcome = nas.train(network, seeds=seeds, out=out, observers=[view], **given(**options))
    if not as_json:
        show_result(outcome)
        return
    print_json(
        {
            "network": outcome.header.config["network"],
            "parameters": outcome.parameters,
            "epochs": outcome.winner.job.epochs,
            "seeds": len(outcome.retrained),
            "validation_accuracy": outcome.validation_accuracy,
            "validation_accuracy_sd": outcome.spread,
            "test_accuracy": outcome.test_accuracy,
            "test_interval": outcome.test_interval,
            "seconds": round(outcome.seconds, 2),
        }
    )
