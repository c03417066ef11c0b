"""The comparison with stock Optuna: its statistics by hand, its stored half, and tiny runs of the whole."""

from __future__ import annotations

import importlib.util
import io
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import numpy as np
import optuna
import pytest
import typer
from optuna.distributions import FloatDistribution
from rich.console import Console

from jaxdqn import devices, quality
from jaxdqn.host_benchmark import BARS_MS, CONTENDERS, ask_table, ask_times, random_trials
from jaxdqn.objectives import Objective, objectives

SCRIPT = Path(__file__).parent.parent / "scripts" / "benchmark.py"
DATA = SCRIPT.parent / "data"
SPACE = {"x": FloatDistribution(0, 1), "y": FloatDistribution(1e-3, 1, log=True)}


@pytest.fixture(scope="module")
def six() -> dict[str, Objective]:
    return objectives(DATA)


@pytest.fixture(scope="module")
def stored() -> dict[str, Any]:
    known: dict[str, Any] = json.loads((DATA / "stock_quality.json").read_text())
    return known


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_script", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def shown(what: Any) -> list[str]:
    text = io.StringIO()
    Console(file=text, width=80).print(what)
    return text.getvalue().splitlines()


def test_holm_multiplies_the_smallest_by_all_and_never_falls() -> None:
    assert quality.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert quality.holm([0.6, 0.5]) == [1.0, 1.0]
    assert quality.holm([0.2]) == [0.2]


def test_the_probability_that_stock_is_better_counts_pairs_and_halves_ties() -> None:
    share, (low, high) = quality.stock_better(np.array([1.0, 3.0]), np.array([2.0, 3.0]))
    assert share == pytest.approx((0 + 1 + 0 + 0.5) / 4)
    assert 0 <= low <= share <= high <= 1


@pytest.mark.parametrize(("ours", "share"), [([5.0] * 8, 1.0), ([-5.0] * 8, 0.0), ([0.0] * 8, 0.5)])
def test_runs_that_are_all_alike_leave_no_doubt(ours: list[float], share: float) -> None:
    assert quality.stock_better(np.array(ours), np.zeros(8)) == (pytest.approx(share), pytest.approx([share, share]))


def test_the_interval_is_as_wide_as_theory_says_of_two_equal_samplers() -> None:
    random = np.random.default_rng(3)
    _, (low, high) = quality.stock_better(random.normal(size=15), random.normal(size=15))
    assert high - low == pytest.approx(2 * 1.96 * (31 / (12 * 15 * 15)) ** 0.5, rel=0.25)  # U's variance without effect


def test_a_curve_is_its_steps() -> None:
    curve = [5.0, 5.0, 3.0, 3.0, 1.0]
    assert quality.steps(curve) == [[0, 5.0], [2, 3.0], [4, 1.0]]
    assert quality.unfold([quality.steps(curve)], 5).tolist() == [curve]
    assert quality.unfold([quality.steps(curve)], 3).tolist() == [curve[:3]]


def test_a_batch_is_asked_for_before_anything_of_it_is_told() -> None:
    seen: list[int] = []

    class Spy(optuna.samplers.RandomSampler):
        def infer_relative_search_space(self, study: optuna.Study, trial: Any) -> dict[str, Any]:
            seen.append(sum(t.state.is_finished() for t in study.get_trials(deepcopy=False)))
            return {}

    curve = quality.run(Objective(SPACE, lambda p: p["x"]), Spy(seed=0), trials=7, batch=3)
    assert seen == [0, 0, 0, 3, 3, 3, 6]
    assert curve == sorted(curve, reverse=True)


def test_what_is_stored_is_a_falling_curve_of_every_seed(six: dict[str, Objective], stored: dict[str, Any]) -> None:
    assert (stored["trials"], stored["batch"], stored["seeds"]) == (quality.TRIALS, quality.BATCH, quality.SEEDS)
    assert stored["made_by"] == quality.COMMAND
    assert list(stored["curves"]) == list(six)
    for by_sampler in stored["curves"].values():
        for curves in (by_sampler["stock"], by_sampler["random"]):
            assert len({json.dumps(curve) for curve in curves}) == quality.SEEDS
            whole = quality.unfold(curves, quality.TRIALS)
            assert np.isfinite(whole).all()
            assert (np.diff(whole) <= 0).all()


@pytest.mark.parametrize(("sampler", "name"), [("stock", "rosenbrock"), ("random", "mixed"), ("random", "table")])
def test_a_run_of_today_finds_the_stored_curve(
    sampler: str, name: str, six: dict[str, Objective], stored: dict[str, Any]
) -> None:
    if optuna.__version__ != stored["optuna"]:
        pytest.skip(f"stored curves are Optuna {stored['optuna']}'s")
    curve = quality.run(six[name], quality.SAMPLERS[sampler](quality.FIRST_SEED + 3))
    assert curve == pytest.approx(quality.unfold([stored["curves"][name][sampler][3]], quality.TRIALS)[0], rel=1e-5)


