"""A tick of a block's agents: who explores, and who asks a network."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdqn import acting, agent, network, prng, replay
from jaxdqn.config import Config
from jaxdqn.hyperparams import Hyperparams, defaults, stack
from tests.helpers import fixing

CONFIG = Config(tick=4, slots=64, hidden_width=8, fixed=fixing(defaults(), "epsilon_start", "epsilon_end"))


def exploring(probability: float) -> Hyperparams:
    return defaults()._replace(epsilon_start=probability, epsilon_end=probability)


def ticked(lanes: list[Hyperparams], params: float | None = None) -> agent.Actor:
    """Return the lanes after a tick; their networks' parameters are drawn, or all this number."""
    hyperparams = jax.tree.map(jnp.asarray, stack(lanes))
    root = prng.root(3)
    keys = jax.vmap(lambda lane: agent.keys(prng.fold(root, lane)))(jnp.arange(len(lanes)))
    state = jax.vmap(lambda key, given: agent.init(key, CONFIG.specialise(given), CONFIG))(keys.init, hyperparams)
    if params is not None:
        state = state._replace(learner=jax.tree.map(lambda x: jnp.full_like(x, params), state.learner))
    ring = replay.init(CONFIG.slots, len(lanes), 4)
    tick = jax.jit(lambda *given: acting.act(*given, CONFIG)[0])
    return jax.block_until_ready(tick(keys.act, state.actor, ring, state.learner.params, hyperparams))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list with an entry for each time that a network is asked for a lane's Q-values."""
    entries: list[int] = []
    values = network.q_values

    def noted(*given: Any) -> jax.Array:
        jax.debug.callback(lambda: entries.append(1))
        return values(*given)

    monkeypatch.setattr(network, "q_values", noted)
    return entries


def test_no_network_is_asked_where_all_agents_of_a_block_explore(asked: list[int]) -> None:
    assert (ticked([exploring(1.0)] * 2).step == CONFIG.tick).all()
    jax.effects_barrier()
    assert not asked


def test_a_block_with_one_greedy_agent_asks_at_every_step(asked: list[int]) -> None:
    ticked([exploring(1.0), exploring(0.0)])
    jax.effects_barrier()
    assert len(asked) >= CONFIG.tick


def test_an_agent_does_the_same_whether_its_neighbour_asks_or_not() -> None:
    beside_a_greedy_one = ticked([exploring(1.0), exploring(0.0)])
    beside_another = ticked([exploring(1.0), exploring(1.0)])
    for ours, theirs in zip(jax.tree.leaves(beside_a_greedy_one), jax.tree.leaves(beside_another), strict=True):
        assert np.array_equal(ours[0], theirs[0])


def test_q_values_that_are_not_finite_end_an_agent_that_goes_by_them_and_no_other() -> None:
    after = ticked([exploring(1.0), exploring(0.0)], np.nan)
    assert after.diverged.tolist() == [False, True]
    assert after.alive.tolist() == [True, False]
    assert after.step.tolist() == [CONFIG.tick, 1]
