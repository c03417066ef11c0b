"""The equations, with numbers worked out by hand; bait values would be picked up by a wrong index."""

import jax
import jax.numpy as jnp
import pytest

from jaxdqn import q_learning
from jaxdqn.hyperparams import Hyperparams, defaults


def test_the_target_is_the_reward_plus_the_discounted_value() -> None:
    assert q_learning.td_target(jnp.float32(2.0), jnp.array(False), jnp.float32(10.0), 0.9) == pytest.approx(11.0)


def test_a_terminal_state_has_no_future() -> None:
    assert q_learning.td_target(jnp.float32(2.0), jnp.array(True), jnp.float32(10.0), 0.9) == 2.0


def test_a_terminal_state_hides_a_value_that_is_not_finite() -> None:
    assert q_learning.td_target(jnp.float32(2.0), jnp.array(True), jnp.float32(jnp.inf), 0.9) == 2.0


@pytest.mark.parametrize(("double_q", "expected"), [(False, 7.0), (True, 3.0)])
def test_double_q_lets_the_online_network_choose_and_the_target_network_judge(double_q: bool, expected: float) -> None:
    online, target = jnp.array([1.0, 5.0, 4.0]), jnp.array([7.0, 3.0, -99.0])
    assert q_learning.next_value(online, target, double_q) == expected


@pytest.mark.parametrize(
    ("error", "huber", "expected"), [(0.5, False, 0.25), (-3.0, False, 9.0), (0.5, True, 0.125), (-3.0, True, 2.5)]
)
def test_losses_of_an_error(error: float, huber: bool, expected: float) -> None:
    assert q_learning.td_loss(jnp.float32(error), huber) == expected


def test_the_gradient_of_hubers_loss_is_at_most_one() -> None:
    assert jax.grad(lambda error: q_learning.td_loss(error, True))(jnp.float32(-8.0)) == -1.0


def hyperparams() -> Hyperparams:
    return defaults()._replace(
        epsilon_start=0.9,
        epsilon_end=0.1,
        epsilon_decay_steps=100,
        learning_rate=0.01,
        learning_rate_decay_steps=1_000,
        learning_rate_final_fraction=0.2,
    )


@pytest.mark.parametrize(("step", "expected"), [(0, 0.9), (25, 0.7), (100, 0.1), (5_000, 0.1)])
def test_epsilon_falls_linearly_from_step_zero(step: int, expected: float) -> None:
    assert q_learning.epsilon(jnp.int32(step), hyperparams()) == pytest.approx(expected)


@pytest.mark.parametrize(("step", "expected"), [(0, 0.01), (500, 0.006), (1_000, 0.002), (9_000, 0.002)])
def test_the_learning_rate_falls_linearly_to_its_fraction(step: int, expected: float) -> None:
    assert q_learning.learning_rate(jnp.int32(step), hyperparams()) == pytest.approx(expected)
