"""What a sweep's visits cost the host, and how much of the lanes' work was of use."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Int

from jaxdqn import cost
from jaxdqn.config import Config, Layout
from jaxdqn.cost import Speed
from jaxdqn.hyperparams import Hyperparams


@dataclass
class Accounts:
    """Sums over a sweep. Seconds are the host's, measured; the devices' work is computed from what they were given."""

    trials: int = 0  # told
    ask_s: float = 0.0  # choosing hyperparameters, of the first agents too
    tell_s: float = 0.0  # recording results
    score_s: float = 0.0  # making trials' values of episodes' returns; playing those is part of the segments
    visit_s: float = 0.0  # all work at visits, once all rows are under way: the above, dispatch, the log's flush
    follower_wait_s: float = 0.0  # waiting for a follower whose queue was full
    resume_s: float = 0.0  # bringing the agents in flight to where an earlier process had left them
    differing: int = 0  # validations that came out otherwise in agents brought back
    updates: int = 0  # gradient steps
    paid_updates: int = 0  # those the lanes went through, masked ones included
    lane_s: float = 0.0  # lanes × seconds
    busy_lane_s: float = 0.0  # of them, with an agent that lived
    device_work: dict[int, float] = field(default_factory=dict)  # computed seconds of each device

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add the seconds of a block of code to the field `<name>_s`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            setattr(self, f"{name}_s", getattr(self, f"{name}_s") + time.perf_counter() - start)

    def add_segment(
        self,
        hyperparams: Hyperparams,
        first: Int[np.ndarray, "devices block"],
        last: Int[np.ndarray, "devices block"],
        updates: int,
        seconds: float,
        config: Config,
        layout: Layout,
        speed: Speed,
    ) -> None:
        """Add a row's segment: passes made and of use, lanes that lived, work of the devices.

        Args:
            hyperparams: of the lanes, arrays of shape (devices, block).
            first: the steps of the lanes' agents before it; 0 where nobody was.
            last: and after it.
            updates: made by the agents.
            seconds: since it was dispatched.
            config: of the population.
            layout: likewise.
            speed: of the devices.
        """
        self.updates += updates
        update_s = cost.update_costs(layout.block, config, speed)
        for device in range(layout.devices):
            ticks = -(-(last[device] - first[device]) // config.tick)
            made = int(ticks.max(initial=0))
            steps = first[device] + config.tick * np.arange(1, made + 1)[:, None]
            each = cost.passes(Hyperparams(*(x[device] for x in hyperparams)), steps, config, last[device])
            passes, living = each.sum(axis=0), (steps <= last[device]).sum(axis=1)
            self.paid_updates += int(each.sum(axis=1) @ living)
            work = made * config.tick * cost.step_cost(layout.block, config, speed) + float(passes @ update_s)
            self.device_work[device] = self.device_work.get(device, 0.0) + work
            self.lane_s += layout.block * seconds
            self.busy_lane_s += float(ticks.sum()) / max(made, 1) * seconds

    @property
    def wasted_updates(self) -> float:
        """Share of the updates a lane went through that were masked: due in a neighbour only."""
        return 1 - self.updates / self.paid_updates if self.paid_updates else 0.0

    @property
    def idle_lanes(self) -> float:
        """Share of the lanes' time without an agent that lives."""
        return 1 - self.busy_lane_s / self.lane_s if self.lane_s else 0.0

    @property
    def device_imbalance(self) -> float:
        """Share by which the devices' mean work is below that of the busiest."""
        work = list(self.device_work.values())
        return 1 - float(np.mean(work)) / max(work) if work and max(work) > 0 else 0.0

    def summary(self) -> dict[str, Any]:
        """Return the figures as JSON values."""
        host = {name: getattr(self, name) for name in ("ask_s", "tell_s", "score_s", "visit_s", "follower_wait_s")}
        told = {"ms_a_trial": 1e3 / self.trials} if self.trials else {}
        each = {f"{name[:-2]}_{unit}": factor * s for name, s in host.items() for unit, factor in told.items()}
        shares = {name: getattr(self, name) for name in ("wasted_updates", "idle_lanes", "device_imbalance")}
        return {
            name: round(value, 4) for name, value in (host | each | shares | {"resume_s": self.resume_s}).items()
        } | {"differing": self.differing}
