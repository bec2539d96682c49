"""One worker process, seen from the outside: what it is given, what it says, how it ends."""

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

# What a person, another program or a machine that has no memory left does to a worker; no candidate does it to
# itself. With UNKNOWN the server was killed, and the worker may be alive.
FROM_OUTSIDE = (-signal.SIGKILL, -signal.SIGTERM, UNKNOWN)
DYING_SECONDS = 5.0  # between the end of a process and its exit code lie milliseconds


@dataclass(frozen=True)
class Ending:
    """What came of a job."""

    trial: Trial
    again: bool = False  # it may not be the job's fault: something outside, or another job of its group
    said: tuple[str, ...] = ()  # what the person who searches should know


class Worker:
    """One process, which is started when it is first needed and again after it was ended.

    Args:
        task: what it has to know.
        memory: how many bytes it may use.
    """

    def __init__(self, task: worker.Task, memory: float) -> None:
        self._task = task
        self._memory = memory
        self._process: Any = None
        self._socket: Any = None
        self._heard = bytearray()
        self.jobs: list[Job] = []  # that it has not answered
        self.deadline = 0.0
        self._started = 0.0
        self._is_group = False
        self._is_spoiled = False

    def start(self, jobs: Sequence[Job], seconds: float) -> None:
        """Give it a job, or several to train together.

        Raises:
            NasError: no process can be started.
        """
        if self._process is None or connection.wait(self.signs, timeout=0):  # it died, or talks unasked
            self.end()
            self._process, self._socket = processes.start(worker.main, self._task)
        self.jobs, self._is_group = list(jobs), len(jobs) > 1
        self._started = time.monotonic()
        self.deadline = self._started + seconds
        with suppress(OSError):  # it died this moment; `endings` will find that
            self._socket.sendall(json.dumps([job.to_dict() for job in jobs]).encode() + b"\n")

    @property
    def signs(self) -> list[Any]:
        """What becomes readable when it has something to say or dies."""
        return [self._socket, self._process.sentinel]

    def endings(self) -> Iterator[Ending]:
        """What came of its jobs; nothing while it is at them.

        Raises:
            StorageError: its disk is full; this is not the jobs' fault.
        """
        is_dead = bool(connection.wait([self._process.sentinel], timeout=0))  # asked first: it may have answered
        while self.jobs:
            is_closed = self._listen()
            line, is_whole, rest = bytes(self._heard).partition(b"\n")
            if not is_whole:
                yield from self._silent(is_dead or is_closed)
                return
            ending = self._answered(line)
            if ending is None:
                yield from self._stop("crash", "the worker process sent something else than its trial")
                return
            self._heard[:] = rest
            if not self.jobs and (self._is_spoiled or self._used() > self._memory / 2):
                self.end()  # what one job leaves in memory must not be what the next one dies of
            yield ending

    def _silent(self, has_ended: bool) -> Iterator[Ending]:
        """What has to be said of its jobs when there is no whole answer."""
        if has_ended:
            yield from self._died()
        elif time.monotonic() >= self.deadline:
            seconds = time.monotonic() - self._started
            yield from self._stop("timeout", f"still training after {seconds:.0f} s, far longer than expected")
        else:
            used, limit = self._used() / GIB, self._memory / GIB
            if used > limit:
                what = f"it used {used:.1f} GiB, more than the {limit:.1f} GiB that a worker may use"
                yield from self._stop("oom", f"{what}; `--set evaluator.memory=GIB` changes that")

    def _used(self) -> int:
        return processes.memory_of(self._process.pid)

    def kill(self) -> None:
        """Kill the process and its children, and do not wait for their end."""
        if self._process is not None:
            processes.kill(self._process)

    def end(self) -> None:
        """End the process and its children, and forget its jobs."""
        self.jobs, self._is_spoiled = [], False
        self._heard.clear()
        if self._process is None:
            return
        self.kill()
        self._socket.close()
        self._process.join(DYING_SECONDS)
        if self._process.exitcode is not None:
            self._process.close()
        self._process = self._socket = None

    def _listen(self) -> bool:
        """Take what it has said, up to a whole line, without waiting; whether it has hung up."""
        while b"\n" not in self._heard:
            if not connection.wait([self._socket], timeout=0):
                return False
            try:
                said = self._socket.recv(2**20)
            except OSError:
                return True
            if not said:
                return True
            self._heard += said
        return False

    def _answered(self, line: bytes) -> Ending | None:
        """What a line says that the worker has sent; None if it is no trial of one of its jobs.

        Raises:
            StorageError: the worker has sent that instead.
        """
        try:
            message = json.loads(line)
            error = message.get("error")
            trial = None if error else Trial.from_dict(message["trial"])
            said = tuple(str(one) for one in message.get("said", ()))
        except Exception:  # noqa: BLE001  # whatever a candidate sends, it does not end the search
            return None
        if error:
            raise StorageError(error)
        job = next((one for one in self.jobs if trial and one.key == trial.job.key), None)
        if trial is None or job is None:
            return None
        self.jobs.remove(job)
        kind = trial.failure.kind if trial.failure else None
        if kind in ("crash", "oom"):  # what has gone wrong there may go wrong for the next job, too
            self._is_spoiled = True
        again = kind == "oom" or (kind == "crash" and self._is_group)
        return Ending(replace(trial, job=job), again, said)

    def _died(self) -> Iterator[Ending]:
        self._process.join(DYING_SECONDS)
        code = self._process.exitcode
        if code is None:
            return self._stop("crash", "the worker process closed its connection")
        return self._stop("crash", f"the worker process died {_cause(code)}", code in FROM_OUTSIDE)

    def _stop(self, kind: Kind, message: str, from_outside: bool = False) -> Iterator[Ending]:
        """End the process: that is the end of all its jobs, of which one alone is to blame."""
        jobs, again = self.jobs, from_outside or self._is_group
        self.end()
        for job in jobs:
            yield Ending(Trial.failed(job, kind, message), again)


def _cause(code: int) -> str:
    if code >= 0:
        return f"with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"of {name}" + ("; the system may have been out of memory" if name == "SIGKILL" else "")
