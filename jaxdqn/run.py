"""Put a sweep together from its settings: space, devices, study, tracker, population; and take it apart again.

Everything is checked before anything is written.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from jaxdqn import devices, space, study, tracking
from jaxdqn.config import Config, Layout
from jaxdqn.cost import SPEEDS
from jaxdqn.population import Population
from jaxdqn.space import Space
from jaxdqn.study import Best, Study
from jaxdqn.sweep import Agent, Event, Limits, TrialEnded, Visited, satisfied, sweep
from jaxdqn.tracking import Metric, Tracker, TrialRecord

MAX_SEED = 2**31 - 1


@dataclass(frozen=True)
class Settings:
    """What the command line says."""

    space: str = "default"
    trials: int | None = 64
    time_budget: float | None = None
    target_return: float | None = None
    seeds: int = 1
    episodes: int | None = None
    env_steps: int | None = None
    eval_episodes: int | None = None
    lanes: int | None = None
    devices: int | None = None
    sampler: str = "tpe"
    seed: int = 0
    output: Path | None = None
    study: str | None = None
    storage: str | None = None
    tracking: str | None = None
    env: str | None = None


@dataclass(frozen=True)
class Plan:
    """A sweep whose settings are all in order."""

    settings: Settings
    space: Space
    study_name: str
    output: Path
    storage: str
    tracking: str | None  # None: off
    artifacts: Path | None  # where MLflow keeps files, if it has no server


@dataclass(frozen=True)
class Result:
    """How a sweep ended."""

    plan: Plan
    layout: Layout
    best: Best | None
    counts: dict[str, int]
    env_steps: int  # by this process
    updates: int
    wall_s: float  # from the process's start
    start_s: float  # from there to the first segment
    compile_s: float
    train_s: float  # from the first segment to the last trial told
    compiles_after_start: int
    stopped: bool  # by a signal
    tracking_failure: str | None

    def hyperparams(self) -> dict[str, Any]:
        """Return all hyperparameters of the best trial, by name."""
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
            "trials": self.counts,
            "env_steps": self.env_steps,
            "updates": self.updates,
            "wall_s": round(self.wall_s, 3),
            "compile_s": round(self.compile_s, 3),
            "train_s": round(self.train_s, 3),
            "start_s": round(self.start_s, 3),
            "compiles_after_start": self.compiles_after_start,
            "lanes": self.layout.lanes,
            "rows": self.layout.rows,
            "block": self.layout.block,
            "devices": self.layout.devices,
            "study": self.plan.study_name,
            "output": str(self.plan.output),
        }


def plan(settings: Settings) -> Plan:
    """Check all settings and fill in the defaults. Writes nothing.

    Raises:
        ValueError: one is not allowed; it is named, with what is.
    """
    for name, low, high in (("trials", 1, 10**7), ("seeds", 1, 10_000), ("seed", 0, MAX_SEED)):
        value = getattr(settings, name)
        if value is not None and not low <= value <= high:
            raise ValueError(f"--{name} {value} is not allowed: int in [{low}, {high}]")
    if settings.time_budget is not None and not 0 < settings.time_budget < float("inf"):
        raise ValueError(f"--time-budget {settings.time_budget:g} is not allowed: seconds above 0")
    if settings.target_return is not None and not abs(settings.target_return) < float("inf"):
        raise ValueError(f"--target-return {settings.target_return:g} is not allowed: a finite number")
    if settings.sampler not in study.SAMPLERS:
        raise ValueError(f"--sampler {settings.sampler!r} is not allowed: {' or '.join(study.SAMPLERS)}")
    overrides = {name: getattr(settings, name) for name in ("env", "episodes", "env_steps", "eval_episodes")}
    chosen = space.load(settings.space, **overrides)
    name = settings.study if settings.study is not None else f"{chosen.name}-{chosen.env}"
    if not name.strip() or len(name) > 200 or not name.isprintable():
        raise ValueError(f"--study {name!r} is not allowed: 1 to 200 printable characters")
    output = settings.output or Path("runs") / slug(name)
    _check_writable(output)
    tracking_uri = (
        settings.tracking if settings.tracking is not None else study.sqlite_url(output.absolute() / "mlflow.db")
    )
    if tracking_uri != "off":
        tracking.check_uri(tracking_uri)
    return Plan(
        settings=settings,
        space=chosen,
        study_name=name,
        output=output,
        storage=settings.storage if settings.storage is not None else study.sqlite_url(output.absolute() / "study.db"),
        tracking=None if tracking_uri == "off" else tracking_uri,
        artifacts=None if tracking_uri.startswith("http") else output.absolute() / "mlflow-artifacts",
    )


@dataclass(frozen=True)
class Opened:
    """A plan whose devices and study are there: nothing can be refused any more."""

    plan: Plan
    layout: Layout
    study: Study


def open_plan(plan: Plan) -> Opened:
    """Lay the lanes out and open or create the study.

    Raises:
        ValueError: devices, output, storage or study are not as the settings say.
    """
    layout = devices.choose_layout(plan.settings.lanes, plan.settings.devices)
    return Opened(plan, layout, _open_study(plan))


def run(
    opened: Opened,
    show: Callable[[str | Event], None],
    stop: threading.Event | None = None,
    process_started: float | None = None,
) -> Result:
    """Run a sweep; `show` is given what to tell the user, and every event."""
    started = process_started or time.monotonic()
    stop = stop or threading.Event()
    plan, layout, settings = opened.plan, opened.layout, opened.plan.settings
    if settings.lanes not in (None, layout.lanes):
        show(f"{settings.lanes} lanes do not divide into blocks over {layout.devices} devices: {layout.lanes} are used")
    limits = Limits(settings.trials, settings.time_budget, settings.target_return)
    compile_s, env_steps, updates, compiles = 0.0, 0, 0, _CompileCounter()
    failure = None
    start = time.monotonic()
    tracker = _tracker(plan, opened.study)
    try:
        if satisfied(opened.study, limits):
            show("nothing to train: the study has all that was asked for")
        elif not stop.is_set():
            show(f"compiling one program for {layout.lanes} lanes on {layout.devices} {devices.platform()} devices")
            config = space.config(plan.space)
            population = Population(config, layout, settings.seed)
            compile_s = population.compile()
            start = time.monotonic()
            speed, seeds = SPEEDS[devices.platform()], settings.seeds
            with compiles:
                for event in sweep(
                    population, opened.study, plan.space, limits, seeds, speed, stopped=stop.is_set, started=started
                ):
                    if isinstance(event, Visited):
                        env_steps, updates = event.env_steps, event.updates
                    elif tracker:
                        tracker.record(_record(event, config))
                    show(event)
    finally:
        train_s = time.monotonic() - start
        if tracker:
            if tracker.waiting:
                show(f"writing {tracker.waiting} trials to MLflow")
            failure = tracker.close()
    return Result(
        plan=plan,
        layout=layout,
        best=opened.study.best(),
        counts=opened.study.counts(),
        env_steps=env_steps,
        updates=updates,
        wall_s=time.monotonic() - started,
        start_s=start - started,
        compile_s=compile_s,
        train_s=train_s,
        compiles_after_start=compiles.count,
        stopped=stop.is_set(),
        tracking_failure=failure,
    )


def slug(name: str) -> str:
    """Return a directory name for a study name: itself where that is safe, else a cleaned one with a hash."""
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{re.sub(r'[^A-Za-z0-9_-]+', '-', name).strip('-')[:60] or 'study'}-{digest}"


def _check_writable(output: Path) -> None:
    there = output.absolute()
    while not os.path.lexists(there):
        there = there.parent
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(f"output directory {str(output)!r} can't be written: {str(there)!r} is no writable directory")


def _open_study(plan: Plan) -> Study:
    """Open the study; the output directory is made only when nothing else can be refused."""
    settings = plan.settings
    identity = {**plan.space.identity(), "seeds": settings.seeds, "seed": settings.seed, "objective": "mean_return"}
    own = settings.storage is None

    def make_output() -> None:
        try:
            plan.output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"output directory {str(plan.output)!r} can't be made: {error}") from error

    if own:
        make_output()
    opened = study.open_study(plan.storage, plan.study_name, plan.space, identity, settings.sampler, settings.seed)
    make_output()
    return opened


def _tracker(plan: Plan, study: Study) -> Tracker | None:
    """Start mirroring to MLflow, beginning with what it may have missed of earlier sweeps."""
    if plan.tracking is None:
        return None
    tags = {"jaxdqn.space": plan.space.name, "jaxdqn.env": plan.space.env, "jaxdqn.seed": str(plan.settings.seed)}
    tracker = Tracker(plan.tracking, plan.study_name, plan.artifacts, tags)
    for trial in study.finished():
        returns = trial.attributes.get("returns", [])
        metrics = {f"return_seed_{i}": x for i, x in enumerate(returns) if x is not None}
        known = {"mean_return": trial.value, "std_return": trial.attributes.get("std_return")}
        metrics |= {name: value for name, value in known.items() if value is not None}
        whole = set(trial.params) == set(plan.space.searched)
        hyperparams = plan.space.hyperparams(trial.params)._asdict() if whole else trial.params
        tracker.record(TrialRecord(trial.number, trial.state, hyperparams, metrics, []))
    return tracker


def _record(event: TrialEnded, config: Config) -> TrialRecord:
    metrics = {"mean_return": event.mean_return, "std_return": event.std_return}
    curve: list[Metric] = []
    for agent in event.agents:
        seed = "" if len(event.agents) == 1 else f"_seed_{agent.seed_index}"
        metrics[f"return_seed_{agent.seed_index}"] = agent.mean_return
        curve += _curve(agent, seed, config)
    return TrialRecord(event.number, event.state, event.hyperparams._asdict(), metrics, curve)


def _curve(agent: Agent, seed: str, config: Config) -> list[Metric]:
    points = [
        Metric(f"{name}{seed}", value, point.step)
        for point in agent.curve
        for name, value in (
            ("training_return", point.mean_return),
            ("loss", point.loss),
            ("epsilon", point.epsilon),
        )
    ]
    rungs = zip(config.rungs, agent.validation, strict=False)
    return points + [Metric(f"validation_return{seed}", float(value), rung) for rung, value in rungs]


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
