"""Followers of the log: each a thread that writes what it is told of to one `Sink`, and that nothing waits for.

The log is the truth; what a follower could not write, the next run of the study sends again. Knows neither Optuna nor
MLflow, and no decision here influences a result.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from jaxdqn.redact import hide_password

FINISHED = ("complete", "pruned", "failed")
PATIENCE_S = 60.0  # without a sign of life: then a sink is given up
DELAYS_S = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)  # before the next try; the last one again and again
NICE = 10  # of the threads: they take the cores that the training leaves, above all at its end
_CHANCES = 3
_SLOW_S = 1.0  # a call of a sink that takes longer is given fewer trials: each call is one sign of life


class Metric(NamedTuple):
    """One value of a learning curve."""

    name: str
    value: float
    step: int  # environment steps


class TrialDetail(NamedTuple):
    """What is known of a trial in the process that trained it, and is not in the log."""

    params: dict[str, Any]  # all hyperparameters, searched or fixed
    metrics: dict[str, float]
    curve: list[Metric]


class Trial(NamedTuple):
    """A trial as followers are told of it. Times are naive and local, as Optuna's are."""

    number: int
    state: str  # running, complete, pruned or failed
    value: float | None
    params: dict[str, Any]  # the searched hyperparameters
    attributes: dict[str, Any]  # JSON values
    intermediate: dict[int, float]  # environment step of a rung -> mean validation return
    started: datetime | None
    ended: datetime | None
    detail: TrialDetail | None = None  # None: sent again from the log


class Conclusion(NamedTuple):
    """What a sweep has come to, when all its trials are written."""

    confirm: list[dict[str, Any]]  # JSON: the best trials on fresh seeds, the winner first
    verdict: dict[str, Any] | None  # JSON: the winner on seeds that chose nothing
    files: list[Path]  # of the study: its report
    agents: dict[int, list[Path]]  # of trials: their saved agents


class Sink(Protocol):
    """Where a follower writes. Every method may raise anything, and is called again."""

    @property
    def ordered(self) -> bool:
        """Whether a trial may be written only after all those with lower numbers."""

    def write(self, trials: list[Trial]) -> None:
        """Write trials in ascending order of their numbers; what is there already stays as it is."""

    def close(self, conclusion: Conclusion | None = None) -> None:
        """Write what comes last. Nothing is called afterwards."""


def low_priority() -> None:
    """Let the calling thread take only the cores that the training leaves."""
    with contextlib.suppress(AttributeError, OSError):  # where the system has no priorities of threads
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)


