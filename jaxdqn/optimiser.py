"""Adam (Kingma & Ba 2015), and the norm that a gradient is clipped by, as each platform makes them fastest."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float

from jaxdqn.network import Params

_B1, _B2, _EPS = 0.9, 0.999, 1e-8
_ADAM = optax.scale_by_adam(_B1, _B2, _EPS)
_TURN = np.int32(0x7EF311C3)  # about the sum of the bits of x and of 1/x


def init(params: Params) -> optax.ScaleByAdamState:
    """Return the moments before the first step."""
    state: optax.ScaleByAdamState = _ADAM.init(params)
    return state


def global_norm(gradient: Params) -> Float[Array, ""]:
    """Return the norm of all of a gradient's numbers."""
    norm: Array = jax.lax.platform_dependent(gradient, cpu=optax.tree.norm, default=_norm_at_once)
    return norm


def step(
    params: Params, state: optax.ScaleByAdamState, gradient: Params, rate: Float[Array, ""], keep: Bool[Array, ""]
) -> tuple[Params, optax.ScaleByAdamState]:
    """Return parameters and moments after one step, or as they are if it is not to be kept."""

    def kept(new: Array, old: Array) -> Array:
        return jnp.where(keep, new, old)

    _, moments = _ADAM.update(gradient, state)
    state = jax.tree.map(kept, moments, state)
    # Their order of computation, section 2: both bias corrections in one factor, outside the parameters.
    correction = jnp.sqrt(1.0 - _B2**state.count)
    rate = rate * correction / (1.0 - _B1**state.count)
    rate, floor = jax.lax.optimization_barrier((rate, _EPS * correction))  # one power for all parameters
    # A GPU makes moments and parameters in one kernel. A CPU would make each parameter's moments a second time.
    state = jax.lax.platform_dependent(state, cpu=jax.lax.optimization_barrier, default=lambda state: state)
    inverse = partial(jax.lax.platform_dependent, cpu=reciprocal, default=jnp.reciprocal)

    def descend(param: Array, mean: Array, square: Array) -> Array:
        return kept(param - rate * mean * inverse(jnp.sqrt(square) + floor), param)

    return jax.tree.map(descend, params, state.mu, state.nu), state


def reciprocal(x: Float[Array, "*any"]) -> Float[Array, "*any"]:
    """Return 1/x of positive numbers from 1e-37 to 1e37, within 2e-7 of it, without a division.

    A CPU has one slow unit for divisions and roots, which both would wait for: without the one an update of [256, 256]
    networks takes 0.97 of the time at batch size 32, 0.98 at 128. Bits taken from a constant turn the exponent around,
    which is right to 13 %; each of Newton's steps, y + y (1 − x y), squares what is wrong.
    """
    y = jax.lax.bitcast_convert_type(_TURN - jax.lax.bitcast_convert_type(x, jnp.int32), jnp.float32)
    for _ in range(3):
        y = y * (2.0 - x * y)
    return y


def _norm_at_once(gradient: Params) -> Float[Array, ""]:
    """Return the norm in one kernel, where leaf by leaf would be one each."""
    return jnp.linalg.norm(ravel_pytree(gradient)[0])
