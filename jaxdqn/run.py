"""Run a plan: open its study, start its followers, compile the population, sweep; and take it all apart again."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import jax

from jaxdqn import cost, devices, grid, history, saved_agent, space, study
from jaxdqn.accounts import Accounts
from jaxdqn.config import Config, Layout
from jaxdqn.confirm import Confirmation, Fresh
from jaxdqn.cost import SPEEDS
from jaxdqn.events import Event, TrialEnded, Visited
from jaxdqn.follower import Conclusion
from jaxdqn.lanes import Lanes, Trainer
from jaxdqn.plan import Plan
from jaxdqn.population import Population
from jaxdqn.recording import Recording
from jaxdqn.reporting import report_on
from jaxdqn.stages import Stages
from jaxdqn.storage import StorageSink, check_study, open_storage
from jaxdqn.study import Best, Study
from jaxdqn.sweep import Limits

Show = Callable[[str | Event], None]


class Compiling(Trainer, Protocol):
    """A population that has to be made ready."""

    def compile(self) -> float:
        """Make it ready; return the seconds that took."""


@dataclass(frozen=True)
class Opened:
    """A plan whose devices, log and storage are there."""

    plan: Plan
    config: Config
    layout: Layout
    study: Study
    connect_storage: Callable[[], StorageSink] | None  # None: no storage follows the log


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
    env_steps: int  # by this process
    wall_s: float  # from the process's start
    start_s: float  # from there to the first segment
    compile_s: float
    train_s: float  # from the first segment to the last visit
    drain_s: float  # from there until all is written that follows the log
    compiles_after_start: int
    stopped: bool  # by a signal
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
            "lanes": self.layout.lanes,
            "rows": self.layout.rows,
            "block": self.layout.block,
            "devices": self.layout.devices,
            "study": self.plan.study_name,
            "output": str(self.plan.output),
            "failures": self.failures,
        }


def open_plan(plan: Plan) -> Opened:
    """Lay the lanes out, open the storage that follows, and open or begin the study.

    Raises:
        ValueError: devices, output, log, storage or sampler are not as the settings say.
    """
    settings = plan.settings
    config, platform = space.config(plan.space), devices.platform()
    largest_block = cost.largest_block(config, space.is_mixed(plan.space), platform)
    layout = devices.choose_layout(settings.lanes, settings.devices, largest_block)
    if plan.sampler == "grid":
        plan = _with_grid(plan, config, layout)
    identity = {**plan.space.identity(), "seed": settings.seed, "objective": "mean_return"}
    if plan.sampler == "grid":
        identity["sampler"] = "grid"  # its cells go by the trials' numbers: no other sampler may have taken some
    if settings.storage is None:
        _make_output(plan)
    storage = None if plan.storage is None else open_storage(plan.storage)
    if storage is not None:
        log_is_new = not plan.log.is_file() or plan.log.stat().st_size == 0
        check_study(storage, plan.study_name, log_is_new, plan.output)
    _make_output(plan)
    opened = study.open_study(plan.log, plan.study_name, plan.space, identity, plan.sampler, settings.seed, plan.pruner)

    def connect() -> StorageSink:
        assert storage is not None
        attributes = {study.IDENTITY: json.dumps(identity)}
        directions = ("maximize", "minimize") if plan.space.minimize else ("maximize",)
        return StorageSink(storage, plan.study_name, plan.space.searched, attributes, directions)

    return Opened(plan, config, layout, opened, None if storage is None else connect)


def run(
    opened: Opened,
    show: Show,
    stop: threading.Event | None = None,
    process_started: float | None = None,
    make_population: Callable[[Config, Layout, int], Compiling] = Population,
) -> Result:
    """Run a sweep; `show` is given what to tell the user, and every event.

    Args:
        opened: the plan and its study.
        show: what the user sees.
        stop: set to end the sweep at its next visit.
        process_started: when the command was typed, by `time.monotonic`.
        make_population: what trains; a stand-in takes its place where only the host is looked at.

    Raises:
        LogError: the log can't be written; what was committed before is safe.
    """
    started = process_started or time.monotonic()
    stop = stop or threading.Event()
    plan, layout, settings, trials = opened.plan, opened.layout, opened.plan.settings, opened.study
    if settings.lanes not in (None, layout.lanes):
        show(f"{settings.lanes} lanes do not divide into blocks over {layout.devices} devices: {layout.lanes} are used")
    if trials.repaired:
        show(
            f"the end of the log, cut off while it was written, was moved to {plan.log}.torn ({trials.repaired} bytes)"
        )
    target = None if plan.space.minimize else settings.target_return
    limits = Limits(settings.trials, settings.time_budget, target)
    fresh = Fresh(settings.confirm_top, settings.confirm_seeds, settings.verdict_seeds)
    save_all = settings.save_agents == "all"
    trials.describe(_description(plan), settings.command)
    trials.commit()
    stages = Stages(trials, plan.space, opened.config, limits, fresh, settings.seed, plan.output, save_all)
    compile_s, env_steps, compiles, accounts = 0.0, 0, _CompileCounter(), Accounts()
    start = time.monotonic()
    followers = Recording(plan, opened.config, trials, opened.connect_storage, show)
    try:
        if stages.done:
            show("nothing to train: the study has all that was asked for")
        elif not stop.is_set():
            if plan.sampler == "tpe" and settings.trials and settings.trials <= layout.lanes // plan.space.seeds:
                show(
                    f"{settings.trials} trials train all at once: all of them come from a Sobol sequence, none from TPE"
                )
            show(f"compiling one program for {layout.lanes} lanes on {layout.devices} {devices.platform()} devices")
            population = make_population(opened.config, layout, settings.seed)
            compile_s = population.compile()
            start = time.monotonic()
            lanes = Lanes(population, space.common_period(plan.space), SPEEDS[devices.platform()], accounts)
            with compiles:
                for event in stages.run(lanes, stop.is_set, started):
                    if isinstance(event, Visited):
                        accounts.follower_wait_s += followers.visited(event)
                    elif isinstance(event, TrialEnded):
                        accounts.follower_wait_s += followers.ended(event, trials.trial(event.number))
                    show(event)
                env_steps = lanes.env_steps
    except BaseException:
        trials.close()
        followers.close()
        raise
    ended, stopped = time.monotonic(), stop.is_set() and not stages.done
    try:
        trials.close()
        conclusion, failures = _conclude(plan, stages, show)
    except BaseException:
        followers.close()
        raise
    failures += followers.close(conclusion)
    for failure in failures:
        show(failure)
    return Result(
        plan=plan,
        layout=layout,
        best=trials.best(),
        confirmed=stages.confirmed,
        verdict=stages.verdict,
        counts=trials.counts(),
        accounts=accounts,
        env_steps=env_steps,
        wall_s=time.monotonic() - started,
        start_s=start - started,
        compile_s=compile_s,
        train_s=ended - start,
        drain_s=time.monotonic() - ended,
        compiles_after_start=compiles.count,
        stopped=stopped,
        failures=failures,
    )


def _conclude(plan: Plan, stages: Stages, show: Show) -> tuple[Conclusion, list[str]]:
    """Write the report; return what a sweep has come to, and what could not be written, a line each."""
    confirmed, verdict, files, failures = stages.confirmed, stages.verdict, [], []
    if plan.settings.report and any(stages.study.counts().values()):
        show("writing the report")
        try:
            files = report_on(history.read(plan.output), plan.output)
        except Exception as error:  # of whatever draws it; a report must not cost the result
            failures.append(f"the report could not be written: {error}; scripts/report.py tries again")
    agents: dict[int, list[Path]] = {}
    if confirmed:
        with contextlib.suppress(ValueError, OSError):  # somebody has taken the files away
            saved_agent.mark_winner(plan.output, confirmed[0].number)
            paths = saved_agent.find(plan.output, confirmed[0].number)
            both = [file for path in paths for file in (path, path.with_suffix(".safetensors"))]
            agents[confirmed[0].number] = both
    summaries = [one.summary() for one in confirmed]
    return Conclusion(summaries, verdict.summary() if verdict else None, files, agents), failures


def _with_grid(plan: Plan, config: Config, layout: Layout) -> Plan:
    """Return the plan with no more trials than its grid has cells."""
    settings = plan.settings
    middle = plan.space.hyperparams({name: space.middle(domain) for name, domain in plan.space.searched.items()})
    seconds = cost.agent_s(middle, config, layout, SPEEDS[devices.platform()]) * plan.space.seeds
    cells = grid.check_grid(plan.space.searched, seconds)
    trials = cells if settings.trials is None else min(settings.trials, cells)
    return dataclasses.replace(plan, settings=dataclasses.replace(settings, trials=trials))


def _description(plan: Plan) -> dict[str, Any]:
    """Return what a reader of the log should know of a sweep."""
    settings = plan.settings
    return {
        "space": plan.space.name,
        "solved_return": plan.space.solved_return,
        "confirm_top": settings.confirm_top,
        "confirm_seeds": settings.confirm_seeds,
        "verdict_seeds": settings.verdict_seeds,
    }


def _make_output(plan: Plan) -> None:
    """Make the output directory."""
    try:
        plan.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"output directory {str(plan.output)!r} can't be made: {error}") from error


class _CompileCounter:
    """Counts JAX's own compile events while it is open."""

    def __init__(self) -> None:
        self.count, self._open = 0, False

    def __enter__(self) -> _CompileCounter:
        self._open = True
        jax.monitoring.register_event_duration_secs_listener(self._listen)
        return self

    def _listen(self, event: str, duration_secs: float, **_: Any) -> None:
        if self._open and event == "/jax/core/compile/backend_compile_duration":
            self.count += 1

    def __exit__(self, *_: object) -> None:
        self._open = False
