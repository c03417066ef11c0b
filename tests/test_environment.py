"""The one file that knows gymnax: what it makes of an environment, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdqn import environment


def test_cartpole_is_what_it_is_known_to_be() -> None:
    env = environment.make("CartPole-v1")
    assert (env.obs_size, env.num_actions, env.time_limit, env.perfect_return) == (4, 2, 500, 500.0)


def test_a_time_limit_is_not_a_terminal_state() -> None:
    env = environment.make("MountainCar-v0")
    state, _ = env.reset(jax.random.key(0))
    step = env.step(jax.random.key(1), state.replace(time=199), jnp.int32(0))
    assert bool(step.truncated)
    assert not bool(step.terminated)


def test_the_step_that_ends_an_episode_still_shows_the_state_reached() -> None:
    env = environment.make("CartPole-v1")
    state, _ = env.reset(jax.random.key(0))
    step = env.step(jax.random.key(1), state.replace(x=jnp.float32(2.39), x_dot=jnp.float32(5.0)), jnp.int32(1))
    assert bool(step.terminated)
    assert step.obs[0] == pytest.approx(2.49)
    assert step.reward == 1.0


def test_statistics_of_the_random_policy_normalise_its_states() -> None:
    random = environment.random_policy(jax.random.key(0), environment.make("CartPole-v1"))
    assert np.allclose(random.obs_mean, 0.0, atol=0.05)
    assert np.allclose(random.obs_std, [0.1, 0.57, 0.1, 0.88], rtol=0.15)


def test_the_random_policy_is_worth_its_mean_return() -> None:
    for name, worth in (("CartPole-v1", 22.3), ("MountainCar-v0", -200.0)):
        random = environment.random_policy(jax.random.key(0), environment.make(name))
        assert random.mean_return == pytest.approx(worth, rel=0.1)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("CartPole-v0", "did you mean CartPole-v1"),
        ("Pendulum-v1", "Box actions: a DQN needs Discrete"),
        ("zzz", "known are"),
    ],
)
def test_an_environment_a_dqn_cannot_use_is_refused(name: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as refused:
        environment.make(name)
    assert name in str(refused.value)


def test_observations_of_many_axes_are_flattened() -> None:
    env = environment.make("Catch-bsuite")
    _, obs = env.reset(jax.random.key(0))
    assert obs.shape == (env.obs_size,) == (50,)
