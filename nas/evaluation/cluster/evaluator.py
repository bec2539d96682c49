"""The driver's side of a cluster: it hands out jobs, takes trials, and gives the jobs of lost nodes to others.

A job is a pure function, so that it does not matter where it is trained, nor how often (docs/decisions/0016).
"""

from __future__ import annotations

import heapq
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import AfterValidator

from nas import plugins
from nas.errors import NasError, UsageError
from nas.evaluation.cluster.agent import Work
from nas.evaluation.cluster.cluster import LOOK_SECONDS, Node, Remote, differences, is_loss, reason_of
from nas.evaluation.cluster.connection import connected, has_authentication, leave
from nas.evaluation.cluster.data import packed
from nas.evaluation.cluster.nodes import Nodes
from nas.evaluation.evaluator import AheadEvaluator
from nas.evaluation.hardware import Hardware
from nas.evaluation.local.local import LocalEvaluator, enough
from nas.evaluation.work import operations
from nas.files import write_whole
from nas.trial import Job, Trial

if TYPE_CHECKING:
    from nas.data.dataset import Dataset
    from nas.training.recipe import Recipe

SILENT_SECONDS = 30.0  # without an answer, which comes every 2 s, after which an agent counts as lost
PREPARING_SECONDS = 600.0  # as before, while it lays down the data
GONE_SECONDS = 3.0  # as before, if its node is dead: Ray may still say why
MOST_LOST = 3  # agents, with which a job may be lost before it is trained alone


@dataclass(order=True)
class _Waiting:
    """A job that no agent has; the lowest begins first."""

    turn: int
    minus_operations: float
    number: int
    job: Job = field(compare=False)


@dataclass(eq=False)
class _Agent:
    """An agent that works for this evaluator."""

    remote: Remote
    workers: int
    size: int = 0  # the jobs that it takes at a time; 0 until it is prepared
    aboard: dict[str, _Waiting] = field(default_factory=dict)  # by the keys of the jobs
    silent: float = 0.0  # seconds
    is_alone: bool = False  # with a job that may be why others were lost

    @property
    def room(self) -> int:
        """The jobs that it can take now. A worker of a GPU gets its whole group at a time."""
        room = 0 if self.is_alone else self.size - len(self.aboard)
        return room if room >= self.size // self.workers or not self.aboard else 0


