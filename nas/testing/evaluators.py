"""The contract of evaluators."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas import plugins
from nas.architecture.architecture import Architecture, Limits
from nas.architecture.layers import Conv2d, Flatten, GlobalAveragePool
from nas.objectives import METRICS
from nas.spaces.space import RECIPE, Candidate
from nas.testing.contract import Contract, doing, global_random, require
from nas.trial import Job, Trial

if TYPE_CHECKING:
    from nas.data.dataset import Dataset


LIMITS = Limits((1, 8, 8), 3)  # of the images of `_quarters`


class EvaluatorContract(Contract):
    """What a search relies on in an evaluator. It trains small networks on artificial images."""

    def test_is_made(self) -> None:
        """Can be made, with its options."""
        with self._made():
            pass

    def test_jobs(self) -> None:
        """Trains every job, and returns one trial for each."""
        jobs = [_job(_network(filters), seed) for filters, seed in ((2, 1), (3, 1), (3, 2))]
        trials = self._train(jobs)
        for job in jobs:
            count = sum(trial.job == job for trial in trials)
            require(count == 1, f"of {len(jobs)} jobs, the job {job.key} has {count} trials")

    def test_no_jobs(self) -> None:
        """Returns nothing for no jobs."""
        trials = self._evaluate([])
        require(not trials, f"no trials expected; {len(trials)} returned")

    def test_metrics(self) -> None:
        """Measures every metric, as a finite number."""
        [trial] = self._train([_job(_network(2), 1)])
        for name in METRICS:
            value = trial.metrics.get(name)
            require(value is not None and math.isfinite(value), f"the metric {name} is {value}")
        accuracy = trial.metrics["validation_accuracy"]
        require(0 <= accuracy <= 1, f"validation_accuracy is {accuracy}, which is not a fraction from 0 to 1")
        metric = trial.metrics["parameters"]
        counted = trial.job.candidate.architecture.parameters(LIMITS.input_shape, LIMITS.classes)
        require(metric == counted, f"the metric parameters is {metric:,.0f}, but the network has {counted:,}")

    def test_failures(self) -> None:
        """Returns a failed trial for a job that cannot be trained, and trains the others."""
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
                [trial] = self._train([_job(_network(2), 1)])
            losses.append(trial.metrics.get("validation_loss"))
        require(losses[0] == losses[1], f"the same job has the validation losses {losses[0]} and {losses[1]}")

    def test_recipe(self) -> None:
        """Trains a candidate with the recipe that it brings, `recipe.changed(job.candidate.recipe)`."""
        jobs = [replace(_job(_network(2), 1), candidate=_rated(rate)) for rate in (1e-6, 0.1)]
        losses = [trial.metrics.get("validation_loss") for trial in self._train(jobs)]
        require(losses[0] != losses[1], f"with two learning rates, a network has the same loss, {losses[0]}")

    def test_weights(self) -> None:
        """Writes the weights into the folder `weights`, as <job key>.safetensors."""
        from safetensors.torch import load_file

        from nas.training.network import Network

        job = _job(_network(2), 1)
        with tempfile.TemporaryDirectory() as folder:
            self._train([job], Path(folder))
            path = Path(folder, f"{job.key}.safetensors")
            found = ", ".join(sorted(file.name for file in Path(folder).iterdir())) or "nothing"
            require(path.is_file(), f"expected {path.name}, found {found}")
            moments: dict[str, Any] = {"mean": [0.0], "std": [1.0]}
            network = Network(job.candidate.architecture, LIMITS.input_shape, LIMITS.classes, **moments)
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

    def _train(self, jobs: Sequence[Job], weights: Path | None = None) -> list[Trial]:
        """The trials of jobs that cannot fail."""
        trials = self._evaluate(jobs, weights)
        require(len(trials) == len(jobs), f"{len(jobs)} trials expected, one for each job; {len(trials)} returned")
        for trial in trials:
            require(trial.failure is None, f"the training of a small network failed: {trial.failure}")
        return trials

    def _evaluate(self, jobs: Sequence[Job], weights: Path | None = None) -> list[Trial]:
        with self._made(weights) as evaluator, doing(f"evaluate with {len(jobs)} jobs"):
            trials = list(evaluator.evaluate(jobs))
        right = all(isinstance(trial, Trial) for trial in trials)
        require(right, f"evaluate must return Trials, and returned {trials!r:.100}")
        return trials


def _job(architecture: Architecture, seed: int) -> Job:
    return Job(Candidate(architecture, origin="contract"), 1.0, seed)


def _rated(rate: float) -> Candidate:
    return Candidate(_network(2), {f"{RECIPE}learning_rate": rate}, origin="contract")


def _network(filters: int) -> Architecture:
    return Architecture((Conv2d(filters, 3, activation="relu"), GlobalAveragePool()))


def _quarters() -> Dataset:
    """Three classes of images, which differ in the bright quarter."""
    import numpy as np

    from nas.data.dataset import Dataset, Split

    def split(count: int, seed: int) -> Split:
        images = np.random.default_rng(seed).integers(0, 60, (count, 1, 8, 8)).astype(np.uint8)
        labels = np.arange(count) % 3
        for image, label in zip(images, labels, strict=True):
            image[0, 4 * (label // 2) : 4 * (label // 2) + 4, 4 * (label % 2) : 4 * (label % 2) + 4] += 150
        return Split.of(images, labels)

    return Dataset.of("quarters", split(96, 0), split(30, 1), ("top left", "top right", "bottom left"))
