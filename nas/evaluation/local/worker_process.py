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
from nas.evaluation.local import spawn as processes
from nas.evaluation.local import worker
from nas.evaluation.local.spawn import GIB, UNKNOWN
from nas.trial import Job, Kind, Trial

# Exit codes of workers that were ended by a user, another program or a machine without memory; no candidate does
# that to itself. With UNKNOWN the server was killed, and the worker may be alive.
FROM_OUTSIDE = (-signal.SIGKILL, -signal.SIGTERM, UNKNOWN)
LONGEST = 2**24  # bytes of an answer; a trial of a thousand epochs has 0.2 MB
DYING_SECONDS = 5.0  # between the end of a process and its exit code lie milliseconds


@dataclass(frozen=True)
class Ending:
    """The end of a job in a worker: with its trial, or with a reason to try it again."""

    trial: Trial
    retry: bool = False  # the fault may lie outside of the job, or in another job of its group
    warnings: tuple[str, ...] = ()  # lines to show to the user


class Worker:
    """One process. It is started when it is first needed, and again after it was ended.

    Args:
        task: the settings that all its jobs share.
        memory: the most bytes that it may use.
    """

    def __init__(self, task: worker.Task, memory: float) -> None:
        self._task = task
        self._memory = memory
        self._process: Any = None
        self._socket: Any = None
        self._received = bytearray()
        self.jobs: list[Job] = []  # sent to it, and not finished
        self.deadline = 0.0
        self._started = 0.0
        self._is_group = False
        self._is_spoiled = False

    def start(self, jobs: Sequence[Job], seconds: float) -> None:
        """Send a job, or several that are trained together.

        Args:
            jobs: the worker must have none.
            seconds: the time after which the worker is taken for hanging.

        Raises:
            NasError: no process can be started.
        """
        if self._process is None or connection.wait(self.readable, timeout=0):  # it died, or sends unasked
            self.end()
            self._process, self._socket = processes.start(worker.main, self._task)
        self.jobs, self._is_group = list(jobs), len(jobs) > 1
        self._started = time.monotonic()
        self.deadline = self._started + seconds
        with suppress(OSError):  # it died at this moment; `endings` will find that
            self._socket.sendall(json.dumps([job.to_dict() for job in jobs]).encode() + b"\n")

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
            if ending is not None and rest and not self.jobs:  # it sends more than it was asked for
                self.jobs, ending = [ending.trial.job], None
            if ending is None:
                yield from self._stop("crash", "the worker process sent something else than its trial")
                return
            self._received[:] = rest
            if not self.jobs and (self._is_spoiled or self._used() > self._memory / 2):
                self.end()  # the next job must not die of the memory that this one has left occupied
            yield ending

    def _unanswered(self, has_ended: bool, received: int) -> Iterator[Ending]:
        """End the worker's jobs if they cannot be finished any more; there is no whole answer to read.

        Args:
            has_ended: whether the process died or closed its connection.
            received: bytes of an answer that is not complete.
        """
        if received > LONGEST:
            yield from self._stop("crash", "the worker process sent something else than its trial")
        elif has_ended:
            yield from self._died()
        elif time.monotonic() >= self.deadline:
            seconds = time.monotonic() - self._started
            yield from self._stop("timeout", f"still training after {seconds:.0f} s, far longer than expected")
        else:
            used, limit = self._used() / GIB, self._memory / GIB
            if used > limit:
                reason = f"it used {used:.1f} GiB, more than the {limit:.1f} GiB that a worker may use"
                yield from self._stop("oom", f"{reason}; `--set evaluator.memory=GIB` changes that")

    def _used(self) -> int:
        return processes.memory_of(self._process.pid)

    def kill(self) -> None:
        """Kill the process and its children, and do not wait for their end."""
        if self._process is not None:
            processes.kill(self._process)

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
            try:
                data = self._socket.recv(2**20)
            except OSError:
                return True
            if not data:
                return True
            self._received += data
        return False

    def _parse(self, line: bytes) -> Ending | None:
        """Read a line that the worker has sent; None if it is not the trial of one of its jobs.

        Raises:
            StorageError: the worker has sent an error instead of a trial.
        """
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
        self.jobs.remove(job)
        kind = trial.failure.kind if trial.failure else None
        if kind in ("crash", "oom"):  # the fault may strike the next job, too
            self._is_spoiled = True
        retry = kind == "oom" or (kind == "crash" and self._is_group)
        return Ending(replace(trial, job=job), retry, warnings)

    def _died(self) -> Iterator[Ending]:
        self._process.join(DYING_SECONDS)
        code = self._process.exitcode
        if code is None:
            return self._stop("crash", "the worker process closed its connection")
        return self._stop("crash", f"the worker process died {_cause(code)}", code in FROM_OUTSIDE)

    def _stop(self, kind: Kind, message: str, from_outside: bool = False) -> Iterator[Ending]:
        """End the process and all its jobs. In a group one job is to blame, so each is tried again, alone."""
        jobs, retry = self.jobs, from_outside or self._is_group
        self.end()
        for job in jobs:
            yield Ending(Trial.failed(job, kind, message), retry)


def _cause(code: int) -> str:
    if code >= 0:
        return f"with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"of {name}" + ("; the system may have been out of memory" if name == "SIGKILL" else "")
