"""``nas search``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import nas
from nas.cli.options import FOLDER, count_or_auto, given, plugins_option, print_json, training_options

if TYPE_CHECKING:
    from nas.records.outcome import Outcome


@click.command()
@click.argument("experiment", required=False, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--strategy", help="evolve, reference, trial-and-error, or a plugin.  [default: evolve]")
@click.option("--space", help="Where candidates come from: cnn, lecture, or a plugin.  [default: cnn]")
@click.option(
    "--trials", type=click.IntRange(min=1), help="How many candidates.  [default: 40, or until time is up]"
)
@click.option("--time-limit", metavar="TIME", help="For everything, as 90s, 10m or 1h30m.")
@click.option(
    "--objective",
    "objectives",
    multiple=True,
    help="A metric; -METRIC: less is better. Several have a Pareto front.  [default: -validation_loss]",
)
@click.option("--max-parameters", type=click.IntRange(min=1), help="Larger networks are not tried.")
@click.option(
    "--max-flops",
    type=click.IntRange(min=1),
    help="Per image; slower networks are not tried.  [default: the space's]",
)
@click.option("--batch", type=click.IntRange(1, 10_000), help="Candidates that compete at a time.  [default: 8]")
@click.option(
    "--rungs", type=click.IntRange(1, 4), help="Of successive halving; 1: train all in full.  [default: 2]"
)
@click.option("--evaluator", help="Where networks are trained: local, or a plugin.  [default: local]")
@click.option(
    "--workers", callback=count_or_auto, help="Processes that train side by side.  [default: auto, one a core]"
)
@plugins_option(expose=True)
@training_options
def search(experiment: Path | None, out: Path | None, as_json: bool, **options: Any) -> None:
    """Search for a network, choose the best honestly, and hand it over.

    EXPERIMENT is a TOML file of settings; options override it.
    """
    from nas.cli.console import observer

    with observer() as view:
        view.hello("search")
        outcome = nas.search(experiment, out=out, observers=[view], **given(**options))
    _print(outcome, as_json=as_json)


@click.command()
@click.argument("search", required=False)
@click.option("--trials", type=click.IntRange(min=1), help="How many candidates in all, those before included.")
@click.option("--time-limit", metavar="TIME", help="For everything, what was spent before included.")
@click.option("--workers", callback=count_or_auto, help="Processes that train side by side.")
@click.option("--data-dir", type=FOLDER, help="Where data sets lie.")
@click.option("--mlflow", metavar="URI|off", help="The tracking store.")
@plugins_option(expose=True)
@click.option("--force", is_flag=True, help="Go on even if something has changed that changes the result.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, as the last line.")
def resume(search: str | None, as_json: bool, force: bool, **options: Any) -> None:
    """Go on with a search that was killed or interrupted, or give a finished one more.

    SEARCH is the folder of a search, or its name under runs/, or nothing for the latest one. What is known is not
    trained again, and the result is that of a search that was never ended.
    """
    from nas.cli.console import observer

    with observer() as view:
        view.hello("resume")
        outcome = nas.resume(search, observers=[view], force=force, **given(**options))
    _print(outcome, as_json=as_json)


def _print(outcome: Outcome, *, as_json: bool) -> None:
    """The result, for people or for programs."""
    from nas.cli.console import show_result

    if not as_json:
        show_result(outcome)
        return
    header, objectives = outcome.header, outcome.header.objectives
    print_json(
        {
            "search": str(header.folder),
            "strategy": header.kind,
            "dataset": header.dataset["name"],
            "trials": outcome.trials,
            "failed": outcome.failed,
            "seconds": round(outcome.seconds, 2),
            "front": [
                {
                    "id": trial.id,
                    "epochs": trial.job.epochs,
                    **{o.metric: trial.metrics[o.metric] for o in objectives},
                }
                for trial in outcome.front
            ],
            "winner": {
                "id": outcome.architecture.id,
                "parameters": outcome.parameters,
                "validation_accuracy": outcome.validation_accuracy,
                "validation_accuracy_sd": outcome.spread,
                "test_accuracy": outcome.test_accuracy,
                "test_interval": outcome.test_interval,
                "test_loss": outcome.test_loss,
            },
            "compared": [
                {"with": one.what, "test_accuracy": one.accuracy, "chance": one.chance} for one in outcome.compared
            ],
        }
    )
