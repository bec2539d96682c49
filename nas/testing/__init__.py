"""The contract of each kind of plugin: everything that a search relies on, as tests.

The test of a plugin is three lines, with which pytest runs every requirement of its kind::

    class TestMine(StrategyContract):
        plugin = Mine

``options`` are the options that ``--set`` would set. `check` runs the same requirements without pytest. No network
is trained for a strategy or a space: the trials are made up from the ids of the networks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from unittest import SkipTest

from nas.errors import UsageError
from nas.testing.contract import Contract, ContractError, Finding, one_line
from nas.testing.datasets import DatasetContract
from nas.testing.evaluators import EvaluatorContract
from nas.testing.layers import LayerContract
from nas.testing.spaces import SpaceContract
from nas.testing.strategies import StrategyContract

__all__ = [
    "ContractError",
    "DatasetContract",
    "EvaluatorContract",
    "Finding",
    "LayerContract",
    "SpaceContract",
    "StrategyContract",
    "check",
]

CONTRACTS: dict[str, type[Contract]] = {
    "strategy": StrategyContract,
    "space": SpaceContract,
    "dataset": DatasetContract,
    "evaluator": EvaluatorContract,
    "layer": LayerContract,
}


def check(kind: str, plugin: type[Any], options: Mapping[str, Any] | None = None) -> Iterator[Finding]:
    """Check every requirement of a kind, one after the other; every exception of the plugin is a finding.

    Args:
        kind: "strategy", "space", "dataset", "evaluator" or "layer".
        plugin: the class.
        options: options of its constructor.

    Raises:
        UsageError: the constructor does not take an option, or refuses its value.
    """
    contract = type(plugin.__name__, (CONTRACTS[kind],), {"plugin": plugin, "options": dict(options or {})})
    made = _finding(contract, "test_is_made")
    yield made
    names = [name for name in vars(CONTRACTS[kind]) if name.startswith("test_") and name != "test_is_made"]
    if not made.broken:
        yield from (_finding(contract, name) for name in names)


def _finding(contract: type[Contract], name: str) -> Finding:
    requirement = getattr(contract, name)
    sentence = requirement.__doc__.partition("\n")[0].rstrip(".")
    try:
        requirement(contract())
    except SkipTest as reason:
        return Finding(sentence, skipped=str(reason))
    except ContractError as error:
        return Finding(sentence, str(error))
    except (Exception, SystemExit) as error:
        if isinstance(error, UsageError) and name == "test_is_made":
            raise  # a mistake in the options, not in the plugin
        return Finding(sentence, one_line(error))
    return Finding(sentence)
