"""One saved agent at play, greedily: the returns of many episodes, or one episode as it went.

Its episodes come from a family of keys of their own, so they are none that an agent was trained, chosen or judged on.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxdqn import evaluate, network, prng
from jaxdqn.agent import observe
from jaxdqn.config import Config
from jaxdqn.environment import EnvState, Step, make
from jaxdqn.hyperparams import Hyperparams
from jaxdqn.network import Params
from jaxdqn.saved_agent import SavedAgent, config_of

_PHASE = 1_000  # of random keys: none of `evaluate.Phase`, which belong to a study


class Episode(NamedTuple):
    """One episode, from its first observation to its last; T actions lie between."""

    env: str
    observations: Float[np.ndarray, "T+1 obs"]  # as the environment gives them
    actions: Int[np.ndarray, " T"]
    rewards: Float[np.ndarray, " T"]
    total: float  # the return


def play(agent: SavedAgent, seed: int, num_episodes: int) -> Float[np.ndarray, " episodes"]:
    """Return of each of `num_episodes` greedy episodes."""
    shapes = {"config": config_of(agent), "max_episodes": num_episodes, "chunk": evaluate.chunk_of(num_episodes)}
    run = jax.jit(evaluate.greedy_returns, static_argnames=tuple(shapes))
    return np.asarray(run(_key(seed), agent.params, agent.hyperparams, num_episodes=num_episodes, **shapes))


def random_returns(env: str, seed: int, num_episodes: int) -> Float[np.ndarray, " episodes"]:
    """Return of each of `num_episodes` episodes of the random policy, on the starts that `play` has."""
    return np.asarray(jax.jit(partial(_random_returns, env, num_episodes=num_episodes))(_key(seed)))


def starts(env: str, seed: int, num_episodes: int) -> Float[np.ndarray, "episodes obs"]:
    """Return the first observation of each episode that `play` has."""
    return np.asarray(jax.jit(partial(_resets, env, num_episodes=num_episodes))(_key(seed))[1])


def episode(agent: SavedAgent, seed: int) -> Episode:
    """Let an agent play one greedy episode, the one of `play(agent, seed, 1)`."""
    key, config = _key(seed), config_of(agent)
    env, key_steps = make(agent.env), prng.fold(key, 0, 1)
    state, obs = jax.jit(env.reset)(prng.jax_key(prng.fold(key, 0, 0)))
    step = jax.jit(_step, static_argnames="config")
    observations, ended = [np.asarray(obs)], False
    actions: list[int] = []
    rewards: list[float] = []
    while not ended:
        time = np.int32(len(actions))
        action, after = step(key_steps, time, state, obs, agent.params, agent.hyperparams, config=config)
        state, obs = after.state, after.obs
        observations.append(np.asarray(obs))
        actions.append(int(action))
        rewards.append(float(after.reward))
        ended = bool(after.terminated | after.truncated)
    return Episode(agent.env, np.stack(observations), np.array(actions), np.array(rewards), float(sum(rewards)))


def _key(seed: int) -> prng.Key:
    return evaluate.family(prng.root(seed), evaluate.Stream.SCORE, _PHASE)


def _step(
    key_steps: prng.Key,
    time: Int[Array, ""],
    state: EnvState,
    obs: Float[Array, " obs"],
    params: Params,
    hyperparams: Hyperparams,
    config: Config,
) -> tuple[Int[Array, ""], Step]:
    q_values = network.q_values(params, observe(obs, hyperparams, config)[None], hyperparams, config)[0]
    action = jnp.argmax(q_values)
    return action, make(config.env).step(prng.jax_key(prng.fold(key_steps, time)), state, action)


def _resets(env: str, key: prng.Key, num_episodes: int) -> tuple[EnvState, Float[Array, "episodes obs"]]:
    def reset(episode: Int[Array, ""]) -> tuple[EnvState, Float[Array, " obs"]]:
        return make(env).reset(prng.jax_key(prng.fold(key, episode, 0)))

    return jax.vmap(reset)(jnp.arange(num_episodes))


def _random_returns(env: str, key: prng.Key, num_episodes: int) -> Float[Array, " episodes"]:
    made = make(env)
    keys = jax.vmap(lambda episode: prng.fold(key, episode, 1))(jnp.arange(num_episodes))

    def step(key: prng.Key, time: Int[Array, ""], state: EnvState) -> Step:
        word, _ = prng.words(key, time, 1)
        return made.step(prng.jax_key(prng.fold(key, time)), state, prng.below(word, jnp.int32(made.num_actions)))

    Carry = tuple[Int[Array, ""], EnvState, Array, Array]

    def running(carry: Carry) -> Array:
        return ~jnp.all(carry[3])

    def advance(carry: Carry) -> Carry:
        time, state, returns, done = carry
        after = jax.vmap(step, (0, None, 0))(keys, time, state)
        returns = returns + jnp.where(done, 0.0, after.reward)
        return time + 1, after.state, returns, done | after.terminated | after.truncated

    state, _ = _resets(env, key, num_episodes)
    start = (jnp.zeros((), jnp.int32), state, jnp.zeros(num_episodes), jnp.zeros(num_episodes, bool))
    return jax.lax.while_loop(running, advance, start)[2]
