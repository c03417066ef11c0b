"""The lanes of a population as the host sees them: who is in which, who waits for one, what they have done.

Knows a population by a small protocol, so that a stand-in can take its place. Knows nothing of studies: the search, the
confirmation and a training anew all fill the same lanes.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Protocol

import jax
import numpy as np
from jaxtyping import Bool, Int

from jaxdqn import cost
from jaxdqn.accounts import Accounts
from jaxdqn.block import Placement, Progress
from jaxdqn.config import Config, Layout
from jaxdqn.cost import SPEEDS, Speed
from jaxdqn.evaluate import Phase
from jaxdqn.host_agent import Agent, Totals
from jaxdqn.hyperparams import Hyperparams, defaults, stack
from jaxdqn.judging import NOBODY, Names
from jaxdqn.network import Params
from jaxdqn.placement import assign


class Trainer(Protocol):
    """What the host needs of a population."""

    config: Config
    layout: Layout

    def dispatch(self, row: int, placement: Placement, num_ticks: Int[np.ndarray, " devices"]) -> None:
        """Queue a segment of a row."""

    def read(self, row: int) -> Progress:
        """Wait for the last segment of a row."""

    def params(self, row: int) -> Params:
        """Return the parameters that the row's scores judged, of shape (devices, block, …)."""


