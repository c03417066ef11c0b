"""Asynchronous successive halving (ASHA; Li et al. 2020), and Optuna's own pruners under short names.

Knows Optuna, nothing of agents: a trial's intermediate values are its validation figures, their steps are environment
steps. Nothing waits: whoever reaches a rung is judged there and then, against those who came before.
"""

from __future__ import annotations

import bisect
import math
import threading
import weakref
from collections.abc import Iterable
from functools import partial
from typing import Any

import optuna
from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    PercentilePruner,
    SuccessiveHalvingPruner,
)
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

ETA = 2.0  # DQN's learning curves are restless: replayed on 250 of them, eta = 3 stopped most of the perfect trials
GROWTH = 3.0  # and judging at every rung left fewer perfect trials for the same environment steps than no pruner at all
MIN_PEERS = 16
PRUNERS = ("halving", "median", "percentile", "optuna-halving", "hyperband", "none")


class HalvingPruner(BasePruner):
    """Stops a trial that is not among the best ⌈n / eta⌉ of the n trials that reached its rung, in any Optuna study.

    The n trials are those that reported at the very same step, itself included, whatever became of them: running,
    complete, pruned and failed ones count. Ties go on; NaN is worse than any number and never among the best. The
    judgement depends on the history alone: ask once after each report, since later on there are more peers.

    Differences from the paper:
    1. A trial that is not promoted is stopped, where the paper pauses it and may promote it later, when more trials
       have come: a paused agent would keep its lane, or its replay buffer would have to be stored.
    2. So early trials are not held back for want of others: below `min_peers` all go on.
    3. ⌈n / eta⌉ go on, not ⌊n / eta⌋.
    4. Any step that trials report can be a rung: a trial is judged at its first one, and then wherever its step has
       grown by `growth`. The paper has rungs of its own, growth = eta apart.

    Args:
        eta: of the trials at a rung about one in eta goes on.
        min_peers: trials at a rung below which all go on.
        first_rung: step before which all go on; None: the first step a trial reports.
        growth: a trial is judged where its step is at least this many times the one where it was judged before;
            1: at every step it reports.
        best_so_far: a trial is worth its best value up to a rung, not its last: for objectives that keep the best
            checkpoint.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        *,
        eta: float = ETA,
        min_peers: int = MIN_PEERS,
        first_rung: int | None = None,
        growth: float = GROWTH,
        best_so_far: bool = False,
    ) -> None:
        """Remember nothing yet."""
        if not 1 < eta < math.inf:
            raise ValueError(f"eta = {eta!r} is not allowed: a number above 1")
        if min_peers < 1:
            raise ValueError(f"min_peers = {min_peers!r} is not allowed: at least 1")
        if first_rung is not None and first_rung < 0:
            raise ValueError(f"first_rung = {first_rung!r} is not allowed: a step, at least 0, or None")
        if not 1 <= growth < math.inf:
            raise ValueError(f"growth = {growth!r} is not allowed: a number, at least 1")
        self._eta, self._min_peers, self._first_rung = eta, min_peers, first_rung
        self._growth, self._best_so_far = growth, best_so_far
        self._fields: weakref.WeakKeyDictionary[optuna.Study, _Field] = weakref.WeakKeyDictionary()
        self._guard = threading.Lock()  # a study may be optimised by several threads

    def __reduce__(self) -> tuple[Any, ...]:
        make_again = partial(
            HalvingPruner,
            eta=self._eta,
            min_peers=self._min_peers,
            first_rung=self._first_rung,
            growth=self._growth,
            best_so_far=self._best_so_far,
        )
        return make_again, ()

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Return whether a trial stops at the step it reported last.

        Raises:
            ValueError: the study has several objectives.
        """
        if len(study.directions) > 1:
            raise ValueError(f"HalvingPruner has one objective, this study has {len(study.directions)}")
        step = trial.last_step
        if step is None or step != self._last_judged(trial.intermediate_values):
            return False
        with self._guard:
            if study not in self._fields:
                self._fields[study] = _Field(study.direction == StudyDirection.MAXIMIZE, self._best_so_far)
            num_trials, num_better = self._fields[study].rank(study, trial, step)
        if num_trials < self._min_peers:
            return False
        return math.isnan(trial.intermediate_values[step]) or num_better >= math.ceil(num_trials / self._eta)

    def _last_judged(self, steps: Iterable[int]) -> int | None:
        """Return the last of a trial's steps at which it is judged."""
        last: int | None = None
        for step in sorted(steps):
            if last is None:
                last = step if self._first_rung is None or step >= self._first_rung else None
            elif step >= self._growth * last:
                last = step
        return last


