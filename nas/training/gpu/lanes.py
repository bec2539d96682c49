"""Different networks at the same time on one GPU.

Each network has a lane: a CUDA stream on which its steps are replayed as graphs (see `captured`). The lanes take
turns, step by step; the CPU is ahead of the GPU, which runs the steps of several lanes at the same time.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import torch

from nas.errors import NasError
from nas.training.batches import Resident
from nas.training.gpu import MOST
from nas.training.gpu.captured import Captured
from nas.training.recipe import Recipe
from nas.training.stepper import Stepper
from nas.training.trainer import Trained, Training, build, initial_network
from nas.trial import Job, is_out_of_memory

KEPT = 8  # candidates whose captured steps a lane keeps for their next network
WORTH = 1.1  # twice as many lanes must be faster by this factor to be worth their memory
MEASURED_STEPS = 20  # steps of each lane in this measurement
IDLE_SECONDS = 1e-4  # the pause while all lanes wait for the GPU


class Lane:
    """A stream, and the steps that were captured on it."""

    def __init__(self, data: Resident, recipe: Recipe) -> None:
        self.data, self.recipe = data, recipe
        self.job: Job | None = None  # the job in training
        self.is_finished = False
        self._captured: OrderedDict[str, Captured] = OrderedDict()  # by the id of the candidate
        self._pool: Any = None
        self._stream: Any = None
        self._training: Training | None = None
        self._turns: Iterator[bool] = iter(())

    def begin(self, job: Job) -> None:
        """Begin a job."""
        with torch.random.fork_rng(devices=[]), self.stream():
            self._training = Training(job, self.stepper(job))
        self._turns = self._training.run()
        self.job, self.is_finished = job, False

    def advance(self) -> bool:
        """Enqueue a step, unless the lane waits for the results of an epoch; returns whether it did."""
        with self.stream():
            turn = next(self._turns, None)
        self.is_finished = turn is None
        return bool(turn)

    def end(self) -> Trained:
        """The result of the finished job."""
        assert self._training is not None  # noqa: S101
        with self.stream():
            result = self._training.result()
        self.wait()  # other streams will read the weights
        self.give_up()
        return result

    def give_up(self) -> None:
        """Stop training the job."""
        self.job, self._training, self._turns = None, None, iter(())

    def clear(self) -> None:
        """Free all memory."""
        self.give_up()
        self._captured.clear()
        self._pool = None

    def knows(self, job: Job) -> bool:
        """Whether the steps of the job's candidate are captured on this lane."""
        return job.candidate.id in self._captured

    def stream(self) -> AbstractContextManager[object]:
        """The context in which this lane enqueues its kernels."""
        if self._stream is None:
            self._stream = torch.cuda.Stream(self.data.device)  # type: ignore[no-untyped-call]
        return torch.cuda.stream(self._stream)

    def wait(self) -> None:
        """Wait until the GPU has finished all steps of this lane."""
        if self._stream is not None:
            self._stream.synchronize()

    def stepper(self, job: Job) -> Stepper:
        """The captured steps of the job's candidate, with the job's initial weights."""
        network = initial_network(job, self.data.dataset)
        name = job.candidate.id
        captured = self._captured.pop(name, None)
        if captured is None:
            while len(self._captured) >= KEPT:
                self._captured.popitem(last=False)
            self._pool = self._pool or torch.cuda.graph_pool_handle()
            torch.cuda.synchronize(self.data.device)  # no other lane computes while the steps are captured
            twin = build(job, self.data.dataset).to(self.data.device)
            recipe = self.recipe.changed(job.candidate.recipe)
            captured = Captured(twin, self.data, recipe, self._pool)
        captured.load(network)
        self._captured[name] = captured  # at the end, as the one that was used last
        return captured


