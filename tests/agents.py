"""Agents for the tests: some that balance the pole, and networks as they are drawn."""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdqn import environment, network, prng
from jaxdqn.config import Config
from jaxdqn.hyperparams import Hyperparams, defaults
from jaxdqn.saved_agent import SavedAgent, trim

LARGE = Config(hidden_width=16, hidden_layers=3, linear=True)  # of a space with every shape up to this one


def linear(right: list[float], env: str = "CartPole-v1", **scores: Any) -> SavedAgent:
    """An agent that takes its last action where the product with the observation is above 0, else its first."""
    num_actions = environment.make(env).num_actions
    kernel = np.zeros((len(right), num_actions), np.float32)
    kernel[:, -1], kernel[:, 0] = right, np.negative(right)
    params = {"linear": {"kernel": kernel, "bias": np.zeros(num_actions, np.float32)}}
    key = {"study_seed": 0, "phase": "verdict", "trial": 3, "seed_index": 0}
    return SavedAgent(env, params, defaults()._replace(hidden_layers=0), (), (), key, scores)


def balancing(**scores: Any) -> SavedAgent:
    """An agent that never lets the pole fall."""
    return linear([0.1, 0.3, 1.0, 1.0], **scores)


def falling(**scores: Any) -> SavedAgent:
    """An agent that follows the angle alone, and swings higher and higher."""
    return linear([0.0, 0.0, 1.0, 0.0], **scores)


def masked(hyperparams: Hyperparams, seed: int = 0) -> Any:
    """A network as the population of `LARGE` holds it."""
    return network.init(prng.root(seed), jax.tree.map(jnp.asarray, hyperparams), LARGE)


@cache
def drawn(width: int, depth: int, env: str = "CartPole-v1", normalises: bool = False, seed: int = 0) -> SavedAgent:
    """An agent with a network as it is drawn."""
    hyperparams = defaults()._replace(hidden_width=width, hidden_layers=depth, normalize_obs=normalises)
    config = Config(env=env, hidden_width=width, hidden_layers=depth, linear=depth == 0)
    params = trim(network.init(prng.root(seed), hyperparams, config), hyperparams)
    obs_size = environment.make(env).obs_size
    mean = tuple(np.linspace(-0.1, 0.2, obs_size).tolist()) if normalises else ()
    std = tuple(np.linspace(0.3, 1.7, obs_size).tolist()) if normalises else ()
    return SavedAgent(env, params, hyperparams, mean, std, {"trial": 1}, {"mean_return": 9.5})
