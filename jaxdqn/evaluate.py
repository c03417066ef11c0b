"""Greedy episodes of one agent on given keys: of its validations and of its score."""

from __future__ import annotations

import math
from enum import IntEnum
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxdqn import network, prng
from jaxdqn.agent import observe
from jaxdqn.config import Config
from jaxdqn.environment import make
from jaxdqn.hyperparams import Hyperparams
from jaxdqn.network import Params

MAX_CHUNK = 256  # episodes run side by side: enough to fill a matrix product, few enough to end together
MIN_CHUNK = 64  # a chunk this wide takes hardly longer than a narrower one


class Phase(IntEnum):
    """What an agent is trained for. No two phases share a random key: what one has chosen is news to the next."""

    SEARCH = 0
    CONFIRM = 1  # the best trials, to choose the winner
    VERDICT = 2  # the winner, for the figure that is published
    RETRAIN = 3  # at a user's wish


class Stream(IntEnum):
    """What random keys are for; a study's key folded with one of these and a phase is the root of a family."""

    TRAIN = 0
    VALIDATION = 1
    SCORE = 2


def family(root: prng.Key, stream: Stream, phase: Int[Array, ""] | int) -> prng.Key:
    """Return the root of a family of keys."""
    return prng.fold(root, stream, phase)


class Flawless(NamedTuple):
    """Episodes end when one of them is not perfect, if there have been enough."""

    at_least: int
    perfect_return: float


def greedy_returns(
    key: prng.Key,
    params: Params,
    hyperparams: Hyperparams,
    config: Config,
    num_episodes: Int[Array, ""] | int,
    max_episodes: int,
    chunk: int,
    flawless: Flawless | None = None,
) -> Float[Array, " max_episodes"]:
    """Return of each of `num_episodes` greedy episodes, then NaN; episode i depends on the key, i and the agent alone.

    Episodes run in chunks of the one shape (chunk,), and a chunk ends as soon as all its episodes have ended.
    """
    chunks = math.ceil(max_episodes / chunk)

    Carry = tuple[Int[Array, ""], Float[Array, "chunks chunk"], Bool[Array, ""]]

    def goes_on(carry: Carry) -> Bool[Array, ""]:
        played = carry[0] * chunk
        wanted = num_episodes if flawless is None else jnp.where(carry[2], num_episodes, flawless.at_least)
        return played < wanted

    def run_chunk(carry: Carry) -> Carry:
        index, returns, good = carry
        episodes = index * chunk + jnp.arange(chunk)
        wanted = episodes < num_episodes
        played = _run(key, episodes, wanted, params, hyperparams, config)
        if flawless is not None:
            good &= jnp.all((played >= flawless.perfect_return) | ~wanted)
        return index + 1, returns.at[index].set(jnp.where(wanted, played, jnp.nan)), good

    start = (jnp.zeros((), jnp.int32), jnp.full((chunks, chunk), jnp.nan), jnp.ones((), bool))
    return jax.lax.while_loop(goes_on, run_chunk, start)[1].reshape(-1)[:max_episodes]


def chunk_of(num_episodes: int) -> int:
    """Return the shape of chunks that suits so many episodes."""
    return math.ceil(num_episodes / math.ceil(num_episodes / MAX_CHUNK))


def _run(
    key: prng.Key,
    episodes: Int[Array, " episodes"],
    wanted: Bool[Array, " episodes"],
    params: Params,
    hyperparams: Hyperparams,
    config: Config,
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
    start = (jnp.zeros((), jnp.int32), env_state, obs, jnp.zeros(num), ~wanted)
    return jax.lax.while_loop(running, advance, start)[3]
