"""One agent: its updates against optax and against exact shapes, and the end of its life."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from jaxdqn import agent, network, optimiser, prng
from jaxdqn.agent import Learner
from jaxdqn.config import Config
from jaxdqn.hyperparams import Hyperparams, defaults
from jaxdqn.network import Params
from jaxdqn.replay import Transition
from tests.helpers import fixing
from tests.test_network import cut

SEARCHED = ("learning_rate", "batch_size", "hidden_width", "hidden_layers", "double_q", "huber_loss", "max_grad_norm")
LARGE = Config(hidden_width=32, hidden_layers=3, linear=True, batch_sizes=(64,), fixed=fixing(defaults(), *SEARCHED))


def batches(num: int, size: int) -> Transition:
    """Frozen transitions, `num` batches of them."""
    keys = jax.random.split(jax.random.key(5), 5)
    return Transition(
        obs=jax.random.normal(keys[0], (num, size, 4)),
        action=jax.random.randint(keys[1], (num, size), 0, 2),
        reward=jax.random.normal(keys[2], (num, size)),
        next_obs=jax.random.normal(keys[3], (num, size, 4)),
        terminated=jax.random.bernoulli(keys[4], 0.2, (num, size)),
    )


def learner_of(params: Params) -> Learner:
    state = agent.init(prng.root(0), defaults(), Config()).learner
    moments = optimiser.init(params)
    return state._replace(params=params, target_params=jax.tree.map(lambda x: 0.9 * x, params), opt_state=moments)


def learned(learner: Learner, batches: Transition, hyperparams: Hyperparams, config: Config) -> Learner:
    @jax.jit
    def run(learner: Learner, hyperparams: Hyperparams) -> Learner:
        given = config.specialise(hyperparams)
        step = lambda x, batch: (agent.learn(x, jnp.array(True), jnp.int32(7), batch, given, config), None)  # noqa: E731
        return jax.lax.scan(step, learner, batches)[0]

    return run(learner, jax.tree.map(jnp.asarray, hyperparams))


@pytest.mark.parametrize(
    ("width", "depth", "size", "double_q", "huber"),
    [(8, 1, 16, True, False), (20, 2, 64, False, True), (32, 3, 33, True, True), (1, 0, 16, False, False)],
)
def test_a_masked_agent_learns_as_one_of_its_exact_shape(
    width: int, depth: int, size: int, double_q: bool, huber: bool
) -> None:
    hyperparams = defaults()._replace(
        hidden_width=width, hidden_layers=depth, batch_size=size, double_q=double_q, huber_loss=huber
    )
    params = agent.init(prng.root(1), jax.tree.map(jnp.asarray, hyperparams), LARGE).learner.params
    data = batches(100, 64)
    masked = learned(learner_of(params), data, hyperparams, LARGE)

    config = Config(
        hidden_width=width, hidden_layers=depth, linear=depth == 0, batch_sizes=(size,), fixed=fixing(hyperparams)
    )
    exact = learned(
        learner_of(cut(params, width, depth)), jax.tree.map(lambda x: x[:, :size], data), hyperparams, config
    )
    ours, theirs = ravel_pytree(cut(masked.params, width, depth))[0], ravel_pytree(exact.params)[0]
    assert jnp.linalg.norm(ours - theirs) <= 1e-4 * jnp.linalg.norm(theirs)
    assert jnp.linalg.norm(theirs - ravel_pytree(cut(params, width, depth))[0]) > 0.01
    if depth > 1:
        assert not masked.params["hidden_1"]["kernel"][width:].any()
        assert not masked.params["hidden_1"]["kernel"][:, width:].any()
    assert int(masked.updates) == 100


def test_an_update_is_optax_adam_behind_a_global_norm_clip() -> None:
    hyperparams = defaults()._replace(batch_size=64, hidden_width=32, max_grad_norm=0.1)
    config = Config(hidden_width=32, fixed=fixing(hyperparams))
    params = agent.init(prng.root(1), hyperparams, config).learner.params
    data = batches(10, 64)
    ours = learned(learner_of(params), data, hyperparams, config)

    optimiser = optax.chain(optax.clip_by_global_norm(0.1), optax.adam(hyperparams.learning_rate))
    theirs, state, target = params, optimiser.init(params), learner_of(params).target_params
    for i in range(10):
        batch = jax.tree.map(lambda x, i=i: x[i], data)
        grads = jax.grad(agent.loss)(theirs, target, batch, hyperparams, config)
        updates, state = optimiser.update(grads, state)
        theirs = optax.apply_updates(theirs, updates)
    assert np.allclose(ravel_pytree(ours.params)[0], ravel_pytree(theirs)[0], atol=1e-6)


def test_an_update_that_is_not_finite_is_not_made_and_marks_the_agent() -> None:
    config = Config(fixed=fixing(defaults()))
    state = agent.init(prng.root(1), defaults(), config).learner
    batch = jax.tree.map(lambda x: x[0], batches(1, 64))._replace(reward=jnp.full(64, jnp.inf))
    after = agent.learn(state, jnp.array(True), jnp.int32(0), batch, defaults(), config)
    assert not bool(after.finite)
    assert int(after.updates) == 0
    assert np.array_equal(ravel_pytree(after.params)[0], ravel_pytree(state.params)[0])


def test_an_update_that_is_not_due_changes_nothing() -> None:
    config = Config(fixed=fixing(defaults()))
    state = agent.init(prng.root(1), defaults(), config).learner
    batch = jax.tree.map(lambda x: x[0], batches(1, 64))._replace(reward=jnp.full(64, jnp.inf))
    after = agent.learn(state, jnp.array(False), jnp.int32(0), batch, defaults(), config)
    assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(state), strict=True))


@pytest.mark.parametrize(("step", "copied"), [(99, False), (100, True), (180, True)])
def test_the_target_is_copied_when_its_period_has_passed(step: int, copied: bool) -> None:
    hyperparams = defaults()._replace(target_period=100, tau=0.25)
    state = agent.init(prng.root(1), hyperparams, Config()).learner
    moved = state._replace(params=jax.tree.map(lambda x: x + 1.0, state.params))
    after = agent.copy_to_target(moved, jnp.array(True), jnp.int32(step), hyperparams)
    gained = ravel_pytree(after.target_params)[0] - ravel_pytree(state.target_params)[0]
    assert np.allclose(gained, 0.25 if copied else 0.0, atol=1e-6)
    assert int(after.last_copy) == (step if copied else 0)


def test_a_greedy_agent_takes_the_best_action_and_a_random_one_any() -> None:
    greedy, random = (defaults()._replace(epsilon_start=e, epsilon_end=e) for e in (0.0, 1.0))
    state = agent.init(prng.root(1), defaults(), Config())
    keys = agent.keys(prng.root(2))

    def actions(hyperparams: Hyperparams) -> set[int]:
        def one(step: jax.Array) -> jax.Array:
            chance = agent.chance(keys.act, step, hyperparams, Config())
            q_values = network.q_values(state.learner.params, state.actor.obs, hyperparams, Config())
            return agent.act(chance, state.actor, q_values, hyperparams, Config())[1].action

        return set(np.asarray(jax.vmap(one)(jnp.arange(50))).tolist())

    assert len(actions(greedy)) == 1
    assert actions(random) == {0, 1}
