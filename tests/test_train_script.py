"""From a sweep's agents on fresh seeds to hyperparameters trained anew: both commands, in this process."""

import contextlib
import io
import json
import re
import runpy
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import optuna
import pytest
from optuna.storages import RDBStorage

from jaxdqn import agent_directory, devices, retrain, run, saved_agent
from jaxdqn.history import fresh_seeds, read

SCRIPTS = Path(__file__).parent.parent / "scripts"
TINY = """
env_steps = 400
eval_episodes = 10
solved_return = 9
[hyperparameters]
learning_rate = { low = 1e-4, high = 1e-2, log = true }
batch_size = 8
hidden_width = { low = 4, high = 8 }
hidden_layers = 1
buffer_size = 300
warmup_steps = 50
"""
FIXED = "env_steps = 400\n[hyperparameters]\nhidden_width = 4\nbuffer_size = 300\n"
SWEEP = (
    "--space tiny.toml --trials 4 --output out --lanes 8 --confirm-top 2 --confirm-seeds 3 --verdict-seeds 2 "
    "--save-agents all --tracking off --no-report --json"
)


class Outcome(NamedTuple):
    """What a command leaves: its exit status and what it printed."""

    status: int
    out: str
    err: str


def called(directory: Path, name: str, arguments: list[str]) -> Outcome:
    """Run a command in this process."""
    out, err, status = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        patch.setattr(sys, "argv", [str(SCRIPTS / f"{name}.py"), *arguments])
        patch.setattr(devices, "prepare", lambda: None)  # JAX's backend has started
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                runpy.run_path(str(SCRIPTS / f"{name}.py"), run_name="__main__")
            except SystemExit as ended:
                status = int(ended.code or 0)
    return Outcome(status, out.getvalue(), err.getvalue())


def contents(directory: Path) -> dict[str, bytes | None]:
    """All that lies below a directory, but for what SQLite keeps beside a database while it is open."""
    found = [path for path in directory.rglob("*") if not path.name.endswith(("-wal", "-shm"))]
    return {str(path.relative_to(directory)): path.read_bytes() if path.is_file() else None for path in found}


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Outcome]:
    """Run train.py where nothing may be trained."""
    monkeypatch.setattr(retrain, "Population", lambda *_: pytest.fail("the training began"))
    return lambda arguments: called(tmp_path, "train", shlex.split(arguments))


# What is wrong


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("", ["--hyperparameters", "--output", "one of them"]),
        ("--hyperparameters fixed.toml --output out", ["--hyperparameters", "--output", "one of them"]),
        ("--hyperparameters fixed.toml --trial 3", ["--trial needs --output"]),
        ("--trial 3", ["--hyperparameters", "--output"]),
        ("--hyperparameters fixed.toml --seeds 0", ["--seeds 0", "int in [1, 10000]"]),
        ("--hyperparameters fixed.toml --seeds many", ["--seeds", "many", "integer"]),
        ("--hyperparameters fixed.toml --seed -1", ["--seed -1", "int in [0, 2147483647]"]),
        ("--hyperparameters fixed.toml --save file", ["output directory 'file'", "no writable directory"]),
        ("--hyperparameters tiny.toml", ["'tiny.toml'", "learning_rate, hidden_width", "scripts/sweep.py"]),
        ("--hyperparameters default", ["'default'", "gives no single value"]),
        ("--hyperparameters missing.toml", ["'missing.toml'", "neither a file nor a preset"]),
        ("--output missing", ["'missing'", "holds no sweep"]),
        ("--output empty --trial 2", ["'empty'", "holds no sweep"]),
        ("--output out --sead 3", ["--sead", "--seed"]),
    ],
)
def test_bad_input_is_refused_in_one_line_before_anything_is_written(
    command: Callable[[str], Outcome], tmp_path: Path, arguments: str, words: list[str]
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "tiny.toml").write_text(TINY)
    (tmp_path / "fixed.toml").write_text(FIXED)
    before = contents(tmp_path)
    outcome = command(arguments)
    assert contents(tmp_path) == before
    assert outcome.status == 2, outcome
    assert outcome.out == ""
    assert re.fullmatch(r"error: [^\n]+\n", outcome.err), outcome.err
    assert [word for word in words if word not in outcome.err] == [], outcome.err


# A sweep whose winner is trained anew


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("sweep")
    (directory / "tiny.toml").write_text(TINY)
    return directory


def summary(outcome: Outcome) -> dict[str, Any]:
    assert outcome.status == 0, outcome.err
    (line,) = outcome.out.splitlines()
    found = json.loads(line)
    assert isinstance(found, dict)
    return found


@pytest.fixture(scope="module")
def swept(place: Path) -> tuple[dict[str, Any], str]:
    """What a sweep summed up and said."""
    outcome = called(place, "sweep", shlex.split(SWEEP))
    return summary(outcome), outcome.err


