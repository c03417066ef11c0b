"""Who chooses hyperparameters, by the name a user gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import optuna
from optuna.samplers import BaseSampler, RandomSampler, TPESampler

from jaxdqn.grid import GridSampler
from jaxdqn.sampler import BatchTPESampler
from jaxdqn.space import Space

_ALWAYS = 2**31  # more start-up trials than a study can have


class Batch(Protocol):
    """A sampler that proposes many trials at once."""

    def propose(
        self, study: optuna.Study, search_space: dict[str, Any], numbers: Sequence[int]
    ) -> list[dict[str, Any]]:
        """Return the hyperparameters of the trials with these numbers."""


BATCH_SAMPLERS: dict[str, Callable[[int, Space], Batch]] = {
    "tpe": lambda seed, space: BatchTPESampler(seed=seed, search_space=space.searched),
    "sobol": lambda seed, space: BatchTPESampler(seed=seed, search_space=space.searched, num_startup_trials=_ALWAYS),
    "grid": lambda seed, space: GridSampler(space.searched, seed),
}
STOCK_SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {  # made anew for each trial, so that they repeat themselves
    "optuna-tpe": lambda seed: TPESampler(seed=seed, multivariate=True, constant_liar=True),
    "random": lambda seed: RandomSampler(seed=seed),
}
SAMPLERS = (*BATCH_SAMPLERS, *STOCK_SAMPLERS)
