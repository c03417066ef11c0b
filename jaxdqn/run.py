"""Run a plan that is open: compile the population, sweep, let everything follow; and take it all apart again."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jaxdqn import agent_directory, devices, history, snapshot, space_config
from jaxdqn.accounts import Accounts
from jaxdqn.compiling import CompileCounter, MakePopulation, compiled
from jaxdqn.config import Layout
from jaxdqn.confirm import Fresh
from jaxdqn.events import Event, TrialEnded, Visited
from jaxdqn.follower import PATIENCE_S, Conclusion
from jaxdqn.lanes import Lanes
from jaxdqn.opening import Opened
from jaxdqn.plan import AUTO, Plan
from jaxdqn.population import Population
from jaxdqn.recording import Recording
from jaxdqn.result import Result
from jaxdqn.snapshot import Snapshots
from jaxdqn.stages import Stages
from jaxdqn.trials import Limits

Show = Callable[[str | Event], None]
_SNAPSHOTS = "snapshots"
STOPPED_PATIENCE_S = 2.0  # that each follower gets when a signal has ended the sweep; the next run sends it the rest


def run(
    opened: Opened,
    show: Show,
    stop: threading.Event | None = None,
    process_started: float | None = None,
    make_population: MakePopulation = Population,
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
        ValueError: not even a lane a device fits into the devices' memory.
    """
    started = process_started or time.monotonic()
    stop = stop or threading.Event()
    plan, trials, stages, accounts = opened.plan, opened.study, _stages(opened), Accounts()
    followers: Recording | None = None
    try:
        _announce(opened, show)
        trials.describe(_description(plan), plan.settings.command)
        trials.commit()
        followers = Recording(plan, opened.config, trials, opened.connect_storage, show)
        trained = _Trained(opened.layout, time.monotonic())
        if stages.done:
            show("nothing to train: the study has all that was asked for")
            snapshot.remove(plan.output / _SNAPSHOTS)  # a process that was killed may have left them
        elif not stop.is_set():
            trained = _train(opened, stages, followers, accounts, make_population, show, stop, started)
        ended, done = time.monotonic(), stages.done
        stopped = stop.is_set() and not done
        trials.close()
        conclusion, failures = _conclude(plan, stages, show, report=plan.settings.report and not stopped)
    except BaseException:
        trials.close(commit=False)  # a visit is in the log whole or not at all
        if followers:
            followers.close(patience_s=STOPPED_PATIENCE_S)
        raise
    failures += followers.close(conclusion, STOPPED_PATIENCE_S if stopped else PATIENCE_S)
    for failure in failures:
        show(failure)
    return Result(
        plan=plan,
        layout=trained.layout,
        best=trials.best(),
        confirmed=stages.confirmed,
        verdict=stages.verdict,
        counts=trials.counts(),
        accounts=accounts,
        snapshots=trained.snapshots.summary() if trained.snapshots else {},
        env_steps=trained.env_steps,
        wall_s=time.monotonic() - started,
        start_s=trained.start - started,
        compile_s=trained.compile_s,
        train_s=ended - trained.start,
        drain_s=time.monotonic() - ended,
        compiles_after_start=trained.compiles,
        stopped=stopped,
        done=done,
        failures=failures,
    )


def _announce(opened: Opened, show: Show) -> None:
    """Say what a user would not expect."""
    settings, layout, trials = opened.plan.settings, opened.layout, opened.study
    if ignored := devices.ignored_gpu():
        show(f"warning: {ignored}")
    if settings.lanes not in (None, AUTO, layout.lanes):
        show(f"{settings.lanes} lanes do not divide into blocks over {layout.devices} devices: {layout.lanes} are used")
    if opened.restored:
        show(opened.restored)
    if trials.repaired:
        torn = f"{opened.plan.log}.torn ({trials.repaired} bytes)"
        show(f"the end of the log, cut off while it was written, was moved to {torn}")


@dataclass
class _Trained:
    """What training took."""

    layout: Layout
    start: float  # when the first segment began, by `time.monotonic`
    compile_s: float = 0.0
    env_steps: int = 0
    compiles: int = 0  # after the start
    snapshots: Snapshots | None = None


def _train(
    opened: Opened,
    stages: Stages,
    followers: Recording,
    accounts: Accounts,
    make_population: MakePopulation,
    show: Show,
    stop: threading.Event,
    started: float,
) -> _Trained:
    """Compile the population and do what is left; everything that happens is shown and followed."""
    plan, settings, trials = opened.plan, opened.plan.settings, opened.study
    if plan.sampler == "tpe" and settings.trials and settings.trials <= opened.layout.lanes // plan.space.seeds:
        show(f"{settings.trials} trials train all at once: all of them come from a Sobol sequence, none from TPE")
    population, compile_s = compiled(opened, make_population, show)
    snapshots: Snapshots | None = None
    if settings.snapshot_every:
        owner = {"log": trials.log_id, **population.fingerprint, **asdict(population.layout)}
        limit = round(settings.snapshot_mib * 2**20)
        snapshots = Snapshots(plan.output / _SNAPSHOTS, owner, settings.snapshot_every, limit)
    compiles = CompileCounter()
    lanes = Lanes(population, space_config.common_period(plan.space), accounts)
    with compiles:
        for event in stages.run(lanes, stop.is_set, started, snapshots):
            if isinstance(event, Visited):
                followers.begun()
                accounts.follower_wait_s += followers.visited(event)
            elif isinstance(event, TrialEnded):
                accounts.follower_wait_s += followers.ended(event, trials.trial(event.number))
            show(event)
            for message in snapshots.news() if snapshots else []:
                show(message)
    start = lanes.began or time.monotonic()
    return _Trained(population.layout, start, compile_s, lanes.env_steps, compiles.count, snapshots)


def _stages(opened: Opened) -> Stages:
    """Return what a plan wants to be done."""
    plan, settings = opened.plan, opened.plan.settings
    limits = Limits(settings.trials, None if plan.space.minimize else settings.target_return)
    fresh = Fresh(settings.confirm_top, settings.confirm_seeds, settings.verdict_seeds)
    return Stages(
        opened.study,
        plan.space,
        opened.config,
        limits,
        fresh,
        settings.seed,
        plan.output,
        save_all=settings.save_agents == "all",
        budget_s=settings.time_budget,
    )


def _conclude(plan: Plan, stages: Stages, show: Show, report: bool) -> tuple[Conclusion, list[str]]:
    """Write the report, if wanted; return what a sweep has come to, and what could not be written, a line each."""
    confirmed, verdict, files, failures = stages.confirmed, stages.verdict, [], []
    if report and any(stages.study.counts().values()):
        from jaxdqn.reporting import report_on  # Optuna's figures, plotly, matplotlib

        show("writing the report")
        try:
            files = report_on(history.read(plan.output), plan.output)
        except Exception as error:  # of whatever draws it; a report must not cost the result
            failures.append(f"the report could not be written: {error}; scripts/report.py tries again")
    agents: dict[int, list[Path]] = {}
    if confirmed:
        with contextlib.suppress(ValueError, OSError):  # somebody has taken the files away
            agent_directory.mark_winner(plan.output, confirmed[0].number)
            paths = agent_directory.find(plan.output, confirmed[0].number)
            both = [file for path in paths for file in (path, path.with_suffix(".safetensors"))]
            agents[confirmed[0].number] = both
    summaries = [one.summary() for one in confirmed]
    return Conclusion(summaries, verdict.summary() if verdict else None, files, agents), failures


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
