"""MLflow holds what the study holds."""

import csv
import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from jaxdqn import tracking
from jaxdqn.follower import Conclusion, Follower, Metric, Trial, TrialDetail
from jaxdqn.tracking import MlflowSink, _make_schema

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's own, at import

BEGAN, ENDED = datetime(2026, 11, 22, 12, 0), datetime(2026, 11, 22, 12, 5)


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database, which takes MLflow seconds to create."""
    path = tmp_path_factory.mktemp("schema") / "mlflow.db"
    MlflowSink(f"sqlite:///{path}", "another study", path.parent / "artifacts", {})
    return path


@pytest.fixture
def place(tmp_path: Path, schema: Path) -> Path:
    shutil.copy(schema, tmp_path / "mlflow.db")
    return tmp_path


def trial(number: int, state: str = "complete", value: float | None = None, points: int = 3) -> Trial:
    value = None if state in ("failed", "running") else 10.0 * number if value is None else value
    curve = [Metric("loss", 1.0 / (i + 1), 100 * i) for i in range(points)]
    curve.append(Metric("training_return", float("nan"), 0))
    searched = {"learning_rate": 0.001 * (number + 1)}
    metrics = {"mean_return": float("nan") if value is None else value, "std_return": 1.5}
    detail = None if state == "running" else TrialDetail({**searched, "double_q": True}, metrics, curve)
    return Trial(number, state, value, searched, {}, {}, BEGAN, None if state == "running" else ENDED, detail)


def sink(directory: Path, study: str = "a study", **limits: int) -> MlflowSink:
    uri = f"sqlite:///{directory}/mlflow.db"
    return MlflowSink(uri, study, directory / "artifacts", {"jaxdqn.space": "default"}, **limits)


def mirrored(directory: Path, *trials: Trial, study: str = "a study") -> str | None:
    follower = Follower("MLflow", lambda: sink(directory, study), trials, delays_s=(0.01,))
    return follower.close()


def runs(directory: Path, study: str = "a study") -> tuple[Any, list[Any]]:
    """Return the parent run and its children in the order of their numbers."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{directory}/mlflow.db")
    found = client.search_runs([client.get_experiment_by_name(study).experiment_id])
    (parent,) = [run for run in found if tracking.STUDY_TAG in run.data.tags]
    children = [run for run in found if tracking.TRIAL_TAG in run.data.tags]
    assert {run.data.tags[tracking.PARENT_TAG] for run in children} <= {parent.info.run_id}
    assert len(found) == 1 + len(children)
    return parent, sorted(children, key=lambda run: int(run.data.tags[tracking.TRIAL_TAG]))


def numbers(children: list[Any]) -> list[int]:
    return [int(run.data.tags[tracking.TRIAL_TAG]) for run in children]


def history(directory: Path, run: Any, name: str) -> list[tuple[int, float]]:
    from mlflow import MlflowClient

    points = MlflowClient(f"sqlite:///{directory}/mlflow.db").get_metric_history(run.info.run_id, name)
    return [(point.step, point.value) for point in points]


