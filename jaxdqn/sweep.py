"""The scheduler: lanes × study. Knows the population by a small protocol; yields events, prints nothing.

Rows are visited in a fixed order, whatever finished first, and no decision reads a clock except the time budget, so a
sweep is a function of its arguments.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import Bool, Int

from jaxdqn.config import Config, Layout
from jaxdqn.cost import SPEEDS, Speed, segment_ticks
from jaxdqn.hyperparams import Hyperparams, defaults, stack
from jaxdqn.population import Placement, Progress
from jaxdqn.space import Space, train_periods
from jaxdqn.study import Asked, Best

MAX_CURVE = 200  # points kept of an agent's learning curve


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

    def ask(self) -> Asked:
        """Ask for the next trial."""

    def tell(self, number: int, value: float, attributes: dict[str, Any]) -> str:
        """Record a trial's result; return its state."""

    def unfinished(self) -> list[Asked]:
        """Return the trials to be trained first."""

    def counts(self) -> dict[str, int]:
        """Count the trials by state."""

    def best(self) -> Best | None:
        """Return the best trial so far."""


class CurvePoint(NamedTuple):
    """An agent at one visit of the host."""

    step: int  # environment steps lived
    mean_return: float  # training return of the episodes that ended since the point before; nan: none did
    loss: float  # mean over the updates since the point before; nan: none was made
    epsilon: float


class Totals(NamedTuple):
    """What an agent has done since it was born, as the host read it at one visit."""

    step: int = 0
    episodes: int = 0
    updates: int = 0
    return_sum: float = 0.0
    loss_sum: float = 0.0


@dataclass
class Agent:
    """One agent of a trial, as the host knows it."""

    trial: int
    seed_index: int
    hyperparams: Hyperparams
    history: list[Totals] = field(default_factory=lambda: [Totals()])  # thinned out as it grows; the last is now
    ended: bool = False
    diverged: bool = False
    returns: np.ndarray = field(default_factory=lambda: np.empty(0))  # of the score's episodes
    validation: np.ndarray = field(default_factory=lambda: np.empty(0))  # mean return at each rung

    @property
    def step(self) -> int:
        """Environment steps lived."""
        return self.history[-1].step

    @property
    def updates(self) -> int:
        """Gradient steps made."""
        return self.history[-1].updates

    @property
    def curve(self) -> list[CurvePoint]:
        """The learning curve: what happened between one remembered visit and the next."""
        return [self._point(a, b) for a, b in itertools.pairwise(self.history)]

    def _point(self, before: Totals, now: Totals) -> CurvePoint:
        episodes, updates = now.episodes - before.episodes, now.updates - before.updates
        hp = self.hyperparams
        share = min(now.step / hp.epsilon_decay_steps, 1.0)
        return CurvePoint(
            step=now.step,
            mean_return=(now.return_sum - before.return_sum) / episodes if episodes else float("nan"),
            loss=(now.loss_sum - before.loss_sum) / updates if updates else float("nan"),
            epsilon=float(hp.epsilon_start + share * (hp.epsilon_end - hp.epsilon_start)),
        )

    @property
    def mean_return(self) -> float:
        """Mean return of the score; nan if the agent diverged."""
        return float("nan") if self.diverged else float(np.mean(self.returns, dtype=np.float64))


@dataclass(frozen=True)
class TrialEnded:
    """A trial was told."""

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
) -> Iterator[Event]:
    """Train trials in the lanes until a limit is reached or `stopped()`; yield what happens.

    Trials in flight when the time or the target is reached are left to the next sweep of the study.
    """
    return _Scheduler(trainer, study, space, limits, num_seeds, speed, stopped, started or time.monotonic()).run()


