"""What a sweep shows on the terminal: a live table, or plain lines where the output is no terminal."""

from __future__ import annotations

import shlex
import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from jaxdqn.plan import Plan
from jaxdqn.redact import hide_password
from jaxdqn.run import Result
from jaxdqn.sweep import Event, TrialEnded, Visited

_PLAIN_EVERY_S = 10.0


class SweepConsole:
    """Shows the events of a sweep."""

    def __init__(self, console: Console, plan: Plan) -> None:
        """Write to `console`."""
        self.console, self.plan = console, plan
        self._live: Live | None = None
        self._begun = False
        self._started = self._last_line = time.monotonic()
        self._before: int | None = None  # trials finished when the training began

    def __enter__(self) -> SweepConsole:
        """Wait for the first event: what is refused before it stands alone."""
        return self

    def _begin(self) -> None:
        self._begun = True
        plan = self.plan
        budget = [
            f"{n:,} {unit}" for n, unit in ((plan.space.episodes, "episodes"), (plan.space.env_steps, "steps")) if n
        ]
        searched = f"{len(plan.space.searched)} hyperparameters searched"
        self._print(
            f"[bold]{escape(plan.study_name)}[/]: {escape(plan.space.env)}, {searched}, {' or '.join(budget)} an agent"
        )
        if self.console.is_terminal:
            self._live = Live(console=self.console, refresh_per_second=4, transient=True)
            self._live.start()

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        """Take the live table away."""
        if self._live:
            self._live.stop()

    def show(self, event: str | Event) -> None:
        """Show a message or an event."""
        if not self._begun:
            self._begin()
        if isinstance(event, str):
            self._print(escape(event))
        elif isinstance(event, TrialEnded):
            if event.is_best:
                self._print(f"trial {event.number}: mean return {event.mean_return:.1f}, [bold]the best so far[/]")
            elif event.state == "failed":
                self._print(f"trial {event.number} diverged")
        else:
            self._visited(event)

    def _visited(self, event: Visited) -> None:
        now = time.monotonic()
        if self._before is None:
            self._before = sum(event.counts.values()) - event.counts["running"]
        if self._live:
            self._live.update(self._table(event, now))
        elif now - self._last_line >= _PLAIN_EVERY_S:
            self._last_line = now
            self._print(", ".join(f"{name} {value}" for name, value in self._figures(event, now).items()))

    def _figures(self, event: Visited, now: float) -> dict[str, str]:
        elapsed = max(event.seconds, 1e-9)
        done = sum(event.counts.values()) - event.counts["running"]
        trials = self.plan.settings.trials
        figures = {
            "trials done": f"{done}" + (f" of {trials}" if trials else ""),
            "running": str(event.counts["running"]),
            "failed": str(event.counts["failed"]),
            "lanes busy": str(event.lanes_busy),
            "best": f"{event.best.value:.1f} (trial {event.best.number})" if event.best else "none yet",
            "steps/s": f"{event.env_steps / elapsed:,.0f}",
            "updates/s": f"{event.updates / elapsed:,.0f}",
            "elapsed": _clock(now - self._started),
        }
        if trials and self._before is not None and done > self._before:
            figures["left"] = "about " + _clock(elapsed * max(trials - done, 0) / (done - self._before))
        return figures

    def _table(self, event: Visited, now: float) -> Table:
        table = Table(show_header=False, box=None, pad_edge=False)
        for name, value in self._figures(event, now).items():
            table.add_row(f"[dim]{name}[/]", escape(value))
        return table

    def _print(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True)


def show_result(console: Console, result: Result, resume: str | None) -> None:
    """Show how a sweep ended and what to type next."""

    def say(text: str = "") -> None:
        console.print(text, highlight=False, soft_wrap=True)

    counts = ", ".join(f"{n} {state}" for state, n in result.counts.items() if n)
    speed = (
        f"{result.accounts.updates / max(result.train_s, 1e-9):,.0f} updates/s"
        if result.accounts.updates
        else "nothing to train"
    )
    say(f"{counts or 'no trial'} in {_clock(result.wall_s)} ({result.compile_s:.0f} s compiling, {speed})")
    if result.best is None:
        say("[bold]no trial finished yet[/]")
    else:
        say(
            f"[bold]best: trial {result.best.number}, mean return {result.best.value:.1f}[/] over "
            f"{result.plan.space.eval_episodes} greedy episodes of {result.plan.settings.seeds} agent(s)"
        )
        table = Table(show_header=False, box=None, pad_edge=False)
        for name, value in result.hyperparams().items():
            searched = name in result.plan.space.searched
            table.add_row(
                f"  {name}" if searched else f"[dim]  {name}[/]", _number(value), "" if searched else "[dim]fixed[/]"
            )
        console.print(table)
    say()
    if result.plan.tracking and not result.plan.tracking.startswith("http"):
        say(f"look at all trials:   mlflow ui --backend-store-uri {escape(shell_word(result.plan.tracking))}")
    if resume is None:
        say("every cell of the grid was trained")
        return
    goes_on = "continue this study:" if result.stopped or result.counts["running"] else "search on:          "
    say(f"{goes_on} {escape(resume)}")


def shell_word(text: Any) -> str:
    """Quote a word for a shell, its password hidden."""
    return shlex.quote(hide_password(str(text)))


def _number(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
