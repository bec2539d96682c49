"""Runs ``nas`` again and again and kills it at random moments; a script of its own, because it forks.

Each attempt is a process of its own that is killed with SIGKILL, with everything that a search has: worker
processes, the journal, MLflow. What is shared is what was imported, and the server that workers are forked from:
that saves ten seconds an attempt. A server is not made to outlive those that it serves: it dies of one that is
killed between its connection and its request, and is then started anew.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import sys
import time
import traceback
from multiprocessing import forkserver
from pathlib import Path

import mlflow  # noqa: F401
import torch  # noqa: F401

import nas.dashboard.registry
import nas.run.resumed  # noqa: F401
from nas.cli.main import cli
from nas.dashboard.writer import Writer  # noqa: F401
from nas.data import open_source
from nas.evaluation.local import spawn as processes


def begin(words: list[str], log: Path) -> int:
    """Start a command; the id of its process."""
    pid = os.fork()
    if pid:
        return pid
    # The server is the parent's child: nobody else can ask after it.
    forkserver.ensure_running = forkserver._forkserver.ensure_running = lambda: None  # type: ignore[method-assign]
    processes._server_of = os.getpid()
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    code = 1
    try:
        code = cli.main(words, standalone_mode=False) or 0
    except SystemExit as error:
        code = int(error.code or 0)
    except BaseException:  # noqa: BLE001  # a forked process must not go on with what its parent does
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def ended(pid: int, seconds: float) -> int | None:
    """The exit code of a process if it ends within so many seconds."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    return None


def serve() -> None:
    """Have a server that works. It answers in turn, so it has survived whoever asked before."""
    process, ours = processes.start(socket.socket.close)  # something that any process can import
    process.join()
    ours.close()


def main(kills: int, longest: float, words: list[str]) -> None:
    """Search, kill, go on, until so many kills have been survived and the search has ended or failed."""
    processes.warm_up()
    open_source("mnist-5k").load()
    log, rng = Path("log.txt"), random.Random(0)
    moments: list[float] = []
    command = words
    while True:
        serve()
        pid = begin(command, log)
        enough = len(moments) >= kills
        moment = rng.uniform(0.0, longest)
        code = ended(pid, 600.0 if enough else moment)
        if code == 0 and not enough:  # it came to its end before it was killed often enough
            continue
        if code is not None:
            break
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        moments.append(moment)
        folder = Path(words[words.index("--out") + 1])
        if (folder / "search.toml").exists():
            command = ["resume", f"./{folder}", *words[words.index("--mlflow") :][:2]]
        else:  # it was killed before it had begun
            for path in folder.rglob("*"):
                if path.is_file():
                    path.unlink()
    print(json.dumps({"kills": len(moments), "code": code}))


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:])
