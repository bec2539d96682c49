"""The contract of each kind of plugin: everything that a search relies on, as tests.

With a test of two lines, pytest checks every requirement of a plugin's kind::

    class TestMine(StrategyContract):
        plugin = Mine

The attribute ``options`` holds the options of ``--set``. `check` checks the same requirements without pytest. No
network is trained for a strategy or a space: the metrics are computed from the ids of the networks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from nas.testing.contract import Contract, ContractError, Finding, finding_of
from nas.testing.datasets import DatasetContract
from nas.testing.evaluators import EvaluatorContract
from nas.testing.layers import LayerContract
from nas.testing.spaces import SpaceContract
from nas.testing.strategies import StrategyContract

__all__ = ["ContractError", "DatasetContract", "EvaluatorContract", "Finding", "LayerContract", "SpaceContract"]
__all__ += ["StrategyContract", "check"]

CONTRACTS: dict[str, type[Contract]] = {
    "strategy": StrategyContract,
    "space": SpaceContract,
    "dataset": DatasetContract,
    "evaluator": EvaluatorContract,
    "layer": LayerContract,
}


def check(kind: str, plugin: type[Any], options: Mapping[str, Any] | None = None) -> Iterator[Finding]:
    """Check every requirement of a kind in turn; every exception of the plugin is a finding.

    Args:
        kind: "strategy", "space", "dataset", "evaluator" or "layer".
        plugin: the class.
        options: options of its constructor.

    Raises:
        UsageError: the constructor does not take an option, or refuses its value.
    """
    contract = type(plugin.__name__, (CONTRACTS[kind],), {"plugin": plugin, "options": dict(options or {})})
    made = finding_of(contract, "test_is_made")
    yield made
    names = [name for name in vars(CONTRACTS[kind]) if name.startswith("test_") and name != "test_is_made"]
    if not made.broken:
        yield from (finding_of(contract, name) for name in names)
