"""A study on its log: ask for a batch of trials, report, tell, commit.

A trial keeps its number everywhere: here, on the screen, in the log and in what follows it. Trials that were being
trained when a sweep ended stay RUNNING in the log, and the next sweep of the study trains them first.
"""

from __future__ import annotations

import json
import math
import uuid
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optuna
from optuna.pruners import BasePruner
from optuna.storages import JournalStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from jaxdqn import recovery
from jaxdqn.follower import FINISHED, Trial
from jaxdqn.journal import Journal
from jaxdqn.pruner import make as make_pruner
from jaxdqn.records import DESCRIPTION, IDENTITY, LOG_ID, RETRAINED, as_trial, recorded
from jaxdqn.recovery import Past
from jaxdqn.samplers import BATCH_SAMPLERS, STOCK_SAMPLERS
from jaxdqn.space import Space

_SHOWN = 6  # differences named when a study is refused


class Asked(NamedTuple):
    """A trial to be trained."""

    number: int
    params: dict[str, Any]  # of the searched hyperparameters
    rungs: int = 0  # reported by an earlier sweep


class Best(NamedTuple):
    """The best finished trial."""

    number: int
    value: float
    params: dict[str, Any]


class Study:
    """One study and its log, whose only writer we are: what the log holds is read once and then known."""

    def __init__(
        self, journal: Journal, study: optuna.Study, space: Space, sampler: str, seed: int, pruner: BasePruner
    ) -> None:
        """Use `open_study`."""
        self._journal, self._study, self._space, self._seed, self._pruner = journal, study, space, seed, pruner
        self._storage, self._stock = study._storage, STOCK_SAMPLERS.get(sampler)
        self._sampler = BATCH_SAMPLERS[sampler](seed, space) if sampler in BATCH_SAMPLERS else None
        self._ids: list[int] = []
        self._trials: list[Trial] = []
        self._changed: set[int] = set()  # trials that are not as they were at the last commit
        self._counts = dict.fromkeys((*FINISHED, "running"), 0)
        self._best: Best | None = None
        for trial in study.get_trials(deepcopy=False):
            self._ids.append(trial._trial_id)
            self._trials.append(as_trial(trial))
            self._count(self._trials[-1])
        self.log_id: str = study.user_attrs[LOG_ID]  # tells this log from others of the same name

    @property
    def repaired(self) -> int:
        """Bytes of a commit that was cut off, which were cut from the log when it was opened."""
        return self._journal.repaired

    @property
    def log_bytes(self) -> int:
        """Bytes of the log that are whole commits on the disk: they never change."""
        return self._journal.end

    def at(self, visit: int) -> None:
        """Say at which visit of the scheduler the following happens: the clock of the log's records."""
        self._journal.clock = visit

    def ask(self, count: int) -> list[Asked]:
        """Ask for the next trials. What is proposed depends on the study's seed, their numbers and the history."""
        numbers = range(len(self._trials), len(self._trials) + count)
        if self._sampler is None:
            ids = [self._ask_stock(number) for number in numbers]
        else:
            proposals = self._sampler.propose(self._study, self._space.searched, numbers) if count else []
            ids = [self._create(params) for params in proposals]
        for number, trial_id in zip(numbers, ids, strict=True):
            self._ids.append(trial_id)
            self._trials.append(as_trial(self._storage.get_trial(trial_id)))
            self._counts["running"] += 1
            self._changed.add(number)
        return [Asked(number, self._trials[number].params) for number in numbers]

    def start(self, number: int, seed_index: int, row: int, lane: int) -> None:
        """Record that an agent of a trial was put into a lane of a row."""
        self._storage.set_trial_system_attr(self._ids[number], f"{recovery.STARTED}{seed_index}", [row, lane])

    def ended(self, number: int, seed_index: int, result: dict[str, Any]) -> None:
        """Record what became of an agent of a trial that goes on."""
        self._storage.set_trial_system_attr(self._ids[number], f"{recovery.ENDED}{seed_index}", result)

    def sent(self, row: int, num_ticks: list[int] | None, passed_over: list[int]) -> None:
        """Record the segment of a row, after the starts of its agents; None: it was read and not sent off again.

        Args:
            row: of the lanes.
            num_ticks: of the segment, a device.
            passed_over: how often each of the agents that still wait was.
        """
        waiting = {"passed_over": passed_over} if any(passed_over) else {}
        record = {"row": row, "ticks": num_ticks, **waiting}
        self._storage.set_study_system_attr(self._study._study_id, recovery.SENT, record)

    def begin(self, where: dict[str, Any]) -> None:
        """Record that all lanes are empty, and what the bits of the results depend on from now on."""
        self._storage.set_study_system_attr(self._study._study_id, recovery.EMPTY, where)

    def past(self) -> Past:
        """Return what the log says of the lanes."""
        return recovery.read(self._journal.read_logs(0))

    def report(self, number: int, step: int, value: float) -> None:
        """Record a trial's mean validation return at a rung."""
        self._storage.set_trial_intermediate_value(self._ids[number], step, value)
        self._update(number)

    def should_prune(self, number: int) -> bool:
        """Return whether the pruner ends a trial at the rung it has just reported."""
        return self._pruner.prune(self._study, self._storage.get_trial(self._ids[number]))

    def tell(self, number: int, value: float, attributes: dict[str, Any], pruned: bool = False) -> str:
        """Record a trial's mean return and what else is known of it; return its state.

        A value that is no number makes the trial FAIL, which is Optuna's way of saying so. A pruned trial has the value
        of its last rung, as Optuna's have. A trial that is finished stays as it is.

        Raises:
            ValueError: the value is infinite.
        """
        if math.isinf(value):
            raise ValueError(f"the value of trial {number} is {value}: a mean return is finite, or nan if it failed")
        known = self._trials[number]
        if known.state in FINISHED:
            return known.state
        for key, attribute in attributes.items():
            self._storage.set_trial_user_attr(self._ids[number], key, attribute)
        state = TrialState.PRUNED if pruned else TrialState.FAIL if math.isnan(value) else TrialState.COMPLETE
        if pruned:
            value = known.intermediate[max(known.intermediate)]
        nothing = state == TrialState.FAIL or math.isnan(value)
        values = None if nothing else self._space.objectives(known.params, value)
        self._storage.set_trial_state_values(self._ids[number], state, values)
        self._counts["running"] -= 1
        self._update(number)
        self._count(self._trials[number])
        return self._trials[number].state

    def record(self, phase: str, number: int, seed_index: int, result: dict[str, Any]) -> None:
        """Record what became of an agent of a trial that was trained anew."""
        self._storage.set_study_user_attr(self._study._study_id, f"{RETRAINED}{phase}_{number}_{seed_index}", result)

    def recorded(self, phase: str) -> dict[tuple[int, int], dict[str, Any]]:
        """Return what was recorded of a phase, by trial and seed index."""
        return recorded(self.attributes, phase)

    def describe(self, description: dict[str, Any], command: str = "") -> None:
        """Record what a reader of the log should know of the sweep that is about to begin, and by which commands."""
        known = self.attributes.get(DESCRIPTION, {})
        commands = known.get("commands", [])
        commands = commands if commands[-1:] == [command] else [*commands, command]
        description = {**description, "commands": commands}
        if known != description:
            self._storage.set_study_user_attr(self._study._study_id, DESCRIPTION, description)

    @property
    def attributes(self) -> dict[str, Any]:
        """All that was recorded of the study itself."""
        return self._storage.get_study_user_attrs(self._study._study_id)

    def commit(self) -> list[Trial]:
        """Put all that happened on the disk, at once; return the trials that changed, in the order of their numbers.

        Raises:
            LogError: the disk refused it.
        """
        self._journal.commit()
        changed = [self._trials[number] for number in sorted(self._changed)]
        self._changed.clear()
        return changed

    def close(self, commit: bool = True) -> None:
        """Commit, unless told not to, and let others open the log."""
        self._journal.close(commit)

    def trial(self, number: int) -> Trial:
        """Return what is known of a trial."""
        return self._trials[number]

    def trials(self) -> list[Trial]:
        """Return all trials in the order of their numbers."""
        return list(self._trials)

    def unfinished(self) -> list[Asked]:
        """Return the trials an earlier sweep left unfinished, in the order of their numbers."""
        running = [trial for trial in self._trials if trial.state == "running"]
        return [Asked(trial.number, trial.params, len(trial.intermediate)) for trial in running]

    def counts(self) -> dict[str, int]:
        """Count the trials by state."""
        return dict(self._counts)

    def best(self) -> Best | None:
        """Return the best complete trial, the earliest of equals; None before there is one.

        With two objectives: the smallest network that solves the environment, before there is one the best return.
        """
        return self._best

    def _create(self, params: dict[str, Any]) -> int:
        """Create a trial with all its hyperparameters: one record."""
        template = create_trial(state=TrialState.RUNNING, params=params, distributions=self._space.searched)
        return self._storage.create_new_trial(self._study._study_id, template_trial=template)

    def _ask_stock(self, number: int) -> int:
        assert self._stock is not None
        self._study.sampler = self._stock(int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0]))
        return self._study.ask(fixed_distributions=self._space.searched)._trial_id

    def _update(self, number: int) -> None:
        self._trials[number] = as_trial(self._storage.get_trial(self._ids[number]))
        self._changed.add(number)

    def _count(self, trial: Trial) -> None:
        self._counts[trial.state] += 1
        if trial.state == "complete" and trial.value is not None:
            one = Best(trial.number, trial.value, trial.params)
            if self._best is None or self._worth(one) > self._worth(self._best):
                self._best = one

    def _worth(self, one: Best) -> tuple[float, ...]:
        return *self._space.worth(one.params, one.value), -one.number


