"""``nas train``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nas.cli.options import given, print_json, training_options

if TYPE_CHECKING:
    from nas.architecture.architecture import Architecture


@click.command()
@click.argument("network")
@click.option("--seeds", default=1, show_default=True, type=click.IntRange(1, 1_000), help="So many trainings.")
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
        from nas.experiment import Experiment
        from nas.run.runs import run_training

        name, architecture = _network(network)
        settings = Experiment.of(**given(**options), workers=1 if seeds == 1 else "auto")
        outcome = run_training(settings, architecture, name, out, [view], seeds)
    if not as_json:
        show_result(outcome)
        return
    print_json(
        {
            "network": name,
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


def _network(text: str) -> tuple[str, Architecture]:
    from nas.architecture.architecture import Architecture
    from nas.architecture.backbones import BACKBONES
    from nas.architecture.known import KNOWN
    from nas.architecture.layers import Pretrained
    from nas.errors import UsageError, plain, unknown
    from nas.records import searches

    if text in KNOWN:
        return text, KNOWN[text]
    if text in BACKBONES:
        return text, Architecture((Pretrained(text),))
    path = Path(text)
    if not path.is_file() and (found := searches.network(text)):
        return found
    if not os.path.lexists(text):
        raise UsageError(f"{unknown('network', text, (*KNOWN, *BACKBONES))}, nor a search or a file of that name")
    return plain(path.stem), Architecture.read(path)
