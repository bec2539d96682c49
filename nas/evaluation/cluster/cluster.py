"""The nodes of a Ray cluster, and the agents on them.

The agents stay between the evaluators of a search, since the server of each needs some seconds to import torch;
one that nobody uses ends itself (`nas.evaluation.cluster.agent.IDLE_SECONDS`).
"""

from __future__ import annotations

import atexit
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from nas.errors import NasError
from nas.evaluation.cluster.data import forget
from nas.evaluation.cluster.facts import HARDWARE, SOFTWARE, difference, software

LOOK_SECONDS = 1.0  # between two looks at the nodes
START_SECONDS = 60.0  # in which the first agent must answer
OTHERS_SECONDS = 5.0  # in which the other nodes' agents should answer, too, before the search begins
LEAVE_SECONDS = 0.7  # for the agents to remove their files, before they are killed
SHUTDOWN_SECONDS = 2.0  # for the end of the connection, which has been seen to hang
MOST_ENDED = 3  # agents in a row that end before they can train, after which a node is not used
KIND_OF_GPU = "accelerator_type:"  # Ray's name of a resource
AGAIN_SECONDS = 1.0  # after an agent is lost, before another one starts on its node


@dataclass(frozen=True)
class Node:
    """A node of the cluster that can train."""

    id: str
    name: str
    cpus: int
    gpus: int
    gpu: str = ""  # what Ray calls them

    @property
    def shares(self) -> list[tuple[int, int]]:
        """The CPUs, which may be none, and GPUs of each of its agents: one for each GPU, or one alone."""
        return [(self.cpus // self.gpus, 1)] * self.gpus if self.gpus else [(self.cpus, 0)]


class Remote:
    """An agent, seen from the driver."""

    def __init__(self, node: Node, number: int, actor: Any, cpus: int, gpus: int) -> None:
        self.node, self.number, self.cpus, self.gpus = node, number, cpus, gpus
        self._actor = actor
        self.facts: Mapping[str, Any] = {}  # what `started` has returned
        self.layers: Any = None  # the plugin files that it has got
        self.user: object = None  # the evaluator whose jobs it trains
        self.session = 0
        self.started = self.call("facts", gpus)

    def device(self, wanted: str) -> str:
        """The kind of device on which it trains, if a search wants this one: one without a GPU has its CPUs."""
        return "cuda" if wanted != "cpu" and self.facts["gpu"] else "cpu"

    def workers(self, wanted: str) -> int:
        """How many worker processes it has for such a device: one for a GPU, or for each CPU."""
        return 1 if self.device(wanted) == "cuda" else max(1, self.cpus)

    def call(self, method: str, *args: Any) -> Future[Any]:
        """Call a method of the agent."""
        future: Future[Any] = getattr(self._actor, method).remote(*args).future()
        return future

    def kill(self) -> None:
        """End its process, and do not wait for that."""
        import ray

        with suppress(Exception):
            ray.kill(self._actor)


class Cluster:
    """A Ray cluster with an agent for each node, or for each GPU of one.

    Args:
        address: of the cluster, ``host:port``.
    """

    def __init__(self, address: str) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self.address = address
        self.refused: dict[str, str] = {}  # why a node is not used, by its id
        self.agents: list[Remote] = []
        self.first: Remote | None = None  # the agent that all others must be like
        self.alive = frozenset[str]()  # the ids of the nodes
        self.names = {address}  # under which it was asked for
        self.settled: list[Remote] = []  # the agents that a search was told of
        self.told = set[str]()  # the ids of refused nodes of which the user knows
        self.is_warned = False  # whether the user knows that it has no authentication
        self._ended: Counter[str] = Counter()  # agents in a row that ended before they could train, by their node
        self._not_before: dict[tuple[str, int], float] = {}  # when an agent may start again
        self._looked = -LOOK_SECONDS
        self._on = NodeAffinitySchedulingStrategy

        from nas.evaluation.cluster.agent import Agent

        self._agent = ray.remote(Agent)

    def nodes(self) -> list[Node]:
        """The nodes that are alive and have a CPU or a GPU."""
        import ray

        able = []
        try:
            known = ray.nodes()  # type: ignore[no-untyped-call]
        except Exception as error:  # noqa: BLE001  # whatever Ray raises there
            raise NasError(
                f"the head of the Ray cluster {self.address} does not answer ({reason_of(error)}): start a "
                "cluster again, and go on with `nas resume`"
            ) from None
        for node in known:
            has = node["Resources"]
            cpus, gpus = (int(has.get(kind, 0)) for kind in ("CPU", "GPU"))
            kinds = sorted(name.removeprefix(KIND_OF_GPU) for name in has if name.startswith(KIND_OF_GPU))
            if node["Alive"] and cpus + gpus:
                able.append(Node(node["NodeID"], node["NodeManagerHostname"], cpus, gpus, " ".join(kinds)))
        count = Counter(node.name for node in able)  # several nodes may be on one machine
        return [replace(one, name=f"{one.name}/{one.id[:6]}") if count[one.name] > 1 else one for one in able]

    def look(self) -> None:
        """See which nodes are alive, and start agents on those that have none."""
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        nodes = {node.id: node for node in self.nodes()}
        self.alive = frozenset(nodes)
        there = {(agent.node.id, agent.number) for agent in self.agents}
        for node in nodes.values():
            if node.id in self.refused:
                continue
            for number, (cpus, gpus) in enumerate(node.shares):
                key = node.id, number
                if key not in there and now >= self._not_before.get(key, 0.0):
                    self.agents.append(self._start(node, number, cpus, gpus))

    def drop(self, agent: Remote, *, has_trained: bool = False) -> None:
        """The agent is not used any more; another one may take its place."""
        agent.kill()
        forget()  # its node may be lost, which Ray would ask first for the copy of the data there, for 10 s
        has_trained = has_trained or agent.session > 1  # it may have ended itself, since nobody needed it
        self._ended[agent.node.id] = 0 if has_trained else self._ended[agent.node.id] + 1
        if self._ended[agent.node.id] >= MOST_ENDED:
            self.refused[agent.node.id] = f"{MOST_ENDED} agents have ended there before they could train"
        self.agents = [other for other in self.agents if other is not agent]
        self._not_before[agent.node.id, agent.number] = time.monotonic() + AGAIN_SECONDS

    @property
    def why_useless(self) -> str:
        """Why none of the nodes that are alive can train; empty if one may, or if there is none."""
        if self.alive and self.alive <= self.refused.keys():
            return next(self.refused[name] for name in self.alive)
        return ""

    def refuse(self, node: Node, reason: str) -> None:
        """Do not use a node any more."""
        self.refused[node.id] = reason
        for agent in [agent for agent in self.agents if agent.node == node]:
            self.drop(agent)

    def settle(self) -> list[Remote]:
        """The agents of all nodes, once they have said what they are; a busy node is not waited for.

        Raises:
            NasError: no agent has started.
        """
        begun = time.monotonic()
        first: float | None = None
        while True:
            self.look()
            known = [agent for agent in self.agents if agent.started.done() and self.welcome(agent)]
            now = time.monotonic()
            if known and first is None:
                first = now
            if known and (len(known) == len(self.agents) or now - (first or now) > OTHERS_SECONDS):
                self.settled = known
                return known
            if now - begun > START_SECONDS or self.why_useless:
                raise NasError(self._why_none())
            time.sleep(0.02)

    def welcome(self, agent: Remote) -> bool:
        """Whether an agent that has answered can be used; otherwise its node is refused."""
        if agent.facts:
            return True
        try:
            agent.facts = agent.started.result()
        except Exception as error:  # noqa: BLE001  # whatever is wrong with a node, the others can train
            if is_loss(error):
                self.drop(agent)
            else:
                self.refuse(agent.node, f"nas cannot be started there ({reason_of(error)})")
            return False
        return True

    def leave(self) -> None:
        """End all agents and the connection, and the cluster if it is ours; never wait for long."""
        import ray

        if not ray.is_initialized():  # the user has ended the connection
            return
        agents, self.agents = self.agents, []
        wait([agent.call("leave") for agent in agents], LEAVE_SECONDS)
        for agent in agents:
            agent.kill()
        thread = threading.Thread(target=ray.shutdown, daemon=True)
        thread.start()
        thread.join(SHUTDOWN_SECONDS)
        if thread.is_alive():
            atexit.unregister(ray.shutdown)  # which would wait, too

    def _start(self, node: Node, number: int, cpus: int, gpus: int) -> Remote:
        actor = self._agent.options(
            num_cpus=cpus, num_gpus=gpus, max_restarts=0, max_task_retries=0, max_concurrency=8,
            scheduling_strategy=self._on(node.id, soft=False),
        ).remote()  # fmt: skip
        return Remote(node, number, actor, cpus, gpus)

    def _why_none(self) -> str:
        if self.why_useless:
            return f"no node of the Ray cluster {self.address} can train: {self.why_useless}"
        nodes = self.nodes()
        if not nodes:
            return f"no node of the Ray cluster {self.address} has a CPU: start one with `ray start --address=…`"
        names = ", ".join(node.name for node in nodes)
        return (
            f"no node of the Ray cluster {self.address} ({names}) has had free CPUs for {START_SECONDS:.0f} s: "
            "wait for the programs that use them; `ray status` shows what is in use"
        )


def differences(nodes: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """In what two nodes differ, or a node and this process; empty if they are the same.

    Args:
        nodes: their names, and what `nas.evaluation.cluster.facts.facts` has returned there.
    """
    own = software()
    for name, facts in nodes:
        if words := difference(own, facts, SOFTWARE):
            return f"this machine and the node {name} differ in {words}"
        first, others = nodes[0]
        if words := difference(others, facts, HARDWARE):
            return f"the nodes {first} and {name} differ in {words}"
    return ""


def is_loss(error: BaseException) -> bool:
    """Whether an agent or its node has ended; otherwise the agent itself says that it cannot do what it should."""
    from ray.exceptions import RayError, RayTaskError

    if isinstance(error, RayTaskError) or getattr(error, "actor_init_failed", False):
        return False
    return isinstance(error, RayError)


def reason_of(error: BaseException) -> str:
    """The last line of an error that Ray has brought from a node."""
    cause = getattr(error, "cause", None)
    text = str(cause if isinstance(cause, BaseException) and str(cause) else error).strip()
    return text.splitlines()[-1].strip() if text else type(error).__name__
