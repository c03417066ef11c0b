"""A sampler for many trials at a time: multivariate TPE (Bergstra et al. 2011) whose fit serves a whole batch.

The best trials so far are modelled by a density l(x), all others by g(x); a proposal is the candidate drawn from l
that maximises l(x) / g(x). Trials that are still running, and the points just chosen, count in g, so that a batch
spreads out. What is proposed depends on the seed, the trial's number and the study alone.
"""

from __future__ import annotations

import math
import threading
import weakref
import zlib
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import optuna
from jaxtyping import Float
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.search_space import IntersectionSearchSpace
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from jaxdqn import parzen
from jaxdqn.parzen import Axis, Mixture, Points
from jaxdqn.startup import lean_import

Space = dict[str, BaseDistribution]
NUM_STARTUP = 16  # finished trials before the first fit
NUM_CANDIDATES = 32  # drawn from l for each proposal
MAX_ELITE = 25  # trials in l, not counting those that many running trials add
GOOD_WIDTH, BAD_WIDTH = 0.12, 0.25  # scales of the kernels of l and g: g is the smoother one
LIAR_WEIGHT = 0.3  # of a trial that is running, in g: it may still turn out well
_DRAWN, _STARTUP = range(2)  # streams of random numbers
_MAX_HISTORIES = 256  # search spaces remembered: a range that changes with every trial makes a new one each time


class BatchTPESampler(BaseSampler):
    """TPE for batches, in any Optuna study with one objective.

    Args:
        seed: a study asked in the same way with the same seed gets the same proposals, restarted or not.
        search_space: what is searched, if it is known before the first trial; otherwise it is what all trials share.
        num_startup_trials: finished trials before which the points of a scrambled Sobol sequence are proposed.
        num_candidates: points drawn from l(x) for one proposal.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        search_space: Space | None = None,
        num_startup_trials: int = NUM_STARTUP,
        num_candidates: int = NUM_CANDIDATES,
    ) -> None:
        """Fit nothing yet."""
        self._seed, self._given_space = seed, search_space
        self._num_startup, self._num_candidates = num_startup_trials, num_candidates
        self._views: weakref.WeakKeyDictionary[optuna.Study, _View] = weakref.WeakKeyDictionary()
        self._guard = threading.RLock()  # a study may be optimised by several threads

    def __reduce__(self) -> tuple[Any, ...]:
        make = partial(
            BatchTPESampler,
            seed=self._seed,
            search_space=self._given_space,
            num_startup_trials=self._num_startup,
            num_candidates=self._num_candidates,
        )
        return make, ()

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> Space:
        """Return the search space that was given, else what the trials so far have in common."""
        if self._given_space is not None:
            return dict(self._given_space)
        with self._guard:
            return self._view(study).common_space(study, trial.number)

    def sample_relative(self, study: optuna.Study, trial: FrozenTrial, search_space: Space) -> dict[str, Any]:
        """Return a proposal for a trial."""
        return self.propose(study, search_space, [trial.number])[0]

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return a value of a parameter that not all trials have: by its own TPE, or at random at first."""
        stream = zlib.crc32(param_name.encode())  # two parameters of one trial are not drawn alike
        with self._guard:
            history = self._view(study).history(study, {param_name: param_distribution}, trial.number)
            if history.num_finished < self._num_startup:
                point = history.axes[0].prior(self._random(trial.number, _DRAWN, stream).random(1))
            else:
                point = self._best_candidates(history, [trial.number], stream)[0]
        return parzen.decode(history.axes, point)[0]

    def propose(self, study: optuna.Study, search_space: Space, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """Return proposals for the trials with these numbers, all at once.

        Raises:
            ValueError: the study has several objectives.
        """
        with self._guard:
            history = self._view(study).history(study, search_space, *numbers)
            if not search_space or not numbers:
                return [{} for _ in numbers]
            if history.num_finished < self._num_startup:
                points = self._startup(history.axes, numbers)
            else:
                points = self._best_candidates(history, numbers)
        return [dict(zip(search_space, parzen.decode(history.axes, point), strict=True)) for point in points]

    def _startup(self, axes: list[Axis], numbers: Sequence[int]) -> Points:
        """Return points of a scrambled Sobol sequence: even over the space, whatever subset of axes one looks at."""
        scramble, qmc = self._random(0, _STARTUP, len(axes)), lean_import("scipy.stats.qmc")
        sequence = qmc.Sobol(len(axes), rng=scramble).random(2 ** max(numbers).bit_length())
        uniform = sequence[np.array(numbers)]
        return np.stack([axis.prior(uniform[:, i]) for i, axis in enumerate(axes)], axis=1)

    def _best_candidates(self, history: _History, numbers: Sequence[int], *stream: int) -> Points:
        """Draw candidates from l for every number; choose in order by l / g, each choice being added to g."""
        fitted, num, axes = history.fit(), self._num_candidates, history.axes
        uniform = np.concatenate([self._random(n, _DRAWN, *stream).random((num, len(axes) + 1)) for n in numbers])
        candidates = parzen.sample(fitted.good, uniform)
        of_candidates = parzen.features(axes, candidates)
        log_good = parzen.log_density(fitted.good, of_candidates)
        log_bad = np.logaddexp(parzen.log_density(fitted.bad, of_candidates), _log_lie(fitted.liars, of_candidates))
        chosen = []
        for start in range(0, len(candidates), num):
            rest = start + num
            best = start + int(np.argmax(log_good[start:rest] - log_bad[start:rest]))
            chosen.append(candidates[best])
            if rest < len(candidates):
                liar = parzen.fit(axes, candidates[best : best + 1], BAD_WIDTH, fitted.num_bad, prior=False)
                log_bad[rest:] = np.logaddexp(log_bad[rest:], _log_lie(liar, of_candidates[rest:]))
        return np.stack(chosen)

    def _random(self, *which: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, *which])

    def _view(self, study: optuna.Study) -> _View:
        if study not in self._views:
            self._views[study] = _View(study)
        return self._views[study]


