"""Decode many image files at the same time, in processes of their own.

A damaged file may crash a decoder, or keep it busy for ever: that ends the process, costs this file only, and is
its reason. Threads would not do: of the 0.25 ms for a JPEG of 32×32, Pillow's decoder in C takes 0.04.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

import numpy as np

from nas.data.dataset import Array
from nas.data.decoder import TOO_LITTLE, Frame, decoded, few_colours, framed
from nas.errors import DataError, ImageError, PassingError

MANY = 256, 8 * 2**20  # files and bytes that a process gets at a time
SECONDS = 30.0  # without an answer, after which a process is ended; the largest image allowed takes 3 s
FLUSHED = 1.0  # seconds after which a process says what it has seen so far
MOST_PROCESSES = 32
FEW = 64  # colours: fewer than any photograph has
NO_PROCESS = "no process that decodes images can be started"
STEP = "end other programs, or free some memory"
PROGRAM = "nas.data.decoders"
TINT = 2  # the largest difference between the colours of a grey image that is stored in colour


class Seen(NamedTuple):
    """What a decoder has seen in a file."""

    reason: str = ""  # why it has no image
    kind: str = ""  # format and mode, such as JPEG RGB
    height: int = 0
    width: int = 0
    is_grey: bool = True  # all its pixels are, whatever the file says
    colours: int = 0  # their number, if it is at most `FEW`; otherwise 0
    may_pass: bool = False  # whether the reason is one of memory, time, or the system


ENDS = Seen("ends the program that decodes it", may_pass=True)  # perhaps there was too little memory
TOO_LONG = Seen("takes too long to decode")  # is not tried again, which would take as long at each start
Progress = Callable[[int, int], None]  # is told how many of how many files are done


def decode_all(
    folder: Path, paths: Sequence[tuple[str, int]], progress: Progress, target: Path | None = None,
    frame: Frame | None = None,
) -> list[Seen]:  # fmt: skip
    """Decode files, and write their images to the rows of an array.

    Args:
        folder: the folder of the files.
        paths: the path of each file from there, and its size in bytes.
        progress: is told how far it is.
        target: an .npy file (N, C, H, W) uint8, which gets the images in their frame; None: nothing is written.
        frame: of the images.

    Returns:
        What was seen, in the order of the paths.

    Raises:
        DataError: no process can be started.
    """
    chunks = _chunks(paths)
    setup = {"folder": os.fspath(folder), "target": target and os.fspath(target), "frame": frame and asdict(frame)}
    count = max(1, min(_cores(), len(chunks), MOST_PROCESSES))
    processes = [_Process(setup) for _ in range(count)]
    idle: SimpleQueue[_Process] = SimpleQueue()
    for process in processes:
        idle.put(process)

    def seen(chunk: list[tuple[int, str]]) -> list[Seen]:
        process = idle.get()
        try:
            return process.see(chunk)
        finally:
            idle.put(process)

    pool = ThreadPoolExecutor(count)
    found: list[Seen] = []
    try:
        for part in pool.map(seen, chunks):
            found += part
            progress(len(found), len(paths))
    finally:
        for process in processes:
            process.end()
        pool.shutdown(cancel_futures=True)
    return found


def _chunks(paths: Sequence[tuple[str, int]]) -> list[list[tuple[int, str]]]:
    chunks: list[list[tuple[int, str]]] = []
    total = most = 0
    for row, (path, size) in enumerate(paths):
        if not chunks or len(chunks[-1]) == MANY[0] or total + size > most:
            chunks.append([])
            total, most = 0, MANY[1]
        chunks[-1].append((row, path))
        total += size
    return chunks


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Process:
    """A process that decodes; it is started with its first files, and again after one that ended it."""

    def __init__(self, setup: dict[str, Any]) -> None:
        self._setup = json.dumps(setup)
        self._process: subprocess.Popen[str] | None = None
        self._has_ended = self._is_late = False

    def see(self, chunk: list[tuple[int, str]]) -> list[Seen]:
        """What is in some files: rows and paths."""
        answers = self._answers(json.dumps(chunk), len(chunk))
        found = [Seen(*answer) for answer in answers]
        if len(found) == len(chunk) or self._has_ended:
            return found
        if len(chunk) == 1:
            return [TOO_LONG if self._is_late else ENDS]
        for one in chunk[len(found) :]:  # one of the next ones has ended it
            found += self.see([one])
        return found

    def end(self) -> None:
        """Kill the process; no other is started."""
        self._has_ended = True
        self._kill()

    def _answers(self, line: str, count: int) -> list[Any]:
        """The answers to a line; fewer than ``count`` if the process has ended, or was too late."""
        answers: list[Any] = []
        if self._process is None and not self._has_ended:
            self._start()
        process, self._is_late = self._process, False
        if process is None or process.stdin is None or process.stdout is None:  # killed at this moment
            return answers
        with suppress(OSError, ValueError):
            process.stdin.write(line + "\n")
            process.stdin.flush()
            while len(answers) < count:
                timer = threading.Timer(SECONDS, self._too_late, [process])
                timer.start()
                answer = process.stdout.readline()
                timer.cancel()
                if not answer.endswith("\n"):
                    break
                answers += json.loads(answer)
        if len(answers) < count:
            self._kill()
        return answers

    def _too_late(self, process: subprocess.Popen[str]) -> None:
        self._is_late = True
        process.kill()

    def _start(self) -> None:
        # -P: the folder in which the user is may have a file numpy.py.
        command = [sys.executable, "-P", "-m", PROGRAM]
        one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        environment = {**os.environ, **one_thread, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        try:
            self._process = subprocess.Popen(  # noqa: S603  # the command is ours
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                encoding="ascii", env=environment,
            )  # fmt: skip
        except OSError as error:
            raise DataError(f"{NO_PROCESS} ({error.strerror or error}): {STEP}") from None
        if self._answers(self._setup, 1) != ["ready"] and not self._has_ended:
            raise DataError(f"{NO_PROCESS}: {STEP}")

    def _kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with suppress(OSError, ValueError):
                        stream.close()


def main() -> None:
    """The program of a process: a line with its setup, then lines of rows and paths; lines of answers to each."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; this one ends with its input
    setup = json.loads(sys.stdin.readline())
    frame = Frame(**setup["frame"]) if setup["frame"] else None
    target = np.load(setup["target"], mmap_mode="r+") if setup["target"] else None
    print('["ready"]', flush=True)
    for line in sys.stdin:
        answers, said = [], time.monotonic()
        for row, path in json.loads(line):
            answers.append(_see(Path(setup["folder"], path), row, frame, target))
            if time.monotonic() - said > FLUSHED:
                print(json.dumps(answers), flush=True)
                answers, said = [], time.monotonic()
        if answers:
            print(json.dumps(answers), flush=True)


def _see(path: Path, row: int, frame: Frame | None, target: Array | None) -> Seen:
    try:
        pixels, _, kind = decoded(path)
        if frame is not None and target is not None:
            target[row] = framed(pixels, frame)
    except ImageError as error:
        return Seen(str(error), may_pass=isinstance(error, PassingError))
    except MemoryError:
        return Seen(TOO_LITTLE, may_pass=True)
    height, width = pixels.shape[:2]
    return Seen("", kind, height, width, is_grey(pixels), few_colours(pixels, FEW))


def is_grey(pixels: Array) -> bool:
    """Whether an image (H, W) or (H, W, 3) has no colour; of a large one, every fourth row and column counts."""
    if pixels.ndim == 2:
        return True
    for step in (16, 1 if pixels.size < 2**16 else 4):  # a few pixels tell of most images that they have colours
        red, green, blue = pixels[::step, ::step].astype(np.int16).transpose(2, 0, 1)
        if max(np.abs(red - green).max(), np.abs(green - blue).max()) > TINT:
            return False
    return True


if __name__ == "__main__":
    main()
