"""Downloads with time-outs, which torchvision's own do not have; those also leave incomplete files behind."""

from __future__ import annotations

import http.client
import queue
import threading
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HEADERS = {"User-Agent": "nas"}
SILENCE = 10  # seconds without a byte, after which the download fails
WEIGHTS_SECONDS = 300.0  # for a file of pretrained weights, up to about 500 MB
FAILURES = (OSError, http.client.HTTPException)  # everything that urllib raises, including time-outs


def reachable(urls: Sequence[str], timeout: float) -> bool:
    """Whether one of the addresses answers within ``timeout`` seconds, including the look-up of its name.

    All are asked at once, in daemon threads, because the look-up has no time-out and must delay neither this
    function nor the end of the program.
    """
    answers: queue.SimpleQueue[bool] = queue.SimpleQueue()
    for url in urls:
        threading.Thread(target=lambda url=url: answers.put(_answers(url, timeout)), daemon=True).start()
    deadline = time.monotonic() + timeout
    for _ in urls:
        try:
            if answers.get(timeout=max(0.0, deadline - time.monotonic())):
                return True
        except queue.Empty:
            return False
    return False


def download(url: str, limit: int, deadline: float) -> bytes:
    """The content at ``url``; see `stream`."""
    return b"".join(stream(url, limit, deadline))


def stream(url: str, limit: int, deadline: float) -> Iterator[bytes]:
    """The content at ``url``, in chunks as they arrive.

    Args:
        url: an http or https address.
        limit: the largest accepted size in bytes.
        deadline: the time (`time.monotonic`) by which it must be complete.

    Raises:
        OSError: it is not available, too large, or too slow; or `http.client.HTTPException`.
    """
    size = 0
    with _open(url, "GET", SILENCE) as response:
        while chunk := response.read1(1 << 16):
            size += len(chunk)
            if size > limit:
                raise OSError(f"more than {limit:,} bytes")
            if time.monotonic() > deadline:
                raise TimeoutError(f"too slow: {size:,} bytes so far")
            yield chunk


def _open(url: str, method: str, timeout: float) -> http.client.HTTPResponse:
    request = urllib.request.Request(url, headers=HEADERS, method=method)  # noqa: S310  the addresses are constants
    try:
        response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=timeout)  # noqa: S310
    except urllib.error.HTTPError as error:
        error.close()  # it holds the connection
        raise
    return response


def _answers(url: str, timeout: float) -> bool:
    try:
        _open(url, "HEAD", timeout).close()
    except FAILURES:
        return False
    return True
