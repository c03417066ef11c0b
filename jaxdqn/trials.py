"""What a scheduler needs of a study, and when it has enough of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from jaxdqn.follower import Trial
from jaxdqn.recovery import Past
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

    def ended(self, number: int, seed_index: int, result: dict[str, Any]) -> None:
        """Record what became of an agent of a trial that goes on."""

    def sent(self, row: int, num_ticks: list[int] | None, passed_over: list[int]) -> None:
        """Record the segment of a row, or that it was not sent off again."""

    def begin(self, where: dict[str, Any]) -> None:
        """Record that all lanes are empty, and what results depend on from now on."""

    def past(self) -> Past:
        """Return what was recorded of the lanes."""

    def trial(self, number: int) -> Trial:
        """Return what is known of a trial."""

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
