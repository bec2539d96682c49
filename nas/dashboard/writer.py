"""A search in MLflow: one run for the search, and in it one nested run for every candidate.

Nothing is written twice: the tags of a run name its search and its candidate, and a new `Writer` first looks which
runs exist. So a writer may be killed or dropped at any moment, and the next one continues its work.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.dashboard import runs
from nas.dashboard.runs import Points, flat, key
from nas.dashboard.store import LogModel, client_of, dataset_of, experiment_of
from nas.objectives import Objective, hypervolume, scored
from nas.records.outcome import Outcome
from nas.records.record import Record, Told
from nas.report.figures import draw
from nas.report.page import report
from nas.report.summary import leaderboard
from nas.trial import Trial

if TYPE_CHECKING:
    from mlflow.entities import Run

METRICS, PARAMS = 900, 100  # in one call; MLflow takes at most 1,000 entries, 100 of them parameters
PAGE = 1_000  # runs in one answer
LONGEST = 6_000  # characters of a parameter, of which MLflow takes no more
PLOTTED = (Objective("validation_accuracy"), Objective("parameters", -1))  # where the search has one objective


class Writer:
    """Brings a store up to a record.

    Args:
        record: of the search; it may grow.
        tracking_uri: the address of the store.
        artifacts: the folder for artifacts, where the store has none of its own.
        log_model: logs the winner as a model, given the outcome, the store and the run.
        on_progress: called after each step, so that a waiting thread sees progress.

    Raises:
        Exception: any exception of MLflow; the same from `write`.
    """

    def __init__(
        self,
        record: Record,
        tracking_uri: str,
        artifacts: Path,
        log_model: LogModel | None = None,
        on_progress: Callable[[], None] = lambda: None,
    ) -> None:
        self.written = 0  # runs of candidates
        self._record = record
        self._uri = tracking_uri
        self._log_model = log_model
        self._on_progress = on_progress
        self._header = record.header
        self._client = client_of(tracking_uri, artifacts)
        self._experiment = experiment_of(self._client, tracking_uri, artifacts)
        search, self._nested = self._existing()
        self._told = self._failed = 0
        self._best: dict[str, float] = {}
        self._trials: dict[str, Trial] = {}  # those that did not fail, by the key of their job
        self._generation = record.retold
        self._status = ""
        self._tags: dict[str, str] = dict(search.data.tags) if search else {}
        self.run_id = search.info.run_id if search else self._create_search()
        self._log_configuration(search)
        self._plotted = 0 if record.retold else self._last_step()  # steps that became void are written again

    @property
    def is_stale(self) -> bool:
        """Whether trials that were written have become void: a new writer has to look which runs exist."""
        return self._generation != self._record.retold

    def write(self, *, ended: bool, figures: bool = True) -> None:
        """Write what the store lacks.

        Args:
            ended: whether the searching process will add nothing more.
            figures: whether there is time to draw the figures of a search without a winner.
        """
        if self._told == len(self._record.told) and not ended:
            return
        if self._status != "RUNNING" and not (ended and self._tags.get("nas.outcome") == self._outcome_tag()):
            self._client.update_run(self.run_id, status="RUNNING")
            self._status = "RUNNING"
        while self._told < len(self._record.told):
            self._write_told(self._record.told[self._told])
            self._on_progress()
        if ended:
            self._end(figures=figures)

    def _existing(self) -> tuple[Run | None, dict[int, Run]]:
        """The run of the search, and those of its candidates by their numbers, as far as they exist."""
        search, nested, token = None, {}, None
        while True:
            where = f"tags.`nas.id` = '{self._record.id}'"
            found = self._client.search_runs([self._experiment], where, max_results=PAGE, page_token=token)
            for run in found:
                if "mlflow.parentRunId" not in run.data.tags:
                    search = run
                elif (number := run.data.tags.get("nas.trial", "")).isdecimal():
                    nested[int(number)] = run
            token = found.token
            if not token:
                return search, nested

    def _create_search(self) -> str:
        begun = self._record.sessions[0].at if self._record.sessions else self._record.at
        self._status = "RUNNING"
        return self._create(self._header.name, begun, runs.search_tags(self._header))

    def _log_configuration(self, search: Run | None) -> None:
        """The configuration and the data. A changed setting becomes a tag, because parameters cannot change."""
        params = {key(name): str(value)[:LONGEST] for name, value in flat(self._header.config)}
        known = search.data.params if search else {}
        self._log(self.run_id, params={name: value for name, value in params.items() if name not in known})
        for name, value in params.items():
            if known.get(name, value) != value:
                self._client.set_tag(self.run_id, f"changed.{name}", value)
        from mlflow.exceptions import MlflowException

        data = [dataset_of(self._header)]
        try:
            self._client.log_inputs(self.run_id, data)
        except MlflowException:  # another search has entered the same data at the same moment
            self._client.log_inputs(self.run_id, data)

    def _last_step(self) -> int:
        """The last candidate up to which the search's own curves are there."""
        return max((m.step for m in self._client.get_metric_history(self.run_id, "failed_trials")), default=0)

    def _write_told(self, told: Told) -> None:
        number = self._told + 1
        known = self._nested.pop(number, None)
        if known is not None and known.data.tags.get("nas.job") != told.trial.job.key:
            self._client.delete_run(known.info.run_id)  # the trial of this number has become void
            known = None
        if known is None or known.info.status == "RUNNING":  # missing, or cut off by a kill
            self._write_candidate(number, told, known)
        self._plot(scored(told.trial, self._header.objectives), number, told.at)
        self._told = number

    def _write_candidate(self, number: int, told: Told, known: Run | None) -> None:
        trial, candidate = scored(told.trial, self._header.objectives), told.trial.job.candidate
        start = told.at - trial.metrics.get("train_seconds", 0.0)
        if known:
            run_id = known.info.run_id
        else:
            tags = {"mlflow.parentRunId": self.run_id, **runs.candidate_tags(self._header, number, trial)}
            run_id = self._create(runs.candidate_name(self._header.kind, number, trial), start, tags)
        self._log(run_id, params=candidate.choices, points=runs.candidate_points(trial, start))
        with tempfile.TemporaryDirectory() as folder:
            runs.write_candidate(Path(folder), candidate.architecture, self._header.limits)
            self._client.log_artifacts(run_id, folder)
        self._client.set_terminated(run_id, "FAILED" if trial.failure else "FINISHED", int(told.at * 1000))
        self.written += 1

    def _plot(self, trial: Trial, number: int, at: float) -> None:
        """Add a trial to the search's own curves."""
        self._failed += trial.failure is not None
        if trial.failure is None:
            self._trials[trial.job.key] = trial
            first = self._header.objectives[0]
            for metric, sign in {
                "validation_accuracy": 1,
                "validation_loss": -1,
                first.metric: first.sign,
            }.items():
                value = trial.metrics.get(metric, math.nan)
                if math.isfinite(value) and sign * value >= sign * self._best.get(metric, value):
                    self._best[metric] = value
        if number <= self._plotted:
            return
        curves = {"failed_trials": self._failed, **{f"best_{name}": best for name, best in self._best.items()}}
        objectives = self._header.objectives if len(self._header.objectives) > 1 else PLOTTED
        curves["hypervolume"] = hypervolume(self._trials.values(), objectives, self._header.limits)
        self._log(self.run_id, points={(name, number): (value, at) for name, value in curves.items()})

    def _end(self, *, figures: bool) -> None:
        """Write the winner, or the reason why there is none, and close the search's run."""
        for void in self._nested.values():  # candidates that have become void
            self._client.delete_run(void.info.run_id)
        self._nested = {}
        outcome, ended = self._record.result(), self._record.ended
        if outcome is None:
            failed = ended is not None and ended["status"] == "failed"
            if ended and failed:
                self._log(self.run_id, tags={"failure": ended["message"]})
            try:
                self._log_tables()
                if figures:
                    self._log_figures()
            finally:
                self._close("FAILED" if failed else "KILLED", self._record.at)
        elif self._tags.get("nas.outcome") != self._outcome_tag():
            self._write_outcome(outcome)

    def _outcome_tag(self) -> str:
        return str((self._record.outcome or {}).get("at", "none"))

    def _write_outcome(self, outcome: Outcome) -> None:
        tags = {"winner": outcome.winner.id, "mlflow.note.content": runs.search_description(outcome)}
        now = float((self._record.outcome or {})["at"])
        points = {(name, self._told): (value, now) for name, value in runs.search_scores(outcome).items()}
        self._log(self.run_id, points=points, tags=tags)
        self._log_tables(outcome.front)
        architecture = runs.architecture_json(outcome.architecture)
        self._client.log_text(self.run_id, architecture, "best/architecture.json")
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

    def _log_figures(self) -> None:
        """The figures, and the page that holds them, too."""
        with tempfile.TemporaryDirectory() as folder:
            pictures = draw(self._record, Path(folder))
            self._on_progress()
            self._client.log_artifacts(self.run_id, folder, "figures")
            self._client.log_text(self.run_id, report(self._record, pictures), "report.html")
        self._on_progress()

    def _log_tables(self, front: Sequence[Trial] = ()) -> None:
        """The best networks; with several objectives, those on the Pareto front, too."""
        if self._trials:
            self._log_table("leaderboard.json", leaderboard(self._trials.values()))
        if front and len(self._header.objectives) > 1:
            metrics = [objective.metric for objective in self._header.objectives]
            columns = {metric: [trial.metrics[metric] for trial in front] for metric in metrics}
            self._log_table("pareto_front.json", {"id": [trial.id for trial in front], **columns})

    def _log_table(self, name: str, columns: Mapping[str, Sequence[Any]]) -> None:
        """A table as MLflow shows it. (MLflow's own ``log_table`` would append to the table that exists.)"""
        rows = [list(row) for row in zip(*columns.values(), strict=True)]
        self._client.log_text(self.run_id, json.dumps({"columns": list(columns), "data": rows}), name)
        tables = json.loads(self._tags.get("mlflow.loggedArtifacts", "[]"))
        if (entry := {"path": name, "type": "table"}) not in tables:
            self._tags["mlflow.loggedArtifacts"] = json.dumps([*tables, entry])
            self._client.set_tag(self.run_id, "mlflow.loggedArtifacts", self._tags["mlflow.loggedArtifacts"])

    def _create(self, name: str, start: float, tags: Mapping[str, Any]) -> str:
        common = {
            "nas.id": self._record.id,
            "nas.search": self._header.name,
            "strategy": self._header.kind,
            "mlflow.source.name": "nas",
        }
        given = {key: str(value) for key, value in {**common, **tags}.items() if value != ""}
        return str(self._client.create_run(self._experiment, int(start * 1000), given, name).info.run_id)

    def _log(
        self,
        run_id: str,
        *,
        params: Mapping[str, Any] | None = None,
        points: Points | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        from mlflow.entities import Metric, Param, RunTag

        metrics = [
            Metric(key(name), value, int(at * 1000), step)
            for (name, step), (value, at) in (points or {}).items()
            if math.isfinite(value)
        ]
        values = {key(name): str(value)[:LONGEST] for name, value in (params or {}).items()}
        given = [Param(name, value) for name, value in values.items()]
        tagged = [RunTag(name, value) for name, value in (tags or {}).items()]
        self._client.log_batch(run_id, metrics[:METRICS], given[:PARAMS], tagged)
        for start in range(METRICS, len(metrics), METRICS):
            self._client.log_batch(run_id, metrics[start : start + METRICS])
        for start in range(PARAMS, len(given), PARAMS):
            self._client.log_batch(run_id, params=given[start : start + PARAMS])

    def _close(self, status: str, at: float) -> None:
        configuration = self._header.folder / "search.toml"
        if configuration.is_file():
            self._client.log_artifact(self.run_id, str(configuration))
        self._client.set_terminated(self.run_id, status, int(at * 1000))
        self._status = status
