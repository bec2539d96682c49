"""What a search has cost, and whether a smaller network would do: both follow from its trainings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from nas.objectives import BALANCED
from nas.statistics import mean, standard_error
from nas.trial import Trial

CLEARLY = 1.5  # a network is smaller if the winner has so many times its parameters


@dataclass(frozen=True)
class Cost:
    """The trainings of a search, of which some belong to the final selection."""

    trainings: int
    epochs: float
    seconds: float  # on a CPU, of one core for all trainings; on a GPU, those in which something trained
    last: int  # trainings of the final selection
    last_seconds: float

    @classmethod
    def of(
        cls, trainings: Iterable[Trial], last: Iterable[Trial], finished: Mapping[str, float], device: str
    ) -> Cost:
        """The cost of all trainings of a search.

        Args:
            trainings: all of them.
            last: those of the final selection.
            finished: the second of the search when each training ended, by the key of its job.
            device: where they ran. On a GPU networks train together, so that a second is counted once.
        """
        every, again = list(trainings), list({trial.job.key: trial for trial in last}.values())
        epochs = sum(trial.epochs for trial in every)

        def seconds(some: Sequence[Trial]) -> float:
            if device == "cpu":
                return sum(trial.metrics.get("train_seconds", 0.0) for trial in some)
            ends = ((finished[trial.job.key], trial.seconds) for trial in some if trial.job.key in finished)
            return _covered((end - duration, end) for end, duration in ends)

        return cls(len(every), epochs, seconds(every), len(again), seconds(again))


def smaller(
    winner: Trial, history: Iterable[Trial], finalists: Sequence[Sequence[Trial]], images: int, metric: str
) -> Trial | None:
    """The smallest network that is nearly as good as the winner; None if no clearly smaller one is.

    It may be worse by one standard error of the winner's accuracy, after a training as long as the winner's in the
    search (Breiman et al., Classification and Regression Trees, 1984). A network that the final selection has
    trained again is judged by that.

    Args:
        winner: its trial in the search.
        history: the trials of the search.
        finalists: the trainings of each finalist, the winner's first.
        images: the number of validation images.
        metric: the first objective. If it is the mean over the classes, nobody knows its standard error.
    """
    if metric in BALANCED:
        return None
    accuracy = winner.metrics["validation_accuracy"]
    least = accuracy - standard_error(accuracy, images)
    means = [mean([trial.metrics["validation_accuracy"] for trial in group]) for group in finalists]
    again = {group[0].id: found for group, found in zip(finalists, means, strict=True)}
    won = means[0]
    enough = won - standard_error(won, images)
    good = [
        trial
        for trial in history
        if trial.failure is None
        and trial.job.epochs == winner.job.epochs
        and trial.metrics["validation_accuracy"] >= least
        and again.get(trial.id, won) >= enough
        and CLEARLY * trial.metrics["parameters"] <= winner.metrics["parameters"]
    ]
    return min(good, key=lambda trial: (trial.metrics["parameters"], trial.id), default=None)


def _covered(spans: Iterable[tuple[float, float]]) -> float:
    """The length of what spans (begin, end) cover together."""
    length = until = 0.0
    for begin, end in sorted(spans):
        length += max(0.0, end - max(begin, until))
        until = max(until, end)
    return length
