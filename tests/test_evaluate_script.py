"""The command that lets a saved agent play: what it prints, and what it refuses before any work."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from jaxdqn import devices, play
from jaxdqn.agent_directory import mark_winner, path_of
from jaxdqn.saved_agent import SavedAgent, save
from tests.agents import balancing, drawn, falling

SCRIPT = Path(__file__).parent.parent / "scripts" / "evaluate.py"
ODD = "läufe [bold]5[/] $x"


class Outcome(NamedTuple):
    """What a command leaves: its exit status and what it printed."""

    status: int
    out: str
    err: str


Command = Callable[..., Outcome]


def put(output: Path, trial: int, phase: str, seed_index: int, agent: SavedAgent) -> None:
    """Save an agent as a sweep does."""
    key = {"study_seed": 0, "phase": phase, "trial": trial, "seed_index": seed_index}
    save(path_of(output, trial, phase, seed_index), replace(agent, key=key))


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("evaluate_script", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def command(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Command:
    """Run the command in this process, in a directory with one sweep."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(devices, "prepare", lambda: None)  # JAX's backend has started
    output = Path(ODD)
    put(output, 24, "confirm", 0, falling(mean_return=40.0))
    put(output, 24, "verdict", 0, balancing(mean_return=500.0))
    put(output, 24, "verdict", 1, falling(mean_return=500.0))
    put(output, 7, "verdict", 0, falling(mean_return=40.0))
    put(output, 8, "verdict", 0, drawn(4, 1, "Acrobot-v1"))
    mark_winner(output, 24)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("a regular file")

    def call(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
        capfd.readouterr()
        status: Any = 0
        try:
            script.main(script.evaluate, epilog=script.EXAMPLES)
        except SystemExit as ended:
            status = ended.code or 0
        return Outcome(status, *capfd.readouterr())

    return call


# What is wrong

REFUSED: dict[str, tuple[list[str], list[str]]] = {
    "nothing": ([], ["nobody plays", "--output DIR", "--agent FILE", "--random --env NAME"]),
    "random without an environment": (["--random"], ["nobody plays", "--env NAME"]),
    "an environment without random": (["--env", "CartPole-v1"], ["nobody plays", "--random"]),
    "two agents": (["--output", ODD, "--agent", "x"], ["--output and --agent", "not allowed together"]),
    "an environment besides an agent": (["--output", ODD, "--env", "CartPole-v1"], ["--env 'CartPole-v1'", "trained"]),
    "a trial of no sweep": (["--trial", "3"], ["--trial needs --output"]),
    "a trial that is no number": (["--output", ODD, "--trial", "x"], ["--trial", "'x'", "integer"]),
    "a trial that is a fraction": (["--output", ODD, "--trial", "1.5"], ["--trial", "'1.5'", "integer"]),
    "a negative trial": (["--output", ODD, "--trial", "-1"], ["--trial -1", "int from 0 on"]),
    "an unknown trial": (["--output", ODD, "--trial", "9"], ["trial 9", ODD, "trials 7, 8, 24"]),
    "a missing directory": (["--output", "missing"], ["'missing' is no directory"]),
    "a file as directory": (["--output", "file"], ["'file' is no directory"]),
    "a directory without agents": (["--output", "empty"], ["no saved agents in 'empty'"]),
    "a name that is too long": (["--output", "x" * 300], ["can't be read", "too long"]),
    "a missing agent": (["--agent", "x/verdict-0.json"], ["verdict-0.json", "there is no file"]),
    "an agent that is none": (["--agent", "file"], ["file.json", "there is no file"]),
    "no episodes": (["--output", ODD, "--episodes", "0"], ["--episodes 0", "int in [1, 100000]"]),
    "a negative seed": (["--output", ODD, "--seed", "-1"], ["--seed -1", "int in [0, 2147483647]"]),
    "a misspelt option": (["--outptu", ODD], ["--outptu", "--output"]),
    "a GIF in a missing directory": (["--output", ODD, "--gif", "no/a.gif"], ["no/a.gif", "no writable directory"]),
    "a GIF that is none": (["--output", ODD, "--gif", "a.mp4"], ["a.mp4", "ends in .gif"]),
    "a GIF of Acrobot": (["--output", ODD, "--trial", "8", "--gif", "a.gif"], ["'Acrobot-v1' can't be drawn"]),
    "a GIF of nobody": (["--random", "--env", "CartPole-v1", "--gif", "a.gif"], ["--gif needs an agent"]),
    "nobody in Gymnasium": (["--random", "--env", "CartPole-v1", "--gymnasium"], ["--gymnasium needs an agent"]),
    "an unknown environment": (["--random", "--env", "CartPole-v9"], ["'CartPole-v9'", "did you mean CartPole-v1?"]),
    "bad input as JSON": (["--output", "missing", "--json"], ["'missing' is no directory"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_refused_in_one_line_before_anybody_plays(
    command: Command, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for function in ("play", "random_returns"):
        monkeypatch.setattr(play, function, lambda *_: pytest.fail("somebody played"))
    arguments, words = REFUSED[name]
    outcome = command(*arguments)
    assert (outcome.status, outcome.out) == (2, "")
    assert re.fullmatch(r"error: [^\n]+\n", outcome.err), outcome.err
    assert [word for word in words if word not in outcome.err] == [], outcome.err


def test_a_damaged_agent_is_refused_by_name(command: Command) -> None:
    weights = path_of(Path(ODD), 7, "verdict", 0).with_suffix(".safetensors")
    weights.write_bytes(weights.read_bytes()[:-1])
    outcome = command("--output", ODD, "--trial", "7")
    assert outcome.status == 2
    assert "verdict-0.json" in outcome.err
    assert "SHA-256" in outcome.err


# What is shown


def test_the_winners_best_agent_plays_the_first_of_equals(command: Command) -> None:
    outcome = command("--output", ODD, "--episodes", "50")
    assert outcome.status == 0
    lines = outcome.out.splitlines()
    assert lines[0] == f"{path_of(Path(ODD), 24, 'verdict', 0)}: CartPole-v1, linear, trial 24"
    assert lines[1] == (
        "50 greedy episodes: mean return 500.00, standard deviation 0.00, from 500 to 500, 100.00% perfect"
    )
    assert lines[2] == f"  500 {'█' * 40} 50"
    assert outcome.err == ""


def test_json_is_one_object_on_stdout_and_all_else_on_stderr(command: Command) -> None:
    arguments = ["--output", ODD, "--trial", "7", "--episodes", "40", "--gymnasium", "--random", "--gif", "a.gif"]
    outcome = command(*arguments, "--json")
    figures = json.loads(outcome.out)
    returns = play.play(falling(), 0, 40)
    stats = {"mean_return", "std_return", "perfect_share", "min_return", "max_return"}
    assert figures.keys() == {"env", "agent", "trial", "episodes", "gymnasium", "random"} | stats
    assert (figures["env"], figures["trial"], figures["episodes"]) == ("CartPole-v1", 7, 40)
    assert figures["agent"] == str(path_of(Path(ODD), 7, "verdict", 0))
    assert figures["mean_return"] == pytest.approx(returns.mean())
    assert figures["std_return"] == pytest.approx(returns.std())
    assert (figures["min_return"], figures["max_return"]) == (returns.min(), returns.max())
    assert figures["perfect_share"] == 0
    assert figures["gymnasium"].keys() == stats | {"equal_share"}
    assert figures["gymnasium"]["equal_share"] >= 0.95
    assert 15 < figures["random"]["mean_return"] < 30
    for words in ("40 greedy episodes", "in Gymnasium", "of the returns are the same", "random policy", "a.gif"):
        assert words in outcome.err
    with Image.open("a.gif") as image:
        assert image.n_frames == -(-int(play.episode(falling(), 0).total + 1) // 2) + (returns[0] % 2 == 1)


def test_the_random_policy_alone_needs_no_agent_and_no_perfect_return(command: Command) -> None:
    figures = json.loads(command("--random", "--env", "MountainCar-v0", "--episodes", "10", "--json").out)
    random = {"mean_return": -200.0, "std_return": 0.0, "min_return": -200.0, "max_return": -200.0}
    expected = {"env": "MountainCar-v0", "agent": None, "trial": None, "episodes": 10, "random": random}
    assert figures == expected


def test_one_agent_is_found_by_its_weights_too(command: Command) -> None:
    weights = path_of(Path(ODD), 7, "verdict", 0).with_suffix(".safetensors")
    figures = json.loads(command("--agent", str(weights), "--episodes", "5", "--json").out)
    assert figures["trial"] == 7  # as it says itself


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize("spread", [0.0, 1.0, 1e-3, 1e6])
def test_a_histogram_counts_every_return_and_fits_80_columns(script: ModuleType, spread: float, encoding: str) -> None:
    returns = np.random.default_rng(0).normal(-100.0, spread, 100_000).astype(np.float32)
    lines = script._histogram(returns, encoding)
    assert len(lines) <= 10
    assert max(map(len, lines)) <= 80
    assert sum(int(line.split()[-1]) for line in lines) == 100_000
    assert all(line.encode(encoding) for line in lines)


def test_the_help_teaches_with_commands_that_are_accepted(command: Command, script: ModuleType) -> None:
    shown = command("--help")
    assert shown.status == 0
    examples = [line.strip() for line in script.EXAMPLES.splitlines() if "python" in line]
    assert len(examples) == 4
    for example in examples:
        assert example in " ".join(shown.out.split()) or example[:60] in shown.out
    for option in ("--output", "--trial", "--agent", "--episodes", "--seed", "--gif", "--gymnasium", "--json"):
        assert option in shown.out


def test_a_process_of_its_own_works_where_the_terminal_knows_ascii_only(tmp_path: Path) -> None:
    put(tmp_path / ODD, 3, "verdict", 0, falling())
    mark_winner(tmp_path / ODD, 3)
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "COLUMNS": "80"}
    words = [sys.executable, str(SCRIPT), "--output", ODD, "--episodes", "20"]
    ended = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert r"l\xe4ufe [bold]5[/] $x" in ended.stdout
    assert "#####" in ended.stdout
