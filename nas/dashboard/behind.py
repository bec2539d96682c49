"""A process that writes the candidates of a search to MLflow, when they come faster than a thread can write.

One process can have one thread of Python at work: beside a search with 200 trials a second, a thread that writes
would take half of its time. So the writer's thread starts this program while it is far behind, and goes on when it
is through. It gets the address of the store through its standard input, since addresses may hold passwords, and
ends with the process that has started it. Two such processes were no better: they took time from the search.

in:   {"path": of the journal, "uri": of the store, "plugins": folders}
out:  {"written": number of candidates, "problem": ""}, again and again
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from nas import plugins
from nas.records.record import Record, entry_of

NICE = 10  # the search comes first
FEW = 8  # candidates, with which the thread goes on by itself
STEP = 20  # candidates between two lines, which say that the store is slow and not dead


def written(path: Path, uri: str) -> Iterator[int]:
    """Write the candidates of a running search in another process; yields how many are through.

    Raises:
        RuntimeError: it has failed; the message says why.
    """
    # -P: the folder in which the user is may have a file numpy.py.
    command = [sys.executable, "-P", "-m", "nas.dashboard.behind"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    wanted = {"path": str(path), "uri": uri, "plugins": [str(folder) for folder in plugins.folders()]}
    with subprocess.Popen(  # noqa: S603
        command, text=True, start_new_session=True,  # Ctrl-C is for the search, with which it ends
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment,
    ) as process:  # fmt: skip
        assert process.stdout is not None  # noqa: S101
        print(json.dumps(wanted), file=process.stdin, flush=True)
        try:
            for line in process.stdout:
                answer = json.loads(line)
                if answer["problem"]:
                    raise RuntimeError(answer["problem"])
                yield int(answer["written"])
            code = process.wait()
        finally:
            process.kill()
    if code:
        raise RuntimeError(f"the process that writes to MLflow has ended with exit code {code}")


def main() -> None:
    """Write until nearly everything is written that the journal has."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # the plugin of a layer may print
    wanted = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with suppress(OSError, AttributeError):  # Windows
        os.nice(NICE)
    plugins.offer(map(Path, wanted["plugins"]))
    try:
        for count in _write(Path(wanted["path"]), wanted["uri"]):
            print(json.dumps({"written": count, "problem": ""}), file=answers, flush=True)
    except Exception as error:  # noqa: BLE001  # any exception of MLflow is the other process's to report
        from nas.dashboard.store import reason_of

        print(json.dumps({"problem": reason_of(error) or "unknown"}), file=answers, flush=True)


def _write(path: Path, uri: str) -> Iterator[int]:
    from nas.dashboard.store import import_mlflow, quiet
    from nas.dashboard.writer import Writer

    import_mlflow()
    record, writer = Record(path), None
    with path.open("rb") as file:
        while True:
            _read_on(record, file)
            if writer is None or writer.is_stale:
                writer = Writer(record, uri)
            yield writer.told
            if len(record.told) - writer.told <= FEW:
                return
            while writer.told < len(record.told):
                with quiet():
                    writer.write(ended=False, most=STEP)
                yield writer.told


def _read_on(record: Record, file: BinaryIO) -> None:
    """Take the whole lines that the journal has got."""
    place = file.tell()
    for line in file:
        entry = entry_of(line) if line.endswith(b"\n") else None
        if entry is None:
            break
        record.take(entry)
        place += len(line)
    file.seek(place)


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    main()
