"""``nas plugins``: list all plugins, write a new one, check one."""

from __future__ import annotations

import importlib.util
import inspect
import keyword
import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nas.cli.options import FOLDER, plugins_option, print_out, set_option

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rich.table import Table

kinds = click.Choice(["strategy", "space", "dataset", "evaluator", "layer"])
UNCLEAR = "?"  # the kind of a file that cannot be read, or has no class of a plugin
PLURALS = {"strategy": "strategies", "dataset": "data sets", UNCLEAR: "files without a plugin in them"}


@click.group()
def plugins() -> None:
    """List, show, write and check plugins: strategies, spaces, layers …"""


@plugins.command("list")
@plugins_option()
def list_() -> None:
    """Show all plugins with a description and their origin.

    The plugins are read and not run.
    """
    from rich.text import Text

    from nas.cli.console import QuietConsole

    console = QuietConsole(highlight=False)
    if not console.is_terminal:
        console.width = 10_000  # one line each, for grep
    with console.capture() as capture:
        for table in _tables("\n" if console.is_terminal else " · "):
            console.print(table, Text())
    print_out("\n".join(line.rstrip() for line in capture.get().splitlines()).rstrip())


def _tables(separator: str) -> Iterator[Table]:
    """One table for each kind, with a separator between a plugin's description and its origin."""
    from rich.table import Table
    from rich.text import Text

    from nas.errors import plain
    from nas.plugins import KINDS, describe, names

    known = {kind: names(kind) for kind in KINDS}
    known[UNCLEAR] = known["strategy"]  # a file that does not say its kind is listed under every kind
    width = max(len(name) for places in known.values() for name in places)
    for kind, named in known.items():
        table = Table(box=None, padding=(0, 2, 0, 0), title_justify="left", title_style="bold", show_header=False)
        table.title = PLURALS.get(kind, f"{kind}s")
        table.add_column(width=width)
        table.add_column(overflow="fold")
        for name, places in sorted(named.items()):
            for place in places:
                description = describe(place)
                if (isinstance(place, Path) and not description.kinds) != (kind == UNCLEAR):
                    continue
                text = Text(plain(description.summary) or "(it has no docstring)")
                if description.broken:
                    text = Text(plain(f"broken: {description.broken}"), style="red")
                elif len(places) > 1:
                    text = Text(f"{len(places)} plugins have this name: rename or remove the others", style="red")
                table.add_row(name, text + Text(separator + description.place, style="dim"))
        if table.row_count:
            yield table


@plugins.command("show")
@click.argument("name")
@click.option("--kind", type=kinds, help="Kind of the plugin, needed if two kinds have one of this name.")
@plugins_option()
def show(name: str, kind: str | None) -> None:
    """Show what a plugin does, and its options with their defaults.

    NAME is the name of the plugin, such as evolve or cnn. Its file is imported, so that its code runs.
    """
    from nas.run.resolve import options_of

    kind, plugin = _find(name, kind)
    prefix = "" if kind == "strategy" else f"{kind}."
    about, described = _described(plugin)
    click.echo(f"{kind} {name}: {plugin.__module__}.{plugin.__qualname__}\n\n{about}")
    options = options_of(kind, plugin)
    if kind == "layer":
        title, prefix = "Arguments", ""
    else:
        title = "Options, for --set"
    if not options:
        click.echo("\nIt has no options.")
        return
    click.echo(f"\n{title}:")
    formatter = click.HelpFormatter()
    formatter.indent()
    formatter.write_dl(
        [
            (f"{prefix}{option}", _option(described.get(option, ""), parameter))
            for option, parameter in options.items()
        ]
    )
    click.echo(formatter.getvalue().rstrip())


def _option(text: str, parameter: inspect.Parameter) -> str:
    """What an option is, its type, and its default."""
    given = parameter.annotation
    kind = given.__name__ if isinstance(given, type) else str(given)
    kind = "" if given is parameter.empty else kind.removesuffix(" | None")
    if kind.startswith("Literal["):
        kind = f"one of {kind.removeprefix('Literal[').removesuffix(']')}".replace("'", "")
    kind = f" ({kind})" * bool(kind)
    default = "none" if parameter.default is None else str(parameter.default)
    ending = "It is needed." if parameter.default is parameter.empty else f"Default: {default}."
    words = f"{text[:1].upper()}{text[1:]}".rstrip(".")
    return f"{words}{kind}. {ending}" if words else f"{kind.strip()} {ending}".strip()


def _described(plugin: type) -> tuple[str, dict[str, str]]:
    """The docstring of a plugin: its text, and the descriptions of its arguments by their names."""
    whole = inspect.cleandoc(plugin.__doc__ or "It has no docstring.")
    text, _, arguments = whole.partition("\nArgs:\n")
    lines = re.split(r"\n(?=\S)", textwrap.dedent(arguments.partition("\n\n")[0]))
    found = (re.fullmatch(r"(\w+)(?: \([^)]*\))?: (.*)", " ".join(line.split())) for line in lines)
    return text.strip(), {match[1]: match[2] for match in found if match}


