"""The only file that knows MLflow: one parent run a study, one child run a trial.

MLflow is imported (3 s) and creates its schema (4 s) where a `MlflowSink` is constructed: in its follower's thread.
"""

from __future__ import annotations

import csv
import heapq
import logging
import math
import os
import secrets
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from jaxdqn.follower import FINISHED, Conclusion, Metric, Trial, TrialDetail
from jaxdqn.redact import hide_password, short

SCHEMES = ("sqlite", "postgresql", "mysql", "mssql", "http", "https")
ALL_UP_TO, BEST_KEPT = 1_000, 100  # trials with a run each; further ones have one while they are among the best
TABLE = "trials.csv"  # all trials of a study, an artifact of its run

STUDY_TAG, TRIAL_TAG, PARENT_TAG = "jaxdqn.study", "jaxdqn.trial", "mlflow.parentRunId"
WINNER_TAG = "jaxdqn.winner"
LOG_TAG, STATE_TAG, SKIPPED_TAG = "jaxdqn.log", "jaxdqn.state", "jaxdqn.trials_without_a_run"


def check_uri(uri: str) -> None:
    """Raise ValueError if MLflow can't track to `uri`."""
    try:
        parts = urlsplit(uri)
        scheme = parts.scheme.split("+")[0]
        lost = scheme.startswith("http") and "@" in uri and "@" not in parts.netloc  # its password ends the address
        fits = scheme in SCHEMES and not lost
    except ValueError:
        fits = False
    if not fits:
        allowed = f"'off' or a URI that starts with {', '.join(SCHEMES)}, with / ? # quoted in its password"
        raise ValueError(f"--tracking {short(hide_password(uri))} is not allowed: {allowed}")


class _Row(NamedTuple):
    """A trial as the table has it."""

    state: str
    value: float | None
    params: dict[str, Any]


class _Run(NamedTuple):
    """A child run."""

    run_id: str
    ended: bool
    params: frozenset[str]  # names of those it has; MLflow refuses to change them


def _make_schema(uri: str, make: Callable[[str], object]) -> None:
    """Make the schema of a new SQLite database under another name: MLflow can't complete one that was cut off."""
    prefix, _, name = uri.partition(":///")
    path = Path(name)
    if prefix != "sqlite" or not name or name.startswith(":") or "?" in name or path.exists():
        return
    unfinished = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        make(f"{prefix}:///{unfinished.as_posix()}")
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


