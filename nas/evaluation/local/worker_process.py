"""One worker process, seen from the parent: sending it jobs, receiving its trials, ending it."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing import connection
from typing import Any

from nas.errors import StorageError
from nas.evaluation.local import spawn, worker
from nas.evaluation.local.machine import GIB
from nas.evaluation.local.spawn import UNKNOWN
from nas.trial import Job, Kind, Trial

# Exit codes of workers that were ended by a user, another program or a machine without memory; no candidate does
# that to itself. With UNKNOWN the server was killed, and the worker may be alive.
FROM_OUTSIDE = (-9, -signal.SIGTERM, UNKNOWN)  # 9: SIGKILL, which Windows does not name
LONGEST = 2**24  # bytes of an answer; a trial of a thousand epochs has 0.2 MB
DYING_SECONDS = 5.0  # the longest wait for the exit code of a dead process; it takes milliseconds
NO_TRIAL = "the worker process sent something else than its trial"


@dataclass(frozen=True)
class Ending:
    """The end of a job in a worker: its trial, and whether the job may be tried again."""

    trial: Trial
    retry: bool = False  # the cause may be outside of the job, or another job of its group
    warnings: tuple[str, ...] = ()  # lines for the user


class Worker:
    """One process, which may use ``memory`` bytes. It starts with its first job, and again if it was ended."""

    def __init__(self, task: worker.Task, memory: float) -> None:
        self._task, self._memory = task, memory
        self._process: Any = None
        self._socket: Any = None
        self._received = bytearray()
        self.jobs: list[Job] = []  # sent, and not finished
        self.deadline = self._started = 0.0  # of `time.monotonic`
        self._is_group = False
        self._is_spoiled = False  # the process may have been damaged by a job

    def start(self, work: str, jobs: Sequence[Job], seconds: float) -> None:
        """Let an idle worker do jobs together with the function ``work``; after ``seconds`` it counts as hanging.

        Raises:
            NasError: no process can be started.
        """
        if self._process is None or connection.wait(self.readable, timeout=0):  # it died, or sends unasked
            self.end()
            self._process, self._socket = spawn.start(worker.main, self._task)
        self.jobs, self._is_group = list(jobs), len(jobs) > 1
        self._started = time.monotonic()
        self.deadline = self._started + seconds
        with suppress(OSError):  # it died at this moment, which `endings` will notice
            message = {"work": work, "jobs": [job.to_dict() for job in jobs]}
            self._socket.sendall(json.dumps(message).encode() + b"\n")

    @property
    def readable(self) -> list[Any]:
        """The objects that become readable when the worker sends something or dies."""
        return [self._socket, self._process.sentinel]

    def endings(self) -> Iterator[Ending]:
        """The jobs that have ended since the last call.

        Raises:
            StorageError: the worker cannot write the weights, or cannot read the data.
        """
        is_dead = bool(connection.wait([self._process.sentinel], timeout=0))  # before reading its last answers
        while self.jobs:
            is_closed = self._receive()
            line, is_whole, rest = bytes(self._received).partition(b"\n")
            if not is_whole:
                yield from self._unanswered(is_dead or is_closed, len(line))
                return
            ending = self._parse(line)
            if ending is None or (rest and len(self.jobs) == 1):  # nothing may follow the last trial
                yield from self._stop("crash", NO_TRIAL)
                return
            self.jobs = [job for job in self.jobs if job is not ending.trial.job]
            self._received[:] = rest
            if not self.jobs and (self._is_spoiled or spawn.memory_of(self._process.pid) > self._memory / 2):
                self.end()  # the next job must not fail because of the memory that this one has left occupied
            yield ending

    def _unanswered(self, has_ended: bool, received: int) -> Iterator[Ending]:
        """End the worker's jobs if they cannot be finished; ``received`` bytes are no complete answer yet."""
        if received > LONGEST:
            yield from self._stop("crash", NO_TRIAL)
        elif has_ended:
            self._process.join(DYING_SECONDS)
            code = self._process.exitcode
            cause = "closed its connection" if code is None else f"died {_cause(code)}"
            yield from self._stop("crash", f"the worker process {cause}", code in FROM_OUTSIDE)
        elif time.monotonic() >= self.deadline:
            seconds = time.monotonic() - self._started
            yield from self._stop("timeout", f"still training after {seconds:.0f} s, far longer than expected")
        elif (used := spawn.memory_of(self._process.pid)) > self._memory:
            reason = (
                f"it used {used / GIB:.1f} GiB, more than the {self._memory / GIB:.1f} GiB that a worker may use"
            )
            yield from self._stop("oom", f"{reason}; `--set evaluator.memory=GIB` changes that")

    def kill(self) -> None:
        """Kill the process and its children, and do not wait for their end."""
        if self._process is not None:
            spawn.kill(self._process)

    def end(self) -> None:
        """End the process and its children, and forget its jobs."""
        self.jobs, self._is_spoiled = [], False
        self._received.clear()
        if self._process is None:
            return
        self.kill()
        self._socket.close()
        self._process.join(DYING_SECONDS)
        if self._process.exitcode is not None:
            self._process.close()
        self._process = self._socket = None

    def _receive(self) -> bool:
        """Receive until there is a whole line, without waiting; returns whether the connection is closed."""
        while b"\n" not in self._received and len(self._received) <= LONGEST:
            if not connection.wait([self._socket], timeout=0):
                return False
            data = b""
            with suppress(OSError):
                data = self._socket.recv(2**20)
            if not data:
                return True
            self._received += data
        return False

    def _parse(self, line: bytes) -> Ending | None:
        """Read a line that the worker has sent; None if it is not the trial of one of its jobs."""
        try:
            message = json.loads(line)
            error = message.get("error")
            trial = None if error else Trial.from_dict(message["trial"])
            warnings = tuple(str(warning) for warning in message.get("warnings", ()))
        except Exception:  # noqa: BLE001  # a candidate can send anything, and must not end the search
            return None
        if error:
            raise StorageError(error)
        job = next((job for job in self.jobs if trial and job.key == trial.job.key), None)
        if trial is None or job is None:
            return None
        kind = trial.failure.kind if trial.failure else None
        self._is_spoiled |= kind in ("crash", "oom")
        retry = kind == "oom" or (kind == "crash" and self._is_group)
        return Ending(replace(trial, job=job), retry, warnings)

    def _stop(self, kind: Kind, message: str, from_outside: bool = False) -> Iterator[Ending]:
        """End the process and all its jobs. In a group only one job is at fault, so each is tried again, alone."""
        jobs, retry = self.jobs, from_outside or self._is_group
        self.end()
        for job in jobs:
            yield Ending(Trial.failed(job, kind, message), retry)


def _cause(code: int) -> str:
    if code >= 0:
        return f"with exit code {code}"
    name = {int(known): known.name for known in signal.Signals}.get(-code, f"signal {-code}")
    return f"of {name}" + ("; the system may have been out of memory" if name == "SIGKILL" else "")
