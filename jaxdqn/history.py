"""What a study's log tells whoever only reads it: its space, its trials, the agents trained anew.

Takes no lock and changes nothing, so it works beside a running sweep and after one that was killed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import json_to_distribution
from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend

from jaxdqn import confirm, journal
from jaxdqn.confirm import Confirmation, Fresh
from jaxdqn.follower import Trial
from jaxdqn.records import DESCRIPTION, IDENTITY, as_trial, recorded
from jaxdqn.space import Space


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
    if not log.is_file():
        raise ValueError(f"{str(output)!r} holds no sweep: there is no study.log in it; scripts/sweep.py makes one")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        storage = JournalStorage(_Records(journal.read(log)))
        names = optuna.get_all_study_names(storage)
        if len(names) != 1:
            raise ValueError(f"it holds {len(names)} studies")
        name = names[0]
        study = optuna.load_study(storage=storage, study_name=name)
        attributes = study.user_attrs
        identity = json.loads(attributes[IDENTITY])
        description = attributes.get(DESCRIPTION, {})
        space = _space(identity, description)
        trials = [as_trial(trial) for trial in study.get_trials(deepcopy=False)]
        return History(name, space, int(identity["seed"]), trials, description, attributes)
    except OSError as error:
        raise ValueError(f"the log {str(log)!r} can't be read: {error.strerror or error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"the log {str(log)!r} is none of this version's: {error}") from error


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
    fixed = {name: x for name, x in domains.items() if not isinstance(x, dict)}
    known = {field.name: identity[field.name] for field in fields(Space) if field.name in identity}
    given = {"name": description.get("space", "space"), "solved_return": description.get("solved_return")}
    return Space(**{**known, **given, "rungs": tuple(identity["rungs"]), "searched": searched, "fixed": fixed})
