"""Selections among the lanes of a block."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, PyTree

from jaxdqn.network import Params

State = TypeVar("State")


def over(lanes: Bool[Array | np.ndarray, " lanes"], new: PyTree, old: PyTree) -> PyTree:
    """Take `new` in the lanes marked and `old` elsewhere."""
    return jax.tree.map(lambda a, b: jnp.where(lanes.reshape(lanes.shape + (1,) * (a.ndim - 1)), a, b), new, old)


def if_any(lanes: Bool[Array | np.ndarray, " lanes"], change: Callable[[State], State], state: State) -> State:
    """Apply `change` if any lane is marked: a loop of at most one turn, whose state XLA keeps in place.

    A `cond` would copy its whole state in each of its branches.
    """
    return jax.lax.fori_loop(0, jnp.any(lanes).astype(jnp.int32), lambda _, state: change(state), state)


def all_finite(params: Params, lanes: int) -> Bool[Array, " lanes"]:
    """Return in which lanes all parameters are finite."""
    leaves = [jnp.all(jnp.isfinite(leaf).reshape(lanes, -1), axis=1) for leaf in jax.tree.leaves(params)]
    return jnp.all(jnp.stack(leaves), axis=0)
