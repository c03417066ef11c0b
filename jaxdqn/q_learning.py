"""The equations of DQN for one transition (Mnih et al. 2015, Algorithm 1).

Nothing here knows of batches, networks or environments: vmap adds the batch.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxdqn.hyperparams import Hyperparams


def epsilon(step: Int[Array, ""], hyperparams: Hyperparams) -> Float[Array, ""]:
    """Probability of a random action: linear from `epsilon_start` at step 0 to `epsilon_end`."""
    share = jnp.minimum(step / hyperparams.epsilon_decay_steps, 1.0)
    return hyperparams.epsilon_start + share * (hyperparams.epsilon_end - hyperparams.epsilon_start)


def learning_rate(step: Int[Array, ""], hyperparams: Hyperparams) -> Float[Array, ""]:
    """α(t) = α (1 − (1 − f) min(t / T, 1)): falls linearly to the fraction f over T environment steps."""
    share = jnp.minimum(step / hyperparams.learning_rate_decay_steps, 1.0)
    return hyperparams.learning_rate * (1.0 - (1.0 - hyperparams.learning_rate_final_fraction) * share)


def next_value(
    next_q: Float[Array, " actions"], next_target_q: Float[Array, " actions"], double_q: Bool[Array, ""] | bool
) -> Float[Array, ""]:
    """V(s′) = Q′(s′, a*): a* maximises Q′ itself, or with double Q the online Q (van Hasselt et al. 2016)."""
    best_q, value = jnp.where(double_q, next_q[0], next_target_q[0]), next_target_q[0]
    for action in range(1, next_q.shape[0]):  # one kernel, where an argmax and a sum would be two
        q = jnp.where(double_q, next_q[action], next_target_q[action])
        better = (q > best_q) | (jnp.isnan(q) & ~jnp.isnan(best_q))
        best_q, value = jnp.where(better, q, best_q), jnp.where(better, next_target_q[action], value)
    return value


def td_target(
    reward: Float[Array, ""], terminated: Bool[Array, ""], value: Float[Array, ""], gamma: Float[Array, ""] | float
) -> Float[Array, ""]:
    """Y = r + γ (1 − terminated) V(s′). A time limit is not a termination: the return goes on."""
    return reward + gamma * jnp.where(terminated, 0.0, value)


def td_loss(td_error: Float[Array, ""], huber_loss: Bool[Array, ""] | bool) -> Float[Array, ""]:
    """δ², or Huber's loss: δ²/2 where |δ| ≤ 1 and |δ| − 1/2 beyond (Huber 1964)."""
    size = jnp.abs(td_error)
    huber = jnp.where(size <= 1.0, 0.5 * td_error**2, size - 0.5)
    return jnp.where(huber_loss, huber, td_error**2)
