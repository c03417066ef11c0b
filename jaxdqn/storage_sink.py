"""A study in an Optuna storage, written as the log goes on.

A storage numbers trials by insertion: they are written in number order, so that a trial keeps its number here too.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from optuna.distributions import BaseDistribution
from optuna.exceptions import DuplicatedStudyError, StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from jaxdqn.database import await_lock, path_of
from jaxdqn.follower import FINISHED, Conclusion, Trial
from jaxdqn.storage import find_study, find_trial, label, let_go, reason, url_of

_STATES = {
    "running": TrialState.RUNNING,
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}
_NAMES = {state: name for name, state in _STATES.items()} | {TrialState.WAITING: "waiting"}
_BUSY_S = 2.0, 10.0  # a locked SQLite file is waited for in a call: the first time, and while that goes on


class _Held(NamedTuple):
    """A trial as the storage holds it."""

    trial_id: int
    state: str
    value: float | None
    params: dict[str, Any]
    intermediate: dict[int, float]


class StorageSink:
    """One study in an Optuna storage, which is read once and then known."""

    ordered = True

    def __init__(
        self,
        storage: BaseStorage,
        study_name: str,
        distributions: dict[str, BaseDistribution],
        study_attributes: dict[str, str],
        directions: Sequence[str] = ("maximize",),
    ) -> None:
        """Find or create the study. `study_attributes` tell it from other studies, so they never change.

        Raises:
            ValueError: the study there is another one.
        """
        self._storage, self._name, self._distributions = storage, study_name, distributions
        self._directions = [StudyDirection[direction.upper()] for direction in directions]
        self._file = path_of(url_of(storage))
        self._waits = False  # for another process that has locked the file
        self._await_lock()
        self._study_id = self._find_or_create()
        trials = storage.get_all_trials(self._study_id, deepcopy=False)
        self._held = {trial.number: _held(trial) for trial in trials}
        known = storage.get_study_user_attrs(self._study_id)
        for key, attribute in study_attributes.items():
            if key not in known and not self._held:
                storage.set_study_user_attr(self._study_id, key, attribute)
            elif known.get(key) != attribute:
                let_go(storage)
                there = f"study {study_name!r} in {label(storage)}"
                raise ValueError(f"{there} is not ours: its {key} differs; choose another --study or --storage")

    def write(self, trials: list[Trial]) -> None:
        """Insert trials, finish those that were running, leave those that are finished.

        Raises:
            ValueError: a trial is not ours, or a number before it is missing.
            LockedError: another process holds the file.
        """
        self._await_lock()
        try:
            for trial in trials:
                self._write(trial)
        except StorageInternalError as error:
            raise RuntimeError(reason(error, url_of(self._storage))) from None

    def _await_lock(self) -> None:
        """Wait for a file that is locked: Optuna would try five times before it says so."""
        if self._file is not None:
            seconds, self._waits = _BUSY_S[self._waits], True
            await_lock(self._file, seconds)
            self._waits = False

    def close(self, conclusion: Conclusion | None = None) -> None:
        """Write what the sweep has come to; let go of the connections: the last one empties SQLite's log."""
        if conclusion is not None:
            known = self._storage.get_study_user_attrs(self._study_id)
            for key, value in (("confirm", conclusion.confirm), ("verdict", conclusion.verdict)):
                if known.get(key) != json.loads(json.dumps(value)):
                    self._storage.set_study_user_attr(self._study_id, key, value)
        let_go(self._storage)

    def _write(self, trial: Trial) -> None:
        held = self._held.get(trial.number) or self._look(trial.number)
        if held is None:
            self._insert(trial)
            return
        self._compare(trial, held)
        if held.state in FINISHED:
            return
        try:
            self._go_on(trial, held)
        except UpdateFinishedTrialError:  # by a call of ours whose answer was lost, or by somebody else
            self._held[trial.number] = _held(self._storage.get_trial(held.trial_id))
            self._compare(trial, self._held[trial.number])
        else:
            known = held.intermediate | trial.intermediate
            self._held[trial.number] = _Held(held.trial_id, trial.state, trial.value, trial.params, known)

    def _look(self, number: int) -> _Held | None:
        """Return the trial that took a number since the storage was read: a lost answer, or somebody else's."""
        if number > len(self._held):
            there = f"{label(self._storage)} holds {len(self._held)} trials of study {self._name!r}"
            raise ValueError(f"{there}, so trial {number} would get another number")
        trial_id = find_trial(self._storage, self._study_id, number)
        if trial_id is None:
            return None
        self._held[number] = _held(self._storage.get_trial(trial_id))
        return self._held[number]

    def _insert(self, trial: Trial) -> None:
        """Insert a trial with all that is known of it, in one transaction."""
        frozen = FrozenTrial(
            number=trial.number,
            trial_id=-1,  # the storage's business
            state=_STATES[trial.state],
            value=None,
            values=self._values(trial),
            datetime_start=trial.started,
            datetime_complete=trial.ended,
            params=trial.params,
            distributions={name: self._distributions[name] for name in trial.params},
            user_attrs=trial.attributes,
            system_attrs={},
            intermediate_values=trial.intermediate,
        )
        trial_id = self._storage.create_new_trial(self._study_id, template_trial=frozen)
        if find_trial(self._storage, self._study_id, trial.number) != trial_id:
            raise self._foreign(trial.number, "it was inserted at the same time as ours")
        self._held[trial.number] = _Held(trial_id, trial.state, trial.value, trial.params, trial.intermediate)

    def _go_on(self, trial: Trial, held: _Held) -> None:
        """Bring an unfinished trial up to date, its state last: cut off, it is unfinished still.

        Optuna notes the present as its end.
        """
        for step, value in sorted(trial.intermediate.items()):
            if held.intermediate.get(step) != value:
                self._storage.set_trial_intermediate_value(held.trial_id, step, value)
        if trial.state not in FINISHED:
            return
        for key, attribute in trial.attributes.items():
            self._storage.set_trial_user_attr(held.trial_id, key, attribute)
        if not self._storage.set_trial_state_values(held.trial_id, _STATES[trial.state], self._values(trial)):
            raise RuntimeError(f"trial {trial.number} of study {self._name!r} could not be finished")

    def _values(self, trial: Trial) -> list[float] | None:
        """Return a trial's objectives: its mean return, and its parameters where those are to be few."""
        if trial.value is None:
            return None
        return [trial.value] if len(self._directions) == 1 else [trial.value, trial.attributes["num_parameters"]]

    def _compare(self, trial: Trial, held: _Held) -> None:
        if held.params != trial.params:
            raise self._foreign(trial.number, "its hyperparameters differ")
        finished = held.state in FINISHED and trial.state in FINISHED
        if finished and (held.state, held.value) != (trial.state, trial.value):
            there, here = f"{held.state} with value {held.value}", f"{trial.state} with value {trial.value}"
            raise self._foreign(trial.number, f"{there} there, {here} here")

    def _foreign(self, number: int, why: str) -> ValueError:
        there = f"study {self._name!r} in {label(self._storage)}"
        return ValueError(f"trial {number} of {there} is not ours ({why}): delete that study, and it is written anew")

    def _find_or_create(self) -> int:
        found = find_study(self._storage, self._name)
        if found is not None:
            return found
        try:
            return self._storage.create_new_study(self._directions, self._name)
        except DuplicatedStudyError:  # somebody was faster
            return self._storage.get_study_id_from_name(self._name)


def _held(trial: FrozenTrial) -> _Held:
    value = trial.values[0] if trial.values else None
    return _Held(trial._trial_id, _NAMES[trial.state], value, trial.params, trial.intermediate_values)
