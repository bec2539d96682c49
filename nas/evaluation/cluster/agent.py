"""What runs on each node: the local evaluator, inside a Ray actor.

Crashes, hangs, memory and the groups of a GPU are handled as on one machine. A Ray worker for each candidate would
need 4 s to import torch, or a server of its own.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from nas import plugins
from nas.evaluation.cluster.data import Packed, laid_down
from nas.evaluation.cluster.facts import facts
from nas.evaluation.local import machine, spawn
from nas.evaluation.local.local import LEAST_MEMORY, LocalEvaluator
from nas.evaluation.local.shared import locked_folder
from nas.trial import Job

if TYPE_CHECKING:
    from nas.training.recipe import Recipe

ANSWER_SECONDS = 2.0  # after which an agent answers even if nothing has happened: it is alive
ENDING_SECONDS = 0.05  # for its last answer to go out
IDLE_SECONDS = 60.0  # after a search, when an agent ends itself that has got no other one


@dataclass(frozen=True)
class Work:
    """What a search wants from an agent."""

    trainer: type[LocalEvaluator]
    recipe: Recipe
    workers: int
    device: str
    group: int | str
    memory: float | None  # GiB for a worker, see `LocalEvaluator`
    weights: bool  # whether it wants the weights
    beside: int  # agents on this node, which share its memory
    data: Packed
    layers: tuple[Mapping[str, str], ...] = ()  # folders of plugin files: the text of each file by its name


@dataclass
class _News:
    """What has happened since the driver has asked the last time."""

    trials: list[dict[str, Any]] = field(default_factory=list)
    weights: dict[str, bytes] = field(default_factory=dict)  # by the key of a job
    warnings: list[str] = field(default_factory=list)
    error: str = ""  # no job's fault: the node cannot train

    def __bool__(self) -> bool:
        return bool(self.trials or self.warnings or self.error)


class Agent:
    """One node, or one GPU of it. Ray calls its methods from several threads at the same time."""

    def __init__(self) -> None:
        os.environ["OMP_NUM_THREADS"] = "1"  # Ray sets the CPUs of the actor; each worker has one thread
        self._home, self._lock = locked_folder(Path(tempfile.gettempdir()))
        os.chdir(self._home)  # other plugins than those that the driver sends are not meant
        os.environ.pop("NAS_PLUGINS", None)
        spawn.warm_up()
        self._changing = threading.RLock()  # held while a session begins or ends
        self._session: _Session | None = None
        self._idle_since = math.inf
        self._offered = set[str]()  # folders of plugin files
        threading.Thread(target=self._end_when_idle, daemon=True).start()

    def facts(self, gpus: int) -> dict[str, Any]:
        """What this node is; see `nas.evaluation.cluster.facts.facts`."""
        return facts(gpus)

    def begin(self, number: int, work: Work) -> int:
        """Prepare for a search; how many jobs it takes at a time. The session before ends.

        Args:
            number: of the session, higher than those before.
            work: of the search.

        Raises:
            NasError: this node cannot train.
        """
        import ray

        with self._changing:
            self._idle_since = math.inf
            self.end(number - 1)
            dataset = laid_down(work.data, self._home / f"data-{work.data.number}", ray.get)
            for files in work.layers:
                self._offer(files)
            self._session = _Session(number, work, dataset, self._home)
            return self._session.size

    def submit(self, number: int, lot: int, jobs: str) -> None:
        """Take jobs of a lot, in JSON: those of each turn. All jobs of earlier lots are given up."""
        if (session := self._current(number)) is not None:
            turns = json.loads(jobs).items()
            session.submit(lot, {int(turn): [Job.from_dict(job) for job in several] for turn, several in turns})

    def finished(self, number: int) -> tuple[int, str, dict[str, bytes]]:
        """Wait until something has happened, but not long: the lot, the news as JSON, and the weights."""
        session = self._current(number)
        return session.news() if session is not None else (0, json.dumps({"trials": [], "warnings": []}), {})

    def end(self, number: int) -> None:
        """End a session, and every earlier one."""
        with self._changing:
            session = self._session
            if session is not None and session.number <= number:
                self._session = None
                session.close()
                self._idle_since = time.monotonic()

    def leave(self) -> None:
        """End this process, and leave no worker and no file."""
        with self._changing:
            if self._session is not None:
                self.end(self._session.number)
            shutil.rmtree(self._home, ignore_errors=True)
        threading.Timer(ENDING_SECONDS, os._exit, (0,)).start()

    def _current(self, number: int) -> _Session | None:
        session = self._session
        return session if session is not None and session.number == number else None

    def _offer(self, files: Mapping[str, str]) -> None:
        """Let the layers of plugin files be used here and in the workers."""
        name = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:16]
        if name in self._offered:
            return
        self._offered.add(name)
        folder = self._home / f"plugins-{name}"
        folder.mkdir()
        for file, text in files.items():
            (folder / file).write_text(text, encoding="utf-8")
        plugins.offer([folder])

    def _end_when_idle(self) -> None:
        while True:
            time.sleep(1)
            with self._changing:
                if time.monotonic() - self._idle_since > IDLE_SECONDS:
                    self.leave()


class _Session:
    """A search on this node. One thread has the local evaluator, and nobody else."""

    def __init__(self, number: int, work: Work, dataset: Any, home: Path) -> None:
        self.number = number
        self._inbox: SimpleQueue[tuple[int, Mapping[int, Sequence[Job]]] | None] = SimpleQueue()
        self._wake, self._woken = socket.socketpair()
        self._changed = threading.Condition()
        self._lot, self._news = 0, _News()
        weights = Path(tempfile.mkdtemp(prefix="weights-", dir=home)) if work.weights else None
        self._weights = weights
        self._evaluator = work.trainer(
            dataset,
            work.recipe,
            workers=work.workers,
            device=work.device,
            group=work.group,
            memory=work.memory if work.memory is not None or work.beside == 1 else _share(work),
            weights=weights,
            warn=self._warn,
        )
        self.size = work.workers * self._evaluator.group
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def submit(self, lot: int, jobs: Mapping[int, Sequence[Job]]) -> None:
        self._inbox.put((lot, jobs))
        self._wake.send(b"x")

    def close(self) -> None:
        self._inbox.put(None)
        self._wake.send(b"x")
        self._thread.join()

    def news(self) -> tuple[int, str, dict[str, bytes]]:
        with self._changed:
            self._changed.wait_for(lambda: bool(self._news), ANSWER_SECONDS)
            news, self._news = self._news, _News()
            plain = {"trials": news.trials, "warnings": news.warnings, "error": news.error}
            return self._lot, json.dumps(plain), news.weights

    def _run(self) -> None:
        try:
            with self._evaluator:
                while self._take():
                    self._tell(self._evaluator.look([self._woken]))
        except Exception as error:  # noqa: BLE001  # the driver decides what becomes of the search
            with self._changed:
                self._news.error = str(error) or type(error).__name__
                self._changed.notify_all()

    def _take(self) -> bool:
        """Take what has come in; whether the session goes on."""
        while not self._inbox.empty():
            message = self._inbox.get()
            self._woken.recv(1)
            if message is None:
                return False
            lot, jobs = message
            if lot > self._lot:
                self._evaluator.cancel()
                with self._changed:
                    self._lot, self._news = lot, _News(warnings=self._news.warnings)
            if lot == self._lot:
                for turn, several in jobs.items():
                    self._evaluator.submit(several, turn)
        return True

    def _tell(self, trials: Sequence[Any]) -> None:
        if not trials:
            return
        weights = {}
        for trial in trials:
            file = self._weights and self._weights / f"{trial.job.key}.safetensors"
            if file and trial.failure is None and file.is_file():
                weights[trial.job.key] = file.read_bytes()
                file.unlink()
        with self._changed:
            self._news.trials += [trial.to_dict() for trial in trials]
            self._news.weights |= weights
            self._changed.notify_all()

    def _warn(self, line: str) -> None:
        with self._changed:
            self._news.warnings.append(line)
            self._changed.notify_all()


def _share(work: Work) -> float:
    """The GiB for a worker where several agents share a machine."""
    share = machine.MEMORY_SHARE * machine.memory() / (work.workers * work.beside)
    return max(LEAST_MEMORY, share) / machine.GIB
