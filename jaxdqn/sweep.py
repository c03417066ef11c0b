"""The scheduler of the search: lanes × study. Yields events, prints nothing.

Rows are visited in a fixed order, whatever finished first, and no decision reads a clock except the time budget, so a
sweep is a function of its arguments.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from jaxdqn import space
from jaxdqn.config import Layout
from jaxdqn.events import Event, TrialEnded, Visited
from jaxdqn.follower import Trial
from jaxdqn.host_agent import Agent
from jaxdqn.lanes import Lanes, mean_over
from jaxdqn.space import Space
from jaxdqn.study import Asked, Best


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

    def should_prune(self, number: int) -> bool:
        """Return whether a trial is to end at the rung it has just reached."""

    def tell(self, number: int, value: float, attributes: dict[str, Any], pruned: bool = False) -> str:
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
    lanes: Lanes,
    study: Trials,
    space: Space,
    limits: Limits,
    num_seeds: int = 1,
    stopped: Callable[[], bool] = lambda: False,
    started: float | None = None,
    keep: Callable[[Agent], None] | None = None,
) -> Iterator[Event]:
    """Train trials in the lanes until a limit is reached or `stopped()`; yield what happens, once it is on the disk.

    `keep` is given each agent of a trial with its parameters before the trial is told. Trials in flight when the time
    or the target is reached are left to the next sweep of the study.
    """
    clock = time.monotonic() if started is None else started
    scheduler = _Scheduler(lanes, study, space, limits, num_seeds, keep)
    return scheduler.run(lambda: stopped() or _time_is_up(limits, clock))


def _time_is_up(limits: Limits, started: float) -> bool:
    return limits.seconds is not None and time.monotonic() - started >= limits.seconds


class _Scheduler:
    def __init__(
        self,
        lanes: Lanes,
        study: Trials,
        searched: Space,
        limits: Limits,
        num_seeds: int,
        keep: Callable[[Agent], None] | None,
    ) -> None:
        self.lanes, self.study, self.space, self.limits = lanes, study, searched, limits
        self.num_seeds, self.keep, self.accounts = num_seeds, keep, lanes.accounts
        self.layout, self.rungs = lanes.trainer.layout, lanes.trainer.config.rungs
        self.reserve = _reserve(searched, self.layout)
        self.open: dict[int, tuple[Asked, list[Agent]]] = {}  # trials whose agents are not all scored
        self.reported: dict[int, int] = {}  # rungs of open trials that are in the log
        self.first_segment = time.monotonic()

    def run(self, stopped: Callable[[], bool]) -> Iterator[Event]:
        def over() -> bool:
            return stopped() or satisfied(self.study, self.limits)

        if over():
            return
        for asked in self.study.unfinished():
            self._enqueue(asked)
        self._ask(self.layout.lanes)
        for row in range(self.layout.rows):
            self._dispatch(row)
        while not over():
            for row in range(self.layout.rows):
                yield from self._visit(row, over)
                if over():
                    break
        self.lanes.clear()

    def _visit(self, row: int, over: Callable[[], bool]) -> Iterator[Event]:
        """Read a row's segment, tell the trials it completed, fill its free lanes, send it off again, commit."""
        progress = self.lanes.read(row)
        assert progress is not None
        with self.accounts.timed("visit"):
            touched = dict.fromkeys(agent.trial for agent in self.lanes.take_in(row, progress))
            self.study.at(self.lanes.visits)
            told = [event for trial in touched if (event := self._judge(trial))]
            if not over():
                self._dispatch(row)
            changed = self.study.commit()
        yield from told
        seconds, counts, best = time.monotonic() - self.first_segment, self.study.counts(), self.study.best()
        updates = self.accounts.updates
        yield Visited(changed, counts, best, self.lanes.num_busy, self.lanes.env_steps, updates, seconds)

    def _judge(self, trial: int) -> TrialEnded | None:
        """Report the rungs that all agents of a trial have reached, prune it there; tell it if all have ended."""
        asked, agents = self.open[trial]
        all_ended = all(agent.ended for agent in agents)
        for index in range(self.reported[trial], len(self.rungs)):
            value = mean_over(agents, index)
            if value is None:
                break
            self.study.report(trial, self.rungs[index], value)
            self.reported[trial] = index + 1
            if not all_ended and self.study.should_prune(trial):
                self.lanes.drop(agents)
                return self._tell(asked, agents, pruned=True)
        return self._tell(asked, agents) if all_ended else None

    def _tell(self, asked: Asked, agents: list[Agent], pruned: bool = False) -> TrialEnded:
        before = self.study.best()
        with self.accounts.timed("score"):
            mean = float("nan") if pruned else float(np.mean([agent.mean_return for agent in agents]))
            episodes = np.concatenate([agent.returns for agent in agents])
            std = float("nan") if np.isnan(mean) else float(np.std(episodes, dtype=np.float64))
            returns = [agent.mean_return for agent in agents]
            attributes = {
                "returns": [None if np.isnan(value) else value for value in returns],
                "std_return": None if np.isnan(std) else std,
                "num_parameters": self.space.num_parameters(asked.params),
                "env_steps": [agent.step for agent in agents],
                "updates": [agent.updates for agent in agents],
                "lanes": [agent.span if agent.lane >= 0 else None for agent in agents],
            }
        for agent in agents:
            if self.keep and agent.params is not None:
                self.keep(agent)
                agent.params = None
        with self.accounts.timed("tell"):
            state = self.study.tell(asked.number, mean, attributes, pruned)
        self.accounts.trials += 1
        del self.open[asked.number], self.reported[asked.number]
        worth = self.space.worth
        is_best = state == "complete" and (
            before is None or worth(asked.params, mean) > worth(before.params, before.value)
        )
        return TrialEnded(asked.number, state, asked.params, agents[0].hyperparams, agents, mean, std, is_best)

    def _ask(self, num_agents: int) -> None:
        """Ask for trials until so many agents wait, and a few more to choose from, or the study has enough."""
        count = -(-(num_agents + self.reserve - len(self.lanes.queue)) // self.num_seeds)
        if self.limits.trials is not None:
            count = min(count, self.limits.trials - num_finished(self.study) - len(self.open))
        if count > 0:
            with self.accounts.timed("ask"):
                asked = self.study.ask(count)
            for one in asked:
                self._enqueue(one)

    def _enqueue(self, asked: Asked) -> None:
        """Let the agents of a trial wait for lanes. A rung that is in the log is not judged again."""
        hyperparams, keeps = self.space.hyperparams(asked.params), self.keep is not None
        agents = [Agent(asked.number, seed, hyperparams, keeps_params=keeps) for seed in range(self.num_seeds)]
        self.open[asked.number], self.reported[asked.number] = (asked, agents), asked.rungs
        self.lanes.queue.extend(agents)

    def _dispatch(self, row: int) -> None:
        self._ask(self.lanes.num_free(row))
        for agent in self.lanes.dispatch(row):
            self.study.start(agent.trial, agent.seed_index, row, agent.lane - row * self.lanes.lanes_a_row)


def _reserve(searched: Space, layout: Layout) -> int:
    """Return how many agents wait to be chosen from where agents differ in what they need of their neighbours.

    Few: a trial that waits was asked for before the latest results were known.
    """
    return min(layout.block - 1, layout.lanes // 8) if space.is_mixed(searched) else 0
