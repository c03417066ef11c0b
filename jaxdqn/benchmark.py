"""Throughput of the compiled program: uniform populations, everything counted, against what the machine can do.

*Useful FLOPs* of an update are 8 × batch size × multiply-accumulates of one forward pass (10 × with double Q): three
forward passes' worth for the gradient, one for the target network. Masks, environment and replay never count.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxdqn.block import Progress
from jaxdqn.config import Layout
from jaxdqn.cost import SPEEDS, segment_ticks, update_flops
from jaxdqn.hyperparams import stack
from jaxdqn.peak import Peak
from jaxdqn.population import Population
from jaxdqn.workload import WARMUP_STEPS, Uniform, fill, go_on, uniform

_QUEUED = 2  # rows with a segment that was not read: one trains while the host reads the other


class Rates(NamedTuple):
    """What a span brought, a second."""

    env_steps: float
    updates: float


class UniformPopulation:
    """A uniform population past its warm-up, trained for one span after another."""

    def __init__(self, shape: Uniform, layout: Layout, platform: str, longest_s: float = 3.0) -> None:
        """Compile it, put an agent into every lane and bring all past their warm-up.

        Args:
            shape: of all agents.
            layout: of the lanes.
            platform: `cpu` or `gpu`.
            longest_s: of a span; its segments are so short that a few of them fit.
        """
        self.shape, self.layout = shape, layout
        self.config, hyperparams = uniform(shape)
        self._population = Population(self.config, layout, seed=0)
        self.compile_s = self._population.compile()
        lanes = stack([hyperparams] * layout.block)
        steps, ones = np.full(layout.block, WARMUP_STEPS), np.ones(layout.block, bool)
        ticks = segment_ticks(lanes, steps, ones, self.config, speed=SPEEDS[platform])
        self._ticks = max(1, round(ticks * min(1.0, longest_s / 8)))
        self._hyperparams, self._next = hyperparams, 0
        fill(self._population, hyperparams, WARMUP_STEPS)
        self._known = [self._counts(self._population.read(row)) for row in range(layout.rows)]

    @property
    def flops(self) -> int:
        """Useful FLOPs of an update."""
        return update_flops(self.shape.batch_size, self.config)

    @property
    def lane_bytes(self) -> float:
        """Bytes of a lane's state on its device."""
        return self._population.state_bytes(0) / (self.layout.devices * self.layout.block)

    def span(self, seconds: float) -> Rates:
        """Train for about so long, row after row, until all that was dispatched has been read."""
        done, under_way = np.zeros(2), deque[int]()
        start = time.perf_counter()
        while True:
            over = time.perf_counter() - start >= seconds
            if not over and len(under_way) < min(_QUEUED, self.layout.rows):
                go_on(self._population, self._next, self._hyperparams, self._ticks)
                under_way.append(self._next)
                self._next = (self._next + 1) % self.layout.rows
                continue
            if not under_way:
                break
            row = under_way.popleft()
            counts = self._counts(self._population.read(row))
            done += counts - self._known[row]
            self._known[row] = counts
        elapsed = time.perf_counter() - start
        return Rates(*(float(x) / elapsed for x in done))

    @staticmethod
    def _counts(progress: Progress) -> np.ndarray:
        return np.array([np.sum(progress.step, dtype=np.int64), np.sum(progress.updates, dtype=np.int64)])


def measure(
    shape: Uniform,
    layout: Layout,
    platform: str,
    seconds: float = 3.0,
    repeats: int = 5,
    peak: Peak | None = None,
) -> dict[str, Any]:
    """Train a uniform population for `repeats` spans of about `seconds`; return medians a second, and their spread.

    The peak is sampled right before and after every span: its share is that of the two samples' mean.
    """
    peak = peak or Peak(layout.devices)
    population = UniformPopulation(shape, layout, platform, seconds)
    samples, rates = [peak.sample()], []
    for _ in range(repeats):
        rates.append(population.span(seconds))
        samples.append(peak.sample())
    return row_of(population, rates, samples)


def row_of(population: UniformPopulation, rates: Sequence[Rates], samples: Sequence[float]) -> dict[str, Any]:
    """Return the figures of a population.

    Args:
        population: what was trained.
        rates: of its spans.
        samples: of the peak, one before each span and one after the last.
    """
    shape, layout, median = population.shape, population.layout, statistics.median
    updates = [one.updates for one in rates]
    gflops = [one * population.flops / 1e9 for one in updates]
    shares = [g / statistics.mean(samples[i : i + 2]) for i, g in enumerate(gflops)]
    return {
        "hidden": list(shape.hidden),
        "batch_size": shape.batch_size,
        "train_period": shape.train_period,
        "gradient_steps": shape.gradient_steps,
        "lanes": layout.lanes,
        "devices": layout.devices,
        "block": layout.block,
        "env_steps_per_s": round(median(one.env_steps for one in rates)),
        "updates_per_s": round(median(updates)),
        "updates_per_s_range": [round(min(updates)), round(max(updates))],
        "gflops": round(median(gflops), 1),
        "peak_gflops": round(median(samples), 1),
        "peak_gflops_range": [round(min(samples), 1), round(max(samples), 1)],
        "share_of_peak": round(median(shares), 3),
        "share_of_peak_range": [round(min(shares), 3), round(max(shares), 3)],
        "compile_s": round(population.compile_s, 2),
    }
