"""What the host knows of an agent: whose it is, how far it came, its learning curve and its scores."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from jaxdqn.evaluate import Phase
from jaxdqn.hyperparams import Hyperparams
from jaxdqn.network import Params

MAX_CURVE = 200  # points kept of a learning curve


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


@dataclass(eq=False)
class Agent:
    """One agent of a trial."""

    trial: int
    seed_index: int
    hyperparams: Hyperparams
    phase: Phase = Phase.SEARCH
    keeps_params: bool = False  # its parameters are fetched from the device when it has ended
    history: list[Totals] = field(default_factory=lambda: [Totals()])  # thinned out as it grows; the last is now
    passed_over: int = 0  # how often a later one was put into a lane before it
    ended: bool = False
    diverged: bool = False
    dropped: bool = False  # taken out of its lane before its end
    lane: int = -1  # of the whole population
    began_s: float = 0.0  # Unix time at which it was put there; never decides anything
    ended_s: float = 0.0
    params: Params | None = None  # those that were scored
    returns: np.ndarray = field(default_factory=lambda: np.empty(0))  # of the score's episodes
    validation: np.ndarray = field(default_factory=lambda: np.empty(0))  # mean return at each rung; nan: not reached

    @property
    def step(self) -> int:
        """Environment steps lived."""
        return self.history[-1].step

    @property
    def updates(self) -> int:
        """Gradient steps made."""
        return self.history[-1].updates

    def note(self, now: Totals) -> None:
        """Remember what the agent has done by now."""
        if len(self.history) > MAX_CURVE:
            self.history = self.history[::2]
        self.history.append(now)

    def recall(self, history: list[list[float]], validation: list[float | None]) -> None:
        """Remember what another process noted."""
        self.history = [Totals(int(a), int(b), int(c), float(d), float(e)) for a, b, c, d, e in history]
        self.validation = np.array([np.nan if value is None else value for value in validation], np.float32)

    @property
    def validated_so_far(self) -> list[float | None]:
        """Mean validation returns, as JSON values; None: not reached."""
        return [None if np.isnan(value) else value for value in self.validation.tolist()]

    @property
    def result(self) -> dict[str, Any]:
        """What became of an agent that has ended, as JSON values."""
        return {
            "returns": None if self.diverged else self.returns.tolist(),
            "validation": self.validated_so_far,
            "env_steps": self.step,
            "updates": self.updates,
            "lanes": self.span,
        }

    def settle(self, result: dict[str, Any]) -> None:
        """Take over the result of another process."""
        returns, validation = result["returns"], result["validation"]
        self.ended, self.diverged = True, returns is None
        self.returns = np.array(returns or [], np.float32)
        self.validation = np.array([np.nan if value is None else value for value in validation], np.float32)
        self.history.append(Totals(step=result["env_steps"], updates=result["updates"]))
        self.lane, self.began_s, self.ended_s, _ = result["lanes"]

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
        """Mean return of the score; nan if the agent diverged or was dropped."""
        known = len(self.returns) > 0 and not self.diverged
        return float(np.mean(self.returns, dtype=np.float64)) if known else float("nan")

    @property
    def span(self) -> tuple[int, float, float, str]:
        """Its lane, from when to when it was there (Unix time, in seconds), and how that ended."""
        outcome = "diverged" if self.diverged else "ended" if self.ended else "pruned"
        return self.lane, round(self.began_s, 3), round(self.ended_s or time.time(), 3), outcome

    def validated(self, rung: int) -> float | None:
        """Mean validation return at a rung; None if it has not come so far; the last one if it ended before."""
        reached = self.validation[: rung + 1]
        reached = reached[~np.isnan(reached)]
        if rung < len(self.validation) and not np.isnan(self.validation[rung]):
            return float(self.validation[rung])
        return float(reached[-1]) if self.ended and len(reached) else None
