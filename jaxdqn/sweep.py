"""The scheduler: lanes × study. Knows the population by a small protocol; yields events, prints nothing.

Rows are visited in a fixed order, whatever finished first, and no decision reads a clock except the time budget, so a
sweep is a function of its arguments.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from jaxtyping import Bool, Int

from jaxdqn import cost, space
from jaxdqn.accounts import Accounts
from jaxdqn.config import Config, Layout
from jaxdqn.cost import SPEEDS, Speed
from jaxdqn.follower import Trial
from jaxdqn.host_agent import Agent, Totals
from jaxdqn.hyperparams import Hyperparams, defaults, stack
from jaxdqn.placement import assign
from jaxdqn.population import Placement, Progress
from jaxdqn.space import Space
from jaxdqn.study import Asked, Best


class Trainer(Protocol):
    """What the scheduler needs of a population."""

    config: Config
    layout: Layout

    def dispatch(self, row: int, placement: Placement, num_ticks: Int[np.ndarray, " devices"]) -> None:
        """Queue a segment of a row."""

    def read(self, row: int) -> Progress:
        """Wait for the last segment of a row."""


class Trials(Protocol):
    """What the scheduler needs of a study."""

    def at(self, visit: int) -> None:
        """Say at which visit the following happens."""

    def ask(self, count: int) -> list[Asked]:
        """Ask for the next trials."""

    def start(self, number: int, seed_index: int, row: int, lane: int) -> None:
        """Record where an agent of a trial is trained."""

    def report(self, number: int, step: int, value: float) -> None:
        """Record a trial's mean validation return at a rung."""

    def tell(self, number: int, value: float, attributes: dict[str, Any]) -> str:
        """Record a trial's result; return its state."""

    def commit(self) -> list[Trial]:
        """Put all that on the disk; return the trials that changed."""

    def unfinished(self) -> list[Asked]:
        """Return the trials to be trained first."""

    def counts(self) -> dict[str, int]:
        """Count the trials by state."""

    def best(self) -> Best | None:
        """Return the best trial so far."""


@dataclass(frozen=True)
class TrialEnded:
    """A trial was told, and is on the disk."""

    number: int
    state: str  # complete or failed
    params: dict[str, Any]
    hyperparams: Hyperparams
    agents: list[Agent]
    mean_return: float  # over the seeds; nan if one diverged
    std_return: float  # over all episodes of all seeds
    is_best: bool


@dataclass(frozen=True)
class Visited:
    """A row was visited."""

    changed: list[Trial]  # asked for, validated or told, and on the disk
    counts: dict[str, int]
    best: Best | None
    lanes_busy: int
    env_steps: int  # made by this sweep so far
    updates: int
    seconds: float  # since its first segment


Event = TrialEnded | Visited


@dataclass(frozen=True)
class Limits:
    """When a sweep ends: whatever comes first."""

    trials: int | None = 64  # finished trials of the study, earlier sweeps included
    seconds: float | None = None  # since the sweep started
    target_return: float | None = None  # mean return of a trial


def num_finished(study: Trials) -> int:
    """Return how many trials of a study are finished, in whatever state."""
    counts = study.counts()
    return sum(counts.values()) - counts["running"]


def satisfied(study: Trials, limits: Limits) -> bool:
    """Return whether a study holds all that the limits ask for."""
    if limits.trials is not None and num_finished(study) >= limits.trials:
        return True
    best = study.best()
    return limits.target_return is not None and best is not None and best.value >= limits.target_return


def sweep(
    trainer: Trainer,
    study: Trials,
    space: Space,
    limits: Limits,
    num_seeds: int = 1,
    speed: Speed = SPEEDS["cpu"],
    stopped: Callable[[], bool] = lambda: False,
    started: float | None = None,
    accounts: Accounts | None = None,
) -> Iterator[Event]:
    """Train trials in the lanes until a limit is reached or `stopped()`; yield what happens, once it is on the disk.

    Trials in flight when the time or the target is reached are left to the next sweep of the study. `accounts` is
    filled in as the sweep goes on.
    """
    clock = time.monotonic() if started is None else started
    scheduler = _Scheduler(trainer, study, space, limits, num_seeds, speed, accounts or Accounts())
    return scheduler.run(lambda: stopped() or _time_is_up(limits, clock))


def _time_is_up(limits: Limits, started: float) -> bool:
    return limits.seconds is not None and time.monotonic() - started >= limits.seconds


