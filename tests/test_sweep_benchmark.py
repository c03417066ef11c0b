"""Whole sweeps side by side: the figures are made of when trials ended."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from jaxdqn import sweep_benchmark
from jaxdqn.sweep_benchmark import LANE, POPULATION, STOCK, Ended, Search, Settings, compare
from jaxdqn.sweep_figures import draw_sweeps, sweep_table

SETTINGS = Settings("default", 64, 180.0, 2, 475.0, 3_600.0)
SLOW = [Ended(10, 40, "complete", 200.0), Ended(40, 50, "pruned", None), Ended(50, 100, "complete", 480.0)]


def test_trials_an_hour_are_those_that_ended_over_the_time_they_took() -> None:
    assert Search(SLOW, 10.0).trials_per_hour == 3 * 3_600 / 90
    assert Search([], 10.0).trials_per_hour == 0.0


def test_the_first_trial_at_the_target_is_looked_for() -> None:
    assert Search(SLOW, 10.0).first_s(475.0) == 100
    assert Search(SLOW, 10.0).first_s(200.0) == 40
    assert Search(SLOW, 10.0).first_s(481.0) == math.inf


def test_a_verdict_that_was_not_asked_for_is_computed() -> None:
    assert Search(SLOW, 10.0, verdict_s=123.0, retrained=64).to_verdict_s(64, 64) == 123.0
    # 64 trials of 30 s each, and 4 agents of the 40 s that a complete trial takes
    assert Search(SLOW, 10.0).to_verdict_s(64, 4) == pytest.approx(10 + 64 * 30 + 4 * 40)
    assert Search(SLOW[1:2], 10.0).to_verdict_s(64, 4) == math.inf


def compared(monkeypatch: pytest.MonkeyPatch, stock: Search) -> dict[str, Any]:
    fast = [Ended(t.began_s / 100, t.ended_s / 100, t.state, t.value) for t in SLOW]
    ours = {True: Search(SLOW, 10.0), False: Search(fast, 0.1, verdict_s=2.0, retrained=4)}
    monkeypatch.setattr(sweep_benchmark, "_ours", lambda settings, seed, alone: ours[alone])
    monkeypatch.setattr(sweep_benchmark, "_stock", lambda *_: (stock, {"optuna": "5"}))
    return compare(SETTINGS, Path(), Path(), [POPULATION, LANE, STOCK], lambda _: None)


@pytest.mark.parametrize(
    "stock", [Search(SLOW, 5.0), Search([], 5.0), Search(SLOW[:2], 5.0)], ids=["some", "no", "bad"]
)
def test_sides_are_compared_and_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stock: Search) -> None:
    result = compared(monkeypatch, stock)
    by = result["by"]
    assert by[LANE]["times_as_many"] == 100.0
    assert (by[POPULATION]["verdict_s"], by[POPULATION]["verdict_is_computed"]) == (2.0, False)
    assert by[LANE]["verdict_is_computed"]
    assert by[POPULATION]["first_s"] == 1.0
    assert by[STOCK]["first_s"] == (100.0 if len(stock.trials) == 3 else None)
    assert len(by[LANE]["runs"]) == SETTINGS.repeats
    json.dumps(result, allow_nan=False)
    draw_sweeps(result, tmp_path / "sweep.png")
    assert (tmp_path / "sweep.png").stat().st_size > 10_000
    console = Console(width=80, record=True, quiet=False)
    console.print(sweep_table(result))
    lines = console.export_text().splitlines()
    assert not [line for line in lines if "…" in line]
    assert len([line for line in lines if line.startswith((POPULATION, LANE, STOCK))]) == 3


TERMINATED = """
import runpy, sys
from pathlib import Path
from jaxdqn import sweep_benchmark
sweep_benchmark.SCRIPT = Path({sleeper!r})
sys.argv = ["benchmark.py", "sweep", "--only", "population", "--output", {output!r}]
runpy.run_path({script!r}, run_name="__main__")
"""


def test_a_benchmark_that_is_terminated_leaves_no_sweep_behind(tmp_path: Path) -> None:
    sleeper, told = tmp_path / "sleeper.py", tmp_path / "pid"
    sleeper.write_text(
        f"import os, time\nfrom pathlib import Path\nPath({str(told)!r}).write_text(str(os.getpid()))\ntime.sleep(300)"
    )
    script = Path(__file__).parents[1] / "scripts" / "benchmark.py"
    code = TERMINATED.format(sleeper=str(sleeper), output=str(tmp_path / "out"), script=str(script))
    running = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 60
        while not (told.exists() and told.read_text()):
            assert running.poll() is None
            assert time.monotonic() < until
            time.sleep(0.05)
        running.terminate()
        assert running.wait(20) == 128 + signal.SIGTERM
    finally:
        running.kill()
    with pytest.raises(ProcessLookupError):
        os.kill(int(told.read_text()), 0)