def test_a_sweep_sums_up_its_fresh_seeds_the_winner_first(swept: tuple[dict[str, Any], str]) -> None:
    found, said = swept
    assert found["trials"] == {"complete": 4, "pruned": 0, "failed": 0, "running": 0}
    assert found["compiles_after_start"] == 0
    assert len(found["confirm"]) == 2
    for one in (*found["confirm"], found["verdict"]):
        assert {"number", "solved_share", "mean_return", "worst_seed_return", "search_return"} <= one.keys()
        assert one["worst_seed_return"] == min(one["returns"]) <= one["mean_return"]
        assert one["mean_return"] == pytest.approx(sum(one["returns"]) / len(one["returns"]))
        assert one["solved_share"] == sum(value >= 9 for value in one["returns"]) / one["seeds"]
    winner, loser = found["confirm"]
    assert (winner["solved_interval"][0], winner["mean_interval"][0]) >= (
        loser["solved_interval"][0],
        loser["mean_interval"][0],
    )
    assert (found["verdict"]["number"], found["verdict"]["seeds"]) == (winner["number"], 2)
    assert not set(found["verdict"]["returns"]) & set(winner["returns"])
    assert found["env_steps"] == (4 + 2 * 3 + 2) * 400
    assert found["best"]["number"] in (winner["number"], loser["number"])
    assert f"trial {winner['number']}:" in said


def test_all_agents_are_saved_where_all_were_wanted(place: Path, swept: tuple[dict[str, Any], str]) -> None:
    confirmed = [one["number"] for one in swept[0]["confirm"]]
    for number in range(4):
        phases = ["search"]
        phases += ["confirm"] * 3 if number in confirmed else []
        phases += ["verdict"] * 2 if number == confirmed[0] else []
        agents = [saved_agent.load(path) for path in agent_directory.find(place / "out", number)]
        assert sorted(agent.key["phase"] for agent in agents) == sorted(phases)
    winners = [saved_agent.load(path) for path in agent_directory.find(place / "out")]
    returns = {(agent.key["phase"], agent.key["seed_index"]): agent.mean_return for agent in winners}
    assert [returns["confirm", seed] for seed in range(3)] == swept[0]["confirm"][0]["returns"]
    assert [returns["verdict", seed] for seed in range(2)] == swept[0]["verdict"]["returns"]
    assert returns["search", 0] == swept[0]["confirm"][0]["search_return"]
    assert {agent.scores["num_episodes"] for agent in winners} == {10, 1_000}


def test_the_storage_says_what_fresh_seeds_have_said(place: Path, swept: tuple[dict[str, Any], str]) -> None:
    storage = RDBStorage(f"sqlite:///{place}/out/study.db")
    study = optuna.load_study(study_name=None, storage=storage)
    assert study.user_attrs["confirm"] == swept[0]["confirm"]
    assert study.user_attrs["verdict"] == swept[0]["verdict"]
    storage.remove_session()
    storage.engine.dispose()


def test_the_same_command_again_trains_nothing_and_says_the_same(
    place: Path, swept: tuple[dict[str, Any], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "Population", lambda *_: pytest.fail("the training began"))
    outcome = called(place, "sweep", shlex.split(SWEEP))
    again = summary(outcome)
    assert "nothing to train" in outcome.err
    assert again["env_steps"] == 0
    for key in ("best", "confirm", "verdict", "trials"):
        assert again[key] == swept[0][key]


def test_the_log_is_read_back_as_the_sweep_summed_it_up(place: Path, swept: tuple[dict[str, Any], str]) -> None:
    confirmed, verdict = fresh_seeds(read(place / "out"))
    assert json.loads(json.dumps([one.summary() for one in confirmed])) == swept[0]["confirm"]
    assert verdict is not None
    assert json.loads(json.dumps(verdict.summary())) == swept[0]["verdict"]


@pytest.mark.slow
def test_the_winner_of_a_sweep_is_trained_anew_on_seeds_of_its_own(
    place: Path, swept: tuple[dict[str, Any], str]
) -> None:
    before = contents(place / "out")
    found = summary(called(place, "train", shlex.split("--output out --seeds 3 --save again --json")))
    assert contents(place / "out") == before
    winner = swept[0]["confirm"][0]
    assert found["number"] == winner["number"]
    assert found["hyperparameters"] == winner["hyperparameters"]
    assert found["search_return"] == winner["search_return"]
    assert found["mean_return"] == pytest.approx(sum(found["returns"]) / 3)
    assert found["worst_seed_return"] == min(found["returns"])
    assert 0 <= found["solved_share"] <= 1
    assert 0 < found["compile_s"] < found["wall_s"]
    assert not set(found["returns"]) & {*winner["returns"], *swept[0]["verdict"]["returns"]}
    paths = agent_directory.find(place / "again", winner["number"])
    assert [saved_agent.load(path).mean_return for path in paths] == found["returns"]
