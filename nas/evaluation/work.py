"""What a job costs, before it is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nas.errors import ArchitectureError
from nas.trial import Job

if TYPE_CHECKING:
    from nas.data.dataset import Dataset

LEAST = 1e6  # operations for an image: a smaller network takes as long


def operations(job: Job, dataset: Dataset) -> float:
    """The floating-point operations of a job's training, for which a step costs three forward passes.

    0 for a network that does not fit the images, which its training will report.
    """
    try:
        rows = job.candidate.architecture.table(dataset.input_shape, len(dataset.classes))
    except ArchitectureError:
        return 0.0
    images = dataset.trainings * (job.epochs * len(dataset.train) + len(dataset.validation))
    return 3 * images * max(LEAST, sum(row.flops for row in rows))
