"""From what the command line says to a plan: everything is checked and has its default, and nothing is written."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from jaxdqn import space, tracking
from jaxdqn.space import Space
from jaxdqn.study import SAMPLERS

OFF = "off"
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
    storage: str | None  # an Optuna URL; None: off
    tracking: str | None  # None: off
    artifacts: Path | None  # where MLflow keeps files, if it has no server

    @property
    def log(self) -> Path:
        """The log, which is the truth of the study."""
        return self.output / "study.log"


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
    if settings.sampler not in SAMPLERS:
        raise ValueError(f"--sampler {settings.sampler!r} is not allowed: {', '.join(SAMPLERS)}")
    overrides = {name: getattr(settings, name) for name in ("env", "episodes", "env_steps", "eval_episodes")}
    chosen = space.load(settings.space, **overrides)
    name = settings.study if settings.study is not None else f"{chosen.name}-{chosen.env}"
    if not name.strip() or len(name) > 200 or not name.isprintable():
        raise ValueError(f"--study {name!r} is not allowed: 1 to 200 printable characters")
    output = settings.output or Path("runs") / slug(name)
    _check_writable(output)
    storage = _sqlite_url(output / "study.db") if settings.storage is None else settings.storage
    uri = _sqlite_url(output / "mlflow.db") if settings.tracking is None else settings.tracking
    if uri != OFF:
        tracking.check_uri(uri)
    return Plan(
        settings=settings,
        space=chosen,
        study_name=name,
        output=output,
        storage=None if storage == OFF else storage,
        tracking=None if uri == OFF else uri,
        artifacts=None if uri.startswith("http") else output.absolute() / "mlflow-artifacts",
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


def _sqlite_url(path: Path) -> str:
    return f"sqlite:///{path.absolute().as_posix()}"
