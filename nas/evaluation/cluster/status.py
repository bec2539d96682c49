"""What the nodes of a cluster have, without starting an agent: a busy node answers, too."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from nas.evaluation.cluster.cluster import Node, differences, reason_of
from nas.evaluation.cluster.connection import connected, has_authentication
from nas.evaluation.cluster.facts import facts

ANSWER_SECONDS = 20.0  # in which a node must answer; a process of Ray's needs one or two


@dataclass(frozen=True)
class Known:
    """A node, and what it has said."""

    node: Node
    facts: dict[str, Any] = field(default_factory=dict)  # see `nas.evaluation.cluster.facts.facts`
    problem: str = ""  # why it has said nothing


@dataclass(frozen=True)
class Status:
    """A cluster as it is now."""

    address: str
    has_authentication: bool
    nodes: list[Known]
    clash: str  # in what two nodes differ; empty if a search can use all of them together

    @classmethod
    def of(cls, address: str | None) -> Status:
        """Ask every node of a cluster that is alive; see `connected` for the address.

        Raises:
            NasError: there is no such cluster.
        """
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        cluster = connected(address, may_start=False)
        ask = ray.remote(facts)
        nodes = cluster.nodes()
        answers = [
            ask.options(
                num_cpus=0, max_retries=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)
            ).remote(0)
            for node in nodes
        ]
        ready, _ = ray.wait(answers, num_returns=len(answers), timeout=ANSWER_SECONDS) if answers else ([], [])
        known = []
        for node, answer in zip(nodes, answers, strict=True):
            if answer not in ready:
                known.append(Known(node, problem=f"it has not answered for {ANSWER_SECONDS:.0f} s"))
                continue
            try:
                said: dict[str, Any] = ray.get(answer)
                known.append(Known(node, {**said, "gpu": node.gpu}))
            except Exception as error:  # noqa: BLE001  # one node without nas is no reason to hide the others
                known.append(Known(node, problem=f"nas cannot be started there ({reason_of(error)})"))
        clash = differences([(one.node.name, one.facts) for one in known if one.facts])
        return cls(cluster.address, has_authentication(), known, clash)
