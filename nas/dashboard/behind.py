"""A process that writes the candidates of a search to MLflow, when they come faster than a thread can write.

One process can have one thread of Python at work: beside a search with 200 trials a second, a thread that writes
would take half of its time. So the writer's thread starts this program while it is far behind, and goes on when it
is through. It gets the address of the store through its standard input, since addresses may hold passwords, and
ends with the process that has started it. A second such process would take time from the search; but when that is
over, its own process writes the second half of what is left, and this one the first.

in:   {"path": of the journal, "uri": of the store, "plugins": folders}; when the search is over, [the number of
      candidates that are in the store, the number of all candidates]
out:  {"written": number of candidates, "last": the last one to write, if known, "problem": ""}, again and again
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple, Self

from nas import plugins
from nas.records.record import Record, entry_of

NICE = 10  # the search comes first
FEW = 8  # candidates, with which the thread goes on by itself
PAUSE = 1.0  # seconds between two lines; thousands of unread ones would fill the pipe
STEP = 50  # candidates between two looks at the journal; their points of curves go to the store in one call


class State(NamedTuple):
    """How far the process is."""

    written: int  # candidates that are through
    last: int | None = None  # the last candidate that it writes, if that is known
    problem: str = ""  # why it has failed


class Behind:
    """The process, as seen from the one that starts it. Use it in a ``with`` block; it is iterated over once.

    Args:
        path: of the journal.
        uri: the address of the store.
    """

    def __init__(self, path: Path, uri: str) -> None:
        # -P: the folder in which the user is may have a file numpy.py.
        command = [sys.executable, "-P", "-m", "nas.dashboard.behind"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self._process = subprocess.Popen(  # noqa: S603
            command, text=True, start_new_session=True,  # Ctrl-C is for the search, with which it ends
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment,
        )  # fmt: skip
        self._tell({"path": str(path), "uri": uri, "plugins": [str(folder) for folder in plugins.folders()]})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def __iter__(self) -> Iterator[State]:
        """How far it is, again and again until it ends.

        Raises:
            RuntimeError: it has failed; the message says why.
        """
        assert self._process.stdout is not None  # noqa: S101
        for line in self._process.stdout:
            state = State(**json.loads(line))
            if state.problem:
                raise RuntimeError(state.problem)
            yield state
        if code := self._process.wait():
            raise RuntimeError(f"the process that writes to MLflow has ended with exit code {code}")

    def halve(self, written: int, candidates: int) -> None:
        """Let it write the first half of what is left of so many candidates; it says which is the last."""
        self._tell([written, candidates])

    def _tell(self, what: object) -> None:
        with suppress(BrokenPipeError):  # it has ended; iterating over it says so
            print(json.dumps(what), file=self._process.stdin, flush=True)


def main() -> None:
    """Write until nearly everything is written that the journal has, or the half that is asked for."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # the plugin of a layer may print

    def say(state: State) -> None:
        print(json.dumps(state._asdict()), file=answers, flush=True)

    wanted, ends = json.loads(sys.stdin.readline()), list[list[int]]()
    threading.Thread(target=_listen, args=[ends], daemon=True).start()
    with suppress(OSError, AttributeError):  # Windows
        os.nice(NICE)
    plugins.offer(map(Path, wanted["plugins"]))
    from nas.dashboard.store import reason_of

    try:
        _write(Record(Path(wanted["path"])), wanted["uri"], ends, say)
    except Exception as error:  # noqa: BLE001  # any exception of MLflow is the other process's to report
        say(State(0, problem=reason_of(error) or "unknown"))


def _write(record: Record, uri: str, ends: Sequence[list[int]], say: Callable[[State], None]) -> None:
    from nas.dashboard.store import import_mlflow, quiet
    from nas.dashboard.writer import Writer

    import_mlflow()
    writer: Writer | None = None
    last: int | None = None
    said = 0.0

    def step() -> None:
        nonlocal said
        if time.monotonic() - said >= PAUSE:
            say(State(writer.told if writer else 0, last))
            said = time.monotonic()

    with record.path.open("rb") as file, quiet():
        while True:
            end = ends[0] if ends else None  # before the journal is read, which has all candidates then
            _read_on(record, file)
            if writer is None or writer.is_stale:
                writer = Writer(record, uri, on_progress=step)
            if last is None and end is not None:
                written, candidates = end
                last = min((max(writer.told, written) + candidates) // 2, len(record.told))
                say(State(writer.told, last))
            left = (len(record.told) if last is None else last) - writer.told
            if left <= (FEW if last is None else 0):
                say(State(writer.told, last))
                return
            writer.write(ended=False, most=min(left, STEP))


def _read_on(record: Record, file: BinaryIO) -> None:
    """Take the whole lines that the journal has got."""
    place = file.tell()
    for line in file:
        entry = entry_of(line) if line.endswith(b"\n") else None
        if entry is None:
            break
        if "asked" not in entry:  # the store gets what was told
            record.take(entry)
        place += len(line)
    file.seek(place)


def _listen(ends: list[list[int]]) -> None:
    """Take what is said when the search is over; end with the process that has started this one."""
    try:
        for line in sys.stdin:
            ends.append(json.loads(line))  # noqa: PERF401  the others look at it meanwhile
    finally:
        os._exit(1)


if __name__ == "__main__":
    main()