def test_a_stock_that_always_wins_misses_the_bar_and_one_that_never_does_reaches_it() -> None:
    one = {"plane": Objective(SPACE, lambda p: p["x"])}
    for value, reached in ((-1.0, False), (9.0, True)):
        stored = {"optuna": "0", "curves": {"plane": {who: [[[0, value]]] * 8 for who in ("stock", "random")}}}
        result = quality.compare(one, stored, seeds=8, trials=4)
        assert result["reached"] is reached
        assert result["functions"]["plane"]["stock_better"] == (0.0 if reached else 1.0)


def test_the_host_command_compares_and_draws(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    compare = quality.compare
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    monkeypatch.setattr(devices, "prepare", lambda: None)  # done for all tests
    monkeypatch.setattr(quality, "compare", lambda *what, progress: compare(*what, 2, 64, progress))
    script.host(only=["quality"], output=tmp_path / "new", stock=False, as_json=True)
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert result == json.loads((tmp_path / "new" / "host.json").read_text())
    assert set(result) == {"machine", "versions", "quality"}
    assert result["quality"]["trials"] == 64
    assert all(len(row["curves"]["ours"]) == 2 for row in result["quality"]["functions"].values())
    assert (tmp_path / "new" / "quality.png").read_bytes().startswith(b"\x89PNG")
    assert "table" in printed.err
    assert max(map(len, shown(quality.quality_table(result["quality"])))) <= 80


def test_asking_is_timed_for_everybody_on_every_size_and_batch() -> None:
    result = ask_times(SPACE, sizes=(20, 40), batches=(1, 3))
    assert [(row["trials"], row["batch"]) for row in result["rows"]] == [(20, 1), (20, 3), (40, 1), (40, 3)]
    assert all(set(row["by"]) == set(CONTENDERS) for row in result["rows"])
    assert all(cell["batches_timed"] == 5 and cell["ms"] > 0 for row in result["rows"] for cell in row["by"].values())
    assert [look["trials"] for look in result["first_looks"]] == [20, 40]
    lines = shown(ask_table(result))
    assert any("ours" in line and "stock" in line and "random" in line for line in lines)


def test_an_ask_above_its_bar_misses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for bar, verdict in ((0.0, "✗ no"), (1e9, "✓ yes")):
        monkeypatch.setitem(BARS_MS, (20, 1), bar)
        result = ask_times(SPACE, sizes=(20,), batches=(1,))
        assert result["reached"] is (bar > 0)
        assert any(line.endswith(verdict) for line in shown(ask_table(result)))


def test_random_trials_fill_the_whole_space() -> None:
    trials = random_trials(SPACE, 400)
    x = np.array([trial.params["x"] for trial in trials])
    y = np.log10([trial.params["y"] for trial in trials]) / 3 + 1
    for unit in (x, y):
        assert np.histogram(unit, 4, (0, 1))[0] == pytest.approx(np.full(4, 100), abs=40)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["host", "--only", "asking"], ["--only 'asking'", "ask, quality"]),
        (["host", "--output", str(SCRIPT)], ["--output", "benchmark.py", "no writable directory"]),
        (["train", "--lanes", "0"], ["--lanes", "0"]),
        (["--lanes", "many"], ["--lanes", "'many'"]),
        (["hosts"], ["hosts"]),
        (["gpu-plan", "--target", "v100"], ["--target 'v100'", "t4, a100, h100"]),
        (["gpu-plan", "--space", "nowhere"], ["nowhere"]),
        (["gpu-plan", "--output", str(SCRIPT)], ["benchmark.py"]),
        (["profile", "--output", str(SCRIPT)], ["--output", "benchmark.py", "no writable directory"]),
        (["profile", "--lanes", "0"], ["--lanes", "0"]),
    ],
)
def test_what_is_wrong_is_one_line_and_exit_status_2(
    arguments: list[str],
    words: list[str],
    script: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *arguments])
    with pytest.raises(SystemExit) as exit_:
        script.main(script.train, script.host, script.gpu_plan, script.profile)
    printed = capsys.readouterr()
    assert exit_.value.code == 2
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1
    assert all(word in printed.err for word in words)


@pytest.mark.parametrize("arguments", [[], ["--lanes", "8"], ["train", "--lanes", "8"]])
def test_training_is_what_is_measured_if_nothing_is_named(
    arguments: list[str], script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    lanes: list[int] = []

    def train(lanes_: int = 64) -> None:
        lanes.append(lanes_)

    train.__annotations__["lanes_"] = Annotated[int, typer.Option("--lanes")]
    monkeypatch.setattr(script, "train", train)
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *arguments])
    with pytest.raises(SystemExit) as exit_:
        script.main(script.train, script.host)
    assert exit_.value.code in (None, 0)
    assert lanes == [8 if arguments else 64]
