"""The commands that train: ``nas search``, ``nas resume`` and ``nas train``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import nas
from nas.cli.options import given, options_of, plugins_option, print_json

if TYPE_CHECKING:
    from nas.records.outcome import Outcome


@click.command()
@click.argument("experiment", required=False, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@options_of("search")
@plugins_option(expose=True)
@options_of("training", "search-options", "json")
def search(experiment: Path | None, out: Path | None, as_json: bool, **values: Any) -> None:
    """Search for the best network for a data set, train and test it.

    EXPERIMENT is a TOML file with settings; options on the command line override it.

    The result is a folder under runs/: best/ in it has the network with its weights.
    """
    _run("search", nas.search, _search_result, as_json, experiment, out=out, **given(**values))


@click.command()
@click.argument("search", required=False)
@options_of("resume", "json")
@plugins_option(expose=True)
def resume(search: str | None, as_json: bool, force: bool, **values: Any) -> None:
    """Continue an interrupted search, or give a finished one more trials.

    SEARCH is the folder of a search or its name under runs/. Default: the latest search.

    Finished trainings are not repeated. The result is the same as without the interruption.
    """
    _run("resume", nas.resume, _search_result, as_json, search, force=force, **given(**values))


@click.command()
@click.argument("network")
@click.option(
    "--seeds",
    metavar="N",
    default=1,
    type=click.IntRange(1, 1_000),
    help="Number of trainings with different seeds; the best on the validation images is kept. Default: 1.",
)
@plugins_option(expose=True)
@options_of("training", "train-options", "json")
def train(network: str, out: Path | None, as_json: bool, **values: Any) -> None:
    """Train one network without a search, and test it.

    \b
    NETWORK is one of:
      a known network      lecture, lenet5, mlp, all-cnn, small-vgg, small-resnet
      a torchvision model  resnet18 and others, with their ImageNet weights
      the id of a network  as in `nas show`, or its first digits, or SEARCH/ID
      a search             its folder or its name under runs/, for its winner
      a file               the path of an architecture.json
    """  # noqa: D301
    _run("train", nas.train, _training_result, as_json, network, out=out, **given(**values))


def _run(
    command: str,
    action: Callable[..., Outcome],
    result: Callable[[Outcome], dict[str, Any]],
    as_json: bool,
    *arguments: Any,
    **options: Any,
) -> None:
    """Do the work with a live view, then print the result for people or for programs."""
    from nas.cli.console import observer, show_result

    with observer(command) as view:
        outcome = action(*arguments, observers=[view], **options)
    if as_json:
        print_json(result(outcome))
    else:
        show_result(outcome)


def _scores(outcome: Outcome) -> dict[str, Any]:
    return {
        "validation_accuracy": outcome.validation_accuracy,
        "validation_accuracy_sd": outcome.spread,
        "test_accuracy": outcome.test_accuracy,
        "test_interval": outcome.test_interval,
    }


def _search_result(outcome: Outcome) -> dict[str, Any]:
    metrics = [objective.metric for objective in outcome.header.objectives]
    return {
        "search": str(outcome.header.folder),
        "strategy": outcome.header.kind,
        "dataset": outcome.header.dataset["name"],
        "trials": outcome.trials,
        "failed": outcome.failed,
        "seconds": round(outcome.seconds, 2),
        "front": [
            {"id": trial.id, "epochs": trial.job.epochs, **{metric: trial.metrics[metric] for metric in metrics}}
            for trial in outcome.front
        ],
        "winner": {
            "id": outcome.architecture.id,
            "parameters": outcome.parameters,
            **_scores(outcome),
            "test_loss": outcome.test_loss,
        },
        "compared": [
            {"with": other.what, "test_accuracy": other.accuracy, "chance": other.chance}
            for other in outcome.compared
        ],
    }


def _training_result(outcome: Outcome) -> dict[str, Any]:
    return {
        "network": outcome.header.config["network"],
        "parameters": outcome.parameters,
        "epochs": outcome.winner.job.epochs,
        "seeds": len(outcome.retrained),
        **_scores(outcome),
        "seconds": round(outcome.seconds, 2),
    }
