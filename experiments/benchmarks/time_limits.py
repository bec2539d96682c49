"""Time limits of 5, 10, 20 and 60 s on mnist-5k: the time until a refusal or a winner.

python experiments/benchmarks/time_limits.py [--mlflow auto]

Each search runs in an empty folder, first with PyTorch in memory, then "cold": the page cache is asked to drop all
files of the environment (Linux; no other program may use them). Words after the script's name go to `nas search`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

LIMITS = (5, 10, 20, 60)


def forget(folder: Path) -> None:
    """Ask the page cache to drop every file below a folder."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def main() -> None:
    """Print a row for each limit."""
    words = sys.argv[1:] or ["--mlflow", "off"]
    for cold in (False, True):
        for limit in LIMITS:
            with tempfile.TemporaryDirectory() as place:
                if cold:
                    forget(Path(sysconfig.get_path("purelib")))
                begun = time.monotonic()
                search = ["search", "--dataset", "mnist-5k", "--time-limit", f"{limit}s", *words]
                command = [sys.executable, "-m", "nas", *search]
                done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
                taken = time.monotonic() - begun
            last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
            kind = "cold" if cold else "warm"
            print(f"{kind} {limit:3} s: {taken:5.1f} s, exit {done.returncode}, {last}", flush=True)


if __name__ == "__main__":
    main()
