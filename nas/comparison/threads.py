"""Several searches at the same time, each in a thread of its own."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from typing import TypeVar

Task = TypeVar("Task")
Answer = TypeVar("Answer")


def side_by_side(work: Callable[[Task], Answer], tasks: Sequence[Task], count: int) -> Iterator[Answer]:
    """The results of ``work`` for all tasks as they come, ``count`` of them at a time; the first ones begin first.

    If it is interrupted or one raises an exception, the others that have begun are interrupted, too, as by Ctrl-C,
    and waited for.
    """
    if count == 1:
        yield from map(work, tasks)
        return
    running = set[int]()  # the identifiers of the threads that work
    guard = threading.Lock()  # a thread is interrupted while it works, and never afterwards

    def watched(task: Task) -> Answer:
        me = threading.get_ident()
        with guard:
            running.add(me)
        try:
            return work(task)
        finally:
            with guard:
                running.discard(me)

    with ThreadPoolExecutor(count) as pool:
        futures: list[Future[Answer]] = [pool.submit(watched, task) for task in tasks]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            with guard:
                for thread in running:
                    _interrupt(thread)
            raise


def _interrupt(thread: int) -> None:
    """Raise `KeyboardInterrupt` in a thread, as soon as it does not wait in the system any more."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(KeyboardInterrupt))
