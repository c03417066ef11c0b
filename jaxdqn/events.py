"""What a sweep tells whoever listens: the console, the followers of the log, the tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from jaxdqn.evaluate import Phase
from jaxdqn.follower import Trial
from jaxdqn.host_agent import Agent
from jaxdqn.hyperparams import Hyperparams
from jaxdqn.study import Best


@dataclass(frozen=True)
class TrialEnded:
    """A trial was told, and is on the disk."""

    number: int
    state: str  # complete, pruned or failed
    params: dict[str, Any]
    hyperparams: Hyperparams
    agents: list[Agent]
    mean_return: float  # over the seeds, one that diverged being worth the random policy; nan: pruned, or all diverged
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


@dataclass(frozen=True)
class Retrained:
    """Agents that are trained anew made progress."""

    phase: Phase
    ended: list[Agent]  # since the last such event, and on the disk
    done: int  # agents of the phase, earlier sweeps included …
    total: int  # … of so many
    lanes_busy: int
    env_steps: int
    updates: int
    seconds: float


@dataclass(frozen=True)
class Resumed:
    """The agents that were in flight when a sweep was cut off are being brought to where they were, or start over."""

    num_agents: int
    done: int  # segments repeated …
    total: int  # … of so many
    over: bool = False  # all are where they were
    seconds: float = 0.0
    changed: tuple[str, ...] = ()  # what results depend on and is not as it was: the agents start over


@dataclass(frozen=True)
class Differing:
    """Validations of agents brought back are not as an earlier process recorded them; the recorded ones stand."""

    count: int  # so far


Event: TypeAlias = TrialEnded | Visited | Retrained | Resumed | Differing
