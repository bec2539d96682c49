"""``nas compare``: strategies side by side, with baselines; how a comparison is shown in the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nas.cli.options import (
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
    from nas.comparison.result import Compared


# fmt: off
@click.command()
@click.argument("comparison", required=False, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--strategies", metavar="NAMES", help=
    "Strategies to compare, with commas between them. One may have options of its own, and then be there twice: "
    "evolve,evolve:population=20,trial-and-error.")
@click.option("--seeds", metavar="N", callback=number, help="Number of searches of each strategy. Default: 3.")
@click.option("--baselines/--no-baselines", default=None, help=
    "Whether trees, forests and other models that are no search are fitted on the same images. Default: they are.")
@click.option("--explain/--no-explain", default=None, help=
    "Whether experiments on the same images show why one model is better than another. Default: no.")
@search_options
@plugins_option(expose=True)
@training_options
@set_option("Option of all strategies, such as population=20. With a prefix, option of another part: space.KEY, "
    "dataset.KEY, evaluator.KEY or recipe.KEY.")
@json_option
def compare(comparison: Path | None, out: Path | None, as_json: bool, **values: Any) -> None:
    """Compare strategies under one budget, with trees and forests on the same images.

    COMPARISON is a TOML file with settings; options on the command line override it.

    Each search is an ordinary one, in a folder of the comparison. When all of them have decided, the test images
    are opened once, for all winners and all baselines together.
    """
    from nas.comparison.comparison import compare as run

    with watching("compare") as watcher:
        compared = run(comparison, out=out, watcher=watcher, **given(**values))
    show(compared, as_json=as_json)


# fmt: on
compare.params = [parameter for parameter in compare.params if parameter.name != "seed"]  # it has --seeds


def watching(command: str) -> Any:
    """The view of a comparison, from its first line to the restored terminal."""
    from nas.cli.watcher import View

    return View(command)


def show(compared: Compared, *, as_json: bool = False) -> None:
    """Print the result of a comparison, for people or for programs."""
    from nas.comparison.tables import facts

    if as_json:
        print_json(facts(compared))
        return
    from nas.cli.watcher import show_tables

    show_tables(compared)


def resume_comparison(folder: Path, *, as_json: bool, plugins: tuple[Path, ...], others: dict[str, Any]) -> None:
    """Go on with a comparison, or show the result of a finished one."""
    from nas.comparison.comparison import go_on
    from nas.errors import UsageError

    if others:
        name = f"--{next(iter(others)).replace('_', '-')}"
        raise UsageError(f"{folder.name} is a comparison, whose settings stay as they are: leave out {name}")
    with watching("resume") as watcher:
        compared = go_on(folder, watcher=watcher, plugins=plugins)
    show(compared, as_json=as_json)


def facts_of(folder: Path) -> dict[str, Any]:
    """How far a comparison is, as plain data."""
    from nas.comparison.result import State
    from nas.comparison.settings import Comparison
    from nas.errors import NasError
    from nas.records import comparisons, searches
    from nas.records.journal import is_running

    facts = {"comparison": str(folder), "bytes": searches.size(folder), "begun": None}
    try:
        state, comparison = State.read(folder), Comparison.read(folder / comparisons.TOML, trusting=True)
    except NasError as error:
        return {**facts, "state": "damaged", "words": str(error), "searches": 0, "decided": 0, "failed": {}}
    own = [searches.State.of(member) for member in comparisons.members(folder)]
    return {
        **facts,
        "begun": min((one.record.sessions[0].at for one in own if one.record.sessions), default=None),
        "state": "finished" if state.result else "running" if is_running(folder) else "interrupted",
        "words": "",
        "searches": len(comparison.searches()),
        "decided": sum(one.record.plan is not None for one in own),
        "failed": state.failed,
    }


def show_comparison(folder: Path, report: Path | None, *, as_json: bool) -> None:
    """Show a comparison: its tables if it is finished, otherwise how far it is."""
    from nas.cli.options import print_out
    from nas.comparison.comparison import known
    from nas.errors import NasError, plain
    from nas.files import write_whole
    from nas.records.record import place

    compared = known(folder)
    if compared is None:
        facts, advice = facts_of(folder), f"go on with: nas resume {place(folder)}"
        if report is not None:
            raise NasError(f"{folder.name} is not finished; {advice}")
        if as_json:
            print_json(facts)
            return
        print_out(f"{folder.name}: a comparison, {facts['state']}")
        print_out(f"    {facts['decided']} of {facts['searches']} searches have decided")
        for name, message in facts["failed"].items():
            print_out(plain(f"    {name} has no winner: {message}"))
        if facts["state"] != "running":
            print_out(advice)
        return
    if report is not None:
        from nas.comparison.page import page

        if not report.parent.is_dir():
            raise NasError(f"{report} cannot be written: there is no folder {report.parent}")
        write_whole(report, page(compared))
        click.echo(f"{report} has the report of {folder.name}", err=True)
        if not as_json:
            return
    show(compared, as_json=as_json)