class Follower:
    """The trials not yet written, the newest record of each, and the thread that writes them."""

    def __init__(
        self,
        name: str,
        connect: Callable[[], Sink],
        history: Iterable[Trial] = (),
        capacity: int = 10_000,
        batch: int = 32,
        secrets: str = "",
        *,
        delays_s: Sequence[float] = DELAYS_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """Start the thread, which connects at once.

        Args:
            name: what it is called where a failure is said.
            connect: opens the sink, in the thread.
            history: what the log already holds, in any order; read here, and not counted against `capacity`.
            capacity: trials that may wait.
            batch: trials the sink is given in one call, at most.
            secrets: a URL whose password no failure shows.
            delays_s: pauses between tries.
            patience_s: how long `put` waits for a sink that writes nothing.
        """
        self.name, self._connect, self._capacity, self._batch = name, connect, capacity, batch
        self._secrets, self._delays_s, self._patience_s = secrets, delays_s, patience_s
        self._changed = threading.Condition()  # guards all that follows
        self._pending = {trial.number: trial for trial in sorted(history, key=lambda trial: trial.number)}
        self._backlog = set(self._pending)  # of them, those of the history
        self._missing: set[int] = set()  # dropped or set aside
        self._strikes: dict[int, tuple[int, int]] = {}  # failed alone: how often, and what had been written by then
        self._written = self._in_a_row = self.failures = 0
        self._failure: str | None = None
        self._reason = "it does not answer"  # of the last failure
        self._close_failure: str | None = None
        self._closing = self._given_up = False
        self._conclusion: Conclusion | None = None
        self._sink: Sink | None = None
        self._size = 1  # trials of the next call
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def put(self, trial: Trial) -> float:
        """Hand a trial over; return the seconds this waited because a healthy follower's queue was full.

        New numbers come in ascending order; a further record of a number replaces the one that waits. While the
        follower is failing, a trial that finds no room is left to the next run of the study.
        """
        waited = 0.0
        with self._changed:
            if not self._room(trial) and self._failure is None:
                began = time.monotonic()
                self._await_room(trial)
                waited = time.monotonic() - began
            if self._room(trial):
                self._pending[trial.number] = trial
                self._changed.notify_all()
            else:
                self._missing.add(trial.number)
        return waited

    @property
    def waiting(self) -> int:
        """Trials not yet written."""
        return len(self._pending)

    @property
    def failure(self) -> str | None:
        """Why nothing is written at the moment; None while all is well."""
        return self._failure

    def close(self, conclusion: Conclusion | None = None, patience_s: float = PATIENCE_S) -> str | None:
        """Write what is queued and the conclusion, and close the sink; say in one line what is missing, if anything is.

        A sink that fails gets its last chances at once. One that writes nothing for `patience_s`, and a second for each
        file of the conclusion, is given up.
        """
        with self._changed:
            self._closing, self._conclusion = True, conclusion
            if conclusion is not None:  # its files are one call, and so one sign of life
                patience_s += len(conclusion.files) + sum(map(len, conclusion.agents.values()))
            self._changed.notify_all()
        written, since = self._written, time.monotonic()
        while self._thread.is_alive() and time.monotonic() - since < patience_s:
            self._thread.join(0.1)
            if self._written > written:
                written, since = self._written, time.monotonic()
        with self._changed:
            self._given_up = True  # should it answer after all, nothing more is written
            hangs = self._thread.is_alive()
            missing = len(self._missing | self._pending.keys())
            reason = self._failure or ("it does not answer" if hangs else self._reason)
        if missing:
            trials, them = ("trial is", "it") if missing == 1 else ("trials are", "them")
            return f"{missing} {trials} not in {self.name}: {reason}; the next run of this study sends {them} again"
        unclosed = self._close_failure or ("it does not answer" if hangs else None)
        return f"all trials are in {self.name}, but it could not be closed: {unclosed}" if unclosed else None

    def _room(self, trial: Trial) -> bool:
        return trial.number in self._pending or len(self._pending) - len(self._backlog) < self._capacity

    def _await_room(self, trial: Trial) -> None:
        """Wait for room while the follower is healthy; one that writes nothing for long is not."""
        while not self._room(trial) and self._failure is None and not self._closing:
            if not self._await_change(self._written):
                self._failure = self._reason = "it does not answer"

    def _await_change(self, written: int) -> bool:
        return self._changed.wait_for(
            lambda: self._written > written or self._failure is not None or self._closing, self._patience_s
        )

    def _work(self) -> None:
        low_priority()
        while (batch := self._next()) is not None:
            began = time.monotonic()
            try:
                if self._sink is None:
                    self._sink = self._connect()
                else:
                    self._sink.write(batch)
            except Exception as error:  # of whatever a sink is made of; it must not stop the search
                self._failed(batch, error)
            else:
                self._succeeded(batch, time.monotonic() - began)
        if self._sink is not None:
            try:
                self._sink.close(self._conclusion)
            except Exception as error:
                self._close_failure = self._said(error)

    def _next(self) -> list[Trial] | None:
        """Wait for something to do; return the trials to be written now: none to connect first, None to end.

        The lowest numbers of an ordered sink; of another the ones that wait longest, those that failed alone last.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._sink is None or self._pending or self._closing)
            if self._given_up or (self._closing and self._sink is not None and not self._pending):
                return None
            if self._sink is None:
                return []
            if self._sink.ordered:
                numbers = heapq.nsmallest(self._size, self._pending)
            else:
                untried = (number for number in self._pending if number not in self._strikes)
                numbers = list(islice(untried, self._size)) or list(islice(self._pending, self._size))
            return [self._pending[number] for number in sorted(numbers)]

    def _succeeded(self, batch: list[Trial], seconds: float) -> None:
        with self._changed:
            for trial in batch:
                self._missing.discard(trial.number)
                if self._pending[trial.number] is trial:  # else there is news of it already
                    self._forget(trial.number)
            self._written += len(batch)
            self._in_a_row, self._failure = 0, None
            self._size = min(2 * self._size, self._batch) if seconds < _SLOW_S else max(self._size // 2, 1)
            self._changed.notify_all()

    def _failed(self, batch: list[Trial], error: Exception) -> None:
        """Note a failure and pause; a batch is tried one by one at once, to find the trial that it is due to."""
        with self._changed:
            self.failures += 1
            self._failure = self._reason = self._said(error)
            self._size = 1
            self._changed.notify_all()
            if len(batch) > 1:
                return
            if batch and self._sink is not None and not self._sink.ordered:
                self._strike(batch[0].number)
            self._in_a_row += 1
            self._given_up |= self._closing and self._in_a_row >= _CHANCES
            delay_s = self._delays_s[min(self._in_a_row, len(self._delays_s)) - 1]
            self._changed.wait_for(lambda: self._closing, delay_s)

    def _strike(self, number: int) -> None:
        """Send a trial that failed alone to the end of the line; set it aside if others were written in between."""
        count, written = self._strikes.get(number, (0, -1))
        count += self._written > written
        trial = self._pending[number]
        self._forget(number)
        if count >= _CHANCES:
            self._missing.add(number)
        else:
            self._pending[number] = trial
            self._strikes[number] = (count, self._written)

    def _forget(self, number: int) -> None:
        del self._pending[number]
        self._backlog.discard(number)
        self._strikes.pop(number, None)

    def _said(self, error: Exception) -> str:
        """Return the first line of an error without passwords."""
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return hide_password(lines[0], self._secrets or None)