class _Fit(NamedTuple):
    """The densities of one history."""

    good: Mixture  # l
    bad: Mixture  # g without …
    liars: Mixture  # … the running trials
    num_bad: int  # points in g, for which the width of its kernels was chosen
    liar_numbers: tuple[int, ...]  # theirs, ascending


class _History:
    """The trials of a study as points of one search space; grows with the study."""

    def __init__(self, space: Space, maximise: bool) -> None:
        self.names, self.axes = list(space), parzen.axes_of(space)
        self._sign = -1.0 if maximise else 1.0
        self._points: list[Float[np.ndarray, " axes"]] = []  # of the finished trials
        self._ranks: list[tuple[bool, int, float, int]] = []  # theirs: sorted, the best come first
        self._running: dict[int, Float[np.ndarray, " axes"]] = {}  # by number, ascending
        self._taken = 0  # finished trials looked at so far
        self._fitted: tuple[tuple[int, int], _Fit] | None = None

    @property
    def num_finished(self) -> int:
        return len(self._points)

    def update(self, finished: list[FrozenTrial], running: dict[int, FrozenTrial], asked_for: Sequence[int]) -> None:
        """Take in what happened; the trials being asked for do not count as running."""
        for trial in finished[self._taken :]:
            point = self._point(trial)
            if point is not None:
                self._points.append(point)
                self._ranks.append(self._rank(trial))
        self._taken = len(finished)
        before = self._running
        points = {n: before[n] if n in before else self._point(t) for n, t in running.items() if n not in asked_for}
        self._running = {number: point for number, point in points.items() if point is not None}

    def fit(self) -> _Fit:
        """Return the densities; those of the finished trials are made once, running trials are added as they come."""
        num_elite = _num_elite(self.num_finished, len(self._running))
        key = (self.num_finished, num_elite)
        fitted = self._fitted[1] if self._fitted and self._fitted[0] == key else self._fit_finished(num_elite)
        numbers, known = tuple(self._running), len(fitted.liar_numbers)
        if numbers[:known] != fitted.liar_numbers:  # one has ended, or one with a lower number has come
            fitted, known = fitted._replace(liars=self._kernels([], fitted.num_bad)), 0
        if numbers[known:]:
            new = self._kernels(list(self._running.values())[known:], fitted.num_bad)
            fitted = fitted._replace(liars=parzen.join(fitted.liars, new))
        fitted = fitted._replace(liar_numbers=numbers)
        self._fitted = key, fitted
        return fitted

    def _fit_finished(self, num_elite: int) -> _Fit:
        order = sorted(range(self.num_finished), key=self._ranks.__getitem__)
        points = np.reshape(self._points, (-1, len(self.axes)))[order]
        good, bad = points[:num_elite], points[num_elite:]
        return _Fit(
            good=parzen.fit(self.axes, good, GOOD_WIDTH, len(good)),
            bad=parzen.fit(self.axes, bad, BAD_WIDTH, len(bad)),
            liars=self._kernels([], len(bad)),
            num_bad=len(bad),
            liar_numbers=(),
        )

    def _kernels(self, points: list[Float[np.ndarray, " axes"]], size: int) -> Mixture:
        return parzen.fit(self.axes, np.reshape(points, (len(points), len(self.axes))), BAD_WIDTH, size, prior=False)

    def _point(self, trial: FrozenTrial) -> Float[np.ndarray, " axes"] | None:
        """Return a trial's coordinates; None if it lacks a parameter or has a value that is not searched here."""
        values = [trial.params[name] for name in self.names if name in trial.params]
        if len(values) < len(self.names) or not all(map(Axis.holds, self.axes, values)):
            return None
        return parzen.encode(self.axes, values)

    def _rank(self, trial: FrozenTrial) -> tuple[bool, int, float, int]:
        """Complete trials by value come first; then the pruned ones, by how far they came, then by value.

        Of equals the earlier one comes first: the order in which they were told would not survive a restart.
        """
        if trial.state == TrialState.COMPLETE:
            assert trial.value is not None
            return False, 0, self._sign * trial.value, trial.number
        step = max(trial.intermediate_values, default=-1)
        value = self._sign * trial.intermediate_values.get(step, math.nan)
        return True, -step, math.inf if math.isnan(value) else value, trial.number


