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
from optuna.trial import FrozenTrial, TrialState

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


class Study:
    """One study in an Optuna storage."""

    def __init__(self, study: optuna.Study, space: Space, sampler: str, seed: int) -> None:
        """Use `open_study`."""
        self._study, self._space, self._sampler, self._seed = study, space, sampler, seed

    def ask(self) -> Asked:
        """Ask for the next trial. What is drawn depends on the study's seed, the trial's number and the history."""
        number = len(self._trials())
        entropy = np.random.SeedSequence([self._seed, number]).generate_state(1)[0]
        self._study.sampler = SAMPLERS[self._sampler](int(entropy))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            trial = self._study.ask(fixed_distributions=self._space.searched)
        return Asked(trial.number, dict(trial.params))

    def tell(self, number: int, value: float, attributes: dict[str, Any]) -> str:
        """Record a trial's mean return and what else is known of it; return its state.

        A value that is no number makes the trial FAIL, with Optuna's way of saying so.

        Raises:
            ValueError: the value is infinite.
        """
        if math.isinf(value):
            raise ValueError(f"the value of trial {number} is {value}: a mean return is finite, or nan if it failed")
        storage, trial_id = self._study._storage, self._trials()[number]._trial_id
        for key, attribute in attributes.items():
            storage.set_trial_user_attr(trial_id, key, attribute)
        if math.isnan(value):
            self._study.tell(number, state=TrialState.FAIL, skip_if_finished=True)
            return "failed"
        self._study.tell(number, value, skip_if_finished=True)
        return "complete"

    def unfinished(self) -> list[Asked]:
        """Return the trials an earlier sweep left unfinished, in the order of their numbers."""
        return [Asked(t.number, dict(t.params)) for t in self._trials() if not t.state.is_finished()]

    def finished(self) -> list[FrozenTrial]:
        """Return the finished trials in the order of their numbers."""
        return [t for t in self._trials() if t.state.is_finished()]

    def counts(self) -> dict[str, int]:
        """Count the trials by state."""
        states = [t.state for t in self._trials()]
        names = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
        return {name: states.count(state) for state, name in names.items()} | {
            "running": sum(not state.is_finished() for state in states)
        }

    def best(self) -> Best | None:
        """Return the best complete trial, the earliest of equals; None before there is one."""
        complete = [t for t in self._trials() if t.state == TrialState.COMPLETE]
        if not complete:
            return None
        best = max(complete, key=lambda t: (t.value, -t.number))
        return Best(best.number, float(best.value), dict(best.params))  # type: ignore[arg-type]

    def _trials(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)


def open_study(url: str, name: str, space: Space, identity: dict[str, Any], sampler: str, seed: int) -> Study:
    """Open study `name` in the storage at `url`, or create it.

    Raises:
        ValueError: the storage can't be opened, or its study has another identity; the difference is named.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        storage = optuna.storages.RDBStorage(url, engine_kwargs=_engine_arguments(url))
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
            raise ValueError(
                f"study {name!r} is another search ({'; '.join(differences)}): choose another --study or --output"
            )
    return Study(study, space, sampler, seed)


def sqlite_url(path: Path) -> str:
    """Return the URL of an SQLite file."""
    return f"sqlite:///{path.as_posix()}"


def hide_password(text: str, url: str | None = None) -> str:
    """Return a URL without its password, or a text that quotes the URL without it."""
    try:
        parsed = sqlalchemy.engine.make_url(url or text)
    except sqlalchemy.exc.ArgumentError:
        return text
    if not parsed.password:
        return text
    return text.replace(str(parsed.password), "***")


def _engine_arguments(url: str) -> dict[str, Any]:
    return {"connect_args": {"timeout": 30}} if url.startswith("sqlite") else {}


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
