"""Agents that are all different: the article's space as a sweep trains it, against uniform populations of its shapes.

Both are trained in turn, a span each, so that they meet the same machine: what one of them takes for steps and updates
is compared to what the others would have taken for the same ones.
"""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from jaxdqn import cost, devices, space, space_config
from jaxdqn.accounts import Accounts
from jaxdqn.benchmark import UniformPopulation
from jaxdqn.block import Placement, Progress
from jaxdqn.cost import update_flops
from jaxdqn.events import Visited
from jaxdqn.hyperparams import defaults
from jaxdqn.lanes import Lanes
from jaxdqn.network import Params
from jaxdqn.peak import Peak
from jaxdqn.population import Population
from jaxdqn.space import Space
from jaxdqn.study import open_study
from jaxdqn.sweep import sweep
from jaxdqn.trials import Limits
from jaxdqn.workload import Uniform, laid_out

_EPISODES = 4  # of a score: what is compared are steps and updates
_TRIALS = 1_000_000  # more than a benchmark ends: no lane ever waits


class Work(NamedTuple):
    """What a span brought."""

    seconds: float
    env_steps: int
    updates: dict[int, int]  # by batch size


class _Counted:
    """A population whose steps, and updates by batch size, are counted when they are read."""

    def __init__(self, population: Population) -> None:
        self.population, self.speed = population, population.speed
        self.config, self.layout = population.config, population.layout
        self.updates: dict[int, int] = dict.fromkeys(self.config.batch_sizes, 0)
        self.env_steps = 0
        self._batch = [np.zeros(self.layout.row_shape, np.int64) for _ in range(self.layout.rows)]
        self._before = [np.zeros((2, *self.layout.row_shape), np.int64) for _ in range(self.layout.rows)]
        self._dispatched = [False] * self.layout.rows

    def dispatch(self, row: int, placement: Placement, num_ticks: Int[np.ndarray, " devices"]) -> None:
        self._before[row] = np.where(np.asarray(placement.fresh), 0, self._before[row])
        self._batch[row] = np.asarray(placement.hyperparams.batch_size)
        self._dispatched[row] = True
        self.population.dispatch(row, placement, num_ticks)

    def read(self, row: int) -> Progress:
        """Wait for a row; to read it again counts nothing."""
        progress = self.population.read(row)
        now = np.stack([progress.step, progress.updates]).astype(np.int64)
        steps, updates = now - self._before[row]
        self._before[row] = now
        self.env_steps += int(steps.sum())
        for size in self.updates:
            self.updates[size] += int(updates[self._batch[row] == size].sum())
        return progress

    def settle(self) -> None:
        """Wait for whatever was dispatched."""
        for row, dispatched in enumerate(self._dispatched):
            if dispatched:
                self.read(row)

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


class MixedPopulation:
    """A search of a space by random trials, that stands still between spans."""

    def __init__(self, name: str, platform: str, lanes: int | None = None, **overrides: Any) -> None:
        """Compile the program of space `name` and begin a search in it."""
        self.space = _hardly_exploring(space.load(name, eval_episodes=_EPISODES, **overrides))
        self.config = space_config.of(self.space)
        largest_block = cost.largest_block(self.config, space_config.is_mixed(self.space), platform)
        self.layout = devices.choose_layout(lanes, largest_block=largest_block)
        population, self.accounts = Population(self.config, self.layout, 0), Accounts()
        self.compile_s = population.compile()
        self._trainer = _Counted(population)
        self._directory = tempfile.TemporaryDirectory()
        self._study = open_study(Path(self._directory.name) / "study.log", name, self.space, {}, "random", 0)
        filled = Lanes(self._trainer, space_config.common_period(self.space), self.accounts)
        self._events = sweep(filled, self._study, self.space, Limits(trials=_TRIALS))

    def span(self, seconds: float) -> Work:
        """Search on for about so long, until all that was dispatched has been read."""
        trainer = self._trainer
        steps, updates, start = trainer.env_steps, dict(trainer.updates), time.perf_counter()
        for event in self._events:
            if isinstance(event, Visited) and time.perf_counter() - start >= seconds:
                break
        trainer.settle()
        elapsed = time.perf_counter() - start
        return Work(
            elapsed, trainer.env_steps - steps, {size: n - updates[size] for size, n in trainer.updates.items()}
        )

    def close(self) -> None:
        """End the search and remove its log."""
        self._study.close()
        self._directory.cleanup()


def _hardly_exploring(own: Space) -> Space:
    """Return a space whose agents ask their networks from the beginning, as those of uniform populations do."""
    if "epsilon_start" in own.searched:
        return own
    return dataclasses.replace(own, fixed={**own.fixed, "epsilon_start": defaults().epsilon_end})


def _values(searched: MixedPopulation, name: str) -> list[float]:
    """Return the values a hyperparameter may take; none where they can't be listed."""
    return space.choices(searched.space, name) or []


