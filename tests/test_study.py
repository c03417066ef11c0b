"""Ask, tell and resume, against a real Optuna storage."""

from pathlib import Path

import optuna
import pytest

from jaxdqn import space
from jaxdqn.redact import hide_password
from jaxdqn.space import Space
from jaxdqn.study import Study, open_study


@pytest.fixture
def searched() -> Space:
    return space.load("default")


def opened(directory: Path, searched: Space, sampler: str = "tpe", **identity: object) -> Study:
    return open_study(f"sqlite:///{directory}/s.db", "s", searched, searched.identity() | identity, sampler, 0)


def test_a_value_that_is_no_number_fails_the_trial(tmp_path: Path, searched: Space) -> None:
    study = opened(tmp_path, searched)
    asked = study.ask()
    assert study.tell(asked.number, float("nan"), {"returns": [None]}) == "failed"
    assert study.counts() == {"complete": 0, "pruned": 0, "failed": 1, "running": 0}
    assert study.best() is None


@pytest.mark.parametrize("value", [float("inf"), float("-inf")])
def test_an_infinite_value_is_refused_and_the_trial_stays_open(tmp_path: Path, searched: Space, value: float) -> None:
    study = opened(tmp_path, searched)
    asked = study.ask()
    with pytest.raises(ValueError, match="inf"):
        study.tell(asked.number, value, {})
    assert [trial.number for trial in study.unfinished()] == [asked.number]


def test_telling_twice_changes_nothing(tmp_path: Path, searched: Space) -> None:
    study = opened(tmp_path, searched)
    number = study.ask().number
    study.tell(number, 5.0, {})
    study.tell(number, 7.0, {})
    assert study.finished()[0].value == 5.0


def test_the_best_of_equals_is_the_earliest(tmp_path: Path, searched: Space) -> None:
    study = opened(tmp_path, searched)
    for value in (3.0, 9.0, 9.0, 1.0):
        study.tell(study.ask().number, value, {})
    best = study.best()
    assert best is not None
    assert (best.number, best.value) == (1, 9.0)


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_reopened_study_proposes_what_it_would_have_proposed(tmp_path: Path, searched: Space, sampler: str) -> None:
    params = []
    for name, reopen in (("a", False), ("b", True)):
        (tmp_path / name).mkdir()
        study = opened(tmp_path / name, searched, sampler)
        for value in range(14):
            study.tell(study.ask().number, float(value), {})
            study = opened(tmp_path / name, searched, sampler) if reopen else study
        params.append(study.ask().params)
    assert params[0] == params[1]


def test_another_identity_is_refused_with_the_difference(tmp_path: Path, searched: Space) -> None:
    opened(tmp_path, searched, seed=0).ask()
    with pytest.raises(ValueError, match="seed: 0 there, 1 asked"):
        opened(tmp_path, searched, seed=1)


def test_a_study_of_somebody_else_is_left_alone(tmp_path: Path, searched: Space) -> None:
    theirs = optuna.create_study(storage=f"sqlite:///{tmp_path}/s.db", study_name="s")
    theirs.add_trial(optuna.trial.create_trial(value=1.0))
    with pytest.raises(ValueError, match="not made by jaxdqn"):
        opened(tmp_path, searched)
    assert theirs.user_attrs == {}


def test_a_file_that_is_no_database_is_refused_and_kept(tmp_path: Path, searched: Space) -> None:
    (tmp_path / "s.db").write_bytes(b"not a database, but somebody's notes" * 50)
    with pytest.raises(ValueError, match=r"s\.db can't be opened"):
        opened(tmp_path, searched)
    assert (tmp_path / "s.db").read_bytes().startswith(b"not a database")


def test_a_password_is_never_shown() -> None:
    url = "postgresql://me:secretword@host/db"
    assert "secretword" not in hide_password(url)
    assert hide_password("could not connect with secretword", url) == "could not connect with ***"
    assert "ss" not in hide_password("postgresql://u:p@ss@h/db").split("@")[0]


def test_a_trial_whose_asking_was_cut_off_fails_and_the_study_goes_on(tmp_path: Path, searched: Space) -> None:
    opened(tmp_path, searched).ask()
    theirs = optuna.load_study(study_name="s", storage=f"sqlite:///{tmp_path}/s.db")
    cut_off = theirs.ask()
    cut_off.suggest_float("learning_rate", 1e-4, 1e-2, log=True)
    study = opened(tmp_path, searched)
    assert [trial.number for trial in study.unfinished()] == [0]
    assert study.counts() == {"complete": 0, "pruned": 0, "failed": 1, "running": 1}
    assert study.ask().number == 2


def test_a_trial_that_somebody_enqueued_is_asked_for_next(tmp_path: Path, searched: Space) -> None:
    opened(tmp_path, searched)
    theirs = optuna.load_study(study_name="s", storage=f"sqlite:///{tmp_path}/s.db")
    theirs.enqueue_trial({"learning_rate": 0.005})
    study = opened(tmp_path, searched)
    assert study.unfinished() == []
    asked = study.ask()
    assert (asked.number, asked.params["learning_rate"]) == (0, 0.005)
