"""The contract of evaluators."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas import plugins
from nas.architecture.architecture import Architecture, Limits
from nas.architecture.layers import Conv2d, Flatten, GlobalAveragePool
from nas.objectives import METRICS
from nas.spaces.space import Candidate
from nas.testing.contract import Contract, doing, global_random, require
from nas.trial import Job, Trial

if TYPE_CHECKING:
    from nas.data.dataset import Dataset


class EvaluatorContract(Contract):
    """What a search relies on in an evaluator. Trains small networks on made-up images."""

    def test_is_made(self) -> None:
        """Can be made, with its options."""
        with self._made():
            pass

    def test_jobs(self) -> None:
        """Returns one trial for each job, and each job's own."""
        jobs = [_job(_network(filters), seed) for filters, seed in ((2, 1), (3, 1), (3, 2))]
        trials = self._evaluate(jobs)
        for job in jobs:
            own = sum(trial.job == job for trial in trials)
            require(own == 1, f"of {len(jobs)} jobs, the job {job.key} has {own} trials")
        require(len(trials) == len(jobs), f"{len(jobs)} jobs have {len(trials)} trials")

    def test_no_jobs(self) -> None:
        """Returns nothing for no jobs."""
        trials = self._evaluate([])
        require(not trials, f"no jobs have {len(trials)} trials")

    def test_metrics(self) -> None:
        """Measures every metric, as a finite number."""
        for trial in self._evaluate([_job(_network(2), 1)]):
            require(trial.failure is None, f"a plain training failed: {trial.failure}")
            for name in METRICS:
                value = trial.metrics.get(name)
                require(value is not None and math.isfinite(value), f"the metric {name} is {value}")
            accuracy = trial.metrics["validation_accuracy"]
            require(0 <= accuracy <= 1, f"validation_accuracy is a fraction, and it is {accuracy}")
            own, limits = trial.metrics["parameters"], _limits()
            counted = trial.job.candidate.architecture.parameters(limits.input_shape, limits.classes)
            require(own == counted, f"the network has {counted:,} parameters, and it says {own:,.0f}")

    def test_failures(self) -> None:
        """Returns a failed trial for a job that cannot be done, and does the others."""
        bad, good = _job(Architecture((Conv2d(2, 99), Flatten())), 1), _job(_network(2), 1)
        trials = {trial.job.key: trial for trial in self._evaluate([bad, good])}
        for job in (bad, good):
            require(job.key in trials, f"the job {job.key} has no trial")
        require(trials[bad.key].failure is not None, "a network that does not fit the images did not fail")
        require(trials[good.key].failure is None, f"the other job failed, too: {trials[good.key].failure}")

    def test_same_again(self) -> None:
        """Gives equal jobs equal results, on a CPU."""
        losses = []
        for seed in (1, 2):
            with global_random(seed):
                losses += [
                    trial.metrics.get("validation_loss") for trial in self._evaluate([_job(_network(2), 1)])
                ]
        require(losses[0] == losses[-1], f"one job has the validation losses {losses[0]} and {losses[-1]}")

    def test_weights(self) -> None:
        """Writes the weights where they are wanted, as <job key>.safetensors."""
        from safetensors.torch import load_file

        from nas.training.network import Network

        job, limits = _job(_network(2), 1), _limits()
        with tempfile.TemporaryDirectory() as folder:
            self._evaluate([job], Path(folder))
            path = Path(folder, f"{job.key}.safetensors")
            found = ", ".join(sorted(one.name for one in Path(folder).iterdir())) or "nothing"
            require(path.is_file(), f"expected {path.name}, found {found}")
            network = Network(
                job.candidate.architecture, limits.input_shape, limits.classes, mean=[0.0], std=[1.0]
            )
            with doing("loading the weights"):
                network.load_state_dict(load_file(path))

    @contextmanager
    def _made(self, weights: Path | None = None) -> Iterator[Any]:
        from nas.training.recipe import Recipe

        given: dict[str, Any] = {"recipe": Recipe(batch_size=16, shift=0), "workers": 1, "device": "cpu"}
        given |= {"group": 1, "until": None, "warn": lambda line: None}
        with doing("making it"):
            made = plugins.create(self.plugin, self.options, dataset=_quarters(), weights=weights, **given)
        with made if hasattr(made, "__exit__") else nullcontext(made) as evaluator:
            yield evaluator

    def _evaluate(self, jobs: Sequence[Job], weights: Path | None = None) -> list[Trial]:
        with self._made(weights) as evaluator, doing(f"evaluate with {len(jobs)} jobs"):
            trials = list(evaluator.evaluate(jobs))
        require(
            all(isinstance(one, Trial) for one in trials), f"evaluate must give Trials, and gave {trials!r:.100}"
        )
        return trials


def _job(architecture: Architecture, seed: int) -> Job:
    return Job(Candidate(architecture, origin="contract"), 1.0, seed)


def _network(filters: int) -> Architecture:
    return Architecture((Conv2d(filters, 3, activation="relu"), GlobalAveragePool()))


def _limits() -> Limits:
    return Limits((1, 8, 8), 3)


def _quarters() -> Dataset:
    """Three classes of images: a bright quarter tells which."""
    import numpy as np

    from nas.data.dataset import Dataset, Split

    def split(count: int, seed: int) -> Split:
        images = np.random.default_rng(seed).integers(0, 60, (count, 1, 8, 8)).astype(np.uint8)
        labels = np.arange(count) % 3
        for image, label in zip(images, labels, strict=True):
            image[0, 4 * (label // 2) : 4 * (label // 2) + 4, 4 * (label % 2) : 4 * (label % 2) + 4] += 150
        return Split.of(images, labels)

    return Dataset.of("quarters", split(96, 0), split(30, 1), ("top left", "top right", "bottom left"))