class _View:
    """What the sampler knows of one study."""

    def __init__(self, study: optuna.Study) -> None:
        if len(study.directions) > 1:
            raise ValueError(
                "BatchTPESampler has one objective: for several use optuna.samplers.TPESampler or NSGAIISampler"
            )
        self._maximise = study.direction == StudyDirection.MAXIMIZE
        self._finished: list[FrozenTrial] = []  # complete or pruned, in the order in which that was seen
        self._running: dict[int, FrozenTrial] = {}  # by number, ascending
        self._open: list[int] = []  # places of the trials not finished when last looked at
        self._seen = 0
        self._histories: dict[tuple[tuple[str, BaseDistribution], ...], _History] = {}
        self._intersection = IntersectionSearchSpace(include_pruned=True)
        self._common: tuple[int, Space] = (0, {})

    def history(self, study: optuna.Study, space: Space, *asked_for: int) -> _History:
        """Return the up-to-date history of a search space."""
        self._look(study)
        key = tuple(space.items())
        if key not in self._histories:
            if len(self._histories) == _MAX_HISTORIES:
                del self._histories[next(iter(self._histories))]
            self._histories[key] = _History(space, self._maximise)
        self._histories[key].update(self._finished, self._running, asked_for)
        return self._histories[key]

    def common_space(self, study: optuna.Study, number: int) -> Space:
        """Return the parameters all finished trials share; before there are any, those of the first one asked for."""
        self._look(study)
        if not self._finished:
            others = (t.distributions for n, t in self._running.items() if n != number and t.distributions)
            return dict(sorted(next(others, {}).items()))
        if len(self._finished) != self._common[0]:
            self._common = len(self._finished), self._intersection.calculate(study)
        return dict(self._common[1])

    def _look(self, study: optuna.Study) -> None:
        """See which trials are new or have ended."""
        trials = study.get_trials(deepcopy=False)
        still_open = []
        for place in [*self._open, *range(self._seen, len(trials))]:
            trial = trials[place]
            self._running.pop(trial.number, None)
            if not trial.state.is_finished():
                still_open.append(place)
            if trial.state == TrialState.RUNNING:
                self._running[trial.number] = trial
            elif trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
                self._finished.append(trial)
        self._open, self._seen = still_open, len(trials)


def _num_elite(num_finished: int, num_running: int) -> int:
    """Return how many of the best trials make up l: 4 %, and more where many run, which keeps a batch apart."""
    return min(math.ceil(0.04 * num_finished), MAX_ELITE) + num_running // 16


def _log_lie(liars: Mixture, of_points: Float[np.ndarray, "points features"]) -> Float[np.ndarray, " points"]:
    return parzen.log_density(liars, of_points) + math.log(LIAR_WEIGHT)
