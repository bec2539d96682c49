"""Strategies side by side under one budget on one data set.

Each search is an ordinary one in a folder of the comparison. When all of them have decided, and all baselines are
fitted, the test inputs are opened once, for all of them together.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from nas.architecture.known import LECTURE
from nas.comparison import verdicts
from nas.comparison.explain import Case, cases, experiments
from nas.comparison.in_mlflow import begin_run, write_tables
from nas.comparison.members import Decided, decide, member
from nas.comparison.others import LECTURE_NAME, answerers, fit
from nas.comparison.progress import Progress, common_target, progress_of, reached_by, words
from nas.comparison.result import Compared, Result, Searched, State, Tested
from nas.comparison.settings import Comparison
from nas.comparison.verdicts import Sample
from nas.comparison.watcher import PythonWatcher, Warnings, Watcher
from nas.dashboard.comparisons import stop
from nas.dashboard.store import store_of
from nas.data.kinds import NOUNS
from nas.errors import Interrupted, JournalError, NasError, UsageError
from nas.evaluation.borrowing import Lending
from nas.experiment import Experiment
from nas.files import write_whole
from nas.objectives import best_seed
from nas.records.comparisons import FILE, LOCK, TOML, locked
from nas.records.record import RUNS, place
from nas.run import time_limit
from nas.run.conclude import Selected, conclude
from nas.run.recording import Run, recorded
from nas.run.resolve import Resolved, resolve
from nas.statistics import mean
from nas.winner.sealed import Opened, open_together


def compare(
    comparison: Comparison | str | Path | None = None,
    *,
    out: str | Path | None = None,
    watcher: Watcher | None = None,
    **settings: Any,
) -> Compared:
    """Compare strategies under one budget, with baselines on the same data.

    Args:
        comparison: a `Comparison`, or the path of a TOML file; None for the settings alone.
        out: the folder to write; None for a new one in runs/.
        watcher: is told what happens; without one, warnings are those of Python.
        settings: of `Comparison.of`, which replace those of the file.

    Raises:
        NasError: a mistake that the user can correct; the message says how.
    """
    if not isinstance(comparison, Comparison):
        comparison = (
            Comparison.of(**settings) if comparison is None else Comparison.read(Path(comparison), **settings)
        )
    elif settings:
        raise UsageError("give a Comparison, or settings, not both")
    stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    folder = Path(out or RUNS / f"{stamp}-compare-{secrets.token_hex(2)}").absolute()
    if folder.exists() and any(path.name not in (LOCK, TOML) for path in folder.iterdir()):
        raise UsageError(f"{folder} is not empty; choose another folder with --out, or `nas resume` it")
    return _run(folder, comparison, watcher or PythonWatcher())


def go_on(folder: Path, *, watcher: Watcher | None = None, plugins: Sequence[Path] = ()) -> Compared:
    """Go on with a comparison that was interrupted or killed; the result of one that is finished."""
    watcher = watcher or PythonWatcher()
    if (finished := known(folder)) is not None:
        if finished.state.run and not finished.state.written:
            write_tables(finished, watcher)
        return finished
    trusted: dict[str, Any] = {"plugins": tuple(plugins)} if plugins else {}
    return _run(folder, Comparison.read(folder / TOML, **trusted), watcher)


def known(folder: Path) -> Compared | None:
    """A finished comparison; None if it is not finished."""
    state = State.read(folder)
    comparison = Comparison.read(folder / TOML, trusting=True)
    return Compared(folder, comparison, state, state.result) if state.result else None


def _run(folder: Path, comparison: Comparison, watcher: Watcher) -> Compared:
    """A comparison from its settings to its result, new or resumed."""
    resolved = _checked(comparison)
    comparison, kind = comparison.pinned(resolved.experiment.dataset), resolved.data.kind
    watcher.noun = NOUNS[kind].many
    with locked(folder):
        if (folder / FILE).is_file():
            state = State.read(folder)
            if state.fingerprint != resolved.data.fingerprint:
                about = f"the {NOUNS[kind].many} of {folder.name}, {state.dataset}"
                raise JournalError(f"{about}, have changed since it began: compare anew")
        else:
            write_whole(folder / TOML, comparison.to_toml())
            state = State(secrets.token_hex(8), resolved.source.name, resolved.data.fingerprint, kind=kind)
            state.write(folder)
        uri = ""
        if comparison.first.mlflow != "off":
            uri = store_of(folder, comparison.first.mlflow)
            begin_run(folder, state, uri, comparison, watcher)
        try:
            compared = _compared(folder, state, comparison, resolved, watcher)
        except BaseException as error:
            if state.run:
                with suppress(Exception):  # the error is more important
                    stop(uri, state.run, killed=isinstance(error, KeyboardInterrupt))
            if isinstance(error, KeyboardInterrupt):
                raise Interrupted(f"interrupted; go on with: nas resume {place(folder)}") from None
            raise
        if state.run:
            write_tables(compared, watcher)
        return compared


def _compared(
    folder: Path, state: State, comparison: Comparison, resolved: Resolved, watcher: Watcher
) -> Compared:
    """The searches and the baselines, then the test."""
    wanted, lending = comparison.searches(), Lending(folder)
    if state.run:
        parent = {"mlflow_parent": state.run, "mlflow_experiment": None}
        wanted = {name: (label, one.changed(**parent)) for name, (label, one) in wanted.items()}
    if comparison.baselines:
        fit(folder, state, resolved, watcher)
    decided = decide(state, wanted, resolved, lending, watcher)
    if not decided:
        reason = next(iter(state.failed.values()), "")
        raise NasError(f"no search of the comparison has a winner ({reason}): see `nas show {place(folder)}`")
    state.result = _test(state, comparison, wanted, decided, resolved, lending, watcher)
    state.write(folder)
    return Compared(folder, comparison, state, state.result)


def _checked(comparison: Comparison) -> Resolved:
    """The configuration of the first search; that of every strategy is checked before anything trains.

    Raises:
        NasError: one of them is wrong, or they do not have the same data.
    """
    first: Resolved | None = None
    for _, experiment in [*comparison.searches().values()][: len(comparison.entries)]:
        time_limit.check(experiment)
        resolved = resolve(experiment)
        first = first or resolved
        if resolved.data.fingerprint != first.data.fingerprint:
            raise UsageError("strategies are compared on the same data: give dataset options to all of them")
    assert first is not None  # noqa: S101  # there is at least one strategy
    return first


def _test(
    state: State,
    comparison: Comparison,
    wanted: Mapping[str, tuple[str, Experiment]],
    decided: Mapping[str, Decided],
    resolved: Resolved,
    lending: Lending,
    watcher: Watcher,
) -> Result:
    """Open the test inputs once, for every winner and every baseline, and conclude the searches."""
    folder = lending.folder
    answering = answerers(folder, state, resolved, watcher)
    explained = _explained(folder, state, resolved, decided, watcher) if comparison.explain else []
    watcher.opening(sum(len(one.networks) for one in decided.values()) + len(answering) + len(explained))
    state.opened += 1
    state.write(folder)
    opened, answers = open_together(
        resolved.source,
        resolved.data,
        [one.networks for one in decided.values()],
        [*answering.values(), *(case.answers for case in explained)],
    )
    by_name = dict(zip(decided, opened, strict=True))
    labels = answers.labels
    went = {name: progress_of(folder / name) for name in decided}
    by_label: dict[str, list[Progress]] = {}
    for name in decided:
        by_label.setdefault(wanted[name][0], []).append(went[name])
    target = common_target(by_label)
    searched = []
    for name, one in decided.items():
        label, experiment = wanted[name]
        with (
            member(lending, name, experiment) as (known, start),
            recorded(resolve(known), start, [Warnings(watcher)]) as run,
        ):
            conclude(run, one.selected, by_name[name])
            row = _row(label, experiment.seed, name, run, one.selected, by_name[name])
        trials, seconds = reached_by(went[name], target)
        searched.append(replace(row, reached=trials, reached_seconds=seconds))
    samples = [
        Sample(
            label,
            {row.seed: by_name[row.folder].results[0].right.numpy() for row in searched if row.strategy == label},
        )
        for label in comparison.entries
    ]
    right = {name: answer == labels for name, answer in zip(answering, answers.answers, strict=False)}
    shares = [float((answer == labels).mean()) for answer in answers.answers[len(answering) :]]
    shown = experiments(list(zip(explained, shares, strict=True))) if explained else []
    bits = dict(zip(answering, answers.bits, strict=False))
    tested = tuple(Tested(state.baselines[name], float(right[name].mean()), bits[name]) for name in answering)
    pairs = verdicts.verdicts(samples)
    beside = verdicts.beside(samples, {name: right[name] for name in _notable(tested)})
    sentences = verdicts.sentences([*pairs, *beside], NOUNS[resolved.data.kind].many)
    return Result(
        tuple(searched), tested, tuple(pairs), tuple(beside), tuple(sentences), len(labels), target,
        words(resolved.objectives[0], target), state.opened, tuple(each._asdict() for each in shown),
    )  # fmt: skip


def _notable(tested: Sequence[Tested]) -> list[str]:
    """The baselines beside every strategy: the best one on the validation inputs, and the lecture's network."""
    others = [one.baseline for one in tested if one.baseline.name != LECTURE_NAME]
    best = max(others, key=lambda one: one.validation_accuracy, default=None)
    names = [best.name] if best else []
    return names + [one.baseline.name for one in tested if one.baseline.name == LECTURE_NAME]


