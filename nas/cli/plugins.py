"""``nas plugins``: which plugins there are, a new one, and whether one is right."""

from __future__ import annotations

import importlib.util
import keyword
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nas.cli.options import FOLDER, pairs, plugins_option, print_out

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rich.table import Table

kinds = click.Choice(["strategy", "space", "dataset", "evaluator", "layer"])

TEST = '''"""Everything that `nas` relies on in a {kind}: python -m pytest {path}"""

from {module} import {name}

from nas.testing import {kind_name}Contract


class Test{name}({kind_name}Contract):
    """One test for each requirement; options of the plugin go into `options = {{...}}`."""

    plugin = {name}
'''


@click.group()
def plugins() -> None:
    """List, begin and check plugins: strategies, spaces, data sets, evaluators, layers."""


@plugins.command("list")
@plugins_option()
def list_() -> None:
    """Show every plugin: what it is and where it is from. None is imported."""
    from rich.text import Text

    from nas.cli.console import QuietConsole

    console = QuietConsole(highlight=False)
    if not console.is_terminal:
        console.width = 10_000  # one line each, for grep
    with console.capture() as capture:
        for table in _tables("\n" if console.is_terminal else " · "):
            console.print(table, Text())
    print_out("\n".join(line.rstrip() for line in capture.get().splitlines()).rstrip())


def _tables(between: str) -> Iterator[Table]:
    """One table for each kind, and one for the files that do not say what they are.

    Args:
        between: what a plugin is and where it is from.
    """
    from rich.table import Table
    from rich.text import Text

    from nas.errors import plain
    from nas.plugins import KINDS, describe, names

    found = {kind: names(kind) for kind in KINDS}
    unclear = set.intersection(
        *({str(place) for places in one.values() for place in places} for one in found.values())
    )
    width = max(len(name) for one in found.values() for name in one)
    for kind in (*KINDS, "?"):
        table = Table(
            box=None, padding=(0, 2, 0, 0), title=_plural(kind), title_justify="left", title_style="bold"
        )
        table.show_header = False
        table.add_column(width=width)
        table.add_column(overflow="fold")
        for name, places in sorted(found.get(kind, found["strategy"]).items()):
            shown = [place for place in places if (str(place) in unclear) == (kind == "?")]
            for place in shown:
                about = describe(place)
                what = Text(plain(about.summary) or "(it has no docstring)")
                if about.broken:
                    what = Text(plain(f"broken: {about.broken}"), style="red")
                elif len(places) > 1:
                    what = Text(f"one of {len(places)} of this name: rename or remove the others", style="red")
                table.add_row(name, what + Text(between + about.place, style="dim"))
        if table.row_count:
            yield table


def _plural(kind: str) -> str:
    known = {"strategy": "strategies", "dataset": "data sets", "?": "files that do not say what they are"}
    return known.get(kind, f"{kind}s")


@plugins.command()
@click.argument("name")
@click.option("--kind", type=kinds, default="strategy", show_default=True)
@click.option("--folder", type=FOLDER, default=Path("plugins"), show_default=True, help="Where to write it.")
def new(name: str, kind: str, folder: Path) -> None:
    """Write a plugin that works, and its test, to begin with."""
    from nas.errors import NasError, UsageError, quoted
    from nas.plugins import canonical
    from nas.plugins import names as known

    module = name.replace("-", "_")
    if (
        not re.fullmatch(r"[a-z][a-z0-9_]{0,49}", module)
        or keyword.iskeyword(module)
        or module.startswith("test_")
    ):
        raise UsageError(
            f"{quoted(name)} cannot be the name of a plugin: write small letters, digits and -, as my-{kind}"
        )
    path, test = folder / f"{module}.py", folder / f"test_{module}.py"
    for one in (path, test):
        if one.exists():
            raise UsageError(f"{one} is there already; choose another name")
    if canonical(name) in known(kind, [folder]):
        raise UsageError(f"there is a {kind} {name!r} already; choose another name")
    if importlib.util.find_spec(module) is not None:
        raise UsageError(f"{module!r} is the name of a Python module, which the plugin would hide; choose another")
    class_name = "".join(part.capitalize() for part in module.split("_"))
    template = Path(__file__).with_name("templates") / f"{kind}.py"
    text = template.read_text(encoding="utf-8")
    words = {"path": test, "kind": kind, "module": module, "name": class_name, "kind_name": kind.capitalize()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(
            text.replace("MyPlugin", class_name).replace("my-plugin", canonical(name)), encoding="utf-8"
        )
        test.write_text(TEST.format(**words), encoding="utf-8")
    except OSError as error:
        raise NasError(f"{folder} cannot be written: {error.strerror}; choose another with --folder") from None
    where = "" if folder.resolve() == Path("plugins").resolve() else f" --plugins {folder}"
    click.echo(f"{path}  a {kind} that works: change it\n{test}  its test\n\nnext:")
    click.echo(f"  nas plugins check {canonical(name)}{where}")
    if kind != "layer":
        click.echo(f"  nas search --{kind} {canonical(name)} --trials 8{where}")
    click.echo(f"  python -m pytest {test}")


@plugins.command()
@click.argument("name")
@click.option("--kind", type=kinds, help="Where the name alone does not say it.")
@plugins_option()
@click.option(
    "--set", "options", metavar="KEY=VALUE", multiple=True, callback=pairs, help="An option of the plugin."
)
@click.pass_context
def check(ctx: click.Context, name: str, kind: str | None, options: Mapping[str, str]) -> None:
    """Check everything that a search relies on in the plugin NAME; exit code 1 if something is broken."""
    from nas.testing import check as findings

    kind, found = _find(name, kind)
    broken = skipped = total = 0
    for finding in findings(kind, found, options):
        if not total:  # after the first one: it raises where an option is wrong
            click.echo(f"{kind} {name}: {found.__module__}.{found.__qualname__}")
        total += 1
        broken += bool(finding.broken)
        skipped += bool(finding.skipped)
        state, color = (
            ("BROKEN", "red") if finding.broken else ("skipped", None) if finding.skipped else ("ok", "green")
        )
        click.echo(f"  {click.style(state, fg=color)}{' ' * (7 - len(state))} {finding.requirement}")
        if reason := finding.broken or finding.skipped:
            click.echo(f"          {reason}")
    holding = (
        f"{total - skipped} requirements hold, {skipped} skipped" if skipped else f"{total} requirements hold"
    )
    click.echo(f"{broken} of {total} requirements are broken" if broken else f"all {holding}")
    ctx.exit(1 if broken else 0)


def _find(name: str, kind: str | None) -> tuple[str, type]:
    """The kind and the class of a plugin.

    Raises:
        NasError: there is none of that name, or it cannot be imported, or there are several.
    """
    from nas.errors import PluginError, UsageError, unknown
    from nas.plugins import KINDS, canonical, find, names

    known = {one: names(one) for one in KINDS if kind in (None, one)}
    named = [one for one in known if canonical(name) in known[one]]
    if not named:
        raise UsageError(unknown(kind or "plugin", name, {key for places in known.values() for key in places}))
    found, errors = [], []
    for one in named:
        try:
            found.append((one, find(one, name)))
        except PluginError as error:
            errors.append(error)
    if not found:
        raise errors[0]
    if len(found) > 1:
        kinds = " and a ".join(one for one, _ in found)
        raise UsageError(f"there is a {kinds} {name!r}: say which with --kind")
    return found[0]