class Lanes:
    """All lanes of a GPU, at most ``size``; if it is ``auto``, a short measurement decides the number.

    ``warn`` is called once with a line for the user when a job cannot be trained as a graph.
    """

    def __init__(self, make: Callable[[], Lane], size: int | str, warn: Callable[[str], None]) -> None:
        self._make, self._warn = make, warn
        self._worth = size if isinstance(size, int) else 0  # lanes; 0 until it is measured
        self._most = self._worth  # lanes at present, fewer if memory is short
        self._lanes: list[Lane] = []
        self._is_broken = False  # a failed capture may have damaged the state of PyTorch's allocator

    def train(self, jobs: deque[Job]) -> Iterator[Trained]:
        """Train jobs and remove them from ``jobs``; those that the plain loop must train remain there."""
        # Torchvision's models and layers of plugins may draw random numbers, which the lanes would share.
        left = [job for job in jobs if self._is_broken or not job.candidate.architecture.is_built_in]
        waiting = deque(job for job in jobs if job not in left)
        jobs.clear()
        try:
            if len(waiting) > 1 and not self._worth:
                self._worth = self._measured(waiting[0])
            self._most = self._worth or 1
            while waiting or self._running:
                while waiting and len(self._running) < self._most:
                    self._begin(waiting, left)
                yield from self._take_turns(waiting, left)
        finally:
            for lane in self._lanes:  # the caller may have closed this iterator early
                lane.give_up()
        if left:  # the plain loop needs the memory
            self._clear()
        jobs.extend(left)

    @property
    def _running(self) -> list[Lane]:
        return [lane for lane in self._lanes if lane.job]

    def _begin(self, waiting: deque[Job], left: list[Job]) -> None:
        job = waiting.popleft()
        if self._is_broken:
            left.append(job)
            return
        lane = self._free_lane(job)
        try:
            lane.begin(job)
        except Exception as error:  # noqa: BLE001  # the plain loop may succeed
            self._failed(lane, job, error, waiting, left)

    def _free_lane(self, job: Job) -> Lane:
        """An idle lane; if possible, one that has trained the candidate before."""
        free = sorted((lane for lane in self._lanes if not lane.job), key=lambda lane: not lane.knows(job))
        if not free:
            free = [self._make()]
            self._lanes += free
        return free[0]

    def _take_turns(self, waiting: deque[Job], left: list[Job]) -> Iterator[Trained]:
        """A turn for each running lane; yields the results of those that have finished."""
        has_moved = False
        for lane in self._running:
            job, result = lane.job, None
            assert job is not None  # noqa: S101
            try:
                has_moved |= lane.advance() or lane.is_finished
                if lane.is_finished:
                    result = lane.end()
            except Exception as error:  # noqa: BLE001  # the plain loop may succeed
                self._failed(lane, job, error, waiting, left)
            if result is not None:
                yield result
        if not has_moved:
            time.sleep(IDLE_SECONDS)

    def _failed(self, lane: Lane, job: Job, error: Exception, waiting: deque[Job], left: list[Job]) -> None:
        """Try a job again: with fewer lanes beside it, or in the plain loop."""
        lane.clear()
        beside = len(self._running)
        if is_out_of_memory(error) and beside:
            self._most = beside
            waiting.append(job)
        else:
            left.append(job)
            if not isinstance(error, NasError):  # an error of the candidate, which the plain loop reports
                self._is_broken |= not is_out_of_memory(error)
                reason = f"{type(error).__name__}: {' '.join(str(error).split())[:150]}"
                self._warn(f"a network cannot be trained as a CUDA graph ({reason}): it is trained step by step")
                self._warn = lambda line: None
        self._clear()

    def _clear(self) -> None:
        """Free the memory of all idle lanes."""
        for lane in self._lanes:
            if not lane.job:
                lane.clear()

    def _measured(self, job: Job) -> int:
        """How many lanes are worth their memory: the number is doubled as long as that is faster."""
        count, best = 1, 0.0
        while count <= MOST:
            try:
                rate = self._rate(job, count)
            except Exception:  # noqa: BLE001  # most likely there is not enough memory
                rate = 0.0
            if not rate and count == 1:  # this network fails alone, which says nothing about lanes
                self._clear()
                return 0
            if rate < WORTH * best or not rate:
                break
            count, best = 2 * count, rate
        worth = max(1, count // 2)
        for lane in self._lanes[:worth]:
            lane.give_up()
        for lane in self._lanes[worth:]:
            lane.clear()
        return worth

    def _rate(self, job: Job, count: int) -> float:
        """Steps a second on ``count`` lanes together, which all train the same job."""
        while len(self._lanes) < count:
            self._lanes.append(self._make())
        lanes = self._lanes[:count]
        data, recipe = lanes[0].data, lanes[0].recipe.changed(job.candidate.recipe)
        epochs = (MEASURED_STEPS + 2) * min(1.0, recipe.batch_size / len(data.labels))
        for lane in lanes:
            lane.begin(replace(job, epochs=epochs))
            lane.advance()
            lane.wait()
        start = time.perf_counter()
        steps = 0
        while steps < MEASURED_STEPS * count and not all(lane.is_finished for lane in lanes):
            steps += sum(lane.advance() for lane in lanes)
        for lane in lanes:
            lane.wait()
        return steps / (time.perf_counter() - start)
