"""Different networks at the same time on one GPU.

Each set of copies has a lane: a CUDA stream on which its steps are replayed as graphs (see `captured`).
The lanes take turns, step by step; the CPU is ahead of the GPU, which overlaps what the lanes have enqueued.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import torch

from nas.errors import NasError
from nas.training.batches import Resident
from nas.training.gpu.captured import Captured
from nas.training.recipe import Recipe
from nas.training.trainer import Steps, Trained, Training, bare, latency_ms, network_of
from nas.trial import Job, is_out_of_memory

Sets = deque[list[Job]]  # jobs of one architecture and length

MOST = 64  # jobs at a time, where nobody says how many; of more than 32 lanes, some share a stream of PyTorch's
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
        return bool(turn)

    def end(self) -> list[Trained]:
        """What came of the jobs, when they are through."""
        assert self._training is not None  # noqa: S101
        with self.stream():
            results = self._training.results()
        self.wait()  # others will read the weights, on other streams
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

    def knows(self, jobs: Sequence[Job]) -> bool:
        """Whether the steps of such a network are captured here."""
        return _signature(jobs) in self._captured

    def stream(self) -> AbstractContextManager[object]:
        """Where all that this lane enqueues belongs."""
        if self._stream is None:
            self._stream = torch.cuda.Stream(self.data.device)  # type: ignore[no-untyped-call]
        return torch.cuda.stream(self._stream)

    def wait(self) -> None:
        """Until all that was enqueued is done."""
        if self._stream is not None:
            self._stream.synchronize()

    def steps(self, jobs: Sequence[Job]) -> Steps:
        """What trains the network of these jobs: captured before, where one of this architecture was."""
        network = network_of(jobs, self.data.dataset)
        captured = self._captured.pop(_signature(jobs), None)
        if captured is None:
            while len(self._captured) >= KEPT:
                self._captured.popitem(last=False)
            self._pool = self._pool or torch.cuda.graph_pool_handle()
            torch.cuda.synchronize(self.data.device)  # so that the latency is that of a GPU that does nothing else
            one = bare(jobs[0], self.data.dataset).to(self.data.device).eval()
            latency = latency_ms(one, self.data.validation[0][:1])
            twin = bare(jobs[0], self.data.dataset, len(jobs)).to(self.data.device)
            captured = Captured(twin, self.data, self.recipe, self._pool, latency)
        captured.load(network)
        self._captured[_signature(jobs)] = captured  # the last that was used
        return captured


def _signature(jobs: Sequence[Job]) -> tuple[str, int]:
    return jobs[0].candidate.architecture.id, len(jobs)


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
        self._worth = self._size if isinstance(size, int) else 0  # lanes; 0 until it is measured
        self._most = self._worth  # of them now, which may be fewer for want of memory
        self._lanes: list[Lane] = []
        self._is_broken = False  # a capture that fails may leave PyTorch's allocator in a state of its own

    def train(self, sets: Sets) -> Iterator[list[Trained]]:
        """Train sets of copies, and take them from ``sets``, but for those that are left to the plain loop."""
        # Torchvision's models may draw random numbers of their own, which the lanes would share.
        left = [jobs for jobs in sets if self._is_broken or jobs[0].candidate.architecture.backbones]
        waiting = deque(jobs for jobs in sets if jobs not in left)
        sets.clear()
        try:
            if len(waiting) > 1 and not self._worth:
                self._worth = self._measured(waiting[0])
            self._most = self._worth or 1
            while waiting or self._running:
                while waiting and self._has_room(waiting[0]):
                    self._begin(waiting, left)
                yield from self._take_turns(waiting, left)
        finally:
            for lane in self._lanes:  # where nobody wants the rest any more
                lane.give_up()
        if left:  # the plain loop needs the memory
            self._clear()
        sets.extend(left)

    def _take_turns(self, waiting: Sets, left: list[list[Job]]) -> Iterator[list[Trained]]:
        """A turn for each lane that runs; what came of those that are through."""
        has_moved = False
        for lane in self._running:
            jobs, results = lane.jobs, []
            try:
                has_moved |= lane.advance() or lane.is_through
                if lane.is_through:
                    results = lane.end()
            except Exception as error:  # noqa: BLE001  # the plain loop may do better
                self._failed(lane, jobs, error, waiting, left)
            if results:
                yield results
        if not has_moved:
            time.sleep(IDLE_SECONDS)

    def _begin(self, waiting: Sets, left: list[list[Job]]) -> None:
        jobs = waiting.popleft()
        if self._is_broken:
            left.append(jobs)
            return
        lane = self._free_lane(jobs)
        try:
            lane.begin(jobs)
        except Exception as error:  # noqa: BLE001  # likewise
            self._failed(lane, jobs, error, waiting, left)

    @property
    def _running(self) -> list[Lane]:
        return [lane for lane in self._lanes if lane.jobs]

    def _has_room(self, jobs: Sequence[Job]) -> bool:
        running = self._running
        together = len(jobs) + sum(len(lane.jobs) for lane in running)
        return not running or (len(running) < self._most and together <= self._size)

    def _free_lane(self, jobs: Sequence[Job]) -> Lane:
        """One that has trained such a network, if possible."""
        free = sorted((lane for lane in self._lanes if not lane.jobs), key=lambda lane: not lane.knows(jobs))
        if not free:
            free = [self._make()]
            self._lanes += free
        return free[0]

    def _failed(self, lane: Lane, jobs: list[Job], error: Exception, waiting: Sets, left: list[list[Job]]) -> None:
        """Try jobs again: with fewer beside them, in halves, or plainly."""
        lane.clear()
        beside = len(self._running)
        if isinstance(error, NasError):  # of the candidate, which the plain loop will say
            left.append(jobs)
        elif not is_out_of_memory(error):
            self._is_broken = True
            self._say(error)
            left.append(jobs)
        elif beside:
            self._most = beside
            waiting.append(jobs)
        elif len(jobs) > 1:
            half = len(jobs) // 2
            waiting.extendleft([jobs[half:], jobs[:half]])
        else:
            self._say(error)
            left.append(jobs)
        self._clear()

    def _clear(self) -> None:
        """Give back the memory of all lanes that are free."""
        for lane in self._lanes:
            if not lane.jobs:
                lane.clear()

    def _say(self, error: Exception) -> None:
        words = " ".join(str(error).split())[:150]
        what = f"a network cannot be trained as a CUDA graph ({type(error).__name__}: {words})"
        self._warn(f"{what}: it is trained step by step")
        self._warn = lambda line: None  # once is enough

    def _measured(self, jobs: list[Job]) -> int:
        """How many lanes are worth their memory: twice as many, as long as that is faster."""
        count, best = 1, 0.0
        while count * len(jobs) <= self._size:
            try:
                rate = self._rate(jobs, count)
            except Exception:  # noqa: BLE001  # most likely no memory; with fewer lanes, `train` finds out
                rate = 0.0
            if not rate and count == 1:  # that says something about this network, not about lanes
                self._clear()
                return 0
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
        """Steps a second on ``count`` lanes together, all of them training the same, for long enough."""
        while len(self._lanes) < count:
            self._lanes.append(self._make())
        lanes = self._lanes[:count]
        data, recipe = lanes[0].data, lanes[0].recipe
        epochs = (MEASURED_STEPS + 2) * min(1.0, recipe.batch_size / len(data.labels))
        for lane in lanes:
            lane.begin([replace(job, epochs=epochs) for job in jobs])
            lane.advance()
            lane.wait()
        start = time.perf_counter()
        steps = 0
        while steps < MEASURED_STEPS * count and not all(lane.is_through for lane in lanes):
            steps += sum(lane.advance() for lane in lanes)
        for lane in lanes:
            lane.wait()
        return steps / (time.perf_counter() - start)
