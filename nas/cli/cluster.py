"""``nas cluster``: the nodes on which ``--evaluator ray`` trains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from nas.cli.options import json_option, print_json, print_out
from nas.errors import plain
from nas.report.words import several

if TYPE_CHECKING:
    from nas.evaluation.cluster.status import Known, Status

ADDRESS = "Of the cluster. [default: RAY_ADDRESS, or the one that runs on this machine]"


@click.group()
def cluster() -> None:
    """Show the Ray cluster on which `nas search --evaluator ray` trains."""


@cluster.command()
@click.option("--address", metavar="HOST:PORT", help=ADDRESS)
@json_option
def status(address: str | None, as_json: bool) -> None:
    """List the nodes of a Ray cluster: what each has, and whether a search can use them together.

    A search trains on the nodes that are alive and have CPUs or GPUs; a head node with none only leads.
    """
    from nas.evaluation.cluster.status import Status

    found = Status.of(address)
    if as_json:
        nodes = [_plain(one) for one in found.nodes]
        print_json(
            {
                "address": found.address,
                "authentication": found.has_authentication,
                "nodes": nodes,
                "clash": found.clash,
            }
        )
        return
    with_ = "with" if found.has_authentication else "without"
    print_out(f"the Ray cluster {found.address}, {with_} authentication")
    for one in found.nodes:
        print_out(f"{one.node.name:38} {_has(one)}\n    {plain(one.problem or _software(one))}")
    print_out(_summary(found))


def _plain(one: Known) -> dict[str, Any]:
    node = one.node
    has = {"node": node.name, "id": node.id, "cpus": node.cpus, "gpus": node.gpus}
    return {**has, **one.facts, "problem": one.problem}


def _has(one: Known) -> str:
    gpus = f" {several(one.node.gpus, 'GPU'):>7}" if one.node.gpus else ""
    memory = f" {one.facts['memory'] / 2**30:>6,.0f} GiB" if one.facts else ""
    return f"{several(one.node.cpus, 'CPU'):>8}{gpus}{memory}"


def _software(one: Known) -> str:
    known = one.facts
    return f"nas {known['nas']}, torch {known['torch']}, Python {known['python']}, {known['processor']}"


def _summary(found: Status) -> str:
    """Whether a search can use the nodes."""
    able = [one.node for one in found.nodes if one.facts]
    if not able:
        return "no node can train: add one with `ray start --address=…`, where nas is installed"
    if found.clash:
        return f"{found.clash}: a search uses them together only with `--set evaluator.mixed=true`"
    what = several(sum(node.cpus for node in able), "CPU")
    if gpus := sum(node.gpus for node in able):
        what += f" and {several(gpus, 'GPU')}"
    return f"`nas search --evaluator ray` trains on {several(len(able), 'node')} with {what}"
