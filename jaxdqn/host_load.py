"""What the host costs a sweep: recording, a device that ends 25 trials a second, and agents that are all different."""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from jaxdqn import cost, devices, space
from jaxdqn.accounts import Accounts
from jaxdqn.benchmark import measure
from jaxdqn.block import Placement, Progress
from jaxdqn.config import Config, Layout
from jaxdqn.cost import SPEEDS
from jaxdqn.events import Visited
from jaxdqn.lanes import Lanes
from jaxdqn.network import Params
from jaxdqn.opening import open_plan
from jaxdqn.plan import OFF, Settings, plan
from jaxdqn.population import Population
from jaxdqn.run import run
from jaxdqn.study import open_study
from jaxdqn.sweep import sweep
from jaxdqn.trials import Limits
from jaxdqn.workload import Uniform

SCRIPT = Path(__file__).parent.parent / "scripts" / "sweep.py"


def recording(pairs: int = 3, trials: int = 128, lanes: int = 64) -> dict[str, Any]:
    """Run whole sweeps with and without storage and MLflow, in turn; return the ratio of their wall times."""
    ratios, visits = [], []
    walls: dict[str, list[float]] = {"on": [], "off": []}
    with tempfile.TemporaryDirectory() as directory:
        for pair in range(pairs):
            for which in ("on", "off") if pair % 2 else ("off", "on"):
                output = Path(directory) / f"{which}-{pair}"
                off = ("--storage", OFF, "--tracking", OFF) if which == "off" else ()
                size = ("--lanes", str(lanes), "--trials", str(trials), "--confirm-top", "0", "--no-report")
                options = (*size, "--output", str(output), "--json")
                done = subprocess.run(
                    [sys.executable, SCRIPT, *options, *off], capture_output=True, text=True, check=False
                )
                if done.returncode:
                    raise RuntimeError(f"a sweep failed: {done.stderr.strip().splitlines()[-1:]}")
                summary = json.loads(done.stdout)
                walls[which].append(summary["wall_s"])
                visits.append(summary["visit_s"] / summary["train_s"])
            ratios.append(walls["on"][-1] / walls["off"][-1])
    return {
        "lanes": lanes,
        "trials": trials,
        "wall_s_on": [round(wall, 1) for wall in walls["on"]],
        "wall_s_off": [round(wall, 1) for wall in walls["off"]],
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "visit_share": round(statistics.median(visits), 4),
    }


