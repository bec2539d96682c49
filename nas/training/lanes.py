"""Different networks at the same time on one GPU.

Each set of copies has a lane: a CUDA stream on which its steps are replayed as graphs (`nas.training.captured`).
The lanes take turns, step by step; the CPU is ahead of the GPU, which overlaps what the lanes have enqueued.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch

from nas.errors import NasError
from nas.training.batches import Resident
from nas.training.captured import Captured
from nas.training.recipe import Recipe
from nas.training.trainer import Steps, Trained, Training, network_of
from nas.trial import Job, is_out_of_memory

Sets = deque[list[Job]]  # jobs of one architecture and length

MOST = 64  # jobs at a time, where nobody says how many
KEPT = 8  # captured steps that a lane keeps for the next network of that architecture
# Twice the lanes have to be faster by so much, or they are not worth their memory. Measured over so many steps.
WORTH, MEASURED_STEPS = 1.1, 20
IDLE_SECONDS = 1e-4  # between two looks at lanes that all wait for the GPU


class Lane:
    """A stream, and the steps that were captured on it.

    Args:
        data: on the GPU.
        recipe: how networks are trained.
    """

    def __init__(self, data: Resident, recipe: Recipe) -> None:
        self.data, self.recipe = data, recipe
        self.jobs: list[Job] = []  # in training
        self.is_through = False
        self._captured: OrderedDict[tuple[str, int], Captured] = OrderedDict()
        self._pool: Any = None
        self._stream: Any = None
        self._training: Training | None = None
        self._turns: Iterator[bool] = iter(())

    def begin(self, jobs: list[Job]) -> None:
        """Take over jobs of one architecture and length."""
        with torch.random.fork_rng(devices=[]), self.stream():
            self._training = Training(jobs, self.steps(jobs))
        self._turns = self._training.run()
        self.jobs, self.is_through = jobs, False

    def advance(self) -> bool:
        """Take a turn: enqueue a step, unless the results of an epoch are still to come; whether that was done."""
        with self.stream():
            turn = next(self._turns, None)
        self.is_through = turn is None
        return turn is not False

    def end(self) -> list[Trained]:
        """What came of the jobs, when they are through."""
        assert self._training is not None  # noqa: S101
        with self.stream():
            results = self._training.results()
        self.give_up()
        return results

    def give_up(self) -> None:
        """Forget the jobs."""
        self.jobs, self._training, self._turns = [], None, iter(())

    def clear(self) -> None:
        """Give all memory back."""
        self.give_up()
        self._captured.clear()
        self._pool = None

    def stream(self) -> AbstractContextManager[object]:
        """Where all that this lane enqueues belongs."""
        if self._stream is None:
            self._stream = torch.cuda.Stream(self.data.device)  # type: ignore[no-untyped-call]
        return torch.cuda.stream(self._stream)

    def steps(self, jobs: Sequence[Job]) -> Steps:
        """What trains the network of these jobs: captured before, where one of this architecture was."""
        signature = jobs[0].candidate.architecture.id, len(jobs)
        network = network_of(jobs, self.data.dataset)
        captured = self._captured.pop(signature, None)
        if captured is None:
            while len(self._captured) >= KEPT:
                self._captured.popitem(last=False)
            self._pool = self._pool or torch.cuda.graph_pool_handle()
            twin = network_of(jobs, self.data.dataset).to(self.data.device)
            captured = Captured(twin, self.data, self.recipe, self._pool)
        captured.load(network)
        self._captured[signature] = captured  # the last that was used
        return captured


class Lanes:
    """All lanes of a GPU.

    Args:
        make: makes a lane.
        size: how many jobs are trained at a time; ``auto`` is what a short measurement finds.
        warn: is given a line to show, once, when a job has to be trained without a graph.
    """

    def __init__(self, make: Callable[[], Lane], size: int | str, warn: Callable[[str], None]) -> None:
        self._make, self._warn = make, warn
        self._size = size if isinstance(size, int) else MOST
        self._most = self._size if isinstance(size, int) else 0  # lanes; 0 until it is measured
        self._lanes: list[Lane] = []
        self._has_warned = False

    def train(self, sets: Sets) -> Iterator[list[Trained]]:
        """Train sets of copies, and take them from ``sets``, but for those that are left to the plain loop."""
        left: list[list[Job]] = []
        try:
            if sets and not self._most:
                self._most = self._measured(sets[0])
            while sets or self._running:
                while sets and self._has_room(sets[0]):
                    self._begin(sets, left)
                yield from self._turns(sets, left)
        finally:
            for lane in self._lanes:  # where nobody wants the rest any more
                lane.give_up()
        sets.extend(left)

    def _turns(self, sets: Sets, left: list[list[Job]]) -> Iterator[list[Trained]]:
        """A turn for each lane that runs; what came of those that are through."""
        moved = False
        for lane in self._running:
            jobs, results = lane.jobs, []
            try:
                moved |= lane.advance()
                if lane.is_through:
                    results = lane.end()
            except Exception as error:  # noqa: BLE001  # the plain loop may do better
                self._failed(lane, jobs, error, sets, left)
            if results:
                yield results
        if not moved:
            time.sleep(IDLE_SECONDS)

    def _begin(self, sets: Sets, left: list[list[Job]]) -> None:
        lane, jobs = self._free_lane(), sets.popleft()
        try:
            lane.begin(jobs)
        except Exception as error:  # noqa: BLE001  # likewise
            self._failed(lane, jobs, error, sets, left)

    @property
    def _running(self) -> list[Lane]:
        return [lane for lane in self._lanes if lane.jobs]

    def _has_room(self, jobs: Sequence[Job]) -> bool:
        running = self._running
        together = len(jobs) + sum(len(lane.jobs) for lane in running)
        return not running or (len(running) < self._most and together <= self._size)

    def _free_lane(self) -> Lane:
        free = next((lane for lane in self._lanes if not lane.jobs), None)
        if free is None:
            free = self._make()
            self._lanes.append(free)
        return free

    def _failed(self, lane: Lane, jobs: list[Job], error: Exception, sets: Sets, left: list[list[Job]]) -> None:
        """Try jobs again: with fewer beside them, in halves, or plainly."""
        lane.clear()
        beside = len(self._running)
        if isinstance(error, NasError):  # of the candidate, which the plain loop will say
            left.append(jobs)
        elif not is_out_of_memory(error):
            self._say(error)
            left.append(jobs)
        elif beside:
            self._most = beside
            sets.append(jobs)
        elif len(jobs) > 1:
            half = len(jobs) // 2
            sets.extendleft([jobs[half:], jobs[:half]])
        else:
            left.append(jobs)

    def _say(self, error: Exception) -> None:
        if not self._has_warned:
            self._has_warned = True
            words = " ".join(str(error).split())[:150]
            what = f"a network cannot be trained as a CUDA graph ({type(error).__name__}: {words})"
            self._warn(f"{what}: it is trained step by step")

    def _measured(self, jobs: list[Job]) -> int:
        """How many lanes are worth their memory: twice as many, as long as that is faster."""
        count, best = 1, 0.0
        while count * len(jobs) <= self._size:
            try:
                rate = self._rate(jobs, count)
            except Exception:  # noqa: BLE001  # most likely no memory; with fewer lanes, `train` finds out
                rate = 0.0
            if rate < WORTH * best or not rate:
                break
            count, best = 2 * count, rate
        worth = max(1, count // 2)
        for number, lane in enumerate(self._lanes):
            if number < worth:
                lane.give_up()
            else:
                lane.clear()
        return worth

    def _rate(self, jobs: list[Job], count: int) -> float:
        """Steps a second on ``count`` lanes together, all of them training the same."""
        while len(self._lanes) < count:
            self._lanes.append(self._make())
        lanes = self._lanes[:count]
        for lane in lanes:
            lane.begin(jobs)
            lane.advance()
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(MEASURED_STEPS):
            for lane in lanes:
                lane.advance()
        torch.cuda.synchronize()
        seconds = time.perf_counter() - start
        return count * MEASURED_STEPS / seconds
