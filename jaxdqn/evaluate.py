"""Greedy episodes of one agent on given keys: validation, score, and later confirm and verdict."""

from __future__ import annotations

import math
from enum import IntEnum

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxdqn import network, prng
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
    key: prng.Key, params: Params, hyperparams: Hyperparams, config: Config, num_episodes: int
) -> Float[Array, " episodes"]:
    """Return of each of `num_episodes` greedy episodes; episode i depends on the key, i and the agent alone.

    Episodes run in chunks of one fixed shape, and a chunk ends as soon as all its episodes have ended.
    """
    chunks = math.ceil(num_episodes / MAX_CHUNK)
    size = math.ceil(num_episodes / chunks)

    def chunk(index: Int[Array, ""]) -> Float[Array, " size"]:
        return _run(key, index * size + jnp.arange(size), params, hyperparams, config)

    return jax.lax.map(chunk, jnp.arange(chunks)).reshape(-1)[:num_episodes]


def _run(
    key: prng.Key, episodes: Int[Array, " episodes"], params: Params, hyperparams: Hyperparams, config: Config
) -> Float[Array, " episodes"]:
    env = make(config.env)
    env_state, obs = jax.vmap(lambda episode: env.reset(prng.jax_key(prng.fold(key, episode, 0))))(episodes)
    keys_step = jax.vmap(lambda episode: prng.fold(key, episode, 1))(episodes)
    Carry = tuple[Int[Array, ""], object, Array, Array, Array]

    def running(carry: Carry) -> Array:
        return ~jnp.all(carry[4])

    def advance(carry: Carry) -> Carry:
        time, env_state, obs, returns, done = carry
        seen = jax.vmap(lambda obs: observe(obs, hyperparams, config))(obs)
        q_values = network.q_values(params, seen, hyperparams, config)
        keys_now = jax.vmap(lambda key: prng.jax_key(prng.fold(key, time)))(keys_step)
        step = jax.vmap(env.step)(keys_now, env_state, jnp.argmax(q_values, axis=-1))
        returns = returns + jnp.where(done, 0.0, step.reward)
        return time + 1, step.state, step.obs, returns, done | step.terminated | step.truncated

    num = episodes.shape[0]
    start = (jnp.zeros((), jnp.int32), env_state, obs, jnp.zeros(num), jnp.zeros(num, bool))
    return jax.lax.while_loop(running, advance, start)[3]