class Lanes:
    """Puts waiting agents into free lanes and notes what becomes of them."""

    def __init__(
        self, trainer: Trainer, period: int = 1, speed: Speed = SPEEDS["cpu"], accounts: Accounts | None = None
    ) -> None:
        """All lanes are free.

        Args:
            trainer: the population.
            period: environment steps of which segments are multiples, that agents make their updates together.
            speed: of the devices.
            accounts: filled in as time goes by.
        """
        self.trainer, self.speed, self.accounts = trainer, speed, accounts or Accounts()
        layout = trainer.layout
        self.align = max(1, period // trainer.config.tick)
        self.queue: list[Agent] = []
        self.rows: list[list[list[Agent | None]]] = [
            [[None] * layout.block for _ in range(layout.devices)] for _ in range(layout.rows)
        ]
        self.under_way = [False] * layout.rows  # a segment was dispatched and not read
        self.env_steps = self.visits = 0
        self._hyperparams = [stack([defaults()] * self.lanes_a_row) for _ in range(layout.rows)]
        self._dispatched = [time.perf_counter()] * layout.rows

    @property
    def lanes_a_row(self) -> int:
        """Lanes of each row."""
        return self.trainer.layout.devices * self.trainer.layout.block

    @property
    def num_busy(self) -> int:
        """Lanes with an agent."""
        return sum(len(self._living(row)) for row in range(len(self.rows)))

    def num_free(self, row: int) -> int:
        """Return how many lanes of a row wait for an agent."""
        return self.lanes_a_row - len(self._living(row))

    def drop(self, agents: Iterable[Agent]) -> None:
        """Take agents out of their lanes and out of the queue: their rows are given others when next dispatched."""
        for agent in agents:
            agent.dropped = agent.dropped or not agent.ended
        self.queue = [agent for agent in self.queue if not agent.dropped]

    def clear(self) -> None:
        """Drop everybody."""
        self.drop([*self.queue, *(agent for row in range(len(self.rows)) for agent in self._living(row))])

    def read(self, row: int) -> Progress | None:
        """Wait for the segment of a row that is under way, if one is."""
        if not self.under_way[row]:
            return None
        progress, self.under_way[row] = self.trainer.read(row), False
        return progress

    def take_in(self, row: int, progress: Progress) -> list[Agent]:
        """Note what the agents of a row have done in a segment; return those that were not dropped meanwhile."""
        self.visits += 1
        self._account(row, progress)
        params: Params | None = None
        living = self._living(row)
        first, last = self._numbers(row, "step", 0), np.asarray(progress.step)
        self.env_steps += int(np.sum(np.where(self._numbers(row, "trial", NOBODY) != NOBODY, last - first, 0)))
        for device, block in enumerate(self.rows[row]):
            for lane, agent in enumerate(block):
                if agent is None or agent not in living:
                    continue
                one = Progress(*(x[device, lane] for x in progress))
                counted = int(one.step), int(one.episodes), int(one.updates)
                agent.note(Totals(*counted, float(one.return_sum), float(one.loss_sum)))
                agent.validation = np.array(one.validation)
                if one.alive:
                    continue
                agent.ended, agent.diverged, agent.ended_s = True, bool(one.diverged), time.time()
                agent.returns = np.array(one.returns)[~np.isnan(one.returns)]
                if agent.keeps_params and not agent.diverged:
                    params = self.trainer.params(row) if params is None else params
                    agent.params = jax.tree.map(lambda x, at=(device, lane): np.array(x[at]), params)
        return living

    def dispatch(self, row: int) -> list[Agent]:
        """Put waiting agents into the free lanes of a row and queue its next segment; return those placed."""
        layout, config, blocks = self.trainer.layout, self.trainer.config, self.rows[row]
        fresh: Bool[np.ndarray, "devices block"] = np.zeros(layout.row_shape, bool)
        for device, block in enumerate(blocks):
            for lane, agent in enumerate(block):
                if agent is not None and (agent.ended or agent.dropped):
                    fresh[device, lane] = agent.dropped  # nobody, unless somebody is put there now
                    block[lane] = None
        placed = []
        for device, lane, agent in assign(blocks, self.queue, config):
            self.queue.remove(agent)
            blocks[device][lane], fresh[device, lane] = agent, True
            agent.lane, agent.began_s = (row * layout.devices + device) * layout.block + lane, time.time()
            placed.append(agent)
        agents = [agent for block in blocks for agent in block]
        new = stack([agent.hyperparams if agent else defaults() for agent in agents])
        for kept, its in zip(self._hyperparams[row], new, strict=True):
            kept[fresh.ravel()] = its[fresh.ravel()]
        hyperparams = Hyperparams(*(np.copy(x).reshape(layout.row_shape) for x in self._hyperparams[row]))
        names = Names(
            phase=self._numbers(row, "phase", Phase.SEARCH),
            trial=self._numbers(row, "trial", NOBODY),
            seed_index=self._numbers(row, "seed_index", 0),
        )
        num_ticks = np.array(self._num_ticks(row, hyperparams), np.int32)
        self.trainer.dispatch(row, Placement(fresh, names, hyperparams), num_ticks)
        self.under_way[row], self._dispatched[row] = True, time.perf_counter()
        return placed

    def _living(self, row: int) -> list[Agent]:
        agents = [agent for block in self.rows[row] for agent in block if agent is not None]
        return [agent for agent in agents if not (agent.ended or agent.dropped)]

    def _num_ticks(self, row: int, hyperparams: Hyperparams) -> list[int]:
        step = self._numbers(row, "step", 0)
        alive = np.array([[agent is not None for agent in block] for block in self.rows[row]])
        own = (Hyperparams(*(x[device] for x in hyperparams)) for device in range(len(step)))
        config, align = self.trainer.config, self.align
        return [cost.segment_ticks(*block, config, align, self.speed) for block in zip(own, step, alive, strict=True)]

    def _account(self, row: int, progress: Progress) -> None:
        """Add a segment to the accounts."""
        seconds = time.perf_counter() - self._dispatched[row]
        occupied = np.array([[agent is not None for agent in block] for block in self.rows[row]])
        last = np.where(occupied, np.asarray(progress.step), 0)
        first, before = self._numbers(row, "step", 0), self._numbers(row, "updates", 0)
        updates = int(np.sum(np.where(occupied, np.asarray(progress.updates) - before, 0)))
        layout = self.trainer.layout
        hyperparams = Hyperparams(*(x.reshape(layout.row_shape) for x in self._hyperparams[row]))
        self.accounts.add_segment(hyperparams, first, last, updates, seconds, self.trainer.config, layout, self.speed)

    def _numbers(self, row: int, name: str, nobody: int) -> Int[np.ndarray, "devices block"]:
        values = [[getattr(agent, name) if agent else nobody for agent in block] for block in self.rows[row]]
        return np.array(values, np.int32)


def mean_over(agents: Sequence[Agent], rung: int) -> float | None:
    """Return the mean validation return of a trial's agents at a rung, an agent that ended before by its last one.

    None: somebody has not come so far yet, or nobody ever will.
    """
    values = [agent.validated(rung) for agent in agents]
    waits = any(not agent.ended and value is None for agent, value in zip(agents, values, strict=True))
    known = [value for value in values if value is not None]
    if waits or not known or all(agent.ended and np.isnan(agent.validation[rung]) for agent in agents):
        return None
    return float(np.mean(known))
