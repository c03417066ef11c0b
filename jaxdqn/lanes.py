"""The lanes of a population as the host sees them: who is in which, who waits for one, what they have done.

Knows a population by a small protocol, so that a stand-in can take its place. Knows nothing of studies: the search, the
confirmation and a training anew all fill the same lanes.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np
from jaxtyping import Bool, Int

from jaxdqn import cost
from jaxdqn.accounts import Accounts
from jaxdqn.block import Placement, Progress
from jaxdqn.config import Config, Layout
from jaxdqn.cost import Speed
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
    speed: Speed

    def dispatch(self, row: int, placement: Placement, num_ticks: Int[np.ndarray, " devices"]) -> None:
        """Queue a segment of a row."""

    def read(self, row: int) -> Progress:
        """Wait for the last segment of a row."""

    def params(self, row: int) -> Params:
        """Return the parameters that the row's scores judged, of shape (devices, block, …)."""

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What the bits of its results depend on, besides their arguments."""

    def state(self, row: int) -> list[np.ndarray]:
        """Return all that is needed to go on with a row, between `read` and `dispatch`."""

    def state_bytes(self, row: int) -> int:
        """Return the bytes of that."""

    def restore(self, row: int, state: list[np.ndarray]) -> None:
        """Go on with a row from a state that `state` returned."""


class Lanes:
    """Puts waiting agents into free lanes and notes what becomes of them."""

    def __init__(self, trainer: Trainer, period: int = 1, accounts: Accounts | None = None) -> None:
        """All lanes are free.

        Args:
            trainer: the population.
            period: environment steps of which segments are multiples, that agents make their updates together.
            accounts: filled in as time goes by.
        """
        self.trainer, self.accounts = trainer, accounts or Accounts()
        layout = trainer.layout
        self.align = max(1, period // trainer.config.tick)
        self.queue: list[Agent] = []
        self.rows: list[list[list[Agent | None]]] = [
            [[None] * layout.block for _ in range(layout.devices)] for _ in range(layout.rows)
        ]
        self.under_way = [False] * layout.rows  # a segment was dispatched and not read
        self.sent = [0] * layout.rows  # segments dispatched …
        self.num_ticks = [[0] * layout.devices for _ in range(layout.rows)]  # … and how long the last one is
        self.env_steps = self.visits = 0
        self.began: float | None = None  # when the first segment was dispatched, by `time.monotonic`
        self._strange = [np.zeros(layout.row_shape, bool) for _ in range(layout.rows)]  # to be emptied
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

    def take_in(self, row: int, progress: Progress, again: bool = False) -> list[Agent]:
        """Note what the agents of a row have done in a segment; return those that were not dropped meanwhile.

        A segment that was made `again` after a restart does not count.
        """
        params: Params | None = None
        living = self._living(row)
        if not again:
            self.visits += 1
            self._account(row, progress)
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
        self._send(row, fresh)
        return placed

    def send_again(self, row: int, placed: Mapping[int, Agent], num_ticks: list[int]) -> None:
        """Repeat a segment of a row with the agents that were put into its lanes for it; others take no part."""
        fresh: Bool[np.ndarray, "devices block"] = np.zeros(self.trainer.layout.row_shape, bool)
        for lane, agent in placed.items():
            self._put(row, lane, agent)
            fresh.flat[lane] = True
        self._send(row, fresh, num_ticks)

    def put_back(self, row: int, agents: Mapping[int, Agent], state: list[np.ndarray]) -> None:
        """Put a row back into a state in which these agents were in these lanes; whoever else was is dropped."""
        self.trainer.restore(row, state)
        self._strange[row][:] = True
        for lane, agent in agents.items():
            self._put(row, lane, agent)
            self._strange[row].flat[lane] = False
        for kept, its in zip(self._hyperparams[row], stack(self._hyperparams_of(row)), strict=True):
            kept[:] = its

    def _put(self, row: int, lane: int, agent: Agent) -> None:
        layout = self.trainer.layout
        self.rows[row][lane // layout.block][lane % layout.block] = agent
        agent.lane, agent.began_s = row * self.lanes_a_row + lane, time.time()

    def _send(self, row: int, fresh: Bool[np.ndarray, "devices block"], given_ticks: list[int] | None = None) -> None:
        """Queue a segment of a row with whoever is in its lanes; of them, `fresh` ones begin."""
        fresh = fresh | self._strange[row]
        self._strange[row] = np.zeros_like(fresh)
        new = stack(self._hyperparams_of(row))
        for kept, its in zip(self._hyperparams[row], new, strict=True):
            kept[fresh.ravel()] = its[fresh.ravel()]
        shape = self.trainer.layout.row_shape
        hyperparams = Hyperparams(*(np.copy(x).reshape(shape) for x in self._hyperparams[row]))
        names = Names(
            phase=self._numbers(row, "phase", Phase.SEARCH),
            trial=self._numbers(row, "trial", NOBODY),
            seed_index=self._numbers(row, "seed_index", 0),
        )
        self.num_ticks[row] = given_ticks or self._num_ticks(row, hyperparams)
        self.trainer.dispatch(row, Placement(fresh, names, hyperparams), np.array(self.num_ticks[row], np.int32))
        self.under_way[row], self._dispatched[row] = True, time.perf_counter()
        self.began = self.began or time.monotonic()
        self.sent[row] += 1

    def _hyperparams_of(self, row: int) -> list[Hyperparams]:
        return [agent.hyperparams if agent else defaults() for block in self.rows[row] for agent in block]

    def _living(self, row: int) -> list[Agent]:
        agents = [agent for block in self.rows[row] for agent in block if agent is not None]
        return [agent for agent in agents if not (agent.ended or agent.dropped)]

    def _num_ticks(self, row: int, hyperparams: Hyperparams) -> list[int]:
        step = self._numbers(row, "step", 0)
        alive = np.array([[agent is not None for agent in block] for block in self.rows[row]])
        own = (Hyperparams(*(x[device] for x in hyperparams)) for device in range(len(step)))
        config, align, speed = self.trainer.config, self.align, self.trainer.speed
        return [cost.segment_ticks(*block, config, align, speed) for block in zip(own, step, alive, strict=True)]

    def _account(self, row: int, progress: Progress) -> None:
        """Add a segment to the accounts."""
        seconds = time.perf_counter() - self._dispatched[row]
        occupied = np.array([[agent is not None for agent in block] for block in self.rows[row]])
        last = np.where(occupied, np.asarray(progress.step), 0)
        first, before = self._numbers(row, "step", 0), self._numbers(row, "updates", 0)
        updates = int(np.sum(np.where(occupied, np.asarray(progress.updates) - before, 0)))
        config, layout, speed = self.trainer.config, self.trainer.layout, self.trainer.speed
        hyperparams = Hyperparams(*(x.reshape(layout.row_shape) for x in self._hyperparams[row]))
        self.accounts.add_segment(hyperparams, first, last, updates, seconds, config, layout, speed)

    def _numbers(self, row: int, name: str, nobody: int) -> Int[np.ndarray, "devices block"]:
        values = [[getattr(agent, name) if agent else nobody for agent in block] for block in self.rows[row]]
        return np.array(values, np.int32)


def mean_over(agents: Sequence[Agent], rung: int, diverged_return: float = 0.0) -> float | None:
    """Return the mean validation return of a trial's agents at a rung.

    An agent that ended before counts with its last one; one that diverged before with `diverged_return`, beside others.
    None: somebody has not come so far yet, or nobody ever will.
    """
    there = [agent.validated(rung) for agent in agents]
    waits = any(not agent.ended and value is None for agent, value in zip(agents, there, strict=True))
    lost = [agent.diverged and np.isnan(agent.validation[rung]) for agent in agents]
    known = [value for value, gone in zip(there, lost, strict=True) if value is not None and not gone]
    if waits or not known or all(agent.ended and np.isnan(agent.validation[rung]) for agent in agents):
        return None
    return float(np.mean([*known, *[diverged_return] * sum(lost)]))
