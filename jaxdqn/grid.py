"""A sampler that asks for every cell of a grid once, in an order that has seen an even sample of it at any time.

Knows Optuna's distributions, nothing of studies: a trial's cell depends on the seed and the trial's number alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

MAX_CELLS = 10_000


class GridSampler:
    """Trial n gets cell P(n), where P is a permutation of all cells that the seed fixes.

    Args:
        space: what is searched; `check_grid` says whether it is small enough.
        seed: of the order.
    """

    def __init__(self, space: Mapping[str, BaseDistribution], seed: int) -> None:
        """Put the cells in order."""
        self.num_cells = cells(space)
        self._space = dict(space)
        self._order = np.random.default_rng(seed).permutation(self.num_cells)

    def propose(self, study: object, search_space: object, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """Return the cells of the trials with these numbers, whatever the study; its space is the one given at first.

        Raises:
            ValueError: the grid has fewer cells.
        """
        if numbers and max(numbers) >= self.num_cells:
            raise ValueError(f"trial {max(numbers)} is beyond the grid: it has {self.num_cells:,} cells")
        return [self._cell(int(self._order[number])) for number in numbers]

    def _cell(self, index: int) -> dict[str, Any]:
        params = {}
        for name, distribution in self._space.items():
            index, at = divmod(index, _count(name, distribution))
            params[name] = _value(distribution, at)
        return params


def cells(space: Mapping[str, BaseDistribution]) -> int:
    """Count the cells of the grid over a space.

    Raises:
        ValueError: a parameter is continuous.
    """
    return math.prod(_count(name, distribution) for name, distribution in space.items())


def check_grid(space: Mapping[str, BaseDistribution], seconds_per_trial: float) -> int:
    """Return the number of cells of the grid over a space.

    Raises:
        ValueError: there are more than `MAX_CELLS`, or a parameter is continuous.
    """
    num_cells = cells(space)
    if num_cells > MAX_CELLS:
        hours = max(num_cells * round(1000 * seconds_per_trial) // 3_600_000, 1)  # integers: no grid overflows them
        raise ValueError(
            f"a grid over this space has {num_cells:,} cells, about {round(hours, 2 - len(str(hours))):,} hours on "
            f"this machine: at most {MAX_CELLS:,} are allowed; use choices that are fewer, or another --sampler"
        )
    return num_cells


def _count(name: str, distribution: BaseDistribution) -> int:
    """Count the values of a parameter."""
    if isinstance(distribution, CategoricalDistribution):
        return len(distribution.choices)
    if isinstance(distribution, IntDistribution):
        return (distribution.high - distribution.low) // distribution.step + 1
    assert isinstance(distribution, FloatDistribution)
    if distribution.single():
        return 1
    if distribution.step is None:
        raise ValueError(f"{name} is continuous: a grid needs choices or a step")
    return round((distribution.high - distribution.low) / distribution.step) + 1


def _value(distribution: BaseDistribution, index: int) -> Any:
    """Return one of the values of a parameter."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[index]
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    return min(distribution.low + index * (distribution.step or 0), distribution.high)
