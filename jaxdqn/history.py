"""What a study's log tells whoever only reads it: its space, its trials, the agents trained anew.

Takes no lock and changes nothing, so it works beside a running sweep and after one that was killed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import json_to_distribution
from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend

from jaxdqn import confirm, environment, journal
from jaxdqn.confirm import Confirmation, Fresh
from jaxdqn.follower import Trial
from jaxdqn.hyperparams import check_value
from jaxdqn.records import DESCRIPTION, IDENTITY, as_trial, recorded
from jaxdqn.redact import short
from jaxdqn.space import Space, check_setting

_MAX_SEEDS = 10_000
_COUNTS = ("env_steps", "updates", "num_parameters")
_LISTS = ("returns", "env_steps", "updates")  # of a trial, a number a seed


@dataclass(frozen=True)
class History:
    """A study as its log has it."""

    study_name: str
    space: Space
    seed: int
    trials: list[Trial]
    description: dict[str, Any]  # of its last sweep: confirm_top, confirm_seeds, verdict_seeds, the commands of all
    attributes: dict[str, Any]

    def recorded(self, phase: str) -> dict[tuple[int, int], dict[str, Any]]:
        """Return the results of the agents trained anew in a phase, by trial and seed index."""
        return recorded(self.attributes, phase)


class _Records(BaseJournalBackend):
    """The whole records of a log, read once."""

    def __init__(self, records: list[dict[str, Any]]) -> None:
        self._records = records

    def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
        return iter(self._records[log_number_from:])

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        raise RuntimeError("a log that is only read")


def read(output: Path) -> History:
    """Read the log of an output directory.

    Raises:
        ValueError: there is none, or it can't be read.
    """
    log = output / "study.log"
    if not os.path.isfile(log):  # which is false, too, of a name that is none
        raise ValueError(f"{str(output)!r} holds no sweep: there is no study.log in it; scripts/sweep.py makes one")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        storage = JournalStorage(_Records(journal.read(log)))
        names = optuna.get_all_study_names(storage)
        if len(names) != 1:
            raise ValueError(f"it holds {len(names)} studies")
        study = optuna.load_study(storage=storage, study_name=names[0])
        attributes = study.user_attrs
        identity = json.loads(attributes[IDENTITY])
        description = attributes.get(DESCRIPTION, {})
        space = _space(identity, description)
        trials = [as_trial(trial) for trial in study.get_trials(deepcopy=False)]
        history = History(str(names[0]), space, int(identity["seed"]), trials, description, attributes)
        _check(history)
        return history
    except OSError as error:
        raise ValueError(f"the log {str(log)!r} can't be read: {error.strerror or error}") from error
    except Exception as error:  # of Optuna, which replays whatever the records say
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"the log {str(log)!r} is none of this version's: {reason[:500]}") from error


def fresh_seeds(history: History) -> tuple[list[Confirmation], Confirmation | None]:
    """Return what fresh seeds say of the best trials of a study, the winner first, and the verdict on it."""
    said = history.description
    fresh = Fresh(*(int(said.get(name, 0)) for name in ("confirm_top", "confirm_seeds", "verdict_seeds")))
    chosen = confirm.rivals(history, history.trials, history.space, fresh)
    confirmed = confirm.confirmed(history, chosen, fresh.seeds, history.space)
    return confirmed, confirm.verdict(history, chosen, fresh, history.space)


def _space(identity: dict[str, Any], description: dict[str, Any]) -> Space:
    """Return the space that an identity was made of."""
    domains = identity["hyperparameters"]
    searched = {name: json_to_distribution(json.dumps(x)) for name, x in domains.items() if isinstance(x, dict)}
    fixed = {name: check_value(name, x) for name, x in domains.items() if not isinstance(x, dict)}
    known = {**identity, "solved_return": description.get("solved_return")}
    names = [field.name for field in fields(Space) if field.name in known and field.name != "rungs"]
    settings = {name: check_setting(name, known[name]) for name in names if known[name] is not None}
    rungs = tuple(int(rung) for rung in identity["rungs"])
    space = Space(str(description.get("space", "space")), **settings, rungs=rungs, searched=searched, fixed=fixed)
    environment.make(space.env)
    for name, domain in searched.items():
        inside = domain._asdict()
        for value in inside.get("choices") or (inside["low"], inside["high"]):
            check_value(name, value)
        hash(domain)  # a step that is a list has none
    return space


def _check(history: History) -> None:
    """Raise ValueError where something has another form than a sweep gives it."""
    for name in ("confirm_top", "confirm_seeds", "verdict_seeds"):
        if not 0 <= int(history.description.get(name, 0)) <= _MAX_SEEDS:
            raise ValueError(f"{name} = {short(history.description[name])}")
    if not isinstance(history.description.get("commands", []), list):
        raise ValueError("its commands are no list")
    for trial in history.trials:
        known = {"value": [trial.value], **{name: trial.attributes.get(name, []) for name in _LISTS}}
        known |= {"rung": list(trial.intermediate.values())}
        if trial.state == "complete":
            history.space.hyperparams(trial.params)
            known["num_parameters"] = [trial.attributes["num_parameters"]] if history.space.minimize else []
        _check_numbers(f"trial {trial.number}", known)
    for phase in ("confirm", "verdict"):
        for (number, seed_index), result in history.recorded(phase).items():
            known = {name: [result[name]] for name in ("mean_return", "env_steps", "updates")}
            _check_numbers(f"seed {seed_index} of trial {number}", known)
            result["lanes"]


def _check_numbers(whose: str, known: dict[str, Any]) -> None:
    for name, values in known.items():
        fits = isinstance(values, list) and all(isinstance(x, int | float | None) for x in values)
        if not fits or (None in values and name in _COUNTS):
            raise ValueError(f"{whose}: {name} = {short(values)}: numbers are expected")