def table(directory: Path, study: str = "a study") -> list[list[str]]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{directory}/mlflow.db")
    parent, _ = runs(directory, study)
    with open(client.download_artifacts(parent.info.run_id, tracking.TABLE), newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def watch(watched: MlflowSink) -> list[str]:
    """Return a list that grows with every call of MLflow."""
    calls: list[str] = []

    class Watched:
        def __init__(self, client: Any) -> None:
            self.client = client

        def __getattr__(self, name: str) -> Callable[..., Any]:
            calls.append(name)
            return getattr(self.client, name)

    watched._client = Watched(watched._client)
    return calls


def test_each_trial_is_one_child_of_one_parent_however_often_it_is_sent(place: Path) -> None:
    assert mirrored(place, trial(0), trial(1, "failed"), trial(2, points=1_500), trial(3, "running")) is None
    assert mirrored(place, trial(0), trial(1, "failed"), trial(2), trial(3), trial(4, "pruned")) is None
    parent, children = runs(place)
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["jaxdqn.space"] == "default"
    assert [run.info.run_name for run in children] == [f"trial-{i:04d}" for i in range(5)]
    assert [run.info.status for run in children] == ["FINISHED", "FAILED", "FINISHED", "FINISHED", "FINISHED"]
    states = [run.data.tags[tracking.STATE_TAG] for run in children]
    assert states == ["complete", "failed", "complete", "complete", "pruned"]
    assert children[3].data.params == {"learning_rate": "0.004", "double_q": "True"}
    assert children[3].data.metrics == {"mean_return": 30.0, "std_return": 1.5, "loss": 1 / 3}
    assert children[1].data.tags["mean_return"] == "nan"
    assert "mean_return" not in children[1].data.metrics
    assert (children[0].info.start_time, children[0].info.end_time) == (
        BEGAN.timestamp() * 1000,
        ENDED.timestamp() * 1000,
    )
    assert history(place, children[0], "loss") == [(0, 1.0), (100, 0.5), (200, 1 / 3)]
    assert len(history(place, children[2], "loss")) == 1_500


def test_a_trial_sent_again_from_the_log_has_what_the_log_knows(place: Path) -> None:
    attributes = {"std_return": 0.5, "returns": [1.0, None], "stopped_early": True, "note": "x"}
    known = Trial(0, "complete", 9.0, {"gamma": 0.9}, attributes, {1000: 4.0, 2000: 8.0}, BEGAN, ENDED)
    assert mirrored(place, known, known._replace(number=1, state="failed", value=None, attributes={})) is None
    _, (complete, failed) = runs(place)
    assert complete.data.params == failed.data.params == {"gamma": "0.9"}
    assert complete.data.metrics == {"mean_return": 9.0, "std_return": 0.5, "validation_return": 8.0}
    assert failed.data.metrics == {"validation_return": 8.0}
    assert history(place, complete, "validation_return") == [(1000, 4.0), (2000, 8.0)]


def test_a_run_that_was_left_half_written_is_continued(place: Path) -> None:
    left = sink(place)
    left._client.set_terminated = lambda *_: 1 / 0
    with pytest.raises(ZeroDivisionError):
        left.write([trial(0)])
    assert [run.info.status for run in runs(place)[1]] == ["RUNNING"]
    again = trial(0)._replace(detail=None, params={"learning_rate": 0.5, "gamma": 0.9})  # what it has stays
    assert mirrored(place, again) is None
    _, (run,) = runs(place)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"learning_rate": "0.001", "double_q": "True", "gamma": "0.9"}
    assert history(place, run, "mean_return") == [(0, 0.0)]


def test_a_run_whose_creation_was_not_answered_is_found_again(place: Path) -> None:
    to = sink(place)
    create = to._client.create_run

    def losing(*args: Any, **kwargs: Any) -> None:
        create(*args, **kwargs)
        raise ConnectionError

    to._client.create_run = losing
    with pytest.raises(ConnectionError):
        to.write([trial(0)])
    to._client.create_run = create
    to.write([trial(0), trial(1)])
    to.close()
    assert [run.info.status for run in runs(place)[1]] == ["FINISHED"] * 2


def test_trials_that_have_a_run_cost_no_call_when_they_are_sent_again(place: Path) -> None:
    trials = [trial(number) for number in range(5)]
    assert mirrored(place, *trials) is None
    to = sink(place)
    calls = watch(to)
    to.write([*trials, trial(5, "running")])
    assert calls == []
    to.write([trial(5)])
    assert calls == ["create_run", "log_batch", "set_terminated"]
    to.close()
    assert [row[0] for row in table(place)] == ["number", *map(str, range(6))]


def test_of_very_many_trials_the_first_and_the_best_have_a_run(place: Path) -> None:
    values = [5.0, 1.0, 2.0, 3.0, 9.0, 4.0, 9.0, 9.0, 5.0, 9.0]
    trials = [trial(number, value=value) for number, value in enumerate(values)] + [trial(10, "failed")]
    to = sink(place, all_up_to=3, best_kept=2)
    for each in trials:
        to.write([each])
        to.write([each])
    assert to.skipped == 5
    to.close()
    parent, children = runs(place)
    assert numbers(children) == [0, 1, 2, 3, 4, 6]
    assert parent.data.tags[tracking.SKIPPED_TAG] == "5, see trials.csv"
    assert [row[0] for row in table(place)[1:]] == [str(number) for number in range(11)]


def test_resuming_after_very_many_trials_adds_no_run_for_an_old_one(place: Path) -> None:
    values = [5.0, 1.0, 2.0, 4.0, 9.0, 4.0, 9.0, 9.0]
    trials = [trial(number, value=value) for number, value in enumerate(values)]
    for _ in range(2):
        to = sink(place, all_up_to=3, best_kept=2)
        calls = watch(to)
        to.write(trials)
        to.close()
    assert set(calls) == {"set_tag", "log_artifact", "set_terminated"}
    assert len(table(place)) == 1 + len(trials)