def _explained(
    folder: Path, state: State, resolved: Resolved, decided: Mapping[str, Decided], watcher: Watcher
) -> list[Case]:
    """What shows why: for the tree, the forest, the lecture's network, and the winner with the best mean."""
    if resolved.data.kind != "images":
        watcher.warned(f"the experiments that explain are left out: they are of images, not of {watcher.noun}")
        return []
    networks = {LECTURE_NAME: LECTURE} if LECTURE_NAME in state.baselines else {}
    winners = [one.selected.finalists[0] for one in decided.values()]
    best = max(winners, key=lambda group: mean([trial.metrics["validation_accuracy"] for trial in group]))
    networks["the best network found"] = best[0].job.candidate.architecture
    known = [state.baselines[name] for name in ("decision tree", "random forest") if name in state.baselines]
    try:
        return list(cases(folder / "explain", resolved, networks, known, watcher.explaining))
    except NasError as error:  # all else is there
        watcher.warned(f"the experiments that explain are left out: {error}")
        return []


def _row(label: str, seed: int, name: str, run: Run, found: Selected, opened: Opened) -> Searched:
    trials = {trial.job.key: trial for trial in run.record.trials.values()}
    chosen = found.finalists[0]
    return Searched(
        label, seed, name, found.winner.id,
        int(best_seed(chosen).metrics["parameters"]),
        mean([trial.metrics["validation_accuracy"] for trial in chosen]),
        opened.results[0].accuracy,
        len(found.history),
        sum(trial.metrics.get("train_seconds", 0.0) for trial in trials.values()),
    )  # fmt: skip
