"""Searches of one comparison lend one another their trainings, so that equal ones are trained once for all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from nas.errors import NasError
from nas.evaluation.evaluator import Evaluator
from nas.files import write_whole
from nas.records.journal import FILE
from nas.records.record import read
from nas.trial import Job, Trial

TRAINING = ("recipe", "precision", "device", "evaluator")  # the settings on which a training depends


class BorrowingEvaluator:
    """Answers a job that another search of the comparison has trained, and trains the others.

    A training follows from its job alone, so that the answer is the same; its seconds are those that it would have
    cost. Nothing is borrowed within a time limit, where what costs nothing would be an advantage.

    Args:
        inner: the evaluator that trains.
        comparison: the folder that holds the folders of all searches.
        own: the folder of this search.
        weights: the folder into which ``inner`` writes weights; None if it discards them.
    """

    def __init__(self, inner: Evaluator, comparison: Path, own: Path, weights: Path | None) -> None:
        self._inner, self._comparison, self._own, self._weights = inner, comparison, own, weights
        self._known: dict[Path, tuple[int, Mapping[str, Trial]]] = {}  # size of a journal, its trainings

    def evaluate(self, jobs: Sequence[Job], /) -> Iterator[Trial]:
        """The trainings of other searches at once, then the others as they finish."""
        lenders, unknown = self._lenders(), []
        for job in jobs:
            trial = next((trials[job.key] for trials in lenders.values() if job.key in trials), None)
            if trial is not None and trial.failure is None and self._has_weights(job, lenders):
                yield replace(trial, job=job)
            else:
                unknown.append(job)
        if unknown:
            yield from self._inner.evaluate(unknown)

    def _lenders(self) -> dict[Path, Mapping[str, Trial]]:
        """The trainings of each other search that trains as this one does, by the keys of their jobs."""
        own = _conditions(read(self._own / FILE)[0].about)
        if own["time_limit"] is not None:
            return {}
        found = {}
        for path in sorted(self._comparison.glob(f"*/{FILE}")):
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
