"""Greedy episodes of one agent on given keys: validation, score, and later confirm and verdict."""

from __future__ import annotations

import math
from enum import IntEnum

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxdqn import network
from jaxdqn.agent import observe
from jaxdqn.config import Config
from jaxdqn.environment import make
from jaxdqn.hyperparams import Hyperparams
from jaxdqn.network import Params

MAX_CHUNK = 256  # episodes run side by side: enough to fill a matrix product, few enough to end together


class Stream(IntEnum):
    """The families of random keys; a study's key folded with one of these is that family's root."""

    TRAIN = 0
    VALIDATION = 1
    SCORE = 2


def greedy_returns(
    key: Array, params: Params, hyperparams: Hyperparams, config: Config, num_episodes: int
) -> Float[Array, " episodes"]:
    """Return of each of `num_episodes` greedy episodes; episode i depends on `fold_in(key, i)` and the agent alone.

    Episodes run in chunks of one fixed shape, and a chunk ends as soon as all its episodes have ended.
    """
    chunks = math.ceil(num_episodes / MAX_CHUNK)
    size = math.ceil(num_episodes / chunks)

    def chunk(index: Int[Array, ""]) -> Float[Array, " size"]:
        episodes = index * size + jnp.arange(size)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, episodes)
        return _run(keys, params, hyperparams, config)

    return jax.lax.map(chunk, jnp.arange(chunks)).reshape(-1)[:num_episodes]


def _run(keys: Array, params: Params, hyperparams: Hyperparams, config: Config) -> Float[Array, " episodes"]:
    env = make(config.env)
    keys_reset, keys_step = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
    env_state, obs = jax.vmap(env.reset)(keys_reset)
    Carry = tuple[Int[Array, ""], object, Array, Array, Array]

    def running(carry: Carry) -> Array:
        return ~jnp.all(carry[4])

    def advance(carry: Carry) -> Carry:
        time, env_state, obs, returns, done = carry
        seen = jax.vmap(lambda obs: observe(obs, hyperparams, config))(obs)
        q_values = network.q_values(params, seen, hyperparams, config)
        keys_now = jax.vmap(jax.random.fold_in, (0, None))(keys_step, time)
        step = jax.vmap(env.step)(keys_now, env_state, jnp.argmax(q_values, axis=-1))
        returns = returns + jnp.where(done, 0.0, step.reward)
        return time + 1, step.state, step.obs, returns, done | step.terminated | step.truncated

    num = keys.shape[0]
    start = (jnp.zeros((), jnp.int32), env_state, obs, jnp.zeros(num), jnp.zeros(num, bool))
    return jax.lax.while_loop(running, advance, start)[3]