class MlflowSink:
    """One parent run in MLflow, found again by its tag, and its children."""

    ordered = False

    def __init__(
        self,
        uri: str,
        study: str,
        artifacts: Path | None,
        tags: dict[str, str],
        log_id: str = "",
        all_up_to: int = ALL_UP_TO,
        best_kept: int = BEST_KEPT,
    ) -> None:
        """Import MLflow, find or create the study's run and read which trials have one.

        Args:
            uri: where to track to.
            study: the name of the experiment and of the parent run.
            artifacts: where a new experiment keeps files; None leaves it to a server.
            tags: of a new parent run.
            log_id: of the study's log: a run of another log with the same name is another study's.
            all_up_to: so many trials have a run each, whatever they are worth.
            best_kept: further ones have a run if they are among so many best so far.
        """
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
        self._all_up_to, self._best_kept = all_up_to, best_kept
        self._rows: dict[int, _Row] = {}
        self._best: list[tuple[float, int]] = []  # a heap of the best (value, -number) of all trials so far
        self._skipped: set[int] = set()
        self._unsure: set[int] = set()  # trials whose run may be there though its creation failed
        _make_schema(uri, lambda there: MlflowClient(tracking_uri=there).search_experiments(max_results=1))
        self._client = MlflowClient(tracking_uri=uri)
        known = self._client.get_experiment_by_name(study)
        self._experiment = (
            known.experiment_id
            if known
            else self._client.create_experiment(study, artifact_location=artifacts.as_uri() if artifacts else None)
        )
        runs = self._search("")
        ours = {STUDY_TAG: study, LOG_TAG: log_id}
        parents = [run for run in runs if ours.items() <= run.data.tags.items()]
        if parents:
            self._parent = parents[0].info.run_id
            self._client.update_run(self._parent, status="RUNNING")
        else:
            tags = {**ours, **tags}
            self._parent = self._client.create_run(self._experiment, tags=tags, run_name=study).info.run_id
        self._runs = self._children(runs)

    @property
    def skipped(self) -> int:
        """Finished trials that have no run of their own."""
        return len(self._skipped)

    def write(self, trials: list[Trial]) -> None:
        """Record finished trials as child runs; those that have one cost no call."""
        for trial in trials:
            self._note(trial)
            if trial.state in FINISHED:
                self._write(trial)

    def close(self, conclusion: Conclusion | None = None) -> None:
        """Attach what the sweep has come to and the table of all trials to the parent run, and end it."""
        try:
            if conclusion is not None:
                self._conclude(conclusion)
            if self._skipped:
                self._client.set_tag(self._parent, SKIPPED_TAG, f"{len(self._skipped)}, see {TABLE}")
            with tempfile.TemporaryDirectory(prefix="jaxdqn-") as directory:
                self._client.log_artifact(self._parent, str(self._write_table(Path(directory))))
        finally:
            self._client.set_terminated(self._parent)

    def _conclude(self, conclusion: Conclusion) -> None:
        """Log the figures on fresh seeds to the runs of their trials, the verdict and the report to the study's."""
        for one in conclusion.confirm:
            self._log_figures(self._run_of(one["number"]), "confirm", one)
        if conclusion.verdict is not None:
            self._log_figures(self._parent, "verdict", conclusion.verdict)
            self._client.set_tag(self._parent, WINNER_TAG, str(conclusion.verdict["number"]))
        for file in conclusion.files:
            self._client.log_artifact(self._parent, str(file), None if file.suffix == ".html" else "pictures")
        for trial, files in conclusion.agents.items():
            run = self._run_of(trial)
            there = {Path(x.path).name for x in self._client.list_artifacts(run, f"agents/trial-{trial}")}
            for file in files:
                if file.name not in there:
                    self._client.log_artifact(run, str(file), f"agents/trial-{trial}")

    def _run_of(self, trial: int) -> str:
        run = self._runs.get(trial)
        return run.run_id if run else self._parent

    def _log_figures(self, run_id: str, prefix: str, figures: dict[str, Any]) -> None:
        """Log the figures that are not there yet."""
        known = self._client.get_run(run_id).data.metrics
        for name in ("solved_share", "mean_return", "iqm_return", "worst_seed_return", "search_return"):
            value = figures.get(name)
            if value is not None and known.get(f"{prefix}_{name}") != value:
                self._client.log_metric(run_id, f"{prefix}_{name}", value)

    def _note(self, trial: Trial) -> None:
        """Keep what the table and the choice of the best need."""
        known = self._rows.get(trial.number)
        self._rows[trial.number] = _Row(trial.state, trial.value, trial.params)
        is_news = trial.state in FINISHED and (known is None or known.state not in FINISHED)
        if is_news and trial.state == "complete" and trial.value is not None and math.isfinite(trial.value):
            heapq.heappush(self._best, (trial.value, -trial.number))
            if len(self._best) > self._best_kept:
                heapq.heappop(self._best)

    def _wanted(self, trial: Trial) -> bool:
        """Return whether a trial gets a run. Of equals the earlier is the better: there may be many perfect ones."""
        if len(self._runs) < self._all_up_to:
            return True
        return trial.value is not None and bool(self._best) and (trial.value, -trial.number) >= self._best[0]

    def _write(self, trial: Trial) -> None:
        run = self._runs.get(trial.number) or self._look(trial.number)
        if run is None and not self._wanted(trial):
            self._skipped.add(trial.number)
            return
        if run is not None and run.ended:
            return
        ended = _milliseconds(trial.ended) or int(time.time() * 1000)
        if run is None:
            self._unsure.add(trial.number)
            tags = {PARENT_TAG: self._parent, TRIAL_TAG: str(trial.number)}
            started, name = _milliseconds(trial.started) or ended, f"trial-{trial.number:04d}"
            created = self._client.create_run(self._experiment, started, tags=tags, run_name=name)
            run = self._runs[trial.number] = _Run(created.info.run_id, False, frozenset())
            self._unsure.discard(trial.number)
        detail = trial.detail or _from_log(trial)
        metrics = [*(Metric(name, value, 0) for name, value in detail.metrics.items()), *detail.curve]
        notes = {STATE_TAG: trial.state}
        notes |= {name: str(value) for name, value in detail.metrics.items() if not math.isfinite(value)}
        self._client.log_batch(
            run.run_id,
            metrics=[self._metric(m.name, m.value, ended, m.step) for m in metrics if math.isfinite(m.value)],
            params=[self._param(name, str(x)) for name, x in detail.params.items() if name not in run.params],
            tags=[self._tag(name, note) for name, note in notes.items()],
        )
        self._client.set_terminated(run.run_id, "FAILED" if trial.state == "failed" else "FINISHED", ended)
        self._runs[trial.number] = run._replace(ended=True)
        self._skipped.discard(trial.number)

    def _look(self, number: int) -> _Run | None:
        """Look for the run of a trial whose creation failed, perhaps only in its answer."""
        if number in self._unsure:
            self._runs |= self._children(self._search(f"tags.`{TRIAL_TAG}` = '{number}'"))
            self._unsure.discard(number)
        return self._runs.get(number)

    def _search(self, query: str) -> list[Any]:
        found: list[Any] = []
        token = None
        while True:
            page = self._client.search_runs([self._experiment], query, self._active, page_token=token)
            found += page
            token = page.token
            if not token:
                return found

    def _children(self, runs: list[Any]) -> dict[int, _Run]:
        """Return the runs of trials by number."""
        return {
            int(tags[TRIAL_TAG]): _Run(
                run.info.run_id, run.info.status in ("FINISHED", "FAILED"), frozenset(run.data.params)
            )
            for run in runs
            if (tags := run.data.tags).get(PARENT_TAG) == self._parent and TRIAL_TAG in tags
        }

    def _write_table(self, directory: Path) -> Path:
        names = list(dict.fromkeys(name for row in self._rows.values() for name in row.params))
        path = directory / TABLE
        with path.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["number", "state", "value", *names])
            for number, row in sorted(self._rows.items()):
                table.writerow([number, row.state, row.value, *(row.params.get(name) for name in names)])
        return path


def _from_log(trial: Trial) -> TrialDetail:
    """Return what the log knows of a trial."""
    metrics = {k: x for k, x in trial.attributes.items() if isinstance(x, int | float) and not isinstance(x, bool)}
    if trial.state == "complete" and trial.value is not None:
        metrics["mean_return"] = trial.value
    curve = [Metric("validation_return", value, step) for step, value in trial.intermediate.items()]
    return TrialDetail(trial.params, metrics, curve)


def _milliseconds(when: datetime | None) -> int | None:
    return None if when is None else int(when.timestamp() * 1000)