class _Scheduler:
    def __init__(
        self,
        trainer: Trainer,
        study: Trials,
        searched: Space,
        limits: Limits,
        num_seeds: int,
        speed: Speed,
        accounts: Accounts,
    ) -> None:
        self.trainer, self.study, self.space, self.limits = trainer, study, searched, limits
        self.num_seeds, self.speed, self.accounts = num_seeds, speed, accounts
        layout = trainer.layout
        self.align = max(1, space.common_period(searched) // trainer.config.tick)
        self.reserve = _reserve(searched, layout)
        self.rows: list[list[list[Agent | None]]] = [
            [[None] * layout.block for _ in range(layout.devices)] for _ in range(layout.rows)
        ]
        self.hyperparams = [stack([defaults()] * (layout.devices * layout.block)) for _ in range(layout.rows)]
        self.queue: list[Agent] = []
        self.open: dict[int, tuple[Asked, list[Agent]]] = {}  # trials whose agents are not all scored
        self.reported: dict[int, int] = {}  # rungs of open trials that are in the log
        self.env_steps = self.visits = 0
        self.dispatched = [time.perf_counter()] * layout.rows
        self.first_segment = time.monotonic()

    def run(self, stopped: Callable[[], bool]) -> Iterator[Event]:
        def over() -> bool:
            return stopped() or satisfied(self.study, self.limits)

        if over():
            return
        for asked in self.study.unfinished():
            self._enqueue(asked)
        self._ask(self.trainer.layout.lanes)
        for row in range(self.trainer.layout.rows):
            self._dispatch(row)
        while not over():
            for row in range(self.trainer.layout.rows):
                yield from self._visit(row, over)
                if over():
                    break

    def _visit(self, row: int, over: Callable[[], bool]) -> Iterator[Event]:
        """Read a row's segment, tell the trials it completed, fill its free lanes, send it off again, commit."""
        progress = self.trainer.read(row)
        with self.accounts.timed("visit"):
            self.visits += 1
            self.study.at(self.visits)
            touched = self._take_in(row, progress)
            told = [event for trial in touched for event in self._judge(trial)]
            if not over():
                self._dispatch(row)
            changed = self.study.commit()
        yield from told
        busy = sum(agent is not None for row_ in self.rows for block in row_ for agent in block)
        seconds = time.monotonic() - self.first_segment
        counts, best = self.study.counts(), self.study.best()
        yield Visited(changed, counts, best, busy, self.env_steps, self.accounts.updates, seconds)

    def _take_in(self, row: int, progress: Progress) -> list[int]:
        """Note what the agents of a row have done and free the lanes of those that ended; return their trials."""
        blocks = self.rows[row]
        first = self._numbers(row, "step")
        self._account(row, first, progress)
        for device, block in enumerate(blocks):
            for lane, agent in enumerate(block):
                if agent is None:
                    continue
                one = Progress(*(x[device, lane] for x in progress))
                self.env_steps += int(one.step) - agent.step
                counted = int(one.step), int(one.episodes), int(one.updates)
                agent.note(Totals(*counted, float(one.return_sum), float(one.loss_sum)))
                agent.validation = np.array(one.validation)
                if not one.alive:
                    agent.ended, agent.diverged, agent.returns = True, bool(one.diverged), np.array(one.returns)
        touched = dict.fromkeys(agent.trial for block in blocks for agent in block if agent is not None)
        self.rows[row] = [[None if agent is None or agent.ended else agent for agent in block] for block in blocks]
        return list(touched)

    def _judge(self, trial: int) -> list[TrialEnded]:
        """Report the rungs that all agents of a trial have reached; tell it if all have ended."""
        asked, agents = self.open[trial]
        rungs = self.trainer.config.rungs
        for rung in range(self.reported[trial], len(rungs)):
            values = [value for agent in agents if (value := agent.validated(rung)) is not None]
            waits = any(not agent.ended and agent.validated(rung) is None for agent in agents)
            if waits or not values or _nobody_reached(agents, rung):
                break
            self.study.report(trial, rungs[rung], float(np.mean(values)))
            self.reported[trial] = rung + 1
        return [self._tell(asked, agents)] if all(agent.ended for agent in agents) else []

    def _tell(self, asked: Asked, agents: list[Agent]) -> TrialEnded:
        before = self.study.best()
        with self.accounts.timed("score"):
            mean = float(np.mean([agent.mean_return for agent in agents]))
            std = float(np.std(np.concatenate([agent.returns for agent in agents]), dtype=np.float64))
            attributes = {
                "returns": [None if agent.diverged else agent.mean_return for agent in agents],
                "std_return": None if np.isnan(mean) else std,
                "env_steps": [agent.step for agent in agents],
                "updates": [agent.updates for agent in agents],
            }
        with self.accounts.timed("tell"):
            state = self.study.tell(asked.number, mean, attributes)
        self.accounts.trials += 1
        del self.open[asked.number], self.reported[asked.number]
        is_best = state == "complete" and (before is None or mean > before.value)
        return TrialEnded(asked.number, state, asked.params, agents[0].hyperparams, agents, mean, std, is_best)

    def _ask(self, num_agents: int) -> None:
        """Ask for trials until so many agents wait, and a few more to choose from, or the study has enough."""
        count = -(-(num_agents + self.reserve - len(self.queue)) // self.num_seeds)
        if self.limits.trials is not None:
            count = min(count, self.limits.trials - num_finished(self.study) - len(self.open))
        if count > 0:
            with self.accounts.timed("ask"):
                asked = self.study.ask(count)
            for one in asked:
                self._enqueue(one)

    def _enqueue(self, asked: Asked) -> None:
        hyperparams = self.space.hyperparams(asked.params)
        agents = [Agent(asked.number, seed, hyperparams) for seed in range(self.num_seeds)]
        self.open[asked.number], self.reported[asked.number] = (asked, agents), 0
        self.queue.extend(agents)

    def _dispatch(self, row: int) -> None:
        """Put waiting agents into the free lanes of a row and queue its next segment on the devices."""
        layout, config, blocks = self.trainer.layout, self.trainer.config, self.rows[row]
        self._ask(sum(agent is None for block in blocks for agent in block))
        fresh: Bool[np.ndarray, "devices block"] = np.zeros(layout.row_shape, bool)
        for device, lane, agent in assign(blocks, self.queue, config):
            self.queue.remove(agent)
            blocks[device][lane], fresh[device, lane] = agent, True
            self.study.start(agent.trial, agent.seed_index, row, device * layout.block + lane)
        agents = [agent for block in blocks for agent in block]
        new = stack([agent.hyperparams if agent else defaults() for agent in agents])
        for kept, its in zip(self.hyperparams[row], new, strict=True):
            kept[fresh.ravel()] = its[fresh.ravel()]
        hyperparams = Hyperparams(*(np.copy(x).reshape(layout.row_shape) for x in self.hyperparams[row]))
        step, alive = self._numbers(row, "step"), np.array([a is not None for a in agents]).reshape(layout.row_shape)
        ticks = [
            cost.segment_ticks(
                Hyperparams(*(x[device] for x in hyperparams)),
                step[device],
                alive[device],
                config,
                self.align,
                self.speed,
            )
            for device in range(layout.devices)
        ]
        placement = Placement(fresh, self._numbers(row, "trial"), self._numbers(row, "seed_index"), hyperparams)
        self.trainer.dispatch(row, placement, np.array(ticks, np.int32))

    def _account(self, row: int, first: Int[np.ndarray, "devices block"], progress: Progress) -> None:
        """Add a segment to the accounts: passes made and of use, lanes that lived, work of the devices."""
        accounts, layout, config = self.accounts, self.trainer.layout, self.trainer.config
        now = time.perf_counter()
        seconds, self.dispatched[row] = now - self.dispatched[row], now
        occupied = np.array([[agent is not None for agent in block] for block in self.rows[row]])
        last = np.where(occupied, np.asarray(progress.step), 0)
        before = self._numbers(row, "updates")
        accounts.updates += int(np.sum(np.where(occupied, np.asarray(progress.updates) - before, 0)))
        update_s = cost.update_costs(layout.block, config, self.speed)
        for device in range(layout.devices):
            ticks = -(-(last[device] - first[device]) // config.tick)
            made = int(ticks.max(initial=0))
            steps = first[device] + config.tick * np.arange(1, made + 1)[:, None]
            hyperparams = Hyperparams(*(x.reshape(layout.row_shape)[device] for x in self.hyperparams[row]))
            each = cost.passes(hyperparams, steps, config, last[device])
            passes, living = each.sum(axis=0), (steps <= last[device]).sum(axis=1)
            accounts.paid_updates += int(each.sum(axis=1) @ living)
            work = made * config.tick * cost.step_cost(layout.block, config, self.speed) + float(passes @ update_s)
            accounts.device_work[device] = accounts.device_work.get(device, 0.0) + work
            accounts.lane_s += layout.block * seconds
            accounts.busy_lane_s += float(ticks.sum()) / max(made, 1) * seconds

    def _numbers(self, row: int, name: str) -> Int[np.ndarray, "devices block"]:
        values = [[getattr(agent, name) if agent else 0 for agent in block] for block in self.rows[row]]
        return np.array(values, np.int32)


def _nobody_reached(agents: list[Agent], rung: int) -> bool:
    """Return whether all agents of a trial ended before a rung."""
    return all(agent.ended and np.isnan(agent.validation[rung]) for agent in agents)


def _reserve(searched: Space, layout: Layout) -> int:
    """Return how many agents wait to be chosen from where agents differ in what they need of their neighbours.

    Few: a trial that waits was asked for before the latest results were known.
    """
    return min(layout.block - 1, layout.lanes // 8) if space.is_mixed(searched) else 0
