"""Small populations for the tests."""

from typing import Any

import jax
import numpy as np

from jaxdqn.block import Placement, Progress
from jaxdqn.config import Config, Layout
from jaxdqn.evaluate import Phase
from jaxdqn.hyperparams import Hyperparams, defaults, stack
from jaxdqn.judging import Names
from jaxdqn.population import Population

Lane = tuple[int, int]  # device, lane of its block
Named = tuple[int, int, Hyperparams]  # trial, seed index, hyperparameters


def fixing(hyperparams: Hyperparams, *varied: str) -> tuple[tuple[str, Any], ...]:
    """`Config.fixed` of a space that varies only the hyperparameters named."""
    return tuple((name, value) for name, value in hyperparams._asdict().items() if name not in varied)


def place(layout: Layout, agents: dict[Lane, Named], phases: dict[Lane, Phase] | None = None) -> Placement:
    """A placement of these agents into a row; those whose phase is not given are of the search."""
    shape = layout.row_shape
    fresh, trial, seed_index = np.zeros(shape, bool), np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    rows = {lane: agents.get(lane, (0, 0, defaults())) for lane in np.ndindex(*shape)}
    for lane, (number, index, _) in rows.items():
        fresh[lane], trial[lane], seed_index[lane] = lane in agents, number, index
    stacked = stack([hyperparams for _, _, hyperparams in rows.values()])
    phase = np.zeros_like(trial)
    for lane, its in (phases or {}).items():
        phase[lane] = its
    names = Names(phase, trial, seed_index)
    return Placement(fresh, names, Hyperparams(*(x.reshape(shape) for x in stacked)))


def made(config: Config, layout: Layout, seed: int = 0) -> Population:
    """A compiled population."""
    population = Population(config, layout, seed)
    population.compile()
    return population


def train(
    population: Population, agents: dict[Lane, Named], segments: list[int], phases: dict[Lane, Phase] | None = None
) -> Progress:
    """Place agents into row 0 (all else is left as it is) and run segments of so many ticks."""
    layout = population.layout
    for i, ticks in enumerate(segments):
        placement = place(layout, agents if i == 0 else {}, phases)
        population.dispatch(0, placement, np.full(layout.devices, ticks, np.int32))
    return population.read(0)


def agent_at(population: Population, lane: Lane) -> Any:
    """All of an agent's state but its replay, as NumPy arrays."""
    parts = [(part.agents, part.record) for part in population.rows[0]]
    return jax.tree.map(lambda *x: np.concatenate(x)[lane], *parts)


def same(a: Any, b: Any) -> bool:
    """Equal to the bit, leaf by leaf (NaNs are equal)."""
    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.array_equal(x, y, equal_nan=np.issubdtype(np.asarray(x).dtype, np.floating)) for x, y in leaves)
