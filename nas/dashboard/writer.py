"""MLflow as a projection of a record: one run for the search, and in it one nested run for every candidate.

Nothing is written twice: a run says in its tags whose it is, and whoever writes looks first. So a `Writer` may be
killed or thrown away at any moment, and the next one goes on where it was.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.dashboard.points import Points, curve, flat, key
from nas.dashboard.store import LogModel, client_of, dataset_of, experiment_of
from nas.objectives import Objective, hypervolume, scored
from nas.records.outcome import Outcome
from nas.records.record import Record, Told
from nas.report.drawing import network_svg
from nas.report.figures import draw
from nas.report.page import report
from nas.report.texts import description, layers, leaderboard, pretty, run_name, rung, story
from nas.trial import Trial

if TYPE_CHECKING:
    from mlflow.entities import Run

METRICS, PARAMS = 900, 100  # so many MLflow takes in one call: 1,000 of everything, and 100 parameters
PAGE = 1_000  # runs in one answer
COMPARED = (Objective("validation_accuracy"), Objective("parameters", -1))  # where there is one objective only


class Writer:
    """Brings a store up to a record.

    Args:
        record: what there is to show; it may grow.
        tracking_uri: the store.
        artifacts: the folder for artifacts, where the store has none of its own.
        log_model: logs the winner as a model, given the outcome, the store and the run.
        alive: is called after each step, so that somebody who waits knows that there is progress.

    Raises:
        Exception: whatever MLflow raises; the same from `write`.
    """

    def __init__(
        self,
        record: Record,
        tracking_uri: str,
        artifacts: Path,
        log_model: LogModel | None = None,
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        self.written = 0  # runs of candidates
        self._record = record
        self._uri = tracking_uri
        self._log_model = log_model
        self._alive = alive
        self._header = record.header
        self._client = client_of(tracking_uri, artifacts)
        self._experiment = experiment_of(self._client, tracking_uri, artifacts)
        search, self._nested = self._found()
        self._told = self._failed = 0
        self._best: dict[str, float] = {}
        self._trials: dict[str, Trial] = {}  # those that did not fail, by the key of their job
        self._generation = record.retold
        self._status = ""
        self._tags: dict[str, str] = dict(search.data.tags) if search else {}
        self.run_id = search.info.run_id if search else self._create_search()
        self._describe(search)
        self._shown = 0 if record.retold else self._last_step()  # steps that are void are written over

    @property
    def is_stale(self) -> bool:
        """Whether something that was told before is void: another writer has to look what is there."""
        return self._generation != self._record.retold

    def write(self, *, ended: bool, figures: bool = True) -> None:
        """Write what the store lacks.

        Args:
            ended: whether nothing more will come from the process that searches.
            figures: whether there is time for the figures of a search without a winner.
        """
        if self._told == len(self._record.told) and not ended:
            return
        if self._status != "RUNNING" and not (ended and self._tags.get("nas.outcome") == self._outcome_tag()):
            self._client.update_run(self.run_id, status="RUNNING")
            self._status = "RUNNING"
        while self._told < len(self._record.told):
            self._write_told(self._record.told[self._told])
            self._alive()
        if ended:
            self._end(figures=figures)

    def _found(self) -> tuple[Run | None, dict[int, Run]]:
        """The search's run, and those of its candidates by their number, as far as they are there."""
        search, nested, token = None, {}, None
        while True:
            where = f"tags.`nas.id` = '{self._record.id}'"
            runs = self._client.search_runs([self._experiment], where, max_results=PAGE, page_token=token)
            for run in runs:
                if "mlflow.parentRunId" not in run.data.tags:
                    search = run
                elif (number := run.data.tags.get("nas.trial", "")).isdecimal():
                    nested[int(number)] = run
            token = runs.token
            if not token:
                return search, nested

    def _create_search(self) -> str:
        tags = {
            "nas.note": self._header.note,
            "space": self._header.config.get("space", ""),
            "dataset": self._header.dataset["name"],
            "dataset_fingerprint": self._header.dataset["fingerprint"],
        }
        begun = self._record.sessions[0].at if self._record.sessions else self._record.at
        self._status = "RUNNING"
        return self._create(self._record.name, begun, tags)

    def _describe(self, search: Run | None) -> None:
        """The configuration and the data. What has changed since the run was made is a tag: parameters stay."""
        params = {key(name): str(value)[:6000] for name, value in flat(self._header.config)}
        there = search.data.params if search else {}
        self._log(self.run_id, params={name: value for name, value in params.items() if name not in there})
        for name, value in params.items():
            if there.get(name, value) != value:
                self._client.set_tag(self.run_id, f"changed.{name}", value)
        from mlflow.exceptions import MlflowException

        data = [dataset_of(self._header)]
        try:
            self._client.log_inputs(self.run_id, data)
        except MlflowException:  # another search has entered the same data in this moment
            self._client.log_inputs(self.run_id, data)

    def _last_step(self) -> int:
        """Up to which candidate the search's own curves are there."""
        return max((m.step for m in self._client.get_metric_history(self.run_id, "failed_trials")), default=0)

    def _write_told(self, told: Told) -> None:
        number = self._told + 1
        known = self._nested.pop(number, None)
        if known is not None and known.data.tags.get("nas.job") != told.trial.job.key:
            self._client.delete_run(known.info.run_id)  # what was told there has become void
            known = None
        if known is None or known.info.status == "RUNNING":  # not there, or a kill came in between
            self._write_candidate(number, told, known)
        self._progress(scored(told.trial, self._header.objectives), number, told.at)
        self._told = number

    def _write_candidate(self, number: int, told: Told, known: Run | None) -> None:
        trial, candidate = scored(told.trial, self._header.objectives), told.trial.job.candidate
        start = told.at - trial.metrics.get("train_seconds", 0.0)
        tags = {
            "mlflow.parentRunId": self.run_id,
            "nas.trial": str(number),
            "nas.job": trial.job.key,
            "architecture_id": trial.id,
            "origin": candidate.origin,
            "parents": ",".join(candidate.parents),
            "epochs": f"{trial.job.epochs:g}",
            "rung": rung(self._header, trial),
            "status": "failed" if trial.failure else "finished",
            "failure": trial.failure.kind if trial.failure else "",
            "failure_message": trial.failure.message if trial.failure else "",
            "mlflow.note.content": description(trial, self._header),
        }
        name = run_name(self._header.kind, number, trial)
        run_id = known.info.run_id if known else self._create(name, start, tags)
        self._log(run_id, params=candidate.choices, points=curve(trial, start))
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "architecture.json").write_text(pretty(candidate.architecture), encoding="utf-8")
            table = layers(candidate.architecture, self._header.limits)
            Path(folder, "layers.txt").write_text(table, encoding="utf-8")
            Path(folder, "network.svg").write_text(
                network_svg(candidate.architecture, self._header.limits), encoding="utf-8"
            )
            self._client.log_artifacts(run_id, folder)
        self._client.set_terminated(run_id, "FAILED" if trial.failure else "FINISHED", int(told.at * 1000))
        self.written += 1

    def _end(self, *, figures: bool) -> None:
        """The winner, or why there is none; the search's run is closed."""
        for void in self._nested.values():  # of more candidates than there are
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
        low, high = outcome.test_interval
        scores = {
            "winner_validation_accuracy_search": outcome.winner.metrics["validation_accuracy"],
            "winner_validation_accuracy_retrained": outcome.validation_accuracy,
            "winner_validation_accuracy_retrained_sd": outcome.spread,
            "winner_parameters": outcome.parameters,
            "test_accuracy": outcome.test_accuracy,
            "test_accuracy_low": low,
            "test_accuracy_high": high,
            "test_loss": outcome.test_loss,
            "selection_bias": outcome.selection_bias,
        }
        tags = {"winner": outcome.winner.id, "mlflow.note.content": story(outcome)}
        now = float((self._record.outcome or {})["at"])
        points = {(name, self._told): (value, now) for name, value in scores.items()}
        self._log(self.run_id, points=points, tags=tags)
        self._log_tables(outcome.front)
        self._client.log_text(self.run_id, pretty(outcome.architecture), "best/architecture.json")
        if outcome.weights.parent.is_dir():
            self._client.log_artifacts(self.run_id, str(outcome.weights.parent), "best")
        self._alive()
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
        """The figures, and the report, which has them too, for those without a server."""
        with tempfile.TemporaryDirectory() as folder:
            pictures = draw(self._record, Path(folder))
            self._alive()
            self._client.log_artifacts(self.run_id, folder, "figures")
            self._client.log_text(self.run_id, report(self._record, pictures), "report.html")
        self._alive()

    def _log_tables(self, front: Sequence[Trial] = ()) -> None:
        """The best networks; those on the Pareto front, where there are several objectives."""
        if self._trials:
            self._log_table("leaderboard.json", leaderboard(self._trials.values()))
        if front and len(self._header.objectives) > 1:
            metrics = [objective.metric for objective in self._header.objectives]
            columns = {metric: [trial.metrics[metric] for trial in front] for metric in metrics}
            self._log_table("pareto_front.json", {"id": [trial.id for trial in front], **columns})

    def _log_table(self, name: str, columns: Mapping[str, Sequence[Any]]) -> None:
        """A table as MLflow shows it. (Its own ``log_table`` adds to what is there.)"""
        rows = [list(row) for row in zip(*columns.values(), strict=True)]
        self._client.log_text(self.run_id, json.dumps({"columns": list(columns), "data": rows}), name)
        tables = json.loads(self._tags.get("mlflow.loggedArtifacts", "[]"))
        if (entry := {"path": name, "type": "table"}) not in tables:
            self._tags["mlflow.loggedArtifacts"] = json.dumps([*tables, entry])
            self._client.set_tag(self.run_id, "mlflow.loggedArtifacts", self._tags["mlflow.loggedArtifacts"])

    def _create(self, name: str, start: float, tags: Mapping[str, Any]) -> str:
        common = {
            "nas.id": self._record.id,
            "nas.search": self._record.name,
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

        finite = {key: point for key, point in (points or {}).items() if math.isfinite(point[0])}
        values = {key(name): str(value)[:6000] for name, value in (params or {}).items()}
        metrics = [Metric(key(name), value, int(at * 1000), step) for (name, step), (value, at) in finite.items()]
        given = [Param(name, value) for name, value in values.items()]
        first, rest = (metrics[:METRICS], given[:PARAMS]), (metrics[METRICS:], given[PARAMS:])
        self._client.log_batch(run_id, *first, [RunTag(name, value) for name, value in (tags or {}).items()])
        for start in range(0, len(rest[0]), METRICS):
            self._client.log_batch(run_id, rest[0][start : start + METRICS])
        for start in range(0, len(rest[1]), PARAMS):
            self._client.log_batch(run_id, params=rest[1][start : start + PARAMS])

    def _progress(self, trial: Trial, number: int, at: float) -> None:
        """The search's own curves, over the trials told so far."""
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
        if number <= self._shown:
            return
        curves = {"failed_trials": self._failed, **{f"best_{name}": best for name, best in self._best.items()}}
        objectives = self._header.objectives if len(self._header.objectives) > 1 else COMPARED
        curves["hypervolume"] = hypervolume(self._trials.values(), objectives, self._header.limits)
        self._log(self.run_id, points={(name, number): (value, at) for name, value in curves.items()})

    def _close(self, status: str, at: float) -> None:
        configuration = self._header.folder / "search.toml"
        if configuration.is_file():
            self._client.log_artifact(self.run_id, str(configuration))
        self._client.set_terminated(self.run_id, status, int(at * 1000))
        self._status = status
