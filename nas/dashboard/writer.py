"""A search in MLflow: one run for the search, and in it one nested run for every candidate.

Nothing is written twice: the tags of a run name its search and its candidate, and a new `Writer` first looks which
runs exist. So a writer may be killed at any moment, and the next one continues its work. Two may work at the same
time, if each leaves the other its candidates.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from nas.dashboard import runs
from nas.dashboard.runs import MOST_RUNS, Points, flat, key
from nas.dashboard.store import LogModel, client_of, dataset_of, experiment_of, log_files, terminate
from nas.objectives import Objective, hypervolume, scored, undominated
from nas.records.outcome import Outcome
from nas.records.predictions import FILE, predictions_of
from nas.records.record import Record, Told
from nas.report.classes import Score, scores
from nas.report.figures import draw
from nas.report.leaders import leaderboard
from nas.report.page import report
from nas.trial import Trial, trial_numbers

if TYPE_CHECKING:
    from mlflow.entities import Run, RunInfo

BATCH = 100  # parameters and tags of one call, MLflow's limit
POINTS = 900  # metrics of one call, of which MLflow takes 1,000
CURVES = 10  # of a search, at most
LARGE = 1_000  # candidates of a search, above which only networks of the last rung get a run of their own
LONGEST = 6_000  # characters; MLflow takes no longer parameter
NONE: Mapping[Any, Any] = MappingProxyType({})
Texts = Mapping[str, Any]  # values that MLflow stores as texts
PLOTTED = (Objective("validation_accuracy"), Objective("parameters", -1))  # if the search has one objective


class Writer:
    """Writes a record to a store.

    Args:
        record: of the search; it may grow.
        tracking_uri: the address of the store.
        log_model: logs the winner as a model, given the outcome, the store and the run.
        on_progress: called after each step, so that a waiting thread sees progress.

    Raises:
        Exception: any exception of MLflow; the same from `write`.
    """

    def __init__(
        self,
        record: Record,
        tracking_uri: str,
        log_model: LogModel | None = None,
        on_progress: Callable[[], None] = lambda: None,
    ) -> None:
        self.written = 0  # runs of candidates
        self._record, self._header = record, record.header
        self._begun = record.sessions[0].at if record.sessions else record.at
        self._uri, self._log_model, self._on_progress = tracking_uri, log_model, on_progress
        self._client = client_of(tracking_uri)
        self._experiment = experiment_of(self._client, tracking_uri, self._header.config)
        search, self._nested = self._existing()
        self.told = self._failed = 0  # candidates that are through
        self._best: dict[str, float] = {}
        self._trials: dict[str, Trial] = {}  # the trials that did not fail, by the key of their job
        self._front: list[Trial] = []  # those of them that decide the hypervolume
        self._points: dict[
            tuple[str, int], tuple[float, float]
        ] = {}  # of the search's curves, not yet in the store
        self._generation = record.retold
        self._status = ""
        self._tags: dict[str, str] = dict(search.data.tags) if search else {}
        if search:
            self.run_id = search.info.run_id
        else:
            name = runs.search_name(self._header, self._begun)
            self.run_id = str(self._create(name, self._begun, runs.search_tags(self._header)).run_id)
            self._status = "RUNNING"
        self._log_configuration(search)
        self._plotted = set[int]()  # the candidates in the curves of the search; void steps are written again
        if not record.retold:
            history = self._client.get_metric_history(self.run_id, "search/failed_trials")
            self._plotted = {metric.step for metric in history}

    @property
    def is_stale(self) -> bool:
        """Whether trials that were written have become void, so that a new writer is needed."""
        return self._generation != self._record.retold

    def write(self, *, ended: bool, figures: bool = True, most: int | None = None) -> None:
        """Write the entries that the store lacks.

        Args:
            ended: whether the search adds no more entries.
            figures: whether to draw the figures of a search without a winner.
            most: the number of candidates after which it is enough for now; None for all.
        """
        if self.told == len(self._record.told) and not ended:
            return
        if self._status != "RUNNING" and not (ended and self._tags.get("nas.outcome") == self._outcome_tag()):
            self._client.update_run(self.run_id, status="RUNNING")
            self._status = "RUNNING"
        last = len(self._record.told) if most is None else self.told + most
        while self.told < min(last, len(self._record.told)):
            self._write_told(self._record.told[self.told])
            if len(self._points) > POINTS - CURVES:  # all points of a candidate go in one call
                self._log_points()
            self._on_progress()
        self._log_points()
        if ended:
            self._end(figures=figures)

    def leave(self, last: int) -> None:
        """Leave the candidates up to the number ``last`` to another process, which writes them."""
        last = min(last, len(self._record.told))
        self._plotted.update(range(1, last + 1))
        while self.told < last:
            told = self._record.told[self.told]
            self.told += 1
            self._nested.pop(self.told, None)
            self._plot(scored(told.trial, self._header.objectives), self.told, told.at)

    def _existing(self) -> tuple[Run | None, dict[int, Run]]:
        """The run of the search, and the runs of its candidates by number, as far as they exist."""
        search, nested = None, {}
        of_search = f"tags.`nas.id` = '{self._record.id}'"
        for run in self._client.search_runs([self._experiment], of_search, max_results=MOST_RUNS):
            if "nas.trial" not in run.data.tags:
                search = run
            elif (number := run.data.tags["nas.trial"]).isdecimal():
                nested[int(number)] = run
        return search, nested

    def _log_configuration(self, search: Run | None) -> None:
        """Log the configuration and the data. A changed setting becomes a tag: parameters cannot change."""
        from mlflow.exceptions import MlflowException

        params = {key(name): str(value)[:LONGEST] for name, value in flat(self._header.settings)}
        known = search.data.params if search else {}
        new = {name: value for name, value in params.items() if name not in known}
        changed = {f"changed.{name}": value for name, value in params.items() if known.get(name, value) != value}
        self._log(self.run_id, params=new, tags=changed)

        data = [dataset_of(self._header)]
        try:
            self._client.log_inputs(self.run_id, data)
        except MlflowException:  # another search has entered the same data at the same moment
            self._client.log_inputs(self.run_id, data)

    def _write_told(self, told: Told) -> None:
        number, trial = self.told + 1, scored(told.trial, self._header.objectives)
        known = self._nested.pop(number, None)
        if known is not None and known.data.tags.get("nas.job") != trial.job.key:
            self._client.delete_run(known.info.run_id)  # the trial of this number has become void
            known = None
        is_worth_it = len(self._record.told) <= LARGE or trial.job.epochs == self._header.config.get("epochs")
        if is_worth_it if known is None else known.info.status == "RUNNING":  # missing, or cut off by a kill
            self._write_candidate(number, trial, told.at, known)
        self._plot(trial, number, told.at)
        self.told = number

    def _write_candidate(self, number: int, trial: Trial, at: float, known: Run | None) -> None:
        candidate = trial.job.candidate
        start = at - trial.seconds
        if known:
            info = known.info
        else:
            tags = {"mlflow.parentRunId": self.run_id, **runs.candidate_tags(self._header, number, trial)}
            info = self._create(runs.candidate_name(number, trial), start, tags)
        run_id, place = info.run_id, info.artifact_uri
        params = {**runs.constants(trial), **candidate.choices}  # numbers can be sorted and plotted there
        self._log(run_id, params=params, points=runs.candidate_points(trial, start))
        with tempfile.TemporaryDirectory() as folder:
            runs.write_candidate(Path(folder), candidate.architecture, self._header.limits)
            log_files(self._client, run_id, place, folder)
        terminate(self._client, run_id, "FAILED" if trial.failure else "FINISHED", at)
        self.written += 1

    def _plot(self, trial: Trial, number: int, at: float) -> None:
        """Add a trial to the search's own curves."""
        objectives = self._header.objectives
        axes = objectives if len(objectives) > 1 else PLOTTED
        if trial.failure is None:
            self._trials[trial.job.key] = trial
            self._front = undominated([*self._front, trial], axes)
            signs = {"validation_accuracy": 1, "validation_loss": -1, objectives[0].metric: objectives[0].sign}
            for metric, sign in signs.items():
                value = trial.metrics.get(metric, math.nan)
                if math.isfinite(value) and sign * value >= sign * self._best.get(metric, value):
                    self._best[metric] = value
        else:
            self._failed += 1
        if number not in self._plotted:
            # MLflow opens the comparison of two searches with the first of them.
            curves = {**{f"best_{name}": best for name, best in self._best.items()}, "failed_trials": self._failed}
            if self._header.kind != "train":  # of one network it says nothing
                curves["hypervolume"] = hypervolume(self._front, axes, self._header.limits)
            self._points |= {(f"search/{name}", number): (value, at) for name, value in curves.items()}

    def _log_points(self) -> None:
        points, self._points = self._points, {}
        self._log(self.run_id, points=points)

    def _end(self, *, figures: bool) -> None:
        """Write the winner, or the reason why there is none, and close the search's run."""
        for void in self._nested.values():  # candidates that have become void
            self._client.delete_run(void.info.run_id)
        self._nested = {}
        outcome, ended = self._record.result(), self._record.ended
        if outcome is None:
            status = "KILLED"
            if ended and ended["status"] == "failed":
                status = "FAILED"
                self._log(self.run_id, tags={"failure": ended["message"]})
            try:
                self._log_tables()
                if figures:
                    self._log_figures()
            finally:
                self._close(status, self._record.at)
        elif self._tags.get("nas.outcome") != self._outcome_tag():
            self._write_outcome(outcome)

    def _outcome_tag(self) -> str:
        return str((self._record.outcome or {}).get("at", "none"))

    def _write_outcome(self, outcome: Outcome) -> None:
        tags = {
            "winner": outcome.winner.id,
            "epochs": f"{outcome.handed_over.epochs:g}",
            "parameters": str(outcome.parameters),
            "mlflow.note.content": runs.search_description(
                outcome, self._place(self.run_id), self._winner(outcome)
            ),
        }
        begun = runs.search_name(self._header, self._begun)
        if self._client.get_run(self.run_id).info.run_name.endswith((begun, self._header.name)):  # no user's name
            self._client.update_run(self.run_id, name=runs.search_name(self._header, self._begun, outcome))
        now = float((self._record.outcome or {})["at"])
        points = {(name, self.told): (value, now) for name, value in runs.search_scores(outcome).items()}
        self._log(self.run_id, points=points, tags=tags)
        self._log_tables(outcome.front)
        if (predictions := predictions_of(outcome)) is not None:
            rows = list(scores(predictions, range(len(predictions.classes))))
            self._log_table("classes.json", dict(zip(Score._fields, zip(*rows, strict=True), strict=True)))
            self._client.log_artifact(self.run_id, str(self._header.folder / FILE))
        text = runs.architecture_json(outcome.architecture)
        self._client.log_text(self.run_id, text, "best/architecture.json")
        if outcome.weights.parent.is_dir():
            self._client.log_artifacts(self.run_id, str(outcome.weights.parent), "best")
        self._on_progress()
        try:  # a model that cannot be exported costs no figures, nor the other way round
            try:
                self._log_figures()
            finally:
                if self._log_model is not None:
                    self._log_model(outcome, self._uri, self.run_id)
        finally:  # a search without a logged model has not failed
            if "failure" in self._tags:  # of an earlier process
                self._client.delete_tag(self.run_id, "failure")
            self._close("FINISHED", now)
        self._tags["nas.outcome"] = self._outcome_tag()
        self._client.set_tag(self.run_id, "nas.outcome", self._outcome_tag())

    def _place(self, run_id: str) -> str:
        """The place of a run in the dashboard."""
        return f"#/experiments/{self._experiment}/runs/{run_id}"

    def _winner(self, outcome: Outcome) -> str | None:
        """The place of the winner's run as a candidate."""
        wanted = f"tags.`nas.id` = '{self._record.id}' and tags.`nas.job` = '{outcome.winner.job.key}'"
        found = self._client.search_runs([self._experiment], wanted, max_results=1)
        return self._place(found[0].info.run_id) if found else None

    def _log_figures(self) -> None:
        """Log the figures, and the report that holds them, too."""
        with tempfile.TemporaryDirectory() as folder:
            pictures = draw(self._record, Path(folder))
            self._on_progress()
            self._client.log_artifacts(self.run_id, folder, "figures")
            self._client.log_text(self.run_id, report(self._record, pictures), "report.html")
        self._on_progress()

    def _log_tables(self, front: Sequence[Trial] = ()) -> None:
        """Log the best networks; with several objectives, the Pareto front, too."""
        if self._trials:
            self._log_table("leaderboard.json", leaderboard(self._trials.values(), self._numbers()))
        if front and len(self._header.objectives) > 1:
            metrics = [objective.metric for objective in self._header.objectives]
            columns = {metric: [trial.metrics[metric] for trial in front] for metric in metrics}
            known = self._numbers()
            numbers = [known.get(trial.id) for trial in front]
            self._log_table("pareto_front.json", {"id": [one.id for one in front], "trial": numbers, **columns})

    def _numbers(self) -> dict[str, int]:
        """The numbers of the candidates' trials."""
        return trial_numbers(told.trial for told in self._record.told)

    def _log_table(self, name: str, columns: Mapping[str, Sequence[Any]]) -> None:
        """Log a table as MLflow shows it. (MLflow's own ``log_table`` would append to an existing table.)"""
        rows = [list(row) for row in zip(*columns.values(), strict=True)]
        self._client.log_text(self.run_id, json.dumps({"columns": list(columns), "data": rows}), name)
        tables = json.loads(self._tags.get("mlflow.loggedArtifacts", "[]"))
        if (entry := {"path": name, "type": "table"}) not in tables:
            self._tags["mlflow.loggedArtifacts"] = json.dumps([*tables, entry])
            self._client.set_tag(self.run_id, "mlflow.loggedArtifacts", self._tags["mlflow.loggedArtifacts"])

    def _create(self, name: str, start: float, tags: Mapping[str, Any]) -> RunInfo:
        common = {"nas.id": self._record.id, "nas.search": self._header.name, "mlflow.source.name": "nas"}
        tags = {**common, "strategy": self._header.kind, **tags}
        filled = {key: str(value) for key, value in tags.items() if value != ""}
        return self._client.create_run(self._experiment, int(start * 1000), filled, name).info

    def _log(self, run_id: str, *, params: Texts = NONE, points: Points = NONE, tags: Texts = NONE) -> None:
        from mlflow.entities import Metric, Param, RunTag

        finite = {place: point for place, point in points.items() if math.isfinite(point[0])}
        metrics = [Metric(key(name), value, int(at * 1000), i) for (name, i), (value, at) in finite.items()]
        texts = {key(name): str(value)[:LONGEST] for name, value in params.items()}
        entries, labels = [Param(*item) for item in texts.items()], [RunTag(*item) for item in tags.items()]
        calls = max(-(-len(metrics) // POINTS), -(-max(len(entries), len(labels)) // BATCH))
        for call in range(calls):
            of_points, of_texts = (slice(call * most, (call + 1) * most) for most in (POINTS, BATCH))
            self._client.log_batch(run_id, metrics[of_points], entries[of_texts], labels[of_texts])

    def _close(self, status: str, at: float) -> None:
        configuration = self._header.folder / "search.toml"
        if configuration.is_file():
            self._client.log_artifact(self.run_id, str(configuration))
        terminate(self._client, self.run_id, status, at)
        self._status = status
