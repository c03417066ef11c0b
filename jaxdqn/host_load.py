"""What the host costs a sweep: recording, and a device that ends 25 trials a second."""

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

from jaxdqn.block import Placement, Progress
from jaxdqn.config import Config, Layout
from jaxdqn.cost import SPEEDS
from jaxdqn.network import Params
from jaxdqn.opening import open_plan
from jaxdqn.plan import OFF, Settings, plan
from jaxdqn.run import run

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
        self.config, self.layout, self.speed = config, layout, SPEEDS["cpu"]
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
