"""What the nodes of a cluster are, for the settings that follow from it: device, precision, workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nas.evaluation.cluster.cluster import Remote
from nas.evaluation.hardware import Hardware


class Nodes(Hardware):
    """The nodes of a cluster as a search finds them at its start."""

    def __init__(self, agents: Sequence[Remote]) -> None:
        self._agents = list(agents)

    def devices(self) -> Mapping[str, int]:
        """The devices of a node."""
        return {"cpu": 1, "cuda": int(any(agent.facts["gpu"] for agent in self._agents))}

    def workers(self, device: str) -> int:
        """One for a GPU, otherwise one for each CPU."""
        return max(1, sum(agent.workers(device) for agent in self._agents))

    def has_bfloat16(self, device: str) -> bool:
        """Whether all of them have units for it."""
        return all(agent.facts["bfloat16"][agent.device(device)] for agent in self._agents)

    def versions(self) -> Mapping[str, str]:
        """The processors and GPUs, each kind once."""
        kinds = {" and ".join(filter(None, (one.facts["processor"], one.facts["gpu"]))) for one in self._agents}
        return {"nodes": "; ".join(sorted(kinds))}