class RayEvaluator(AheadEvaluator):
    """Trains jobs on the nodes of a Ray cluster, with the local evaluator on each. Use it in a ``with`` block.

    A node that is lost costs time, and no trial. A job that was aboard three agents that were lost is trained
    alone; if that agent is lost, too, the job has crashed.

    Args:
        dataset: training and validation images.
        recipe: how to train.
        workers: the number of jobs at a time, on all nodes together.
        device: ``cpu``, or ``cuda`` for the nodes' GPUs.
        weights: a folder for the trained weights, ``<job key>.safetensors``; None to discard them.
        until: the time (``time.monotonic``) at which unfinished jobs are given up; None for no limit.
        group: the number of jobs at a time on a GPU, see `LocalEvaluator`.
        warn: called with a line for the user.
        begun: called with the jobs that an agent begins to train.
        address: of the cluster, ``host:port``; None for that of RAY_ADDRESS, or the one on this machine, which is
            started if there is none.
        memory: the GiB that a worker may use; by default its share of four fifths of the node's memory.
        mixed: allow nodes that differ in hardware or software. The same search may then have another result.

    Raises:
        NasError: Ray is not installed, or there is no cluster.
    """

    trainer: ClassVar[type[LocalEvaluator]] = LocalEvaluator  # what trains on each node
    measures_alone = False  # the latency of a network, while nothing else is trained there

    def __init__(
        self,
        dataset: Dataset,
        recipe: Recipe,
        *,
        workers: int,
        device: str = "cpu",
        weights: Path | None = None,
        until: float | None = None,
        group: int | str = 1,
        warn: Callable[[str], None] = lambda line: None,
        begun: Callable[[Sequence[Job]], None] = lambda jobs: None,
        address: str | None = None,
        memory: Annotated[float, AfterValidator(enough)] | None = None,
        mixed: bool = False,
    ) -> None:
        import ray

        self._cluster = connected(address)
        self._dataset, self._weights, self._until, self._mixed = dataset, weights, until, mixed
        self._warn, self._begun = warn, begun
        total = sum(agent.workers(device) for agent in self._cluster.settled)
        self._most = None if workers == total else workers  # of all that there were: new nodes add theirs
        data = packed(dataset, ray.put)
        self._work = Work(self.trainer, recipe, 0, device, group, memory, weights is not None, 1, data, _layers())
        self._agents: list[_Agent] = []
        self._events: SimpleQueue[tuple[_Agent, str, Future[Any]]] = SimpleQueue()
        self._numbers, self._lot = count(), 0
        self._waiting: list[_Waiting] = []  # a heap
        self._suspects: list[_Waiting] = []  # a heap of jobs that are trained alone
        self._lost: Counter[str] = Counter()  # agents, by the key of a job
        self._failed: list[Trial] = []  # of jobs that have cost an agent
        self._looked = time.monotonic()
        self._is_known_empty = False

    @classmethod
    def hardware(cls, options: Mapping[str, Any]) -> Hardware:
        """The nodes of the cluster, which must be the same, unless they may be mixed.

        Raises:
            NasError: there is no cluster, no node of it can train, or its nodes differ.
        """
        cluster = connected(options.get("address"))
        agents = cluster.settle()
        first = cluster.first = cluster.first or agents[0]
        agents = [first, *(agent for agent in agents if agent is not first)]
        if not options.get("mixed") and (words := differences([(one.node.name, one.facts) for one in agents])):
            raise UsageError(
                f"{words}: the result would depend on where a network is trained. Make them the same, or go on "
                "with `--set evaluator.mixed=true`"
            )
        return Nodes(cluster.settled)

    def __enter__(self) -> Self:
        """The evaluator."""
        if not has_authentication() and not self._cluster.is_warned:
            self._cluster.is_warned = True
            self._warn(
                f"the Ray cluster {self._cluster.address} has no authentication: whoever reaches its ports can "
                "run programs on it; docs/cluster.md says how to set a token"
            )
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Let the agents go, which end their workers."""
        if kind is not None and issubclass(kind, KeyboardInterrupt):  # at once, whatever else has still to end
            leave()
            return
        for agent in self._agents:
            agent.remote.call("end", agent.remote.session)
            agent.remote.user = None
        self._agents = []

    def submit(self, jobs: Sequence[Job], /, turn: int) -> None:
        """Take jobs; those with the lowest turn begin first, and of these the longest."""
        for job in jobs:
            cost = operations(job, self._dataset)
            heapq.heappush(self._waiting, _Waiting(turn, -cost, next(self._numbers), job))
        self._send()

    def finished(self) -> list[Trial]:
        """Wait until a job has ended; the trials since the last call.

        Raises:
            NasError: no node can train.
        """
        while self._until is None or time.monotonic() < self._until:
            if not (self._failed or self._waiting or self._suspects or any(one.aboard for one in self._agents)):
                return []
            self._look()
            self._send()
            trials, self._failed = self._failed, []
            if trials or (trials := self._next()):
                return trials
        return []

    def cancel(self) -> None:
        """Give up all jobs that have no trial yet."""
        self._lot += 1
        for agent in self._agents:
            if agent.aboard:
                agent.remote.call("submit", agent.remote.session, self._lot, "{}")
                agent.aboard, agent.is_alone = {}, False
        self._waiting, self._suspects, self._failed = [], [], []

    def _next(self) -> list[Trial]:
        """Wait for what happens next, but not long; the trials in it."""
        wait = LOOK_SECONDS if self._until is None else min(LOOK_SECONDS, self._until - time.monotonic())
        trials: list[Trial] = []
        try:
            event = self._events.get(timeout=max(0.0, wait))
            while True:
                trials += self._taken(*event)
                event = self._events.get_nowait()
        except Empty:
            return trials

    def _taken(self, agent: _Agent, method: str, done: Future[Any]) -> list[Trial]:
        """What an agent has answered."""
        if agent not in self._agents:
            return []
        agent.silent = 0.0
        if (error := done.exception()) is not None:
            if is_loss(error):
                self._lose(agent, counts=not getattr(error, "preempted", False))
            else:
                self._give_up(agent.remote.node, reason_of(error))
            return []
        if method == "begin":
            agent.size = done.result()
            self._call(agent, "finished")
        elif method == "finished":
            lot, text, weights = done.result()
            news = json.loads(text)
            for line in news["warnings"]:
                self._warn(line)
            if news.get("error"):
                self._give_up(agent.remote.node, news["error"])
                return []
            self._call(agent, "finished")
            return self._trials(agent, news["trials"], weights) if lot == self._lot else []
        return []

    def _trials(self, agent: _Agent, trials: Sequence[Any], weights: Mapping[str, bytes]) -> list[Trial]:
        found = []
        for trial in map(Trial.from_dict, trials):
            waiting = agent.aboard.pop(trial.job.key, None)
            if waiting is None:
                continue
            if self._weights is not None and trial.job.key in weights:
                write_whole(self._weights / f"{trial.job.key}.safetensors", weights[trial.job.key])
            found.append(replace(trial, job=waiting.job))
        agent.is_alone = agent.is_alone and bool(agent.aboard)
        return found

    def _call(self, agent: _Agent, method: str, *args: Any) -> None:
        """Call a method of an agent whose answer becomes an event."""
        future = agent.remote.call(method, agent.remote.session, *args)
        future.add_done_callback(lambda done: self._events.put((agent, method, done)))

    def _send(self) -> None:
        """Give waiting jobs to agents with room, the emptiest first."""
        given: dict[_Agent, list[_Waiting]] = {}
        rooms = {agent: agent.room for agent in self._agents}
        if self._is_suspect_next():  # an agent is kept free for it
            emptiest = min((agent for agent in rooms if agent.size), key=lambda one: len(one.aboard), default=None)
            if emptiest is not None:
                del rooms[emptiest]
                if not emptiest.aboard:
                    emptiest.is_alone = True
                    given[emptiest] = [heapq.heappop(self._suspects)]
        while self._waiting and any(rooms.values()):
            agent = max((one for one, room in rooms.items() if room), key=lambda one: rooms[one] / one.size)
            rooms[agent] -= 1
            given.setdefault(agent, []).append(heapq.heappop(self._waiting))
        for agent, several in given.items():
            turns: dict[int, list[Any]] = {}
            for waiting in several:
                agent.aboard[waiting.job.key] = waiting
                turns.setdefault(waiting.turn, []).append(waiting.job.to_dict())
            self._call(agent, "submit", self._lot, json.dumps(turns))
            self._begun([waiting.job for waiting in several])

    def _is_suspect_next(self) -> bool:
        """Whether a job is to be trained alone now, since all others of its turn have begun."""
        if not self._suspects:
            return False
        return not self._waiting or self._suspects[0].turn < self._waiting[0].turn

    def _look(self) -> None:
        """Take agents that are ready, and give up those that are lost.

        Raises:
            NasError: no node can train.
        """
        now = time.monotonic()
        elapsed = min(now - self._looked, 2 * LOOK_SECONDS)  # this process may have been stopped meanwhile
        self._looked = now
        self._cluster.look()
        for agent in list(self._agents):
            agent.silent += elapsed
            most = SILENT_SECONDS if agent.size else PREPARING_SECONDS
            if agent.silent > (most if agent.remote.node.id in self._cluster.alive else GONE_SECONDS):
                self._lose(agent)
        for remote in list(self._cluster.agents):
            if remote.user is None and remote.node.id not in self._cluster.alive:
                self._cluster.drop(remote)
            elif remote.user is None and remote.started.done() and self._cluster.welcome(remote):
                self._enlist(remote)
        for name in self._cluster.refused.keys() - self._cluster.told:
            self._cluster.told.add(name)
            self._warn(f"the node {name[:6]} is not used: {self._cluster.refused[name]}")
        if why := self._cluster.why_useless:
            raise NasError(f"no node can train: {why}")
        is_empty = not self._agents and not self._cluster.agents
        if is_empty and not self._is_known_empty:
            self._warn("no node is left: the search waits for one; `nas cluster status` shows the cluster")
        self._is_known_empty = is_empty

    def _enlist(self, remote: Remote) -> None:
        """Prepare an agent for this search."""
        import ray

        device = remote.device(self._work.device)
        workers = remote.workers(self._work.device)
        if self._most is not None:
            workers = min(workers, self._most - sum(agent.workers for agent in self._agents))
        if workers < 1:
            return
        first = self._cluster.first = self._cluster.first or remote
        both = [(one.node.name, one.facts) for one in (first, remote)]
        if not self._mixed and (words := differences(both)):
            self._cluster.refuse(remote.node, words)
            return
        if remote.layers not in (None, self._work.layers):  # other plugins: Python imports a module once
            self._cluster.drop(remote, has_trained=True)
            return
        remote.user, remote.layers = self, self._work.layers
        remote.session += 1
        agent = _Agent(remote, workers)
        self._agents.append(agent)
        self._work = replace(self._work, data=packed(self._dataset, ray.put))  # anew if copies were lost
        work = replace(self._work, workers=workers, device=device, beside=len(remote.node.shares))
        self._call(agent, "begin", work)

    def _lose(self, agent: _Agent, *, counts: bool = True) -> None:
        """An agent is lost: its jobs begin anew elsewhere."""
        self._agents.remove(agent)
        self._cluster.drop(agent.remote, has_trained=bool(agent.size))
        if agent.aboard:
            self._warn(f"the node {agent.remote.node.name} was lost: what it has trained begins anew elsewhere")
        for key, waiting in agent.aboard.items():
            self._lost[key] += counts
            if agent.is_alone and counts:
                message = f"{MOST_LOST + 1} agents were lost with it, the last one when it was alone there"
                self._failed.append(Trial.failed(waiting.job, "crash", message))
            elif self._lost[key] >= MOST_LOST:
                heapq.heappush(self._suspects, waiting)
            else:
                heapq.heappush(self._waiting, waiting)

    def _give_up(self, node: Node, reason: str) -> None:
        """A node cannot train, which is no job's fault."""
        for agent in [agent for agent in self._agents if agent.remote.node == node]:
            self._lose(agent, counts=False)
        self._cluster.refuse(node, reason)


def _layers() -> tuple[Mapping[str, str], ...]:
    """The folders of plugin files with layers, which have to travel; their files may import one another."""
    folders = dict.fromkeys(path.parent for path in plugins.files() if plugins.describe(path).layers)
    return tuple(
        {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.py"))} for folder in folders
    )
