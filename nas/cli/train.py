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
@training_options
def train(network: str, out: Path | None, as_json: bool, **options: Any) -> None:
    """Train one network, without a search, and test it.

    NETWORK is a known network (lecture, lenet5, mlp, all-cnn, small-vgg, small-resnet), a model of torchvision
    (resnet18 …, with its ImageNet weights), or the path of an architecture.json.
    """
    from nas.cli.console import observer, show_result

    with observer() as view:
        view.hello("train")
        from nas.experiment import Experiment
        from nas.run import run_training

        name, architecture = _network(network)
        settings = Experiment.of(**given(**options), workers=1)
        outcome = run_training(settings, architecture, name, out, [view])
    if not as_json:
        show_result(outcome)
        return
    print_json(
        {
            "network": name,
            "parameters": outcome.parameters,
            "epochs": outcome.winner.job.epochs,
            "validation_accuracy": outcome.validation_accuracy,
            "test_accuracy": outcome.test_accuracy,
            "seconds": round(outcome.seconds, 2),
        }
    )


def _network(text: str) -> tuple[str, Architecture]:
    from nas.architecture.architecture import Architecture
    from nas.architecture.backbones import BACKBONES
    from nas.architecture.known import KNOWN
    from nas.architecture.layers import Pretrained
    from nas.errors import UsageError, plain, unknown

    if text in KNOWN:
        return text, KNOWN[text]
    if text in BACKBONES:
        return text, Architecture((Pretrained(text),))
    path = Path(text)
    if not os.path.lexists(text):
        raise UsageError(f"{unknown('network', text, (*KNOWN, *BACKBONES))}, nor is there a file of that name")
    return plain(path.stem), Architecture.read(path)
