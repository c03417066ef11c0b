"""Sweeps that are killed and started again, and what must not differ from one that was left alone."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from jaxdqn import history, journal

SCRIPT = Path(__file__).parents[1] / "scripts" / "sweep.py"
TRIALS = 56
SPACE = """
env_steps = 12_000
eval_episodes = 20
rungs = 1_000
validation_episodes = 16
proof_episodes = 64
keep_best = true
stop_when_perfect = true
solved_return = 195
seeds = 2
[hyperparameters]
learning_rate = { low = 1e-4, high = 1e-2, log = true }
batch_size = { choices = [32, 64] }
gradient_steps = { choices = [6, 12] }
warmup_steps = 200
epsilon_decay_steps = 1_500
target_period = 100
hidden_width = 32
"""


def start(directory: Path, output: str, *options: str) -> subprocess.Popen[str]:
    """Start the command in a process group of its own, with a space whose agents do learn."""
    (directory / "small.toml").write_text(SPACE)
    fresh = ["--confirm-top", "2", "--confirm-seeds", "3", "--verdict-seeds", "3"]
    words = [sys.executable, str(SCRIPT), "--space", "small.toml", "--trials", str(TRIALS), *fresh, "--no-report"]
    environment = {name: value for name, value in os.environ.items() if name != "JAX_ENABLE_COMPILATION_CACHE"}
    with (directory / f"{output}.txt").open("a") as said:
        return subprocess.Popen(
            [*words, "--output", output, *options],
            cwd=directory,
            stdout=said,
            stderr=subprocess.STDOUT,
            env={**environment, "XDG_CACHE_HOME": str(directory.parent / "cache")},
            start_new_session=True,
            text=True,
        )


def kill(process: subprocess.Popen[str]) -> bool:
    """Kill a process with all its children; return whether it was still running."""
    running = process.poll() is None
    if running:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(30)
    return running


def until_it_logs(process: subprocess.Popen[str], log: Path, timeout_s: float = 240.0) -> None:
    """Wait for the first visit of a process in the log, or for its end."""
    began, before = time.monotonic(), clock(log)
    while process.poll() is None and clock(log) == before and time.monotonic() - began < timeout_s:
        time.sleep(0.02)


def clock(log: Path) -> int:
    """The number of the last visit in a log."""
    records = journal.read(log) if log.is_file() else []
    return int(records[-1]["clock"]) if records else 0


def outcome(output: Path) -> dict[str, Any]:
    """All that a sweep has come to: trials, fresh seeds, verdict, agents; but for the times of day."""
    told = history.read(output)
    trials = [
        [t.number, t.state, t.value, t.params, t.intermediate, {k: v for k, v in t.attributes.items() if k != "lanes"}]
        for t in told.trials
    ]
    agents = {
        phase: {
            f"{number}/{seed}": {key: value for key, value in result.items() if key != "lanes"}
            for (number, seed), result in sorted(told.recorded(phase).items())
        }
        for phase in ("confirm", "verdict")
    }
    confirmed, verdict = history.fresh_seeds(told)
    weights = {
        str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((output / "agents").rglob("*.safetensors"))
    }
    winner = (output / "agents" / "winner.json").read_text() if (output / "agents" / "winner.json").is_file() else None
    ends = {
        "trials": trials,
        "agents": agents,
        "confirmed": [one.number for one in confirmed],
        "verdict": verdict.returns if verdict else None,
        "weights": weights,
        "winner": winner,
    }
    return json.loads(json.dumps(ends))
