"""What a sweep shows on the terminal: a live table, or plain lines where the output is no terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from jaxdqn.command_line import shell_word
from jaxdqn.confirm import Confirmation
from jaxdqn.evaluate import Phase
from jaxdqn.events import Differing, Event, Resumed, Retrained, TrialEnded, Visited
from jaxdqn.plan import Plan
from jaxdqn.redact import hide_password
from jaxdqn.result import Result

_PLAIN_EVERY_S = 10.0


class SweepConsole:
    """Shows the events of a sweep."""

    def __init__(
        self,
        console: Console,
        title: str,
        trials: int | None = None,
        draw: Callable[[dict[str, str]], None] | None = None,
    ) -> None:
        """Write to `console`; `trials` is how many there will be, if that is known; `draw` shows figures elsewhere."""
        self.console, self.title, self.trials, self._draw = console, title, trials, draw
        self._live: Live | None = None
        self._begun = False
        self._started = self._last_line = time.monotonic()
        self._before: int | None = None  # trials finished when the training began
        self._phase: Phase | None = None  # of the agents that are trained anew

    def __enter__(self) -> SweepConsole:
        """Wait for the first event: what is refused before it stands alone."""
        return self

    def _begin(self) -> None:
        self._begun = True
        self._print(self.title)
        if self.console.is_terminal and self._draw is None:
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
            self._print(f"[bold red]{escape(event)}[/]" if event.startswith("warning: ") else escape(event))
        elif isinstance(event, TrialEnded):
            if event.is_best:
                self._print(f"trial {event.number}: mean return {event.mean_return:.1f}, [bold]the best so far[/]")
            elif event.state == "failed":
                self._print(f"trial {event.number} diverged")
        elif isinstance(event, Retrained):
            self._retrained(event)
        elif isinstance(event, Resumed):
            self._resumed(event)
        elif isinstance(event, Differing):
            what = "1 validation" if event.count == 1 else f"{event.count} validations"
            self._print(
                f"[bold red]warning: {what} of agents brought back came out differently; the recorded ones stand[/]"
            )
        else:
            now = time.monotonic()
            if self._before is None:
                self._before = sum(event.counts.values()) - event.counts["running"]
            self._progress(self._figures(event, now), now)

    def _resumed(self, event: Resumed) -> None:
        agents = "1 agent" if event.num_agents == 1 else f"{event.num_agents} agents"
        if event.changed:
            what = escape(", ".join(event.changed))
            self._print(f"[bold]results may have other bits from here on[/] ({what})")
            self._print(f"finished trials stand as they are; {agents} in flight start over")
        elif not event.over:
            figures = {"brought back": f"{agents} in flight", "segments": f"{event.done} of {event.total}"}
            self._progress(figures, time.monotonic())
        elif event.num_agents:
            self._print(f"{agents} in flight brought back to where they were in {event.seconds:.1f} s")

    def _retrained(self, event: Retrained) -> None:
        if event.phase is not self._phase:
            self._phase = event.phase
            what = {
                Phase.CONFIRM: "confirming: the best trials on fresh seeds",
                Phase.VERDICT: "verdict: the winner on seeds that chose nothing",
                Phase.RETRAIN: "training on fresh seeds",
            }[event.phase]
            self._print(f"{what}, {event.total} agents")
        now, elapsed = time.monotonic(), max(event.seconds, 1e-9)
        figures = {
            "agents done": f"{event.done} of {event.total}",
            "lanes busy": str(event.lanes_busy),
            "steps/s": f"{event.env_steps / elapsed:,.0f}",
            "updates/s": f"{event.updates / elapsed:,.0f}",
            "elapsed": _clock(now - self._started),
        }
        self._progress(figures, now)

    def _progress(self, figures: dict[str, str], now: float) -> None:
        if self._draw:
            self._draw(figures)
        elif self._live:
            table = Table(show_header=False, box=None, pad_edge=False)
            for name, value in figures.items():
                table.add_row(f"[dim]{name}[/]", escape(value))
            self._live.update(table)
        elif now - self._last_line >= _PLAIN_EVERY_S:
            self._last_line = now
            self._print(", ".join(f"{name} {value}" for name, value in figures.items()))

    def _figures(self, event: Visited, now: float) -> dict[str, str]:
        elapsed = max(event.seconds, 1e-9)
        done = sum(event.counts.values()) - event.counts["running"]
        trials = self.trials
        figures = {
            "trials done": f"{done}" + (f" of {trials}" if trials else ""),
            "running": str(event.counts["running"]),
            "pruned": str(event.counts["pruned"]),
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

    def _print(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True)


def title_of(plan: Plan) -> str:
    """Return what a sweep is about, in a line."""
    budget = [f"{n:,} {unit}" for n, unit in ((plan.space.episodes, "episodes"), (plan.space.env_steps, "steps")) if n]
    searched = f"{len(plan.space.searched)} hyperparameters searched"
    return f"[bold]{escape(plan.study_name)}[/]: {escape(plan.space.env)}, {searched}, {' or '.join(budget)} an agent"


def show_outcome(console: Console, result: Result) -> None:
    """Show how a sweep ended."""

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
    elif result.confirmed:
        show_confirmed(console, result.confirmed, result.plan.space.solved, bool(result.plan.space.minimize))
        show_hyperparams(console, result.confirmed[0].hyperparameters, set(result.plan.space.searched))
        say()
        if result.verdict is None:
            say("no verdict yet: the seeds that follow have chosen the winner, so its figure is optimistic")
        show_verdict(console, result.verdict or result.confirmed[0], result.plan.space.solved)
    else:
        say(
            f"[bold]best: trial {result.best.number}, mean return {result.best.value:.1f}[/]{_size(result)} over "
            f"{result.plan.space.eval_episodes} greedy episodes of {result.plan.space.seeds} agent(s)"
        )
        show_hyperparams(console, result.hyperparams(), set(result.plan.space.searched))


def show_result(console: Console, result: Result, resume: str | None, lacks: Sequence[str] = ()) -> None:
    """Show how a sweep ended and what to type next; `lacks` says what that command needs from the environment."""

    def say(text: str = "") -> None:
        console.print(text, highlight=False, soft_wrap=True)

    show_outcome(console, result)
    say()
    output = result.plan.output
    if result.plan.settings.report and (output / "report.html").is_file():
        say(f"look at the report:  {escape(str(output / 'report.html'))}")
    if result.confirmed:
        say(f"let the winner play: python scripts/evaluate.py --output {escape(shell_word(output))}")
    if result.plan.tracking and not result.plan.tracking.startswith("http"):
        uri = result.plan.tracking
        shown = shell_word(uri) if hide_password(uri) == uri else '"$JAXDQN_TRACKING"'
        say(f"look at all trials:  mlflow ui --backend-store-uri {escape(shown)}")
    if resume is None:
        say("every cell of the grid was trained")
        return
    goes_on = "search on:          " if result.done and not result.counts["running"] else "continue this study:"
    say(f"{goes_on} {escape(resume)}")
    for line in lacks:
        say(f"{'':20} {line}")


def show_hyperparams(console: Console, hyperparams: dict[str, Any], searched: set[str]) -> None:
    """Show hyperparameters, those that were searched brought out."""
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in hyperparams.items():
        known = name in searched
        table.add_row(f"  {name}" if known else f"[dim]  {name}[/]", _number(value), "" if known else "[dim]fixed[/]")
    console.print(table)


def show_confirmed(
    console: Console, confirmed: list[Confirmation], solved_return: float | None, sizes: bool = False
) -> None:
    """Show trials on fresh seeds, the winner first; the `sizes` of their networks too."""
    table = Table(box=None, pad_edge=False)
    solves = [] if solved_return is None else [f"solve (≥ {solved_return:g})"]
    parameters = ["params"] if sizes else []
    for name in ("trial", *parameters, *solves, "mean return", "worst seed", "in search", "steps/agent"):
        table.add_column(name, justify="right")
    for one in confirmed:
        table.add_row(
            str(one.number),
            *([f"{one.num_parameters:,}"] if sizes else []),
            *([] if one.solved_share is None else [f"{round(one.solved_share * one.seeds)} of {one.seeds}"]),
            _return(one.mean_return),
            _return(one.worst_seed_return),
            _return(one.search_return),
            f"{sum(one.env_steps) / one.seeds:,.0f}",
        )
    console.print(table)


def show_verdict(console: Console, one: Confirmation, solved_return: float | None) -> None:
    """Show what hyperparameters are worth on fresh seeds, with intervals."""
    solved = ""
    if one.solved_share is not None and one.solved_interval is not None:
        low, high = (f"{100 * end:.0f}" for end in one.solved_interval)
        count = f"{round(one.solved_share * one.seeds)} of {one.seeds}"
        solved = f"{count} fresh seeds solve it (mean return ≥ {solved_return:g}): {low}–{high} % of all, at 95 %; "
    mean = _return(one.mean_return)
    if one.mean_interval is not None and one.mean_interval.low < one.mean_interval.high:
        mean += f" ({one.mean_interval.low:.1f}–{one.mean_interval.high:.1f})"
    text = f"[bold]trial {one.number}:[/] {solved}mean return {mean}, worst seed {_return(one.worst_seed_return)}"
    diverged = sum(value is None for value in one.returns)
    if diverged:
        text += f" (of those that did not diverge; {diverged} did)"
    console.print(text, highlight=False, soft_wrap=True)


def _size(result: Result) -> str:
    """Say how many parameters the best trial has, where they are to be few."""
    space, best = result.plan.space, result.best
    return f" with {space.num_parameters(best.params):,} parameters" if space.minimize and best else ""


def _return(value: float | None) -> str:
    return "none" if value is None else f"{value:.1f}"


def _number(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
