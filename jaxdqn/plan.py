"""From what the command line says to a plan: everything is checked and has its default, and nothing is written."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jaxdqn import backup, restoring, space, tracking
from jaxdqn.pruner import PRUNERS
from jaxdqn.redact import short
from jaxdqn.samplers import SAMPLERS
from jaxdqn.space import Space

OFF = "off"
AUTO: Literal["auto"] = "auto"
DEFAULT_PRUNER, DEFAULT_TRIALS = "halving", 64
SAVE_AGENTS = ("confirmed", "all")
MAX_SEED = 2**31 - 1
_UNSAFE = re.compile(r"\.$|^(?:con|prn|aux|nul|com\d|lpt\d)(?:\.|$)", re.IGNORECASE)  # on Windows
_COUNTS = (
    ("trials", 1, 10**7),
    ("seeds", 1, 10_000),
    ("seed", 0, MAX_SEED),
    ("confirm_top", 0, 1_000),
    ("confirm_seeds", 1, 10_000),
    ("verdict_seeds", 0, 10_000),
)


@dataclass(frozen=True)
class Settings:
    """What the command line says."""

    space: str = "default"
    trials: int | None = DEFAULT_TRIALS
    time_budget: float | None = None
    target_return: float | None = None
    seeds: int | None = None  # None: the space's
    episodes: int | None = None
    env_steps: int | None = None
    eval_episodes: int | None = None
    lanes: int | Literal["auto"] | None = None  # None: the computed number; AUTO: as many as pay here
    devices: int | None = None
    sampler: str | None = None  # None: tpe, with two objectives optuna-tpe
    pruner: str | None = None  # None: DEFAULT_PRUNER where there are rungs
    confirm_top: int = 3
    confirm_seeds: int = 16
    verdict_seeds: int = 16
    save_agents: str = "confirmed"
    seed: int = 0
    output: Path | None = None
    study: str | None = None
    storage: str | None = None
    tracking: str | None = None
    env: str | None = None
    report: bool = True
    snapshot_every: float = 60.0  # seconds; 0: never
    snapshot_mib: float = 256.0
    backup_to: Path | None = None
    backup_every: float = backup.EVERY_S
    cache: bool = True  # keep compiled programs for the next start
    command: str = ""  # as it was typed


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
    def pruner(self) -> str:
        """The pruner chosen, or the default one where trials can be judged by one objective before their end."""
        judged = self.space.rungs and not self.space.minimize
        return self.settings.pruner or (DEFAULT_PRUNER if judged else "none")

    @property
    def sampler(self) -> str:
        """The sampler chosen, or the default one."""
        return self.settings.sampler or ("optuna-tpe" if self.space.minimize else "tpe")

    @property
    def log(self) -> Path:
        """The log, which is the truth of the study."""
        return self.output / "study.log"


def plan(settings: Settings) -> Plan:
    """Check all settings and fill in the defaults. Writes nothing.

    Raises:
        ValueError: one is not allowed; it is named, with what is.
    """
    for name, low, high in _COUNTS:
        value = getattr(settings, name)
        if value is not None and not low <= value <= high:
            raise ValueError(f"--{name.replace('_', '-')} {value} is not allowed: int in [{low}, {high}]")
    if settings.time_budget is not None and not 0 < settings.time_budget < float("inf"):
        raise ValueError(f"--time-budget {settings.time_budget:g} is not allowed: seconds above 0")
    if settings.target_return is not None and not abs(settings.target_return) < float("inf"):
        raise ValueError(f"--target-return {settings.target_return:g} is not allowed: a finite number")
    for name in ("snapshot_every", "snapshot_mib"):
        value = getattr(settings, name)
        if not 0 <= value < float("inf"):
            raise ValueError(f"--{name.replace('_', '-')} {value:g} is not allowed: a number, 0 or above")
    if settings.sampler is not None and settings.sampler not in SAMPLERS:
        raise ValueError(f"--sampler {short(settings.sampler)} is not allowed: {', '.join(SAMPLERS)}")
    if settings.pruner is not None and settings.pruner not in PRUNERS:
        raise ValueError(f"--pruner {short(settings.pruner)} is not allowed: {', '.join(PRUNERS)}")
    if settings.save_agents not in SAVE_AGENTS:
        raise ValueError(f"--save-agents {short(settings.save_agents)} is not allowed: {', '.join(SAVE_AGENTS)}")
    overrides = {name: getattr(settings, name) for name in ("env", "episodes", "env_steps", "eval_episodes", "seeds")}
    chosen = space.load(settings.space, **overrides)
    if chosen.minimize:
        if settings.sampler in ("tpe", "sobol"):
            raise ValueError(f"--sampler {settings.sampler} has one objective, here are two: optuna-tpe, random, grid")
        if settings.pruner not in (None, "none"):
            raise ValueError(f"--pruner {settings.pruner} judges by one objective, this space has two: none is allowed")
        if settings.trials is None and settings.time_budget is None:  # a target ends nothing here
            settings = dataclasses.replace(settings, trials=DEFAULT_TRIALS)
        if settings.target_return is not None:  # with two objectives it ends nothing: it says what counts as solved
            chosen = dataclasses.replace(chosen, solved_return=settings.target_return)
    if settings.pruner not in (None, "none") and not chosen.rungs:
        raise ValueError(f"--pruner {settings.pruner} needs rungs: space {chosen.name!r} has none to judge trials at")
    name = settings.study if settings.study is not None else f"{chosen.name}-{chosen.env}"
    if not name.strip() or len(name) > 200 or not name.isprintable():
        raise ValueError(f"--study {short(name)} is not allowed: 1 to 200 printable characters")
    output = settings.output or Path("runs") / slug(name)
    check_writable(output)
    if settings.backup_to is not None:
        restoring.check(settings.backup_to, output)
    if not 1 <= settings.backup_every < float("inf"):
        raise ValueError(f"--backup-every {settings.backup_every:g} is not allowed: seconds, at least 1")
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


def lanes_of(text: str | None) -> int | Literal["auto"] | None:
    """Return the lanes that a user asks for.

    Raises:
        ValueError: they are neither a number nor AUTO.
    """
    if text is None or text == AUTO:
        return text
    if not re.fullmatch(r"-?[0-9]{1,9}", text):
        raise ValueError(f"--lanes {short(text)} is not allowed: int in [1, 1000000], or {AUTO}")
    return int(text)


def slug(name: str) -> str:
    """Return a directory name for a study name: itself where that is safe, else a cleaned one with a hash.

    Names that differ in case only are kept: where that is the same directory, the log says that it is another study's.
    """
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name) and not _UNSAFE.search(name):
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{re.sub(r'[^A-Za-z0-9_-]+', '-', name).strip('-')[:60] or 'study'}-{digest}"


def check_writable(output: Path) -> None:
    """Raise ValueError if files can't be written into a directory, which need not be there yet."""
    try:
        output.lstat()
    except (FileNotFoundError, NotADirectoryError):
        pass  # it is made later on
    except (OSError, ValueError) as error:  # a name too long, or none at all
        reason = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f"output directory {short(str(output))} can't be written: {reason}") from error
    there = output.absolute()
    while not os.path.lexists(there):
        there = there.parent
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(f"output directory {str(output)!r} can't be written: {str(there)!r} is no writable directory")


def _sqlite_url(path: Path) -> str:
    """Return the URL of a database; libraries differ in what they make of a path that has to be quoted in it."""
    there = path.absolute().as_posix()
    if re.search(r"[?%{}]", there):
        wanted = "another --output, or --storage and --tracking"
        raise ValueError(
            f"{short(there)} can't be a database: ?, %, {{ and }} mean something in its URL; give {wanted}"
        )
    return f"sqlite:///{there}"
