"""The cores of this machine that a training may use: its own, and those that have nothing to do."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")
MOST = 64  # threads


class Cores:
    """Does independent things one after another, or at the same time where cores are idle.

    Args:
        count: returns how many cores a training may use at this moment, its own one included.
    """

    def __init__(self, count: Callable[[], int] = lambda: 1) -> None:
        self._count = count
        self._threads = ThreadPoolExecutor(MOST, "part", initializer=torch.set_num_threads, initargs=(1,))
        self.saved = 0.0  # the seconds that one core alone would have needed longer

    def each(self, work: Callable[[Item], Result], items: Sequence[Item], most: int = MOST) -> list[Result]:
        """The results of all items, in their order, which are the same on any number of cores.

        ``most`` is the largest number of items that may be in work at the same time.
        """
        count = min(self._count(), len(items), most)
        if count < 2:
            return [work(item) for item in items]

        def several(first: int) -> tuple[list[Result], float]:
            begun = time.thread_time()  # without waiting for other threads or programs
            return [work(item) for item in items[first::count]], time.thread_time() - begun

        begun = time.perf_counter()
        others = [self._threads.submit(several, first) for first in range(1, count)]
        try:
            own = several(0)
        finally:
            wait(others)  # after an exception, too: nothing may go on behind the back of the training
        done = [own, *(other.result() for other in others)]
        self.saved += max(0.0, sum(seconds for _, seconds in done) - (time.perf_counter() - begun))
        return [done[number % count][0][number // count] for number in range(len(items))]