class _Field:
    """The trials of one study by rung. A finished trial doesn't change: it is looked at once."""

    def __init__(self, maximise: bool, best_so_far: bool) -> None:
        self._sign, self._best_so_far = 1.0 if maximise else -1.0, best_so_far
        self._finished: dict[int, list[float]] = {}  # step -> values of the finished trials, ascending; more is better
        self._open: list[int] = []  # places of the trials not finished when last looked at
        self._seen = 0

    def rank(self, study: optuna.Study, trial: FrozenTrial, step: int) -> tuple[int, int]:
        """Return how many trials reported at a step, this one included, and how many of them are better than it."""
        open_trials = self._look(study)
        mine = self._value(trial, step)
        finished = self._finished.get(step, [])
        running = [
            self._value(other, step)
            for other in open_trials
            if other.number != trial.number and step in other.intermediate_values
        ]
        num_better = len(finished) - bisect.bisect_right(finished, mine) + sum(value > mine for value in running)
        return len(finished) + len(running) + (not trial.state.is_finished()), num_better

    def _look(self, study: optuna.Study) -> list[FrozenTrial]:
        """Take in the trials that have ended; return the others."""
        trials = study.get_trials(deepcopy=False)
        still_open = []
        for place in [*self._open, *range(self._seen, len(trials))]:
            trial = trials[place]
            if trial.state.is_finished():
                for step in trial.intermediate_values:
                    bisect.insort(self._finished.setdefault(step, []), self._value(trial, step))
            else:
                still_open.append(place)
        self._open, self._seen = still_open, len(trials)
        return [trials[place] for place in still_open]

    def _value(self, trial: FrozenTrial, step: int) -> float:
        """Return what a trial is worth at a step it reported, more being better: no number is worth less than any."""
        values = trial.intermediate_values
        if math.isnan(values[step]):
            return -math.inf
        if not self._best_so_far:
            return self._sign * values[step]
        return max(self._sign * value for at, value in values.items() if at <= step and not math.isnan(value))


def make(name: str, rungs: tuple[int, ...], keep_best: bool = True) -> BasePruner:
    """Return a pruner for trials that report at rungs (environment steps, ascending).

    `halving` judges by the best value so far where agents keep their best checkpoint (`keep_best`), else by the last:
    at the first rung past a ninth of an agent's life, since earlier on hardly anything is learnt, and at the first one
    at least three times later.

    What the stock ones see of a batch: `median` and `percentile` (the best quarter goes on) compare with complete
    trials only, so a first batch runs to its end, and later the field holds the survivors, not all that came;
    `optuna-halving` counts all that came, but of the first seven at a rung only a new best goes on. `hyperband` gives
    each trial one of several halvings, by its number and the study's name; its sampler sees the trials of all of them.
    The last two write an attribute into the trial's storage at each rung.

    Raises:
        ValueError: there is no such pruner, or there are no rungs to judge at.
    """
    if name not in PRUNERS:
        raise ValueError(f"pruner {name!r} is not known: one of {', '.join(PRUNERS)}")
    if name == "none":
        return NopPruner()
    if not rungs:
        raise ValueError(f"pruner {name!r} needs rungs: steps at which trials are validated")
    if name == "halving":
        return HalvingPruner(best_so_far=keep_best, first_rung=round(rungs[-1] / GROWTH**2))
    if name == "median":
        return MedianPruner(n_warmup_steps=rungs[0])
    if name == "percentile":
        return PercentilePruner(25.0, n_warmup_steps=rungs[0])
    if name == "optuna-halving":
        return SuccessiveHalvingPruner(min_resource=rungs[0])
    return HyperbandPruner(min_resource=rungs[0], max_resource=rungs[-1])
