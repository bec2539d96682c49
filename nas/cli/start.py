"""The console script: it answers signals before anything else is imported, and flushes what was printed.

A signal during an import ends with a traceback, is lost, or leaves half a module. So this one imports nothing that
Python has not loaded by itself; Python needs 20 ms before it comes here.
"""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]  # `signal` itself takes 8 ms
import _thread
import atexit
import codecs
import os
import sys
import time

import nas.cli

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

SHOW_CURSOR = b"\x1b[?25h"  # the live view hides it
PATIENCE_SECONDS = 1.0  # for the end of an import
TEMPORARY_FILES = -100  # their priority among the finalizers of multiprocessing
_waiting_until = 0.0
_code = 1  # of an exception that nobody has answered
# For a terminal or a file whose encoding lacks them (the C locale, Windows); other characters become "?".
ASCII: dict[int, Any] = {**str.maketrans("·→×–…│▁▂▃▄▅▆▇█", "->x-~|..::++##"), ord("±"): "+-"}


def main() -> None:
    """Run the command, and end this process."""
    global _code
    atexit.register(_end)  # the first one to be registered is the last one to be called
    try:
        run()
        _code = 0
    except SystemExit as ended:
        _code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        raise


def _end() -> None:
    """End without unloading PyTorch and MLflow, which takes Python 1 to 4 seconds after the result is printed."""
    _flush()
    os._exit(_code)


def run() -> None:
    """Run the command."""
    nas.cli.begun = time.monotonic()  # from here on a time limit counts
    _on_signals(_leave)
    codecs.register_error("nas", _in_ascii)
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: PTH123, SIM115  # `nas … >&-` closes it
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: PTH123, SIM115
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="nas")  # type: ignore[union-attr]
    try:
        from nas.cli.main import cli
        from nas.dashboard import SETTINGS

        os.environ.update({**SETTINGS, **os.environ})
        cli(prog_name="nas", obj=lambda: _on_signals(_interrupt))
    finally:
        _on_signals(signal.SIG_IGN)  # Python removes its handlers when it exits; the exit code must stay ours
        _flush()


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # the reader has gone (`nas search | head`): Python would complain when it exits
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _interrupt(number: Any, frame: FrameType | None) -> None:
    """Run every `finally`; a second signal ends this process at once, and so its workers.

    An import is not interrupted. If it takes longer than a second, as at the start, the process ends at once.
    """
    global _waiting_until
    if _imports(frame):
        _waiting_until = _waiting_until or time.monotonic() + PATIENCE_SECONDS
        if time.monotonic() > _waiting_until:
            _leave()
        _thread.start_new_thread(_again, (number,))
        return
    _on_signals(_leave)
    raise KeyboardInterrupt


def _again(number: Any) -> None:
    time.sleep(0.02)
    _thread.interrupt_main(number)


def _imports(frame: FrameType | None) -> bool:
    """Whether the main thread is importing a module."""
    while frame is not None and frame.f_code.co_filename != "<frozen importlib._bootstrap>":
        frame = frame.f_back
    return frame is not None


def _leave(*_: object) -> None:
    """End this process at once, without temporary files; its workers and their server notice that."""
    try:
        os.write(2, (SHOW_CURSOR if os.isatty(2) else b"") + b"nas: interrupted\n")
        if "multiprocessing.util" in sys.modules:
            sys.modules["multiprocessing.util"]._run_finalizers(TEMPORARY_FILES)
    finally:
        os._exit(130)


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    """Write what the encoding of a stream lacks with other characters, instead of ending with a traceback."""
    assert isinstance(error, UnicodeEncodeError)  # noqa: S101
    text = error.object[error.start : error.end].translate(ASCII)
    return text.encode("ascii", "replace").decode(), error.end


def _on_signals(handler: Any) -> None:
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:  # `nohup` ignores SIGHUP
            signal.signal(number, handler)
