"""MLflow holds what the study holds."""

import threading
from pathlib import Path

import pytest

from jaxdqn import tracking
from jaxdqn.tracking import Metric, Tracker, TrialRecord

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's own, at import


def record(number: int, state: str = "complete", points: int = 3) -> TrialRecord:
    value = 10.0 * number if state == "complete" else float("nan")
    curve = [Metric("loss", 1.0 / (i + 1), 100 * i) for i in range(points)]
    curve.append(Metric("training_return", float("nan"), 0))
    params = {"learning_rate": 0.001 * (number + 1), "double_q": True}
    return TrialRecord(number, state, params, {"mean_return": value, "std_return": 1.5}, curve)


def mirrored(directory: Path, *trials: TrialRecord) -> str | None:
    artifacts = directory / "artifacts"
    tracker = Tracker(f"sqlite:///{directory}/mlflow.db", "a study", artifacts, {"jaxdqn.space": "default"})
    for trial in trials:
        tracker.record(trial)
    return tracker.close()


def test_each_trial_is_one_child_of_one_parent_however_often_it_is_sent(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    assert mirrored(tmp_path, record(0), record(1, "failed"), record(2, points=1_500)) is None
    assert mirrored(tmp_path, record(0), record(1, "failed"), record(2), record(3)) is None
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("a study")
    runs = client.search_runs([experiment.experiment_id])
    parents = [run for run in runs if tracking.STUDY_TAG in run.data.tags]
    children = sorted((run for run in runs if tracking.TRIAL_TAG in run.data.tags), key=lambda run: run.info.run_name)
    assert len(parents) == 1
    assert parents[0].info.status == "FINISHED"
    assert parents[0].data.tags["jaxdqn.space"] == "default"
    assert [run.info.run_name for run in children] == [f"trial-{i:04d}" for i in range(4)]
    assert {run.data.tags[tracking.PARENT_TAG] for run in children} == {parents[0].info.run_id}
    assert [run.info.status for run in children] == ["FINISHED", "FAILED", "FINISHED", "FINISHED"]
    assert children[3].data.params == {"learning_rate": "0.004", "double_q": "True"}
    assert children[3].data.metrics == {"mean_return": 30.0, "std_return": 1.5, "loss": 1 / 3}
    assert children[1].data.tags["mean_return"] == "nan"
    assert "mean_return" not in children[1].data.metrics
    history = client.get_metric_history(children[0].info.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(0, 1.0), (100, 0.5), (200, 1 / 3)]
    assert len(client.get_metric_history(children[2].info.run_id, "loss")) == 1_500


def test_a_tracker_that_cannot_be_reached_is_said_and_holds_nothing_up(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    tracker = Tracker(f"sqlite:///{tmp_path}/file/mlflow.db", "s", None, {})
    tracker.record(record(0))
    tracker.record(record(1))
    failure = tracker.close()
    assert failure is not None
    assert failure.startswith("2 trials are not in MLflow: ")


def test_a_server_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forever = threading.Event()
    monkeypatch.setattr(tracking, "_Mirror", lambda *_: forever.wait())
    tracker = Tracker("http://localhost:9", "s", None, {})
    tracker.record(record(0))
    assert tracker.close(patience_s=0.3) == "1 trials are not in MLflow: it does not answer"
    forever.set()


def test_a_study_whose_name_has_quotes_is_mirrored(tmp_path: Path) -> None:
    for _ in range(2):
        tracker = Tracker(f"sqlite:///{tmp_path}/mlflow.db", 'bob\'s "own"', tmp_path / "artifacts", {})
        tracker.record(record(0))
        assert tracker.close() is None


@pytest.mark.parametrize("uri", ["file:///tmp/x", "mlruns", "ftp://host"])
def test_a_uri_that_mlflow_cannot_track_to_is_refused(uri: str) -> None:
    with pytest.raises(ValueError, match="sqlite"):
        tracking.check_uri(uri)