def open_study(
    log: Path, name: str, space: Space, identity: dict[str, Any], sampler: str, seed: int, pruner: str = "none"
) -> Study:
    """Open the study of a log, or begin it.

    Raises:
        ValueError: the log is none of ours, damaged or in use, or its study has another identity, which is named.
        LogError: the log can't be written.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    journal = Journal(log)
    try:
        storage = JournalStorage(journal)
        names = optuna.get_all_study_names(storage)
        if names and names != [name]:
            raise ValueError(f"the log {log} holds study {names[0]!r}: choose another --output for {name!r}")
        if names:
            study = optuna.load_study(storage=storage, study_name=name)
        else:
            directions = [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE][: 2 if space.minimize else 1]
            study = optuna.create_study(storage=storage, study_name=name, directions=directions)
        known = study.user_attrs.get(IDENTITY)
        if known is None:
            study.set_user_attr(IDENTITY, json.dumps(identity))
            study.set_user_attr(LOG_ID, uuid.uuid4().hex)
        else:
            differences = _differences(json.loads(known), json.loads(json.dumps(identity)))
            if differences:
                more = [f"{len(differences) - _SHOWN} more"] if len(differences) > _SHOWN else []
                shown = "; ".join(differences[:_SHOWN] + more)
                raise ValueError(f"study {name!r} is another search ({shown}): choose another --study or --output")
        opened = Study(journal, study, space, sampler, seed, make_pruner(pruner, space.rungs, space.keep_best))
        opened.commit()
    except BaseException:
        journal.close(commit=False)
        raise
    return opened


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