@plugins.command()
@click.argument("name")
@click.option("--kind", type=kinds, default="strategy", help="Kind of the plugin. Default: strategy.")
@click.option(
    "--folder", metavar="FOLDER", type=FOLDER, default="plugins", help="Folder to write to. Default: plugins."
)
def new(name: str, kind: str, folder: Path) -> None:
    """Write a plugin that works, and its test, for you to change.

    NAME is the name of the plugin: lowercase letters, digits and hyphens, such as my-strategy.
    """
    from nas.errors import NasError, UsageError, quoted
    from nas.plugins import canonical, names

    module = name.replace("-", "_")
    is_name = re.fullmatch(r"[a-z][a-z0-9_]{0,49}", module) and not module.startswith("test_")
    if not is_name or keyword.iskeyword(module):
        raise UsageError(
            f"{quoted(name)} cannot be the name of a plugin: use lowercase letters, digits and hyphens, such as "
            f"my-{kind}"
        )
    path, test = folder / f"{module}.py", folder / f"test_{module}.py"
    for file in (path, test):
        if file.exists():
            raise UsageError(f"{file} exists already; choose another name")
    if canonical(name) in names(kind, [folder]):
        raise UsageError(f"there is a {kind} {name!r} already; choose another name")
    if importlib.util.find_spec(module) is not None:
        raise UsageError(f"{module!r} is the name of a Python module, which the plugin would hide; choose another")
    class_name = "".join(part.capitalize() for part in module.split("_"))
    templates = Path(__file__).with_name("templates")
    text = (templates / f"{kind}.py").read_text(encoding="utf-8")
    text = text.replace("MyPlugin", class_name).replace("my-plugin", canonical(name))
    test_text = (templates / "test.txt").read_text(encoding="utf-8")
    test_text = test_text.format(path=test, module=module, name=class_name, kind=kind, kind_name=kind.capitalize())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        test.write_text(test_text, encoding="utf-8")
    except OSError as error:
        raise NasError(f"{folder} cannot be written: {error.strerror}; choose another with --folder") from None
    option = "" if folder.resolve() == Path("plugins").resolve() else f" --plugins {folder}"
    click.echo(f"{path}  a {kind} that works: change it\n{test}  its test\n\nnext:")
    click.echo(f"  nas plugins check {canonical(name)}{option}")
    if kind != "layer":
        click.echo(f"  nas search --{kind} {canonical(name)} --trials 8{option}")
    click.echo(f"  python -m pytest {test}")


@plugins.command()
@click.argument("name")
@click.option("--kind", type=kinds, help="Kind of the plugin, needed if two kinds have one of this name.")
@plugins_option()
@set_option("Option of the plugin, such as population=20.")
@click.pass_context
def check(ctx: click.Context, name: str, kind: str | None, options: Mapping[str, str]) -> None:
    """Check that a plugin meets all requirements of a search.

    NAME is the name of the plugin. The exit code is 1 if a requirement is broken.
    """
    from nas.testing import check as findings

    kind, plugin = _find(name, kind)
    broken = skipped = total = 0
    for finding in findings(kind, plugin, options):
        if not total:  # not before the first finding: a wrong option is an error and nothing else
            click.echo(f"{kind} {name}: {plugin.__module__}.{plugin.__qualname__}")
        total += 1
        broken += bool(finding.broken)
        skipped += bool(finding.skipped)
        state, color = ("skipped", None) if finding.skipped else ("ok", "green")
        if finding.broken:
            state, color = "BROKEN", "red"
        click.echo(f"  {click.style(f'{state:7}', fg=color)} {finding.requirement}")
        if reason := finding.broken or finding.skipped:
            click.echo(f"          {reason}")
    holding = f"all {total - skipped} requirements hold{f', {skipped} skipped' if skipped else ''}"
    click.echo(f"{broken} of {total} requirements are broken" if broken else holding)
    ctx.exit(1 if broken else 0)


def _find(name: str, kind: str | None) -> tuple[str, type]:
    """The kind and the class of a plugin.

    Raises:
        NasError: no plugin has the name, it cannot be imported, or plugins of several kinds have it.
    """
    from nas.errors import PluginError, UsageError, unknown
    from nas.plugins import KINDS, canonical, find, names

    known = {key: names(key) for key in KINDS if kind in (None, key)}
    found, errors = [], []
    for key in known:
        if canonical(name) in known[key]:
            try:
                found.append((key, find(key, name)))
            except PluginError as error:
                errors.append(error)
    if len(found) == 1:
        return found[0]
    if found:
        every_kind = " and a ".join(key for key, _ in found)
        raise UsageError(f"there is a {every_kind} {name!r}: choose with --kind")
    if errors:
        raise errors[0]
    raise UsageError(unknown(kind or "plugin", name, {key for places in known.values() for key in places}))
