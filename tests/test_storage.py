"""An Optuna storage holds what the log holds, under the same numbers."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import BaseStorage, InMemoryStorage, RDBStorage
from optuna.trial import FrozenTrial, TrialState

from jaxdqn.follower import Conclusion, Follower, Trial
from jaxdqn.storage import check_study, open_storage
from jaxdqn.storage_sink import StorageSink

SEARCHED: dict[str, BaseDistribution] = {
    "learning_rate": FloatDistribution(1e-5, 1e-1, log=True),
    "batch_size": CategoricalDistribution([16, 32]),
    "warmup_steps": IntDistribution(0, 1000, step=10),
    "double_q": CategoricalDistribution([False, True]),
}
ATTRIBUTES = {"jaxdqn_identity": '{"seed": 0}'}
BEGAN = datetime(2026, 11, 22, 12, 0, 0, 250_000)
STATES = {
    "running": TrialState.RUNNING,
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}


def trial(number: int, state: str = "complete", **other: Any) -> Trial:
    params = {
        "learning_rate": 0.1 / (number + 3),
        "batch_size": (16, 32)[number % 2],
        "warmup_steps": 10 * (number % 9),
        "double_q": number % 3 == 0,
    }
    running = state == "running"
    known = Trial(
        number=number,
        state=state,
        value=None if state in ("running", "failed") else 100 / (number + 7),
        params=params,
        attributes={} if running else {"returns": [1.5, None], "note": "ε, 'quoted'"},
        intermediate={1000: 9.0} if running else {1000: 9.0, 2000: 1 / 3},
        started=BEGAN + timedelta(seconds=number),
        ended=None if running else BEGAN + timedelta(minutes=number + 1),
    )
    return known._replace(**other)


def mixed(count: int) -> list[Trial]:
    return [trial(number, ("complete", "failed", "pruned", "complete")[number % 4]) for number in range(count)]


def url(directory: Path) -> str:
    return f"sqlite:///{directory}/study.db"


def sink(storage: BaseStorage, attributes: dict[str, str] = ATTRIBUTES) -> StorageSink:
    return StorageSink(storage, "a study", SEARCHED, attributes)


def follow(directory: Path, history: list[Trial], *trials: Trial) -> str | None:
    follower = Follower("the storage", lambda: sink(open_storage(url(directory))), history, delays_s=(0.01,))
    for each in trials:
        follower.put(each)
    return follower.close()


@contextmanager
def opened(directory: Path) -> Iterator[optuna.Study]:
    """The study as somebody else reads it."""
    storage = RDBStorage(url(directory))
    yield optuna.load_study(study_name="a study", storage=storage)
    storage.remove_session()
    storage.engine.dispose()


def stored(directory: Path) -> list[FrozenTrial]:
    with opened(directory) as study:
        return study.get_trials(deepcopy=False)


def assert_same(stored: list[FrozenTrial], trials: list[Trial]) -> None:
    assert [t.number for t in stored] == list(range(len(trials)))
    for there, here in zip(stored, trials, strict=True):
        assert there.state == STATES[here.state]
        assert (there.value, there.params, there.user_attrs) == (here.value, here.params, here.attributes)
        assert there.intermediate_values == here.intermediate
        assert there.distributions == SEARCHED
        assert there.datetime_start == here.started
        assert (there.datetime_complete is None) == (here.ended is None)


def test_a_new_storage_holds_every_trial_with_all_that_is_known_of_it(tmp_path: Path) -> None:
    trials = [*mixed(20), trial(20, "running"), trial(21, "running")]
    assert follow(tmp_path, trials[:10], *trials[10:]) is None
    assert_same(stored(tmp_path), trials)
    assert [t.datetime_complete for t in stored(tmp_path)] == [t.ended for t in trials]
    with opened(tmp_path) as study:
        assert study.direction == optuna.study.StudyDirection.MAXIMIZE
        assert study.user_attrs == ATTRIBUTES
        assert study.best_trial.number == 0


def test_a_trial_that_is_running_there_is_finished_there(tmp_path: Path) -> None:
    trials = mixed(8)
    to = sink(open_storage(url(tmp_path)))
    to.write([trial(number, "running") for number in range(8)])
    assert [t.state for t in stored(tmp_path)] == [TrialState.RUNNING] * 8
    to.write([trial(5, "running", intermediate={1000: 9.0, 2000: 1 / 3})])
    assert stored(tmp_path)[5].intermediate_values == {1000: 9.0, 2000: 1 / 3}
    for number in (6, 0, 5, 1, 2, 7, 3, 4):
        to.write([trials[number]])
    to.close()
    assert_same(stored(tmp_path), trials)


def test_writing_again_changes_nothing(tmp_path: Path) -> None:
    trials = [*mixed(6), trial(6, "running")]
    for _ in range(3):
        to = sink(open_storage(url(tmp_path)))
        to.write(trials)
        to.write([trial(2, "running")])  # a stale record
        to.write(trials)
        to.close()
    assert_same(stored(tmp_path), trials)


def test_a_storage_that_is_gone_is_written_anew(tmp_path: Path) -> None:
    trials = mixed(9)
    assert follow(tmp_path, [], *trials[:6]) is None
    for path in tmp_path.glob("study.db*"):
        path.unlink()
    assert follow(tmp_path, trials[:6], *trials[6:]) is None
    assert_same(stored(tmp_path), trials)


@pytest.mark.parametrize("held", [0, 1, 4, 7])
def test_a_storage_left_behind_by_a_kill_is_brought_up_to_date(tmp_path: Path, held: int) -> None:
    trials = mixed(10)
    to = sink(open_storage(url(tmp_path)))
    to.write([t if t.number % 2 else trial(t.number, "running") for t in trials[:held]])  # and never closed
    assert follow(tmp_path, trials[:8], *trials[8:]) is None
    assert_same(stored(tmp_path), trials)
    to.close()


def test_a_trial_cut_off_while_it_was_being_finished_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    to = sink(open_storage(url(tmp_path)))
    to.write([trial(0, "running")])
    with monkeypatch.context() as patch:
        patch.setattr(RDBStorage, "set_trial_state_values", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            to.write([trial(0)])
    assert stored(tmp_path)[0].state == TrialState.RUNNING
    to.write([trial(0)])
    assert_same(stored(tmp_path), [trial(0)])
    to.close()


@pytest.mark.parametrize("call", ["create_new_trial", "set_trial_state_values"])
def test_a_call_whose_answer_is_lost_is_not_made_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    lost, made = [], getattr(RDBStorage, call)

    def losing(*args: Any, **kwargs: Any) -> Any:
        answer = made(*args, **kwargs)
        if not lost:
            lost.append(answer)
            raise ConnectionError
        return answer

    monkeypatch.setattr(RDBStorage, call, losing)
    history = [trial(0, "running")]
    if call == "set_trial_state_values":
        assert follow(tmp_path, history) is None
    assert follow(tmp_path, history, trial(0), trial(1)) is None
    assert lost
    assert_same(stored(tmp_path), [trial(0), trial(1)])


def test_a_trial_whose_predecessor_is_missing_waits_for_it(tmp_path: Path) -> None:
    to = sink(open_storage(url(tmp_path)))
    to.write([trial(0)])
    with pytest.raises(ValueError, match="holds 1 trials of study 'a study', so trial 2 would get another number"):
        to.write([trial(2)])
    to.write([trial(1), trial(2)])
    assert_same(stored(tmp_path), [trial(0), trial(1), trial(2)])
    to.close()


FOREIGN = {
    "with another value": trial(2, value=-1.0),
    "in another state": trial(2, "pruned"),
    "with other hyperparameters": trial(2, params=trial(7).params),
    "running with other hyperparameters": trial(2, "running", params=trial(7).params),
}


@pytest.mark.parametrize("theirs", FOREIGN.values(), ids=FOREIGN)
def test_a_foreign_trial_is_said_and_left_as_it_is(tmp_path: Path, theirs: Trial) -> None:
    to = sink(open_storage(url(tmp_path)))
    to.write([trial(0), trial(1), theirs])
    to.close()
    said = follow(tmp_path, mixed(0), trial(0), trial(1), trial(2), trial(3))
    assert str(said).startswith("2 trials are not in the storage: trial 2 of study 'a study' in sqlite:///")
    assert "is not ours" in str(said)
    assert_same(stored(tmp_path), [trial(0), trial(1), theirs])


def test_a_trial_that_somebody_adds_meanwhile_takes_no_number_of_ours(tmp_path: Path) -> None:
    to = sink(open_storage(url(tmp_path)))
    to.write([trial(0)])
    with opened(tmp_path) as theirs:
        theirs.enqueue_trial({"learning_rate": 0.05})
    for _ in range(2):
        with pytest.raises(ValueError, match=r"trial 1 of study 'a study' in .* is not ours"):
            to.write([trial(1)])
    assert [t.state for t in stored(tmp_path)] == [TrialState.COMPLETE, TrialState.WAITING]
    to.close()


@pytest.mark.parametrize("attributes", [{}, {"jaxdqn_identity": '{"seed": 1}'}])
def test_a_study_of_somebody_else_is_left_alone(tmp_path: Path, attributes: dict[str, str]) -> None:
    to = sink(open_storage(url(tmp_path)), attributes)
    to.write([trial(0)])
    to.close()
    said = follow(tmp_path, [trial(0)])
    assert "is not ours: its jaxdqn_identity differs" in str(said)
    assert load_attributes(tmp_path) == attributes


def test_a_storage_whose_study_has_no_log_is_refused(tmp_path: Path) -> None:
    storage = open_storage(url(tmp_path))
    check_study(storage, "a study", True, tmp_path)
    to = sink(storage)
    check_study(storage, "a study", True, tmp_path)
    to.write([trial(0)])
    check_study(storage, "a study", False, tmp_path)
    check_study(storage, "another study", True, tmp_path)
    with pytest.raises(ValueError, match=r"holds study 'a study', but its log is not in '/.*--study or the --o"):
        check_study(storage, "a study", True, tmp_path)
    to.close()


def test_a_storage_that_is_no_database_of_sqlalchemy_is_followed_too() -> None:
    storage = InMemoryStorage()
    to = sink(storage)
    to.write([trial(0, "running"), trial(1)])
    to.write([trial(0)])
    to.close()
    assert_same(storage.get_all_trials(storage.get_study_id_from_name("a study")), [trial(0), trial(1)])


def test_a_file_that_is_no_database_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "study.db").write_bytes(b"not a database, but somebody's notes" * 50)
    with pytest.raises(ValueError, match=r"study\.db can't be opened: .*not a database"):
        open_storage(url(tmp_path))
    assert (tmp_path / "study.db").read_bytes().startswith(b"not a database")


def test_a_storage_that_cannot_be_opened_is_refused_without_its_password() -> None:
    with pytest.raises(ValueError, match="can't be opened") as refused:
        open_storage("nosuchdatabase://me:secretword@localhost/db")
    assert "secretword" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_the_database_says_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = open_storage(url(tmp_path))
    to = sink(storage)
    storage.remove_session()
    with sqlite3.connect(tmp_path / "study.db") as connection:
        connection.execute("DROP TABLE trial_params")
    connection.close()
    monkeypatch.setattr("time.sleep", lambda _: None)  # Optuna's, between its own tries
    with pytest.raises(RuntimeError, match="no such table: trial_params"):
        to.write([trial(0)])
    to.close()


def test_sqlite_has_a_write_ahead_log_that_is_emptied_at_the_end(tmp_path: Path) -> None:
    to = sink(open_storage(url(tmp_path)))
    to.write([trial(0)])
    assert (tmp_path / "study.db-wal").exists()
    to.close()
    assert [path.name for path in tmp_path.iterdir()] == ["study.db"]


def test_what_a_sweep_has_come_to_are_attributes_of_the_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = {"number": 0, "mean_return": 495.5, "returns": [500.0, None], "solved_interval": [0.5, 1.0]}
    said = Conclusion([one, {"number": 1}], {**one, "mean_return": 490.0}, [], {})
    for conclusion in (None, said, said):
        if conclusion is said and load_attributes(tmp_path).keys() >= {"confirm"}:
            monkeypatch.setattr(RDBStorage, "set_study_user_attr", lambda *_: pytest.fail("said before"))
        to = sink(open_storage(url(tmp_path)))
        to.write([trial(0, attributes={"num_parameters": 9})])
        to.close(conclusion)
        kept = load_attributes(tmp_path)
        expected = {} if conclusion is None else {"confirm": said.confirm, "verdict": said.verdict}
        assert {name: kept[name] for name in kept if name in ("confirm", "verdict")} == expected


def test_a_later_conclusion_replaces_the_one_before(tmp_path: Path) -> None:
    for number in (3, 4):
        to = sink(open_storage(url(tmp_path)))
        to.close(Conclusion([{"number": number}], {"number": number}, [], {}))
    assert load_attributes(tmp_path)["confirm"] == [{"number": 4}]
    assert load_attributes(tmp_path)["verdict"] == {"number": 4}


def load_attributes(directory: Path) -> dict[str, Any]:
    with opened(directory) as study:
        return study.user_attrs
