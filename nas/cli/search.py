"""The commands that train: ``nas search``, ``nas resume`` and ``nas train``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import nas
import nas.cli
from nas.cli.compare import resume_comparison
from nas.cli.options import (
    FOLDER,
    InSections,
    given,
    json_option,
    number,
    plugins_option,
    print_json,
    search_options,
    set_option,
    training_options,
)

if TYPE_CHECKING:
    from nas.records.outcome import Outcome


# Each option: its name and the kind of its value, then its help.
# fmt: off
@click.command(cls=InSections)
@click.argument("experiment", required=False, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--strategy", metavar="NAME", help=
    "Method that proposes candidates: evolve, trial-and-error, reference, or the name of a plugin. Default: "
    "evolve.")
@search_options
@plugins_option(expose=True)
@training_options
@set_option("Option of the strategy, such as population=20. With a prefix, option of another part: space.KEY, "
    "dataset.KEY, evaluator.KEY or recipe.KEY. `nas plugins show evolve` lists those of evolve.")
@json_option
def search(experiment: Path | None, out: Path | None, as_json: bool, **values: Any) -> None:
    """Search for the best network for a data set, train and test it.

    EXPERIMENT is a TOML file with settings; options on the command line override it.

    The result is a folder under runs/: best/ in it has the network with its weights.

    \b
    Examples:
      nas search --dataset photos/ --time-limit 10m
      nas search --strategy trial-and-error --objective validation_accuracy
                 --objective -parameters
    """  # noqa: D301
    options = {"begun": nas.cli.begun, **given(**values)}
    _run("search", nas.search, _search_result, as_json, experiment, out=out, **options)


@click.command()
@click.argument("search", required=False)
@click.option("--trials", metavar="N", callback=number, help=
    "Number of candidates in all, including the earlier ones. Default: as before.")
@click.option("--time-limit", metavar="TIME", help=
    "Time for the whole search, such as 1h30m, including the time that it has taken. Default: as before.")
@click.option("--target", metavar="X", callback=number, help=
    "Validation accuracy at which the search ends. Default: as before.")
@click.option("--patience", metavar="N", callback=number, help=
    "Number of candidates that bring nothing better, after which the search ends. Default: as before.")
@click.option("--workers", metavar="N", callback=number, help=
    "Number of processes that train side by side. Default: as before.")
@click.option("--data-dir", metavar="FOLDER", type=FOLDER, help=
    "Folder to look for data sets in first. Default: as before.")
@click.option("--mlflow", metavar="URI", help=
    "Address of the MLflow store that gets the results, or off for none. Default: as before.")
@click.option("--force", is_flag=True, help="Go on even if the data or a plugin have changed since the start.")
@json_option
@plugins_option(expose=True)
def resume(search: str | None, as_json: bool, force: bool, **values: Any) -> None:
    """Continue an interrupted search or comparison, or give a finished search more trials.

    SEARCH is the folder of a search or a comparison, or its name under runs/. Default: the latest one.

    Finished trainings are not repeated. The result is the same as without the interruption.
    """
    from nas.records import comparisons

    if (folder := comparisons.named(search)) is not None:
        folders, others = values.pop("plugins"), given(force=force or None, **values)
        resume_comparison(folder, as_json=as_json, plugins=folders, others=others)
        return
    options = {"begun": nas.cli.begun, **given(**values)}
    _run("resume", nas.resume, _search_result, as_json, search, force=force, **options)


@click.command(cls=InSections)
@click.argument("network")
@click.option("--seeds", metavar="N", default=1, type=click.IntRange(1, 1000), help=
    "Number of trainings with different seeds; the best on the validation images is kept. Default: 1.")
@plugins_option(expose=True)
@training_options
@set_option(
    "Option of the data set, the evaluator or the recipe: dataset.KEY, evaluator.KEY or recipe.KEY, such as "
    "recipe.shift=0.")
@json_option
def train(network: str, out: Path | None, as_json: bool, **values: Any) -> None:
    """Train one network without a search, and test it.

    \b
    NETWORK is one of:
      a known network      lecture, lenet5, mlp, all-cnn, small-vgg, small-resnet,
                           resnet20, small-mobilenet, small-convnext
      a torchvision model  resnet18 and others, with their ImageNet weights
      the id of a network  as in `nas show`, or its first digits, or SEARCH/ID
      a search             its folder or its name under runs/, for its winner
      a file               the path of an architecture.json
    """  # noqa: D301
    _run("train", nas.train, _training_result, as_json, network, out=out, **given(**values))


# fmt: on
def _run(
    command: str,
    action: Callable[..., Outcome],
    result: Callable[[Outcome], dict[str, Any]],
    as_json: bool,
    *arguments: Any,
    **options: Any,
) -> None:
    """Do the work with a live view, then print the result for people or for programs."""
    from nas.cli.console import show_result
    from nas.cli.view import observer

    with observer(command) as view:
        outcome = action(*arguments, observers=[view], **options)
    if as_json:
        print_json(result(outcome))
    else:
        show_result(outcome, max(outcome.seconds, view.seconds))


def _scores(outcome: Outcome) -> dict[str, Any]:
    return {
        "validation_accuracy": outcome.validation_accuracy,
        "validation_accuracy_sd": outcome.spread,
        "test_accuracy": outcome.test_accuracy,
        "test_interval": outcome.test_interval,
        "test_balanced_accuracy": outcome.test_balanced_accuracy,
        "test_macro_f1": outcome.test_macro_f1,
    }


def _search_result(outcome: Outcome) -> dict[str, Any]:
    metrics = [objective.metric for objective in outcome.header.objectives]
    return {
        "search": str(outcome.header.folder),
        "strategy": outcome.header.kind,
        "dataset": outcome.header.dataset["name"],
        "trials": outcome.trials,
        "failed": outcome.failed,
        "failures": dict(outcome.failures),
        "seconds": round(outcome.seconds, 2),
        "front": [
            {"id": trial.id, "epochs": trial.job.epochs, **{metric: trial.metrics[metric] for metric in metrics}}
            for trial in outcome.front
        ],
        "mattered": {one.name: one.share for one in outcome.mattered},
        "winner": {
            "id": outcome.winner.id,
            "recipe": outcome.winner.job.candidate.recipe,
            "parameters": outcome.parameters,
            **_scores(outcome),
            "test_loss": outcome.test_loss,
        },
        "compared": [
            {"with": other.what, "id": other.trial.id, "test_accuracy": other.accuracy, "chance": other.chance}
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
