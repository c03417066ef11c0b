"""How a sweep ended, and its summary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jaxdqn.accounts import Accounts
from jaxdqn.config import Layout
from jaxdqn.confirm import Confirmation
from jaxdqn.plan import Plan
from jaxdqn.study import Best


@dataclass(frozen=True)
class Result:
    """How a sweep ended."""

    plan: Plan
    layout: Layout
    best: Best | None
    confirmed: list[Confirmation]  # the best trials on fresh seeds, the winner first
    verdict: Confirmation | None  # the winner on seeds that chose nothing
    counts: dict[str, int]
    accounts: Accounts
    snapshots: dict[str, Any]  # what they cost
    env_steps: int  # by this process
    wall_s: float  # from the process's start
    start_s: float  # from there to the first segment
    compile_s: float
    train_s: float  # from the first segment to the last visit
    drain_s: float  # from there until all is written that follows the log
    compiles_after_start: int
    stopped: bool  # by a signal
    done: bool  # nothing is left of what was asked for
    failures: list[str]  # of followers, a line each

    def hyperparams(self) -> dict[str, Any]:
        """Return all hyperparameters of the search's best trial, by name."""
        return self.plan.space.hyperparams(self.best.params)._asdict() if self.best else {}

    def summary(self) -> dict[str, Any]:
        """Return the summary as JSON values."""
        best = None
        if self.best:
            best = {
                "number": self.best.number,
                "mean_return": self.best.value,
                "hyperparameters": self.hyperparams(),
            }
        return {
            "best": best,
            "confirm": [one.summary() for one in self.confirmed],
            "verdict": self.verdict.summary() if self.verdict else None,
            "trials": self.counts,
            "env_steps": self.env_steps,
            "updates": self.accounts.updates,
            "wall_s": round(self.wall_s, 3),
            "compile_s": round(self.compile_s, 3),
            "train_s": round(self.train_s, 3),
            "start_s": round(self.start_s, 3),
            "drain_s": round(self.drain_s, 3),
            "compiles_after_start": self.compiles_after_start,
            **self.accounts.summary(),
            **self.snapshots,
            "lanes": self.layout.lanes,
            "rows": self.layout.rows,
            "block": self.layout.block,
            "devices": self.layout.devices,
            "study": self.plan.study_name,
            "output": str(self.plan.output),
            "failures": self.failures,
        }
