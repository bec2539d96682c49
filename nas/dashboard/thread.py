"""The thread that writes a search to an MLflow store while the search goes on.

Only this thread imports and calls MLflow, so that neither its import (5 s) nor its writes (0.05 s a trial) nor a
dead store delays a trial. A write that fails is tried again later, from the record.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from threading import Event, Thread
from typing import TYPE_CHECKING

from nas.dashboard.store import LAST_PROBE, PROBE, SERVERS, LogModel, import_mlflow, probe, quiet, reason_of
from nas.errors import NasError, masked
from nas.records.observer import Observer
from nas.records.record import Record, place
from nas.trial import Trial

if TYPE_CHECKING:
    from nas.dashboard.writer import Writer

PATIENCE = 120.0  # seconds without progress after which `close` gives up; the export of the winner takes 20
PROBES = 3  # that a server may leave without an answer, one after another: it may be busy with a large model
SHORT_PATIENCE = 2.0  # the same, for a store that has already failed
FIRST_PAUSE = 1.0  # seconds after the first candidate, in which it shows how fast they come
BEHIND = 50  # candidates, from which on another process writes them
PAUSES = (5.0, 10.0, 20.0, 40.0, 60.0)  # seconds after a failure until the next attempt


class MlflowThread(Observer):
    """Shows a search in MLflow. Its methods return at once; `close` waits until everything is written.

    Args:
        record: of the search.
        warn: gets one line, once, if MLflow cannot be written; called from another thread.
        tracking_uri: the address of the store.
        log_model: logs the winner as a model, given the outcome, the store and the run.
        warm_up: imports what ``log_model`` needs.
        pauses: whether a search that ends here without a result goes on later, when its comparison is tested.
    """

    def __init__(
        self,
        record: Record,
        warn: Callable[[str], None],
        tracking_uri: str,
        log_model: LogModel | None = None,
        warm_up: Callable[[], None] = lambda: None,
        *,
        pauses: bool = False,
    ) -> None:
        self.tracking_uri = tracking_uri
        self.run_id: str | None = None  # the search's run, once it exists
        self._record, self._warn, self._log_model, self._warm_up = record, warn, log_model, warm_up
        self._left = 0  # trainings of the final selection
        self._written = len(record.told)  # candidates that are in the store: of earlier processes, as a rule
        self._pauses = pauses
        self._news, self._closing = Event(), Event()
        self._steps = 0
        self._trouble = ""  # the reason of the last failure
        self._warned = False
        # It starts with the first candidate: before, an import of MLflow delays the workers' start by 5 s.
        self._thread = Thread(target=self._run, name="mlflow", daemon=True)

    def told(self, trial: Trial) -> None:
        """Write the new trial."""
        if self._thread.ident is None:
            self._thread.start()
        self._news.set()

    def selecting(self, jobs: int, epochs: float) -> None:
        """Count the trainings of the final selection."""
        self._left = jobs
        if jobs == 1:
            self._news.set()

    def trained(self, trial: Trial) -> None:
        """Import the modules for the model (1.7 s) during the last training, when the other cores are idle."""
        self._left -= 1
        if self._left == 1:
            self._news.set()

    def close(self) -> None:
        """Wait until everything is written, as long as the store makes progress."""
        if self._closing.is_set() or not self._record.told:
            return
        self._closing.set()
        self.told(self._record.told[-1].trial)
        steps, since, silent = self._steps, time.monotonic(), 0
        while True:
            self._thread.join(SHORT_PATIENCE)
            if not self._thread.is_alive():
                return
            if self._steps != steps:
                steps, since, silent = self._steps, time.monotonic(), 0
            elif self._trouble or time.monotonic() - since > PATIENCE:
                self._fail(f"no answer for {PATIENCE:g} s")
                return
            elif self.tracking_uri.startswith(SERVERS):
                try:
                    probe(self.tracking_uri)
                    silent = 0
                except Exception as error:  # noqa: BLE001  # a call of MLflow would wait for minutes
                    silent += 1
                    if self._steps == steps and silent == PROBES:
                        self._fail(reason_of(error))
                        return

    def _run(self) -> None:
        writer = None
        failures = 0
        self._closing.wait(FIRST_PAUSE)
        while True:
            last = self._closing.is_set()
            self._news.clear()
            try:
                if not last and self._is_behind():
                    writer = self._catch_up()
                    continue
                goes_on = self._pauses and self._record.outcome is None and self._record.ended is None
                writer = self._write(writer, ended=last and not goes_on)
                self._written = writer.told
                if self._left == 1 and not last:
                    self._warm_up()
                self._trouble, failures = "", 0
            except Exception as error:  # noqa: BLE001  # any exception of MLflow; the search goes on
                writer = None
                self._fail(reason_of(error))
                failures += 1
            if last:
                return
            if self._trouble:
                self._closing.wait(PAUSES[min(failures, len(PAUSES)) - 1])
            else:
                self._news.wait()

    def _is_behind(self) -> bool:
        return len(self._record.told) - self._written > BEHIND

    def _catch_up(self) -> Writer | None:
        """Let another process write: this one is busy with many trials a second.

        When the search is over, this process writes the second half of what is left; returns its writer.
        """
        from nas.dashboard.behind import Behind

        probe(self.tracking_uri)
        self._trouble = ""  # the store answers: `close` may wait for it
        self._step()
        writer, is_halved = None, False
        with Behind(self._record.path, self.tracking_uri) as other:
            for state in other:
                self._written = max(self._written, state.written)
                self._step()
                if not is_halved and self._closing.is_set() and self._is_behind():
                    other.halve(self._written, len(self._record.told))
                    is_halved = True
                if writer is None and state.last is not None:
                    writer = self._new_writer(PROBE)
                    with quiet():
                        writer.leave(state.last)
                        writer.write(ended=False)
                    self._written = writer.told
        return writer

    def _new_writer(self, patience: float) -> Writer:
        probe(self.tracking_uri, patience)
        self._trouble = ""  # the store answers: `close` may wait for it
        self._step()
        from nas.dashboard.writer import Writer

        import_mlflow()
        with quiet():
            writer = Writer(self._record, self.tracking_uri, self._log_model, self._step)
        self.run_id = writer.run_id
        self._step()
        return writer

    def _write(self, writer: Writer | None, *, ended: bool) -> Writer:
        """Write the record to the store, with a new writer if there is none or the old one is stale."""
        if writer is None or writer.is_stale:
            writer = self._new_writer(LAST_PROBE if ended and self._trouble else PROBE)
        interrupted = self._record.ended is not None and self._record.ended["status"] == "interrupted"
        with quiet():  # the user waits after Ctrl-C; `nas sync` draws the figures
            writer.write(ended=ended, figures=not interrupted)
        return writer

    def _step(self) -> None:
        self._steps += 1

    def _fail(self, reason: str) -> None:
        self._trouble = reason
        if not self._warned:
            self._warned = True
            advice = f"`nas sync {shlex.quote(place(self._record.path.parent))}` writes the missing entries"
            self._warn(f"MLflow cannot be written ({reason}); the search goes on and tries again later. {advice}")


def sync(record: Record, tracking_uri: str, log_model: LogModel | None = None, *, figures: bool = True) -> int:
    """Write the missing entries of a search on which no process works; returns the number of new candidates.

    Args:
        record: of the search.
        tracking_uri: the address of the store.
        log_model: logs the winner as a model.
        figures: whether to draw the figures of a search without a winner.

    Raises:
        NasError: the store cannot be written.
    """
    try:
        probe(tracking_uri)
        import_mlflow()
        from nas.dashboard.writer import Writer

        with quiet():
            writer = Writer(record, tracking_uri, log_model)
            writer.write(ended=True, figures=figures)
    except Exception as error:  # noqa: BLE001  # any exception of MLflow
        raise NasError(f"MLflow cannot be written at {masked(tracking_uri)}: {reason_of(error)}") from None
    return writer.written
