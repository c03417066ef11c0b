"""The scheduler of the search: lanes × study. Yields events, prints nothing.

Rows are visited in a fixed order, whatever finished first, and no decision reads a clock, so a sweep is a function of
its arguments. What a visit brings is in the log whole or not at all: a sweep that is cut off goes on from its last one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict

import numpy as np

from jaxdqn import recovery, space_config
from jaxdqn.config import Layout
from jaxdqn.events import Differing, Event, Resumed, TrialEnded, Visited
from jaxdqn.host_agent import Agent
from jaxdqn.lanes import Lanes, mean_over
from jaxdqn.snapshot import Snapshots
from jaxdqn.space import Space
from jaxdqn.study import Asked
from jaxdqn.trials import Limits, Trials, num_finished, satisfied


def sweep(
    lanes: Lanes,
    study: Trials,
    space: Space,
    limits: Limits,
    num_seeds: int = 1,
    stopped: Callable[[], bool] = lambda: False,
    keep: Callable[[Agent], None] | None = None,
    snapshots: Snapshots | None = None,
) -> Iterator[Event]:
    """Train trials in the lanes until a limit is reached or `stopped()`; yield what happens, once it is on the disk.

    `keep` is given each agent of a trial with its parameters before its result is recorded. A sweep that ends before
    its limits, by a stop or a kill, goes on from its last visit when it is called again, and comes to the same end.
    """
    return _Scheduler(lanes, study, space, limits, num_seeds, keep, snapshots).run(stopped)


class _Scheduler:
    def __init__(
        self,
        lanes: Lanes,
        study: Trials,
        searched: Space,
        limits: Limits,
        num_seeds: int,
        keep: Callable[[Agent], None] | None,
        snapshots: Snapshots | None = None,
    ) -> None:
        self.lanes, self.study, self.space, self.limits = lanes, study, searched, limits
        self.num_seeds, self.keep, self.snapshots, self.accounts = num_seeds, keep, snapshots, lanes.accounts
        self.layout, self.rungs = lanes.trainer.layout, lanes.trainer.config.rungs
        self.diverged_return = lanes.trainer.config.diverged_return
        self.reserve = _reserve(searched, self.layout)
        self.open: dict[int, tuple[Asked, list[Agent]]] = {}  # trials whose agents are not all scored
        self.reported: dict[int, int] = {}  # rungs of open trials that are in the log
        self.unchecked: dict[int, dict[int, float]] = {}  # of them, those to be compared when they are known again
        self.next_row = 0
        self.first_segment = time.monotonic()

    def run(self, stopped: Callable[[], bool]) -> Iterator[Event]:
        if satisfied(self.study, self.limits) or stopped():
            return
        yield from self._resume(stopped)
        if stopped():
            self.lanes.clear()
            return
        idle = [row for row in range(self.layout.rows) if not self.lanes.under_way[row]]
        if idle:
            self._ask(sum(map(self.lanes.num_free, idle)))
        for row in idle:
            self._dispatch(row)
        while not satisfied(self.study, self.limits) and not stopped():
            yield from self._visit(self.next_row)
        if self.snapshots and not satisfied(self.study, self.limits):
            for _ in range(self.snapshots.urge(self.layout.rows)):
                if not satisfied(self.study, self.limits):
                    yield from self._visit(self.next_row)
        self.lanes.clear()

    def _resume(self, stopped: Callable[[], bool]) -> Iterator[Event]:
        """Put the lanes to where the log's last visit left them; on another machine, agents in flight start over."""
        past = self.study.past()
        where = {**self.lanes.trainer.fingerprint, **asdict(self.layout)}
        self.lanes.visits = past.clock
        self.study.at(past.clock)
        for asked in self.study.unfinished():
            self._enqueue(asked)
        agents = {(agent.trial, agent.seed_index): agent for _, open_ in self.open.values() for agent in open_}
        for name, result in past.ended.items():
            if name in agents:
                agents[name].settle(result)
        started = {name for segment in past.segments for name in segment.placed.values()}
        in_flight = sum(name in started and not agent.ended for name, agent in agents.items())
        if self.snapshots:  # others are of a log that was longer, or of lanes that were emptied
            self.snapshots.keep_only(past.since if past.where == where else past.clock, past.clock)
        if past.where == where:
            begun = time.monotonic()
            done = total = 0
            state = self.lanes.trainer.state
            saved = self.snapshots.latest(past.clock, state, past.since) if self.snapshots else {}
            for done, total in recovery.replay(self.lanes, past, agents, saved):
                yield Resumed(in_flight, done, total)
                if stopped():
                    return
            self.accounts.resume_s += time.monotonic() - begun
            self.unchecked = {trial: dict(self.study.trial(trial).intermediate) for trial in self.open}
            yield Resumed(in_flight, done, total, over=True, seconds=self.accounts.resume_s)
            self.next_row = (past.segments[-1].row + 1) % self.layout.rows if past.segments else 0
        else:
            if past.where and in_flight:
                yield Resumed(in_flight, 0, 0, changed=recovery.changes(past.where, where))
            if past.where:  # a visit of its own: the last snapshot may be one ahead of the log
                self.lanes.visits += 1
                self.study.at(self.lanes.visits)
            self.study.begin(where)
        self.lanes.queue = [agent for agent in self.lanes.queue if agent.lane < 0 and not agent.ended]
        if past.where == where:
            for agent, passed_over in zip(self.lanes.queue, past.passed_over, strict=False):
                agent.passed_over = passed_over
        # A result that differs may have ended an agent early: its trial has nothing more to wait for.
        for trial in [number for number, (_, open_) in self.open.items() if all(agent.ended for agent in open_)]:
            self._judge(trial)

    def _check(self, trial: int) -> None:
        """Count the validations that are not as an earlier process recorded them, once they are known again."""
        recorded, agents = self.unchecked.get(trial, {}), self.open[trial][1]
        for index, rung in enumerate(self.rungs):
            if rung in recorded and (value := self._mean_over(agents, index)) is not None:
                self.accounts.differing += value != recorded.pop(rung)

    def _mean_over(self, agents: list[Agent], index: int) -> float | None:
        return mean_over(agents, index, self.diverged_return)

    def _visit(self, row: int) -> Iterator[Event]:
        """Read a row's segment, tell the trials it completed, fill its free lanes, send it off again, commit."""
        progress = self.lanes.read(row)
        assert progress is not None
        with self.accounts.timed("visit"):
            seen = self.lanes.take_in(row, progress)
            self.study.at(self.lanes.visits)
            if self.snapshots:
                self.snapshots.visit(row, self.lanes)
            before = self.accounts.differing
            told = [event for trial in dict.fromkeys(agent.trial for agent in seen) if (event := self._judge(trial))]
            for agent in seen:
                if agent.ended and agent.trial in self.open:
                    self._keep(agent)
                    self.study.ended(agent.trial, agent.seed_index, agent.result)
            if satisfied(self.study, self.limits):
                self.study.sent(row, None, [])
            else:
                self._dispatch(row)
            changed = self.study.commit()
        self.next_row = (row + 1) % self.layout.rows
        yield from told
        if self.accounts.differing > before:
            yield Differing(self.accounts.differing)
        seconds, counts, best = time.monotonic() - self.first_segment, self.study.counts(), self.study.best()
        updates = self.accounts.updates
        yield Visited(changed, counts, best, self.lanes.num_busy, self.lanes.env_steps, updates, seconds)

    def _judge(self, trial: int) -> TrialEnded | None:
        """Report the rungs that all agents of a trial have reached, prune it there; tell it if all have ended."""
        self._check(trial)
        asked, agents = self.open[trial]
        all_ended = all(agent.ended for agent in agents)
        for index in range(self.reported[trial], len(self.rungs)):
            value = self._mean_over(agents, index)
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
            mean = float("nan") if pruned else _mean_return(agents, self.diverged_return)
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
            self._keep(agent)
        with self.accounts.timed("tell"):
            state = self.study.tell(asked.number, mean, attributes, pruned)
        self.accounts.trials += 1
        del self.open[asked.number], self.reported[asked.number]
        worth = self.space.worth
        is_best = state == "complete" and (
            before is None or worth(asked.params, mean) > worth(before.params, before.value)
        )
        return TrialEnded(asked.number, state, asked.params, agents[0].hyperparams, agents, mean, std, is_best)

    def _keep(self, agent: Agent) -> None:
        if self.keep and agent.params is not None:
            self.keep(agent)
            agent.params = None

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
        self.study.sent(row, self.lanes.num_ticks[row], [agent.passed_over for agent in self.lanes.queue])


def _mean_return(agents: list[Agent], diverged_return: float) -> float:
    """Return the mean over a trial's seeds; one that diverged counts as the random policy, all of them are nan."""
    if all(agent.diverged for agent in agents):
        return float("nan")
    return float(np.mean([diverged_return if agent.diverged else agent.mean_return for agent in agents]))


def _reserve(searched: Space, layout: Layout) -> int:
    """Return how many agents wait to be chosen from where agents differ in what they need of their neighbours.

    Few: a trial that waits was asked for before the latest results were known.
    """
    return min(layout.block - 1, layout.lanes // 8) if space_config.is_mixed(searched) else 0
