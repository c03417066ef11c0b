"""The only file that knows MLflow: one parent run a sweep, one child run a trial.

MLflow mirrors the study and never holds it up: a thread of its own imports it (3 s), creates its schema (4 s) and
writes. What fails is counted and said, and the search goes on.
"""

from __future__ import annotations

import logging
import math
import os
import queue
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from jaxdqn.redact import hide_password

SCHEMES = ("sqlite", "postgresql", "mysql", "mssql", "http", "https")
MAX_FAILURES = 3  # in a row: then the rest is left to the next sweep of the study
_BATCH = 1_000  # metrics a call, MLflow's limit

STUDY_TAG, TRIAL_TAG, PARENT_TAG = "jaxdqn.study", "jaxdqn.trial", "mlflow.parentRunId"


class Metric(NamedTuple):
    """One value of a learning curve."""

    name: str
    value: float
    step: int  # environment steps


class TrialRecord(NamedTuple):
    """A finished trial, as it is mirrored."""

    number: int
    state: str
    params: dict[str, Any]
    metrics: dict[str, float]
    curve: list[Metric]


def check_uri(uri: str) -> None:
    """Raise ValueError if MLflow can't track to `uri`."""
    scheme = urlsplit(uri).scheme.split("+")[0]
    if scheme not in SCHEMES:
        allowed = f"'off' or a URI that starts with {', '.join(SCHEMES)}"
        raise ValueError(f"--tracking {hide_password(uri)!r} is not allowed: {allowed}")


class Tracker:
    """A queue of finished trials and the thread that records them."""

    def __init__(self, uri: str, study: str, artifacts: Path | None, tags: dict[str, str]) -> None:
        """Start the thread. `artifacts`: where a new experiment keeps files; None leaves it to a server."""
        self._uri, self._study, self._artifacts, self._tags = uri, study, artifacts, tags
        self._queue: queue.Queue[TrialRecord | None] = queue.Queue()
        self._sent = self._handled = self._missing = 0
        self._reason = "it does not answer"
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._thread.start()

    def record(self, trial: TrialRecord) -> None:
        """Queue a finished trial; one that MLflow already holds is not recorded twice."""
        self._sent += 1
        self._queue.put(trial)

    @property
    def waiting(self) -> int:
        """Trials not yet recorded."""
        return self._sent - self._handled

    def close(self, patience_s: float = 60.0) -> str | None:
        """Write what is queued and end the parent run; say what is missing, if anything is.

        Gives up when nothing has been written for `patience_s` seconds.
        """
        self._queue.put(None)
        handled, since = self._handled, time.monotonic()
        while self._thread.is_alive() and time.monotonic() - since < patience_s:
            self._thread.join(0.2)
            if self._handled > handled:
                handled, since = self._handled, time.monotonic()
        missing = self._missing + self.waiting
        return f"{missing} trials are not in MLflow: {self._reason}" if missing else None

    def _work(self) -> None:
        try:
            mirror: _Mirror | None = _Mirror(self._uri, self._study, self._artifacts, self._tags)
        except Exception as error:  # a mirror that fails must not stop the search
            mirror = None
            self._note(error)
        in_a_row = 0
        while (trial := self._queue.get()) is not None:
            try:
                if mirror is None or in_a_row >= MAX_FAILURES:
                    self._missing += 1
                else:
                    mirror.write(trial)
                    in_a_row = 0
            except Exception as error:
                in_a_row += 1
                self._missing += 1
                self._note(error)
            self._handled += 1
        try:
            if mirror is not None:
                mirror.end()
        except Exception as error:
            self._note(error)

    def _note(self, error: Exception) -> None:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        self._reason = hide_password(lines[0], self._uri)


class _Mirror:
    """One parent run in MLflow, found again by its tag."""

    def __init__(self, uri: str, study: str, artifacts: Path | None, tags: dict[str, str]) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        from mlflow import MlflowClient
        from mlflow.entities import Metric as MlflowMetric
        from mlflow.entities import Param, RunTag, ViewType

        self._metric, self._param, self._tag, self._active = MlflowMetric, Param, RunTag, ViewType.ACTIVE_ONLY
        for name in ("mlflow", "mlflow.store.db.utils", "alembic"):
            logging.getLogger(name).setLevel(logging.ERROR)
        self._client = MlflowClient(tracking_uri=uri)
        known = self._client.get_experiment_by_name(study)
        self._experiment = (
            known.experiment_id
            if known
            else self._client.create_experiment(study, artifact_location=artifacts.as_uri() if artifacts else None)
        )
        runs = self._search()
        parents = [run.info.run_id for run in runs if run.data.tags.get(STUDY_TAG) == study]
        if parents:
            self._parent = parents[0]
            self._client.update_run(self._parent, status="RUNNING")
        else:
            tags = {STUDY_TAG: study, **tags}
            self._parent = self._client.create_run(self._experiment, tags=tags, run_name=study).info.run_id
        children = [run for run in runs if run.data.tags.get(PARENT_TAG) == self._parent]
        self._runs = {int(run.data.tags[TRIAL_TAG]): run for run in children if TRIAL_TAG in run.data.tags}

    def write(self, trial: TrialRecord) -> None:
        """Record a trial as a child run; go on with one that was left half-written."""
        run = self._runs.get(trial.number)
        if run is not None and run.info.status in ("FINISHED", "FAILED"):
            return
        now = int(time.time() * 1000)
        if run is None:
            tags = {PARENT_TAG: self._parent, TRIAL_TAG: str(trial.number)}
            run = self._client.create_run(self._experiment, now, tags=tags, run_name=f"trial-{trial.number:04d}")
            self._runs[trial.number] = run
        run_id = run.info.run_id
        finite = {name: value for name, value in trial.metrics.items() if math.isfinite(value)}
        rest = {name: value for name, value in trial.metrics.items() if name not in finite}
        metrics = [self._metric(name, value, now, 0) for name, value in finite.items()]
        metrics += [self._metric(p.name, p.value, now, p.step) for p in trial.curve if math.isfinite(p.value)]
        params = [self._param(name, str(value)) for name, value in trial.params.items()]
        notes = [self._tag("jaxdqn.state", trial.state), *(self._tag(name, str(value)) for name, value in rest.items())]
        self._client.log_batch(run_id, metrics=metrics[:_BATCH], params=params, tags=notes)
        for start in range(_BATCH, len(metrics), _BATCH):
            self._client.log_batch(run_id, metrics=metrics[start : start + _BATCH])
        self._client.set_terminated(run_id, "FINISHED" if trial.state == "complete" else "FAILED")
        self._runs[trial.number] = self._client.get_run(run_id)

    def end(self) -> None:
        """End the parent run."""
        self._client.set_terminated(self._parent)

    def _search(self) -> list[Any]:
        found: list[Any] = []
        token = None
        while True:
            page = self._client.search_runs([self._experiment], "", self._active, page_token=token)
            found += page
            token = page.token
            if not token:
                return found