def expected_s(work: Work, step_s: float, update_s: dict[int, float]) -> float:
    """Return what uniform populations take for some work."""
    return work.env_steps * step_s + sum(num * update_s[size] for size, num in work.updates.items())


def mixed(
    seconds: float = 3.0,
    repeats: int = 5,
    progress: Callable[[str], None] = lambda _: None,
    lanes: int | None = None,
    name: str = "article",
    **overrides: Any,
) -> dict[str, Any]:
    """Train a space, all agents different, and a uniform population of each of its shapes, in turn.

    Args:
        seconds: of a span of a uniform population; the mixed one's is four times as long.
        repeats: turns, whose medians count, after one of the mixed population that is not timed.
        progress: is told what is going on.
        lanes: of each population.
        name: of the space.
        overrides: of its settings.
    """
    platform = devices.platform()
    progress(f"mixed: compiling space {name}")
    searched = MixedPopulation(name, platform, lanes, **overrides)
    width, layers = searched.config.hidden_width, searched.config.hidden_layers
    period, most = searched.config.tick, int(max(_values(searched, "gradient_steps"), default=1))
    shapes = {size: Uniform((width,) * layers, size, period, most) for size in searched.config.batch_sizes}
    populations, uniform = {}, laid_out(next(iter(shapes.values())), lanes)
    for size, shape in shapes.items():
        progress(f"mixed: compiling a uniform population of batch size {size}")
        populations[size] = UniformPopulation(shape, uniform, platform, seconds)
    progress("mixed: compiling one that only acts")
    acting = UniformPopulation(next(iter(shapes.values()))._replace(learning=False), uniform, platform, seconds)
    peak, turns = Peak(uniform.devices), []
    searched.span(4 * seconds)
    for turn in range(repeats):
        progress(f"mixed: turn {turn + 1} of {repeats}")
        before = peak.sample()
        work = searched.span(4 * seconds)
        beside = statistics.mean([before, peak.sample()])
        rates = {size: population.span(seconds) for size, population in populations.items()}
        step_s = 1 / acting.span(seconds).env_steps
        update_s = {size: (1 - rate.env_steps * step_s) / rate.updates for size, rate in rates.items()}
        turns.append(_Turn(work, beside, step_s, update_s))
    searched.close()
    flops = {size: update_flops(size, searched.config) for size in searched.config.batch_sizes}
    return _summary(turns, flops, searched) | {"peak_gflops": round(statistics.median(peak.samples), 1)}


class _Turn(NamedTuple):
    """The mixed population's span and what was measured beside it."""

    work: Work
    peak: float
    step_s: float
    update_s: dict[int, float]

    @property
    def ratio(self) -> float:
        """Time taken, by what uniform populations would have taken."""
        return self.work.seconds / expected_s(self.work, self.step_s, self.update_s)


def _summary(turns: list[_Turn], flops: dict[int, int], searched: MixedPopulation) -> dict[str, Any]:
    median = statistics.median
    gflops = [sum(n * flops[size] for size, n in t.work.updates.items()) / t.work.seconds / 1e9 for t in turns]
    ratios, shares = [turn.ratio for turn in turns], [g / turn.peak for g, turn in zip(gflops, turns, strict=True)]
    accounts, config = searched.accounts, searched.config
    seconds = sum(turn.work.seconds for turn in turns)
    updates = {size: sum(turn.work.updates[size] for turn in turns) for size in flops}
    return {
        "hidden": [config.hidden_width] * config.hidden_layers,
        "batch_size": list(flops),
        "train_period": _values(searched, "train_period"),
        "gradient_steps": _values(searched, "gradient_steps"),
        "lanes": searched.layout.lanes,
        "devices": searched.layout.devices,
        "env_steps_per_s": round(median(turn.work.env_steps / turn.work.seconds for turn in turns)),
        "updates_per_s": round(median(sum(turn.work.updates.values()) / turn.work.seconds for turn in turns)),
        "gflops": round(median(gflops), 1),
        "share_of_peak": round(median(shares), 3),
        "share_of_peak_range": [round(min(shares), 3), round(max(shares), 3)],
        "compile_s": round(searched.compile_s, 2),
        "seconds": round(seconds, 1),
        "ratio": round(median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "share_of_uniform": round(1 / median(ratios), 3),
        "share_of_uniform_range": [round(1 / max(ratios), 3), round(1 / min(ratios), 3)],
        "updates": updates,
        "env_steps": sum(turn.work.env_steps for turn in turns),
        "update_us": {size: round(1e6 * median(turn.update_s[size] for turn in turns), 1) for size in flops},
        "step_us": round(1e6 * median(turn.step_s for turn in turns), 2),
        "wasted_updates": round(accounts.wasted_updates, 3),
        "idle_lanes": round(accounts.idle_lanes, 3),
        "device_imbalance": round(accounts.device_imbalance, 3),
    }
