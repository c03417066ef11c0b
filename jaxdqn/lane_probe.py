"""Trying blocks of several sizes on the devices at hand, with agents as a search of the space will propose them.

Both of two sizes train the same agents, placed as a sweep places them, for the same environment steps, in turn: what
differs between neighbouring spans is the size of the blocks alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool
from scipy.stats import qmc

from jaxdqn import auto_lanes, cost, devices, memory, parzen, space_config
from jaxdqn.auto_lanes import Choice
from jaxdqn.block import Placement
from jaxdqn.config import Config, Layout
from jaxdqn.cost import SPEEDS
from jaxdqn.host_agent import Agent
from jaxdqn.hyperparams import Hyperparams, stack
from jaxdqn.judging import Names
from jaxdqn.placement import assign
from jaxdqn.population import Population
from jaxdqn.space import Space

AGENTS = 16  # on each device, at least: enough that all kinds of a mixed space are there
ROUNDS = 5
SPAN_S = 0.25
PATIENCE_S = 15.0  # of all spans; later comparisons make do with one round

Show = Callable[[str], None]


def automatic(searched: Space, config: Config, num_devices: int, agents: int | None, show: Show) -> Layout:
    """Choose a layout for a space on so many devices, as it was chosen here before or by trying; say which and why.

    Args:
        searched: the space.
        config: its static settings.
        num_devices: how many devices to use.
        agents: how many agents there will be, if that is known.
        show: what the user is told.

    Raises:
        ValueError: not even a lane a device fits into the memory.
    """
    path, name = auto_lanes.place(), auto_lanes.key(searched.identity(), config, num_devices)
    most = memory.largest_block(config, memory.available_bytes(num_devices), group=16)
    if most == 0:
        raise ValueError(f"not a single lane fits into the memory of {num_devices} {devices.platform()} devices")
    choice, source = None, f"remembered in {path}"
    try:
        choice = auto_lanes.recall(path, name)
    except ValueError as error:
        show(f"{error}; lanes are chosen anew")
    if choice is not None and choice.block > most:
        show(f"remembered blocks of {choice.block} do not fit into the memory that is free: lanes are chosen anew")
        choice = None
    if choice is None:
        started = time.perf_counter()
        choice = _tried(searched, config, num_devices, min(most, auto_lanes.LARGEST_BLOCK), show)
        source = f"tried for {time.perf_counter() - started:.0f} s, compiling included"
        try:
            auto_lanes.remember(path, name, choice)
        except OSError as error:
            show(f"the choice of lanes is not remembered: {error.strerror or error} ({error.filename})")
    layout = auto_lanes.layout(choice.block, num_devices, agents)
    show(auto_lanes.explain(choice, layout, source))
    return layout


def _tried(searched: Space, config: Config, num_devices: int, most: int, show: Show) -> Choice:
    """Try blocks until twice as many lanes do not pay."""
    platform = devices.platform()
    if platform == "gpu":
        start = auto_lanes.launch_bound(typical(searched, AGENTS), config, SPEEDS[platform])
    else:  # where a launch costs next to nothing the search starts at what is known to suit
        largest = cost.largest_block(config, space_config.is_mixed(searched), platform)
        start = devices.choose_layout(None, num_devices, largest).block
    return auto_lanes.knee(Probe(searched, config, num_devices, show).pairs, start, most)


def typical(searched: Space, num: int) -> list[Hyperparams]:
    """Return hyperparameters spread evenly over a space: the first points of a Sobol sequence, always the same ones.

    Where warm-up is searched it is left out, so that updates begin at once.
    """
    if not searched.searched:
        return [searched.hyperparams({})] * num
    axes = parzen.axes_of(searched.searched)
    uniform = qmc.Sobol(len(axes), rng=np.random.default_rng(0)).random(1 << (num - 1).bit_length())[:num]
    points = np.stack([axis.prior(uniform[:, i]) for i, axis in enumerate(axes)], axis=1)
    values = [dict(zip(searched.searched, parzen.decode(axes, point), strict=True)) for point in points]
    fixed = "warmup_steps" not in searched.searched
    return [it if fixed else it._replace(warmup_steps=0) for it in map(searched.hyperparams, values)]


class Probe:
    """Blocks of several sizes, compiled when they are first asked for."""

    def __init__(self, searched: Space, config: Config, num_devices: int, show: Show) -> None:
        """Compile nothing yet."""
        self.searched, self.config, self.num_devices, self._show = searched, config, num_devices, show
        self._period = max(1, space_config.common_period(searched) // config.tick)
        self._ticks = 0  # of a span; known once one was measured
        self._tried: dict[int, _Blocks] = {}
        self._spent_s = 0.0

    def pairs(self, block: int) -> list[tuple[float, float]]:
        """Return updates a second in blocks of so many lanes and of twice as many, in neighbouring spans.

        Nothing if the devices' memory is too small for both.
        """
        num, sizes = max(AGENTS, 2 * block), (block, 2 * block)
        try:
            self._tried = {size: self._tried.get(size) or self._compiled(size) for size in sizes}
            small, large = (_Run(self._tried[size], num, self.config) for size in sizes)
            for run in (small, large):
                run.span(self._period)  # what runs for the first time takes longer
                start = time.perf_counter()
                run.span(self._period)
                period_s = time.perf_counter() - start
                longest = max(1, run.room // self._period)
                self._ticks = self._ticks or self._period * min(longest, max(1, round(SPAN_S / period_s)))
            pairs: list[tuple[float, float]] = []
            while len(pairs) < (ROUNDS if self._spent_s < PATIENCE_S else 1):
                start = time.perf_counter()
                pairs.append((small.span(self._ticks), large.span(self._ticks)))
                self._spent_s += time.perf_counter() - start
        except (jax.errors.JaxRuntimeError, MemoryError) as error:
            if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
                raise
            self._tried = {}
            return []
        return pairs

    def _compiled(self, block: int) -> _Blocks:
        """Make room for as many agents as are tried in such blocks."""
        self._show(f"choosing lanes: compiling blocks of {block}")
        rows = max(memory.ROWS, -(-AGENTS // block))
        population = Population(self.config, devices.layout_of(rows, self.num_devices, block, devices.platform()), 0)
        population.compile()
        agents = typical(self.searched, rows * block)
        return _Blocks(population, agents)


class _Blocks(NamedTuple):
    """A population, and who is to be trained in it on each device."""

    population: Population
    agents: list[Hyperparams]


class _Run:
    """The same agents on every device, in blocks of one size, trained span by span."""

    def __init__(self, blocks: _Blocks, num_agents: int, config: Config) -> None:
        self.population, self.config = blocks.population, config
        layout = self.population.layout
        self._rows = _rows_of(blocks.agents[:num_agents], layout.block, config)
        warmup = min(dict(config.fixed).get("warmup_steps", 0), config.env_steps // 2)
        self._warm_ticks = -(-int(warmup) // config.tick)
        ends = [config.env_steps, *[rung for rung in config.rungs if rung > warmup][:1]]
        if config.episodes is not None:
            ends.append(5 * config.episodes)  # before any agent's last one ends
        self._last_tick, self._tick = min(ends) // config.tick - 1, -1
        self._updates = 0

    @property
    def room(self) -> int:
        """Ticks from the end of the warm-up to the first rung or the end of an agent."""
        return self._last_tick - self._warm_ticks

    def span(self, ticks: int) -> float:
        """Train for so many ticks; return updates a second (environment steps, where there are no updates).

        Agents that would come to a rung or to their end begin anew first.
        """
        if self._tick < 0 or self._tick + ticks > self._last_tick:
            self._train(self._warm_ticks, fresh=True)
            self._tick, self._updates = self._warm_ticks, self._total("updates")
        start = time.perf_counter()
        self._train(ticks, fresh=False)
        elapsed = time.perf_counter() - start
        updates, self._tick = self._total("updates"), self._tick + ticks
        made, self._updates = updates - self._updates, updates
        lanes = len(self._rows) * self.population.layout.block * self.population.layout.devices
        return (made or ticks * self.config.tick * lanes) / elapsed

    def _train(self, ticks: int, fresh: bool) -> None:
        layout = self.population.layout
        for row, hyperparams in enumerate(self._rows):
            lanes = np.arange(layout.devices * layout.block, dtype=np.int32).reshape(layout.row_shape)
            begins: Bool[np.ndarray, "devices block"] = np.full(layout.row_shape, fresh)
            zeros, trial = np.zeros_like(lanes), row * lanes.size + lanes
            everywhere = Hyperparams(*(np.broadcast_to(x, layout.row_shape) for x in hyperparams))
            placement = Placement(begins, Names(zeros, trial, zeros), everywhere)
            self.population.dispatch(row, placement, np.full(layout.devices, ticks, np.int32))
        for row in range(len(self._rows)):
            self.population.read(row)

    def _total(self, name: str) -> int:
        read = (self.population.read(row) for row in range(len(self._rows)))
        return sum(int(np.sum(getattr(progress, name))) for progress in read)


def _rows_of(agents: list[Hyperparams], block: int, config: Config) -> list[Hyperparams]:
    """Put agents into rows of one block as a sweep does, which has few more of them to choose from than it has lanes.

    Returns the hyperparameters of each row, arrays of shape (block,).
    """
    waiting = [Agent(number, 0, hyperparams) for number, hyperparams in enumerate(agents)]
    rows = []
    while waiting:
        placed = assign([[None] * block], waiting[: block + (block - 1) // 2], config)
        rows.append(stack([agent.hyperparams for _, _, agent in sorted(placed, key=lambda one: one[1])]))
        waiting = [agent for agent in waiting if all(agent is not other for _, _, other in placed)]
    return rows