def test_the_table_of_all_trials_is_an_artifact_of_the_parent_run(place: Path) -> None:
    study = 'bob\'s "own",\nstudy'
    awkward = {'a "quoted", name': 'x,"y"\nz', "learning_rate": 0.1}
    to = sink(place, study)
    to.write([trial(2)._replace(params=awkward), trial(3, "running")])
    to.write([trial(0), trial(1, "failed")])
    to.write([trial(3)])
    to.close()
    assert table(place, study) == [
        ["number", "state", "value", 'a "quoted", name', "learning_rate"],
        ["0", "complete", "0.0", "", "0.001"],
        ["1", "failed", "", "", "0.002"],
        ["2", "complete", "20.0", 'x,"y"\nz', "0.1"],
        ["3", "complete", "30.0", "", "0.004"],
    ]


def test_the_parent_run_ends_even_if_the_table_cannot_be_attached(place: Path) -> None:
    (place / "artifacts").touch()
    said = mirrored(place, trial(0))
    assert str(said).startswith("all trials are in MLflow, but it could not be closed: ")
    parent, children = runs(place)
    assert [run.info.status for run in (parent, *children)] == ["FINISHED"] * 2


def test_a_database_that_cannot_be_reached_is_said_and_holds_nothing_up(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = mirrored(tmp_path / "file", trial(0), trial(1))
    assert str(said).startswith("2 trials are not in MLflow: ")


def test_a_study_whose_name_has_quotes_is_mirrored(place: Path) -> None:
    for _ in range(2):
        assert mirrored(place, trial(0), study='bob\'s "own"') is None
    assert numbers(runs(place, 'bob\'s "own"')[1]) == [0]


def test_a_trial_that_mlflow_refuses_does_not_keep_the_others_out(place: Path) -> None:
    poison = trial(1)._replace(detail=TrialDetail({}, {"not a name!": 1.0}, []))
    said = mirrored(place, trial(0), poison, trial(2))
    assert str(said).startswith("1 trial is not in MLflow: ")
    assert [run.info.status for run in runs(place)[1]] == ["FINISHED", "RUNNING", "FINISHED"]


@pytest.mark.parametrize("password", ["a/b", "/a", "a?b", "a#b"])
def test_a_password_that_another_host_would_be_sent_is_refused(password: str) -> None:
    with pytest.raises(ValueError, match="quoted in its password"):
        tracking.check_uri(f"http://user:{password}@host:5000")
    tracking.check_uri("http://user:a%2Fb@host:5000")


@pytest.mark.parametrize("uri", ["file:///tmp/x", "mlruns", "ftp://host", "http://[", "http://u:\u2100@h"])
def test_a_uri_that_mlflow_cannot_track_to_is_refused(uri: str) -> None:
    with pytest.raises(ValueError, match="sqlite"):
        tracking.check_uri(uri)


def test_a_log_of_the_same_name_has_a_run_of_its_own(place: Path) -> None:
    from mlflow import MlflowClient

    uri = f"sqlite:///{place}/mlflow.db"
    for log_id in ("one", "two", "one"):
        written = MlflowSink(uri, "a study", place / "artifacts", {}, log_id)
        written.write([trial(0, value=1.0 if log_id == "one" else 2.0)])
        written.close()
    client = MlflowClient(uri)
    found = client.search_runs([client.get_experiment_by_name("a study").experiment_id])
    parents = {run.info.run_id: run.data.tags[tracking.LOG_TAG] for run in found if tracking.STUDY_TAG in run.data.tags}
    children = [run for run in found if tracking.TRIAL_TAG in run.data.tags]
    values = {parents[run.data.tags[tracking.PARENT_TAG]]: run.data.metrics["mean_return"] for run in children}
    assert len(children) == len(parents) == 2
    assert values == {"one": 1.0, "two": 2.0}


# What the sweep has come to


def figures(number: int, mean_return: float) -> dict[str, Any]:
    known = {"solved_share": 0.75, "iqm_return": 499.0, "worst_seed_return": None, "search_return": 500.0}
    return {"number": number, "mean_return": mean_return, **known, "returns": [500.0, None], "lanes": []}


@pytest.fixture
def conclusion(place: Path) -> Conclusion:
    made = place / "made"
    made.mkdir()
    files = [made / name for name in ("report.html", "history.png", "verdict-0.json", "verdict-0.safetensors")]
    for file in files:
        file.write_bytes(file.name.encode())
    confirm = [figures(2, 495.0), figures(0, 480.0)]
    return Conclusion(confirm, figures(2, 490.0), files[:2], {2: files[2:]})


def artifacts(directory: Path, run: Any) -> set[str]:
    from mlflow import MlflowClient

    client, found, folders = MlflowClient(f"sqlite:///{directory}/mlflow.db"), set(), [None]
    while folders:
        for one in client.list_artifacts(run.info.run_id, folders.pop()):
            (folders.append if one.is_dir else found.add)(one.path)
    return found


def test_what_a_sweep_has_come_to_is_logged_once(place: Path, conclusion: Conclusion) -> None:
    for _ in range(2):
        to = sink(place)
        to.write([trial(number) for number in range(3)])
        to.close(conclusion)
    parent, children = runs(place)
    for run, mean_return in ((children[2], 495.0), (children[0], 480.0)):
        confirmed = {name: x for name, x in run.data.metrics.items() if name.startswith("confirm_")}
        assert confirmed == {
            "confirm_solved_share": 0.75,
            "confirm_mean_return": mean_return,
            "confirm_iqm_return": 499.0,
            "confirm_search_return": 500.0,
        }
        assert history(place, run, "confirm_mean_return") == [(0, mean_return)]
    assert not [name for name in children[1].data.metrics if name.startswith("confirm_")]
    assert history(place, parent, "verdict_mean_return") == [(0, 490.0)]
    assert "verdict_worst_seed_return" not in parent.data.metrics
    assert parent.data.tags[tracking.WINNER_TAG] == "2"
    assert artifacts(place, parent) == {tracking.TABLE, "report.html", "pictures/history.png"}
    saved = {f"agents/trial-2/verdict-0.{suffix}" for suffix in ("json", "safetensors")}
    assert [artifacts(place, run) for run in children] == [set(), set(), saved]
    assert [run.info.status for run in (parent, *children)] == ["FINISHED"] * 4


def test_the_same_conclusion_again_costs_no_metric_and_no_agent(place: Path, conclusion: Conclusion) -> None:
    for _ in range(2):
        to = sink(place)
        to.write([trial(number) for number in range(3)])
        calls = watch(to)
        to.close(conclusion)
    assert "log_metric" not in calls
    assert calls.count("log_artifact") == 3  # the report, its picture and the table, which may have changed


def test_the_figures_of_a_trial_without_a_run_are_logged_to_the_study(place: Path, conclusion: Conclusion) -> None:
    to = sink(place, all_up_to=1, best_kept=1)
    to.write([trial(0), trial(1, value=99.0), trial(2, value=-5.0)])
    to.close(conclusion)
    parent, children = runs(place)
    assert numbers(children) == [0, 1]
    assert parent.data.metrics["confirm_mean_return"] == 495.0
    assert "agents/trial-2/verdict-0.json" in artifacts(place, parent)


def test_a_sweep_that_confirmed_nothing_adds_nothing(place: Path) -> None:
    to = sink(place)
    to.write([trial(0)])
    to.close(Conclusion([], None, [], {}))
    parent, (child,) = runs(place)
    assert artifacts(place, parent) == {tracking.TABLE}
    assert not [name for name in (*parent.data.metrics, *child.data.metrics) if name.startswith(("confirm", "verdict"))]
    assert tracking.WINNER_TAG not in parent.data.tags


def test_the_parent_run_ends_even_if_a_file_of_the_conclusion_is_gone(place: Path, conclusion: Conclusion) -> None:
    conclusion.files[0].unlink()
    follower = Follower("MLflow", lambda: sink(place), [trial(0)], delays_s=(0.01,))
    assert str(follower.close(conclusion)).startswith("all trials are in MLflow, but it could not be closed: ")
    parent, _ = runs(place)
    assert parent.info.status == "FINISHED"


def test_a_schema_that_was_cut_off_leaves_no_database(tmp_path: Path) -> None:
    path, made = tmp_path / "mlflow.db", []

    def cut_off(uri: str) -> None:
        half = Path(uri.removeprefix("sqlite:///"))
        half.write_bytes(b"half a schema")
        made.append(half)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _make_schema(f"sqlite:///{path}", cut_off)
    assert made[0].parent == tmp_path
    assert list(tmp_path.iterdir()) == []
    _make_schema(f"sqlite:///{path}", lambda uri: Path(uri.removeprefix("sqlite:///")).write_bytes(b"whole"))
    _make_schema(f"sqlite:///{path}", cut_off)  # it is there
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"whole"]
    for other in ("http://127.0.0.1:1", "sqlite:///:memory:", f"sqlite:///{tmp_path}/x.db?mode=ro"):
        _make_schema(other, cut_off)
