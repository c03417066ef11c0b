"""The only file that knows Optuna's studies, samplers and storages: ask, tell, resume.

A trial keeps its number everywhere: here, on the screen, in the storage and in MLflow. Trials that were being trained
when a sweep ended stay RUNNING in the storage, and the next sweep of the study trains them first.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optuna
import sqlalchemy
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import TrialState

from jaxdqn.redact import hide_password
from jaxdqn.space import Space

IDENTITY = "jaxdqn_identity"

SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "tpe": lambda seed: TPESampler(seed=seed, multivariate=True, constant_liar=True),
    "random": lambda seed: RandomSampler(seed=seed),
}


class Asked(NamedTuple):
    """A trial to be trained."""

    number: int
    params: dict[str, Any]  # of the searched hyperparameters


class Best(NamedTuple):
    """The best finished trial."""

    number: int
    value: float
    params: dict[str, Any]


class Record(NamedTuple):
    """A trial as the study holds it."""

    number: int
    state: str  # running, complete, pruned or failed
    value: float | None
    params: dict[str, Any]
    attributes: dict[str, Any]


STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",  # somebody enqueued it: the next ask takes it
}
_SHOWN = 6  # differences named when a study is refused
FINISHED = ("complete", "pruned", "failed")


class Study:
    """One study in an Optuna storage, whose only writer we are: what it holds is read once and then known."""

    def __init__(self, study: optuna.Study, space: Space, sampler: str, seed: int) -> None:
        """Use `open_study`."""
        self._study, self._space, self._sampler, self._seed = study, space, sampler, seed
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if set(trial.params) != set(space.searched):  # the process was ended while it was being asked for
                study.tell(trial.number, state=TrialState.FAIL)
        trials = study.get_trials(deepcopy=False)
        self._ids = {trial.number: trial._trial_id for trial in trials}
        self._records = {
            t.number: Record(t.number, STATES[t.state], t.value, dict(t.params), dict(t.user_attrs)) for t in trials
        }

    def ask(self) -> Asked:
        """Ask for the next trial. What is drawn depends on the study's seed, the trial's number and the history."""
        entropy = np.random.SeedSequence([self._seed, len(self._records)]).generate_state(1)[0]
        self._study.sampler = SAMPLERS[self._sampler](int(entropy))
        trial = self._study.ask(fixed_distributions=self._space.searched)
        self._ids[trial.number] = trial._trial_id
        self._records[trial.number] = Record(trial.number, "running", None, dict(trial.params), {})
        return Asked(trial.number, dict(trial.params))

    def tell(self, number: int, value: float, attributes: dict[str, Any]) -> str:
        """Record a trial's mean return and what else is known of it; return its state.

        A value that is no number makes the trial FAIL, with Optuna's way of saying so. A trial that is finished stays
        as it is.

        Raises:
            ValueError: the value is infinite.
        """
        if math.isinf(value):
            raise ValueError(f"the value of trial {number} is {value}: a mean return is finite, or nan if it failed")
        known = self._records[number]
        if known.state in FINISHED:
            return known.state
        for key, attribute in attributes.items():
            self._study._storage.set_trial_user_attr(self._ids[number], key, attribute)
        failed = math.isnan(value)
        if failed:
            self._study.tell(number, state=TrialState.FAIL)
        else:
            self._study.tell(number, value)
        state, told = ("failed", None) if failed else ("complete", value)
        self._records[number] = Record(number, state, told, known.params, attributes)
        return state

    def unfinished(self) -> list[Asked]:
        """Return the trials an earlier sweep left unfinished, in the order of their numbers."""
        return [Asked(r.number, r.params) for r in self._records.values() if r.state == "running"]

    def finished(self) -> list[Record]:
        """Return the finished trials in the order of their numbers."""
        return [record for record in self._records.values() if record.state in FINISHED]

    def counts(self) -> dict[str, int]:
        """Count the trials by state."""
        states = [record.state for record in self._records.values()]
        return {state: states.count(state) for state in (*FINISHED, "running")}

    def best(self) -> Best | None:
        """Return the best complete trial, the earliest of equals; None before there is one."""
        complete = [
            (r.value, -r.number) for r in self._records.values() if r.state == "complete" and r.value is not None
        ]
        if not complete:
            return None
        value, number = max(complete)
        return Best(-number, value, self._records[-number].params)


def open_study(url: str, name: str, space: Space, identity: dict[str, Any], sampler: str, seed: int) -> Study:
    """Open study `name` in the storage at `url`, or create it.

    Raises:
        ValueError: the storage can't be opened, or its study has another identity; the difference is named.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    try:
        storage = _storage(url)
        study = optuna.create_study(storage=storage, study_name=name, direction="maximize", load_if_exists=True)
        known = study.user_attrs.get(IDENTITY)
    except Exception as error:  # drivers raise what they like
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f"storage {hide_password(url)} can't be opened: {hide_password(reason, url)}") from None
    if known is None:
        if study.get_trials(deepcopy=False):
            raise ValueError(f"study {name!r} in {hide_password(url)} was not made by jaxdqn: choose another --study")
        study.set_user_attr(IDENTITY, json.dumps(identity))
    else:
        differences = _differences(json.loads(known), json.loads(json.dumps(identity)))
        if differences:
            more = [f"{len(differences) - _SHOWN} more"] if len(differences) > _SHOWN else []
            shown = "; ".join(differences[:_SHOWN] + more)
            raise ValueError(f"study {name!r} is another search ({shown}): choose another --study or --output")
    return Study(study, space, sampler, seed)


def sqlite_url(path: Path) -> str:
    """Return the URL of an SQLite file."""
    return f"sqlite:///{path.as_posix()}"


def _storage(url: str) -> optuna.storages.RDBStorage:
    """Open a storage; SQLite gets a write-ahead log, which spares a disk flush at every parameter of every trial."""
    if not url.startswith("sqlite"):
        return optuna.storages.RDBStorage(url)
    storage = optuna.storages.RDBStorage(url, engine_kwargs={"connect_args": {"timeout": 30}})
    storage.engine.dispose()

    def prepare(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    sqlalchemy.event.listen(storage.engine, "connect", prepare)
    return storage


def _differences(known: dict[str, Any], asked: dict[str, Any], path: str = "") -> list[str]:
    """Name every leaf in which two identities differ: `key: known → asked`."""
    found = []
    for key in sorted({*known, *asked}):
        a, b = known.get(key, "absent"), asked.get(key, "absent")
        if isinstance(a, dict) and isinstance(b, dict):
            found += _differences(a, b, f"{path}{key}.")
        elif a != b:
            found.append(f"{path}{key}: {json.dumps(a)} there, {json.dumps(b)} asked")
    return found
