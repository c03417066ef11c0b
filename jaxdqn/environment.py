"""Environments: the only file that knows gymnax.

A time limit (`truncated`) is not a terminal state (`terminated`): the return would go on. When both are true the
terminal state wins.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxdqn.redact import short
from jaxdqn.startup import lean_import

MAX_OBS_SIZE = 1_024

PERFECT_RETURN = {"CartPole-v1": 500.0}  # the largest return of an episode, where one is known

# What imports in a moment; gymnax itself imports all its environments, and with them seaborn, pandas and SciPy: 3 s.
_CLASSIC = {
    "CartPole-v1": ("cartpole", "CartPole"),
    "Acrobot-v1": ("acrobot", "Acrobot"),
    "MountainCar-v0": ("mountain_car", "MountainCar"),
}

EnvState = Any  # a pytree of arrays, the environment's own


class Environment(NamedTuple):
    """One environment with a flat float observation and discrete actions, as pure functions."""

    reset: Callable[[Array], tuple[EnvState, Array]]  # key -> state, observation (obs_size,)
    step: Callable[[Array, EnvState, Array], Step]  # key, state, action -> Step; does not reset
    obs_size: int
    num_actions: int
    time_limit: int  # steps after which an episode is truncated
    perfect_return: float | None
    shipped: bool = False  # gymnax's own, not one that somebody has registered


class Step(NamedTuple):
    """What one environment step gives."""

    state: EnvState
    obs: Float[Array, " obs"]  # the observation reached, also where the episode ends there
    reward: Float[Array, ""]
    terminated: Bool[Array, ""]
    truncated: Bool[Array, ""]


@cache
def make(name: str) -> Environment:
    """Make environment `name` of gymnax.

    Raises:
        ValueError: it is unknown, or its actions or observations are of a kind a DQN here can't use.
    """
    env = _of_gymnax(name)
    params, spaces = env.default_params, lean_import("gymnax.environments.spaces")
    actions, observations = env.action_space(params), env.observation_space(params)
    if not isinstance(actions, spaces.Discrete):
        raise ValueError(f"environment {name!r} has {type(actions).__name__} actions: a DQN needs Discrete ones")
    if not isinstance(observations, spaces.Box):
        raise ValueError(f"environment {name!r} has {type(observations).__name__} observations: Box is allowed")
    obs_size = int(np.prod(observations.shape))
    if not 1 <= obs_size <= MAX_OBS_SIZE:
        raise ValueError(f"environment {name!r} observes {obs_size} values: at most {MAX_OBS_SIZE} are allowed")

    def reset(key: Array) -> tuple[EnvState, Array]:
        obs, state = env.reset_env(key, params)
        return _strong(state), jnp.ravel(obs).astype(jnp.float32)

    def step(key: Array, state: EnvState, action: Int[Array, ""]) -> Step:
        obs, next_state, reward, terminated, _ = env.step_env(key, state, action, params)
        return Step(
            state=_strong(next_state),
            obs=jnp.ravel(obs).astype(jnp.float32),
            reward=jnp.asarray(reward, jnp.float32),
            terminated=jnp.asarray(terminated, bool),
            truncated=jnp.asarray(env.is_truncated(next_state, params), bool),
        )

    return Environment(
        reset=reset,
        step=step,
        obs_size=obs_size,
        num_actions=int(actions.n),
        time_limit=int(params.max_steps_in_episode),
        perfect_return=PERFECT_RETURN.get(name),
        shipped=type(env).__module__.startswith("gymnax."),
    )


def _of_gymnax(name: str) -> Any:
    """Return gymnax's environment of that name."""
    if name in _CLASSIC:
        module, kind = _CLASSIC[name]
        return getattr(lean_import(f"gymnax.environments.classic_control.{module}"), kind)()
    import gymnax

    known = sorted(gymnax.registered_envs)
    if name not in known:
        near = difflib.get_close_matches(name, known, 1, 0.5)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
        raise ValueError(f"unknown environment {short(name)}: {hint}")
    try:
        return gymnax.make(name)[0]
    except Exception as error:  # some environments need files or packages that are not there
        raise ValueError(f"environment {name!r} can't be made: {error}") from error


class RandomPolicy(NamedTuple):
    """What the random policy sees and gets."""

    obs_mean: tuple[float, ...]  # of each observed value
    obs_std: tuple[float, ...]  # 1 where a value never changes
    mean_return: float


def random_policy(key: Array, environment: Environment, num_steps: int = 10_000) -> RandomPolicy:
    """Let the random policy act for so many steps, episode after episode."""

    def body(carry: tuple[EnvState, Array], key: Array) -> tuple[tuple[EnvState, Array], tuple[Array, Array, Array]]:
        key_action, key_step, key_reset = jax.random.split(key, 3)
        action = jax.random.randint(key_action, (), 0, environment.num_actions)
        step = environment.step(key_step, carry[0], action)
        done = step.terminated | step.truncated
        following = jax.tree.map(
            lambda a, b: jnp.where(done, a, b), environment.reset(key_reset), (step.state, step.obs)
        )
        return following, (carry[1], step.reward, done)

    key_reset, key_steps = jax.random.split(key)
    _, (observed, rewards, ends) = jax.lax.scan(
        body, environment.reset(key_reset), jax.random.split(key_steps, num_steps)
    )
    seen, got, last = (
        np.asarray(observed, np.float64),
        np.asarray(rewards, np.float64),
        np.flatnonzero(np.asarray(ends)),
    )
    std = seen.std(0)
    whole = got[: last[-1] + 1] if len(last) else got
    return RandomPolicy(
        obs_mean=tuple(map(float, seen.mean(0))),
        obs_std=tuple(map(float, np.where(std > 1e-6, std, 1.0))),
        mean_return=float(whole.sum() / max(len(last), 1)),
    )


def _strong(state: EnvState) -> EnvState:
    """Environments mix Python numbers into their states: give every leaf a fixed type, as loops need."""
    return jax.tree.map(lambda leaf: jax.lax.convert_element_type(leaf, jnp.asarray(leaf).dtype), state)