class _Scheduler:
    def __init__(
        self,
        trainer: Trainer,
        study: Trials,
        space: Space,
        limits: Limits,
        num_seeds: int,
        speed: Speed,
        stopped: Callable[[], bool],
        started: float,
    ) -> None:
        self.trainer, self.study, self.space, self.limits = trainer, study, space, limits
        self.num_seeds, self.speed, self.stopped, self.started = num_seeds, speed, stopped, started
        layout = trainer.layout
        self.align = max(1, train_periods(space) // trainer.config.tick)
        self.lanes: list[list[Agent | None]] = [[None] * (layout.devices * layout.block) for _ in range(layout.rows)]
        self.hyperparams = [stack([defaults()] * (layout.devices * layout.block)) for _ in range(layout.rows)]
        self.queue: deque[Agent] = deque()
        self.open: dict[int, tuple[Asked, list[Agent]]] = {}  # trials whose agents are not all scored
        self.env_steps = self.updates = 0
        self.first_segment = time.monotonic()

    def run(self) -> Iterator[Event]:
        if self._over():
            return
        for asked in self.study.unfinished():
            self._enqueue(asked)
        for row in range(self.trainer.layout.rows):
            self._dispatch(row)
        while not self._over():
            for row in range(self.trainer.layout.rows):
                yield from self._visit(row)
                if self._over():
                    break

    def _over(self) -> bool:
        if self.stopped() or satisfied(self.study, self.limits):
            return True
        return self.limits.seconds is not None and time.monotonic() - self.started >= self.limits.seconds

    def _wants_more(self) -> bool:
        return self.limits.trials is None or num_finished(self.study) + len(self.open) < self.limits.trials

    def _visit(self, row: int) -> Iterator[Event]:
        """Read a row's segment, tell the trials it completed, fill its free lanes and send it off again."""
        progress = self.trainer.read(row)
        num_lanes = len(self.lanes[row])
        flat = Progress(*(np.asarray(x).reshape(num_lanes, *x.shape[2:]) for x in progress))
        ended = []
        for lane, agent in enumerate(self.lanes[row]):
            if agent is None:
                continue
            self._note(agent, flat, lane)
            if not flat.alive[lane]:
                self.lanes[row][lane] = None
                agent.ended, agent.diverged = True, bool(flat.diverged[lane])
                agent.returns, agent.validation = np.array(flat.returns[lane]), np.array(flat.validation[lane])
                ended.append(agent)
        for trial in dict.fromkeys(agent.trial for agent in ended):
            asked, agents = self.open[trial]
            if all(agent.ended for agent in agents):
                yield self._tell(asked, agents)
        if not self._over():
            self._dispatch(row)
        busy = sum(agent is not None for lanes in self.lanes for agent in lanes)
        seconds = time.monotonic() - self.first_segment
        yield Visited(self.study.counts(), self.study.best(), busy, self.env_steps, self.updates, seconds)

    def _note(self, agent: Agent, progress: Progress, lane: int) -> None:
        """Remember what an agent has done, for its learning curve."""
        now = Totals(
            step=int(progress.step[lane]),
            episodes=int(progress.episodes[lane]),
            updates=int(progress.updates[lane]),
            return_sum=float(progress.return_sum[lane]),
            loss_sum=float(progress.loss_sum[lane]),
        )
        self.env_steps += now.step - agent.step
        self.updates += now.updates - agent.updates
        if len(agent.history) > MAX_CURVE:
            agent.history = agent.history[::2]
        agent.history.append(now)

    def _tell(self, asked: Asked, agents: list[Agent]) -> TrialEnded:
        before = self.study.best()
        mean = float(np.mean([agent.mean_return for agent in agents]))
        std = float(np.std(np.concatenate([agent.returns for agent in agents]), dtype=np.float64))
        attributes = {
            "returns": [None if agent.diverged else agent.mean_return for agent in agents],
            "std_return": None if np.isnan(mean) else std,
            "env_steps": [agent.step for agent in agents],
            "updates": [agent.updates for agent in agents],
        }
        state = self.study.tell(asked.number, mean, attributes)
        del self.open[asked.number]
        is_best = state == "complete" and (before is None or mean > before.value)
        return TrialEnded(asked.number, state, asked.params, agents[0].hyperparams, agents, mean, std, is_best)

    def _enqueue(self, asked: Asked) -> None:
        hyperparams = self.space.hyperparams(asked.params)
        agents = [Agent(asked.number, seed, hyperparams) for seed in range(self.num_seeds)]
        self.open[asked.number] = (asked, agents)
        self.queue.extend(agents)

    def _dispatch(self, row: int) -> None:
        """Put queued agents into the free lanes of a row and queue its next segment on the devices."""
        layout, config = self.trainer.layout, self.trainer.config
        lanes = self.lanes[row]
        fresh: Bool[np.ndarray, " lanes"] = np.zeros(len(lanes), bool)
        for lane, agent in enumerate(lanes):
            if agent is not None:
                continue
            if not self.queue and self._wants_more():
                self._enqueue(self.study.ask())
            if self.queue:
                lanes[lane], fresh[lane] = self.queue.popleft(), True
        for field_, new in zip(self.hyperparams[row], self._stacked(lanes), strict=True):
            field_[fresh] = new[fresh]

        def shaped(values: np.ndarray) -> np.ndarray:
            return np.ascontiguousarray(values).reshape(layout.row_shape)

        def number(name: str) -> np.ndarray:
            return np.array([getattr(agent, name) if agent else 0 for agent in lanes], np.int32)

        hyperparams = Hyperparams(*map(shaped, self.hyperparams[row]))
        step, alive = shaped(number("step")), shaped(np.array([a is not None for a in lanes]))
        ticks = [
            segment_ticks(
                Hyperparams(*(x[device] for x in hyperparams)),
                step[device],
                alive[device],
                config,
                self.align,
                self.speed,
            )
            for device in range(layout.devices)
        ]
        placement = Placement(shaped(fresh), shaped(number("trial")), shaped(number("seed_index")), hyperparams)
        self.trainer.dispatch(row, placement, np.array(ticks, np.int32))

    def _stacked(self, lanes: list[Agent | None]) -> Hyperparams:
        return stack([agent.hyperparams if agent else defaults() for agent in lanes])
