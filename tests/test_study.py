"""Ask, tell and resume, on a real log."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution

from jaxdqn import space
from jaxdqn.redact import hide_password
from jaxdqn.space import Space
from jaxdqn.study import Study, open_study


@pytest.fixture
def searched() -> Space:
    return space.load("default")


def opened(directory: Path, searched: Space, sampler: str = "tpe", **identity: object) -> Study:
    directory.mkdir(exist_ok=True)
    return open_study(directory / "study.log", "s", searched, searched.identity() | identity, sampler, 0)


def test_a_value_that_is_no_number_fails_the_trial(tmp_path: Path, searched: Space) -> None:
    study = opened(tmp_path, searched)
    asked = study.ask(1)[0]
    assert study.tell(asked.number, float("nan"), {"returns": [None]}) == "failed"
    assert study.counts() == {"complete": 0, "pruned": 0, "failed": 1, "running": 0}
    assert study.best() is None


@pytest.mark.parametrize("value", [float("inf"), float("-inf")])
def test_an_infinite_value_is_refused_and_the_trial_stays_open(tmp_path: Path, searched: Space, value: float) -> None:
    study = opened(tmp_path, searched)
    asked = study.ask(1)[0]
    with pytest.raises(ValueError, match="inf"):
        study.tell(asked.number, value, {})
    assert [trial.number for trial in study.unfinished()] == [asked.number]


def test_telling_twice_changes_nothing(tmp_path: Path, searched: Space) -> None:
    study = opened(tmp_path, searched)
    number = study.ask(1)[0].number
    study.tell(number, 5.0, {})
    study.tell(number, 7.0, {})
    assert study.trial(number).value == 5.0


def test_the_best_of_equals_is_the_earliest(tmp_path: Path, searched: Space) -> None:
    study = opened(tmp_path, searched)
    for value in (3.0, 9.0, 9.0, 1.0):
        study.tell(study.ask(1)[0].number, value, {})
    best = study.best()
    assert best is not None
    assert (best.number, best.value) == (1, 9.0)


@pytest.mark.parametrize("sampler", ["tpe", "sobol", "optuna-tpe", "random"])
def test_a_reopened_study_proposes_what_it_would_have_proposed(tmp_path: Path, searched: Space, sampler: str) -> None:
    params = []
    for name, reopen in (("a", False), ("b", True)):
        study = opened(tmp_path / name, searched, sampler)
        for value in range(10):
            for asked in study.ask(2):
                study.tell(asked.number, float(value), {})
            if reopen:
                study.close()
                study = opened(tmp_path / name, searched, sampler)
        params.append([asked.params for asked in study.ask(3)])
    assert params[0] == params[1]


def test_another_identity_is_refused_with_the_difference(tmp_path: Path, searched: Space) -> None:
    opened(tmp_path, searched, seed=0).close()
    with pytest.raises(ValueError, match="seed: 0 there, 1 asked"):
        opened(tmp_path, searched, seed=1)


def test_a_study_of_another_name_is_refused(tmp_path: Path, searched: Space) -> None:
    opened(tmp_path, searched).close()
    with pytest.raises(ValueError, match="holds study 's'"):
        open_study(tmp_path / "study.log", "other", searched, searched.identity(), "tpe", 0)


def test_a_file_that_is_no_log_is_refused_and_kept(tmp_path: Path, searched: Space) -> None:
    (tmp_path / "study.log").write_bytes(b"not a log, but somebody's notes\n" * 50)
    with pytest.raises(ValueError, match="is no log of jaxdqn"):
        opened(tmp_path, searched)
    assert (tmp_path / "study.log").read_bytes().startswith(b"not a log")


def test_a_password_is_never_shown() -> None:
    url = "postgresql://me:secretword@host/db"
    assert "secretword" not in hide_password(url)
    assert hide_password("could not connect with secretword", url) == "could not connect with ***"
    assert "ss" not in hide_password("postgresql://u:p@ss@h/db").split("@")[0]


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://h/db?password=%40secretword",
        "postgresql://h/db?password=secret%26word",
        "postgresql://u:/secretword@h/db",
        "postgresql://h/db?sslpassword=secretword",
        "https://h/mlflow?token=secretword",
        "mssql+pyodbc:///?odbc_connect=DRIVER%3D1%3BPWD%3D%7Bsecretword%7D",
    ],
)
def test_odd_passwords_are_not_shown_either(url: str) -> None:
    assert "secret" not in hide_password(url)


def test_a_path_is_no_password() -> None:
    assert hide_password("sqlite:////home/a b/study.db") == "sqlite:////home/a b/study.db"


def test_a_commit_that_was_cut_off_never_happened(tmp_path: Path, searched: Space) -> None:
    study = opened(tmp_path, searched, "random")
    study.ask(1)
    study.commit()
    asked = [study.ask(1)[0], *study.ask(2)]
    study.close()
    log = tmp_path / "study.log"
    lines = log.read_bytes().splitlines(keepends=True)
    asked_whole = max(i for i, line in enumerate(lines) if b'"op_code":4' in line)  # the last trial's beginning
    log.write_bytes(b"".join(lines[: asked_whole + 3]))
    again = opened(tmp_path, searched, "random")
    assert [trial.number for trial in again.unfinished()] == [0]
    assert again.ask(3) == asked


def test_nothing_is_on_the_disk_before_it_is_committed(tmp_path: Path, searched: Space) -> None:
    study = opened(tmp_path, searched)
    before = (tmp_path / "study.log").read_bytes()
    study.ask(3)
    study.start(0, 0, 1, 7)
    study.report(0, 2_000, 31.5)
    study.tell(0, 40.0, {"returns": [40.0]})
    assert (tmp_path / "study.log").read_bytes() == before
    changed = study.commit()
    assert [(trial.number, trial.state) for trial in changed] == [(0, "complete"), (1, "running"), (2, "running")]
    assert changed[0].intermediate == {2_000: 31.5}
    assert changed[0].attributes == {"returns": [40.0]}
    assert study.commit() == []
    assert len((tmp_path / "study.log").read_bytes()) > len(before)


def test_the_log_carries_the_clock_of_the_visits(tmp_path: Path, searched: Space) -> None:
    study = opened(tmp_path, searched)
    for visit in (1, 2):
        study.at(visit)
        study.tell(study.ask(1)[0].number, 1.0, {})
        study.commit()
    clocks = [json.loads(line)["clock"] for line in (tmp_path / "study.log").read_text().splitlines()]
    assert clocks == sorted(clocks)
    assert set(clocks) == {0, 1, 2}


def test_a_second_sweep_of_the_same_log_is_refused(tmp_path: Path, searched: Space) -> None:
    first = opened(tmp_path, searched)
    with pytest.raises(ValueError, match=f"in use by process {os.getpid()}"):
        opened(tmp_path, searched)
    first.close()
    opened(tmp_path, searched).close()


def test_the_search_starts_with_a_sobol_sequence_and_goes_on_with_a_fit(tmp_path: Path, searched: Space) -> None:
    study = opened(tmp_path, searched, "tpe")
    first = [asked.params for asked in study.ask(16)]
    sobol = [asked.params for asked in opened(tmp_path / "sobol", searched, "sobol").ask(16)]
    assert first == sobol
    for number, params in enumerate(first):
        study.tell(number, -abs(params["target_period"] - 100), {})
    near = [abs(asked.params["target_period"] - 100) for asked in study.ask(16)]
    assert np.median(near) < np.median([abs(params["target_period"] - 100) for params in first])


def test_a_grid_asks_for_every_cell_once(tmp_path: Path) -> None:
    small = space.load("default")
    small = replace(small, searched={"gradient_steps": CategoricalDistribution([1, 2, 4])})
    study = opened(tmp_path, small, "grid")
    assert sorted(asked.params["gradient_steps"] for asked in study.ask(3)) == [1, 2, 4]