class SimulatedDevice:
    """A population without agents, as fast as a GPU: lives are drawn from trial numbers, segments are slept through."""

    def __init__(self, config: Config, layout: Layout, seed: int, trials_per_s: float = 25.0) -> None:
        """Lay it out like a population whose trials of one seed end at this rate."""
        self.config, self.layout = config, layout
        self._mean_life_s = layout.lanes / trials_per_s
        self._segment_s = 0.3  # of all rows together
        shape = (layout.rows, *layout.row_shape)
        self._left, self._trial = np.zeros(shape), np.zeros(shape, np.int64)
        self._ready = [0.0] * layout.rows
        self._progress: list[Progress | None] = [None] * layout.rows
        self._seed, self._free = seed, 0.0  # when the device is done with all that is queued
        self.busy_lane_s = self.began = self.ended = 0.0
        self.tail = False  # a lane has nobody left to train: what follows is not counted

    def compile(self) -> float:
        """Take no time."""
        self.began = self._free = time.perf_counter()
        return 0.0

    def dispatch(self, row: int, placement: Placement, num_ticks: Int[np.ndarray, " devices"]) -> None:
        """Queue a segment: its lanes live on for the time of a round of all rows."""
        fresh = np.asarray(placement.fresh)
        self._trial[row] = np.where(fresh, placement.names.trial, self._trial[row])
        lives = self._mean_life_s * (0.5 + self._draw(self._trial[row], 0))
        self._left[row] = np.where(fresh, lives, self._left[row])
        living = self._left[row] > 0
        self.tail |= self.began < self.ended and not living.all()
        if not self.tail:
            self.busy_lane_s += float(np.minimum(self._left[row], self._segment_s)[living].sum())
        self._left[row] = np.where(living, self._left[row] - self._segment_s, self._left[row])
        ended = living & (self._left[row] <= 0)
        self._free = max(self._free, time.perf_counter()) + self._segment_s / self.layout.rows
        self._ready[row] = self._free
        lived = 1 - np.clip(self._left[row] / lives, 0, 1)
        step = (lived * self.config.env_steps).astype(np.int32)
        rungs = np.array(self.config.rungs)
        value = 500 * self._draw(self._trial[row], 1)
        self._progress[row] = Progress(
            alive=living & ~ended,
            diverged=np.zeros_like(ended),
            step=step,
            episodes=step // 100,
            updates=step // 4,
            return_sum=step.astype(np.float32),
            loss_sum=step.astype(np.float32),
            validation=np.where(step[..., None] >= rungs, value[..., None], np.nan).astype(np.float32),
            returns=np.where(ended, value, np.nan)[..., None].astype(np.float32),
        )

    def read(self, row: int) -> Progress:
        """Wait for the end of a segment."""
        time.sleep(max(0.0, self._ready[row] - time.perf_counter()))
        self.ended = self.ended if self.tail else time.perf_counter()
        progress = self._progress[row]
        assert progress is not None
        return progress

    def params(self, row: int) -> Params:
        """Return no parameters: there are no agents."""
        return {}

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Nothing: no bits depend on anything."""
        return {}

    def state(self, row: int) -> list[np.ndarray]:
        """Return no state."""
        return []

    def state_bytes(self, row: int) -> int:
        """Return that there is none."""
        return 0

    def restore(self, row: int, state: list[np.ndarray]) -> None:
        """Do nothing."""

    @property
    def busy(self) -> float:
        """Share of the lanes' time in which an agent lived, while there were enough of them."""
        return self.busy_lane_s / ((self.ended - self.began) * self.layout.lanes)

    def _draw(self, trial: np.ndarray, stream: int) -> np.ndarray:
        """A number from [0, 1) for each trial."""
        hashed = (trial.astype(np.uint64) + np.uint64(self._seed)) * np.uint64(0x9E3779B97F4A7C15)
        hashed ^= hashed >> np.uint64(29)
        hashed *= np.uint64(0xBF58476D1CE4E5B9) + np.uint64(2 * stream)
        return (hashed >> np.uint64(11)).astype(np.float64) / 2.0**53


