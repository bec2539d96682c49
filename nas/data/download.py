"""Downloads with time-outs, which torchvision's own downloads lack."""

from __future__ import annotations

import http.client
import queue
import threading
import time
import urllib.error
import urllib.request
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HEADERS = {"User-Agent": "nas"}
SILENCE = 10  # seconds without a byte, after which the download fails
WEIGHTS_SECONDS = 300.0  # for a file of pretrained weights, up to about 500 MB
FAILURES = (OSError, http.client.HTTPException)  # everything that urllib raises, including time-outs


def reachable(urls: Sequence[str], timeout: float) -> bool:
    """Whether one of the addresses answers within ``timeout`` seconds, including the look-up of its name.

    Each is asked in a daemon thread, because the look-up has no time-out and must delay neither this function nor
    the end of the program.
    """
    answers: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def ask(url: str) -> None:
        try:
            _open(url, "HEAD", timeout).close()
            answers.put(True)
        except FAILURES:
            answers.put(False)

    for url in urls:
        threading.Thread(target=ask, args=(url,), daemon=True).start()
    deadline = time.monotonic() + timeout
    with suppress(queue.Empty):
        return any(answers.get(timeout=max(0.0, deadline - time.monotonic())) for _ in urls)
    return False


def stream(url: str, limit: int, deadline: float) -> Iterator[bytes]:
    """The content at ``url``, in chunks as they arrive: at most ``limit`` bytes, until ``deadline`` (`monotonic`).

    Raises:
        OSError: the content is not available, too large, or too slow.
        http.client.HTTPException: the answer is not HTTP.
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
