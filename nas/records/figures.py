"""Figures of a search, each readable on its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from nas.architecture.known import lecture_parameters
from nas.records.observer import Header
from nas.trial import METRICS, MORE_IS_BETTER, Trial

UNITS = {
    "validation_accuracy": "validation accuracy (fraction)",
    "validation_loss": "validation loss (nats)",
    "parameters": "parameters",
    "flops": "operations of one forward pass (FLOP an image)",
    "train_seconds": "training (seconds)",
    "images_per_second": "training speed (images a second)",
    "latency_ms": "latency of one image (ms)",
}
assert UNITS.keys() == METRICS.keys()  # noqa: S101  # a metric without a label would be an error at the end of a search
WIDE = ("parameters", "flops", "train_seconds", "validation_loss", "latency_ms")  # read on a logarithmic axis


def pareto_front(path: Path, header: Header, trials: Iterable[Trial], front: Sequence[Trial]) -> None:
    """Write a PNG: the first objective against each of the others, the Pareto front as steps.

    Args:
        path: the file.
        header: of the search.
        trials: all that did not fail.
        front: of these, the Pareto front.
    """
    from matplotlib.figure import Figure

    first, *others = [objective.metric for objective in header.objectives]
    figure = Figure(figsize=(7.0 * len(others), 5.0), layout="constrained")
    figure.suptitle(f"{header.kind} on {header.dataset['name']}: what the networks of the search reach")
    longest = max((trial.job.epochs for trial in front), default=0.0)
    trials = list(trials)
    for axes, other in zip(figure.subplots(1, len(others), squeeze=False)[0], others, strict=True):
        for label, colour, some in (
            ("stopped early", "#c9c9c9", [t for t in trials if t.job.epochs < longest]),
            (f"{longest:g} epochs", "#4c78a8", [t for t in trials if t.job.epochs == longest]),
        ):
            axes.scatter(
                [t.metrics[other] for t in some], [t.metrics[first] for t in some], 22, colour, label=label
            )
        points = sorted((trial.metrics[other], trial.metrics[first]) for trial in front)
        # Between two points of a front, what can be had is the one that asks for less. Of more than two
        # objectives, the front seen from one side is no line.
        steps = "steps-pre" if other in MORE_IS_BETTER else "steps-post"
        line = "o-" if len(others) == 1 else "o"
        axes.plot(*zip(*points, strict=True), line, color="#e45756", drawstyle=steps, label="Pareto front")
        lecture = lecture_parameters(header.limits)
        if other == "parameters" and lecture:
            axes.axvline(lecture, color="#888888", linestyle=":", label=f"the lecture's network ({lecture:,})")
        axes.set_xscale("log" if other in WIDE else "linear")
        axes.set_yscale("log" if first in WIDE else "linear")
        axes.set_xlabel(UNITS[other])
        axes.set_ylabel(UNITS[first])
        axes.grid(visible=True, which="both", alpha=0.25)
        axes.legend()
    figure.savefig(path, dpi=110)