def simulated_gpu(trials: int = 10_000, lanes: int = 256, trials_per_s: float = 25.0) -> dict[str, Any]:
    """Run a sweep of the default space on a simulated device; say whether the host keeps up."""
    made: list[SimulatedDevice] = []

    def make(config: Config, layout: Layout, seed: int) -> SimulatedDevice:
        made.append(SimulatedDevice(config, layout, seed, trials_per_s))
        return made[0]

    said: list[str] = []
    with tempfile.TemporaryDirectory() as directory:
        opened = open_plan(plan(Settings(trials=trials, output=Path(directory) / "sweep", confirm_top=0, report=False)))
        opened = replace(opened, layout=Layout(rows=2, devices=1, block=lanes // 2))
        result = run(opened, lambda event: said.append(event) if isinstance(event, str) else None, make_population=make)
        log_mb = (Path(directory) / "sweep" / "study.log").stat().st_size / 1e6
    summary = result.summary()
    return {
        "trials": result.accounts.trials,
        "trials_per_s": round(result.accounts.trials / result.train_s, 2),
        "asked_trials_per_s": trials_per_s,
        "lanes_busy": round(made[0].busy, 4),
        "drain_s": summary["drain_s"],
        "memory_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
        "log_mb": round(log_mb, 1),
        **{name: summary[name] for name in summary if name.endswith("ms_a_trial")},
        "failures": result.failures,
        "said": said,
    }


class _Recorded:
    """A population whose updates are counted by batch size, until a lane has nobody left to train."""

    def __init__(self, population: Population) -> None:
        self.population, self.config, self.layout = population, population.config, population.layout
        self.updates: dict[int, int] = {}
        self.steps = 0
        self._batch = [np.zeros(self.layout.row_shape, np.int64) for _ in range(self.layout.rows)]
        self._before = [(np.zeros(self.layout.row_shape, np.int64),) * 2 for _ in range(self.layout.rows)]

    def dispatch(self, row: int, placement: Placement, num_ticks: Int[np.ndarray, " devices"]) -> None:
        fresh = np.asarray(placement.fresh)
        self._before[row] = tuple(np.where(fresh, 0, x) for x in self._before[row])  # type: ignore[assignment]
        self._batch[row] = np.asarray(placement.hyperparams.batch_size)
        self.population.dispatch(row, placement, num_ticks)

    def read(self, row: int) -> Progress:
        progress = self.population.read(row)
        steps, updates = np.asarray(progress.step, np.int64), np.asarray(progress.updates, np.int64)
        before = self._before[row]
        self.steps += int((steps - before[0]).sum())
        for size in np.unique(self._batch[row]):
            made = (updates - before[1])[self._batch[row] == size].sum()
            self.updates[int(size)] = self.updates.get(int(size), 0) + int(made)
        self._before[row] = (steps, updates)
        return progress

    def params(self, row: int) -> Params:
        return self.population.params(row)

    @property
    def fingerprint(self) -> dict[str, Any]:
        return self.population.fingerprint

    def state(self, row: int) -> list[np.ndarray]:
        return self.population.state(row)

    def state_bytes(self, row: int) -> int:
        return self.population.state_bytes(row)

    def restore(self, row: int, state: list[np.ndarray]) -> None:
        self.population.restore(row, state)


def mixed(trials: int = 256, seconds: float = 3.0) -> dict[str, Any]:
    """Train the article's space, all agents different; compare with what uniform populations would have taken.

    Ends when a lane has nobody left to train. Scores are of few episodes: what is compared are steps and updates.
    """
    searched = space.load("article", eval_episodes=4)
    config, platform = space.config(searched), devices.platform()
    layout = devices.choose_layout(largest_block=cost.largest_block(config, True, platform))
    population, accounts = Population(config, layout, 0), Accounts()
    population.compile()
    trainer, elapsed = _Recorded(population), 0.0
    with tempfile.TemporaryDirectory() as directory:
        study = open_study(Path(directory) / "study.log", "mixed", searched, {}, "random", 0)
        lanes = Lanes(trainer, space.common_period(searched), SPEEDS[platform], accounts)
        limits, start = Limits(trials=trials), time.perf_counter()
        for event in sweep(lanes, study, searched, limits):
            if isinstance(event, Visited):
                elapsed = time.perf_counter() - start
                if event.lanes_busy < layout.lanes:
                    break
        study.close()
    uniform = devices.choose_layout()
    acting = Uniform((256, 256), 16, 8, 16, learning=False)
    step_s = 1 / measure(acting, uniform, platform, seconds)["env_steps_per_s"]
    update_s = {}
    for size in sorted(trainer.updates):
        measured = measure(Uniform((256, 256), size, 8, 16), uniform, platform, seconds)
        update_s[size] = (1 - measured["env_steps_per_s"] * step_s) / measured["updates_per_s"]
    expected = sum(trainer.updates[size] * update_s[size] for size in update_s) + trainer.steps * step_s
    return {
        "seconds": round(elapsed, 1),
        "uniform_seconds": round(expected, 1),
        "ratio": round(elapsed / expected, 3),
        "updates": dict(sorted(trainer.updates.items())),
        "env_steps": trainer.steps,
        "update_us": {size: round(1e6 * s, 1) for size, s in update_s.items()},
        "step_us": round(1e6 * step_s, 2),
        "wasted_updates": round(accounts.wasted_updates, 3),
        "idle_lanes": round(accounts.idle_lanes, 3),
        "device_imbalance": round(accounts.device_imbalance, 3),
    }
