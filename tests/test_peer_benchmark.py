"""Ours beside peers: everybody trains the same sets, and what was done is counted."""

import io
import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from jaxdqn import devices, peer_benchmark, peer_ways, space
from jaxdqn.host_benchmark import random_trials
from jaxdqn.hyperparams import defaults
from jaxdqn.peer_benchmark import OURS, compare_sets, compare_uniform
from jaxdqn.peer_figures import draw_peers, sets_table, uniform_table
from jaxdqn.peer_sets import Sets, load_sets, updates_in
from jaxdqn.peer_ways import REJAX, SB3, TORCH, Way, start, train
from jaxdqn.peers import Peer, Running

ROOT = Path(__file__).parent.parent
PEERS = ROOT / "scripts" / "peers"
STAND_IN = """
import sys
sys.path.insert(0, {serving!r})
from serving import serve


def answer(request):
    agents = []
    for one in request["sets"]:
        steps = range(one["train_period"], request["env_steps"] + 1, one["train_period"])
        updates = len([s for s in steps if s >= one["warmup_steps"]]) * one["gradient_steps"] + {more}
        agents.append({{"env_steps": request["env_steps"], "updates": updates, "returns": [10.0, one["train_period"]]}})
    return {{"seconds": {seconds}, "agents": agents}}


serve(answer)
"""


SMALL = """
episodes = 200
[hyperparameters]
train_period = { choices = [8, 16] }
gradient_steps = { choices = [1, 4] }
batch_size = 16
hidden_width = 8
hidden_layers = 1
warmup_steps = 100
"""


def small(directory: Path) -> Sets:
    """Three sets of a space with a small network and budget."""
    (directory / "small.toml").write_text(SMALL)
    sets = [{"train_period": period, "gradient_steps": updates} for period, updates in ((16, 1), (8, 4), (8, 1))]
    content = {"space": str(directory / "small.toml"), "env_steps": 640, "eval_episodes": 2}
    (directory / "sets.json").write_text(json.dumps(content | {"fixed": {"huber_loss": True}, "sets": sets}))
    return load_sets(directory / "sets.json")


def stand_in(directory: Path, name: str, stack: ExitStack, num: int = 1, seconds: float = 1.0, more: int = 0) -> Way:
    script = directory / f"{name} {num}.py"
    script.write_text(STAND_IN.format(serving=str(PEERS), seconds=seconds, more=more))
    processes = [Running(Path(sys.executable), Peer(script, script)) for _ in range(num)]
    return Way(name, [stack.enter_context(one) for one in processes], 1, {1: 0.5}, {})


def shown(renderable: Any) -> list[str]:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(renderable)
    return console.export_text().splitlines()


# The sets


def test_the_sets_are_those_that_were_drawn() -> None:
    drawn = random_trials(space.load("article").searched, 16)
    stored = json.loads((PEERS / "sets.json").read_text("utf-8"))["sets"]
    assert len(stored) == 16
    for one, trial in zip(stored, drawn, strict=True):
        assert one == {name: pytest.approx(value, rel=1e-12) for name, value in trial.params.items()}


def test_all_sets_fit_the_budget_and_make_updates() -> None:
    sets = load_sets(PEERS / "sets.json")
    assert sets.space.searched.keys() == space.load("article").searched.keys()
    assert min(sets.updates()) > 0
    for one in sets.hyperparams:
        assert (one.hidden_width, one.hidden_layers, one.huber_loss, one.double_q) == (256, 2, True, False)
        assert sets.config.env_steps % one.train_period == 0  # Stable-Baselines3 rounds up to whole periods


