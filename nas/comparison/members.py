"""The searches of a comparison: ordinary ones, each in a folder of its own, that stop before the test."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from nas.comparison.result import State
from nas.comparison.threads import side_by_side
from nas.comparison.watcher import Watcher
from nas.errors import NasError, StorageError
from nas.evaluation.borrowing import Lending
from nas.evaluation.local import machine
from nas.experiment import Experiment
from nas.objectives import TIMES, Objective
from nas.records import searches
from nas.records.journal import FILE, Journal
from nas.run.conclude import Selected, contestants
from nas.run.recording import Start
from nas.run.resolve import Resolved
from nas.run.runs import selected

if TYPE_CHECKING:
    from nas.training.network import Network

# Of the usual batch of eight candidates two are trained for long, so that more workers wait for one another.
WORKERS = 2
LONGEST_REASON = 900  # characters of a failure, in the record


class Decided(NamedTuple):
    """A search that has its winner, before the test images are opened."""

    selected: Selected
    networks: list[Network]  # that classify the test images, the winner first


def decide(
    state: State,
    wanted: Mapping[str, tuple[str, Experiment]],
    resolved: Resolved,
    lending: Lending,
    watcher: Watcher,
) -> dict[str, Decided]:
    """Run all searches until they have decided; those with a winner, by name."""
    names = list(wanted)
    count = _at_a_time([experiment for _, experiment in wanted.values()], resolved.workers)

    def run(name: str) -> tuple[str, Decided | NasError]:
        experiment = wanted[name][1]
        if count > 1:
            experiment = _with_share(experiment, resolved.workers, count)
        observer = watcher.searching(name, names.index(name) + 1, len(names))
        try:
            with (
                member(lending, name, experiment) as (known, start),
                selected(known, start, [observer]) as (run, found),
            ):
                return name, Decided(found, [one.network for one in contestants(run, found)])
        except StorageError:  # the others would fail, too
            raise
        except NasError as error:
            return name, error

    decided = dict[str, Decided]()
    for name, found in side_by_side(run, names, count):
        if isinstance(found, NasError):
            state.failed[name] = str(found)[:LONGEST_REASON]
            watcher.failed(name, str(found))
        else:
            state.failed.pop(name, None)
            decided[name] = found
            watcher.searched(name, found.selected)
        state.write(lending.folder)
    return {name: decided[name] for name in names if name in decided}


def _at_a_time(experiments: Sequence[Experiment], workers: int) -> int:
    """How many searches run at the same time: each of them keeps few workers busy."""
    for one in experiments:  # each has all there is
        of_time = {Objective.parse(text).metric for text in one.objectives} & TIMES
        if one.time_limit or of_time or one.evaluator != "local":
            return 1
    return min(len(experiments), max(1, workers // WORKERS))


def _with_share(experiment: Experiment, workers: int, count: int) -> Experiment:
    """The experiment with its share of the workers, and their share of the memory."""
    share = max(machine.SMALLEST, machine.MEMORY_SHARE * machine.memory() / machine.GIB / workers)
    options = {"evaluator.memory": round(share, 1), **experiment.options}
    return experiment.changed(workers=workers // count, options=options)


@contextmanager
def member(lending: Lending, name: str, experiment: Experiment) -> Iterator[tuple[Experiment, Start]]:
    """The settings of a search of the comparison and where it begins: new, or in the middle of its journal."""
    own, begun = lending.folder / name, time.monotonic()
    if not (own / searches.TOML).is_file():
        shutil.rmtree(own, ignore_errors=True)  # a process was killed just when it made the folder
        yield experiment, Start(own, begun=begun, comparison=lending)
        return
    here = {key: getattr(experiment, key) for key in ("plugins", "workers", "mlflow")}
    with Journal(own / FILE, begun) as journal:
        known = Experiment.read(own / searches.TOML, **here)
        yield known, Start(own, journal, begun=begun, comparison=lending)
