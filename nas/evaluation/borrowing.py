"""Searches of one comparison lend one another their trainings, so that equal ones are trained once for all."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from nas.errors import NasError
from nas.evaluation.evaluator import AheadEvaluator, Evaluator, ahead_of
from nas.files import write_whole
from nas.records.journal import FILE
from nas.records.record import read
from nas.trial import Job, Trial

TRAINING = ("recipe", "precision", "device", "evaluator")  # the settings on which a training depends
LOOK_SECONDS = 0.5  # a thread that waits for another one can be interrupted so often


class Lending:
    """What the searches of one comparison lend one another.

    Args:
        folder: of the comparison, which holds the folders of all searches.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._training = set[str]()  # the keys of the jobs that one of the searches trains now
        self._changed = threading.Condition()

    def take(self, jobs: Sequence[Job]) -> list[Job]:
        """Those of the jobs that no other search trains now; they count as in training until they are released."""
        with self._changed:
            free = {job.key for job in jobs} - self._training
            self._training |= free
        return [job for job in jobs if job.key in free]

    def release(self, jobs: Sequence[Job]) -> None:
        """The jobs are not in training any more."""
        with self._changed:
            self._training -= {job.key for job in jobs}
            self._changed.notify_all()

    def wait(self) -> None:
        """Wait until a job may be released."""
        with self._changed:
            self._changed.wait(LOOK_SECONDS)


class BorrowingEvaluator(AheadEvaluator):
    """Answers a job that another search of the comparison has trained, and trains the others.

    A training follows from its job alone, so that the answer is the same; its seconds are those that it would have
    cost. Nothing is borrowed within a time limit, where what costs nothing would be an advantage.

    Args:
        inner: the evaluator that trains.
        lending: of the comparison.
        own: the folder of this search.
        weights: the folder into which ``inner`` writes weights; None if it discards them.
        until: see `nas.evaluation.evaluator.OneAfterTheOther`.
    """

    def __init__(
        self, inner: Evaluator, lending: Lending, own: Path, weights: Path | None, until: float | None = None
    ) -> None:
        self.inner, self._lending, self._own, self._weights = inner, lending, own, weights
        self._trainer = ahead_of(inner, until)
        self._known: dict[Path, tuple[int, Mapping[str, Trial]]] = {}  # size of a journal, its trainings
        self._waiting: list[tuple[int, Job]] = []  # turn, job
        self._taken = dict[str, Job]()  # by their keys
        self._given: list[str] = []  # the keys of the trials that `finished` has returned
        self._ready: list[Trial] = []  # of other searches

    def __enter__(self) -> Self:
        """The evaluator."""
        return self

    def __exit__(self, *_: object) -> None:
        """Release all jobs, so that no other search waits for one that failed in the middle of a batch."""
        self._release(list(self._taken))

    def submit(self, jobs: Sequence[Job], /, turn: int) -> None:
        """Take jobs, and begin to train those that no other search has trained or trains now."""
        self._waiting += [(turn, job) for job in jobs]
        self._begin()

    def finished(self) -> list[Trial]:
        """The trainings of other searches at once; otherwise wait for one of this search, or of another one."""
        self._release(self._given)  # these trials are in the journal now
        while True:
            self._begin()
            trials, self._ready = self._ready, []
            if not trials and self._taken:
                trials = self._trainer.finished()
                if not trials:  # time is up
                    self._release(list(self._taken))
                    return []
            if trials or not self._waiting:
                self._given = [trial.job.key for trial in trials]
                return trials
            self._lending.wait()

    def cancel(self) -> None:
        """Give up all jobs that have no trial yet."""
        self._waiting, self._ready = [], []
        self._trainer.cancel()
        self._release(list(self._taken))

    def _begin(self) -> None:
        """Answer or train what no other search trains now."""
        # Taken before the journals are read: what another search has released is in its journal.
        taken = {job.key for job in self._lending.take([job for _, job in self._waiting])}
        if not taken:
            return
        lenders, unknown = self._lenders(), dict[int, list[Job]]()
        for turn, job in self._waiting:
            if job.key not in taken:
                continue
            self._taken[job.key] = job
            trial = next((trials[job.key] for trials in lenders.values() if job.key in trials), None)
            if trial is not None and trial.failure is None and self._has_weights(job, lenders):
                self._ready.append(replace(trial, job=job))
            else:
                unknown.setdefault(turn, []).append(job)
        self._waiting = [(turn, job) for turn, job in self._waiting if job.key not in taken]
        for turn, jobs in unknown.items():
            self._trainer.submit(jobs, turn)

    def _release(self, keys: Sequence[str]) -> None:
        self._lending.release([self._taken.pop(key) for key in keys if key in self._taken])

    def _lenders(self) -> dict[Path, Mapping[str, Trial]]:
        """The trainings of each other search that trains as this one does, by the keys of their jobs."""
        own = _conditions(read(self._own / FILE)[0].about)
        if own["time_limit"] is not None:
            return {}
        found = {}
        for path in sorted(self._lending.folder.glob(f"*/{FILE}")):
            if path.parent == self._own:
                continue
            with suppress(NasError, OSError):  # a damaged journal lends nothing
                size = path.stat().st_size
                if self._known.get(path, (0, None))[0] != size:
                    record = read(path)[0]
                    self._known[path] = size, record.trials if _conditions(record.about) == own else {}
                found[path.parent] = self._known[path][1]
        return found

    def _has_weights(self, job: Job, lenders: Mapping[Path, Mapping[str, Trial]]) -> bool:
        """Whether the weights of a job are not needed, or there now."""
        if self._weights is None:
            return True
        for folder, trials in lenders.items():
            file = folder / self._weights.name / f"{job.key}.safetensors"
            if job.key in trials and file.is_file():
                write_whole(self._weights / file.name, file.read_bytes())
                return True
        return False


def _conditions(about: Mapping[str, Any]) -> dict[str, Any]:
    """Everything but the job on which a training depends."""
    config = about.get("config", {})
    options = {k: v for k, v in config.get("options", {}).items() if k.startswith(("dataset.", "evaluator."))}
    layers = {kind: source for kind, source in about.get("plugins", {}).items() if kind.startswith("layer ")}
    return {
        **{name: config.get(name) for name in (*TRAINING, "time_limit")},
        "options": options, "layers": layers, "dataset": about.get("dataset", {}).get("fingerprint"),
        "versions": about.get("versions"),
    }  # fmt: skip
