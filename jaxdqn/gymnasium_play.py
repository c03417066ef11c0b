"""A saved agent in Gymnasium's own environments: the only file that knows Gymnasium.

The same task in another implementation (float64, no JAX), with the network computed by NumPy: a check on both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from jaxtyping import Float

from jaxdqn.network import Params
from jaxdqn.saved_agent import SavedAgent, layers

_SIDE_BY_SIDE = 256  # environments that step together, so that the network sees them as one batch

# How the state of an environment follows from its first observation.
_STATE_OF: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "CartPole-v1": lambda obs: obs,
    "MountainCar-v0": lambda obs: obs,
    "Acrobot-v1": lambda obs: np.array([np.arctan2(obs[1], obs[0]), np.arctan2(obs[3], obs[2]), obs[4], obs[5]]),
}


def check(env: str) -> None:
    """Check that an agent of environment `env` can play here.

    Raises:
        ValueError: it can't.
    """
    if env not in _STATE_OF:
        raise ValueError(f"environment {env!r} is not compared with Gymnasium's: {', '.join(_STATE_OF)} are")


def gymnasium_returns(
    agent: SavedAgent, seed: int, num_episodes: int, starts: Float[np.ndarray, "episodes obs"] | None = None
) -> Float[np.ndarray, " episodes"]:
    """Return of each of `num_episodes` greedy episodes; they begin where `starts` says, else where Gymnasium does.

    Raises:
        ValueError: the environment is not compared, or there are not as many starts as episodes.
    """
    check(agent.env)
    if starts is not None and len(starts) != num_episodes:
        raise ValueError(f"{len(starts)} starts are not allowed: one an episode, {num_episodes}")
    seeds = np.random.SeedSequence(seed).generate_state(num_episodes)
    count = min(_SIDE_BY_SIDE, num_episodes)
    envs = [gymnasium.make(agent.env, disable_env_checker=True) for _ in range(count)]
    returns = np.zeros(num_episodes)
    try:
        for first in range(0, num_episodes, count):
            chunk = slice(first, min(first + count, num_episodes))
            returns[chunk] = _run(agent, envs, seeds[chunk], None if starts is None else starts[chunk])
    finally:
        for env in envs:
            env.close()
    return returns


def _run(agent: SavedAgent, envs: list[Any], seeds: np.ndarray, starts: np.ndarray | None) -> np.ndarray:
    """Run one episode in each environment; one that has ended is not stepped again."""
    obs = np.stack([env.reset(seed=int(seed))[0] for env, seed in zip(envs, seeds, strict=False)])
    if starts is not None:
        obs = np.asarray(starts, np.float32).copy()
        for env, start in zip(envs, obs, strict=False):
            env.unwrapped.state = _STATE_OF[agent.env](start.astype(np.float64))
    returns, running = np.zeros(len(obs)), list(range(len(obs)))
    while running:
        actions = np.argmax(_q_values(agent, obs[running]), axis=-1)
        after = [envs[i].step(int(action)) for i, action in zip(running, actions, strict=True)]
        for i, (seen, reward, _, _, _) in zip(running, after, strict=True):
            obs[i] = seen
            returns[i] += reward
        running = [
            i
            for i, (_, _, terminated, truncated, _) in zip(running, after, strict=True)
            if not (terminated or truncated)
        ]
    return returns


def _q_values(agent: SavedAgent, obs: Float[np.ndarray, "batch obs"]) -> Float[np.ndarray, "batch actions"]:
    params: Params = agent.params
    hidden = obs
    if agent.obs_mean:
        hidden = (obs - np.array(agent.obs_mean, np.float32)) / np.array(agent.obs_std, np.float32)
    *hidden_layers, last = layers(agent.hyperparams)
    for layer in hidden_layers:
        hidden = np.maximum(hidden @ params[layer]["kernel"] + params[layer]["bias"], np.float32(0))
    values: np.ndarray = hidden @ params[last]["kernel"] + params[last]["bias"]
    return values