def test_a_set_that_is_none_of_the_space_is_refused(tmp_path: Path) -> None:
    content = json.loads((PEERS / "sets.json").read_text("utf-8"))
    content["sets"][1]["learning_rate"] = 0.5
    (tmp_path / "sets.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"set 1: learning_rate = 0\.5"):
        load_sets(tmp_path / "sets.json")


@pytest.mark.parametrize(
    ("warmup", "period", "updates"),
    [(0, 8, 36), (8, 8, 36), (9, 8, 33), (96, 8, 3), (97, 8, 0), (5_000, 8, 0), (1, 1, 300), (64, 1, 111)],
)
def test_updates_are_made_from_the_warmup_on_at_every_period(warmup: int, period: int, updates: int) -> None:
    one = defaults()._replace(warmup_steps=warmup, train_period=period, gradient_steps=3)
    assert updates_in(one, 100) == updates


# The comparison


def test_ours_and_peers_are_compared_turn_by_turn(tmp_path: Path) -> None:
    sets = small(tmp_path)
    said: list[str] = []
    with ExitStack() as stack:
        ways = [stand_in(tmp_path, SB3, stack, seconds=30.0), stand_in(tmp_path, SB3, stack, 2)]
        ways.append(stand_in(tmp_path, TORCH, stack, more=1))
        result = compare_sets(sets, ways, 2, 60, said.append)
    by = result["by"]
    assert list(by) == [OURS, SB3, f"{SB3}, 2 processes", TORCH]
    assert (len(by[OURS]["seconds_all"]), len(by[SB3]["seconds_all"])) == (7, 2)
    assert by[OURS]["updates"] == by[SB3]["updates"] == by[f"{SB3}, 2 processes"]["updates"] == sum(sets.updates()) > 0
    assert by[OURS]["env_steps"] == by[SB3]["env_steps"] == 3 * 640
    assert [by[name]["same_work"] for name in by] == [True, True, True, False]
    assert not result["reached"]  # who does other work can't be compared
    assert by[SB3]["mean_returns"] == [(10 + one.train_period) / 2 for one in sets.hyperparams]
    assert by[f"{SB3}, 2 processes"]["mean_returns"] == by[SB3]["mean_returns"]  # put back into their order
    seconds = by[OURS]["seconds_all"]
    around = [(seconds[0] + seconds[1]) / 2, (seconds[3] + seconds[4]) / 2]  # before and after Stable-Baselines3's
    assert by[SB3]["times_as_fast_all"] == [pytest.approx(30 / s, rel=0.1) for s in around]
    lines = shown(sets_table(result))
    assert not [line for line in lines if "…" in line]
    assert "✗ not everybody made these steps and updates" in lines
    draw_peers({"sets": result}, tmp_path / "peers.png")
    assert (tmp_path / "peers.png").stat().st_size > 10_000


def test_processes_share_the_sets(tmp_path: Path) -> None:
    sets = load_sets(PEERS / "sets.json")
    with ExitStack() as stack:
        way = stand_in(tmp_path, TORCH, stack, 2)
        assert [one["updates"] for one in train(way, sets, 0, 60)["agents"]] == sets.updates()


def test_numbers_of_threads_are_tried_and_the_usually_fastest_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = """
import sys
sys.path.insert(0, {serving!r})
from serving import serve
took = {{1: [4.0, 4.0, 4.0], 2: [3.0, 3.0, 3.0], 4: [2.0, 9.0, 9.0]}}
serve(lambda request: {{"seconds": took[request["threads"]].pop(0)}}, "pytest")
"""
    (tmp_path / "torch_dqn.py").write_text(code.format(serving=str(PEERS)))
    monkeypatch.setattr(peer_ways, "prepare", lambda *_: Path(sys.executable))
    monkeypatch.setattr(devices, "cores", lambda: 4)
    with ExitStack() as stack:
        alone, each = start(tmp_path, tmp_path, [TORCH], small(tmp_path), 60, stack, lambda _: None)[TORCH]
        assert (alone.threads, alone.tried, len(alone.processes)) == (2, {1: 4.0, 2: 3.0, 4: 9.0}, 1)
        assert (each.threads, len(each.processes)) == (1, len(peer_ways._core_numbers()))
        assert alone.versions == {"pytest": pytest.__version__}


def test_the_uniform_population_counts_the_updates_of_all_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spans = iter([80_000, 100_000, 90_000])
    monkeypatch.setattr(peer_benchmark, "measure", lambda *_: {"updates_per_s": next(spans), "compile_s": 1.0})
    with ExitStack() as stack:
        ways = [stand_in(tmp_path, SB3, stack), stand_in(tmp_path, SB3, stack, 2)]
        result = compare_uniform(ways, 3, 0.1, 60, lambda _: None)
    alone, both = result["by"][SB3], result["by"][f"{SB3}, 2 processes"]
    assert alone["updates_per_s"] == 2_000 - 63
    assert both["updates_per_s"] == 2 * alone["updates_per_s"]
    assert alone["times_as_fast"] == pytest.approx(90_000 / 1_937, abs=0.01)
    assert alone["times_as_fast_range"] == [
        pytest.approx(80_000 / 1_937, abs=0.01),
        pytest.approx(100_000 / 1_937, abs=0.01),
    ]
    assert not result["reached"]
    assert not [line for line in shown(uniform_table(result)) if "…" in line]


# The command


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("peers --only nothing", ["--only 'nothing'", "sets, uniform"]),
        ("peers --limit nan", ["--limit nan"]),
        ("peers --rounds 0", ["--rounds", "0"]),
        ("peers --output file", ["--output 'file'", "no writable directory"]),
        ("sweep --only nothing", ["--only 'nothing'", "population, lane, sb3"]),
        ("sweep --budget inf", ["--budget inf"]),
        ("sweep --target nan", ["--target nan"]),
        ("sweep --space acrobot", ["'acrobot'", "CartPole-v1"]),
        ("sweep --space nothing", ["'nothing'", "presets are"]),
    ],
)
def test_bad_input_is_refused_in_one_line(tmp_path: Path, arguments: str, words: list[str]) -> None:
    (tmp_path / "file").touch()
    command = [sys.executable, str(ROOT / "scripts" / "benchmark.py"), *arguments.split()]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.count("\n") == 1
    assert not [word for word in words if word not in ended.stderr]


@pytest.mark.slow
def test_the_peers_make_the_steps_and_updates_of_the_sets(tmp_path: Path) -> None:
    environments = os.environ.get("JAXDQN_PEERS")
    if not environments:
        pytest.skip("JAXDQN_PEERS names no directory of the peers' environments: they take 2 GB and a network")
    sets = small(tmp_path)
    with ExitStack() as stack:
        ways = start(PEERS, Path(environments), [TORCH, SB3, REJAX], sets, 600, stack, lambda _: None)
        for name in (TORCH, SB3):
            for way in ways[name]:
                agents = train(way, sets, 0, 600)["agents"]
                assert [one["updates"] for one in agents] == sets.updates()
                assert {one["env_steps"] for one in agents} == {640}
                assert {len(one["returns"]) for one in agents} == {2}
        for way in ways[REJAX]:
            got = way.processes[0].ask({"lanes": 4, "batch_size": 64, "seconds": 0.1}, 600)
            assert got["updates"] > 0
            assert got["updates"] % (4 * 64) == 0
