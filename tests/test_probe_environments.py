"""A trained agent knows the Q-values of environments small enough to work them out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdqn import network
from jaxdqn.config import Config, Layout
from jaxdqn.hyperparams import defaults
from tests import probes
from tests.helpers import agent_at, fixing, made, train

HYPERPARAMS = defaults()._replace(
    learning_rate=5e-3,
    gamma=0.5,
    batch_size=32,
    buffer_size=512,
    warmup_steps=64,
    train_period=4,
    gradient_steps=4,
    target_period=16,
    hidden_width=16,
    hidden_layers=1,
    epsilon_end=1.0,
)


@pytest.mark.parametrize(
    ("env", "values"),
    [
        (probes.CONSTANT, {0.0: [1.0, 1.0]}),
        (probes.OBSERVATION, {-1.0: [-1.0, -1.0], 1.0: [1.0, 1.0]}),
        (probes.DISCOUNT, {0.0: [0.5, 0.5], 1.0: [1.0, 1.0]}),
        (probes.ACTION, {0.0: [-1.0, 1.0]}),
        (probes.TIME_LIMIT, {0.0: [2.0, 2.0]}),  # 1 / (1 − γ): the cut is not an end
    ],
)
def test_a_probe_environment_is_valued_as_it_should_be(env: str, values: dict[float, list[float]]) -> None:
    config = Config(
        env=env,
        env_steps=2_000,
        eval_episodes=1,
        tick=4,
        slots=512,
        batch_sizes=(32,),
        hidden_width=16,
        hidden_layers=1,
        fixed=fixing(HYPERPARAMS),
    )
    population = made(config, Layout(rows=1, devices=1, block=1))
    progress = train(population, {(0, 0): (0, 0, HYPERPARAMS)}, [500])
    assert not progress.diverged.any()
    params = jax.tree.map(jnp.asarray, agent_at(population, (0, 0))[0].learner.params)
    for obs, expected in values.items():
        assert np.allclose(network.q_values(params, jnp.array([obs]), HYPERPARAMS, config), expected, atol=0.03)
